"""The policy by its definition: both models on the whole unpadded sequence at every step, formulas in plain loops."""

from __future__ import annotations

import math

import torch
from transformers import PreTrainedModel

from qsft.models import Extraction


def log_policy(
    likelihood: PreTrainedModel,
    behaviour: PreTrainedModel | None,
    ids: list[int],
    extraction: Extraction,
    dummy: int | None,
) -> torch.Tensor:
    """``[V]`` float64 log-probabilities of the next token; outside the support 10,000 lower."""
    p = _probabilities(likelihood, ids)
    pi = p if behaviour is None else _probabilities(behaviour, ids)
    actions = [a for a in range(len(p)) if a != dummy]
    prior = p if extraction.kind == "product" else pi
    bar = extraction.support * max(prior[a] for a in actions)
    scores = [-math.inf] * len(p)
    for a in actions:
        if extraction.kind == "product":
            scores[a] = math.log(p[a])
        elif extraction.kind == "value":
            scores[a] = extraction.eta * math.log(pi[a]) + extraction.beta * min(p[a] / pi[a], 1.0)
        else:
            scores[a] = math.log(pi[a]) + extraction.beta * p[a]
        if prior[a] < bar:
            scores[a] -= 1e4
    return torch.log_softmax(torch.tensor(scores, dtype=torch.float64), dim=0)


@torch.no_grad()
def _probabilities(model: PreTrainedModel, ids: list[int]) -> list[float]:
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    return torch.softmax(logits.double(), dim=0).tolist()


def greedy(step, prompts: list[list[int]], count: int, eos: int | None, pad: int) -> list[list[int]]:
    """New tokens of each prompt; ``step(ids)`` gives ``[V]`` log-probabilities."""
    return [_until_end(lambda ids: int(step(ids).argmax()), prompt, count, eos, pad) for prompt in prompts]


def _until_end(choose, prompt, count, eos, pad):
    ids, out = list(prompt), []
    while len(out) < count and eos not in out:
        out.append(choose(ids))
        ids.append(out[-1])
    return out + [pad] * (count - len(out))


def sampled(step, prompts, count, eos, pad, temperature, seed) -> list[list[int]]:
    """Draws for all prompts at once from one generator, as ``generate`` does."""
    torch.manual_seed(seed)
    outs: list[list[int]] = [[] for _ in prompts]
    for _ in range(count):
        scores = torch.stack([step([*prompt, *out]) for prompt, out in zip(prompts, outs, strict=True)])
        drawn = torch.multinomial(torch.softmax(scores / temperature, dim=1).float(), 1)[:, 0].tolist()
        for out, token in zip(outs, drawn, strict=True):
            out.append(pad if eos in out else token)
        if all(eos in out for out in outs):
            break
    return outs


def beams(step, prompt: list[int], count: int, width: int) -> list[int]:
    """The best of ``width`` beams, for a vocabulary without an end."""
    alive: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(count):
        grown = [
            (score + logp, [*out, token])
            for score, out in alive
            for token, logp in enumerate(step([*prompt, *out]).tolist())
        ]
        alive = sorted(grown, key=lambda item: -item[0])[:width]
    return alive[0][1]
