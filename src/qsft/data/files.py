"""Files of trajectories: JSONL and Parquet, and whatever else ``datasets`` loads from a local path.

Everything streams: no function here holds more than one batch of rows.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from qsft.data.rows import json_line, trajectory_from_row, trajectory_to_row
from qsft.data.trajectory import Trajectory
from qsft.errors import DataError

PathLike = str | os.PathLike[str]

_ROWS_A_BATCH = 1000
_WRITE_BYTES = 1 << 20
_COLUMNS = ("messages", "rewards", "ended", "metadata", "tools", "images")
_PARQUET_SCHEMA = pa.schema(
    {
        "messages": pa.list_(pa.struct({"role": pa.string(), "content": pa.string(), "images": pa.list_(pa.string())})),
        "rewards": pa.list_(pa.float64()),
        "ended": pa.string(),
        "metadata": pa.string(),
    }
)


class RowFile:
    """The rows of a local file, in order, as they stand (before :func:`qsft.data.rows.trajectory_from_row`).

    Args:
        path: a ``.jsonl`` or ``.parquet`` file, an ``.arrow`` file, or a folder that ``datasets.load_from_disk`` or
            ``datasets.load_dataset`` reads (its ``train`` split where there are several).

    Iterating yields ``(number, row)``; numbers count from 1 and are line numbers in a ``.jsonl`` file.

    Raises:
        DataError: no such file, or a format that is not one of these. While iterating: a line that is not UTF-8 or not
            JSON, a last line that was cut off, a file without rows, a damaged Parquet file.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self._done = 0
        self._total = 0
        if not self.path.exists():
            raise DataError(f"{path}: no such file; check the path (only local files are read)")
        if not self.path.is_dir() and self.path.suffix not in (".jsonl", ".parquet", ".arrow"):
            raise DataError(f"{path}: unknown format {self.path.suffix or '(no extension)'}; use .jsonl or .parquet")

    def fraction(self) -> float:
        """How much of the file has been read, from 0 to 1."""
        return self._done / self._total if self._total else 0.0

    @property
    def folder(self) -> Path:
        """What the paths of images are relative to."""
        return self.path if self.path.is_dir() else self.path.parent

    def where(self, number: int) -> str:
        """How errors name a row."""
        return f"{self.path}: row {number}"

    def trajectories(self) -> Iterator[Trajectory]:
        """The same rows as checked trajectories."""
        return (trajectory_from_row(row, self.where(number)) for number, row in self)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        if self.path.is_dir():
            rows = self._dataset_rows()
        elif self.path.suffix == ".jsonl":
            rows = self._jsonl_rows()
        elif self.path.suffix == ".parquet":
            rows = self._parquet_rows()
        else:
            rows = self._dataset_rows()
        empty = True
        for numbered in rows:
            empty = False
            yield numbered
        if empty:
            raise DataError(f"{self.path}: holds no row; write at least one trajectory")

    def _jsonl_rows(self) -> Iterator[tuple[int, Any]]:
        with _open_to_read(self.path) as file:
            self._total = os.fstat(file.fileno()).st_size
            for number, line in enumerate(file, 1):
                self._done += len(line)
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line.isspace():
                    continue
                yield number, _parse_line(line, self.where(number))

    def _parquet_rows(self) -> Iterator[tuple[int, Any]]:
        with _open_to_read(self.path) as file:
            try:
                parquet = pq.ParquetFile(file)
                self._total = parquet.metadata.num_rows
                columns = [name for name in _COLUMNS if name in parquet.schema_arrow.names]
                for batch in parquet.iter_batches(_ROWS_A_BATCH, columns=columns):
                    for row in batch.to_pylist():
                        self._done += 1
                        yield self._done, row
            except (pa.ArrowException, OSError) as error:
                raise DataError(
                    f"{self.path}: not a readable Parquet file ({_one_line(error)}); write it again"
                ) from None

    def _dataset_rows(self) -> Iterator[tuple[int, Any]]:
        dataset = _load_local(self.path)
        self._total = len(dataset) if hasattr(dataset, "__len__") else 0  # A streamed one has none.
        names = dataset.column_names
        if names is not None:
            dataset = dataset.select_columns([name for name in _COLUMNS if name in names])
        for row in dataset:
            self._done += 1
            yield self._done, row


