"""The players of the data of Guess My City; the other scripted policies are those of Twenty Questions."""

from __future__ import annotations

from typing import ClassVar

from qsft.envs.twenty_questions.policies import Player, PopulationPolicy


class CityPopulationPolicy(PopulationPolicy):
    """The population of Twenty Questions, less attentive: there are fewer cities, and open questions tell more."""

    PLAYERS: ClassVar[tuple[Player, ...]] = (
        Player(0.64, 0.05, 0.30, 0.40),
        Player(0.27, 0.20, 0.10, 0.60),
        Player(0.09, 0.70, 0.03, 0.90),
    )
