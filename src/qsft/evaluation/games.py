"""Games turn by turn: what the agent wrote, how the environment judged it, and what the policy thought of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from qsft.evaluation.markup import Markup, join, number, tag

#: How the environment judged a cell: right, present elsewhere, absent, or not at all. Named for Wordle's colours.
State = Literal["g", "y", "b", ""]
_SPOKEN = {"g": "green, right place", "y": "yellow, elsewhere", "b": "grey, absent", "": "not judged"}


class Alternative(NamedTuple):
    """A token that the policy could have chosen.

    Attributes:
        token: its text.
        prior: probability under the behaviour model.
        q: Q-value in units of return.
        probability: probability under the policy that played.
    """

    token: str
    prior: float
    q: float
    probability: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One token (in Wordle one letter).

    Attributes:
        text: what is shown, as short as a tile can hold or as long as a sentence.
        state: the environment's judgement.
        q: Q-value of the token in units of return, where known.
        alternatives: the tokens considered, usually the likeliest of the support.
    """

    text: str
    state: State = ""
    q: float | None = None
    alternatives: Sequence[Alternative | tuple[str, float, float, float]] = ()


@dataclass(frozen=True, slots=True)
class GameTurn:
    """One agent turn: its tokens, and a note (reward, answer of the environment, value of the state)."""

    cells: Sequence[Cell]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Game:
    """One episode."""

    title: str
    turns: Sequence[GameTurn] = field(default_factory=list)
    note: str = ""


def games_html(games: Sequence[Game]) -> Markup | None:
    """All games as cards, if there are any.

    The bars under the cells share one scale: the smallest to the largest Q-value shown.
    """
    if not games:
        return None
    values = [cell.q for game in games for turn in game.turns for cell in turn.cells if cell.q is not None]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    cards = tag("div", (_game(i, game, low, high) for i, game in enumerate(games)), class_="games")
    return join([_legend(low, high, bool(values)), cards])


def _legend(low: float, high: float, has_values: bool) -> Markup:
    states: tuple[tuple[State, str], ...] = (("g", "right place"), ("y", "elsewhere"), ("b", "absent"))
    items = [
        tag("li", tag("span", tag("span", "A", class_="char"), class_=f"tile {s} small", aria_hidden="true"), text)
        for s, text in states
    ]
    if has_values:
        sample = tag("span", tag("span", style="width:60%"), class_="bar", aria_hidden="true")
        text = f"Q-value in units of return; the bar runs from {number(low)} to {number(high)}"
        items.append(tag("li", sample, text))
    hint = "Point at or tap a cell, or reach it with the tab key, to see the alternatives that were considered."
    return join([tag("ul", items, class_="legend tiles"), tag("p", hint, class_="hint")])


def _game(index: int, game: Game, low: float, high: float) -> Markup:
    # Letters make square tiles; as soon as a game has longer tokens all its cells take the shape of words.
    words = any(len(cell.text) > 1 for turn in game.turns for cell in turn.cells)
    turns = []
    for t, turn in enumerate(game.turns):
        cells = [_cell(f"g{index}t{t}c{c}", cell, low, high, words) for c, cell in enumerate(turn.cells)]
        text = tag("p", turn.note, class_="note") if turn.note else None
        turns.append(tag("li", tag("div", cells, class_="cells"), text))
    note = tag("p", game.note, class_="gamenote") if game.note else None
    return tag("article", tag("h3", game.title), note, tag("ol", turns, class_="turns"), class_="game card")


def _cell(name: str, cell: Cell, low: float, high: float, word: bool) -> Markup:
    spoken = f"{cell.text}, {_SPOKEN[cell.state]}"
    below = []
    if cell.q is not None:
        spoken += f", Q {number(cell.q)}"
        share = 100 * (cell.q - low) / (high - low) if high > low else 100
        below = [
            tag("span", tag("span", style=f"width:{share:.1f}%"), class_="bar"),
            tag("span", number(cell.q), class_="q"),
        ]
    style = f"tile {cell.state or 'none'}" + (" long" if word else "")
    tile = tag("span", tag("span", cell.text, class_="char"), class_=style)
    if not cell.alternatives:
        return tag("div", tag("div", tile, below, class_="face", role="img", aria_label=spoken), class_="cell")
    face = tag("button", tile, below, class_="face", type="button", aria_label=spoken, aria_describedby=name)
    return tag("div", face, _alternatives(name, cell), class_="cell")


def _alternatives(name: str, cell: Cell) -> Markup:
    options = [Alternative(*option) for option in cell.alternatives]
    rows = [
        tag(
            "tr",
            tag("th", option.token, " (chosen)" if option.token == cell.text else None, scope="row"),
            tag("td", number(option.prior, 3)),
            tag("td", number(option.q)),
            tag("td", number(option.probability, 3)),
            class_="chosen" if option.token == cell.text else None,
        )
        for option in options
    ]
    head = tag("thead", tag("tr", (tag("th", text, scope="col") for text in ("token", "prior", "Q", "policy"))))
    return tag("div", tag("table", head, tag("tbody", rows)), class_="pop", id=name, role="tooltip")
