"""The pages as text: the original's two observation modes, and a shorter one of ours for small models."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache

from qsft.data.thoughts import split_thought
from qsft.envs.webshop.session import BACK, BUY, PREVIOUS, SUB_PAGES, Action, Session, parse_action
from qsft.errors import DataError

OBSERVATIONS = ("text", "text_rich", "words")
SEPARATOR = " [SEP] "
NOTHING = "nothing happens\n"

_TOKEN = re.compile(r"[^\W_]+(?:[.'][^\W_]+)*|[^\w\s]|_")
Node = tuple[str, str]  # kind: "text", "button", "option" or "product"; and what it says


def observation_text(session: Session, mode: str, score: float | None = None) -> str:
    """What an agent reads of the present page.

    Args:
        mode: one of ``OBSERVATIONS``.
        score: what the purchase was worth; needed on the last page alone.
    """
    if mode == "words":
        return _words_page(session)
    nodes = [node for node in _nodes(session, score) if node[1] and not (node[1].isspace() and "\n" in node[1])]
    if mode == "text":
        return SEPARATOR.join(text.strip() for _, text in nodes)
    return _rich(session, nodes)


def _rich(session: Session, nodes: list[Node]) -> str:
    lines: list[str] = []
    clicked: list[str] = []
    for kind, text in nodes:
        if kind == "button":
            lines.append(f"[button] {text} [button_]")
        elif kind == "option":
            if session.was_clicked(text):
                clicked.insert(0, f"You have clicked {text}.")
                lines.append(f"  [clicked button] {text} [clicked button_]")
            else:
                lines.append(f"  [button] {text} [button_]")
        elif kind == "product":
            seen = "clicked " if text in session.seen else ""
            lines.append(f"\n[{seen}button] {text} [{seen}button_]")
        else:
            lines.append(text)
    return "\n".join([*clicked, *lines]) + "\n"


def _nodes(session: Session, score: float | None) -> Iterable[Node]:
    """The visible texts of a page in the order of the original's page."""
    if session.page == "done":
        yield from _done(session, score)
        return
    if session.page == "search":
        yield from (("text", "WebShop"), ("text", "Instruction: "), ("text", session.instruction), ("button", "Search"))
        return
    yield from (("text", "Instruction:"), ("text", session.instruction), ("button", BACK))
    if session.page == "results":
        yield "text", f"Page {session.number} (Total results: {len(session.results)})"
        yield from (("button", button) for button in session.buttons() if button != BACK)
        for item in session.listed():
            yield from (("product", item.asin), ("text", item.title), ("text", item.price_text))
        return
    product = session.product
    assert product is not None
    yield "button", PREVIOUS
    if session.page == "item":
        for name, values in product.options.items():
            yield "text", name
            yield from (("option", value) for value in values)
        yield from (("text", product.title), ("text", f"Price: {product.price_text}"))
        yield "text", f"Rating: {product.rating}"
        yield from (("button", button) for button in (*SUB_PAGES, BUY))
    elif session.page == "Description":
        yield "text", product.description
    elif session.page == "Features":
        yield from (("text", f" {line}") for line in product.features)
    else:
        for review in product.reviews:
            yield from (("text", f'"{review.title}"'), ("text", str(review.score)), ("text", review.body))
        if not product.reviews:
            yield "text", "No reviews found"


def _done(session: Session, score: float | None) -> Iterable[Node]:
    """The last page. It shows the names of much that it then leaves empty."""
    assert session.product is not None
    texts = ["Thank you for shopping with us!", "Your code: ", "None", " (Paste it in your MTurk interface.)"]
    texts += ["Purchased", "asin", session.product.asin, "options", _json(session.chosen)]
    for name in ("attrs", "category", "query", "product category"):
        texts += [name, "None"]
    texts += ["Target", "asin", "options", "attrs", "price upper", "instuction text", "category", "product category"]
    texts += ["query", "Goal", "None", "Reward", "Your score (min 0.0, max 1.0)", str(score), "Reward Details", "None"]
    return (("text", text) for text in texts)


