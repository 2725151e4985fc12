"""The tokenised dataset: content, cache, memory, and what is computed over it."""

from __future__ import annotations

import json
import os
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

import qsft.data.dataset as dataset_module
import qsft.data.segment_ids as segment_ids
import qsft.data.summary as summary_module
from qsft.data import (
    TrajectoryTokenizer,
    agent_token_ids,
    check_dummy_token,
    filter_top,
    load_trajectories,
    summarise,
    tokenize_file,
    write_trajectories,
)
from qsft.errors import ConfigError, DataError
from tests.data.families import byte_bpe, chat, episode
from tests.data.test_files import disk_of
from tests.models import tiny


def games(count, seed=0):
    """Short games that differ from each other."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        turns = [("user", "Wordle:\n")]
        for _ in range(random.integers(1, 7)):
            guess, colours = random.integers(97, 123, 5), random.choice(list("gyb"), 5)
            turns += [("assistant", " ".join(map(chr, guess)) + "\n", -1.0), ("user", " ".join(colours) + "\n")]
        yield episode(*turns, ended=str(random.choice(["terminated", "truncated"])))


@pytest.fixture(scope="module")
def tokenized():
    return TrajectoryTokenizer(byte_bpe(["<pad>", "<eos>"], None, "<eos>"))


def row(tokenized, game, number):
    """What the file holds of a trajectory."""
    return {**tokenized(game), "episode": number, "episode_return": game.total_return}


@pytest.mark.parametrize("name", ["games.jsonl", "games.parquet"])
def test_a_file_becomes_its_rows(tmp_path, tokenized, name):
    write_trajectories(tmp_path / name, games(1234))
    dataset = tokenize_file(tmp_path / name, tokenized, tmp_path / "cache")
    assert len(dataset) == 1234
    assert dataset["episode"][:] == list(range(1234))
    for i, game in enumerate(games(1234)):
        if i % 61 == 0 or i > 1230:
            assert dataset[i] == row(tokenized, game, i)


def test_chat_and_truncation(tmp_path):
    chatting = TrajectoryTokenizer(chat("llama3"), max_length=60)
    dataset = tokenize_file(games(40), chatting, tmp_path)
    assert [dataset[i] for i in range(40)] == [row(chatting, game, i) for i, game in enumerate(games(40))]
    assert max(map(len, dataset["input_ids"])) <= 60
    assert min(map(len, dataset["turn_rewards"])) >= 1


def test_a_second_run_reads_the_first_ones_file(tmp_path, tokenized, monkeypatch):
    path = tmp_path / "games.jsonl"
    write_trajectories(path, games(20))
    first = tokenize_file(path, tokenized, tmp_path / "cache")
    os.rename(path, tmp_path / "moved.jsonl")
    with monkeypatch.context() as context:
        context.setattr(TrajectoryTokenizer, "batch", lambda *_: pytest.fail("tokenised again"))
        again = tokenize_file(tmp_path / "moved.jsonl", tokenized, tmp_path / "cache")
    assert again[:] == first[:]
    assert len(os.listdir(tmp_path / "cache")) == 1


@pytest.mark.parametrize("change", ["content", "settings", "layout"])
def test_the_cache_is_used_for_the_same_rows_only(tmp_path, tokenized, monkeypatch, change):
    path = tmp_path / "games.jsonl"
    write_trajectories(path, games(20))
    first = tokenize_file(path, tokenized, tmp_path / "cache")
    other = tokenized
    if change == "content":
        write_trajectories(path, games(20, seed=1))
    elif change == "settings":
        other = TrajectoryTokenizer(tokenized.tokenizer, max_length=30)
    else:
        monkeypatch.setattr(dataset_module, "LAYOUT", 999)
    second = tokenize_file(path, other, tmp_path / "cache")
    assert len(os.listdir(tmp_path / "cache")) == 2
    assert (second[:] == first[:]) == (change == "layout")


def test_trajectories_in_memory(tmp_path, tokenized):
    dataset = tokenize_file(games(20), tokenized, tmp_path)
    assert [dataset[i] for i in range(20)] == [row(tokenized, game, i) for i, game in enumerate(games(20))]
    tokenize_file(games(20), tokenized, tmp_path)
    assert len(os.listdir(tmp_path)) == 1
    with pytest.raises(DataError, match="no trajectory to tokenise; give at least one"):
        tokenize_file([], tokenized, tmp_path)


def test_a_bad_row_leaves_no_file(tmp_path, tokenized):
    path = tmp_path / "games.jsonl"
    write_trajectories(path, [*games(700), episode(("user", "u"), ("assistant", "a\nb\n"))])
    with pytest.raises(DataError) as caught:
        tokenize_file(path, tokenized, tmp_path / "cache")
    assert str(caught.value).startswith(f"{path}: row 701: the agent's text 'a\\nb' holds the end of turn")
    assert os.listdir(tmp_path / "cache") == []
    row = {"messages": [{"role": "user", "content": "u"}], "rewards": []}
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match="row 1: field messages: no message has role assistant"):
        tokenize_file(path, tokenized, tmp_path / "cache")


def test_a_full_disk_leaves_no_file(tmp_path, tokenized):
    path = tmp_path / "games.jsonl"
    write_trajectories(path, games(5000))
    with disk_of(1_000_000), pytest.raises(DataError, match=r"tokens-.*\.arrow: cannot be written .File too large."):
        tokenize_file(path, tokenized, tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == []


def test_a_cache_that_cannot_be_made(tmp_path, tokenized):
    (tmp_path / "cache").touch()
    with pytest.raises(DataError, match=r"cache: cannot be made .File exists.; choose another cache_dir"):
        tokenize_file(games(1), tokenized, tmp_path / "cache")


def peak(function):
    """Python's and Arrow's bytes at their highest during a call, above what was there before."""
    pool = pa.default_memory_pool()
    tracemalloc.start()
    before = pool.max_memory()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] + pool.max_memory() - before
    finally:
        tracemalloc.stop()


def test_memory_stays_flat(tmp_path, tokenized, monkeypatch):
    monkeypatch.setattr(segment_ids, "_CACHE_SIZE", 50_000)
    monkeypatch.setattr(dataset_module, "_ROWS_A_BATCH", 100)
    monkeypatch.setattr(summary_module, "_ROWS_A_BATCH", 100)
    monkeypatch.setattr("qsft.data.progress.PATIENCE", float("inf"))  # a bar loads modules of several megabytes
    small, large = tmp_path / "small.jsonl", tmp_path / "large.jsonl"
    write_trajectories(small, games(700))
    tokenize_file(small, tokenized, tmp_path / "warm")
    few = peak(lambda: tokenize_file(small, tokenized, tmp_path / "cache"))
    limit = 1.25 * few + 200_000
    assert peak(lambda: write_trajectories(large, games(2800, seed=1))) < limit
    assert peak(lambda: tokenize_file(large, tokenized, tmp_path / "cache")) < limit
    assert peak(lambda: summarise(large)) < limit
    # What is measured here does see rows that are held.
    assert peak(lambda: list(load_trajectories(large))) > 1.5 * limit


def test_texts_without_tokens_are_told(tmp_path, caplog):
    tokenized = TrajectoryTokenizer(tiny.tokenizer())
    known = episode(("user", "a b\n"), ("assistant", "c\n", 1.0))
    lost = episode(("user", "a Ä\n"), ("assistant", "c\n", 1.0))
    for name, games, told in (("known", [known], []), ("lost", [known, lost], ["12%"])):
        write_trajectories(tmp_path / f"{name}.jsonl", games)
        caplog.clear()
        with caplog.at_level("WARNING", logger="qsft"):
            tokenize_file(tmp_path / f"{name}.jsonl", tokenized, tmp_path / "cache")
        found = [record.getMessage() for record in caplog.records if record.name == "qsft"]
        assert len(found) == len(told)
        assert all(
            f"{name}.jsonl: the tokenizer has no token for {share}" in text
            for text, share in zip(found, told, strict=True)
        )


def test_agent_tokens_and_the_dummy(tmp_path, tokenized):
    tokenizer = tokenized.tokenizer
    dataset = tokenize_file(
        [episode(("user", "z\n"), ("assistant", "a b\n")), episode(("user", "q\n"), ("assistant", "c\n"))],
        tokenized,
        tmp_path,
    )
    wanted = {*tokenizer.encode("a b\n"), *tokenizer.encode("c\n")}
    assert agent_token_ids(dataset).tolist() == sorted(wanted)
    for text in ("z", "q"):
        check_dummy_token(dataset, tokenizer.encode(text)[0])
    check_dummy_token(dataset, tokenizer.pad_token_id or 0)
    with pytest.raises(
        DataError, match=r"f: row 2: the agent produces token .*; choose an id that the agent never produces"
    ):
        check_dummy_token(dataset, tokenizer.encode("c")[0], "f")
    assert agent_token_ids(dataset.select([1])).tolist() == sorted(tokenizer.encode("c\n"))


def test_filter_top(tmp_path, tokenized):
    def game(*rewards):
        return episode(*(turn for reward in rewards for turn in (("user", "u\n"), ("assistant", "a\n", reward))))

    dataset = tokenize_file([game(1, 1), game(5), game(-3, 9), game(0), game(2), game(2, 0)], tokenized, tmp_path)
    assert filter_top(dataset, 1 / 3)["episode"][:] == [1, 2]
    assert filter_top(dataset, 1.0)["episode"][:] == [0, 1, 2, 3, 4, 5]
    assert filter_top(dataset, 1e-9)["episode"][:] == [2]
    tied = [tuple(filter_top(dataset, 0.5, seed)["episode"]) for seed in range(40)]
    assert set(tied) == {(0, 1, 2), (1, 2, 4), (1, 2, 5)}
    assert tied == [tuple(filter_top(dataset, 0.5, seed)["episode"]) for seed in range(40)]
    assert filter_top(dataset.select([3, 4, 0]), 0.34)["episode"][:] in ([4], [0])
    short = TrajectoryTokenizer(tokenized.tokenizer, max_length=5)
    long = tokenize_file([game(4, 0, 0), game(0, 0, 1), game(0, 2)], short, tmp_path)
    assert [sum(rewards) for rewards in long["turn_rewards"]] == [0, 1, 2], "what is left of them"
    assert filter_top(long, 1 / 3)["episode"][:] == [0], "the return of a whole episode counts"
    for share in (0.0, 1.5, -1.0):
        with pytest.raises(ConfigError, match="give a number above 0 and at most 1"):
            filter_top(dataset, share)
