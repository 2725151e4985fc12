"""Return tokens: their levels, where they stand, and that play shows what training showed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from qsft.data import Trajectory, TrajectoryTokenizer, Turn, tokenize_file
from qsft.data.return_tokens import ReturnTokens, add_return_tokens, return_levels
from qsft.errors import ConfigError, DataError
from tests.data.families import chat, episode
from tests.models import tiny

GAME = episode(("user", "a b\n"), ("assistant", "c\n", -1.0), ("user", "d\n"), ("assistant", "e f\n", -1.0),
               ("user", "g\n"), ("assistant", "h\n", 0.0))  # fmt: skip
LEVELS = [-2.0, -1.0, 0.0]
#: ids of the symbols of ``tiny``, and of the return tokens behind them
BOS, END, A, B, C, D, E, F, G, H = 1, 3, 4, 5, 6, 7, 8, 9, 10, 11
MINUS_2, MINUS_1, NONE = 13, 14, 15


def tokenized(levels=LEVELS, **settings):
    return TrajectoryTokenizer(add_return_tokens(tiny.tokenizer(), levels), return_levels=levels, **settings)


def to_go_by_hand(rewards):
    return [sum(rewards[i:]) for i in range(len(rewards))]


class TestLevels:
    def test_few_returns_are_exact(self):
        assert return_levels([GAME], 3) == ([-2.0, -1.0, 0.0], -2.0)
        assert return_levels(iter([GAME, episode(("user", "a\n"), ("assistant", "b\n", 0.1 + 0.2))]), 8) == (
            [-2.0, -1.0, 0.0, 0.3], 0.3,
        )  # fmt: skip

    def test_many_are_the_grid_values_that_occur(self):
        """Against the definition: the nearest of evenly spaced values, those that nobody is nearest to left out."""
        rng = np.random.default_rng(0)
        rewards = np.round(np.concatenate([rng.uniform(-5, -4, 30), rng.uniform(2, 3, 30)]), 3)
        games = [episode(("user", "a\n"), ("assistant", "b\n", float(r))) for r in rewards]
        found, best = return_levels(games, 12)
        assert best == pytest.approx(max(rewards))
        grid = [min(rewards) + i * (max(rewards) - min(rewards)) / 11 for i in range(12)]
        expected = sorted({min(grid, key=lambda level, r=r: abs(level - r)) for r in rewards})
        assert found == pytest.approx(expected, abs=1e-4)
        assert 3 < len(found) < 8
        assert (found[0], found[-1]) == (min(rewards), max(rewards))

    def test_refused(self):
        with pytest.raises(ConfigError, match="return_tokens: 1; give at least 2"):
            return_levels([GAME], 1)
        with pytest.raises(ConfigError, match="every return-to-go in the data is the same"):
            return_levels([episode(("user", "a\n"), ("assistant", "b\n", 2.0))] * 3, 4)
        for levels in ([1.0], [2.0, 1.0]):
            with pytest.raises(ConfigError, match="ascending order"):
                ReturnTokens(add_return_tokens(tiny.tokenizer(), levels), levels)
        with pytest.raises(ConfigError, match=r"no return token '<\|return -2\|>'"):
            ReturnTokens(tiny.tokenizer(), LEVELS)


def test_the_callers_tokenizer_stays_as_it_was():
    tokenizer = tiny.tokenizer()
    extended = add_return_tokens(tokenizer, LEVELS)
    assert (len(tokenizer), len(extended)) == (13, 16)
    assert extended.convert_ids_to_tokens([13, 14, 15]) == ["<|return -2|>", "<|return -1|>", "<|return 0|>"]


class TestTraining:
    def test_exact_positions(self):
        """Before each turn of the agent: of the returns-to-go -2, -1 and 0; nobody is trained to say them."""
        row = tokenized()(GAME)
        assert row["input_ids"] == [
            BOS, A, B, END, MINUS_2, C, END, D, END, MINUS_1, E, F, END, G, END, NONE, H, END,
        ]  # fmt: skip
        assert row["agent_mask"] == [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1]
        assert [i for i, end in enumerate(row["turn_end"]) if end] == [6, 12, 17]
        assert row["turn_rewards"] == [-1.0, -1.0, 0.0]

    def test_a_truncated_episode_shows_none_before_the_turn_that_never_came(self):
        turns = [*GAME.turns[:4], Turn("user", "g\n")]
        row = tokenized()(Trajectory(turns, "truncated"))
        assert row["input_ids"] == [BOS, A, B, END, MINUS_2, C, END, D, END, MINUS_1, E, F, END, G, END]

    def test_returns_between_two_levels_take_the_nearest(self):
        row = tokenized([-3.0, 0.0])(GAME)
        assert [token for token in row["input_ids"] if token >= 13] == [13, 14, 14]  # of -2, -1, 0

    @pytest.mark.parametrize(("limit", "kept"), [(18, 3), (17, 2), (12, 2), (11, 1), (6, 1)])
    def test_left_truncation_counts_them_and_keeps_the_returns(self, limit, kept):
        """Lengths by hand: bos and 6 + 6 + 5 tokens, from the last turn back."""
        whole = tokenized()(GAME)["input_ids"]
        row = tokenized(max_length=limit)(GAME)
        assert row["input_ids"] == [BOS, *whole[-[5, 11, 17][kept - 1] :]]
        assert len(row["input_ids"]) <= limit
        assert row["turn_rewards"] == [-1.0, -1.0, 0.0][-kept:]

    def test_too_short_for_the_last_exchange(self):
        with pytest.raises(DataError, match="its last exchange alone has 6 tokens, 5 are allowed"):
            tokenized(max_length=5)(GAME)

    def test_without_them_nothing_changes(self, tmp_path):
        """The rows of random games, less their return tokens, are those of a plain tokeniser."""
        games = tiny.trajectories(40, seed=1)
        levels, best = return_levels(games, 16)
        assert best == pytest.approx(max(sum(game.rewards) for game in games))
        plain = TrajectoryTokenizer(tiny.tokenizer())
        for game, row in zip(games, tokenize_file(games, tokenized(levels), tmp_path), strict=True):
            told = [i for i, token in enumerate(row["input_ids"]) if token >= 13]
            for name in ("input_ids", "agent_mask", "turn_end"):
                assert [x for i, x in enumerate(row[name]) if i not in told] == plain(game)[name]
            starts = [i for i, m in enumerate(row["agent_mask"]) if m and not row["agent_mask"][i - 1]]
            assert [i + 1 for i in told] == starts
            nearest = [min(levels, key=lambda level, r=r: abs(level - r)) for r in to_go_by_hand(game.rewards)]
            assert [levels[row["input_ids"][i] - 13] for i in told] == nearest

    def test_in_the_chat_format_they_stand_behind_the_generation_prompt(self):
        tokenizer = chat("chatml")
        game = episode(("user", "Hello"), ("assistant", "the cat", 1.0), ("user", "and"), ("assistant", "sat", 2.0))
        plain = TrajectoryTokenizer(tokenizer)
        levels = [0.0, 2.0, 3.0]
        told = TrajectoryTokenizer(add_return_tokens(tokenizer, levels), return_levels=levels)
        three, two = len(tokenizer) + 2, len(tokenizer) + 1
        row = plain(game)
        first, second = (i for i, m in enumerate(row["agent_mask"]) if m and not row["agent_mask"][i - 1])
        ids = row["input_ids"]
        assert told(game)["input_ids"] == [*ids[:first], three, *ids[first:second], two, *ids[second:]]
        assert told.prompt(Trajectory(game.turns[:3])) == [*ids[:first], three, *ids[first:second], three]


class TestPlay:
    @pytest.mark.parametrize("limit", [None, 14])
    def test_asked_for_what_was_reached_it_sees_what_training_saw(self, limit):
        """Every turn of random games, id for id: the last turn's reward is all that was still to come."""
        games = tiny.trajectories(40, seed=3)
        policy = tokenized(return_levels(games, 10_000)[0], max_length=limit)
        cut = 0
        for game in games:
            for turn, i in enumerate([i for i, turn in enumerate(game.turns) if turn.is_agent]):
                past, text = game.turns[:i], game.turns[i].text
                said = Turn("assistant", text, sum(game.rewards[turn:]))
                row = policy(Trajectory([*past, said], "terminated"))
                reply = len(policy.reply(Trajectory(past), text))
                shown = policy.prompt(Trajectory(past), reply, target_return=game.total_return)
                assert shown == row["input_ids"][:-reply]
                cut += len(row["turn_rewards"]) <= turn
        assert (cut > 20) == (limit is not None)

    def test_what_is_wanted_falls_by_what_was_received(self):
        returns = tokenized([-3.0, -2.0, -1.0, 0.0, 1.0]).returns
        turns = [
            Turn("user", "a\n"),
            Turn("assistant", "b\n", -1.0),
            Turn("user", "a\n"),
            Turn("assistant", "b\n", -1.0),
        ]
        assert returns.wanted(turns, -2.0) == [-2.0, -1.0, 0.0]
        assert returns.wanted(turns, -3.0) == [-3.0, -2.0, -1.0]
        # out of reach: what is still possible, and a past that fits to it
        assert returns.wanted(turns, 1.0) == [-1.0, 0.0, 1.0]
        assert returns.wanted(turns, None) == [-1.0, 0.0, 1.0]
        # already more than was wanted: the worst that the data has seen
        rich = [Turn("assistant", "b\n", 5.0)]
        assert returns.wanted(rich, 0.0) == [2.0, -3.0]
        # nobody told: the reward comes at the end
        assert returns.wanted([Turn("assistant", "b\n")], 1.0) == [1.0, 1.0]

    def test_a_return_that_nobody_has_seen(self):
        policy = tokenized()
        with pytest.raises(ConfigError, match="target_return: 1 is outside of the returns-to-go in the data, -2 to 0"):
            policy.prompt(Trajectory(GAME.turns[:1]), target_return=1.0)
        with pytest.raises(ConfigError, match="only a policy trained with return tokens"):
            TrajectoryTokenizer(tiny.tokenizer()).prompt(Trajectory(GAME.turns[:1]), target_return=0.0)

    def test_settings_come_back(self, tmp_path: Path):
        made = tokenized()
        made.tokenizer.save_pretrained(tmp_path)
        from qsft.models.scratch import load_tokenizer

        again = TrajectoryTokenizer.from_dict(load_tokenizer(tmp_path), json.loads(json.dumps(made.to_dict())))
        assert again(GAME) == made(GAME)
        assert again.fingerprint() != TrajectoryTokenizer(made.tokenizer).fingerprint()
        assert "return_levels" not in TrajectoryTokenizer(tiny.tokenizer()).to_dict()
