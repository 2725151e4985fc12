"""The scripted customers: that they shop in every mode, their order, and what the population is like."""

from __future__ import annotations

import statistics
from random import Random

import pytest

from qsft.data.trajectory import Trajectory, Turn
from qsft.envs import make, make_policy
from qsft.envs.collect import collect
from qsft.envs.rollout import rollout
from qsft.envs.webshop.policies import MixturePolicy, Visit, words_of
from qsft.envs.webshop.session import Action, Session, parse_action
from qsft.envs.webshop.vocabulary import misspelt, vocabulary
from qsft.errors import DataError
from tests.envs.webshop.shops import hand_made_shop

MODES = ("text", "text_rich", "words")


def scores(policy: str, episodes: int, mode: str = "words") -> list[float]:
    return [game.total_return for game in collect("webshop", policy, episodes, 0, {"observation": mode})]


def test_their_order() -> None:
    """96 episodes: standard error about .03."""
    mean = {name: statistics.mean(scores(name, 96)) for name in ("random", "first-item", "mixture", "expert")}
    assert mean["random"] < 0.35 < mean["mixture"] < mean["first-item"] < 0.8 < mean["expert"]


def test_the_population_scores_near_the_paper_s_sft() -> None:
    """Mean .54 over 10,000 episodes; the standard error of 640 is .014."""
    got = scores("mixture", 640)
    assert 0.55 - 0.06 < statistics.mean(got) < 0.55 + 0.06
    assert statistics.stdev(got) > 0.3, "good, fair and poor"
    assert 0.1 < sum(score == 1.0 for score in got) / len(got) < 0.35


def test_they_play_the_same_in_every_mode() -> None:
    games = {}
    for mode in MODES:
        policy = make_policy("webshop", "expert", env_options={"observation": mode})
        (games[mode],) = rollout([make("webshop", observation=mode)], policy, [0], [{"goal": 1600}])
    texts = [[spoken(turn.text) for turn in game.agent_turns] for game in games.values()]
    assert texts[0] == texts[1]
    assert len(texts[2]) == len(texts[0])
    assert len({game.total_return for game in games.values()}) == 1


def spoken(text: str) -> Action | None:
    return parse_action(text)


@pytest.mark.parametrize("name", ["random", "first-item", "mixture", "expert"])
def test_the_same_seed_and_history_give_the_same_action(name: str) -> None:
    (game,) = collect("webshop", name, 1)
    policy = make_policy("webshop", name)
    cut = Trajectory(game.turns[:3])
    alone = policy.act([cut])
    assert policy.act([cut, Trajectory(game.turns[:1])])[:1] == alone
    policy.seed(0)
    assert policy.act([cut]) == alone


def test_a_history_of_another_mode_is_refused() -> None:
    policy = make_policy("webshop", "expert")
    with pytest.raises(DataError, match="no first page in mode 'text'"):
        policy.act([Trajectory([Turn("user", "find me a mat\n")])])


def test_they_shop_by_hand_made_texts_too() -> None:
    """Also where nothing is found, where there are no features, and where the text is HTML."""
    env = make("webshop", products=2000, split="all")
    env.shop = hand_made_shop()
    env._goals = range(1)
    for name in ("random", "first-item", "mixture", "expert"):
        policy = make_policy("webshop", name, env_options={"products": 2000})
        policy.shop = env.shop
        (game,) = rollout([env], policy, [0])
        assert game.ended == "terminated"
    assert game.total_return == 1.0, "the expert finds the mat and its colour"


def test_what_a_customer_wants() -> None:
    text = (
        "please help me buy yoga mats, non slip with thickness 6 mm in deep purple, and price lower than 40.00 dollars"
    )
    for said in (text, text.replace(",", " ,")):
        visit = Visit(Session(hand_made_shop(), said))
        assert visit.wanted == ["yoga", "mats", "non", "slip", "thickness", "6", "mm", "deep", "purple"]
        assert visit.limit == 40.0
    assert Visit(Session(hand_made_shop(), "a mat")).limit == float("inf")


def test_what_a_customer_has_read() -> None:
    visit = Visit(
        Session(hand_made_shop(), "non slip mat that folds, in deep purple, and price lower than 30.00 dollars")
    )
    visit.act(Action("search", "purple"))
    visit.act(Action("click", "b000000000"))
    product = visit.session.product
    assert product is not None and visit.affordable(product)
    assert visit.missing(product.asin) == 3, "non, slip and folds stand on the page Features"
    visit.act(Action("click", "features"))
    assert visit.missing(product.asin) == 0
    visit.act(Action("click", "< prev"))
    assert visit.options_left() == [("color", "deep purple")]


def test_misspellings_are_few_and_never_another_word() -> None:
    assert [misspelt(word) for word in ("kettle", "mat", "6.99", "purple")] == ["ktetle", "mat", "6.99", "pruple"]
    known = vocabulary()
    words = {w for c in known.categories.values() for phrase in c.attributes for w in words_of(phrase)}
    words |= {w for kind in known.kinds for w in words_of(kind.query)}
    assert not {misspelt(word) for word in words if misspelt(word) != word} & words


def test_the_shares_of_the_population() -> None:
    assert sum(share for share, _ in MixturePolicy.SKILLS) == pytest.approx(1.0)
    policy = make_policy("webshop", "mixture")
    counts = [0, 0, 0]
    for n in range(3000):
        counts[[skill for _, skill in MixturePolicy.SKILLS].index(policy._skill(Random(n).random()))] += 1  # type: ignore[attr-defined]
    for count, (share, _) in zip(counts, MixturePolicy.SKILLS, strict=True):
        assert abs(count / 3000 - share) < 0.04
