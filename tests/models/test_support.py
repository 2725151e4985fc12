"""The support table equals a brute-force computation, and appears whole or not at all."""

import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from qsft.data import TrajectoryCollator
from qsft.errors import CheckpointError, ConfigError
from qsft.models import SupportRule, compute_support, with_support
from qsft.models.support import SUPPORT_COLUMNS
from tests.models import tiny

DUMMY = 0
RULES = [
    SupportRule(threshold=0.1),
    SupportRule(threshold=0.6),
    SupportRule(threshold=1.0),
    SupportRule(kind="absolute", threshold=0.08),
    SupportRule(kind="absolute", threshold=0.99),
    SupportRule(threshold=0.01, max_tokens=2),
]


def brute_force(model, row, rule: SupportRule) -> list[dict[int, float]]:
    """Token -> log-probability for each state of a row, from full logits and plain loops over the vocabulary."""
    logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].double()
    states = [t - 1 for t, mine in enumerate(row["agent_mask"]) if mine]
    if not row["terminated"] and not row["agent_mask"][-1]:
        states.append(len(row["input_ids"]) - 1)
    tables = []
    for position in states:
        logps = torch.log_softmax(logits[position], dim=0).tolist()
        candidates = {token: logp for token, logp in enumerate(logps) if token != DUMMY}
        best = max(candidates.values())
        bar = rule.threshold * math.exp(best) if rule.kind == "relative" else rule.threshold
        kept = {token: logp for token, logp in candidates.items() if math.exp(logp) >= bar or logp == best}
        tables.append(dict(sorted(kept.items(), key=lambda item: -item[1])[: rule.max_tokens]))
    return tables


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_table_equals_brute_force(rule, tmp_path):
    model = tiny.make("llama", seed=3)
    data = tiny.dataset(tmp_path, tiny.trajectories(11, seed=1))
    path = tmp_path / "support.arrow"
    compute_support(model, data, rule, path, pad_token_id=0, dummy_id=DUMMY, batch_size=3, chunk_size=5)
    supported = with_support(data, path)
    assert list(tmp_path.glob("*.partial")) == []
    bootstrapped = 0
    for row in supported:
        expected = brute_force(model, row, rule)
        bootstrapped += len(expected) > sum(row["agent_mask"])
        assert row["support_counts"] == [len(table) for table in expected]
        assert row["support_ids"] == [token for table in expected for token in table]
        np.testing.assert_allclose(
            row["support_logps"], [logp for table in expected for logp in table.values()], rtol=1e-4, atol=1e-5
        )
    assert bootstrapped == 4  # every third of 11 ends with an observation


def test_collated_table_belongs_to_its_states(tmp_path):
    model = tiny.make("gpt2", seed=1)
    rule = SupportRule(threshold=0.2)
    data = tiny.dataset(tmp_path, tiny.trajectories(6, seed=2))
    compute_support(model, data, rule, tmp_path / "t.arrow", pad_token_id=0, dummy_id=DUMMY)
    rows = list(with_support(data, tmp_path / "t.arrow"))
    batch = TrajectoryCollator(0)(rows)
    for i, row in enumerate(rows):
        for s, table in enumerate(brute_force(model, row, rule)):
            ids = batch["support_ids"][i, s]
            assert ids[ids >= 0].tolist() == list(table)
            assert torch.isinf(batch["support_logps"][i, s][ids < 0]).all()
        assert (batch["support_ids"][i][~batch["state_mask"][i]] == -1).all()


def test_the_pass_leaves_the_model_as_it_was_and_sees_no_dropout(tmp_path):
    model = tiny.make("gpt2", resid_pdrop=0.5, embd_pdrop=0.5).train()
    data = tiny.dataset(tmp_path, tiny.trajectories(4))
    paths = [tmp_path / "a.arrow", tmp_path / "b.arrow"]
    for path in paths:
        compute_support(model, data, SupportRule(), path, pad_token_id=0, dummy_id=DUMMY)
    assert model.training
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_dummy_is_never_in_even_if_it_is_likeliest():
    logps = torch.log_softmax(torch.tensor([[9.0, 1.0, 0.0, -50.0]]), dim=1)
    ids, top = SupportRule(threshold=0.3).select(logps, forbidden=0)
    assert ids.tolist() == [[1, 2]]
    torch.testing.assert_close(top, logps[:, 1:3])


@pytest.mark.parametrize("error", [RuntimeError("boom"), OSError(28, "No space left on device")])
def test_a_failure_leaves_nothing(error, tmp_path, monkeypatch):
    model = tiny.make("llama")
    data = tiny.dataset(tmp_path, tiny.trajectories(9))
    written = []
    original = pa.RecordBatchStreamWriter.write_batch

    class Failing(pa.RecordBatchStreamWriter):
        def write_batch(self, batch, *arguments, **keywords):
            written.append(batch)
            if len(written) == 2:
                raise error
            return original(self, batch, *arguments, **keywords)

    monkeypatch.setattr(pa.ipc, "new_stream", lambda sink, schema: Failing(sink, schema))
    with pytest.raises(type(error)):
        compute_support(model, data, SupportRule(), tmp_path / "s.arrow", pad_token_id=0, dummy_id=0, batch_size=2)
    assert len(written) == 2
    assert list(tmp_path.glob("s.arrow*")) == []


def test_a_table_of_other_data_is_refused(tmp_path):
    model = tiny.make("llama")
    data = tiny.dataset(tmp_path, tiny.trajectories(5))
    compute_support(model, data, SupportRule(), tmp_path / "s.arrow", pad_token_id=0, dummy_id=0)
    with pytest.raises(CheckpointError, match="5 rows and the data 4; delete") as raised:
        with_support(data.select(range(4)), tmp_path / "s.arrow")
    assert "\n" not in str(raised.value)


def test_a_damaged_table_is_refused(tmp_path):
    data = tiny.dataset(tmp_path, tiny.trajectories(5))
    (tmp_path / "s.arrow").write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match="delete it") as raised:
        with_support(data, tmp_path / "s.arrow")
    assert "\n" not in str(raised.value)


def test_table_and_data_stay_on_disk(tmp_path):
    model = tiny.make("llama")
    data = tiny.dataset(tmp_path, tiny.trajectories(200))
    compute_support(model, data, SupportRule(), tmp_path / "s.arrow", pad_token_id=0, dummy_id=0)
    before = pa.total_allocated_bytes()
    supported = with_support(data, tmp_path / "s.arrow")
    assert {file["filename"] for file in supported.cache_files} == {
        str(tmp_path / "s.arrow"),
        *(file["filename"] for file in data.cache_files),
    }
    assert set(SUPPORT_COLUMNS) < set(supported.column_names)
    assert pa.total_allocated_bytes() - before < (tmp_path / "s.arrow").stat().st_size / 4


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"kind": "odd"}, "kind"),
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": 1.5}, "threshold"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_bad_rules(settings, match):
    with pytest.raises(ConfigError, match=match):
        SupportRule(**settings)
