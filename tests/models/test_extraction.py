"""The three formulas, from logits to logits."""

import math

import pytest
import torch

from qsft.errors import ConfigError
from qsft.models import Extraction
from tests.models import naive

EXTRACTIONS = [
    Extraction("product"),
    Extraction("product", support=0.3),
    Extraction("value", beta=8.0),
    Extraction("value", beta=16.0, eta=2.0, support=0.2),
    Extraction("value", beta=3.0, eta=0.0, support=0.5),
    Extraction("likelihood", beta=4.0),
    Extraction("likelihood", beta=64.0, support=0.4),
]


class Constant:
    """A model with the same logits everywhere."""

    def __init__(self, logits):
        self.row = logits

    def __call__(self, input_ids, use_cache):
        return type("Output", (), {"logits": self.row.expand(*input_ids.shape, -1)})


@pytest.mark.parametrize("extraction", EXTRACTIONS, ids=str)
@pytest.mark.parametrize("dummy", [0, 4, None])
def test_policy_logits_equal_the_formula(extraction, dummy):
    generator = torch.Generator().manual_seed(0)
    likelihood, behaviour = torch.randn(2, 5, 7, generator=generator) * 2
    found = torch.log_softmax(extraction.policy_logits(likelihood, behaviour, dummy).double(), dim=-1)
    for i in range(5):
        expected = naive.log_policy(Constant(likelihood[i]), Constant(behaviour[i]), [0], extraction, dummy)
        torch.testing.assert_close(found[i], expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(torch.isinf(found[i]), torch.isinf(expected))


def test_ratios_above_one_count_as_one():
    behaviour = torch.log(torch.tensor([0.2, 0.2, 0.1, 0.5]))
    likelihood = torch.log(torch.tensor([0.6, 0.2, 0.05, 0.15]))
    logits = Extraction("value", beta=5.0).policy_logits(likelihood, behaviour, dummy_id=3)
    assert logits[0] == pytest.approx(logits[1])
    assert logits[1] > logits[2]


def test_half_precision_logits_are_read_in_float32():
    likelihood, behaviour = torch.randn(2, 6, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    logits = Extraction("value").policy_logits(likelihood, behaviour, 0)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, Extraction("value").policy_logits(likelihood.float(), behaviour.float(), 0))


@pytest.mark.parametrize(
    "settings",
    [{"kind": "best"}, {"beta": -1.0}, {"eta": -0.5}, {"support": 1.5}, {"support": -0.1}]
    + [{name: value} for name in ("beta", "eta", "support") for value in (math.nan, math.inf)],
)
def test_bad_settings(settings):
    with pytest.raises(ConfigError) as raised:
        Extraction(**settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["value", "likelihood"])
def test_the_behaviour_model_is_missed_where_it_is_needed(kind):
    assert Extraction(kind).needs_behaviour
    with pytest.raises(ConfigError, match="needs the behaviour model"):
        Extraction(kind).policy_logits(torch.zeros(3), None, 0)
    assert not Extraction("product").needs_behaviour


def test_round_trip_through_a_dict():
    for extraction in EXTRACTIONS:
        assert Extraction(**extraction.to_dict()) == extraction
