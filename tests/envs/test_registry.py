"""Environments by name, and what every one of them has to keep."""

from __future__ import annotations

import ast
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import qsft.envs
from qsft.envs import Environment, EpisodeError, make, make_policy, names, scripted_policies, symbols
from qsft.envs.registry import ENVIRONMENTS
from qsft.envs.rollout import derive_seed, rollout
from qsft.errors import ConfigError


class Count(Environment):
    """Says a number, wants the next one; truncated after three turns."""

    name = "count"
    reset_options = ("start",)
    policies: ClassVar[dict[str, str]] = {"right": f"{__name__}:Right"}

    def __init__(self, step_by: int = 1) -> None:
        self.step_by = step_by
        self.return_range = (0.0, 3.0)
        self.max_turns = 3

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.start = (options or {}).get("start", int(self.np_random.integers(1000)))
        self.now, self.turns, self.right = self.start, 0, True
        return str(self.now), {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.check_step(action)
        self.turns += 1
        good = action == str(self.now + self.step_by)
        self.right &= good
        self.now += self.step_by
        self._playing = good and self.turns < 3
        info = {} if self._playing else {"success": self.right, "start": self.start}
        return str(self.now) if good else "", float(good), not good, good and self.turns == 3, info


class Right:
    name = "right"

    def __init__(self, environment: Count) -> None:
        self.step_by = environment.step_by

    def seed(self, seed: int) -> None:
        pass

    def act(self, histories: Any) -> list[str]:
        return [str(int(history.turns[-1].text) + self.step_by) for history in histories]


def test_names() -> None:
    assert "wordle" in names()
    assert names() == sorted(ENVIRONMENTS)


@pytest.mark.parametrize("name", names())
def test_every_environment_keeps_the_contract(name: str) -> None:
    """A new benchmark is tested here as soon as it has its line in the registry."""
    environment = make(name)
    assert environment.name == name
    low, high = environment.return_range
    assert low < high
    assert environment.max_turns > 0
    assert scripted_policies(name), "an environment comes with at least one scripted policy"
    with pytest.raises(EpisodeError):
        environment.step("before reset")
    with pytest.raises(ConfigError, match="no such option"):
        environment.reset(options={"no such option": 1})
    for policy_name in scripted_policies(name):
        policy = make_policy(name, policy_name, seed=1)
        played = rollout([environment, make(name)], policy, [3, 4])
        policy.seed(1)
        assert rollout([make(name), make(name)], policy, [3, 4]) == played, "the same seeds give the same episodes"
        pinned = [{key: game.metadata[key] for key in environment.reset_options} for game in played]
        policy.seed(1)
        assert rollout([make(name), environment], policy, [5, 6], pinned) == played, "reset options replay an episode"
        for game in played:
            assert low <= game.total_return <= high
            assert isinstance(game.metadata["success"], bool)
            assert 1 <= len(game.rewards) <= environment.max_turns
            assert all(isinstance(reward, float) for reward in game.rewards)
    with pytest.raises(EpisodeError, match="reset"):
        environment.step("after the end")


@pytest.mark.parametrize("name", names())
def test_every_environment_is_one_of_gymnasium(name: str) -> None:
    options = {"chess": {"opponent": "random"}, "endgames": {"opponent": "random"}, "webshop": {"products": 2000}}
    environment = make(name, **options.get(name, {}))
    assert isinstance(environment.action_space, gymnasium.spaces.Text), "actions are texts unless one asks for vectors"
    environment.action_space.seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that texts have no bounds, and such advice
        check_env(environment, skip_render_check=True)
    policy = make_policy(name, scripted_policies(name)[0], env_options=options.get(name), seed=1)
    (game,) = rollout([environment], policy, [3])
    for turn in game.agent_turns:
        assert environment.action_space.contains(turn.text), "what is played can be played"


def test_own_environment_by_module_and_class() -> None:
    name = f"{__name__}:Count"
    assert make(name, step_by=2).step_by == 2
    assert scripted_policies(name) == ["right"]
    policy = make_policy(name, "right", env_options={"step_by": 5})
    (game,) = rollout([make(name, step_by=5)], policy, [0], [{"start": 7}])
    assert [turn.text for turn in game.turns] == ["7", "12", "12", "17", "17", "22", "22"]
    assert game.rewards == [1.0, 1.0, 1.0]
    assert game.ended == "truncated"
    assert game.metadata == {"start": 7, "success": True}


def test_rollout_asks_only_for_unfinished_episodes_and_drops_an_empty_last_observation() -> None:
    class Wrong(Right):
        asked: ClassVar[list[int]] = []

        def act(self, histories: Any) -> list[str]:
            self.asked.append(len(histories))
            return ["wrong" if history.turns[0].text == "1" else action for history, action in self.pairs(histories)]

        def pairs(self, histories: Any) -> Any:
            return zip(histories, super().act(histories), strict=True)

    first, second = rollout([Count(), Count()], Wrong(Count()), [0, 0], [{"start": 1}, {"start": 2}])
    assert Wrong.asked == [2, 1, 1]
    assert [turn.text for turn in first.turns] == ["1", "wrong"]
    assert (first.ended, first.metadata) == ("terminated", {"start": 1, "success": False})
    assert (second.ended, second.rewards) == ("truncated", [1.0, 1.0, 1.0])


def test_rollout_needs_one_action_a_history() -> None:
    class Silent(Right):
        def act(self, histories: Any) -> list[str]:
            return []

    with pytest.raises(EpisodeError, match="'right' returned 0 actions for 2 histories"):
        rollout([Count(), Count()], Silent(Count()), [0, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make("wordel"), r"unknown environment 'wordel'; known: .*wordle"),
        (lambda: make("no_such_module:Env"), "cannot import 'no_such_module:Env'"),
        (lambda: make("qsft.envs.wordle:Nothing"), "cannot import"),
        (lambda: make(":"), "cannot import"),
        (lambda: make("qsft.errors:QSFTError"), "not a subclass"),
        (lambda: make("wordle", colour=1), "no option 'colour'; it has: words"),
        (lambda: make_policy("wordle", "best"), "no scripted policy 'best'; it has: greedy-information, mixture"),
        (lambda: make_policy("wordle", "random", q=0.5), "policy 'random' has no option 'q'; it has: none"),
        (lambda: make_policy("wordle", "random", env_options={"colour": 1}), "no option 'colour'"),
        (lambda: scripted_policies("chest"), "unknown environment"),
        (lambda: make("wordle", words=5), "environment 'wordle' cannot be made with words=5: "),
        (lambda: make("alfworld", task_types=3), "environment 'alfworld' cannot be made with task_types=3: "),
        (lambda: make("chess", engine=3), "chess: engine=3 is no path"),
        (lambda: make("webshop", products=1e4), "webshop: products=10000.0 is no whole number"),
        (lambda: make("webshop", products="10,000"), "webshop: products='10,000' is no whole number"),
        (lambda: make("webshop", products=2000, index=__file__), "no search index can be kept there"),
        (lambda: make("twenty-questions", nouns=["x"]), r"twenty-questions: nouns=\['x'\] is no function"),
        (lambda: make("twenty-questions", oracle={"base_url": 5, "model": "m"}), "base_url=5 is no http address"),
        (lambda: derive_seed(-1), "negative"),
    ],
)
def test_unknown_names(call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_naming_environments_imports_none_of_them() -> None:
    program = "import sys, qsft.envs; assert qsft.envs.names(); assert 'qsft.envs.wordle' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_environments_do_not_use_torch() -> None:
    sources = list(Path(qsft.envs.__file__).parent.rglob("*.py"))
    assert len(sources) > 10
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"torch", "transformers"} & {module.split(".")[0] for module in modules}, source


