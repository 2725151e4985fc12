"""The losses by their definitions: one forward pass per turn (per state for values), plain loops over tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from qsft.training.losses import QLossSettings


@dataclass
class Numbers:
    """Sums over the agent tokens of some rows."""

    loss: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    tokens: int = 0
    weights: list[float] = field(default_factory=list)
    clipped: int = 0
    logps: list[float] = field(default_factory=list)
    first_values: list[float] = field(default_factory=list)
    first_returns: list[float] = field(default_factory=list)


def turns(row: dict[str, Any]) -> list[tuple[int, int]]:
    """Spans ``[start, end)`` of the agent's turns."""
    spans, start = [], None
    for t, (mine, last) in enumerate(zip(row["agent_mask"], row["turn_end"], strict=True)):
        if mine and start is None:
            start = t
        if last:
            spans.append((start, t + 1))
            start = None
    return spans


def log_probabilities(model: Any, ids: list[int]) -> Tensor:
    """``[T, V]`` float64."""
    return torch.log_softmax(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double(), dim=1)


def supervised(model: Any, rows: list[dict[str, Any]]) -> Numbers:
    """Every turn with the history before it, alone."""
    numbers = Numbers()
    for row in rows:
        for start, end in turns(row):
            logps = log_probabilities(model, row["input_ids"][:end])
            for t in range(start, end):
                chosen = logps[t - 1, row["input_ids"][t]]
                numbers.loss = numbers.loss - chosen
                numbers.logps.append(float(chosen))
                numbers.tokens += 1
    return numbers


def value(target: Any, ids: list[int], table: dict[int, float], settings: QLossSettings) -> tuple[float, float]:
    """``V`` after ``ids`` and ``1 - p(dummy)``; ``table``: support token -> behaviour log-probability."""
    with torch.no_grad():
        logps = log_probabilities(target, ids)[-1]
    alive = 1.0 - math.exp(float(logps[settings.dummy_id]))
    q = {a: min(1.0, math.exp(float(logps[a]) - logp)) for a, logp in table.items()}
    if settings.weight_temperature is not None:
        q = {a: max(0.0, 1 + settings.weight_temperature * math.log(ratio)) for a, ratio in q.items()}
        if settings.backup == "soft":
            return max(0.0, 1 + settings.weight_temperature * math.log(alive)), alive
    if settings.backup == "soft":
        mass = sum(math.exp(logp) for logp in table.values())
        total = sum(math.exp(table[a] + settings.backup_beta * q[a]) for a in q) / mass
        best = math.log(total) / settings.backup_beta
    else:
        best = max(q.values())
    return best, alive


def q_loss(
    model: Any,
    target: Any,
    rows: list[dict[str, Any]],
    settings: QLossSettings,
    vocabulary: int,
    monte_carlo: bool = False,
) -> Numbers:
    """Stage 2 on rows with a support table."""
    low, high = settings.return_range
    per_token = settings.gamma_per == "token"
    numbers = Numbers()
    for row in rows:
        ids, spans = row["input_ids"], turns(row)
        actions = [t for start, end in spans for t in range(start, end)]
        ends = {end - 1: reward for (_, end), reward in zip(spans, row["turn_rewards"], strict=True)}
        # states stand before actions, and at the end of a truncated row's last observation
        places = actions + ([len(ids)] if not row["terminated"] and not row["agent_mask"][-1] else [])
        tables, at = [], 0
        for count in row["support_counts"]:
            tables.append(
                dict(zip(row["support_ids"][at : at + count], row["support_logps"][at : at + count], strict=True))
            )
            at += count
        assert len(tables) == len(places)
        values = [value(target, ids[:place], table, settings) for place, table in zip(places, tables, strict=True)]
        returns, following = [0.0] * len(actions), 0.0
        for i in reversed(range(len(actions))):
            last = actions[i] in ends
            discount = settings.gamma if last or per_token else 1.0
            returns[i] = following = ends.get(actions[i], 0.0) + discount * following
        numbers.first_values.append(values[0][0])
        numbers.first_returns.append((returns[0] - low) / (high - low))
        raw = raw_weights(actions, ends, values, returns, row["terminated"], settings, monte_carlo)
        for start, end in spans:
            logps = log_probabilities(model, ids[:end])
            for t in range(start, end):
                i = actions.index(t)
                if raw[i] is None:
                    continue
                w = min(1.0, max(0.0, raw[i]))
                numbers.tokens += 1
                numbers.clipped += abs(raw[i] - w) > 1e-6
                if settings.weight_temperature is not None:
                    w = math.exp((w - 1) / settings.weight_temperature)
                numbers.weights.append(w)
                here, a = logps[t - 1], ids[t]
                numbers.loss = numbers.loss + token_loss(here, a, w, values[i][1], tables[i], settings, vocabulary)
        for start, end in spans:
            logps = log_probabilities(model, ids[:end])
            numbers.logps += [float(logps[t - 1, ids[t]].detach()) for t in range(start, end)]
    return numbers


