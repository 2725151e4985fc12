"""LeRobot v3 folders, written here in the layout that its documentation describes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from qsft.data import load_trajectories
from qsft.data.lerobot import LeRobotSource
from qsft.data.vector_episodes import convert
from qsft.data.vector_metadata import vector_tokens
from qsft.errors import ConfigError, DataError

FPS = 10
LENGTHS = (4, 3, 5)
FILES = ((0, 0), (0, 0), (0, 1))  # chunk and file of each episode
CAMERA = "observation.images.top"


class Folder:
    """What is in the folder; tests change it before it is written."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.info: dict[str, Any] = {
            "codebase_version": "v3.0",
            "fps": FPS,
            "total_episodes": len(LENGTHS),
            "total_frames": sum(LENGTHS),
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
            "features": {
                "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["pan", "lift"]}},
                "observation.state": {"dtype": "float32", "shape": [3], "names": None},
                "observation.force": {"dtype": "float32", "shape": [1], "names": None},
                **{
                    name: {"dtype": "int64", "shape": [1], "names": None}
                    for name in ("frame_index", "episode_index", "index", "task_index")
                },
                "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            },
        }
        self.rows: list[list[dict[str, Any]]] = []
        self.episodes: list[dict[str, Any]] = []
        index = 0
        for episode, (length, (chunk, file)) in enumerate(zip(LENGTHS, FILES, strict=True)):
            self.rows.append(
                [
                    {
                        "action": rng.uniform(-1, 1, 2).astype(np.float32).tolist(),
                        "observation.state": rng.normal(size=3).astype(np.float32).tolist(),
                        "observation.force": float(np.float32(rng.normal())),
                        "timestamp": step / FPS,
                        "frame_index": step,
                        "episode_index": episode,
                        "index": index + step,
                        "task_index": episode % 2,
                    }
                    for step in range(length)
                ]
            )
            places = {"data/chunk_index": chunk, "data/file_index": file}
            bounds = {"dataset_from_index": index, "dataset_to_index": index + length}
            self.episodes.append(
                {
                    "episode_index": episode,
                    "tasks": ["sort"],
                    "length": length,
                    **places,
                    **bounds,
                    "stats/action/min": [0.0],
                }
            )
            index += length

    def feature(self, name: str, values: list[list[Any]], dtype: str = "float32") -> Folder:
        self.info["features"][name] = {"dtype": dtype, "shape": [1], "names": None}
        for rows, column in zip(self.rows, values, strict=True):
            for row, value in zip(rows, column, strict=True):
                row[name] = value
        return self

    def write(self, path: Path) -> Path:
        (path / "meta/episodes/chunk-000").mkdir(parents=True)
        (path / "meta/info.json").write_text(json.dumps(self.info))
        (path / "meta/stats.json").write_text("{}")
        tasks = {"task_index": [0, 1], "__index_level_0__": ["sort", "stack"]}  # as pandas writes its index
        pq.write_table(pa.table(tasks), path / "meta/tasks.parquet")
        pq.write_table(pa.Table.from_pylist(self.episodes), path / "meta/episodes/chunk-000/file-000.parquet")
        for place in sorted(set(FILES)):
            rows = [row for there, rows in zip(FILES, self.rows, strict=True) if there == place for row in rows]
            table = pa.Table.from_pylist(rows)
            for name, size in (("action", 2), ("observation.state", 3)):
                kind = pa.list_(pa.float32(), size)
                if name in table.column_names and all(len(row[name]) == size for row in rows):
                    table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
            file = path / f"data/chunk-{place[0]:03d}/file-{place[1]:03d}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, file)
        return path


def rewards(*last: float) -> list[list[float]]:
    return [[0.0] * (length - 1) + [value] for length, value in zip(LENGTHS, last, strict=True)]


