"""Everything that can play: one contract, `Policy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qsft.policies.base import Policy

if TYPE_CHECKING:
    from qsft.policies.load import load_policy
    from qsft.policies.model import ModelPolicy, ReplyValue, TokenValue

__all__ = ["ModelPolicy", "Policy", "ReplyValue", "TokenValue", "load_policy"]


def __getattr__(name: str) -> Any:
    # scripted policies need the contract alone: torch and transformers are imported only for models
    if name == "load_policy":
        from qsft.policies.load import load_policy

        return load_policy
    if name in ("ModelPolicy", "ReplyValue", "TokenValue"):
        from qsft.policies import model

        return getattr(model, name)
    raise AttributeError(name)