def row_number(source: str, episode: int) -> int:
    """The number that errors name a row by, which in a ``.jsonl`` file with blank lines is not its place among the rows.

    Args:
        source: the file, or what else errors call the data.
        episode: index of the row among the rows, from 0.
    """
    path = Path(source)
    if path.suffix == ".jsonl" and path.is_file():
        with _open_to_read(path) as file:
            numbers = (number for number, line in enumerate(file, 1) if not line.isspace())
            return next(islice(numbers, episode, None), episode + 1)
    return episode + 1


def load_trajectories(path: PathLike) -> Iterator[Trajectory]:
    """The trajectories of a file, checked, one at a time.

    Args:
        path: see :class:`RowFile`.

    Raises:
        DataError: naming file, row, field and remedy. A wrong path raises at once, a wrong row when it is reached.
    """
    return RowFile(path).trajectories()


def write_trajectories(path: PathLike, trajectories: Iterable[Trajectory]) -> int:
    """Write a new file, or replace one, as a whole: a reader sees the old content or all of the new.

    Args:
        path: ends in ``.jsonl`` or ``.parquet``.
        trajectories: finished ones, each of whose agent turns has a reward.

    Returns:
        how many were written.

    Raises:
        DataError: an unknown format, an unfinished trajectory, or a disk that is full; nothing has been written then.
    """
    path = Path(path)
    if path.suffix not in (".jsonl", ".parquet"):
        raise DataError(f"{path}: cannot write format {path.suffix or '(no extension)'}; use .jsonl or .parquet")
    with replacing(path) as file:
        return (
            _write_jsonl(file, _rows(trajectories)) if path.suffix == ".jsonl" else _write_parquet(file, trajectories)
        )


def append_trajectories(path: PathLike, trajectories: Iterable[Trajectory]) -> int:
    """Add trajectories to the end of a ``.jsonl`` file, which is made if there is none.

    When anything goes wrong the file is cut back to what it was.

    Returns:
        how many were added.

    Raises:
        DataError: another format, an existing file whose last line is cut off, an unfinished trajectory, a full disk.
    """
    return append_rows(path, _rows(trajectories))


def append_rows(path: PathLike, rows: Iterable[Mapping[str, Any]]) -> int:
    """As :func:`append_trajectories`, of rows of any kind."""
    path = Path(path)
    if path.suffix != ".jsonl":
        raise DataError(f"{path}: only .jsonl files can be appended to; write a new file instead")
    existed = path.exists()
    with _open_to_write(path, "ab") as file:
        before = os.fstat(file.fileno()).st_size
        try:
            if before and not _ends_whole(path):
                file.write(b"\n")
            count = _write_jsonl(file, rows)
            _to_disk(file)
            return count
        except BaseException:
            file.raw.close()  # Closing the buffered file would write what it still holds.
            os.truncate(path, before)
            if not existed:
                path.unlink()
            raise


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """No other process is in such a block for the same file; ``NAME.lock`` lies beside it meanwhile.

    Raises:
        DataError: another one is, or the place cannot be written to.
    """
    if not path.parent.is_dir():  # which a lock would make
        raise DataError(f"{path}: there is no folder {path.parent}; make it or choose another place")
    beside = path.with_name(f"{path.name}.lock")
    lock = FileLock(beside)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DataError(
            f"{path}: another process is writing it; wait until it is through, or choose another file"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    try:
        yield
    finally:
        beside.unlink(missing_ok=True)
        lock.release()


@contextmanager
def replacing(path: Path) -> Iterator[io.BufferedWriter]:
    """A new binary file that takes the place of ``path`` if the block ends without an error, and else leaves no trace.

    Of a link it takes the place of what the link points to, and the link stays.

    Raises:
        DataError: it cannot be written, for example because the disk is full, or ``path`` is a folder.
    """
    target, temporary = _target_and_temporary(path)
    file = _open_to_write(temporary, "wb", named=path)
    try:
        yield file
        _to_disk(file)
        file.close()
        os.replace(temporary, target)
    except BaseException:
        file.raw.close()
        temporary.unlink()
        raise


def check_replaceable(path: Path) -> None:
    """Raises the errors with which :func:`replacing` would begin, and leaves no trace."""
    _, temporary = _target_and_temporary(path)
    _open_to_write(temporary, "wb", named=path).close()
    temporary.unlink()


def _target_and_temporary(path: Path) -> tuple[Path, Path]:
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give the name of a file")
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    return target, target.with_name(f".{target.name}.{os.getpid()}.tmp")


class _NamingFile(io.FileIO):
    """A file whose failed writes say, in one line, which file and what to do."""

    def __init__(self, path: Path, mode: str, named: Path) -> None:
        self.named = named
        super().__init__(path, mode)

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise _cannot_write(self.named, error) from None


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path}: cannot be written ({error.strerror}); nothing was kept; free some space or choose another place"
    )


