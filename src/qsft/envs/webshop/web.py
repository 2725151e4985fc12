"""The pages of the shop for a browser. Every text of a product, a goal or a person is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib.resources import files

from qsft.envs.webshop.products import Product
from qsft.envs.webshop.reward import Reward
from qsft.envs.webshop.session import BACK, BUY, NEXT, PREVIOUS, SUB_PAGES, Action, Session
from qsft.envs.webshop.texts import action_text

#: Characters that the field takes.
LONGEST_QUERY = 1000
_BUTTONS = (BACK, PREVIOUS, NEXT)


def document(title: str, body: str) -> str:
    """A whole page of HTML."""
    style = files("qsft.envs.webshop").joinpath("shop.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style}</style></head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def start_page(goals: int) -> str:
    """Where a person chooses what to shop for."""
    return document(
        "WebShop",
        "<h1>WebShop</h1><p>You are told what to buy. Find it, choose its options, and buy it: the closer it is to what "
        "was asked for, the higher the score.</p>"
        '<form method="post" action="/start"><button class="main">Give me something to buy</button></form>'
        '<form method="post" action="/start"><label>or goal number <input name="goal" type="number" min="0" '
        f'max="{goals - 1}" required></label> <button>Start</button></form>',
    )


def session_page(session: Session, address: str, score: Reward | None, message: str = "", marked: str = "") -> str:
    """The page that a session is on.

    Args:
        session: of a person, or of an episode that is replayed.
        address: where its actions are sent; ``""`` where nothing can be done (a replay).
        score: what was bought is worth; needed on the last page alone.
        message: a remark above the page.
        marked: the action that is to be highlighted, as texts write it.
    """
    page = _Page(session, address, marked)
    if session.page == "search":
        body = page.search()
    elif session.page == "results":
        body = page.results()
    elif session.page == "done":
        body = _done(session, score)
    else:
        body = page.item() if session.page == "item" else page.sub_page()
    note = f'<p class="message">{html.escape(message)}</p>' if message else ""
    goal = f'<p id="instruction"><b>Instruction:</b> {html.escape(session.instruction)}</p>'
    return document("WebShop", f"{note}{goal}{page.bar()}{body}")


class _Page:
    def __init__(self, session: Session, address: str, marked: str) -> None:
        self.session, self.address, self.marked = session, html.escape(address), marked

    def bar(self) -> str:
        buttons = [self._button(name) for name in self.session.buttons() if name in _BUTTONS]
        return f'<p class="bar">{"".join(buttons)}</p>' if buttons else ""

    def search(self) -> str:
        value = self.marked[len("search[") : -1] if self.marked.startswith("search[") else ""
        dead = "" if self.address else " disabled"
        return (
            f'<form method="post" action="{self.address}" class="search"><input name="query" '
            f'maxlength="{LONGEST_QUERY}" value="{html.escape(value)}" '
            f'aria-label="Search" placeholder="Search..." required autofocus{dead}><button class="main"{dead}>Search'
            "</button></form>"
        )

    def results(self) -> str:
        session = self.session
        head = f"<h2>Page {session.number} (Total results: {len(session.results)})</h2>"
        rows = "".join(f"<li>{self._listed(product)}</li>" for product in session.listed())
        return f'{head}<ol class="results" start="{(session.number - 1) * 10 + 1}">{rows}</ol>'

    def _listed(self, product: Product) -> str:
        name = self._button(product.asin, clicked=product.asin in self.session.seen)
        return f"{name} <b>{html.escape(product.title)}</b> {html.escape(product.price_text)}"

    def item(self) -> str:
        product, chosen = self.session.product, self.session.chosen
        assert product is not None
        parts = [f"<h2>{html.escape(product.title)}</h2>", f"<p>Price: {html.escape(product.price_text)}</p>"]
        parts.append(f"<p>Rating: {html.escape(product.rating)}</p>")
        for name, values in product.options.items():
            buttons = "".join(self._button(value, clicked=chosen.get(name) == value) for value in values)
            parts.append(f"<fieldset><legend>{html.escape(name)}</legend>{buttons}</fieldset>")
        parts.append(f'<p class="bar">{"".join(self._button(name) for name in SUB_PAGES)}</p>')
        parts.append(f'<p class="bar">{self._button(BUY, main=True)}</p>')
        return "".join(parts)

    def sub_page(self) -> str:
        product = self.session.product
        assert product is not None
        head = f"<h2>{html.escape(self.session.page)}</h2>"
        if self.session.page == "Description":
            return f"{head}<p>{html.escape(product.description)}</p>"
        if self.session.page == "Features":
            return f"{head}<ul>{_list(product.features)}</ul>"
        scores = [one.score if isinstance(one.score, str) else f"{one.score:g} of 5" for one in product.reviews]
        reviews = [f"{one.title} ({score}): {one.body}" for one, score in zip(product.reviews, scores, strict=True)]
        return f"{head}<ul>{_list(reviews or ['No reviews found'])}</ul>"

    def _button(self, name: str, clicked: bool = False, main: bool = False) -> str:
        action = action_text(Action("click", name.lower()), "text")
        kinds = [kind for kind, is_so in (("clicked", clicked), ("main", main)) if is_so]
        if action == self.marked:
            kinds.append("marked")
        pressed = ' aria-pressed="true"' if clicked else ""
        dead = "" if self.address else " disabled"
        return (
            f'<form method="post" action="{self.address}"><button name="action" value="{html.escape(action)}" '
            f'class="{" ".join(kinds)}"{pressed}{dead}>{html.escape(name)}</button></form>'
        )


def replay_list(titles: Sequence[str]) -> str:
    """The episodes that can be replayed."""
    rows = "".join(f'<li><a href="/replay/{n}/0">{html.escape(title)}</a></li>' for n, title in enumerate(titles))
    return document("Replay", f'<h1>Episodes</h1><ol start="0">{rows}</ol>')


def replay_page(session: Session, score: Reward | None, number: int, step: int, actions: Sequence[str]) -> str:
    """One page of an agent's episode, what it does next highlighted, with links to the steps around it."""
    last = len(actions)
    links = [("first", 0), ("back", step - 1), ("next", step + 1), ("last", last)]
    steps = " ".join(
        f'<a id="{name}" href="/replay/{number}/{to}">{name}</a>' if 0 <= to <= last and to != step else name
        for name, to in links
    )
    action = actions[step] if step < last else ""
    said = f'The agent does: <code id="action">{html.escape(action)}</code>' if action else "The episode is over."
    page = session_page(session, "", score, marked=action.strip())
    bar = f'<p class="replay"><a href="/replay">Episode {number}</a>, step {step} of {last}: {steps}<br>{said}</p>'
    return page.replace("<body>\n", f"<body>\n{bar}\n", 1)


def _done(session: Session, score: Reward | None) -> str:
    assert session.product is not None
    if score is None:
        return "<h2>Thank you for shopping with us!</h2>"
    options = "none was asked for" if score.options is None else f"{score.options:.0%}"
    rows = [
        ("Kind of product", f"{score.type:g}"),
        ("Attributes", f"{score.attributes:.0%}"),
        ("Options", options),
        ("Price", "low enough" if score.price else "too high"),
    ]
    table = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)
    return (
        f"<h2>Thank you for shopping with us!</h2><p>{html.escape(session.product.title)}</p>"
        f'<p>Your score (0 to 1): <b id="score">{score.total:.3f}</b></p><table>{table}</table>'
        '<p><a href="/">Shop again</a></p>'
    )


def _list(lines: Sequence[str]) -> str:
    return "".join(f"<li>{html.escape(line)}</li>" for line in lines)