def test_vectors_rewards_and_tasks(tmp_path: Path) -> None:
    folder = Folder().feature("next.reward", rewards(1, 0, 0.5))
    folder.feature("next.done", [[False] * 3 + [True], [False] * 3, [False] * 4 + [True]], "bool")
    source = LeRobotSource(folder.write(tmp_path / "set"))
    assert convert(source, tmp_path / "set.jsonl", instruction=True) == 3
    games = list(load_trajectories(tmp_path / "set.jsonl"))
    assert [game.rewards for game in games] == rewards(1, 0, 0.5)
    assert [game.ended for game in games] == ["terminated", "truncated", "terminated"]
    for game, told in zip(games, ["sort", "stack", "sort"], strict=True):
        assert game.metadata["instruction"] == told
        assert all(turn.text.startswith(f"{told} s") for turn in game.turns if turn.role == "user")
    assert games[1].metadata["task"] == "stack" and games[2].metadata["episode"] == 2
    assert games[0].metadata["vectors"]["action"]["names"] == ["action.pan", "action.lift"]
    assert games[0].metadata["vectors"]["observation"]["names"][2:] == ["observation.state.2", "observation.force"]
    for game, rows in zip(games, folder.rows, strict=True):
        actions, seen = vector_tokens(game.metadata, "action"), vector_tokens(game.metadata, "observation")
        assert actions is not None and seen is not None
        states = [seen.parse(turn.text.partition(" ")[2]) for turn in game.turns if turn.role == "user"]
        assert len(states) == len(rows), "nothing is seen after the last action"
        for row, turn, state in zip(rows, game.agent_turns, states, strict=True):
            done = np.clip(row["action"], actions.low, actions.high)
            assert (abs(actions.parse(turn.text) - done) <= actions.width / 2 + 1e-6).all()
            truth = [*row["observation.state"], row["observation.force"]]
            assert (abs(state - truth) <= seen.width / 2 + 1e-6).all()


def test_success_and_final_rewards(tmp_path: Path) -> None:
    success = [[False, True, True, False], [False] * 3, [False] * 4 + [True]]
    convert(
        LeRobotSource(Folder().feature("next.success", success, "bool").write(tmp_path / "a")), tmp_path / "a.jsonl"
    )
    games = list(load_trajectories(tmp_path / "a.jsonl"))
    assert [game.rewards for game in games] == [[0, 1, 0, 0], [0, 0, 0], [0, 0, 0, 0, 1]]
    assert [game.ended for game in games] == ["terminated", "truncated", "terminated"]

    plain = Folder().write(tmp_path / "b")
    with pytest.raises(
        ConfigError, match=r"info\.json: has neither next\.reward nor next\.success; .*--final-reward 1"
    ):
        LeRobotSource(plain)
    convert(LeRobotSource(plain, final_reward=1.0), tmp_path / "b.jsonl")
    games = list(load_trajectories(tmp_path / "b.jsonl"))
    assert [game.rewards for game in games] == rewards(1, 1, 1)
    assert {game.ended for game in games} == {"terminated"}
    with pytest.raises(ConfigError, match="has rewards of its own"):
        LeRobotSource(tmp_path / "a", final_reward=1.0)


def shade(number: int) -> int:
    return 20 * number + 10


def with_video(folder: Folder) -> Folder:
    folder.info["features"][CAMERA] = {"dtype": "video", "shape": [32, 48, 3], "names": ["h", "w", "c"], "info": {}}
    began = {place: 0 for place in set(FILES)}
    for episode, place in zip(folder.episodes, FILES, strict=True):
        times = began[place] / FPS, (began[place] + episode["length"]) / FPS
        began[place] += episode["length"]
        names = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        episode.update(zip((f"videos/{CAMERA}/{name}" for name in names), (*place, *times), strict=True))
    return folder


def write_videos(path: Path, counts: dict[tuple[int, int], int]) -> None:
    from qsft.data.video import write_video

    for (chunk, file), count in counts.items():
        frames = [np.full((32, 48, 3), shade(number), np.uint8) for number in range(count)]
        write_video(path / f"videos/{CAMERA}/chunk-{chunk:03d}/file-{file:03d}.mp4", frames, FPS, last=1 / FPS)


