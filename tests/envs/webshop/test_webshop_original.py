"""The original's files, small ones of their format made by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from qsft.envs import make
from qsft.envs.rollout import rollout
from qsft.envs.webshop.human import human_trajectories
from qsft.envs.webshop.original import OriginalCatalogue, spacy_nouns
from qsft.errors import ConfigError, DataError


def nouns(title: str) -> list[str]:
    """Stands in for spaCy."""
    return [word.lower() for word in title.split() if word[0].isupper()]


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def product(asin: str, **changes: Any) -> dict[str, Any]:
    row = {
        "asin": asin,
        "name": "Quillon Cork Yoga Mat",
        "category": "fitness",
        "query": " Yoga Mats ",
        "product_category": "Sports › Mats › Yoga Mats",
        "full_description": "A mat of <b>cork</b>.",
        "small_description": ["Non slip.", "Folds flat."],
        "pricing": "$29.99",
        "customization_options": {
            "Color": [{"value": " Deep Purple ", "image": None}, {"value": "Red/Blue"}],
            "Size": None,
        },
        "images": ["x.jpg"],
    }
    return row | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        product("B000000000"),
        product("B000000000", name="twice"),
        product("nan"),
        product("B0000000001", name="name too long"),
        product("B000000001", pricing="$1,005.50 - $2,000.00", customization_options="", small_description="one line"),
        product(
            "B000000002", pricing=None, full_description=None, name="café Lamp", product_category="Home", query="x"
        ),
    ]
    write(tmp_path, "items_shuffle_1000.json", rows)
    attributes = {
        "B000000000": {
            "attributes": ["non slip", "fold flat"],
            "instruction": "Find me non slip yoga mats",
            "instruction_attributes": ["non slip"],
        },
        "B000000001": {"attributes": ["easy carry"], "instruction": None, "instruction_attributes": None},
    }
    write(tmp_path, "items_ins_v2_1000.json", attributes)
    human = {
        "B000000000": [
            {
                "instruction": "i want a 'non slip' mat in deep purple.",
                "instruction_attributes": ["non slip"],
                "instruction_options": ["deep purple"],
            },
            {"instruction": "no attributes", "instruction_attributes": [], "instruction_options": []},
        ],
        "B000000001": [
            {"instruction": "something easy", "instruction_attributes": ["easy carry"], "instruction_options": []}
        ],
        "B000000009": [{"instruction": "not for sale", "instruction_attributes": ["a"], "instruction_options": []}],
    }
    write(tmp_path, "items_human_ins.json", human)
    reviews = [
        {"asin": "B000000000", "average_rating": 4.2, "reviews": [{"title": "Good", "review": "Yes", "score": 4}]}
    ]
    write(tmp_path, "reviews.json", reviews)
    return tmp_path


def test_products(folder: Path) -> None:
    catalogue = OriginalCatalogue(folder, False, nouns)
    assert len(catalogue) == 3, "one of each name, and no impossible ones"
    mat, dear, lamp = (catalogue.product(number) for number in range(3))
    assert mat.nouns == ("quillon", "cork", "yoga", "mat")
    assert (mat.query, mat.price, mat.price_text, mat.rating) == ("yoga mats", 29.99, "$29.99", "4.2")
    assert mat.options == {"color": ("deep purple", "red | blue")}
    assert mat.attributes == ("non slip", "fold flat")
    assert mat.reviews[0].score == 4
    assert dear.price_text == "$1005.5 to $2000.0"
    assert 1005.5 <= dear.price <= 2000
    assert (dear.options, dear.features) == ({}, ("one line",))
    assert (lamp.price, lamp.price_text, lamp.description, lamp.attributes) == (100.0, "$100.0", "", ("DUMMY_ATTR",))
    assert catalogue.document(0) == (
        "quillon cork yoga mat a mat of <b>cork</b>. non slip. color: deep purple, red | blue"
    )


def test_fields_without_content_are_empty(folder: Path) -> None:
    for empty in ("", None, []):
        write(
            folder, "items_shuffle_1000.json", [product("B000000000", small_description=empty, full_description=empty)]
        )
        mat = OriginalCatalogue(folder, False, nouns).product(0)
        assert (mat.features, mat.description) == ((), "")


def test_goals(folder: Path) -> None:
    catalogue = OriginalCatalogue(folder, False, nouns)
    assert catalogue.goals == 2
    goals = {goal.asin: goal for goal in map(catalogue.goal, range(2))}
    mat, dear = goals["B000000000"], goals["B000000001"]
    assert (
        mat.instruction == f"i want a 'non slip' mat in deep purple, and price lower than {mat.price_upper:.2f} dollars"
    )
    assert mat.price_upper in (40.0, 50.0, 60.0)
    assert (mat.attributes, mat.options) == (("non slip",), ("deep purple",))
    assert (dear.instruction, dear.price_upper) == ("something easy", 1_000_000.0), "no limit is above its price"
    assert OriginalCatalogue(folder, False, nouns).goal(0) == catalogue.goal(0)


def test_synthetic_goals(folder: Path) -> None:
    catalogue = OriginalCatalogue(folder, True, nouns)
    goals = [catalogue.goal(number) for number in range(catalogue.goals)]
    assert sorted(goal.options for goal in goals) == [(("color", "deep purple"),), (("color", "red | blue"),)]
    assert {goal.instruction.split(", and price")[0] for goal in goals} == {
        "Find me non slip yoga mats with color: deep purple",
        "Find me non slip yoga mats with color: red | blue",
    }


def test_the_order_of_the_goals_is_the_original_s(folder: Path) -> None:
    write(
        folder,
        "items_human_ins.json",
        {
            "B000000000": [
                {"instruction": f"goal {n}", "instruction_attributes": ["a"], "instruction_options": []}
                for n in range(30)
            ]
        },
    )
    expected = [f"goal {n}" for n in range(30)]
    random.seed(233)
    random.shuffle(expected)
    assert OriginalCatalogue(folder, False, nouns).instructions() == expected


def test_the_same_engine(folder: Path) -> None:
    env = make("webshop", data=folder, tagger=nouns, split="all", observation="text_rich")
    catalogue = env.shop.catalogue
    number = next(n for n in range(2) if catalogue.goal(n).options)
    actions = ["search[cork mat]", "click[b000000000]", "click[deep purple]", "click[buy now]"]

    class Follows:
        name = "follows"

        def seed(self, seed: int) -> None:
            pass

        def act(self, histories: Any) -> list[str]:
            return [actions[sum(turn.is_agent for turn in history.turns)] for history in histories]

    (game,) = rollout([env], Follows(), [0], [{"goal": number}])
    assert game.rewards == [0.0, 0.0, 0.0, 1.0]
    env.reset(options={"goal": number})
    for action in ("search[café]", "click[b000000002]", "click[description]"):
        observation = env.step(action)[0]
    assert observation.endswith("[button] < Prev [button_]\n"), "no description"


def test_nouns_are_found_in_what_is_opened_alone(folder: Path) -> None:
    tagged = []

    def tagger(text: str) -> list[str]:
        tagged.append(text)
        return nouns(text)

    env = make("webshop", data=folder, tagger=tagger, split="all")
    env.reset(options={"goal": 0})
    tagged.clear()
    env.step("search[mat]")
    assert len(env.session.listed()) > 1 and tagged == []
    opened = env.session.listed()[-1]
    env.step(f"click[{opened.asin.lower()}]")
    assert set(tagged) <= {opened.title} and env.session.product.nouns == tuple(nouns(opened.title))


def test_a_split_without_goals_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="has 2 goals, none in split 'train'; use split='all'"):
        make("webshop", data=folder, tagger=nouns)


STATES = [
    "Amazon Shopping Game\nInstruction: \ni want a non slip mat in Deep purple, and price lower than 30.00 dollars\n"
    "[button] Search [button_]",
    "results",
    "item",
    "features",
    "item",
    "item, purple",
]
ACTIONS = [
    "search[mat]",
    "click[B000000000]",
    "click[features]",
    "click[< prev]",
    "click[deep purple]",
    "click[buy now]",
]


def lines(folder: Path, *rows: Any) -> Path:
    path = folder / "il_trajs_finalized_images.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_human_trajectories(folder: Path) -> None:
    catalogue = OriginalCatalogue(folder, False, nouns)
    cheap = [STATES[0].replace("30.00", "20.00"), *STATES[1:]]
    away = [
        "search[mat]",
        "click[B000000000]",
        "click[deep purple]",
        "click[< prev]",
        "click[B000000000]",
        "click[buy now]",
    ]
    rows = [
        {"states": STATES, "actions": ACTIONS, "images": [0] * 6},
        {"states": cheap, "actions": ACTIONS},
        {"states": STATES, "actions": away},
        {"states": [*STATES, "thanks"], "actions": ACTIONS},
        {"states": STATES[:3], "actions": ACTIONS[:3]},
    ]
    good, dear, forgot, thanks, stopped = human_trajectories(lines(folder, *rows), catalogue)
    assert [turn.text for turn in good.agent_turns] == ACTIONS
    assert [turn.text for turn in good.turns if not turn.is_agent] == STATES
    assert good.rewards == [0.0] * 5 + [1.0]
    assert good.ended == "terminated"
    goal = next(n for n in range(2) if catalogue.goal(n).options)
    assert good.metadata == {"env": "webshop", "policy": "human", "goal": goal, "success": True}
    assert dear.total_return == pytest.approx(2 / 3), "by the limit that this customer was told"
    assert forgot.total_return == pytest.approx(2 / 3), "going back drops what was chosen"
    assert thanks.turns[-1] == type(thanks.turns[-1])("user", "thanks")
    assert (stopped.ended, stopped.total_return, stopped.metadata["success"]) == ("truncated", 0.0, False)


def test_what_a_catalogue_does_not_hold(folder: Path) -> None:
    catalogue = OriginalCatalogue(folder, False, nouns)
    other_goal = {"states": ["Instruction: \nsomething else\n[button] Search"], "actions": ["search[x]"]}
    other_item = {"states": STATES[:3], "actions": ["search[mat]", "click[B00NOTHERE]", "click[buy now]"]}
    path = lines(folder, {"states": STATES, "actions": ACTIONS}, other_goal, other_item)
    with pytest.raises(DataError, match="line 2: its goal is none of the catalogue's"):
        list(human_trajectories(path, catalogue))
    assert len(list(human_trajectories(path, catalogue, unknown="skip"))) == 1
    with pytest.raises(DataError, match="line 1: what was bought is not in the catalogue"):
        list(human_trajectories(lines(folder, other_item), catalogue))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 1: not JSON"),
        ({"actions": ACTIONS}, "line 1: field 'states' is missing"),
        ([], "line 1: field 'states' is missing"),
        ({"states": STATES, "actions": []}, "line 1: 6 states for 0 actions"),
        ({"states": STATES[:2], "actions": ACTIONS}, "line 1: 2 states for 6 actions"),
        ({"states": [*STATES[:-1], None], "actions": ACTIONS}, "line 1: field 'states': None is no text"),
        ({"states": STATES, "actions": [*ACTIONS[:-1], 5]}, "line 1: field 'actions': 5 is no text"),
        ("[" * 100_000, "line 1: not JSON"),
        ({"states": [STATES[0].replace("30.00", "."), *STATES[1:]], "actions": ACTIONS}, None),
    ],
)
def test_bad_lines(folder: Path, row: Any, message: str | None) -> None:
    if message is None:  # no limit that could be read is none
        (episode,) = human_trajectories(lines(folder, "", row, " "), OriginalCatalogue(folder, False, nouns))
        assert episode.total_return == 1.0
        return
    with pytest.raises(DataError, match=message) as caught:
        list(human_trajectories(lines(folder, row), OriginalCatalogue(folder, False, nouns)))
    assert "\n" not in str(caught.value)


def test_files_of_trajectories_that_cannot_be_read(folder: Path) -> None:
    catalogue = OriginalCatalogue(folder, False, nouns)
    (folder / "latin.jsonl").write_bytes(b'{"states": ["\xe9"]}\n')
    for name, message in (
        ("none.jsonl", r"none\.jsonl: cannot be read \(No such file or directory\); give the original's il_trajs"),
        ("", r"cannot be read \(Is a directory\)"),
        ("latin.jsonl", r"latin\.jsonl: after line 0: not UTF-8"),
    ):
        with pytest.raises(DataError, match=message):
            list(human_trajectories(folder / name, catalogue))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("items_shuffle_1000.json", {}, "must be a JSON list"),
        ("items_shuffle_1000.json", [{"name": "x"}], "product 0: field 'asin' is missing"),
        ("items_shuffle_1000.json", [product("B000000000", name=None)], "product B000000000: field 'name'"),
        ("items_shuffle_1000.json", [product("B000000000", pricing="cheap")], "pricing 'cheap' holds no price"),
        (
            "items_shuffle_1000.json",
            [product("B000000000", customization_options={"a": [{}]})],
            "option a: field 'value'",
        ),
        ("items_shuffle_1000.json", [], "holds no product"),
        ("items_shuffle_1000.json", [product("B000000000", full_description=5)], "field 'full_description'"),
        ("items_shuffle_1000.json", [product("B000000000", small_description=5)], "field 'small_description'"),
        ("items_shuffle_1000.json", [product("B000000000", customization_options="x")], "'x' is no object"),
        ("items_shuffle_1000.json", [product("B000000000", customization_options={"a": 3})], "option a: 3 is no list"),
        ("items_ins_v2_1000.json", {"B000000000": {"attributes": 3}}, "B000000000: field 'attributes'"),
        ("reviews.json", [{"average_rating": 3}], "row 0: field 'asin' is missing"),
        (
            "reviews.json",
            [{"asin": "B000000000", "reviews": ["good"]}],
            r"reviews\.json: B000000000: review 0: 'good' is no object",
        ),
        (
            "reviews.json",
            [{"asin": "B000000000", "reviews": [{"score": [5]}]}],
            r"B000000000: review 0: score \[5\] is neither number nor text",
        ),
        ("reviews.json", [{"asin": "B000000000", "reviews": [{"title": 5}]}], "review 0: field 'title' is missing or"),
        ("items_ins_v2_1000.json", {"B000000000": None}, r"items_ins_v2_1000\.json: B000000000: None is no object"),
        ("items_ins_v2_1000.json", {"B000000000": {"attributes": [5]}}, "B000000000: field 'attributes': 5 is no text"),
        (
            "items_shuffle_1000.json",
            [product("B000000000", small_description=[5])],
            "'small_description': 5 is no text",
        ),
        ("items_human_ins.json", {"B000000000": None}, r"items_human_ins\.json: B000000000: None is no list"),
        ("items_human_ins.json", {}, r"items_human_ins\.json: holds no goal for the products of .*items_shuffle_1000"),
        (
            "items_human_ins.json",
            {"B000000000": [{"instruction_attributes": [None]}]},
            r"items_human_ins\.json: goal for B000000000: field 'instruction_attributes': None is no text",
        ),
        (
            "items_human_ins.json",
            {"B000000000": [{"instruction": "x", "instruction_attributes": ["a"], "instruction_options": [5]}]},
            "goal for B000000000: field 'instruction_options': 5 is no text",
        ),
        ("items_ins_v2_1000.json", [], "must be a JSON object"),
        ("items_human_ins.json", {"B000000000": [{}]}, "goal for B000000000: field 'instruction_attributes'"),
    ],
)
def test_bad_files(folder: Path, name: str, content: Any, message: str) -> None:
    write(folder, name, content)
    with pytest.raises(DataError, match=message):
        OriginalCatalogue(folder, False, nouns).product(0)


def test_missing_and_torn_files(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(DataError, match=r"there is no items_shuffle\.json or items_shuffle_1000\.json"):
        OriginalCatalogue(tmp_path_factory.mktemp("empty"), False, nouns)
    (folder / "items_human_ins.json").write_text('{"a": ')
    with pytest.raises(DataError, match=r"items_human_ins\.json: cannot be read as JSON"):
        OriginalCatalogue(folder, False, nouns)


def test_a_tagger_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="need spaCy's model 'no_such_model'"):
        spacy_nouns("no_such_model")("a mat")
