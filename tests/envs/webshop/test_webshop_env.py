"""The environment: options, rewards, endings, bad input, tokens, and how fast it is."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from gymnasium.utils.env_checker import check_env

from qsft.envs import Environment, make, symbols
from qsft.envs.collect import collect, collect_to_file
from qsft.envs.webshop import WebShop
from qsft.envs.webshop.products import Product
from qsft.envs.webshop.texts import spaced
from qsft.errors import ConfigError
from tests.envs.webshop.shops import hand_made_shop

SMALL = {"products": 2000}


def by_hand(**options: Any) -> WebShop:
    env = WebShop(**SMALL, split="all", **options)
    env.shop = hand_made_shop()
    env._goals = range(env.shop.catalogue.goals)
    return env


def shop(env: Environment, *actions: str) -> list[tuple]:
    env.reset(options={"goal": 0})
    return [env.step(action) for action in actions]


BUY_MAT = ("search[purple]", "click[b000000000]", "click[deep purple]", "click[buy now]")


def test_a_purchase() -> None:
    *before, last = shop(by_hand(), *BUY_MAT)
    assert all(step[1:4] == (0.0, False, False) for step in before)
    assert all(set(step[4]) == {"available_actions"} for step in before), "nothing is given away"
    observation, score, terminated, truncated, info = last
    assert (score, terminated, truncated) == (1.0, True, False)
    assert (info["success"], info["goal"]) == (True, 0)
    assert info["score"].type == info["score"].options == 1.0
    assert observation.startswith("Thank you for shopping with us!")
    assert "[SEP] 1.0 [SEP]" in observation


@pytest.mark.parametrize(
    ("actions", "score"),
    [
        (("search[purple]", "click[b000000000]", "click[buy now]"), 2 / 3),
        (("search[purple]", "click[b000000000]", "click[sky blue]", "click[buy now]"), 2 / 3),
        (("search[plain]", "click[b000000001]", "click[buy now]"), 0.0),  # costs 100, for want of a price
        (("search[trick]", "click[b000000002]", "click[buy now]"), 0.0),  # no mat
    ],
)
def test_scores(actions: tuple, score: float) -> None:
    observation, reward, terminated, _, info = shop(by_hand(), *actions)[-1]
    assert reward == pytest.approx(score)
    assert terminated
    assert info["success"] is False
    assert f"[SEP] {reward} [SEP]" in observation


def test_the_limit_ends_the_episode_with_nothing() -> None:
    steps = shop(by_hand(max_turns=3), "nonsense", "search[purple]", "click[b000000000]")
    assert [step[1:4] for step in steps] == [(0.0, False, False)] * 2 + [(0.0, True, False)]
    assert steps[-1][4] == {"success": False, "goal": 0, "score": None}
    assert shop(by_hand(max_turns=4), *BUY_MAT)[-1][1] == 1.0, "the last action still counts"


def test_available_actions_are_told() -> None:
    env = by_hand()
    _, info = env.reset()
    assert info == {"available_actions": {"has_search_bar": True, "clickables": ["search"]}}
    info = shop(env, "search[purple]")[-1][4]
    assert info == {
        "available_actions": {"has_search_bar": False, "clickables": ["back to search", "next >", "b000000000"]}
    }


def test_words_say_less_twice() -> None:
    env = by_hand(observation="words")
    said = [
        step[0] for step in shop(env, "search[ purple ]\n", "click[ item 1 ]\n", "click[ deep purple ]\n", "oops\n")
    ]
    assert said[2:] == ["chosen color : deep purple\n", "nothing happens\n"]
    env.reset()
    assert env.step("click[ item 1 ]\n")[0] == "nothing happens\n"
    walk = ("search[ purple ]\n", "click[ item 1 ]\n", "click[ < prev ]\n", "click[ item 1 ]\n")
    first, item, back, again = (step[0] for step in shop(env, *walk))
    assert back == first.splitlines()[0] + " again\n"
    assert again == item, "what is listed can be opened although it is not told again"
    another = shop(env, "search[ purple ]\n", "search[ cork ]\n", "search[ purple ]\n", "click[ next > ]\n")
    assert [step[0].endswith(" again\n") for step in another] == [False, False, True, False]


@pytest.mark.parametrize("mode", ["text", "text_rich", "words"])
def test_a_thought_before_an_action_changes_nothing(mode: str) -> None:
    plain, thinking = by_hand(observation=mode), by_hand(observation=mode)
    actions = ("search[purple]", "click[B000000000]", "oops", "click[buy now]")
    thoughts = (
        "Thought: a search[mat]\nAction: ",
        "Thought: this. Action: ",
        "Thought:\tno Action: ",
        " Thought: x\nAction:",
    )
    said = [thought + action for thought, action in zip(thoughts, actions, strict=True)]
    assert shop(thinking, *said) == shop(plain, *actions)


@pytest.mark.parametrize(
    "action", ["", "\n", "click[", "buy", "search[" + "😀" * 100_000 + "]", "\ud800", "[]" * 10_000, "click[none]"]
)
@pytest.mark.parametrize("mode", ["text", "text_rich", "words"])
def test_any_text_is_an_action(mode: str, action: str) -> None:
    env = by_hand(observation=mode)
    observation, reward, terminated, *_ = shop(env, action)[0]
    assert isinstance(observation, str) and reward == 0.0 and not terminated


def test_odd_products_can_be_bought() -> None:
    """No price, no options, no features, no description, no noun, HTML in every text."""
    env = by_hand()
    steps = shop(env, "search[script]", "click[b000000013]", "click[description]", "click[< prev]", "click[buy now]")
    assert "</h2><script>alert(2)</script>" in steps[1][0], "an agent reads it as it is"
    assert steps[-1][1] == 0.0 and steps[-1][2]
    assert Product("B1", "q", "c", "t", ()).price_text == "$100.0"


def test_splits() -> None:
    def drawn(split: str) -> set[int]:
        env = make("webshop", split=split)
        numbers = set()
        for seed in range(60):
            env.reset(seed=seed)
            numbers.add(env.goal_number)
        return numbers

    assert max(drawn("test")) < 500
    assert 500 <= min(drawn("eval")) <= max(drawn("eval")) < 1500
    assert min(drawn("train")) >= 1500
    env = make("webshop", split="test")
    assert env.reset(seed=1)[0] == env.reset(seed=1)[0] != env.reset(seed=2)[0]
    text, _ = env.reset(options={"goal": 9999})
    assert env.goal.instruction in text, "any goal can be pinned"


def test_synthetic_goals() -> None:
    env = make("webshop", goals="synthetic", **SMALL)
    text, _ = env.reset(seed=0)
    assert "Instruction: [SEP] Find me " in text
    assert all(isinstance(option, tuple) for option in env.goal.options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observation": "html"}, "observation='html' is unknown; use one of text, text_rich, words"),
        ({"split": "dev"}, "split='dev' is unknown"),
        ({"goals": "mine"}, "goals='mine' is unknown"),
        ({"max_turns": 0}, "max_turns=0 must be at least 1"),
        ({"max_turns": 2.5}, "max_turns=2.5"),
        ({"products": 10}, "products=10 must be from 2,000"),
        ({"catalogue_seed": 2**64}, "catalogue_seed=18446744073709551616 must be"),
        ({"catalogue_seed": -1}, "catalogue_seed=-1 must be at least 0 and below"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=f"webshop: .*{message}"):
        WebShop(**options)


@pytest.mark.parametrize("goal", [-1, 10_000, "1", 1.0, True, [1]])
def test_bad_goals(goal: Any) -> None:
    with pytest.raises(ConfigError, match="webshop: goal .* is not one of this shop's, 0 to 9999"):
        make("webshop").reset(options={"goal": goal})


def test_gymnasium_s_checker() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(make("webshop", **SMALL), skip_render_check=True)


def test_typed_actions() -> None:
    env = by_hand()
    env.reset()
    assert env.typed_action("search[mat]") == "search[mat]"
    assert env.typed_action("purple mat") == "search[purple mat]"
    env.step("search[purple]")
    assert env.typed_action("B000000000") == "click[B000000000]"
    assert env.typed_action("next >") == "click[next >]"
    for nothing in ("", "a\nb"):
        assert env.typed_action(nothing) == nothing
    unplayed = by_hand(observation="text")
    assert unplayed.typed_action("click[Buy Now]") == "click[Buy Now]"
    assert unplayed.typed_action("buy now") == "buy now", "nobody knows what can be clicked"
    words = by_hand(observation="words")
    words.reset()
    words.step("search[ purple ]\n")
    assert words.typed_action("item 1") == "click[ item 1 ]\n"


def test_a_missing_package_is_named() -> None:
    program = """
