"""The vocabulary: our own list of answers, or the user's."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from qsft.errors import ConfigError

_WORD = re.compile(r"[a-z]{5}")


def load_words(words: str | os.PathLike[str] | Sequence[str] | None = None) -> tuple[str, ...]:
    """The vocabulary, in the order given.

    Args:
        words: ``None`` for the list that comes with the package (452 words), a path of a UTF-8 file with one word a
            line, or the words themselves.

    Raises:
        ConfigError: a file that cannot be read, no word at all, one that is not five letters a-z, or one given twice.
    """
    if words is None:
        text = resources.files("qsft.envs.wordle").joinpath("words.txt").read_text(encoding="utf-8")
        return tuple(text.split())
    if isinstance(words, str | os.PathLike):
        where = str(words)
        try:
            found: Sequence[str] = Path(words).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{where}: cannot read the word list ({error}); give a UTF-8 file of one word a line"
            ) from error
    else:
        where, found = "words", list(words)
    seen: dict[str, int] = {}
    for row, word in enumerate(found, start=1):
        if not isinstance(word, str) or not _WORD.fullmatch(word):
            raise ConfigError(f"{where}: row {row}: {word!r:.60} is not five letters a-z; correct or remove it")
        if word in seen:
            raise ConfigError(f"{where}: row {row}: {word!r} is already in row {seen[word]}; remove one of them")
        seen[word] = row
    if not seen:
        raise ConfigError(f"{where}: the word list is empty; give at least one five-letter word")
    return tuple(seen)
