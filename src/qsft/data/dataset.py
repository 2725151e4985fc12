"""Tokenised trajectories as a dataset on disk (Arrow, memory-mapped): what training reads."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa

from qsft.data.columns import TokenColumns
from qsft.data.files import PathLike, RowFile, replacing, row_number
from qsft.data.pictures import with_paths
from qsft.data.progress import RowProgress
from qsft.data.rows import trajectory_from_row
from qsft.data.tokenize import TrajectoryTokenizer
from qsft.data.trajectory import Trajectory
from qsft.errors import ConfigError, DataError

#: Part of every cache's name: raised whenever the same input gives other rows.
LAYOUT = 2
FEATURES = datasets.Features(
    {
        "input_ids": datasets.List(datasets.Value("int32")),
        "agent_mask": datasets.List(datasets.Value("int8")),
        "turn_end": datasets.List(datasets.Value("int8")),
        "turn_rewards": datasets.List(datasets.Value("float64")),
        "terminated": datasets.Value("bool"),
        "episode": datasets.Value("int64"),
        "episode_return": datasets.Value("float64"),
    }
)
#: Of rows that were made with a processor: the files of their images.
_IMAGES = {"images": datasets.List(datasets.Value("string"))}
#: Of rows whose turns are read each in a context of its own: the tokens of each context.
_CONTEXTS = {"contexts": datasets.List(datasets.Value("int32"))}
_ROWS_A_BATCH = 500
logger = logging.getLogger("qsft")


def tokenize_file(
    source: PathLike | Iterable[Trajectory], trajectory_tokenizer: TrajectoryTokenizer, cache_dir: PathLike
) -> datasets.Dataset:
    """Tokenise a file of trajectories into an Arrow file, or find the one that was made before.

    Memory stays flat: rows go through in batches and the result is memory-mapped. The Arrow file's name holds a hash of
    the source's content, the settings, the vocabulary and the chat template, so it is used again only where all of
    these are the same.

    Args:
        source: a path (see :class:`qsft.data.files.RowFile`), or trajectories, which are tokenised each time.
        cache_dir: folder for the Arrow files; made if there is none.

    Returns:
        a dataset with the columns of :meth:`TrajectoryTokenizer.__call__` and ``episode``, the index of the row in the
        source, from 0; with a processor also ``images``, the absolute paths of the row's images, which stand in a file
        relative to its folder. Pixels are never stored. With ``max_exchanges`` also ``contexts``.

    Raises:
        DataError: naming file, row, field and remedy; no file is left then.
    """
    folder = Path(cache_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}); choose another cache_dir") from None
    settings = trajectory_tokenizer.fingerprint()
    if isinstance(source, str | Path) or hasattr(source, "__fspath__"):
        file = RowFile(source)  # type: ignore[arg-type]
        if trajectory_tokenizer.images is not None:
            settings += f" {file.folder.resolve()}"  # the images' paths are part of the rows
        path = folder / f"tokens-{_key(settings, content_hash(file.path))}.arrow"
        if not path.exists():
            with RowProgress(f"Tokenising {file.path.name}", file.fraction) as progress:
                _write(path, _from_file(file), trajectory_tokenizer, progress, str(file.path))
    else:
        making = folder / f"tokens-{os.getpid()}.arrow"
        with RowProgress("Tokenising") as progress:
            numbered = ((f"trajectory {i}", with_paths(each, Path())) for i, each in enumerate(source, 1))
            _write(making, numbered, trajectory_tokenizer, progress, "the trajectories")
        path = folder / f"tokens-{_key(settings, content_hash(making))}.arrow"
        making.replace(path)
    return datasets.Dataset.from_file(str(path))


def agent_token_ids(dataset: datasets.Dataset) -> np.ndarray:
    """The distinct ids that the agent produces anywhere in the dataset, in ascending order."""
    found = np.zeros(0, np.int64)
    for ids, mask, _ in _tokens(dataset):
        found = np.union1d(found, ids[mask == 1])
    return found


def check_dummy_token(dataset: datasets.Dataset, token_id: int, source: str = "data") -> None:
    """Verify that a token is never the agent's, as the likelihood model's dummy token must be.

    Args:
        source: how the error names the data, for example the file's path.

    Raises:
        DataError: naming the first row in which it is.
    """
    for ids, mask, rows in _tokens(dataset):
        hits = np.flatnonzero((ids == token_id) & (mask == 1))
        if len(hits):
            raise DataError(
                f"{source}: row {row_number(source, int(rows[hits[0]]))}: the agent produces token {token_id}, "
                "which is to be the dummy token; choose an id that the agent never produces"
            )


def check_steps(dataset: datasets.Dataset, end: int, source: str = "data") -> None:
    """Verify that rows are steps, an observation's turn and an action's turn in alternation, each with one end of turn.

    Args:
        end: the token that ends a turn.
        source: how the error names the data.

    Raises:
        DataError: naming the first row that is not so.
    """
    for ids, mask, rows in _tokens(dataset):
        ends = np.flatnonzero(ids == end)
        place = np.arange(len(ends))
        if len(ends):
            first = np.concatenate([[True], rows[ends[1:]] != rows[ends[:-1]]])
            place -= np.maximum.accumulate(np.where(first, place, 0))
        odd = np.flatnonzero(mask[ends] != place % 2)
        without = np.setdiff1d(rows, rows[ends])
        if len(odd) or len(without):
            row = min([*rows[ends[odd[:1]]].tolist(), *without[:1].tolist()])
            raise DataError(
                f"{source}: row {row_number(source, row)}: is not one observation and one action in turn, each with token "
                f"{end} at its end and nowhere else, which is what a robot transformer takes for a step; write what "
                "else is told, such as an instruction, into the observations"
            )


def filter_top(
    dataset: datasets.Dataset, share: float, seed: int = 0, returns: np.ndarray | None = None
) -> datasets.Dataset:
    """The share of the trajectories with the highest return, in their old order (for filtered BC).

    Args:
        share: above 0, at most 1. The number kept is rounded to the nearest whole one, at least one.
        seed: which trajectories are kept of those that tie at the threshold is drawn at random with this seed.
        returns: ``[rows]``, the return of each; ``None``: undiscounted, of whole episodes.

    Raises:
        ConfigError: ``share`` is not in (0, 1].
    """
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"share: {share}; give a number above 0 and at most 1")
    if returns is None:
        returns = dataset.with_format("numpy").select_columns(["episode_return"])["episode_return"][:]
    order = np.lexsort((np.random.default_rng(seed).permutation(len(returns)), -returns))
    return dataset.select(np.sort(order[: max(1, round(share * len(returns)))]))


def _from_file(file: RowFile) -> Iterator[tuple[str, Trajectory]]:
    for number, row in file:
        where = file.where(number)
        yield where, with_paths(trajectory_from_row(row, where), file.folder)


def _write(
    path: Path,
    numbered: Iterable[tuple[str, Trajectory]],
    trajectory_tokenizer: TrajectoryTokenizer,
    progress: RowProgress,
    source: str,
) -> None:
    rows = iter(numbered)
    written = read = unknown = 0
    features = dict(FEATURES)
    if trajectory_tokenizer.images is not None:
        features |= _IMAGES
    if trajectory_tokenizer.max_exchanges is not None:
        features |= _CONTEXTS
    schema = datasets.Features(features).arrow_schema
    with replacing(path) as file, pa.ipc.new_stream(file, schema) as stream:
        while batch := list(islice(rows, _ROWS_A_BATCH)):
            names = [name for name, _ in batch]
            columns = trajectory_tokenizer.batch([trajectory for _, trajectory in batch], names.__getitem__)
            stream.write_batch(_record_batch(columns, written, schema))
            written += len(batch)
            shown = columns.input_ids[columns.agent_mask == 0]
            read += len(shown)
            unknown += int((shown == trajectory_tokenizer.unknown_id).sum())
            progress.advance(len(batch))
        if not written:
            raise DataError("no trajectory to tokenise; give at least one")
    if unknown:
        logger.warning(
            "%s: the tokenizer has no token for %.2g%% of what the environment says, which no model will see; use a "
            "tokenizer that was made for these texts.",
            source,
            100 * unknown / read,
        )


def _record_batch(columns: TokenColumns, start: int, schema: pa.Schema) -> pa.RecordBatch:
    tokens = _offsets(columns.lengths)
    arrays = [
        pa.ListArray.from_arrays(tokens, columns.input_ids),
        pa.ListArray.from_arrays(tokens, columns.agent_mask),
        pa.ListArray.from_arrays(tokens, columns.turn_end),
        pa.ListArray.from_arrays(_offsets(columns.turn_counts), columns.turn_rewards),
        pa.array(columns.terminated),
        pa.array(np.arange(start, start + len(columns.lengths))),
        pa.array(columns.returns),
    ]
    if columns.images is not None:
        arrays.append(pa.array(columns.images, pa.list_(pa.string())))
    if columns.contexts is not None:
        arrays.append(pa.array(columns.contexts, pa.list_(pa.int32())))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _offsets(lengths: np.ndarray) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def _tokens(dataset: datasets.Dataset) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of some rows at a time, token by token: its id, whether the agent produced it, and the row's ``episode``."""
    chosen = dataset.select_columns(["input_ids", "agent_mask", "episode"]).with_format("arrow")
    for table in chosen.iter(1000):
        ids = table.column("input_ids").combine_chunks()
        mask = table.column("agent_mask").combine_chunks()
        episodes = np.repeat(table.column("episode").to_numpy(), np.diff(ids.offsets.to_numpy()))
        yield ids.flatten().to_numpy(), mask.flatten().to_numpy(), episodes


def content_hash(path: Path) -> str:
    """A hash of a file's content, or of the names and contents of all files in a folder."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            if path.is_dir():
                digest.update(str(file.relative_to(path)).encode() + b"\0")
            try:
                with file.open("rb") as opened:
                    while block := opened.read(1 << 20):
                        digest.update(block)
            except OSError as error:
                raise DataError(f"{file}: cannot be read ({error.strerror}); check its permissions") from None
    return digest.hexdigest()


def _key(settings: str, content: str) -> str:
    return hashlib.sha256(f"{LAYOUT} {settings} {content}".encode()).hexdigest()[:32]
