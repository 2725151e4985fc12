"""Policies that are kept to legal actions, against the definition: the policy's tokens, renormalised over what is legal."""

import collections
import math

import pytest
import torch

from qsft.data import TrajectoryTokenizer
from qsft.errors import DataError
from qsft.models import Extraction, QSFTPolicyModel
from qsft.policies.legal import LegalReplies
from qsft.policies.model import ModelPolicy
from tests.models import tiny
from tests.policies.test_model_policy import (
    DUMMY,
    EXTRACTIONS,
    HISTORIES,
    RANGE,
    definition,
    history,
    ids_of,
    models,
    play,
    text_of,
)

__all__ = ["models"]
#: legal replies by the turns so far: some begin alike, one begins another, a single one
RULES = {1: ["e\n", "f f\n", "f e a\n"], 3: ["a b\n", "a b c\n", "d\n"], 5: ["h g f\n"]}


def rules(past):
    return RULES[len(past.turns)]


def by_hand(models, extraction, past, temperature):
    """Probability of each legal reply: the product of its tokens' probabilities among those that may follow."""
    replies = {reply: ids_of(history(reply))[1:] for reply in rules(past)}
    found = {}
    for reply, ids in replies.items():
        found[reply] = 1.0
        for i, token in enumerate(ids):
            legal = sorted({other[i] for other in replies.values() if other[:i] == ids[:i] and len(other) > i})
            scores = definition(models, extraction)(ids_of(past) + ids[:i])[legal] / temperature
            found[reply] *= torch.softmax(scores, dim=0)[legal.index(token)].item()
    return found


def test_the_tree():
    known = {}
    tree = LegalReplies(TrajectoryTokenizer(tiny.tokenizer()), HISTORIES[0], RULES[3], known)
    a, b, c, d, end = ids_of(history("a b c d\n"))[1:]
    assert tree.following([]) == [a, d]
    assert tree.following([a]) == [b]
    assert tree.following([a, b]) == [end, c]
    assert tree.following([a, b, c]) == [end]
    for said in ([a, b, end], [c], [a, d], [d, end, a]):
        assert tree.following(said) == []
    assert set(known) == set(RULES[3])


@pytest.mark.parametrize("extraction", EXTRACTIONS, ids=str)
def test_replies_are_legal_and_as_likely_as_the_policy_finds_them(models, extraction):
    """In a batch of different rules and lengths."""
    policy, rounds = play(models, extraction, temperature=0.8, count=5, seed=1, legal_actions=rules), 150
    drawn = [collections.Counter() for _ in HISTORIES]
    for _ in range(rounds):
        for counter, reply in zip(drawn, policy.act(HISTORIES), strict=True):
            counter[reply] += 1
    for past, counter in zip(HISTORIES, drawn, strict=True):
        expected = by_hand(models, extraction, past, 0.8)
        assert set(counter) <= set(expected)
        assert sum(expected.values()) == pytest.approx(1, abs=1e-6)
        for reply, p in expected.items():
            assert counter[reply] / rounds == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / rounds) + 1e-6)


def test_beams_search_among_the_legal(models):
    policy = play(models, Extraction("product"), count=5, beams=3, legal_actions=rules)
    for past in HISTORIES:
        likeliest = {}
        for reply in rules(past):  # beams score with probabilities that are not renormalised
            ids = ids_of(history(reply))[1:]
            steps = (definition(models, policy.extraction)(ids_of(past) + ids[:i])[t] for i, t in enumerate(ids))
            likeliest[reply] = sum(float(step) for step in steps)
        assert policy.act([past]) == [max(likeliest, key=likeliest.get)]


def test_where_nothing_supported_is_legal_the_extraction_decides_without_support(models):
    past = HISTORIES[3]
    alone = Extraction("value", beta=12.0, support=1.0)  # one token
    free = definition(models, Extraction("value", beta=12.0))(ids_of(past))
    outside = [
        int(i)
        for i in free.argsort(descending=True)
        if 4 <= i < 12 and i != definition(models, alone)(ids_of(past)).argmax()
    ]
    legal = [text_of([outside[-1]]), text_of([outside[2]])]
    assert play(models, alone, legal_actions=lambda _: legal).act([past]) == [legal[1]]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_shown_probabilities_are_those_of_legal_play(models, temperature):
    policy, past = play(models, temperature=temperature, legal_actions=rules), HISTORIES[1]
    replies = policy.q_values(past, [*rules(past), "a c\n"])
    if temperature:
        expected = by_hand(models, policy.extraction, past, temperature)
        for value in replies[:-1]:
            assert math.prod(token.probability for token in value.tokens) == pytest.approx(
                expected[value.reply], abs=1e-5
            )
    else:
        (played,) = policy.act([past])
        for value in replies[:-1]:
            assert math.prod(token.probability for token in value.tokens) == float(value.reply == played)
    assert [token.probability > 0 for token in replies[-1].tokens][1:] == [False, False]
    free = play(models, temperature=temperature).q_values(past, rules(past))
    assert [value.q for value in replies[:-1]] == pytest.approx([value.q for value in free])


def test_a_legal_reply_may_be_longer_than_those_of_the_data(models):
    long = "a b c d e f g h\n"
    assert play(models, count=3, legal_actions=lambda _: [long]).act(HISTORIES) == [long] * len(HISTORIES)


def test_a_longer_legal_reply_finds_room_after_a_long_history_and_leaves_the_next_as_it_was(models):
    model = QSFTPolicyModel.combine(*models, dummy_token_id=DUMMY, return_range=RANGE)
    reply = {21: "a b c d e f g h " * 2 + "a b\n", 1: "e f\n"}
    policy = ModelPolicy(
        model,
        TrajectoryTokenizer(tiny.tokenizer(), max_length=64),
        "tiny",
        0.0,
        8,
        legal_actions=lambda past: [reply[len(past.turns)]],
    )
    long, short = history(*["a b c d\n", "e f g\n"] * 10, "h\n"), HISTORIES[0]
    values = [policy.q_values(past, [reply[len(past.turns)]])[0].q for past in (long, short)]
    assert policy.act([long, short]) == [reply[21], reply[1]]
    assert policy.act([long]) == [reply[21]]
    assert [policy.q_values(past, [reply[len(past.turns)]])[0].q for past in (long, short)] == values
    assert policy.state_values([long]) == ModelPolicy(model, policy.tokenizer, "free", 0.0, 8).state_values([long])


def test_where_nothing_is_legal_the_history_is_named(models):
    with pytest.raises(DataError, match="no action is legal after 'a b c"):
        play(models, legal_actions=lambda _: []).act(HISTORIES[:1])


def test_other_decodings_keep_to_the_rules(models):
    policy = play(models, legal_actions=rules).with_decoding(Extraction("product"), 1.0)
    assert policy.legal_actions is rules
    for _ in range(20):
        assert all(reply in rules(past) for reply, past in zip(policy.act(HISTORIES), HISTORIES, strict=True))
