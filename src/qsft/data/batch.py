"""`TokenBatch`: tokenised trajectories as the tensors that a model and an objective read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qsft.data.images import ImageInputs, tokenizer_of
from qsft.errors import DataError

#: ``actions`` holds this where a state has no logged action (the state after a truncated episode's last observation).
NO_ACTION = -100


class TokenBatch(dict[str, torch.Tensor]):
    """B trajectories, padded on the right to T tokens and S states.

    A *state* is a position whose next token the agent chose; all states of a trajectory are read off one forward pass.
    A truncated trajectory that ends with an observation has one more state, without an action, from which its last
    turn's target is bootstrapped. A plain dict, so that every ``Trainer`` and collective can move it.

    Keys and shapes:
        input_ids, attention_mask: ``[B, T]`` int64.
        state_positions: ``[B, S]`` int64, index into T of the hidden state that predicts the action (0 where padded).
        state_rows: ``[B, S]`` int64, only where each turn of the agent has a context of its own
            (:class:`~qsft.data.tokenize.TrajectoryTokenizer`'s ``max_exchanges``): which of the contexts the state is
            in. ``input_ids`` and ``attention_mask`` are ``[contexts, T]`` then.
        actions: ``[B, S]`` int64, the logged token; ``NO_ACTION`` for a state without one and where padded.
        state_mask: ``[B, S]`` bool, False where padded.
        turn_end: ``[B, S]`` bool, the action ends the agent's turn.
        rewards: ``[B, S]`` float32, the turn's reward at its last token, else 0.
        terminal: ``[B, S]`` bool, the action is the last one of a terminated trajectory.
        turns: ``[B, S]`` int64, number of the agent's turn that the state belongs to, from 0 (0 where padded).
        returns_to_go: ``[B, S]`` float32, discounted, of the turn that the action belongs to, in reward units.
        support_ids, support_logps: ``[B, S, K]``, only with a support table: the plausible tokens of each state (-1
            where padded) and their log-probabilities under the behaviour model (-inf where padded).
        pixel_values and the like: only with images, as the model's processor makes them of all images of the batch.
    """


@dataclass
class TrajectoryCollator:
    """Makes a :class:`TokenBatch` of rows written by :class:`qsft.data.tokenize.TrajectoryTokenizer`.

    Args:
        pad_token_id: fills ``input_ids`` on the right.
        gamma: discount used for ``returns_to_go``.
        gamma_per: ``"turn"`` discounts once a turn (the default of the whole library), ``"token"`` at every token.
        images: of a vision-language model; reads the images of a batch when it is made.

    Raises:
        DataError: naming the row of an image that cannot be read any more.
    """

    pad_token_id: int
    gamma: float = 1.0
    gamma_per: str = "turn"
    images: ImageInputs | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> TokenBatch:
        states = [self._states(row) for row in rows]
        contexts = [context for row in rows for context in _contexts(row)]
        length = max(len(context) for context in contexts)
        width = max(len(s["actions"]) for s in states)
        ids = np.full((len(contexts), length), self.pad_token_id, np.int64)
        attention = np.zeros((len(contexts), length), np.int64)
        for i, context in enumerate(contexts):
            ids[i, : len(context)] = context
            attention[i, : len(context)] = 1
        fields = {
            "state_positions": np.zeros((len(rows), width), np.int64),
            "actions": np.full((len(rows), width), NO_ACTION, np.int64),
            "state_mask": np.zeros((len(rows), width), bool),
            "turn_end": np.zeros((len(rows), width), bool),
            "rewards": np.zeros((len(rows), width), np.float32),
            "terminal": np.zeros((len(rows), width), bool),
            "turns": np.zeros((len(rows), width), np.int64),
            "returns_to_go": np.zeros((len(rows), width), np.float32),
        }
        if "contexts" in rows[0]:
            fields["state_rows"] = np.zeros((len(rows), width), np.int64)
            _place(states, rows)
        for i, state in enumerate(states):
            for key, array in fields.items():
                array[i, : len(state[key])] = state[key]
        batch = TokenBatch({key: torch.from_numpy(value) for key, value in fields.items()})
        batch["input_ids"] = torch.from_numpy(ids)
        batch["attention_mask"] = torch.from_numpy(attention)
        if self.images is not None:
            # read by processors with token types alone, which have no contexts apart (TrajectoryTokenizer refuses it)
            prefixes = [int(state["state_positions"][0]) + 1 for state in states]
            images = [image for row in rows for image in row["images"]]
            try:
                batch.update(self.images.inputs(ids, prefixes, images))
            except DataError as error:
                numbers = ", ".join(str(row["episode"] + 1) for row in rows if "episode" in row)
                raise DataError(f"rows {numbers}: {error}") from None
        if "support_counts" in rows[0]:
            batch.update(_pad_support(rows, width))
        return batch

    def _states(self, row: Mapping[str, Any]) -> dict[str, np.ndarray]:
        ids = np.asarray(row["input_ids"])
        ends_at = np.asarray(row["turn_end"], bool)
        positions = state_positions(row["agent_mask"], row["terminated"])
        has_action = np.ones(len(positions), bool)
        has_action[-1] = positions[-1] + 1 < len(ids)
        tokens = positions[has_action] + 1
        actions = np.full(len(positions), NO_ACTION, np.int64)
        actions[has_action] = ids[tokens]
        turn_end = np.zeros(len(positions), bool)
        turn_end[has_action] = ends_at[tokens]
        rewards = np.zeros(len(positions), np.float32)
        terminal = np.zeros(len(positions), bool)
        if row["terminated"]:
            terminal[np.flatnonzero(has_action)[-1]] = True
        rewards[turn_end] = row["turn_rewards"]
        returns = np.zeros(len(positions), np.float64)
        following = 0.0
        for i in np.flatnonzero(has_action)[::-1]:
            discount = self.gamma if (turn_end[i] or self.gamma_per == "token") else 1.0
            following = float(rewards[i]) + discount * following
            returns[i] = following
        return {
            "state_positions": positions,
            "actions": actions,
            "state_mask": np.ones(len(positions), bool),
            "turn_end": turn_end,
            "rewards": rewards,
            "terminal": terminal,
            "turns": np.cumsum(turn_end) - turn_end,
            "returns_to_go": returns.astype(np.float32),
        }


def _contexts(row: Mapping[str, Any]) -> list[Any]:
    """The stretches of a row's ids that are read by themselves: the row, or what each turn of the agent sees."""
    if "contexts" not in row:
        return [row["input_ids"]]
    ends = np.cumsum(row["contexts"])
    return np.split(np.asarray(row["input_ids"]), ends[:-1])


def _place(states: Sequence[dict[str, np.ndarray]], rows: Sequence[Mapping[str, Any]]) -> None:
    """Turn positions in rows into the number of a context, counted through the batch, and the position there."""
    before = 0
    for state, row in zip(states, rows, strict=True):
        starts = np.cumsum([0, *row["contexts"]])[:-1]
        context = np.searchsorted(starts, state["state_positions"], side="right") - 1
        state["state_rows"] = before + context
        state["state_positions"] = state["state_positions"] - starts[context]
        before += len(starts)


def pad_token(tokenizer: Any) -> int:
    """Id that fills batches; masked everywhere, so the end of text serves where there is no padding token."""
    tokenizer = tokenizer_of(tokenizer)
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


def state_positions(agent_mask: Sequence[int], terminated: bool) -> np.ndarray:
    """Positions of one row's states: before each agent token, and the end of a truncated row's last observation."""
    mask = np.asarray(agent_mask, bool)
    positions = np.flatnonzero(mask) - 1
    if not terminated and not mask[-1]:
        positions = np.append(positions, len(mask) - 1)
    return positions


def _pad_support(rows: Sequence[Mapping[str, Any]], width: int) -> dict[str, torch.Tensor]:
    most = max(max(row["support_counts"]) for row in rows)
    ids = np.full((len(rows), width, most), -1, np.int64)
    logps = np.full((len(rows), width, most), -np.inf, np.float32)
    for i, row in enumerate(rows):
        counts = np.asarray(row["support_counts"])
        inside = np.arange(most) < counts[:, None]
        ids[i, : len(counts)][inside] = row["support_ids"]
        logps[i, : len(counts)][inside] = row["support_logps"]
    return {"support_ids": torch.from_numpy(ids), "support_logps": torch.from_numpy(logps)}
