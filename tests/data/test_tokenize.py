"""The text format, truncation, settings, and what is refused."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import qsft.data.segment_ids as segment_ids
from qsft.data import Trajectory, TrajectoryTokenizer, Turn
from qsft.data.codec import Codec
from qsft.errors import ConfigError, DataError
from tests.data.families import byte_bpe, chat, episode, sentence_piece

GAME = episode(
    ("user", "Wordle:\n"),
    ("assistant", "c r a n e\n", -1.0),
    ("user", "g y b b b\n"),
    ("assistant", "c a t s\n", 0.0),
    ("user", "g g g g g\n"),
)


@pytest.fixture(scope="module")
def tokenizer():
    return byte_bpe(["<bos>", "<eos>"], "<bos>", "<eos>")


@pytest.fixture(scope="module")
def plain():
    return byte_bpe()


def ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def joined(parts):
    return [item for part in parts for item in part]


def words(vocabulary, **special):
    """One token a line of a game: letters and colours are not split."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "merged_with_previous")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?", **special)


def test_a_game(tokenizer):
    row = TrajectoryTokenizer(tokenizer)(GAME)
    parts = [[0], *(ids(tokenizer, turn.text) for turn in GAME.turns[:4])]
    assert row["input_ids"] == joined(parts)
    assert row["agent_mask"] == joined([int(i in (2, 4))] * len(part) for i, part in enumerate(parts))
    ends = [len(joined(parts[:3])) - 1, len(row["input_ids"]) - 1]
    assert [i for i, end in enumerate(row["turn_end"]) if end] == ends
    assert (row["turn_rewards"], row["terminated"]) == ([-1.0, 0.0], True)


def test_what_follows_the_last_agent_turn(tokenizer):
    """Nothing of it is kept, except the observation that a truncated episode is bootstrapped from."""
    truncated = Trajectory(GAME.turns, "truncated")
    tokenized = TrajectoryTokenizer(tokenizer)
    whole = tokenized(truncated)
    assert whole["input_ids"] == tokenized(GAME)["input_ids"] + ids(tokenizer, "g g g g g\n")
    assert not any(whole["agent_mask"][-5:])
    assert not whole["terminated"]
    cut_after_reply = tokenized(Trajectory(GAME.turns[:4], "truncated"))
    assert cut_after_reply["input_ids"] == tokenized(GAME)["input_ids"]
    assert not cut_after_reply["terminated"]


def test_a_reply_without_newline_ends_with_eos(tokenizer):
    row = TrajectoryTokenizer(tokenizer)(episode(("user", "a"), ("assistant", "cat"), ("user", "b"), ("assistant", "")))
    assert row["input_ids"] == [0, *ids(tokenizer, "a"), *ids(tokenizer, "cat"), 1, *ids(tokenizer, "b"), 1]
    assert row["turn_end"][-1] == row["agent_mask"][-1] == 1


def test_tokens_never_straddle_a_turn(tokenizer):
    """The tokenizer would merge the two halves of " Good" if it saw them together."""
    assert len(ids(tokenizer, "Hello there")) < len(ids(tokenizer, "Hello th")) + len(ids(tokenizer, "ere"))
    row = TrajectoryTokenizer(tokenizer)(episode(("user", "Hello th"), ("assistant", "ere")))
    assert row["input_ids"] == [0, *ids(tokenizer, "Hello th"), *ids(tokenizer, "ere"), 1]


def test_an_end_of_turn_that_the_tokenizer_merges_stays_a_token_of_its_own():
    vocabulary = ["a", "?", "\n", "?\n"]
    merging = Tokenizer(models.BPE({text: i for i, text in enumerate(vocabulary)}, [("?", "\n")]))
    merging.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=merging)
    assert ids(tokenizer, "a?\n") == [0, 3]
    tokenized = TrajectoryTokenizer(tokenizer)
    assert tokenized(episode(("user", "a"), ("assistant", "a?\n")))["input_ids"] == [0, 0, 1, 2]
    assert tokenized.end_of_turn_ids == [2]
    assert tokenized.action_text([0, 1, 2]) == "a?\n"


def test_one_word_one_token():
    tokenizer = words(["?", "Wordle:\n", "c r a n e\n", "s l a t e\n", "b y b b b\n"])
    tokenized = TrajectoryTokenizer(tokenizer, end_of_turn=["c r a n e\n", "s l a t e\n"])
    row = tokenized(
        episode(
            ("user", "Wordle:\n"), ("assistant", "c r a n e\n"), ("user", "b y b b b\n"), ("assistant", "s l a t e\n")
        )
    )
    assert row["input_ids"] == [1, 2, 4, 3]
    assert row["agent_mask"] == row["turn_end"] == [0, 1, 0, 1]
    assert tokenized.end_of_turn_ids == [2, 3]
    assert tokenized.action_text([3, 2]) == "s l a t e\n"
    with pytest.raises(
        DataError, match=r"the agent's text 'w o r d y\\n' does not end with an end of turn .*; end it so"
    ):
        tokenized(episode(("user", "Wordle:\n"), ("assistant", "w o r d y\n")))


