"""A game for the eye: coloured squares in the terminal."""

from __future__ import annotations

from itertools import zip_longest

from rich.text import Text

from qsft.data.trajectory import Trajectory
from qsft.envs.wordle.rules import NO_FEEDBACK, colours
from qsft.envs.wordle.texts import parse_action, parse_observation

_STYLES = {"g": "bold white on green4", "y": "bold black on gold3", "b": "bold white on grey37"}
_WIDTH = 15  # five squares of three


def tiles_text(trajectory: Trajectory) -> Text:
    """One line a guess, squares for its letters; invalid guesses in red, a guess without an answer yet uncoloured.

    Args:
        trajectory: a game of Wordle, finished or not, of either ``observation``.
    """
    lines = []
    for turn, answer in zip_longest(trajectory.turns, trajectory.turns[1:]):
        if not turn.is_agent:
            continue
        word = parse_action(turn.text)
        code = NO_FEEDBACK if answer is None else parse_observation(answer.text)
        if code == NO_FEEDBACK:
            # Escaped: what a model wrote must not reach the terminal as a control code.
            said = Text("".join(f" {letter} " for letter in word.upper()) if word.isalpha() else ascii(word))
            said.truncate(_WIDTH)
            lines.append(said if answer is None else said.append("  not a word of the list", style="red"))
            continue
        squares = zip(word.upper(), colours(code), strict=True)
        lines.append(Text.assemble(*((f" {letter} ", _STYLES[colour]) for letter, colour in squares)))
    return Text("\n").join(lines)