def test_videos(tmp_path: Path) -> None:
    pytest.importorskip("av")
    folder = with_video(Folder().feature("next.reward", rewards(1, 1, 1))).write(tmp_path / "set")
    write_videos(folder, {(0, 0): 7, (0, 1): 5})
    convert(LeRobotSource(folder), tmp_path / "set.jsonl", image_size=16)
    games = list(load_trajectories(tmp_path / "set.jsonl"))
    for game, first in zip(games, (0, 4, 0), strict=True):
        shown = [Image.open(tmp_path / turn.images[0]) for turn in game.turns if turn.role == "user"]
        assert {image.size for image in shown} == {(16, 16)}
        means = [np.asarray(image).mean() for image in shown]
        assert means == pytest.approx([shade(first + step) for step in range(len(shown))], abs=4)
    convert(LeRobotSource(folder), tmp_path / "blind.jsonl", cameras=[])
    assert not (tmp_path / "blind-images").exists()
    assert not any(turn.images for game in load_trajectories(tmp_path / "blind.jsonl") for turn in game.turns)
    with pytest.raises(ConfigError, match="cameras: 'wrist' is unknown; there are observation.images.top"):
        convert(LeRobotSource(folder), tmp_path / "x.jsonl", cameras=["wrist"])
    with pytest.raises(DataError, match="set-images: exists already"):
        convert(LeRobotSource(folder), tmp_path / "set.jsonl")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({(0, 0): 7}, r"file-001\.parquet: episode 2: field observation\.images\.top: .*file-001\.mp4 is missing"),
        ({(0, 0): 6, (0, 1): 5}, r"episode 1: field observation\.images\.top: .*file-000\.mp4 ends before 0\.600 s"),
    ],
)
def test_missing_frames(counts: dict, message: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    folder = with_video(Folder().feature("next.reward", rewards(1, 1, 1))).write(tmp_path / "set")
    write_videos(folder, counts)
    with pytest.raises(DataError, match=message):
        convert(LeRobotSource(folder), tmp_path / "set.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["set"], "nothing half-written"


def test_pictures_in_parquet(tmp_path: Path) -> None:
    def png(value: int) -> dict[str, Any]:
        content = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(content, "PNG")
        return {"bytes": content.getvalue(), "path": None}

    folder = Folder().feature("next.reward", rewards(1, 1, 1))
    folder.feature("observation.image", [[png(step) for step in range(length)] for length in LENGTHS], "image")
    convert(LeRobotSource(folder.write(tmp_path / "set")), tmp_path / "set.jsonl")
    game = list(load_trajectories(tmp_path / "set.jsonl"))[2]
    shown = [np.asarray(Image.open(tmp_path / turn.images[0])) for turn in game.turns if turn.role == "user"]
    assert [image.mean() for image in shown] == [0, 1, 2, 3, 4]
    (tmp_path / "mine.png").write_bytes(png(0)["bytes"])
    folder.rows[1][1]["observation.image"] = {"bytes": None, "path": str(tmp_path / "mine.png")}
    with pytest.raises(
        DataError, match=r"episode 1: field observation\.image: '.*mine.png' is outside of the data set"
    ):
        convert(LeRobotSource(folder.write(tmp_path / "else")), tmp_path / "else.jsonl")
    folder.rows[1][1]["observation.image"] = {"bytes": None, "path": None}
    with pytest.raises(DataError, match=r"episode 1: field observation\.image: a frame without a picture"):
        convert(LeRobotSource(folder.write(tmp_path / "other")), tmp_path / "other.jsonl")


def test_names_of_cameras_are_no_places(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG")
    cell = {"bytes": content.getvalue(), "path": None}
    folder = Folder().feature("next.reward", rewards(1, 1, 1))
    folder.feature("observation.images.x/../../../evil", [[cell] * length for length in LENGTHS], "image")
    convert(LeRobotSource(folder.write(tmp_path / "set")), tmp_path / "set.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "set-images", "set.jsonl"]
    game = next(iter(load_trajectories(tmp_path / "set.jsonl")))
    assert Path(game.turns[0].images[0]).parts[0] == "set-images" and (tmp_path / game.turns[0].images[0]).exists()


def without_frame(folder: Folder) -> None:
    del folder.rows[2][3]


def with_nan(folder: Folder) -> None:
    folder.rows[1][2]["action"] = [0.0, float("nan")]


def with_a_short_action(folder: Folder) -> None:
    folder.rows[1][2]["action"] = [0.0]


def without_a_reward(folder: Folder) -> None:
    folder.rows[2][1]["next.reward"] = None


def without_an_episode(folder: Folder) -> None:
    folder.rows[1] = []


def of_another_version(folder: Folder) -> None:
    folder.info["codebase_version"] = "v2.1"


def without_a_column(folder: Folder) -> None:
    for rows in folder.rows:
        for row in rows:
            del row["observation.force"]


def without_a_task(folder: Folder) -> None:
    for row in folder.rows[1]:
        row["task_index"] = None


def with_a_length_of_text(folder: Folder) -> None:
    for row in folder.episodes:
        row["length"] = "4"


def with_no_number_of_its_own(folder: Folder) -> None:
    for row in folder.rows[0]:
        row["episode_index"] = None


def with_a_shape_of_text(folder: Folder) -> None:
    folder.info["features"]["action"]["shape"] = ["2"]


def with_a_count_of_text(folder: Folder) -> None:
    folder.info["total_frames"] = "abc"


def with_two_tasks(folder: Folder) -> None:
    folder.rows[1][2]["task_index"] = 1 - folder.rows[1][0]["task_index"]


def with_an_episode_twice(folder: Folder) -> None:
    folder.rows[1] = [dict(row) for row in folder.rows[0]]
    folder.rows.insert(1, folder.rows.pop())  # not one after the other


def with_no_rate(folder: Folder) -> None:
    folder.info["fps"] = float("nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_a_task, r"episode 1: field task_index: None is no whole number; mend it"),
        (with_a_length_of_text, r"meta/episodes: episode 0: length: '4' is no whole number"),
        (with_no_number_of_its_own, r"file-000\.parquet: field episode_index: None is no whole number"),
        (with_a_shape_of_text, r"info\.json: not LeRobot's .*action: shape \['2'\]"),
        (with_a_count_of_text, r"info\.json: not LeRobot's .*total_frames 'abc'"),
        (with_two_tasks, r"episode 1: field task_index: 2 tasks; split the episode"),
        (with_an_episode_twice, r"episode 0: is there twice"),
        (with_no_rate, r"info\.json: field fps: nan"),
        (without_frame, r"file-001\.parquet: episode 2: field frame_index: frame 3 is missing, it should have 5"),
        (with_nan, r"file-000\.parquet: episode 1: field action: step 2: action\.lift is nan"),
        (with_a_short_action, r"episode 1: field action: 5 values in 3 frames of 2"),
        (without_a_reward, r"episode 2: field next\.reward: not known at each step"),
        (without_an_episode, r"data: 2 of 3 episodes"),
        (of_another_version, r"info\.json: field codebase_version: 'v2\.1'"),
        (without_a_column, r"file-000\.parquet: has no column observation\.force, which .*info\.json promises"),
    ],
)
def test_bad_data(change: Any, message: str, tmp_path: Path) -> None:
    folder = Folder().feature("next.reward", rewards(1, 1, 1))
    change(folder)
    folder.write(tmp_path / "set")
    with pytest.raises(DataError, match=message) as caught:
        convert(LeRobotSource(tmp_path / "set"), tmp_path / "set.jsonl")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["set"], "nothing half-written"


def test_what_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"info\.json: no such file"):
        LeRobotSource(tmp_path)
    folder = Folder().feature("next.reward", rewards(1, 1, 1)).write(tmp_path / "set")
    (folder / "data/chunk-000/file-000.parquet").write_text("no")
    with pytest.raises(DataError, match=r"file-000\.parquet: not a readable Parquet file"):
        convert(LeRobotSource(folder), tmp_path / "set.jsonl")
    (folder / "meta/info.json").write_text('{"codebase_version": "v3.0"}')
    with pytest.raises(DataError, match=r"info\.json: not LeRobot's \(KeyError\('features'\)\)"):
        LeRobotSource(folder)
