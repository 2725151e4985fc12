"""The page flow, transition by transition, on a small shop made by hand; actions as the original reads them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsft.envs.webshop.session import Action, Session, parse_action
from qsft.envs.webshop.texts import action_text, observation_text, read_action, read_instruction, spaced
from qsft.errors import DataError
from tests.envs.webshop.shops import HandMadeCatalogue, hand_made_shop

ASINS = [product.asin.lower() for product in HandMadeCatalogue.products]


@pytest.fixture
def session() -> Session:
    return Session(hand_made_shop(), "find me a mat, and price lower than 40.00 dollars")


def go(session: Session, *actions: str) -> list[bool]:
    return [session.act(parse_action(action)) for action in actions]


def test_the_way_through_the_shop(session: Session) -> None:
    assert session.buttons() == ["Search"]
    assert go(session, "search[mat]") == [True]
    assert (session.page, session.number, len(session.results)) == ("results", 1, 12)
    assert len(session.listed()) == 10
    assert go(session, "click[next >]") == [True]
    assert (session.number, len(session.listed())) == (2, 2)
    asin = session.listed()[0].asin
    assert go(session, f"click[{asin}]") == [True], "names may be written in either case"
    assert session.page == "item"
    assert session.product is not None and session.product.asin == asin
    assert session.seen == {asin}
    for page in ("Description", "Features", "Reviews"):
        assert go(session, f"click[{page}]") == [True]
        assert session.page == page
        assert session.buttons() == ["Back to Search", "< Prev"]
        assert go(session, "click[< prev]") == [True]
        assert session.page == "item"
    assert go(session, "click[< Prev]") == [True]
    assert (session.page, session.number, session.product) == ("results", 2, None), "the same page of results"
    assert go(session, "click[< prev]", "click[< prev]") == [True, False], "there is none before the first"
    assert session.number == 1
    assert go(session, "click[back to search]") == [True]
    assert (session.page, session.seen, session.query) == ("search", set(), "")


def test_options_stay_on_the_sub_pages_and_go_with_the_product(session: Session) -> None:
    go(session, "search[purple]", f"click[{ASINS[0]}]", "click[deep purple]", "click[6 mm]")
    assert session.chosen == {"color": "deep purple", "thickness": "6 mm"}
    go(session, "click[sky blue]")
    assert session.chosen == {"color": "sky blue", "thickness": "6 mm"}, "the last one counts"
    go(session, "click[features]", "click[< prev]")
    assert session.chosen == {"color": "sky blue", "thickness": "6 mm"}
    go(session, "click[< prev]", f"click[{ASINS[0]}]")
    assert session.chosen == {}


def test_a_search_is_possible_on_every_page(session: Session) -> None:
    go(session, "search[purple]", f"click[{ASINS[0]}]", "click[sky blue]")
    assert go(session, "search[mat cork]") == [True]
    assert (session.page, session.number, session.chosen, session.product) == ("results", 1, {}, None)


def test_beyond_the_last_page_there_is_nothing_but_the_way_back(session: Session) -> None:
    go(session, "search[mat]", *["click[next >]"] * 7)
    assert (session.number, session.listed()) == (8, [])
    assert session.buttons() == ["Back to Search", "< Prev", "Next >"]


def test_buying_ends_it(session: Session) -> None:
    go(session, "search[plain]", f"click[{ASINS[1]}]", "click[buy now]")
    assert session.page == "done"
    assert session.clickables() == {}
    assert go(session, "click[buy now]", "search[mat]") == [False, False]


@pytest.mark.parametrize(
    "action",
    [
        "",
        "buy now",
        "click",
        "click[]",
        "search[]",
        "Search[mat]",
        "CLICK[back to search]",
        " click[back to search]",
        "click [back to search]",
        "click[ back to search]",
        "click[back to search",
        "click\n[back to search]",
        "buy[back to search]",
        "click[search]",
        "click[buy now]",
        "click[description]",
        "click[b0nothere00]",
        "click[🛒]",
        "search[\x00",
        "click[" + "a" * 1_000_000 + "]",
        "[" * 100_000,
        "click[" * 50_000 + "]" * 50_000,
    ],
)
def test_what_means_nothing_changes_nothing(action: str, session: Session) -> None:
    go(session, "search[mat]")
    before = observation_text(session, "text_rich")
    assert go(session, action) == [False]
    assert observation_text(session, "text_rich") == before


def test_odd_but_meaningful(session: Session) -> None:
    assert go(session, "search[mat] and more", "click[back to search]]") == [True, False]
    assert go(session, "search[ ]") == [True]
    assert session.results == ()
    assert go(session, "search[" + "mat " * 300_000 + "]") == [True]


PIECES = st.text(st.sampled_from("[]ab\n "), max_size=12)


@settings(max_examples=500, deadline=None)
@given(PIECES)
def test_actions_are_read_as_the_original_s_pattern_reads_them(text: str) -> None:
    found = re.match(r"(.+)\[(.+)\]", text)
    assert parse_action(text) == (Action(*found.groups()) if found else None)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_walk_shows_a_page_and_every_clickable_can_be_clicked(data: st.DataObject) -> None:
    session = Session(hand_made_shop(), "find me a mat")
    for _ in range(8):
        names = list(session.clickables())
        if not names:
            break
        name = data.draw(st.sampled_from(names))
        action = "search[mat]" if name == "search" else f"click[{name}]"
        assert go(session, action) == [True]
        for mode in ("text", "text_rich", "words"):
            assert observation_text(session, mode, 0.5)


def test_an_option_that_is_called_like_a_button_acts_as_the_button(session: Session) -> None:
    go(session, "search[trick]", f"click[{ASINS[2]}]", "click[description]")
    assert session.page == "Description"


# ---- Texts: the whole page, exactly. ----


def test_text(session: Session) -> None:
    start = "Instruction: [SEP] find me a mat, and price lower than 40.00 dollars [SEP] "
    assert observation_text(session, "text") == "WebShop [SEP] " + start + "Search"
    go(session, "search[trick]")
    assert observation_text(session, "text") == (
        start + "Back to Search [SEP] Page 1 (Total results: 1) [SEP] Next > [SEP] "
        'B000000002 [SEP] Trick <b>Rug</b> & "Co" [SEP] $100.0'
    )
    go(session, f"click[{ASINS[2]}]")
    assert observation_text(session, "text") == (
        start + "Back to Search [SEP] < Prev [SEP] color [SEP] description [SEP] ☃ white [SEP] "
        'Trick <b>Rug</b> & "Co" [SEP] Price: $100.0 [SEP] Rating: N.A. [SEP] Description [SEP] Features [SEP] '
        "Reviews [SEP] Buy Now"
    )
    go(session, "click[features]")
    assert observation_text(session, "text") == start + "Back to Search [SEP] < Prev"
    go(session, "click[< prev]", "click[reviews]")
    assert observation_text(session, "text") == start + "Back to Search [SEP] < Prev [SEP] No reviews found"
    go(session, "click[< prev]", "click[☃ white]", "click[buy now]")
    assert observation_text(session, "text", 1 / 3) == (
        "Thank you for shopping with us! [SEP] Your code: [SEP] None [SEP] (Paste it in your MTurk interface.) [SEP] "
        'Purchased [SEP] asin [SEP] B000000002 [SEP] options [SEP] {"color": "\\u2603 white"} [SEP] attrs [SEP] None '
        "[SEP] category [SEP] None [SEP] query [SEP] None [SEP] product category [SEP] None [SEP] Target [SEP] asin "
        "[SEP] options [SEP] attrs [SEP] price upper [SEP] instuction text [SEP] category [SEP] product category [SEP] "
        "query [SEP] Goal [SEP] None [SEP] Reward [SEP] Your score (min 0.0, max 1.0) [SEP] 0.3333333333333333 [SEP] "
        "Reward Details [SEP] None"
    )


def test_text_rich(session: Session) -> None:
    instruction = "find me a mat, and price lower than 40.00 dollars\n"
    assert observation_text(session, "text_rich") == (
        "WebShop\nInstruction: \n" + instruction + "[button] Search [button_]\n"
    )
    go(session, "search[purple]", f"click[{ASINS[0]}]", "click[deep purple]", "click[6 mm]")
    top = "Instruction:\n" + instruction + "[button] Back to Search [button_]\n[button] < Prev [button_]\n"
    assert observation_text(session, "text_rich") == (
        "You have clicked 6 mm.\nYou have clicked deep purple.\n" + top + "color\n"
        "  [clicked button] deep purple [clicked button_]\n  [button] sky blue [button_]\nthickness\n"
        "  [button] 4 mm [button_]\n  [clicked button] 6 mm [clicked button_]\n"
        "Quillon Cork Mat\nPrice: $29.99\nRating: 4.5\n[button] Description [button_]\n[button] Features [button_]\n"
        "[button] Reviews [button_]\n[button] Buy Now [button_]\n"
    )
    go(session, "click[features]")
    assert observation_text(session, "text_rich") == top + " Non slip.\n Folds flat.\n"
    go(session, "click[< prev]", "click[description]")
    assert observation_text(session, "text_rich") == top + "A mat of cork.\n"
    go(session, "click[< prev]", "click[reviews]")
    assert observation_text(session, "text_rich") == top + '"Good"\n4.0\nNice.\n"Perfect"\n5.0\nLovely.\n'
    go(session, "click[< prev]", "click[< prev]")
    assert observation_text(session, "text_rich") == (
        "Instruction:\n" + instruction + "[button] Back to Search [button_]\nPage 1 (Total results: 1)\n"
        "[button] Next > [button_]\n\n[clicked button] B000000000 [clicked button_]\nQuillon Cork Mat\n$29.99\n"
    )
    go(session, "click[next >]")
    assert observation_text(session, "text_rich") == (
        "Instruction:\n" + instruction + "[button] Back to Search [button_]\nPage 2 (Total results: 1)\n"
        "[button] < Prev [button_]\n[button] Next > [button_]\n"
    )


def test_a_label_counts_as_clicked_where_the_address_holds_it_in_quotes(session: Session) -> None:
    """So does the original, whose address also holds the query; letters beyond ASCII are written as codes there."""
    go(session, 'search["6 mm" purple "thickness"]', f"click[{ASINS[0]}]")
    assert "[button] 6 mm" in observation_text(session, "text_rich"), "blanks are plus signs in an address"
    go(session, "search[trick]", f"click[{ASINS[2]}]", "click[☃ white]")
    assert session.chosen == {"color": "☃ white"}
    assert "[button] ☃ white [button_]" in observation_text(session, "text_rich")


def test_words(session: Session) -> None:
    assert observation_text(session, "words") == "find me a mat , and price lower than 40.00 dollars\n"
    go(session, "search[purple]")
    assert observation_text(session, "words") == "page 1 of 1 results\nitem 1 : quillon cork mat $ 29.99\n"
    session.act(read_action("click[ item 1 ]\n", session, "words"))
    assert observation_text(session, "words") == (
        "quillon cork mat $ 29.99\ncolor : deep purple | sky blue\nthickness : 4 mm | 6 mm\n"
    )
    for text in ("click[ 6 mm ]\n", "click[ < prev ]\n", "click[B000000000]", "click[ reviews ]\n"):
        assert session.act(read_action(text, session, "words")), text
    assert observation_text(session, "words") == "good 4.0 : nice .\nperfect 5.0 : lovely .\n"
    assert not session.act(read_action("click[ item 1 ]\n", session, "words"))
    assert action_text(Action("click", "< prev"), "words") == "click[ < prev ]\n"
    assert spaced("It's $5.99, new!") == "it's $ 5.99 , new !"


def test_the_instruction_is_found_in_the_first_observation(session: Session) -> None:
    for mode in ("text", "text_rich"):
        assert read_instruction(observation_text(session, mode), mode) == session.instruction
    assert read_instruction(observation_text(session, "words"), "words") == spaced(session.instruction)
    with pytest.raises(DataError, match="no first page in mode 'text'"):
        read_instruction("hello", "text")
