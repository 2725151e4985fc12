"""Muon for a network's hidden matrices, AdamW for the rest, as one optimiser."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon on every hidden matrix; AdamW on embeddings, the output head and vectors. One learning rate serves both.

    A small network that starts from random weights learns from far fewer episodes with it: ``experiments/wordle``, the
    study ``scratch.yaml``.

    Source: Jordan et al., "Muon", 2024; the scale of its update is that of Liu et al., "Muon is Scalable for LLM
    Training" (arXiv 2502.16982), which equals AdamW's, so that a learning rate that suits AdamW suits both parts.

    Args:
        model: whose trainable parameters are updated.
        heads: weights of the output heads, which may be no ``nn.Embedding``.
        lr: learning rate.
        weight_decay: of matrices and embeddings; vectors are not decayed.
        betas, eps: AdamW's.
    """

    def __init__(
        self,
        model: nn.Module,
        heads: Iterable[Tensor],
        lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} | set(map(id, heads))
        hidden: list[nn.Parameter] = []
        table: list[nn.Parameter] = []
        vector: list[nn.Parameter] = []
        for parameter in model.parameters():
            if parameter.requires_grad:
                chosen = vector if parameter.ndim != 2 else table if id(parameter) in tables else hidden
                chosen.append(parameter)
        adamw = [{"params": table, "weight_decay": weight_decay}, {"params": vector, "weight_decay": 0.0}]
        self.parts: list[torch.optim.Optimizer] = []
        if table or vector:
            self.parts.append(
                torch.optim.AdamW([group for group in adamw if group["params"]], lr=lr, betas=betas, eps=eps)
            )
        if hidden:
            self.parts.append(
                torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            )
        self.defaults = {"lr": lr}
        # the base class's own bookkeeping would want one rule for all groups
        self._optimizer_step_pre_hooks = {}  # type: ignore[assignment]
        self._optimizer_step_post_hooks = {}  # type: ignore[assignment]

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The groups of both parts: the very dictionaries, so that a scheduler sets the rates of both."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> defaultdict[Tensor, Any]:  # type: ignore[override]
        merged: defaultdict[Tensor, Any] = defaultdict(dict)
        for part in self.parts:
            merged.update(part.state)
        return merged

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise ValueError("MuonWithAdamW takes no closure; compute the gradients before step().")
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