def test_a_newline_as_eos_belongs_to_the_text():
    tokenizer = byte_bpe(eos="\n")
    tokenized = TrajectoryTokenizer(tokenizer)
    row = tokenized(episode(("user", "a"), ("assistant", "cat\n")))
    assert row["input_ids"] == ids(tokenizer, "acat\n")
    assert tokenized.action_text(ids(tokenizer, "cat\n")) == "cat\n"
    with pytest.raises(DataError, match="does not end with an end of turn"):
        tokenized(episode(("user", "a"), ("assistant", "cat")))


def test_sentence_piece_gets_no_spaces_between_turns():
    tokenizer = sentence_piece()
    tokenized = TrajectoryTokenizer(tokenizer)
    replies = ["Hello\n", " Hello\n", "c r\n", "é😀\n", "Hell"]
    turns = [part for reply in replies for part in (("user", "Good\n"), ("assistant", reply))]
    row = tokenized(episode(*turns))
    assert tokenizer.decode(row["input_ids"][1:]) == "".join(text for _, text in turns) + "</s>"
    starts = [i for i, mask in enumerate(row["agent_mask"]) if mask and not row["agent_mask"][i - 1]]
    assert [tokenized.action_text(row["input_ids"][start:]) for start in starts] == replies


@pytest.mark.parametrize(("ended", "padding"), [("\n", []), ("\n", [5, 1, 0]), ("<eos>", [0, 0])])
def test_action_text(tokenizer, ended, padding):
    text = "c r a n e" + ended
    assert TrajectoryTokenizer(tokenizer).action_text([*ids(tokenizer, text), *padding]) == text.removesuffix("<eos>")


def test_action_text_of_a_reply_that_was_cut_off(tokenizer):
    assert TrajectoryTokenizer(tokenizer).action_text(ids(tokenizer, "c r")) == "c r\n"
    assert TrajectoryTokenizer(tokenizer, end_of_turn="<eos>").action_text(ids(tokenizer, "c r")) == "c r"
    assert TrajectoryTokenizer(chat("chatml")).action_text(ids(tokenizer, "")) == ""


def test_truncation_drops_whole_exchanges_and_keeps_the_system_turn(plain):
    game = episode(
        ("system", "rules"),
        ("user", "one"),
        ("assistant", "a\n"),
        ("user", "two"),
        ("user", "too"),
        ("assistant", "b\n"),
        ("assistant", "c\n"),
        ("user", "three"),
        ("assistant", "d\n"),
    )
    sizes = [len(ids(plain, turn.text)) for turn in game.turns]
    whole = sum(sizes)
    for kept, limit in ((9, whole), (6 + 1, whole - 1), (7, whole - sum(sizes[1:3])), (3, whole - sum(sizes[1:3]) - 1)):
        tokenized = TrajectoryTokenizer(plain, max_length=limit)
        row = tokenized(game)
        turns = [game.turns[0], *game.turns[len(game.turns) - kept + 1 :]]
        assert row["input_ids"] == ids(plain, "rules") + joined(ids(plain, turn.text) for turn in turns[1:])
        assert row["turn_rewards"] == [turn.reward for turn in turns if turn.is_agent]
        assert tokenized.prompt(Trajectory(game.turns[:-1]), reply_tokens=2) == row["input_ids"][:-2]
    least = sizes[0] + sizes[7] + sizes[8]
    TrajectoryTokenizer(plain, max_length=least)(game)
    with pytest.raises(
        DataError, match=f"its last exchange alone has {least} tokens, {least - 1} are allowed; raise max"
    ):
        TrajectoryTokenizer(plain, max_length=least - 1)(game)


def test_truncation_never_leaves_a_row_without_an_agent_turn(plain):
    game = episode(("user", "one"), ("assistant", "a\n"), ("user", "t" * 30), ended="truncated")
    with pytest.raises(DataError, match="its last exchange alone has"):
        TrajectoryTokenizer(plain, max_length=32)(game)


def test_a_prompt_leaves_the_room_that_there_is(plain):
    """The newest exchange stays where it leaves room for a token, though the longest reply would not fit behind it."""
    tokenized = TrajectoryTokenizer(plain, max_length=4)
    past = [Turn("user", "a"), Turn("assistant", "b\n")]
    for room in (1, 2, 9):
        assert tokenized.prompt(Trajectory([Turn("user", "xyz")]), reply_tokens=room) == ids(plain, "xyz")
        assert tokenized.prompt(Trajectory([*past, Turn("user", "xyz")]), reply_tokens=room) == ids(plain, "xyz")
    with pytest.raises(DataError, match="its last exchange alone has 4 tokens, 3 are allowed"):
        tokenized.prompt(Trajectory([Turn("user", "wxyz")]), reply_tokens=2)


