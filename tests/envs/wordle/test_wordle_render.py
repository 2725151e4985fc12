"""Games as coloured squares."""

from __future__ import annotations

import pytest

from qsft.data.trajectory import Trajectory, Turn
from qsft.envs import make
from qsft.envs.wordle import tiles_text


@pytest.mark.parametrize("observation", ["colours", "tiles"])
def test_tiles_text(observation: str) -> None:
    env = make("wordle", observation=observation)
    turns = [Turn("user", env.reset(options={"secret": "early"})[0])]
    for guess in ("later", "no such word \x1b[31m" * 3, "early"):
        turns += [Turn("assistant", " ".join(guess) + "\n"), Turn("user", env.step(guess)[0])]
    text = tiles_text(Trajectory(turns))
    lines = text.plain.split("\n")
    assert lines[0] == " L  A  T  E  R "
    assert lines[1].endswith("not a word of the list")
    assert "\x1b" not in text.plain, "what a model wrote must not reach the terminal as a control code"
    assert lines[2] == " E  A  R  L  Y "
    background = [str(span.style).split(" on ")[1] for span in text.spans if " on " in str(span.style)]
    assert background == ["gold3", "green4", "grey37", "gold3", "gold3"] + ["green4"] * 5


def test_a_guess_that_is_not_answered_yet() -> None:
    game = Trajectory([Turn("user", "Wordle:\n"), Turn("assistant", "c r a n e\n")])
    text = tiles_text(game)
    assert text.plain == " C  R  A  N  E "
    assert not [span for span in text.spans if " on " in str(span.style)]
    assert "\x1b" not in tiles_text(Trajectory([Turn("assistant", "\x1b[31m")])).plain
    assert tiles_text(Trajectory([Turn("user", "Wordle:\n")])).plain == ""