import sys
sys.modules["bm25s"] = None
from qsft.envs import make
try:
    make("webshop")
except Exception as error:
    print(type(error).__name__, error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.startswith("ConfigError")
    assert "webshop: the package 'bm25s' is missing; pip install 'qsft[webshop]'" in said


# ---- Tokens ----


def test_symbols_are_all_that_is_said() -> None:
    known = symbols("webshop", observation="words", **SMALL)
    assert len(known) == len(set(known)) < 2500
    known_set = set(known)
    for policy, goals in (("mixture", "human"), ("random", "synthetic"), ("expert", "human")):
        options = {**SMALL, "observation": "words", "goals": goals}
        for game in collect("webshop", policy, 48, 0, options):
            for turn in game.turns:
                assert turn.text.endswith("\n") and " \n" not in turn.text and "\n " not in turn.text
                unknown = set(turn.text.replace("\n", " ").split()) - known_set
                assert not unknown, (unknown, turn.text)


def test_a_word_level_tokenizer_gives_the_texts_back() -> None:
    from qsft.models.scratch import word_level_tokenizer

    tokenizer = word_level_tokenizer(symbols("webshop", observation="words", **SMALL))
    for game in collect("webshop", "mixture", 8, 0, {**SMALL, "observation": "words"}):
        for turn in game.turns:
            ids = tokenizer(turn.text, add_special_tokens=False)["input_ids"]
            assert tokenizer.decode(ids) == turn.text


@pytest.mark.parametrize("options", [{"observation": "text"}, {"observation": "text_rich"}])
def test_the_original_s_texts_have_no_symbols(options: dict) -> None:
    with pytest.raises(ConfigError, match="observation='words'"):
        symbols("webshop", **SMALL, **options)


def test_no_whole_actions() -> None:
    with pytest.raises(ConfigError, match="a search is many words"):
        symbols("webshop", whole_actions=True, observation="words", **SMALL)


def test_spaced_keeps_no_doubtful_blanks() -> None:
    assert spaced("  a  b\tc ") == "a b c"


def test_data_are_made_and_read_again(tmp_path: Path) -> None:
    from qsft.data.files import load_trajectories

    out = tmp_path / "shopping.jsonl"
    collect_to_file("webshop", "mixture", 20, out, 3, SMALL)
    games = list(load_trajectories(out))
    assert games == list(collect("webshop", "mixture", 20, 3, SMALL))
    assert all(game.metadata["goal"] >= 1500 for game in games), "from the training goals"


def test_speed() -> None:
    """At least 2,000 steps a second on one core with 10,000 products; measured some six times that on a quiet one.

    Processor time, so that other work on the machine counts little; every search is a new one.
    """
    env = make("webshop")
    games = list(collect("webshop", "mixture", 160))
    best = 0.0
    for _ in range(3):
        env.shop.engine._found.cache_clear()
        start, steps = time.process_time(), 0
        for game in games:
            env.reset(options={"goal": game.metadata["goal"]})
            for turn in game.agent_turns:
                env.step(turn.text)
                steps += 1
        best = max(best, steps / (time.process_time() - start))
    assert best > 2000, f"{best:.0f} steps/s"