@pytest.mark.parametrize(
    ("trajectory", "says"),
    [
        (Trajectory(GAME.turns, None), "the episode has not ended; set ended"),
        (Trajectory(GAME.turns[:1], "terminated"), "the agent has no turn; drop the episode"),
        (
            Trajectory([*GAME.turns, Turn("assistant", "a\n")], "terminated"),
            "turn 6: its reward is not known; give one",
        ),
        (Trajectory([Turn("user", "a", None, ("a.png",)), *GAME.turns], "terminated"), "turn 1: has images, and"),
        (episode(("assistant", "a\n")), "nothing stands before the agent's first token; begin with"),
        (episode(("user", ""), ("assistant", "a\n")), "nothing stands before the agent's first token; begin with"),
        (
            episode(("user", "u"), ("assistant", "a\nb\n")),
            r"the agent's text 'a\nb' holds the end of turn '\n' before",
        ),
        (
            episode(("user", "u"), ("assistant", "a")),
            r"the agent's text 'a' does not end with an end of turn ('\n'); end",
        ),
    ],
)
def test_trajectories_that_are_refused(plain, trajectory, says):
    tokenized = TrajectoryTokenizer(plain)
    with pytest.raises(DataError) as caught:
        tokenized.batch([GAME, trajectory, GAME], "file: row {}".format)
    assert str(caught.value).startswith("file: row 1: " + says)
    assert "\n" not in str(caught.value)


def test_bos_lets_the_agent_speak_first(tokenizer, plain):
    row = TrajectoryTokenizer(tokenizer)(episode(("assistant", "a\n")))
    assert (row["input_ids"][0], row["agent_mask"][0]) == (0, 0)
    assert TrajectoryTokenizer(tokenizer).prompt(Trajectory([])) == [0]
    with pytest.raises(DataError, match="nothing stands before the agent's first token"):
        TrajectoryTokenizer(tokenizer, bos=False)(episode(("assistant", "a\n")))
    with pytest.raises(DataError, match="the history is empty"):
        TrajectoryTokenizer(plain).prompt(Trajectory([]))


def test_texts_the_tokenizer_has_no_tokens_for():
    tokenizer = words(["?", "a\n", "\n", "b"])
    tokenized = TrajectoryTokenizer(tokenizer)
    tokenized(episode(("user", "a\nnever seen\n"), ("assistant", "b\n")))
    with pytest.raises(DataError, match=r"the tokenizer has no tokens for the agent's text 'c'; use one that has"):
        tokenized(episode(("user", "a\n"), ("assistant", "c\n")))


def test_a_tokenizer_that_loses_what_the_agent_says():
    letters = Tokenizer(models.BPE({text: i for i, text in enumerate("abc\n ")}, []))
    game = episode(("user", "a"), ("assistant", "a b\n"))
    with pytest.raises(
        DataError, match="makes 'a   b' of the agent's text 'a b', which no policy could then say; give"
    ):
        TrajectoryTokenizer(PreTrainedTokenizerFast(tokenizer_object=letters))(game)
    letters.decoder = decoders.Fuse()
    TrajectoryTokenizer(PreTrainedTokenizerFast(tokenizer_object=letters))(game)


def test_in_play_an_odd_reply_does_not_end_the_episode(plain):
    said = Trajectory([Turn("user", "a\n"), Turn("assistant", "b\nb\n"), Turn("user", "c\n")])
    tokenized = TrajectoryTokenizer(plain)
    assert tokenized.prompt(said) == ids(plain, "a\nb\nb\nc\n")
    with pytest.raises(DataError, match="before its end"):
        tokenized(Trajectory([*said.turns[:1], Turn("assistant", "b\nb\n", 1.0)], "terminated"))
    assert tokenized.prompt(said) == ids(plain, "a\nb\nb\nc\n")
    with pytest.raises(DataError, match="does not end with an end of turn"):
        tokenized.prompt(Trajectory([Turn("user", "a\n"), Turn("assistant", "b")]))


