"""The target network: a slow moving average of the likelihood model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qsft.models.states import output_head, state_hidden


class TargetNetwork(nn.Module):
    """``theta_bar <- (1 - rate) theta_bar + rate theta`` after every step, as a frozen copy of the whole model.

    The copy of a half-precision model is float32: there, a step of half a per cent would be lost to rounding.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.copy = copy.deepcopy(model).eval()
        if any(p.dtype in (torch.float16, torch.bfloat16) for p in self.copy.parameters()):
            self.copy.float()
        self.copy.requires_grad_(False)

    def train(self, mode: bool = True) -> TargetNetwork:
        # a target with dropout would be a random one
        return super().train(False)

    @torch.no_grad()
    def hidden(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Hidden states ``[N, H]`` of the batch's N states under the target, without gradient or dropout.

        Args:
            model: the one in training, as for all methods here: an adapter's target lives in it.
            batch: a :class:`~qsft.data.batch.TokenBatch`.
        """
        return state_hidden(self.copy, batch)

    def head(self, model: nn.Module) -> tuple[Tensor, Tensor | None]:
        """Weight ``[V, H]`` and bias ``[V]`` (or ``None``) of the target's output head."""
        return output_head(self.copy)

    def pairs(self, model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        """Parameters of the target and of the model that it follows, in the same order."""
        return list(self.copy.parameters()), list(model.parameters())

    @torch.no_grad()
    def update(self, model: nn.Module, rate: float) -> None:
        """Move every parameter the share ``rate`` (in [0, 1]) of the way to the model's, in the target's precision."""
        ours, theirs = self.pairs(model)
        torch._foreach_lerp_(ours, [p.to(mine.dtype) for mine, p in zip(ours, theirs, strict=True)], rate)
        self.take_buffers(model)

    @torch.no_grad()
    def take_buffers(self, model: nn.Module) -> None:
        """The model's buffers, such as a BatchNorm's running statistics, which are slow averages already."""
        for mine, other in zip(self.copy.buffers(), model.buffers(), strict=True):
            mine.copy_(other)

    @torch.no_grad()
    def distance(self, model: nn.Module) -> float:
        """``|theta - theta_bar| / |theta|`` over all parameters that the target follows; 0 where they are equal."""
        ours, theirs = self.pairs(model)
        moved = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(torch._foreach_sub(theirs, ours))))
        size = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(theirs)))
        return float(moved / size)


class AdapterTarget(TargetNetwork):
    """The target as a second LoRA adapter on the same base: no copy of the model.

    PEFT's active adapter is a switch on the model. It is turned to the target and back *before* the trained forward
    pass; between that pass and its backward it must not move, or gradients vanish silently.
    """

    NAME = "target"

    def __init__(self, model: Any, trained: str = "default") -> None:
        nn.Module.__init__(self)
        self.trained = trained
        config = copy.deepcopy(model.peft_config[trained])
        # its weights are copied over; pissa, olora and their like would change the base that both share
        config.init_lora_weights = True
        model.add_adapter(self.NAME, config)
        self._copy_weights(model)
        model.set_adapter(trained)

    @torch.no_grad()
    def _copy_weights(self, model: nn.Module) -> None:
        ours, theirs = self.pairs(model)
        for mine, other in zip(ours, theirs, strict=True):
            mine.copy_(other)

    def take_buffers(self, model: nn.Module) -> None:
        """Nothing: the target lives in the model and shares its buffers."""

    def pairs(self, model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        named = dict(model.named_parameters())
        ours = {name: p for name, p in named.items() if f".{self.NAME}." in name or name.endswith(f".{self.NAME}")}
        return list(ours.values()), [named[name.replace(f".{self.NAME}", f".{self.trained}")] for name in ours]

    @torch.no_grad()
    def hidden(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            with self._active(model):
                return state_hidden(model, batch)
        finally:
            for module, mode in modes:
                module.training = mode

    def head(self, model: nn.Module) -> tuple[Tensor, Tensor | None]:
        with self._active(model):  # a head in modules_to_save has a target of its own
            return output_head(model)

    @contextmanager
    def _active(self, model: Any) -> Iterator[None]:
        model.set_adapter(self.NAME)
        try:
            yield
        finally:
            model.set_adapter(self.trained)


def make_target(model: nn.Module) -> TargetNetwork:
    """A target that equals the model: an adapter where the model has adapters, else a full copy."""
    return AdapterTarget(model) if hasattr(model, "peft_config") else TargetNetwork(model)
