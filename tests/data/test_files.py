"""Files: round trips, formats, what a damaged file says, and that failed writes leave nothing behind."""

from __future__ import annotations

import json
import os
import resource
from contextlib import contextmanager

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qsft.data import Trajectory, Turn, append_trajectories, load_trajectories, write_trajectories
from qsft.data.files import RowFile
from qsft.errors import DataError
from tests.data.families import episode

GAMES = [
    episode(("user", "Wordle:\n"), ("assistant", "c r a n e\n", -1.0), ("user", "b b b b b\n")),
    episode(("system", "é 😀"), ("user", "u"), ("assistant", "a", 0.1), ended="truncated"),
    Trajectory(
        [Turn("user", "u", None, ("a.png",)), Turn("assistant", "", 3.0)], "terminated", {"seed": [1, {"x": None}]}
    ),
]
LINE = b'{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}], "rewards": [1]}\n'


def says(path):
    with pytest.raises(DataError) as caught:
        list(load_trajectories(path))
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(path.parent) + "/")


@contextmanager
def disk_of(size):
    """No file may grow beyond this many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def big():
    """About 10 MB that do not compress."""
    for _ in range(100):
        yield episode(("user", os.urandom(50_000).hex()), ("assistant", "a"))


@pytest.mark.parametrize("name", ["games.jsonl", "games.parquet"])
def test_round_trip(tmp_path, name):
    path = tmp_path / name
    assert write_trajectories(path, iter(GAMES)) == 3
    assert list(load_trajectories(path)) == GAMES
    assert os.listdir(tmp_path) == [name]


def test_more_rows_than_a_batch(tmp_path):
    path = tmp_path / "many.parquet"
    many = [episode(("user", str(i)), ("assistant", "a", i / 7)) for i in range(2_345)]
    assert write_trajectories(path, many) == 2_345
    assert list(load_trajectories(path)) == many


def test_a_person_can_read_jsonl(tmp_path):
    path = tmp_path / "games.jsonl"
    write_trajectories(path, GAMES)
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    assert "é 😀" in lines[1]
    assert json.loads(lines[0])["rewards"] == [-1.0]


def test_parquet_is_an_ordinary_chat_dataset(tmp_path):
    path = tmp_path / "games.parquet"
    write_trajectories(path, GAMES)
    rows = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert rows[0]["messages"][1]["content"] == "c r a n e\n"
    assert json.loads(rows[2]["metadata"]) == GAMES[2].metadata


def test_any_dataset_on_disk(tmp_path):
    rows = [
        {
            "messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}],
            "rewards": [float(i)],
            "id": i,
        }
        for i in range(3)
    ]
    wanted = [episode(("user", "u"), ("assistant", "a", float(i))) for i in range(3)]
    saved = tmp_path / "saved"
    datasets.Dataset.from_list(rows).save_to_disk(str(saved))
    assert list(load_trajectories(saved)) == wanted
    assert list(load_trajectories(next(saved.glob("*.arrow")))) == wanted
    folder = tmp_path / "folder"
    folder.mkdir()
    datasets.Dataset.from_list(rows).to_parquet(str(folder / "part.parquet"))
    assert list(load_trajectories(folder)) == wanted
    splits = tmp_path / "splits"
    datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(rows), "test": datasets.Dataset.from_list(rows[:1])}
    ).save_to_disk(str(splits))
    assert list(load_trajectories(splits)) == wanted


def test_splits_without_train_are_not_guessed(tmp_path):
    rows = datasets.Dataset.from_list([{"messages": [], "rewards": []}])
    datasets.DatasetDict({"a": rows, "b": rows}).save_to_disk(str(tmp_path / "d"))
    assert says(tmp_path / "d") == "d: has the splits a, b; give the folder of one of them"


def test_a_folder_that_is_no_dataset(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "state.json").write_text("{")
    assert "d: datasets cannot load it (" in says(tmp_path / "d")


def test_blank_lines_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + LINE + b"\n  \n" + LINE.rstrip())
    assert [number for number, _ in RowFile(path)] == [1, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "f.jsonl: holds no row; write at least one trajectory"),
        (b"\n\n", "f.jsonl: holds no row; write at least one trajectory"),
        (LINE + b"\n" + b"{oops}\n" + LINE, "f.jsonl: row 3: not JSON ("),
        (LINE + b'{"a": "\xff"}\n', "f.jsonl: row 2: not UTF-8 at byte 8 of the line; save the file as UTF-8"),
        (LINE + LINE[:50], "f.jsonl: row 2: the last line is cut off (a writer was stopped); delete that line"),
        (LINE + '{"a": "é'.encode()[:-1], "f.jsonl: row 2: the last line is cut off (a writer was stopped); delete"),
        (LINE + b"[" * 100_000 + b"\n", "f.jsonl: row 2: nested too deeply to be read"),
        (LINE + b"3\n", "f.jsonl: row 2: it is a number, not an object"),
        (LINE.replace(b"[1]", b"[NaN]"), "f.jsonl: row 1: field rewards: value 1 is NaN"),
        (LINE.replace(b"[1]", b"[1e999]"), "f.jsonl: row 1: field rewards: value 1 is infinite"),
    ],
)
def test_damaged_jsonl(tmp_path, content, message):
    path = tmp_path / "f.jsonl"
    path.write_bytes(content)
    assert says(path).startswith(message)


def test_damaged_parquet(tmp_path):
    path = tmp_path / "f.parquet"
    path.write_bytes(b"PAR1 nothing of the kind")
    assert says(path).startswith("f.parquet: not a readable Parquet file (")
    write_trajectories(path, GAMES)
    path.write_bytes(path.read_bytes()[:-20])
    assert says(path).startswith("f.parquet: not a readable Parquet file (")


def test_parquet_without_rewards(tmp_path):
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"messages": [[{"role": "user", "content": "u"}]]}), path)
    assert says(path).startswith("f.parquet: row 1: field rewards: missing")


def test_wrong_paths_raise_at_once(tmp_path):
    with pytest.raises(DataError, match="no such file; check the path"):
        load_trajectories(tmp_path / "none.jsonl")
    (tmp_path / "f.csv").touch()
    with pytest.raises(DataError, match=r"unknown format \.csv; use \.jsonl or \.parquet"):
        load_trajectories(tmp_path / "f.csv")
    with pytest.raises(DataError, match=r"cannot write format \.json; use \.jsonl or \.parquet"):
        write_trajectories(tmp_path / "f.json", GAMES)
    with pytest.raises(DataError, match=r"only \.jsonl files can be appended to"):
        append_trajectories(tmp_path / "f.parquet", GAMES)
    with pytest.raises(DataError, match=r"cannot be written .No such file or directory.; make the folder"):
        write_trajectories(tmp_path / "none" / "f.jsonl", GAMES)


@pytest.mark.parametrize("name", ["f.jsonl", "f.parquet"])
def test_a_failed_write_keeps_the_old_file(tmp_path, name):
    path = tmp_path / name
    write_trajectories(path, GAMES)
    unfinished = Trajectory([Turn("user", "u"), Turn("assistant", "a")], "terminated")
    with pytest.raises(DataError, match="trajectory 4: turn 2: its reward is not known yet"):
        write_trajectories(path, [*GAMES, unfinished])
    assert list(load_trajectories(path)) == GAMES
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["f.jsonl", "f.parquet"])
def test_a_full_disk_while_writing(tmp_path, name):
    path = tmp_path / name
    write_trajectories(path, GAMES)
    with disk_of(4_000_000), pytest.raises(DataError) as caught:
        write_trajectories(path, big())
    assert str(caught.value).startswith(
        f"{path}: cannot be written (File too large); nothing was kept; free some space"
    )
    assert list(load_trajectories(path)) == GAMES
    assert os.listdir(tmp_path) == [name]


def test_appending(tmp_path):
    path = tmp_path / "f.jsonl"
    assert append_trajectories(path, GAMES[:1]) == 1
    assert append_trajectories(path, iter(GAMES[1:])) == 2
    assert list(load_trajectories(path)) == GAMES


def test_appending_to_a_last_line_without_newline(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_bytes(LINE.rstrip())
    append_trajectories(path, GAMES)
    assert list(load_trajectories(path))[1:] == GAMES
    path.write_bytes(LINE[:40])
    with pytest.raises(DataError, match="row 1: the last line is cut off"):
        append_trajectories(path, GAMES)
    assert path.read_bytes() == LINE[:40]


def test_a_failed_append_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "f.jsonl"
    unfinished = Trajectory([Turn("user", "u"), Turn("assistant", "a")], "terminated")
    with pytest.raises(DataError, match="trajectory 4"):
        append_trajectories(path, [*GAMES, unfinished])
    assert not path.exists()
    path.write_bytes(LINE)
    with pytest.raises(DataError, match="trajectory 4"):
        append_trajectories(path, [*GAMES, unfinished])
    assert path.read_bytes() == LINE
    with disk_of(4_000_000), pytest.raises(DataError, match=r"cannot be written .File too large."):
        append_trajectories(path, big())
    assert path.read_bytes() == LINE


@pytest.mark.parametrize("images", [["a.png"], 3])
def test_images_of_a_whole_row_are_refused_in_every_format(tmp_path, images):
    row = {"messages": [{"role": "assistant", "content": "hi\n"}], "rewards": [1.0], "images": images}
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps(row) + "\n")
    datasets.Dataset.from_list([row]).to_parquet(tmp_path / "f.parquet")
    datasets.Dataset.from_list([row]).save_to_disk(tmp_path / "folder")
    for name in ("f.jsonl", "f.parquet", "folder"):
        assert "row 1: field images: not read; write the path of each image" in says(tmp_path / name)