def raw_weights(
    actions: list[int],
    ends: dict[int, float],
    values: list[tuple[float, float]],
    returns: list[float],
    terminated: bool,
    settings: QLossSettings,
    monte_carlo: bool,
) -> list[float | None]:
    """Scaled targets before clipping, from the last action to the first; ``None`` where there is none."""
    high = settings.return_range[1]
    lows = worst(actions, ends, len(values), settings)
    if settings.backup == "monte-carlo" or monte_carlo:
        return [(g - low) / (high - low) for g, low in zip(returns, lows, strict=False)]
    raw: list[float | None] = [None] * len(actions)
    for i in reversed(range(len(actions))):
        t = actions[i]
        if terminated and i == len(actions) - 1:
            raw[i] = (ends[t] - lows[i]) / (high - lows[i])
        elif i + 1 < len(values):
            following = values[i + 1][0]
            if i + 1 < len(actions) and raw[i + 1] is not None:
                seen = min(1.0, max(0.0, raw[i + 1]))
                following = (1 - settings.trace) * following + settings.trace * seen
            discount = settings.gamma if t in ends or settings.gamma_per == "token" else 1.0
            later = lows[i + 1] + following * (high - lows[i + 1])
            raw[i] = (ends.get(t, 0.0) + discount * later - lows[i]) / (high - lows[i])
    return raw


def worst(actions: list[int], ends: dict[int, float], states: int, settings: QLossSettings) -> list[float]:
    """The worst return still possible at each state: at an equal cost a turn until the horizon."""
    low, found, turn = settings.return_range[0], [], 0
    for i in range(states):
        left = 1.0 if settings.horizon is None else max(settings.horizon - turn, 0) / settings.horizon
        found.append(low * left)
        turn += i < len(actions) and actions[i] in ends
    return found


def token_loss(
    logps: Tensor, a: int, w: float, b: float, table: dict[int, float], settings: QLossSettings, vocabulary: int
) -> Tensor:
    """The forms, as the algorithm states them."""
    d = settings.dummy_id
    if settings.form == "balanced":
        alive = 1 - logps[d].exp()
        weight = min(w / float(alive.detach()), settings.max_weight)
        return -(w * alive.log() + (1 - w) * logps[d]) - weight * (logps[a] - alive.log())
    if settings.form == "dummy":
        return -(w * logps[a] + (1 - w) * logps[d])
    if settings.form == "uniform":
        others = sum(logps[j] for j in range(vocabulary) if j != a)
        return -(w * logps[a] + (1 - w) / (vocabulary - 1) * others)
    anchor = sum(math.exp(logp) * logps[j] for j, logp in table.items())
    return -((w - b * (a in table)) * logps[a] + b * anchor + (1 - w) * logps[d])
