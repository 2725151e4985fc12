"""A language model of a game's language, made before any game is seen: what a study's runs start from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from qsft.data.files import load_trajectories, write_trajectories
from qsft.data.pictures import picture_folder, save_pictures
from qsft.data.progress import RowProgress
from qsft.data.trajectory import Trajectory
from qsft.envs import make
from qsft.errors import ConfigError
from qsft.models.scratch import bpe_tokenizer
from qsft.training import RunSettings, train


def pretrain(
    settings: Mapping[str, Any],
    env: str,
    env_options: Mapping[str, Any],
    model: str | dict[str, Any],
    work: Path,
    quiet: bool = False,
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None = None,
) -> Path:
    """Train a model on the environment's texts, unless that is done.

    Args:
        settings: ``texts``, how many; ``vocabulary``, the size of a tokenizer to be made of them, where none is given;
            ``seed``, of texts and weights (default 0); and fields of :class:`qsft.training.SFTConfig`.
        env, env_options: whose :meth:`~qsft.envs.base.Environment.corpus` to read.
        model: as in :class:`qsft.training.RunSettings`.
        work: folder for the texts and the model.
        quiet: no progress bars.
        tokenizer: of the model, in place of one made of the texts; of a model that sees, its processor.

    Returns:
        Folder of the model, its tokenizer beside it.

    Raises:
        ConfigError: ``texts`` or ``vocabulary`` is missing, a vocabulary's size beside a tokenizer, or the environment
            has no texts.
    """
    sizes, stage = read_settings(settings, own_tokenizer=tokenizer is not None)
    folder, data = work / "pretrained", work / "corpus.jsonl"
    work.mkdir(parents=True, exist_ok=True)
    with FileLock(work / "pretrained.lock"):  # seeds that are done at once wait for the one model
        if (folder / "tokenizer.json").exists():  # the last that a run writes
            return folder
        if not data.exists():
            corpus = make(env, **env_options).corpus(sizes["texts"], sizes["seed"])
            write_trajectories(data, _kept(corpus, sizes["texts"], picture_folder(data), quiet))
        if tokenizer is None:
            turns = (turn.text for text in load_trajectories(data) for turn in text.turns)
            tokenizer = bpe_tokenizer(turns, sizes["vocabulary"])
        plan = RunSettings("sft", str(data), model, format="text", behaviour=stage, seed=sizes["seed"])
        return train(plan, folder, tokenizer=tokenizer, resume=folder.exists(), cache_dir=work / "cache", quiet=quiet)


def _kept(corpus: Iterable[Trajectory], count: int, pictures: Path, quiet: bool) -> Iterator[Trajectory]:
    """The ``count`` texts with their numbers, their pictures in files; shows how many are made."""
    made = 0
    bar = nullcontext() if quiet else RowProgress("Texts to pretrain on", lambda: made / count)
    with bar as progress:
        for made, text in enumerate(corpus, start=1):
            numbered = dataclasses.replace(text, metadata={**text.metadata, "episode": made - 1})
            yield save_pictures(numbered, pictures)
            if progress is not None:
                progress.advance()


def read_settings(settings: Mapping[str, Any], own_tokenizer: bool) -> tuple[dict[str, int], dict[str, Any]]:
    """The numbers ``texts``, ``vocabulary`` and ``seed`` of :func:`pretrain`, and the fields of its stage.

    Args:
        settings: as there.
        own_tokenizer: there is a tokenizer, so none is made.

    Raises:
        ConfigError: a number is missing, none, or there beside a tokenizer.
    """
    stage = dict(settings)
    needed = ("texts",) if own_tokenizer else ("texts", "vocabulary")
    missing = [name for name in needed if name not in stage]
    if missing:
        raise ConfigError(f"pretrain: {missing[0]} is missing; give the number of texts and the vocabulary's size.")
    if own_tokenizer and "vocabulary" in stage:
        raise ConfigError("pretrain: vocabulary: the study's tokenizer has one; take one of the two out.")
    sizes = {"seed": stage.pop("seed", 0), **{name: stage.pop(name) for name in needed}}
    for name, value in sizes.items():
        least = 0 if name == "seed" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"pretrain: {name}: {value!r:.40} must be a whole number of at least {least}.")
    return sizes, stage
