"""A model as a player: batches, sampling, beams, and the values it shows, against their definitions."""

import collections
import itertools
import math

import pytest
import torch

from qsft.data import Trajectory, TrajectoryTokenizer, Turn
from qsft.errors import ConfigError, DataError
from qsft.models import Extraction, QSFTPolicyModel
from qsft.policies import ModelPolicy, Policy
from tests.models import naive, tiny

DUMMY, EOS, PAD = 0, 3, 0
RANGE = (-6.0, -1.0)
EXTRACTIONS = [Extraction("product"), Extraction("value", beta=12.0, support=0.05), Extraction("likelihood", beta=9.0)]


def history(*texts):
    """Turns of the environment and the agent, in alternation."""
    return Trajectory([Turn("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(texts)])


HISTORIES = [
    history("a b c\n"),
    history("d\n", "e f\n", "g h a b\n"),
    history("b\n", "b\n", "c\n", "c c\n", "d\n"),
    history("h go\n"),
]


@pytest.fixture(scope="module", params=["gpt2", "qwen3"])
def models(request):
    return tiny.make(request.param, seed=1), tiny.make(request.param, seed=2)


def play(models, extraction=EXTRACTIONS[1], temperature=0.0, count=5, **settings):
    model = QSFTPolicyModel.combine(*models, dummy_token_id=DUMMY, extraction=extraction, return_range=RANGE)
    return ModelPolicy(model, TrajectoryTokenizer(tiny.tokenizer()), "tiny", temperature, count, **settings)


def ids_of(past):
    """Token ids from the vocabulary alone: the text format is the turns' symbols, one after the other."""
    vocabulary = tiny.tokenizer().get_vocab()
    return [1] + [vocabulary[s] for turn in past.turns for s in turn.text.replace("\n", " \n").split(" ") if s]


def text_of(ids):
    """What a turn of these ids says: a reply that did not end is closed."""
    words = {i: word for word, i in tiny.tokenizer().get_vocab().items()}
    body = list(itertools.takewhile(lambda i: i != EOS, ids))
    return " ".join(words[i] for i in body) + "\n"


def definition(models, extraction):
    return lambda ids: naive.log_policy(*models, ids, extraction, DUMMY)


@pytest.mark.parametrize("extraction", EXTRACTIONS, ids=str)
def test_greedy_play_of_a_batch_is_that_of_each_alone_and_the_definition(models, extraction):
    policy = play(models, extraction)
    assert isinstance(policy, Policy)
    together = policy.act(HISTORIES)
    assert together == [policy.act([past])[0] for past in HISTORIES]
    expected = naive.greedy(definition(models, extraction), [ids_of(past) for past in HISTORIES], 5, EOS, PAD)
    assert together == [text_of([i for i in row if i != PAD]) for row in expected]
    assert policy.act([]) == []


@pytest.mark.parametrize("extraction", EXTRACTIONS[:2], ids=str)
def test_beams_find_the_likeliest_whole_reply(models, extraction):
    """Against all replies of up to three tokens: so wide a beam misses none."""
    step, past = definition(models, extraction), HISTORIES[1]
    best, found = -math.inf, None
    open_replies = [(0.0, [])]
    for length in (1, 2, 3):
        grown = []
        for score, reply in open_replies:
            logps = step(ids_of(past) + reply).tolist()
            grown += [(score + logps[i], [*reply, i]) for i in range(len(logps)) if logps[i] > -1e3]
        for score, reply in grown:
            if (reply[-1] == EOS or length == 3) and score > best:
                best, found = score, reply
        open_replies = [(score, reply) for score, reply in grown if reply[-1] != EOS]
    assert play(models, extraction, count=3, beams=150).act([past, HISTORIES[0]])[0] == text_of(found)


class TestSampling:
    def test_a_seed_repeats_it(self, models):
        first, second = (play(models, temperature=1.5, seed=4) for _ in range(2))
        games = [[policy.act(HISTORIES) for _ in range(4)] for policy in (first, second)]
        assert games[0] == games[1]
        assert games[0][0] != games[0][1]
        first.seed(4)
        assert [first.act(HISTORIES) for _ in range(4)] == games[0]
        first.seed(5)
        assert [first.act(HISTORIES) for _ in range(4)] != games[0]

    def test_it_neither_reads_nor_moves_the_global_generator(self, models):
        policy = play(models, temperature=1.5, seed=4)
        torch.manual_seed(0)
        before = torch.get_rng_state()
        drawn = policy.act(HISTORIES)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(1)
        policy.seed(4)
        assert policy.act(HISTORIES) == drawn

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
    def test_frequencies_are_the_policys(self, models, temperature):
        """The whole distribution is drawn from: no top-k, no top-p, whatever the checkpoint's own settings say."""
        models[0].generation_config.update(top_k=2, top_p=0.3, repetition_penalty=3.0)
        extraction, count = EXTRACTIONS[2], 4000
        policy = play(models, extraction, temperature, count=1, seed=1)
        drawn = collections.Counter(itertools.chain(*(policy.act([HISTORIES[2]] * 400) for _ in range(count // 400))))
        logps = definition(models, extraction)(ids_of(HISTORIES[2]))
        for token, p in enumerate(torch.softmax(logps / temperature, dim=0).tolist()):
            if token not in (DUMMY, 1, 2, EOS):  # the four special tokens have no text of their own
                share = drawn[text_of([token])] / count
                assert share == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / count) + 1e-9)


class TestValues:
    def by_hand(self, models, ids):
        """Q-value, prior and greedy choice after ids."""
        p, pi = (naive._probabilities(model, ids) for model in models)
        q = [RANGE[0] + min(1.0, a / b) * (RANGE[1] - RANGE[0]) for a, b in zip(p, pi, strict=True)]
        return q, pi

    def test_of_tokens(self, models):
        for temperature in (0.0, 0.7):
            policy = play(models, temperature=temperature)
            for past in HISTORIES:
                q, pi = self.by_hand(models, ids_of(past))
                logps = definition(models, policy.model.extraction)(ids_of(past))
                values = policy.q_values(past, support=0.2)
                bar = 0.2 * max(p for i, p in enumerate(pi) if i != DUMMY)
                assert {value.token_id for value in values} == {i for i, p in enumerate(pi) if i != DUMMY and p >= bar}
                assert [value.q for value in values] == sorted((value.q for value in values), reverse=True)
                for value in values:
                    assert value.q == pytest.approx(q[value.token_id], rel=1e-4, abs=1e-4)
                    assert value.prior == pytest.approx(pi[value.token_id], rel=1e-4)
                    if temperature == 0:
                        assert value.probability == float(value.token_id == int(logps.argmax()))
                    else:
                        expected = torch.softmax(logps / temperature, dim=0)[value.token_id].item()
                        assert value.probability == pytest.approx(expected, rel=1e-3, abs=1e-6)
                    assert tiny.tokenizer().get_vocab()[value.token] == value.token_id

    def test_of_whole_replies(self, models):
        policy, past = play(models), HISTORIES[1]
        replies = ["a\n", "c h e\n", "\n"]
        for reply, value in zip(replies, policy.q_values(past, replies), strict=True):
            assert value.reply == reply
            said = ids_of(Trajectory([Turn("assistant", reply)]))[1:]
            assert [token.token_id for token in value.tokens] == said
            ids = ids_of(past)
            for token in value.tokens:
                q, pi = self.by_hand(models, ids)
                assert token.q == pytest.approx(q[token.token_id], rel=1e-4, abs=1e-4)
                assert token.prior == pytest.approx(pi[token.token_id], rel=1e-4)
                ids.append(token.token_id)
            assert value.q == value.tokens[-1].q
            assert len(value.alternatives) == len(said)

    @pytest.mark.parametrize("beta", [None, 6.0])
    def test_of_states_in_a_left_padded_batch(self, models, beta):
        found = play(models).state_values(HISTORIES, support=0.3, backup_beta=beta)
        for past, value in zip(HISTORIES, found, strict=True):
            p, pi = (naive._probabilities(model, ids_of(past)) for model in models)
            bar = 0.3 * max(x for i, x in enumerate(pi) if i != DUMMY)
            plausible = [i for i in range(len(pi)) if i != DUMMY and pi[i] >= bar]
            ratios = [min(1.0, p[i] / pi[i]) for i in plausible]
            if beta is None:
                ratio = max(ratios)
            else:
                mass = sum(pi[i] for i in plausible)
                weighed = sum(pi[i] * math.exp(beta * r) for i, r in zip(plausible, ratios, strict=True))
                ratio = math.log(weighed / mass) / beta
            assert value == pytest.approx(RANGE[0] + ratio * (RANGE[1] - RANGE[0]), rel=1e-4)

    def test_with_a_horizon_they_count_from_the_floor_of_the_turn(self, models):
        plain = play(models)
        raised = play(models)
        raised.model.config.horizon = 4
        for t, past in enumerate(HISTORIES[:3]):  # with 0, 1 and 2 turns of the agent behind them
            low, high = RANGE[0] * (1 - t / 4), RANGE[1]

            def moved(value, low=low, high=high):
                return low + (value - RANGE[0]) / (RANGE[1] - RANGE[0]) * (high - low)

            for one, other in zip(plain.q_values(past), raised.q_values(past), strict=True):
                assert other.q == pytest.approx(moved(one.q), abs=1e-4)
            for one, other in zip(plain.q_values(past, ["a b\n"]), raised.q_values(past, ["a b\n"]), strict=True):
                assert other.q == pytest.approx(moved(one.q), abs=1e-4)
            assert raised.state_values([past])[0] == pytest.approx(moved(plain.state_values([past])[0]), abs=1e-4)

    def test_they_need_the_behaviour_model(self, models):
        model = QSFTPolicyModel.combine(models[0], None, dummy_token_id=DUMMY)
        policy = ModelPolicy(model, TrajectoryTokenizer(tiny.tokenizer()), "alone")
        with pytest.raises(ConfigError, match="with_behaviour=True"):
            policy.q_values(HISTORIES[0])


def test_long_histories_leave_room_for_the_reply(models):
    """A model of 64 positions on a history of 90 tokens: whole old exchanges go, and nothing is out of range."""
    model = QSFTPolicyModel.combine(*models, dummy_token_id=DUMMY, return_range=RANGE)
    policy = ModelPolicy(model, TrajectoryTokenizer(tiny.tokenizer(), max_length=64), "tiny", 0.0, 8)
    long = history(*["a b c d\n", "e f g\n"] * 10, "h\n")
    kept = history(*["a b c d\n", "e f g\n"] * 5, "h\n")
    assert len(ids_of(kept)) + 8 <= 64 < len(ids_of(long))
    shown = policy.tokenizer.prompt(long, 8)
    assert len(shown) <= 56
    assert shown[1:] == ids_of(long)[-len(shown) + 1 :]
    step = definition(models, Extraction("product"))
    (expected,) = naive.greedy(step, [shown], 8, EOS, PAD)
    assert policy.act([long]) == [text_of([i for i in expected if i != PAD])]
    assert policy.q_values(long, ["e\n"])[0].tokens[0].q == pytest.approx(
        TestValues().by_hand(models, shown)[0][tiny.tokenizer().get_vocab()["e"]], rel=1e-4
    )


def test_a_prompt_that_leaves_little_room_gets_a_short_reply_and_shortens_no_other(models):
    model = QSFTPolicyModel.combine(*models, dummy_token_id=DUMMY, return_range=RANGE)
    policy = ModelPolicy(model, TrajectoryTokenizer(tiny.tokenizer(), max_length=64), "tiny", 0.0, 20)
    tight = history("a b c d e f g h " * 7 + "a b c d\n")
    assert len(ids_of(tight)) == 62
    assert len(policy.act([tight])[0].split()) <= 2
    assert policy.act([HISTORIES[0], tight]) == policy.act([HISTORIES[0]]) + policy.act([tight])
    assert len(policy.q_values(tight, ["a\n"])) == 1
    with pytest.raises(DataError, match="the reply 'a b\\\\n' has 3 tokens and its history 62; 64 are allowed"):
        policy.q_values(tight, ["a b\n"])


def test_another_decoding_of_the_same_models(models):
    policy = play(models, Extraction("product"))
    other = policy.with_decoding(Extraction("likelihood", beta=9.0), 0.0, name="other")
    assert other.name == "other"
    assert other.model is policy.model
    expected = {"likelihood": play(models, Extraction("likelihood", beta=9.0)).act(HISTORIES)}
    expected["product"] = play(models, Extraction("product")).act(HISTORIES)
    assert expected["likelihood"] != expected["product"]
    for _ in range(2):  # in turn, each its own way, in values too
        assert other.act(HISTORIES) == expected["likelihood"]
        assert policy.act(HISTORIES) == expected["product"]
    first, second = (policy.with_decoding(Extraction(kind, beta=9.0), 1.0) for kind in ("product", "likelihood"))
    chosen = [player.q_values(HISTORIES[0]) for player in (first, second, first)]
    assert chosen[0] == chosen[2] != chosen[1]
    with pytest.raises(AttributeError):
        policy.extraction = Extraction("value")  # what is kept between turns is of the one that it began with


def test_an_extraction_that_the_model_cannot_do_is_refused_at_once(models):
    model = QSFTPolicyModel.combine(models[0], None, dummy_token_id=DUMMY)
    alone = ModelPolicy(model, TrajectoryTokenizer(tiny.tokenizer()), "alone", 0.0, 5)
    with pytest.raises(ConfigError, match="needs the behaviour model"):
        alone.with_decoding(Extraction("value"), 0.0)
    assert alone.extraction.kind == "product"
    assert alone.act(HISTORIES[:1])


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"beams": 0}, "beams"),
        ({"beams": 2, "temperature": 1.0}, "beam search needs"),
    ],
)
def test_bad_settings(models, settings, match):
    with pytest.raises(ConfigError, match=match):
        play(models, **settings)
