"""Properties that hold for every trajectory: round trips, masks, prompts, truncation, collation."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsft.data import (
    NO_ACTION,
    Trajectory,
    TrajectoryCollator,
    TrajectoryTokenizer,
    Turn,
    append_trajectories,
    load_trajectories,
    returns_to_go,
    trajectory_from_row,
    trajectory_to_row,
    write_trajectories,
)
from qsft.errors import DataError
from tests.data.families import FAMILIES, byte_bpe, chat, sentence_piece

texts = st.text(max_size=12)
#: what can name a file; addresses are refused
paths = texts.filter(lambda text: "\0" not in text and ":" not in text)
rewards = st.floats(-100, 100)
endings = st.sampled_from(["terminated", "truncated"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def stored(draw):
    """Anything that a file may hold."""
    roles = draw(st.lists(st.sampled_from(["system", "user", "tool", "assistant"]), min_size=1, max_size=8))
    if "assistant" not in roles:
        roles.append("assistant")
    turns = [
        Turn(
            role,
            draw(texts),
            draw(st.floats(-3e38, 3e38)) if role == "assistant" else None,
            tuple(draw(st.lists(paths, max_size=2))),
        )
        for role in roles
    ]
    return Trajectory(turns, draw(endings), draw(st.dictionaries(texts, json_values, max_size=3)))


@st.composite
def played(draw, system=True, tools=True, newlines=False, alternating=False):
    """What a format can tokenise: starts with the environment, and the agent ends its turn once."""
    turns = [Turn("system", "s" + draw(texts))] if system and draw(st.booleans()) else []
    for exchange in range(draw(st.integers(1, 5))):
        extra = 1 if alternating else draw(st.integers(1, 2))
        role = "tool" if tools and exchange and draw(st.booleans()) else "user"
        turns += [Turn(role, "u" + draw(texts)) for _ in range(extra)]
        reply = draw(texts)
        if newlines:
            reply = reply.replace("\n", "") + draw(st.sampled_from(["", "\n"]))
        turns.append(Turn("assistant", reply, draw(rewards)))
    ended = draw(endings)
    if draw(st.booleans()):
        turns.append(Turn("user", "u" + draw(texts)))
    return Trajectory(turns, ended)


@functools.cache
def tokenized(name, max_length=None):
    if name == "text":
        return TrajectoryTokenizer(byte_bpe(["<eos>"], None, "<eos>"), max_length=max_length)
    if name == "sentence piece":
        return TrajectoryTokenizer(sentence_piece(), max_length=max_length)
    return TrajectoryTokenizer(chat(name), max_length=max_length)


def playable(name):
    if name in ("text", "sentence piece"):
        return played(newlines=True)
    return played(tools=FAMILIES[name][5], alternating=name in ("mistral", "gemma"))


NAMES = ["text", "sentence piece", *(name for name in FAMILIES if name != "thinking")]


@given(stored())
def test_rows(trajectory):
    assert trajectory_from_row(trajectory_to_row(trajectory)) == trajectory


@pytest.mark.parametrize("name", ["f.jsonl", "f.parquet"])
@settings(max_examples=100, deadline=None)
@given(st.lists(stored(), min_size=1, max_size=3))
def test_files(tmp_path_factory, name, trajectories):
    path = tmp_path_factory.getbasetemp() / name
    write_trajectories(path, trajectories)
    assert list(load_trajectories(path)) == trajectories
    if name.endswith("jsonl"):
        append_trajectories(path, trajectories[:1])
        assert list(load_trajectories(path)) == [*trajectories, trajectories[0]]


def said_by(name, text):
    """What the model has to write for an agent's text: the text, and what the format puts around it."""
    if name in ("text", "sentence piece"):
        return text if text.endswith("\n") else text + ("<eos>" if name == "text" else "</s>")
    before = {"mistral": " ", "keeping": "<think>\n\n</think>\n\n"}.get(name, "")
    return before + (text.strip() if name in ("llama3", "gemma") else text) + FAMILIES[name][4]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_masks_cover_exactly_what_the_agent_said(name, data):
    trajectory = data.draw(playable(name))
    tokenizer = tokenized(name)
    row = tokenizer(trajectory)
    spans, current = [], []
    for token, mask, end in zip(row["input_ids"], row["agent_mask"], row["turn_end"], strict=True):
        assert mask >= end
        if mask:
            current.append(token)
        if end:
            spans.append(current)
            current = []
    assert not current
    replies = [turn.text for turn in trajectory.agent_turns]
    if name == "sentence piece":  # It decodes without its first space; action_text knows about this.
        decoded = [tokenizer._codec.decode(span, "\n") for span in spans]
    else:
        decoded = [tokenizer.tokenizer.decode(span) for span in spans]
    assert decoded == [said_by(name, text) for text in replies]
    expected = [text.strip() if name in ("llama3", "gemma") else text for text in replies]
    assert [tokenizer.action_text(span) for span in spans] == expected
    assert row["turn_rewards"] == trajectory.rewards
    assert row["terminated"] == (trajectory.ended == "terminated")
    assert not row["agent_mask"][0]
    if trajectory.ended == "terminated" or trajectory.turns[-1].is_agent:
        assert row["turn_end"][-1]
    else:
        assert row["input_ids"] == tokenizer.prompt(trajectory)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_prompts_are_what_precedes_each_turn_in_training(name, data):
    trajectory = data.draw(playable(name))
    row = tokenized(name)(trajectory)
    ends = [0, *(i + 1 for i, end in enumerate(row["turn_end"]) if end)]
    turns = [i for i, turn in enumerate(trajectory.turns) if turn.is_agent]
    for previous, turn in zip(ends, turns, strict=False):
        start = row["agent_mask"].index(1, previous)
        history = Trajectory(trajectory.turns[:turn])
        assert tokenized(name).prompt(history) == row["input_ids"][:start]
        end = row["turn_end"].index(1, start) + 1
        assert tokenized(name).reply(history, trajectory.turns[turn].text) == row["input_ids"][start:end]