def test_unicode_normal_forms_are_no_loss():
    tokenizer = byte_bpe()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    row = TrajectoryTokenizer(tokenizer)(episode(("user", "a"), ("assistant", "e\u0301\n")))
    assert tokenizer.decode(row["input_ids"]) == "a\u00e9\n"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: TrajectoryTokenizer(words(["?", "a"])),
            "the tokenizer has no usable end of turn .*; set its eos_token",
        ),
        (lambda: TrajectoryTokenizer(byte_bpe(), end_of_turn="<eos>"), "end_of_turn: '<eos>' is not one token"),
        (lambda: TrajectoryTokenizer(byte_bpe(), end_of_turn=["\n", ""]), "end_of_turn: '' is not one token"),
        (lambda: TrajectoryTokenizer(byte_bpe(), bos=True), "bos: the tokenizer has no bos token; set one"),
        (lambda: TrajectoryTokenizer(byte_bpe(), format="chat"), "format chat: the tokenizer has no chat template"),
        (lambda: TrajectoryTokenizer(byte_bpe(), format="wordle"), "format: 'wordle'; use one of auto, chat, text"),
        (lambda: TrajectoryTokenizer(byte_bpe(), max_length=1), "max_length: 1; give at least 2 tokens"),
        (lambda: TrajectoryTokenizer(chat("llama3"), bos=True), "bos: the chat template decides this"),
        (lambda: TrajectoryTokenizer.from_dict(byte_bpe(), {"fromat": "text"}), "unknown fromat; remove"),
    ],
)
def test_settings_that_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: TrajectoryTokenizer(byte_bpe(["<bos>", "<eos>"], "<bos>", "<eos>"), max_length=30),
        lambda: TrajectoryTokenizer(byte_bpe(["<bos>", "<eos>"], "<bos>", "<eos>"), end_of_turn="\n", bos=False),
        lambda: TrajectoryTokenizer(chat("llama3")),
        lambda: TrajectoryTokenizer(chat("llama3"), format="text"),
    ],
)
def test_settings_survive_a_run_directory(make):
    made = make()
    again = TrajectoryTokenizer.from_dict(made.tokenizer, json.loads(json.dumps(made.to_dict())))
    assert again.to_dict() == made.to_dict()
    assert again(GAME) == made(GAME)
    assert again.fingerprint() == made.fingerprint()


def test_the_fingerprint_sees_all_that_decides_the_ids():
    def make(extra="<x>", template=None, **settings):
        return TrajectoryTokenizer(byte_bpe(["<bos>", "<eos>", extra], "<bos>", "<eos>", template), **settings)

    template = chat("chatml").chat_template.replace("<|im_start|>", "<bos>").replace("<|im_end|>", "<eos>")
    prints = [
        tokenized.fingerprint()
        for tokenized in (
            make(),
            make("<y>"),
            make(max_length=9),
            make(bos=False),
            make(end_of_turn="\n"),
            make(template=template),
            make(template=template + " "),
        )
    ]
    assert len(set(prints)) == len(prints)
    used = make()
    used.tokenizer("a", truncation=True, max_length=3)
    assert used.fingerprint() == prints[0]


def test_a_batch_is_its_rows(tokenizer):
    tokenized = TrajectoryTokenizer(tokenizer, max_length=18)
    games = [GAME, Trajectory(GAME.turns, "truncated"), episode(("user", "a"), ("assistant", "b")), GAME]
    columns = tokenized.batch(games)
    at = turns = 0
    for i, game in enumerate(games):
        row = TrajectoryTokenizer(tokenizer, max_length=18)(game)
        length, count = columns.lengths[i], columns.turn_counts[i]
        for name in ("input_ids", "agent_mask", "turn_end"):
            assert getattr(columns, name)[at : at + length].tolist() == row[name]
        assert columns.turn_rewards[turns : turns + count].tolist() == row["turn_rewards"]
        assert columns.terminated[i] == row["terminated"]
        at, turns = at + length, turns + count
    assert at == len(columns.input_ids)


def test_a_full_cache_changes_nothing(tokenizer, monkeypatch):
    games = [episode(("user", f"game {i}" * 3), ("assistant", f"{i} is it\n")) for i in range(20)]
    games += [episode(("user", "long " * 300), ("assistant", "c r a n e\n")), *games[:3]]
    wanted = [TrajectoryTokenizer(tokenizer)(game) for game in games]
    monkeypatch.setattr(segment_ids, "_CACHE_SIZE", 100)
    tokenized = TrajectoryTokenizer(tokenizer)
    assert [tokenized(game) for game in games] == wanted
    tokenized(GAME)
    assert tokenized._ids._size < 500


def test_a_text_that_would_merge_with_what_it_follows_is_encoded_alone():
    merging = Tokenizer(models.BPE({text: i for i, text in enumerate(["x", "y", "z", "xy"])}, [("x", "y")]))
    merging.decoder = decoders.Fuse()
    codec = Codec(PreTrainedTokenizerFast(tokenizer_object=merging))
    assert codec.encode(["y", "z", ""], after="x") == [[1], [2], []]
    assert codec.encode([], after="x") == []
    assert (codec.single("y", after="x"), codec.single("yz"), codec.single("")) == (1, None, None)
    assert codec.decode([1, 2], after="x") == "yz"
