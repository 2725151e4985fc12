"""With ``max_exchanges`` a turn of the agent sees the newest exchanges alone, in training as in play."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsft.data import Trajectory, TrajectoryTokenizer, Turn, tokenize_file, write_trajectories
from qsft.data.batch import TrajectoryCollator
from qsft.data.exchanges import exchange_starts, newest_exchanges
from qsft.data.return_tokens import add_return_tokens
from qsft.errors import ConfigError, DataError
from tests.data.families import FAMILIES, byte_bpe, chat, episode
from tests.data.test_properties import played
from tests.models import tiny
from tests.vision import families

ROLES = ["system", "system", "user", "user", "assistant", "assistant", "tool", "assistant", "user"]


def test_exchanges():
    turns = [Turn(role, str(i)) for i, role in enumerate(ROLES)]
    assert exchange_starts(turns) == [2, 6, 8]
    kept = {count: [turn.text for turn in newest_exchanges(turns, count)] for count in (1, 2, 3, 4, None)}
    assert kept[1] == ["0", "1", "8"]
    assert kept[2] == ["0", "1", "6", "7", "8"]
    assert kept[3] == kept[4] == kept[None] == [turn.text for turn in turns]
    assert newest_exchanges([Turn("assistant", "a")], 1) == [Turn("assistant", "a")]


def shown(turns, count):
    """The turns up to one of them that are read there, in plain loops."""
    kept, exchanges = [], 1
    for turn, following in zip(reversed(turns), [None, *reversed(turns)], strict=False):
        if following is not None and turn.is_agent and not following.is_agent:
            exchanges += 1
        if exchanges <= count or turn.role == "system":
            kept.append(turn)
    return kept[::-1]


def make(name, **limits):
    if name == "text":
        return TrajectoryTokenizer(byte_bpe(["<bos>", "<eos>"], "<bos>", "<eos>"), **limits)
    return TrajectoryTokenizer(chat(name), **limits)


@pytest.mark.parametrize("name", ["text", "chatml", "llama3"])
@pytest.mark.parametrize("count", [1, 2])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_each_context_is_the_row_of_its_turns_alone(name, count, data):
    """And the prompt of the history is what precedes the turn in its context, whatever came long before."""
    game = data.draw(played(newlines=name == "text", tools=name != "text" and FAMILIES[name][5]))
    cut, plain = make(name, max_exchanges=count), make(name)
    row = cut(game)
    assert sum(row["contexts"]) == len(row["input_ids"]) == len(row["agent_mask"]) == len(row["turn_end"])
    assert row["turn_rewards"] == game.rewards
    ends = np.cumsum(row["contexts"])
    contexts = np.split(np.array(row["input_ids"]), ends[:-1])
    masks = np.split(np.array(row["agent_mask"]), ends[:-1])
    places = [i for i, turn in enumerate(game.turns) if turn.is_agent]
    open_end = game.ended == "truncated" and not game.turns[-1].is_agent
    assert len(contexts) == len(places) + open_end
    for place, context, mask in zip(places, contexts, masks, strict=False):
        alone = plain(Trajectory(shown(game.turns[: place + 1], count), "terminated"))
        assert context.tolist() == alone["input_ids"]
        history = Trajectory(game.turns[:place])
        reply = len(context) - int(mask.argmax())
        assert mask.tolist() == [0] * (len(mask) - reply) + [1] * reply
        assert cut.prompt(history) == context[:-reply].tolist()
    if open_end:
        assert (
            contexts[-1].tolist()
            == cut.prompt(Trajectory(game.turns))
            == plain.prompt(Trajectory(shown(game.turns, count)))
        )
        assert not masks[-1].any()


GAME = episode(
    ("user", "a b\n"), ("assistant", "c\n", -1.0), ("user", "d d d d\n"), ("assistant", "e\n", -1.0), ("user", "f\n")
)


def test_by_hand():
    tokenizer = TrajectoryTokenizer(tiny.tokenizer(), max_exchanges=1)
    a, b, c, d, e, f = (tiny.tokenizer().convert_tokens_to_ids(letter) for letter in "abcdef")
    bos, end = tiny.tokenizer().bos_token_id, tiny.tokenizer().convert_tokens_to_ids("\n")
    row = tokenizer(Trajectory(GAME.turns, "truncated"))
    assert row["input_ids"] == [bos, a, b, end, c, end, bos, d, d, d, d, end, e, end, bos, f, end]
    assert row["agent_mask"] == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0]
    assert row["contexts"] == [6, 8, 3]
    assert row["turn_rewards"] == [-1.0, -1.0]
    batch = TrajectoryCollator(0)([row, tokenizer(GAME)])
    assert batch["input_ids"].tolist() == [
        [bos, a, b, end, c, end, 0, 0],
        [bos, d, d, d, d, end, e, end],
        [bos, f, end, 0, 0, 0, 0, 0],
        [bos, a, b, end, c, end, 0, 0],
        [bos, d, d, d, d, end, e, end],
    ]
    assert batch["attention_mask"].sum(1).tolist() == [6, 8, 3, 6, 8]
    assert batch["state_rows"].tolist() == [[0, 0, 1, 1, 2], [3, 3, 4, 4, 0]]
    assert batch["state_positions"].tolist() == [[3, 4, 5, 6, 2], [3, 4, 5, 6, 0]]
    assert batch["state_mask"].tolist() == [[True] * 5, [True] * 4 + [False]]
    assert batch["turns"].tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 0]]
    assert batch["returns_to_go"].tolist() == [[-2, -2, -1, -1, 0], [-2, -2, -1, -1, 0]]


def test_return_tokens_stand_in_each_context():
    levels = [-2.0, -1.0, 0.0]
    tokenizer = TrajectoryTokenizer(add_return_tokens(tiny.tokenizer(), levels), return_levels=levels, max_exchanges=2)
    words = tokenizer.tokenizer.convert_ids_to_tokens(tokenizer(GAME)["input_ids"])
    before = [(i, word) for i, word in enumerate(words) if word.startswith("<|return")]
    assert [word for _, word in before] == ["<|return -2|>", "<|return -2|>", "<|return -1|>"]
    prompt = tokenizer.prompt(Trajectory(GAME.turns), target_return=-2.0)
    asked = [word for word in tokenizer.tokenizer.convert_ids_to_tokens(prompt) if word.startswith("<|return")]
    assert asked == ["<|return -1|>", "<|return 0|>"]  # of the second turn and of the one to come


def test_a_context_fits_into_max_length():
    tokenizer = TrajectoryTokenizer(tiny.tokenizer(), max_exchanges=2, max_length=9)
    row = tokenizer(GAME)
    assert row["contexts"] == [6, 8]  # the second alone; both have 13
    assert TrajectoryTokenizer(tiny.tokenizer(), max_exchanges=2, max_length=13)(GAME)["contexts"] == [6, 13]
    with pytest.raises(DataError, match="its last exchange alone has 8 tokens, 7 are allowed; raise max_length"):
        TrajectoryTokenizer(tiny.tokenizer(), max_exchanges=2, max_length=7)(GAME)


def test_a_file_of_them(tmp_path):
    games = tiny.trajectories(12, seed=3)
    write_trajectories(tmp_path / "data.jsonl", games)
    cut = TrajectoryTokenizer(tiny.tokenizer(), max_exchanges=1)
    rows = tokenize_file(tmp_path / "data.jsonl", cut, tmp_path)
    numbered = [{**cut(game), "episode": i, "episode_return": game.total_return} for i, game in enumerate(games)]
    assert list(rows) == numbered
    plain = TrajectoryTokenizer(tiny.tokenizer())
    assert cut.fingerprint() != plain.fingerprint()
    assert "contexts" not in tokenize_file(tmp_path / "data.jsonl", plain, tmp_path).column_names
    again = TrajectoryTokenizer.from_dict(cut.tokenizer, cut.to_dict())
    assert again.max_exchanges == 1 and "max_exchanges" not in plain.to_dict()


def test_images_of_a_context(tmp_path):
    processor = families.processor("llava")
    paths = [families.save(tmp_path, f"{i}.png", i) for i in range(3)]
    turns = [t for i in range(3) for t in (Turn("user", "?\n", images=(paths[i],)), Turn("assistant", "a", 0.0))]
    cut = TrajectoryTokenizer(processor, max_exchanges=2)
    row = cut(Trajectory(turns, "terminated"))
    assert row["images"] == [paths[0], paths[0], paths[1], paths[1], paths[2]]
    assert cut.read(Trajectory(turns[:-1])).images == (paths[1], paths[2])
    batch = TrajectoryCollator(0, images=cut.images)([row])
    assert batch["pixel_values"].shape[0] == 5 and len(batch["input_ids"]) == 3


def test_what_is_refused():
    with pytest.raises(ConfigError, match="max_exchanges: 0; give at least 1"):
        TrajectoryTokenizer(tiny.tokenizer(), max_exchanges=0)
    with pytest.raises(ConfigError, match="max_exchanges: PaliGemmaProcessor tells the agent's part"):
        TrajectoryTokenizer(families.processor("paligemma"), max_exchanges=1)
