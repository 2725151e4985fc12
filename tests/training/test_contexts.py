"""Turns that are read each in a context of its own: losses, and runs from data to play."""

import pytest

from qsft.data import Trajectory, TrajectoryCollator, TrajectoryTokenizer, Turn, tokenize_file, write_trajectories
from qsft.errors import ConfigError
from qsft.policies import load_policy
from qsft.training import RunSettings, train
from qsft.training.losses import SupervisedLoss
from tests.models import tiny
from tests.training import test_critic_losses as critics
from tests.training import test_losses as losses

MODEL = {"model_type": "gpt2", **tiny.SIZES["gpt2"]}
STAGE = {"max_steps": 2, "per_device_train_batch_size": 4, "use_cpu": True, "logging_steps": 1, "save_steps": 1}
GAMES = tiny.trajectories(12, seed=4)


def rows_of(games, folder, max_exchanges):
    """Tokenised games with a support table made of them."""
    tokenizer = TrajectoryTokenizer(tiny.tokenizer(), max_exchanges=max_exchanges)
    return losses.supported(tokenize_file(games, tokenizer, folder), folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return rows_of(GAMES, tmp_path_factory.mktemp("whole"), None)


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """The same rows, each turn with all that came before: a causal model reads the same in both."""
    return rows_of(GAMES, tmp_path_factory.mktemp("apart"), 9)


def assert_same_step(module, one, other, collate):
    batches = collate(one), collate(other)
    assert batches[0]["input_ids"].shape != batches[1]["input_ids"].shape
    first, second = (module(**batch) for batch in batches)
    assert first["loss"].item() == pytest.approx(second["loss"].item(), rel=1e-5)
    losses.assert_same_gradients(*(critics.gradients(out["loss"], module.model) for out in (first, second)))


@pytest.mark.parametrize("case", critics.CONFIGS)
def test_critics_with_the_whole_history_in_each_context(whole, apart, case, tmp_path):
    module = critics.module_of(case, tmp_path)
    assert_same_step(module, whole, apart, TrajectoryCollator(0, module.settings.gamma, module.settings.gamma_per))


def test_both_stages_with_the_whole_history_in_each_context(whole, apart):
    assert_same_step(SupervisedLoss(tiny.make("gpt2", seed=3)), whole, apart, TrajectoryCollator(0))
    assert_same_step(losses.stage_two(losses.BASE), whole, apart, losses.collate)


def test_values_read_the_context_alone_and_targets_the_whole_game(tmp_path):
    """Values of all states of one observation are equal, whenever it comes; targets reach over the contexts."""
    turns = [Turn("user", "a b\n"), Turn("assistant", "c\n", 0.0)]
    game = Trajectory([*turns, Turn("user", "d\n"), Turn("assistant", "e\n", 0.5), *turns], "terminated")
    loss = losses.stage_two(losses.BASE)
    batch = losses.collate(rows_of([game], tmp_path, 1))
    values, _ = loss.state_values(batch)
    assert values[0, :2].tolist() == pytest.approx(values[0, 4:].tolist())
    targets = loss.targets(batch, values).weights[0]
    low, high = losses.BASE.return_range
    next_turn = losses.BASE.gamma * (low + (high - low) * float(values[0, 2]))
    assert float(targets[1]) == pytest.approx((next_turn - low) / (high - low), rel=1e-5)


@pytest.mark.parametrize("method", ["sft", "qsft", "ilql", "return-conditioned"])
def test_a_run_plays_with_the_history_that_it_learnt_from(method, tmp_path):
    path = tmp_path / "data.jsonl"
    write_trajectories(path, GAMES)
    stages = {"qsft": {"likelihood": STAGE}, "ilql": {"critic": STAGE}}
    plan = RunSettings(
        method, path, {**MODEL, "n_positions": 12}, behaviour={**STAGE, "max_exchanges": 1}, **stages.get(method, {})
    )
    out = train(plan, tmp_path / "run", tokenizer=tiny.tokenizer(), quiet=True)
    policy = load_policy(out, with_behaviour=method == "qsft")
    assert policy.tokenizer.max_exchanges == 1
    before = [Turn("user", "a b c d\n"), Turn("assistant", "a\n", 0.0)]
    for seen in ("a\n", "b c\n", "d d d d\n"):
        alone, late = Trajectory([Turn("user", seen)]), Trajectory([*before * 6, Turn("user", seen)])
        assert policy.act([alone]) == policy.act([late]) == policy.act([late])
        if method in ("qsft", "ilql"):
            assert policy.state_values([alone]) == pytest.approx(policy.state_values([late]))


def test_contexts_longer_than_the_model(tmp_path):
    path = tmp_path / "data.jsonl"
    write_trajectories(path, GAMES)
    plan = RunSettings("sft", path, {**MODEL, "n_positions": 8}, behaviour={**STAGE, "max_exchanges": 1})
    longest = max(
        len(turn.text.split()) + len(reply.text.split()) + 3
        for game in GAMES
        for turn, reply in zip(game.turns[::2], game.turns[1::2], strict=False)
    )
    with pytest.raises(ConfigError, match=rf"row \d+: has {longest} tokens and the model 8 positions"):
        train(plan, tmp_path / "run", tokenizer=tiny.tokenizer(), quiet=True)
    again = RunSettings("qsft", path, MODEL, behaviour=STAGE, likelihood={"max_exchanges": 1})
    with pytest.raises(ConfigError, match="likelihood: max_exchanges: .* set it under behaviour"):
        train(again, tmp_path / "again", tokenizer=tiny.tokenizer(), quiet=True)
