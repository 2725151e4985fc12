"""The search engine: BM25 with the settings of the original (Lucene's k1 = .9, b = .4, and its English analyser)."""

from __future__ import annotations

import os
import re
import tempfile
from functools import lru_cache
from pathlib import Path

import bm25s
import numpy as np
import Stemmer

from qsft.envs.webshop.catalogue import Catalogue
from qsft.errors import ConfigError, DataError

K1, B = 0.9, 0.4
#: Products that a search finds at most.
FOUND = 50
# Lucene refuses a query of more than 1,024 terms; here what is beyond some 1,500 words is not read.
_LONGEST = 10_000
_WORD = re.compile(r"\w+(?:[.'’]\w+)*")
_POSSESSIVE = re.compile(r"['’]s$")
_STOP = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with"
)
_STOP_WORDS = frozenset(_STOP.split())


class SearchEngine:
    """Finds the products of a catalogue.

    Args:
        catalogue: whose products are found.
        folder: where indexes are kept; one that is there is read (its large parts stay on disk), one that is not is
            made. ``None`` makes it in memory.

    Raises:
        ConfigError: the folder cannot be written.
        DataError: the index in it is damaged.
    """

    def __init__(self, catalogue: Catalogue, folder: str | os.PathLike[str] | None = None) -> None:
        self._terms = Analyser()
        path = None if folder is None else Path(folder) / catalogue.key
        if path is not None and path.is_dir():
            self._index = _load(path)
        else:
            self._index = self._make(catalogue)
            if path is not None:
                _save(self._index, path)
                self._index = _load(path)
        self._found = lru_cache(maxsize=4096)(self._search)

    def find(self, query: str) -> tuple[int, ...]:
        """Numbers of the products that fit best, at most 50, the best first; none that shares no term."""
        return self._found(query[:_LONGEST])

    def _make(self, catalogue: Catalogue) -> bm25s.BM25:
        vocabulary: dict[str, int] = {}
        documents = [
            [vocabulary.setdefault(term, len(vocabulary)) for term in self._terms(catalogue.document(number))]
            for number in range(len(catalogue))
        ]
        index = bm25s.BM25(k1=K1, b=B, method="lucene")
        index.index((documents, vocabulary), show_progress=False)
        return index

    def _search(self, query: str) -> tuple[int, ...]:
        ids = self._index.get_tokens_ids(self._terms(query))
        if not ids:
            return ()
        scores = self._index.get_scores_from_ids(ids)
        hits = np.flatnonzero(scores)
        if len(hits) > FOUND:
            hits = hits[scores[hits] >= np.partition(scores[hits], -FOUND)[-FOUND]]
        # Of equal scores the lower number comes first, as in Lucene.
        order = np.argsort(-scores[hits], kind="stable")[:FOUND]
        return tuple(hits[order].tolist())


class Analyser:
    """Text to terms: words in lower case without stop words, stemmed (Porter), as Lucene's English analyser."""

    def __init__(self) -> None:
        self._stem = lru_cache(maxsize=1 << 16)(Stemmer.Stemmer("porter").stemWord)

    def __call__(self, text: str) -> list[str]:
        words = (_POSSESSIVE.sub("", word) for word in _WORD.findall(text.lower()))
        return [self._stem(word) for word in words if word not in _STOP_WORDS]


def _load(path: Path) -> bm25s.BM25:
    try:
        return bm25s.BM25.load(path, mmap=True, show_progress=False)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: the search index is damaged ({error}); delete that folder, it is made anew"
        ) from error


def _save(index: bm25s.BM25, path: Path) -> None:
    """All of it or nothing: two processes may make the same index."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as draft:
            index.save(Path(draft) / "index", show_progress=False)
            try:
                os.replace(Path(draft) / "index", path)
            except OSError:
                if not path.is_dir():  # else another process was faster, with the same content
                    raise
    except OSError as error:
        raise ConfigError(
            f"webshop: index: {path.parent}: no search index can be kept there ({error.strerror}); choose another folder"
        ) from error