def test_symbols_are_optional() -> None:
    with pytest.raises(ConfigError, match="count: its texts have no closed set of symbols"):
        symbols(f"{__name__}:Count")


def test_derived_seeds_differ() -> None:
    keys = [(), (0,), (1,), (0, 0), (0, 1), (1, 0)]
    seeds = [derive_seed(seed, *key) for seed in (0, 1, 2**40) for key in keys]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [derive_seed(seed, *key) for seed in (0, 1, 2**40) for key in keys]


@pytest.mark.parametrize(
    "name", ["wordle", "twenty-questions", "guess-my-city", "maze", "text-nav", "alfworld", "webshop"]
)
def test_reset_options(name: str) -> None:
    """Of another kind they are refused with the environment's name; ``None`` leaves to be drawn."""
    env = make(name, products=2000) if name == "webshop" else make(name)
    for wrong in (["a"], "fen", 5):
        with pytest.raises(
            ConfigError, match=f"{name}: reset options .*; give a dict, such as {{'{env.reset_options[0]}'"
        ):
            env.reset(seed=0, options=wrong)
    drawn = env.reset(seed=0)
    assert env.reset(seed=0, options=dict.fromkeys(env.reset_options)) == drawn
    with pytest.raises(ConfigError, match=f"{name}: unknown reset option 'colour'; known: "):
        env.reset(seed=0, options={"colour": None})