@pytest.mark.parametrize("name", ["text", "chatml", "llama3", "keeping"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_truncation_keeps_as_many_whole_exchanges_as_fit(name, data):
    trajectory = data.draw(playable(name))
    limit = data.draw(st.integers(20, 150))
    turns = trajectory.turns
    header = [turns[0]] if turns[0].role == "system" else []
    last = max(i for i, turn in enumerate(turns) if turn.is_agent)
    cuts = [len(header)] + [
        i for i in range(1, last) if turns[i - 1].is_agent and not turns[i].is_agent and i > len(header)
    ]
    wanted = None
    for cut in cuts:
        row = tokenized(name)(Trajectory(header + turns[cut:], trajectory.ended))
        if len(row["input_ids"]) <= limit:
            wanted = row
            break
    short = tokenized(name, limit)
    if wanted is None:
        with pytest.raises(DataError, match="its last exchange alone has"):
            short(trajectory)
        return
    assert short(trajectory) == wanted
    start = max(i for i in range(1, len(wanted["input_ids"])) if wanted["agent_mask"][i] > wanted["agent_mask"][i - 1])
    room = len(wanted["input_ids"]) - start
    assert short.prompt(Trajectory(turns[:last]), reply_tokens=room) == wanted["input_ids"][:start]


@st.composite
def token_rows(draw):
    """Tokenised rows of any shape, made without a tokenizer."""
    ids, mask, ends, paid = [], [], [], []
    for _ in range(draw(st.integers(1, 4))):
        for _ in range(draw(st.integers(0 if ids else 1, 3))):
            ids.append(draw(st.integers(0, 99)))
            mask.append(0)
            ends.append(0)
        length = draw(st.integers(1, 3))
        ids += draw(st.lists(st.integers(0, 99), min_size=length, max_size=length))
        mask += [1] * length
        ends += [0] * (length - 1) + [1]
        paid.append(draw(st.floats(-8, 8, width=32)))
    terminated = draw(st.booleans())
    if not terminated:
        for _ in range(draw(st.integers(0, 2))):
            ids.append(draw(st.integers(0, 99)))
            mask.append(0)
            ends.append(0)
    return {"input_ids": ids, "agent_mask": mask, "turn_end": ends, "turn_rewards": paid, "terminated": terminated}


def naive_states(row, gamma, per):
    """Every state of one row, each computed by itself from the row alone."""
    ids, mask, ends = row["input_ids"], row["agent_mask"], row["turn_end"]
    paid_at, left = {}, list(row["turn_rewards"])
    for i, end in enumerate(ends):
        if end:
            paid_at[i] = left.pop(0)
    actions = [i for i in range(len(ids)) if mask[i]]
    states = []
    for token in actions:
        value = 0.0
        for paid, reward in paid_at.items():
            if paid >= token:
                between = [i for i in actions if token <= i < paid]
                steps = len(between) if per == "token" else sum(ends[i] for i in between)
                value += gamma**steps * reward
        last = row["terminated"] and token == actions[-1]
        states.append((token - 1, ids[token], bool(ends[token]), paid_at.get(token, 0.0), last, value))
    if not row["terminated"] and not mask[-1]:
        states.append((len(ids) - 1, NO_ACTION, False, 0.0, False, 0.0))
    return states


@settings(deadline=None)
@given(
    st.lists(token_rows(), min_size=1, max_size=4),
    st.sampled_from([1.0, 0.9, 0.5, 0.0]),
    st.sampled_from(["turn", "token"]),
)
def test_collation_against_states_computed_one_by_one(rows, gamma, per):
    batch = TrajectoryCollator(pad_token_id=7, gamma=gamma, gamma_per=per)(rows)
    names = ("state_positions", "actions", "turn_end", "rewards", "terminal", "returns_to_go")
    width = max(len(naive_states(row, gamma, per)) for row in rows)
    length = max(len(row["input_ids"]) for row in rows)
    assert batch["actions"].shape == (len(rows), width)
    assert batch["input_ids"].shape == (len(rows), length)
    for i, row in enumerate(rows):
        states = naive_states(row, gamma, per)
        assert batch["state_mask"][i].tolist() == [True] * len(states) + [False] * (width - len(states))
        got = list(zip(*(batch[name][i, : len(states)].tolist() for name in names), strict=True))
        assert [state[:5] for state in got] == [state[:5] for state in states]
        assert [state[5] for state in got] == pytest.approx([state[5] for state in states], rel=1e-5, abs=1e-5)
        assert batch["actions"][i, len(states) :].tolist() == [NO_ACTION] * (width - len(states))
        padding = length - len(row["input_ids"])
        assert batch["input_ids"][i].tolist() == row["input_ids"] + [7] * padding
        assert batch["attention_mask"][i].tolist() == [1] * len(row["input_ids"]) + [0] * padding


@given(token_rows(), st.sampled_from([1.0, 0.9, 0.5]), st.sampled_from(["turn", "token"]))
def test_returns_to_go_are_those_of_each_turns_first_token(row, gamma, per):
    states = naive_states(row, gamma, per)
    starts, lengths, fresh = [], [], True
    for state in states:
        if state[1] == NO_ACTION:
            break
        if fresh:
            starts.append(state[5])
            lengths.append(0)
        lengths[-1] += 1
        fresh = state[2]
    got = returns_to_go(row["turn_rewards"], gamma, per, lengths)
    assert got.tolist() == pytest.approx(starts, rel=1e-9, abs=1e-9)
