"""Muon and AdamW as one optimiser: each part against torch's own."""

import copy

import pytest
import torch
from torch import nn

from qsft.training.muon import MuonWithAdamW
from tests.models import tiny


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.hidden, self.head = nn.Embedding(9, 6), nn.Linear(6, 8), nn.Linear(8, 9)

    def forward(self, x):
        return self.head(torch.tanh(self.hidden(self.table(x))))


def steps(model, optimisers, scheduler_of, count=4):
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda s: 1 / (1 + s)) for o in scheduler_of]
    data = torch.arange(9)
    for _ in range(count):
        for o in optimisers:
            o.zero_grad()
        nn.functional.cross_entropy(model(data), data.roll(1)).backward()
        for o in optimisers:
            o.step()
        for schedule in schedules:
            schedule.step()


def test_matrices_alone():
    """As with LoRA, which trains neither tables nor vectors."""
    model = nn.Linear(4, 3, bias=False)
    optimiser = MuonWithAdamW(model, [], lr=0.1)
    before = model.weight.detach().clone()
    model(torch.ones(2, 4)).square().sum().backward()
    optimiser.step()
    assert len(optimiser.parts) == 1 and not torch.equal(model.weight, before)


def test_equals_torchs_own_on_their_parts():
    torch.manual_seed(0)
    ours = Net()
    theirs = copy.deepcopy(ours)
    start = copy.deepcopy(ours.state_dict())
    one = MuonWithAdamW(ours, [ours.head.weight], lr=0.02, weight_decay=0.1, betas=(0.8, 0.9), eps=1e-6)
    vectors = [theirs.hidden.bias, theirs.head.bias]
    adamw = torch.optim.AdamW(
        [{"params": [theirs.table.weight, theirs.head.weight], "weight_decay": 0.1}, {"params": vectors}],
        lr=0.02,
        betas=(0.8, 0.9),
        eps=1e-6,
        weight_decay=0.0,
    )
    muon = torch.optim.Muon([theirs.hidden.weight], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    steps(ours, [one], [one])
    steps(theirs, [adamw, muon], [adamw, muon])
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, rtol=0, atol=0)
        assert not torch.equal(weight, start[name])


def test_its_step_is_as_long_as_adamws():
    torch.manual_seed(0)
    lengths = {}
    for kind in ("muon", "adamw"):
        model = Net()
        before = model.hidden.weight.detach().clone()
        optimiser = (
            MuonWithAdamW(model, [model.head.weight], lr=0.01)
            if kind == "muon"
            else torch.optim.AdamW(model.parameters(), lr=0.01)
        )
        steps(model, [optimiser], [], count=1)
        lengths[kind] = float((model.hidden.weight.detach() - before).square().mean().sqrt())
    assert 0.1 < lengths["muon"] / lengths["adamw"] < 1


def test_an_untied_head_and_all_embeddings_go_to_adamw():
    model = tiny.make("gpt2", tie_word_embeddings=False)
    optimiser = MuonWithAdamW(model, [model.lm_head.weight], lr=1e-3)
    by_muon = {id(p) for p in optimiser.parts[1].param_groups[0]["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in by_muon}
    assert names == {name for name, p in model.named_parameters() if p.ndim == 2 and ".h." in name}
    grouped = [p for group in optimiser.param_groups for p in group["params"]]
    assert sorted(map(id, grouped)) == sorted(id(p) for p in model.parameters())


def test_state_survives_saving_and_the_schedule_reaches_both(tmp_path):
    torch.manual_seed(0)
    model = Net()
    one = MuonWithAdamW(model, [model.head.weight], lr=0.02)
    steps(model, [one], [], count=2)
    torch.save(one.state_dict(), tmp_path / "optimizer.pt")
    copied = copy.deepcopy(model)
    other = MuonWithAdamW(copied, [copied.head.weight], lr=0.5)
    other.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    assert [group["lr"] for group in other.param_groups] == [0.02] * 3
    steps(model, [one], [one])
    steps(copied, [other], [other])
    for a, b in zip(model.parameters(), copied.parameters(), strict=True):
        assert torch.equal(a, b)


def test_takes_no_closure():
    model = Net()
    with pytest.raises(ValueError, match="closure"):
        MuonWithAdamW(model, [model.head.weight], lr=0.1).step(lambda: 0)
