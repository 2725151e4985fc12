"""The scripted players, and what they know from the texts against the true state."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs import make, make_policy, scripted_policies, symbols
from qsft.envs.alfworld.env import ALFWorld
from qsft.envs.alfworld.policies import Goal, Player, PopulationPolicy, SlippingPolicy, read_goal
from qsft.envs.alfworld.texts import GOALS, NOTHING_HAPPENS, intro
from qsft.envs.alfworld.view import View
from qsft.envs.collect import collect
from qsft.errors import DataError
from qsft.policies.base import Policy
from tests.envs.alfworld.test_alfworld_env import SPEC
from tests.envs.alfworld.test_alfworld_golden import FILES, load


def test_names_and_contract() -> None:
    assert scripted_policies("alfworld") == ["expert", "population", "random", "slipping"]
    for name in scripted_policies("alfworld"):
        policy = make_policy("alfworld", name)
        assert isinstance(policy, Policy)
        assert policy.name == name
        assert policy.act([]) == []
        with pytest.raises(DataError, match="no first observation of this world"):
            policy.act([Trajectory([Turn("user", "Wordle:\n")])])


def successes(policy: str, episodes: int, **options: object) -> dict[str, tuple[int, int]]:
    """Task type -> won, played."""
    won: Counter[str] = Counter()
    played: Counter[str] = Counter()
    for game in collect("alfworld", policy, episodes, seed=0, env_options=options):
        kind = game.metadata["game"].split("/")[1]
        played[kind] += 1
        won[kind] += game.metadata["success"]
    return {kind: (won[kind], played[kind]) for kind in played}


@pytest.mark.parametrize("options", [{"split": "train"}, {"split": "unseen", "wording": "put"}])
def test_the_expert_wins(options: dict) -> None:
    found = successes("expert", 200, **options)
    assert len(found) == 6
    assert sum(won for won, _ in found.values()) >= 198


def test_an_expert_that_slips_goes_on_after_it() -> None:
    games = list(collect("alfworld", "slipping", 100, seed=0))
    assert sum(game.metadata["success"] for game in games) >= 98
    whole, slips, commands = set(symbols("alfworld", whole_actions=True)), 0, 0
    for game in games:
        places = View.of(game).receptacles
        for said, answer in zip(game.turns, game.turns[1:], strict=False):
            if not said.is_agent:
                continue
            commands += 1
            name = said.text.strip().removeprefix("go to ")
            if said.text.startswith("go to ") and name not in places:
                slips += 1
                assert answer.text == NOTHING_HAPPENS and name in whole
    assert abs(slips / commands - SlippingPolicy.SLIPS) < 0.05


def test_the_population_wins_a_third_in_30_steps() -> None:
    found = successes("population", 320, max_steps=30)
    share = sum(won for won, _ in found.values()) / 320
    assert abs(share - 0.34) < 0.11  # four standard deviations
    assert all(won > 0 for won, _ in found.values()), "each type of task is done by some"
    assert sum(player.share for player in PopulationPolicy.PLAYERS) == pytest.approx(1)


def habitual(monkeypatch: pytest.MonkeyPatch, episodes: int, **habits: float) -> list[tuple[Goal, View, list[str]]]:
    """Goal, first view and commands of games in which every player has these habits and no others."""
    none = dict.fromkeys(("wanders", "forgets", "misplaces", "leaves_shut", "in_order"), 0.0)
    monkeypatch.setattr(PopulationPolicy, "PLAYERS", (Player(1.0, **{**none, **habits}),))
    games = list(collect("alfworld", "population", episodes, seed=0, env_options={"max_steps": 30}))
    firsts = [game.turns[0].text for game in games]
    said = [[turn.text.strip() for turn in game.agent_turns] for game in games]
    return [(read_goal(first), View(first), commands) for first, commands in zip(firsts, said, strict=True)]


def test_without_habits_it_is_the_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    experts = collect("alfworld", "expert", 20, seed=0, env_options={"max_steps": 30})
    said = [[turn.text.strip() for turn in game.agent_turns] for game in experts]
    assert [commands for _, _, commands in habitual(monkeypatch, 20)] == said


def test_habits(monkeypatch: pytest.MonkeyPatch) -> None:
    for forgets in (0, 1):
        games = habitual(monkeypatch, 60, forgets=forgets)
        verbs = {command.split()[0] for _, _, commands in games for command in commands}
        assert bool(verbs & {"clean", "heat", "cool"}) is not bool(forgets)
    for goal, _, commands in habitual(monkeypatch, 60, leaves_shut=1):
        opened = {command.split()[1] for command in commands if command.startswith("open ")}
        assert opened <= {goal.target, *(("fridge", "microwave") if goal.treatment else ())}, (
            "to bring it there at most"
        )
    for _, view, commands in habitual(monkeypatch, 60, in_order=1):
        assert commands[0] == f"go to {view.receptacles[0]}"
    places: Counter[bool] = Counter()
    for goal, _, commands in habitual(monkeypatch, 60, misplaces=1):
        brought = [command.split()[-2] for command in commands if command.startswith("move ")]
        places.update(place == goal.target for place in brought)
    assert places[False] > 5 * places[True], "where nothing else takes it, it comes to the right place"


def test_random_play_hardly_wins() -> None:
    found = successes("random", 100)
    assert sum(won for won, _ in found.values()) <= 8


@pytest.mark.skipif(not FILES, reason="no golden vectors beside the checkout")
def test_the_expert_wins_games_of_the_original() -> None:
    """Their objects lie anywhere, so our tables of where to look are a guess there."""
    env = make("alfworld")
    expert = make_policy("alfworld", "expert")
    for path in FILES:
        observation, _ = env.reset(options={"spec": load(path)["spec"]})
        history = Trajectory([Turn("user", observation)])
        over = False
        while not over:
            (action,) = expert.act([history])
            observation, _, won, truncated, _ = env.step(action)
            history.turns += [Turn(AGENT_ROLE, action), Turn("user", observation)]
            over = won or truncated
        assert won, path.stem


@pytest.mark.parametrize("wording", ["move", "put"])
@pytest.mark.parametrize("seed", range(12))
def test_what_the_texts_tell_is_true(seed: int, wording: str) -> None:
    """After each step of random play, all that the view holds is so in the game, and commands it finds are possible."""
    env = ALFWorld(wording=wording)
    player = make_policy("alfworld", "random", env_options={"wording": wording})
    observation, info = env.reset(seed=seed)
    game = env._game
    view = View(observation)
    drawn = random.Random(seed)
    assert view.receptacles == tuple(receptacle.name for receptacle in game.spec.receptacles)
    for _ in range(50):
        guesses = player.possible(view)
        unsure = {f"go to {name}" for name in view.receptacles}  # it may be beside, which is not known yet
        assert set(guesses) - unsure <= set(info["admissible_commands"])
        action = drawn.choice(info["admissible_commands"] + ["nonsense"])
        answer, _, won, truncated, info = env.step(action)
        view.learn(action, answer)
        assert view.refused is (action == "nonsense")
        assert view.held == (game.held.name if game.held else None)
        for name, inside in view.inside.items():
            assert sorted(inside) == sorted(thing.name for thing in game._inside[name])
        for name, opened in view.opened.items():
            assert opened is (name in game._open)
        for name, states in view.states.items():
            assert states <= {"on" if state == "toggled" else state for state in game._states[name]}
        locations = {receptacle.name: receptacle.location for receptacle in game.spec.receptacles}
        assert (game.location is None) is (view.here is None)
        assert all(locations[name] == game.location for name in view.beside())
        if won or truncated:
            break


def test_a_refused_way_tells_that_one_is_there() -> None:
    env = make("alfworld")
    view = View(env.reset(options={"spec": SPEC})[0])
    for action in ("go to shelf 2", "go to shelf 1"):
        view.learn(action, env.step(action)[0])
    assert view.refused and view.here == "shelf 2"
    assert view.beside() == ["shelf 2", "shelf 1"]
    assert not view.at("microwave 1")


def test_every_wording_of_a_goal_is_read() -> None:
    for task_type, wordings in GOALS.items():
        for wording in wordings:
            first = intro(["shelf 1"], wording.format("egg", "shelf"))
            assert read_goal(first) == Goal(task_type, "egg", "shelf")
    with pytest.raises(DataError, match="'Bring me the egg' has none of the templates' wordings"):
        read_goal(intro(["shelf 1"], "Bring me the egg"))


def test_the_population_follows_from_its_seed() -> None:
    env = make("alfworld")
    history = Trajectory([Turn("user", env.reset(seed=0)[0])])
    policy = make_policy("alfworld", "population", seed=1)
    first = [policy.act([history])[0] for _ in range(20)]
    policy.seed(1)
    assert [policy.act([history])[0] for _ in range(20)] == first
    policy.seed(2)
    assert [policy.act([history])[0] for _ in range(20)] != first
