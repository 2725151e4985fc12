"""From pictures of the simulated arm through both stages to a policy that plays by sight."""

import json

import pytest

from qsft.data import Trajectory, Turn, write_trajectories
from qsft.data.pictures import picture_folder, png, save_pictures
from qsft.envs import make
from qsft.errors import ConfigError, DataError
from qsft.evaluation import rollout
from qsft.models.scratch import word_level_tokenizer
from qsft.policies import load_policy
from qsft.study import symbol_tokenizer
from qsft.training import RunSettings, train

pytest.importorskip("ogbench")
OPTIONS = {"observation": "picture", "action_bins": 8, "image_size": 16}
MODEL = {"model_type": "robot_transformer", "hidden_size": 16, "intermediate_size": 24, "layers": 1, "heads": 2}
STAGE = {"max_steps": 2, "per_device_train_batch_size": 4, "use_cpu": True, "save_strategy": "no"}
STAGE |= {"logging_strategy": "no"}


def episodes(count):
    """A few steps each; the last one of every second is said to have solved the task."""
    env, games = make("pick", **OPTIONS), []
    for number in range(count):
        seen, _ = env.reset(seed=number)
        turns = [Turn("user", seen["text"], images=(png(seen["image"]),))]
        for step in range(3):
            action = f"a{number} a{step} a4 a4 a{number % 2}\n"
            seen = env.step(action)[0]
            reward = float(step == 2 and number % 2)
            turns += [Turn("assistant", action, reward), Turn("user", seen["text"], images=(png(seen["image"]),))]
        games.append(Trajectory(turns, "terminated" if number % 2 else "truncated", {"episode": number}))
    return games


STEP = [Turn("user", "a1 a2\n"), Turn("assistant", "a3 a4\n", 0.0)]


@pytest.mark.parametrize(
    "turns",
    [
        [Turn("system", "a5\n"), *STEP * 3],
        [*STEP, Turn("user", "a1\n"), *STEP],
        [Turn("assistant", "a3\n", 0.0), *STEP],
        [Turn("user", "a1\n"), Turn("user", "a2\n"), Turn("assistant", "a3\n", 0.0)],
    ],
)
def test_what_is_not_in_steps_is_refused(turns, tmp_path):
    """A system turn would be half a step, and all that follow an action and what is seen after it."""
    path = tmp_path / "games.jsonl"
    write_trajectories(path, [Trajectory([*STEP, STEP[0]], "truncated"), Trajectory(turns, "terminated")])
    tokenizer = word_level_tokenizer([f"a{i}" for i in range(6)])
    plan = RunSettings("bc", path, MODEL, format="text", behaviour=STAGE)
    with pytest.raises(DataError, match=r"row 2: is not one observation and one action in turn"):
        train(plan, tmp_path / "run", tokenizer=tokenizer, quiet=True)
    good = [Trajectory(STEP * 3, "terminated"), Trajectory([*STEP, STEP[0]], "truncated")]
    write_trajectories(path, good)
    train(plan, tmp_path / "run", tokenizer=tokenizer, quiet=True)


def test_a_model_whose_steps_end_in_another_token_is_refused(tmp_path):
    path = tmp_path / "games.jsonl"
    write_trajectories(path, [Trajectory(STEP * 3, "terminated")])
    tokenizer = word_level_tokenizer([f"a{i}" for i in range(6)])
    plan = RunSettings("bc", path, {**MODEL, "eos_token_id": 7}, format="text", behaviour=STAGE)
    with pytest.raises(DataError, match=r"row 1: is not one observation and one action"):
        train(plan, tmp_path / "run", tokenizer=tokenizer, quiet=True)


def test_pictures_to_play(tmp_path):
    try:
        games = episodes(6)
    except ConfigError as error:
        pytest.skip(str(error))
    path = tmp_path / "pick.jsonl"
    write_trajectories(path, [save_pictures(game, picture_folder(path)) for game in games])
    processor = symbol_tokenizer({"environment": "pick", "image_tokens": 3, **OPTIONS}, "test")
    assert processor.image_tokens == 3
    likelihood = {**STAGE, "return_low": 0.0, "return_high": 1.0}
    plan = RunSettings(
        "qsft", path, {**MODEL, "image_tokens": 3}, format="text", behaviour=STAGE, likelihood=likelihood
    )
    out = train(plan, tmp_path / "run", tokenizer=processor, quiet=True)
    assert json.loads((out / "run.json").read_text())["reply_tokens"] == 6
    policy = load_policy(out, with_behaviour=True)
    (played,) = rollout(policy, lambda: make("pick", **OPTIONS), 1, seed=0, progress=False)
    assert len(played.rewards) <= 25
    assert all(turn.images for turn in played.turns if not turn.is_agent)
    # what is seen makes a difference
    starts = [Trajectory([Turn("user", "\n", images=game.turns[0].images)]) for game in games[:2]]
    first, other = ({value.token: value.prior for value in policy.q_values(start)} for start in starts)
    assert first != other
