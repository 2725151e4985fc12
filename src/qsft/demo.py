"""The main job: Wordle from data to report, the same study that the full-size run does, in minutes."""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console

from qsft.data.files import load_trajectories
from qsft.data.text_files import make_folder
from qsft.data.trajectory import Trajectory
from qsft.envs import make
from qsft.evaluation import (
    LMRL_GYM_SCALES,
    Calibration,
    Cell,
    Game,
    GameTurn,
    GridRow,
    Reference,
    Report,
    ResultsFile,
    log_points,
    mean_interval,
    print_table,
    rollout,
    write_report,
)
from qsft.policies.decoding import with_setting
from qsft.policies.load import load_policy
from qsft.policies.model import ModelPolicy, TokenValue
from qsft.study import collect_data, run_study
from qsft.study_file import Study, episode_options, slug
from qsft.training.disk import write_json

SHOWN_GAMES = 6
CALIBRATION_EPISODES = 500
PROTOCOL = "a GPT-2-medium, 20,000 games, 100 evaluation games, no interval"
PUBLISHED = [
    Reference("SFT, sampled (Q-SFT paper)", -3.81, PROTOCOL, env="wordle"),
    Reference("ILQL (Q-SFT paper)", -2.08, PROTOCOL, env="wordle"),
    Reference("Q-SFT (paper)", -2.11, PROTOCOL, env="wordle"),
    Reference("ILQL (LMRL-Gym)", -2.04, "a GPT-2-small, 1,000,000 games", env="wordle"),
]


def demo(out: Path, seed: int = 0) -> None:
    """Collect, train, evaluate, and write ``out/report.html``; a killed demo goes on where it was.

    Args:
        out: folder for data, runs, results and the report.
        seed: of everything drawn.
    """
    started = time.perf_counter()
    console = Console()
    with as_file(files("qsft") / "configs" / "demo.yaml") as path:
        study = Study.load(path)
    results, precision = out / "results.json", out / "precision.json"
    make_folder(results)
    if not precision.exists():  # timed once: a demo that goes on must compute as it began
        write_json(precision, {"bf16": bfloat16_pays(), "use_cpu": not torch.cuda.is_available()})
    half = json.loads(precision.read_text(encoding="utf-8"))
    study = dataclasses.replace(study, behaviour={**study.behaviour, **half}, likelihood={**study.likelihood, **half})
    command = "qsft demo" if seed == 0 else f"qsft demo --seed {seed}"
    console.print(f"[bold]Wordle[/], one token a word: data, SFT, filtered BC, Q-SFT, evaluation. Everything in {out}/")
    run_study(study, out, results, [seed], command)
    rows = ResultsFile(results).rows()
    learnt = [row for row in rows if "decoding" in row.extra]
    print_table(learnt, LMRL_GYM_SCALES["wordle"], title="Wordle, held-out games")
    for row in rows:
        if row not in learnt:
            console.print(f"for comparison, scripted: {row.method} {row.return_mean:.2f}")
    report = make_report(study, out, rows, seed)
    write_report(report, out / "report.html")
    console.print(f"report: [bold]{out / 'report.html'}[/]   ({(time.perf_counter() - started) / 60:.1f} minutes)")


def make_report(study: Study, out: Path, rows: Sequence[Any], seed: int) -> Report:
    """The report of a finished demo, from its folder."""
    returns = [t.total_return for t in load_trajectories(collect_data(study, "train", out, seed))]
    data = mean_interval(returns)
    qsft = next(row for row in rows if row.method == "qsft" and row.seed == seed)
    folder = out / f"seed-{seed}" / slug("Q-SFT")
    chosen = qsft.extra["decoding"]
    policy = load_policy(folder, with_behaviour=True)
    policy = with_setting(policy, chosen)
    played = play_test_games(study, policy, seed)
    return Report(
        title="Q-SFT on Wordle",
        summary={
            "What": "offline RL as supervised fine-tuning, one token a word, no pretrained weights, no environment",
            "Data": {
                "games": f"{len(returns):,}",
                "mean return": f"{data.mean:.3f} (95% {data.low:.3f} to {data.high:.3f})",
                "policy": "with a tuned probability a random consistent word, else any word (the paper's mean: -4.12)",
            },
            "Config": {
                "model": ", ".join(f"{key} {value}" for key, value in dict(study.model).items()),  # type: ignore[arg-type]
                "stage 1": study.behaviour,
                "stage 2": study.likelihood,
                "seed": seed,
            },
            "Machine": f"{platform.machine()}, {torch.get_num_threads()} threads, Python {platform.python_version()}, "
            f"torch {torch.__version__}, transformers {transformers.__version__}",
        },
        rows=[row for row in rows if "decoding" in row.extra],
        grids=_grids(rows),
        curves=_curves(out, seed),
        calibration=[calibrate(policy, played)],
        games=[show_game(policy, trajectory) for trajectory in played[:SHOWN_GAMES]],
        notes=[
            "Every method decodes at its own best setting of the grids below, chosen on other games than those of "
            "the table. Greedy SFT is far better than sampled SFT: beating only the latter would prove nothing.",
            "SFT is stage 1 of Q-SFT. The others go on from it: 'SFT, longer' and Q-SFT for as many updates again, four "
            "passes over all games; filtered BC for four passes over the best 30% of them, since more made it worse.",
            "The models value whole words. A letter's Q-value is the mean of the plausible words that begin so, weighted "
            "by the behaviour model.",
        ],
        references=[
            *PUBLISHED,
            Reference("mean of the data", data.mean, "", kind="line", env="wordle"),
            *(
                Reference("greedy information gain", row.return_mean, "", kind="line", env="wordle")
                for row in rows
                if row.method == "greedy-information"
            ),
        ],
        scales={"wordle": LMRL_GYM_SCALES["wordle"]},
    )