def _json(chosen: dict[str, str]) -> str:
    """As Flask writes it into a page."""
    text = json.dumps(chosen, sort_keys=True)
    return text.translate({ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&'"})


def spaced(text: str) -> str:
    """Lower case, with a blank between all words, numbers and marks: ``"$5.99, new"`` -> ``"$ 5.99 , new"``."""
    # What the shop says comes again and again; what an agent says may be long, and is not kept.
    return _spaced(text) if len(text) < 1000 else _spaced.__wrapped__(text)


@lru_cache(maxsize=1 << 14)
def _spaced(text: str) -> str:
    return " ".join(_TOKEN.findall(text.lower()))


def action_text(action: Action, mode: str) -> str:
    """How an action is written: ``"click[buy now]"``, in the mode "words" ``"click[ buy now ]\\n"``."""
    if mode == "words":
        return f"{action.verb}[ {spaced(action.argument)} ]\n"
    return f"{action.verb}[{action.argument}]"


def written_action(action: Action, session: Session, mode: str) -> str:
    """:func:`action_text`, with a product's name as the mode says it: in "words" its place on the present page."""
    if mode == "words" and action.verb == "click" and session.page == "results":
        for place, product in enumerate(session.listed(), start=1):
            if action.argument.lower() == product.asin.lower():
                action = Action("click", f"item {place}")
    return action_text(action, mode)


def read_action(text: str, session: Session, mode: str) -> Action | None:
    """The action that an agent's text means in a session; where brackets are missing, ``None``."""
    action = parse_action(split_thought(text)[1])
    if action is None or mode != "words":
        return action
    argument = spaced(action.argument)
    if action.verb == "click":
        names = {spaced(name): name for name in session.clickables()}
        if session.page == "results":
            names |= {f"item {place}": item.asin for place, item in enumerate(session.listed(), start=1)}
        argument = names.get(argument, argument)
    return Action(action.verb, argument)


def chosen_text(name: str, value: str) -> str:
    """Ours for a chosen option, in place of the whole page once more."""
    return f"{spaced(f'chosen {name} : {value}')}\n"


def read_instruction(text: str, mode: str) -> str:
    """The instruction in the first observation of an episode.

    Raises:
        DataError: the text is no such observation.
    """
    parts = text.split(SEPARATOR if mode == "text" else "\n")
    place = 0 if mode == "words" else 2
    if len(parts) <= place:
        raise DataError(f"webshop: {text!r:.100} is no first page in mode {mode!r}; give the environment's options")
    return parts[place]


def _words_page(session: Session) -> str:
    """The same pages with less said twice: no instruction but on the first, no buttons, products by their places."""
    product = session.product
    if session.page == "search":
        lines = [session.instruction]
    elif session.page == "results":
        listed = session.listed()
        lines = [f"page {session.number} of {len(session.results)} results" if listed else "no more results"]
        if session.listed_again and listed:
            lines, listed = [f"{lines[0]} again"], []
        for place, item in enumerate(listed, start=1):
            lines.append(f"item {place} : {item.title} {item.price_text}")
    elif session.page == "done" or product is None:
        lines = ["thank you for shopping"]
    elif session.page == "item":
        lines = [f"{product.title} {product.price_text}"]
        for name, values in product.options.items():
            lines.append(f"{name} : " + " | ".join(values))
        lines += [f"chosen {name} : {value}" for name, value in session.chosen.items()]
    elif session.page == "Description":
        lines = [product.description or "none"]
    elif session.page == "Features":
        lines = list(product.features) or ["none"]
    else:
        lines = [f"{review.title} {review.score} : {review.body}" for review in product.reviews] or ["no reviews"]
    return "".join(f"{spaced(line)}\n" for line in lines)