def _open_to_write(path: Path, mode: str, named: Path | None = None) -> io.BufferedWriter:
    named = path if named is None else named
    try:
        return io.BufferedWriter(_NamingFile(path, mode, named), _WRITE_BYTES)
    except OSError as error:
        raise DataError(
            f"{named}: cannot be written ({error.strerror}); make the folder or choose another place"
        ) from None


def _to_disk(file: io.BufferedWriter) -> None:
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        assert isinstance(file.raw, _NamingFile)
        raise _cannot_write(file.raw.named, error) from None


def _open_to_read(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def _parse_line(line: bytes, where: str) -> Any:
    try:
        return json.loads(line.decode())
    except ValueError as error:
        if not line.endswith(b"\n"):
            raise DataError(f"{where}: the last line is cut off (a writer was stopped); delete that line") from None
        if isinstance(error, UnicodeDecodeError):
            raise DataError(
                f"{where}: not UTF-8 at byte {error.start + 1} of the line; save the file as UTF-8"
            ) from None
        raise DataError(f"{where}: not JSON ({_one_line(error)}); write one object a line") from None
    except RecursionError:
        raise DataError(f"{where}: nested too deeply to be read; flatten its metadata") from None


def _ends_whole(path: Path) -> bool:
    """Whether the file's last line has its newline. A last line without one must at least be a whole row."""
    with _open_to_read(path) as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return True
    for _ in RowFile(path):
        pass
    return False


def _rows(trajectories: Iterable[Trajectory]) -> Iterator[dict[str, Any]]:
    return (trajectory_to_row(each, f"trajectory {number}") for number, each in enumerate(trajectories, 1))


def _write_jsonl(file: IO[bytes], rows: Iterable[Mapping[str, Any]]) -> int:
    number = 0
    for number, row in enumerate(rows, 1):
        file.write(json_line(row, f"trajectory {number}").encode() + b"\n")
    return number


def _write_parquet(file: IO[bytes], trajectories: Iterable[Trajectory]) -> int:
    count = 0
    rows: list[dict[str, Any]] = []
    with pq.ParquetWriter(file, _PARQUET_SCHEMA) as writer:
        for count, trajectory in enumerate(trajectories, 1):
            where = f"trajectory {count}"
            row = trajectory_to_row(trajectory, where)
            rows.append({**row, "metadata": json_line(row.get("metadata", {}), where)})
            if len(rows) == _ROWS_A_BATCH:
                writer.write_table(pa.Table.from_pylist(rows, _PARQUET_SCHEMA))
                rows.clear()
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, _PARQUET_SCHEMA))
    return count


def _load_local(path: Path) -> Any:
    """A folder, or an Arrow file, as ``datasets`` reads it."""
    import datasets  # Takes most of a second, which JSONL and Parquet need not wait for.

    try:
        if path.suffix == ".arrow" and not path.is_dir():
            return datasets.Dataset.from_file(str(path))
        if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
            dataset = datasets.load_from_disk(str(path))
        else:
            dataset = datasets.load_dataset(str(path), streaming=True)
    except Exception as error:  # What a third party's loaders raise is not a closed set.
        raise DataError(f"{path}: datasets cannot load it ({_one_line(error)}); use .jsonl or .parquet") from error
    if isinstance(dataset, dict):
        if "train" not in dataset and len(dataset) > 1:
            raise DataError(f"{path}: has the splits {', '.join(map(str, dataset))}; give the folder of one of them")
        dataset = dataset["train"] if "train" in dataset else next(iter(dataset.values()))
    return dataset


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."
