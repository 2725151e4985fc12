"""`qsft values` and `qsft video`: the examples of their pages with a small run, and what is refused."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from qsft.cli import main
from qsft.data import Trajectory, Turn, write_trajectories
from qsft.evaluation.values_over_time import turn_values
from qsft.training.runs import RUN_FILE
from tests.pages import python_blocks

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With ``wordle.jsonl`` and the run ``runs/wordle``, of one step a stage."""
    path = tmp_path_factory.mktemp("values")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        collect = "collect wordle --policy mixture --episodes 64 --out wordle.jsonl --env-option observation=tiles"
        assert main(collect.split()) == 0
        train = f"train qsft --config {ROOT / 'examples/wordle.yaml'} --data wordle.jsonl --out runs/wordle"
        settings = ["model.n_embd=16", "model.n_inner=16", "likelihood.num_train_epochs=1", "likelihood.max_steps=1"]
        settings += ["behaviour.max_steps=1", "likelihood.return_low=-6", "likelihood.return_high=0"]
        assert main([*train.split(), *(part for setting in settings for part in ("--set", setting))]) == 0
    return path


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def test_values_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs/commands/values.md"
    (line,) = (line for line in page.read_text().splitlines() if line.startswith("qsft values"))
    assert main(shlex.split(line)[1:]) == 0
    assert capsys.readouterr().out == "values in values.svg\n"
    assert "wordle.jsonl, episode 3" in Path("values.svg").read_text()
    (block,) = python_blocks(page)
    names: dict = {}
    exec(block, names)
    assert "The first game" in Path("values.html").read_text()
    turns = names["turns"]
    assert turns[0].return_to_go == sum(turn.reward for turn in turns)
    assert all(-6 <= value <= 0 for turn in turns for value in (turn.value, turn.first_q, turn.q))
    history = next(iter(names["load_trajectories"]("wordle.jsonl")))
    reply = names["policy"].q_values(Trajectory(history.turns[:3]), [history.turns[3].text])[0]
    assert (turns[1].first_q, turns[1].q) == (reply.tokens[0].q, reply.q)


def test_values_of_exponential_weights_are_soft_at_their_temperature(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree("runs/wordle", "runs/exponential")
    path = Path("runs/exponential") / RUN_FILE
    run = json.loads(path.read_text())
    run["settings"]["likelihood"]["weight_temperature"] = 0.2
    path.write_text(json.dumps(run))
    given: dict = {}

    def spy(policy: object, trajectory: Trajectory, **settings: object) -> list:
        given.update(settings)
        return turn_values(policy, trajectory, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("qsft.evaluation.values_over_time.turn_values", spy)
    assert main(["values", "runs/exponential", "wordle.jsonl", "--out", "v.svg"]) == 0
    assert given["backup_beta"] == pytest.approx(5.0)


def test_a_film_with_values(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (8, 8)).save("tile.png")
    turns = [Turn("user", "Wordle:\n", images=("tile.png",)), Turn("assistant", "c r a n e\n", 0.0)]
    write_trajectories("seen.jsonl", [Trajectory(turns, "terminated")])
    assert main(["video", "seen.jsonl", "--out", "seen.gif", "--size", "16"]) == 0
    assert capsys.readouterr().out == "film in seen.gif\n"
    # A run that reads text does not take pictures: its values come without.
    assert main(["video", "seen.jsonl", "--out", "valued.gif", "--size", "16", "--values", "runs/wordle"]) == 2
    assert "seen.jsonl: row 1: turn 1: has images" in capsys.readouterr().err


def test_an_episode_that_a_run_cannot_read_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Path("wordle.jsonl").read_text().splitlines()
    episode = json.loads(lines[0])
    next(message for message in episode["messages"] if message["role"] == "assistant")["content"] = "xyzzy\n"
    Path("strange.jsonl").write_text(f"{lines[0]}\n\n{json.dumps(episode)}\n")
    for command in (
        "values runs/wordle strange.jsonl --out x.svg",
        "video strange.jsonl --values runs/wordle --out x.gif",
    ):
        assert main([*command.split(), "--episode", "1"]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("qsft: strange.jsonl: row 3: ") and "xyzzy" in said


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("values runs/wordle wordle.jsonl --episode 64 --out x.svg", "wordle.jsonl: has no episode 64"),
        ("values runs/wordle wordle.jsonl --episode -1 --out x.svg", "--episode: -1; they are counted from 0"),
        ("values runs/wordle wordle.jsonl --out x.pdf", "x.pdf: charts of values end in .svg, .png, .html"),
        ("values runs/none wordle.jsonl --out x.svg", "no run.json"),
        ("values runs/sft wordle.jsonl --out x.svg", "runs/sft: a run of sft has no Q-values; give one of qsft, ilql"),
        ("video wordle.jsonl --out x.avi --values runs/wordle", "x.avi: videos end in .mp4 or .gif"),
        ("video wordle.jsonl --out x.gif", "no states in its metadata"),
        ("video nowhere.jsonl --out x.gif", "nowhere.jsonl: no such file"),
    ],
)
def test_mistakes(command: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads(Path("runs/wordle/run.json").read_text())
    record["settings"]["method"] = "sft"
    Path("runs/sft").mkdir(exist_ok=True)
    Path("runs/sft/run.json").write_text(json.dumps(record))
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not list(here.glob("x.*"))