def play_test_games(study: Study, policy: ModelPolicy, seed: int) -> list[Trajectory]:
    """Some of the test games again, with the decoding that was chosen."""
    games = rollout(
        policy,
        lambda: make(study.env, **episode_options(study, study.test)),
        CALIBRATION_EPISODES,
        study.test["seed"] + seed,
        progress=False,
    )
    return list(games)


def calibrate(policy: ModelPolicy, played: Sequence[Trajectory]) -> Calibration:
    """V before the third guess (where games differ) against what followed; one state a game, so intervals hold."""
    turn = 2
    chosen = [t for t in played if sum(1 for _ in t.agent_turns) > turn]
    histories = [t.histories()[turn] for t in chosen]
    realised = [sum(t.rewards[turn:]) for t in chosen]
    return Calibration("V before the third guess", policy.state_values(histories, backup_beta=15.0), realised)


def show_game(policy: ModelPolicy, trajectory: Trajectory) -> Game:
    """A game as tiles, with the Q-value of each letter and the letters that were considered."""
    turns = []
    for history in trajectory.histories():
        spoken, answer = trajectory.turns[len(history.turns)], trajectory.turns[len(history.turns) + 1]
        words = [value for value in policy.q_values(history, support=1e-4) if " " in value.token]
        letters, colours = spoken.text.split(), [tile[-1] for tile in answer.text.split()]
        cells = []
        for i, letter in enumerate(letters):
            considered = letter_values(words, letters[:i])
            chosen = next((q for other, _, q, _ in considered if other == letter), None)
            state: Any = colours[i] if i < len(colours) else ""
            cells.append(Cell(letter.upper(), state, chosen, considered[:6]))
        note = "" if not cells or cells[-1].q is None else f"Q of the word {cells[-1].q:.2f}"
        turns.append(GameTurn(cells, note))
    secret = str(trajectory.metadata.get("secret", "?")).upper()
    return Game(f"Secret: {secret}", turns, f"return {trajectory.total_return:g}")


def letter_values(words: Sequence[TokenValue], spelt: Sequence[str]) -> list[tuple[str, float, float, float]]:
    """What the values of whole words say of the letter that follows ``spelt``.

    Returns:
        Letter, prior, Q-value and probability under the policy, the likeliest letter first. The Q-value is the mean of
        the words that begin so, weighted by the behaviour model; prior and probability are given what is spelt.
    """
    begun = [(word.token.split(), word) for word in words]
    begun = [
        (letters, word) for letters, word in begun if letters[: len(spelt)] == list(spelt) and letters[len(spelt) :]
    ]
    prior = sum(word.prior for _, word in begun)
    chance = sum(word.probability for _, word in begun)
    found = []
    for letter in {letters[len(spelt)] for letters, _ in begun}:
        here = [word for letters, word in begun if letters[len(spelt)] == letter]
        mass = sum(word.prior for word in here)
        q = sum(word.prior * word.q for word in here) / mass
        share = sum(word.probability for word in here) / chance if chance > 0 else 0.0
        found.append((letter, mass / prior, q, share))
    return sorted(found, key=lambda one: -one[1])


def bfloat16_pays() -> bool:
    """Whether this machine multiplies matrices at least half as fast again in bfloat16; without native support on a CPU
    it is slower, and no flag tells."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()

    def seconds(dtype: torch.dtype) -> float:
        matrix = torch.randn(512, 512).to(dtype)
        matrix @ matrix
        started = time.perf_counter()
        for _ in range(10):
            matrix @ matrix
        return time.perf_counter() - started

    return seconds(torch.float32) > 1.5 * seconds(torch.bfloat16)


def _grids(rows: Sequence[Any]) -> dict[str, Any]:
    grids: dict[str, Any] = {}
    for row in rows:
        if "grid" in row.extra:
            grids[row.config] = [GridRow(**item) for item in row.extra["grid"]]
    return grids


def _curves(out: Path, seed: int) -> dict[str, list[dict[str, Any]]]:
    root = out / f"seed-{seed}"
    stage1 = log_points(root / "SFT" / "log-behaviour.jsonl", {"loss": "SFT (stage 1)"})
    filtered = log_points(root / slug("filtered BC") / "log-behaviour.jsonl", {"loss": "filtered BC"})
    log = root / slug("Q-SFT") / "log-likelihood.jsonl"
    return {
        "Loss per agent token, supervised": [*stage1, *filtered],
        "Loss per agent token, stage 2": log_points(log, {"loss": "Q-SFT"}),
        "Value of the first guess (scaled to [0, 1])": log_points(
            log,
            {"first_value": "V = 1 - p(dummy)", "first_return": "return of the data", "target_mean": "mean target"},
        ),
        "Distance of the target network": log_points(log, {"target_distance": "relative distance"}),
    }
