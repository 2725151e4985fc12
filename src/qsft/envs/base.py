"""What every qsft environment is: gymnasium's shape with text (or images) in and text (or a vector) out."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium


class Environment(gymnasium.Env):
    """Base of the environments.

    ``reset(seed=..., options=...) -> observation, info`` and
    ``step(action) -> observation, reward, terminated, truncated, info``. Each instance owns its random generator
    (``self.np_random``, seeded by ``reset``). ``options`` can pin everything that is otherwise drawn, so that any
    episode can be replayed. When an episode ends, ``info["success"]`` is a bool.

    Attributes:
        name: the name under which ``qsft.envs.make`` finds it.
        return_range: ``(low, high)``, bounds on the undiscounted return-to-go from any state that can be reached.
        max_turns: agent turns after which an episode is over.
    """

    name: ClassVar[str]
    return_range: tuple[float, float]
    max_turns: int

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return None, {}
