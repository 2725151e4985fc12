"""Chat templates: the masks against transformers' own, the ids against the whole text, and what is refused."""

from __future__ import annotations

import pytest

from qsft.data import Trajectory, TrajectoryTokenizer, Turn
from qsft.errors import ConfigError, DataError
from tests.data.families import FAMILIES, KEEPING, MARKED, THINKING, byte_bpe, chat, episode, sentence_piece

CHAT = (
    ("user", "Hello there"),
    ("assistant", "Good day"),
    ("user", "the cat — 猫"),
    ("assistant", "sat, naïve 😀"),
    ("user", "well"),
    ("assistant", ""),
)
WITH_SYSTEM = (("system", "Be brief."), *CHAT)
WITH_TOOLS = (
    ("user", "who?"),
    ("assistant", "look up"),
    ("tool", 'a "cat"\n<b>'),
    ("tool", "2"),
    ("assistant", "the cat"),
    ("user", "so"),
    ("assistant", "yes"),
)
CASES = [
    (family, turns)
    for family in FAMILIES
    for turns in (CHAT, WITH_SYSTEM, *([WITH_TOOLS] if FAMILIES[family][5] else []))
]


def messages(turns):
    return [{"role": turn[0], "content": turn[1]} for turn in turns]


def spans(row):
    """The ids of each agent turn."""
    found, current = [], []
    for token, mask, end in zip(row["input_ids"], row["agent_mask"], row["turn_end"], strict=True):
        if mask:
            current.append(token)
        if end:
            found.append(current)
            current = []
    assert not current
    return found


@pytest.mark.parametrize(
    ("family", "turns", "generation"),
    [(*case, generation) for case in CASES for generation in (False, True) if case[0] in MARKED or not generation],
)
def test_masks_hold_what_the_agent_said(family, turns, generation):
    tokenizer = chat(family, generation)
    tokenized = TrajectoryTokenizer(tokenizer)
    row = tokenized(episode(*turns))
    end = FAMILIES[family][4]
    before = {"mistral": " ", "keeping": "<think>\n\n</think>\n\n"}.get(family, "")
    said = [text for role, text, *_ in turns if role == "assistant"]
    assert [tokenizer.decode(span) for span in spans(row)] == [before + text + end for text in said]
    assert [tokenized.action_text(span) for span in spans(row)] == said
    assert row["turn_rewards"] == [float(i + 1) for i in range(len(said))]
    assert not row["agent_mask"][0]
    assert row["input_ids"][-1] == tokenizer.convert_tokens_to_ids(end) == tokenized.end_of_turn_ids[0]


@pytest.mark.parametrize(("family", "turns"), [case for case in CASES if case[0] != "thinking"])
def test_ids_are_those_of_the_whole_text(family, turns):
    tokenizer = chat(family)
    whole = tokenizer.apply_chat_template(messages(turns))["input_ids"]
    ids = TrajectoryTokenizer(tokenizer)(episode(*turns))["input_ids"]
    assert whole[: len(ids)] == ids
    assert tokenizer.decode(whole[len(ids) :]).strip() == ""


@pytest.mark.parametrize("family", MARKED)
def test_masks_against_those_of_transformers(family):
    """The blocks of our ChatML and Gemma also hold the newline behind the end of turn, which the agent never writes,
    and Mistral's leave out the space that the agent does write."""
    turns = [turn for turn in WITH_SYSTEM if turn[1]]
    tokenizer = chat(family, generation=True)
    theirs = tokenizer.apply_chat_template(messages(turns), return_assistant_tokens_mask=True, return_dict=True)
    row = TrajectoryTokenizer(tokenizer)(episode(*turns))
    newline, space = tokenizer.encode("\n")[0], tokenizer.encode(" ")[0]
    differ = [
        (token, ours)
        for token, ours, mask in zip(row["input_ids"], row["agent_mask"], theirs["assistant_masks"], strict=False)
        if ours != mask
    ]
    allowed = {"gemma": (newline, 0), "mistral": (space, 1)}.get(family)
    assert all(pair == allowed for pair in differ), differ


@pytest.mark.parametrize(("family", "turns"), CASES)
def test_prompts_are_what_transformers_would_send(family, turns):
    """Every reply stands behind exactly the generation prompt of its own history."""
    tokenizer = chat(family)
    tokenized = TrajectoryTokenizer(tokenizer)
    row = tokenized(episode(*turns))
    starts = [i for i, mask in enumerate(row["agent_mask"]) if mask and not row["agent_mask"][i - 1]]
    replies = [i for i, turn in enumerate(turns) if turn[0] == "assistant"]
    for start, reply in zip(starts, replies, strict=True):
        history = turns[:reply]
        theirs = tokenizer.apply_chat_template(messages(history), add_generation_prompt=True)["input_ids"]
        ours = tokenized.prompt(Trajectory([Turn(*turn) for turn in history]))
        assert ours == theirs == row["input_ids"][:start]


@pytest.mark.parametrize("family", FAMILIES)
def test_truncated_episodes_end_with_the_prompt_of_the_turn_that_never_came(family):
    tokenizer = chat(family)
    tokenized = TrajectoryTokenizer(tokenizer)
    seen = (*CHAT, ("user", "more"))
    row = tokenized(episode(*seen, ended="truncated"))
    assert row["input_ids"] == tokenizer.apply_chat_template(messages(seen), add_generation_prompt=True)["input_ids"]
    assert not row["agent_mask"][-1]
    cut_after_reply = tokenized(episode(*CHAT, ended="truncated"))
    assert cut_after_reply["agent_mask"][-1] == cut_after_reply["turn_end"][-1] == 1
    assert tokenized(episode(*seen))["input_ids"] == cut_after_reply["input_ids"]


def test_templates_that_trim():
    tokenized = TrajectoryTokenizer(chat("llama3"))
    trimmed = tokenized(
        episode(("user", "  Hello\n"), ("assistant", "\tGood \u2003"), ("user", "x"), ("assistant", " y "))
    )
    assert trimmed == tokenized(episode(("user", "Hello"), ("assistant", "Good"), ("user", "x"), ("assistant", "y")))


def test_truncation_renders_again():
    tokenizer = chat("gemma")
    turns = (*WITH_SYSTEM[:-1], ("assistant", "yes"))
    whole = TrajectoryTokenizer(tokenizer)(episode(*turns))
    tokenized = TrajectoryTokenizer(tokenizer, max_length=len(whole["input_ids"]) - 1)
    row = tokenized(episode(*turns))
    shorter = episode(turns[0], *turns[3:])
    assert row["input_ids"] == TrajectoryTokenizer(tokenizer)(shorter)["input_ids"]
    assert row["turn_rewards"] == [2.0, 3.0]
    prompt = tokenized.prompt(Trajectory([Turn(*turn) for turn in turns[:-1]]), len(spans(row)[-1]))
    assert prompt == row["input_ids"][: -len(spans(row)[-1])]


def test_a_template_may_escape_what_a_tool_says():
    tokenizer = chat("llama3")
    row = TrajectoryTokenizer(tokenizer)(episode(*WITH_TOOLS))
    assert '"a \\"cat\\"\\n<b>"' in tokenizer.decode(row["input_ids"])


def test_thoughts_are_kept_or_refused():
    special = FAMILIES["thinking"][1]
    thoughts = episode(
        ("user", "a"),
        ("assistant", "<think>\nwell\n</think>\n\nb"),
        ("user", "c"),
        ("assistant", "<think>\n</think>\n\nd"),
    )
    keeping = byte_bpe(special, None, "<|endoftext|>", KEEPING)
    tokenized = TrajectoryTokenizer(keeping)
    said = [turn.text for turn in thoughts.agent_turns]
    assert [keeping.decode(span) for span in spans(tokenized(thoughts))] == [text + "<|im_end|>" for text in said]
    assert [tokenized.action_text(span) for span in spans(tokenized(thoughts))] == said
    dropping = byte_bpe(special, None, "<|endoftext|>", THINKING)
    tokenized = TrajectoryTokenizer(dropping)
    with pytest.raises(DataError, match=r"rewrites what the agent said in turn 2 \(does it drop thoughts\?\); use"):
        tokenized(thoughts)
    history = thoughts.turns[:3]
    in_play = dropping.apply_chat_template(
        [{"role": turn.role, "content": turn.text} for turn in history], add_generation_prompt=True
    )
    assert tokenized.prompt(Trajectory(history)) == in_play["input_ids"]


def test_the_agent_may_not_say_the_end_of_turn():
    with pytest.raises(DataError, match=r"holds the end of turn '<\|im_end\|>' before its end; take it out"):
        TrajectoryTokenizer(chat("chatml"))(episode(("user", "a"), ("assistant", "b<|im_end|>c")))


@pytest.mark.parametrize(
    ("family", "turns", "says"),
    [
        ("gemma", WITH_TOOLS, r"the chat template refuses these messages \(no tools here\); change their roles"),
        ("mistral", (("user", "a"), *CHAT), r"the chat template refuses these messages \(roles must alternate\)"),
        ("chatml", CHAT[1:], "nothing stands before the agent's first turn; put a user or system message first"),
    ],
)
def test_histories_that_a_template_refuses(family, turns, says):
    with pytest.raises(DataError, match="f: row 1: " + says):
        TrajectoryTokenizer(chat(family)).batch([episode(*turns)], lambda i: f"f: row {i + 1}")


LOOP = "{% for m in messages %}{{ '<u>' + m.role + ':' + m.content + '</u>' }}{% endfor %}"
PROMPT = "{% if add_generation_prompt %}{{ '<u>assistant:' }}{% endif %}"


def simple(template):
    return byte_bpe(["<u>", "</u>", "<eos>"], None, "<eos>", template)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (LOOP + PROMPT.replace("assistant:", "agent:"), "the chat template's generation prompt is not how it begins"),
        (
            (LOOP + PROMPT).replace("</u>", "\n"),
            "no usable end of turn: the chat template ends the agent's message with no",
        ),
        ("{{ messages[-1].content }}" + PROMPT, "the chat template leaves out, repeats or moves turn 1 of 3"),
        (
            (LOOP + PROMPT).replace("<u>", "<u> ").replace("':'", "': '").replace("assistant:", "assistant: "),
            "the tokenizer merges the chat template's text with the agent's",
        ),
        (
            LOOP.replace("{{ '", "{% generation %}{{ '").replace("}}{% end", "}}{% endgeneration %}{% end") + PROMPT,
            "blocks do not hold exactly the agent's messages; mend or remove them",
        ),
    ],
)
def test_templates_that_are_refused(template, says):
    with pytest.raises(ConfigError, match=says):
        TrajectoryTokenizer(simple(template))


def test_without_generation_prompt_the_agent_writes_the_header():
    tokenizer = simple(LOOP)
    tokenized = TrajectoryTokenizer(tokenizer)
    row = tokenized(episode(*CHAT[:4]))
    assert [tokenizer.decode(span) for span in spans(row)] == [
        "<u>assistant:Good day</u>",
        "<u>assistant:sat, naïve 😀</u>",
    ]
    assert [tokenized.action_text(span) for span in spans(row)] == ["Good day", "sat, naïve 😀"]


def test_an_end_of_turn_of_ones_own():
    tokenizer = simple((LOOP + PROMPT).replace("</u>", "\n"))
    tokenized = TrajectoryTokenizer(tokenizer, end_of_turn="\n")
    row = tokenized(episode(*CHAT[:4]))
    assert [tokenizer.decode(span) for span in spans(row)] == ["Good day\n", "sat, naïve 😀\n"]
    assert TrajectoryTokenizer.from_dict(tokenizer, tokenized.to_dict())(episode(*CHAT[:4])) == row
    with pytest.raises(ConfigError, match="ends the agent's message with none of end_of_turn"):
        TrajectoryTokenizer(tokenizer, end_of_turn="<eos>")


def test_history_that_is_rewritten_is_refused():
    """As Mistral's third version does: the system message moves to the newest user message."""
    template = """{%- for m in messages -%}
    {%- if m.role == 'user' -%}{{ '<u>' }}
    {%- if loop.last and messages[0].role == 'system' -%}{{ messages[0].content + ' ' }}{%- endif -%}{{ m.content }}
    {%- elif m.role == 'assistant' -%}{{ m.content + '</u>' }}{%- endif -%}{%- endfor -%}"""
    tokenized = TrajectoryTokenizer(simple(template))
    tokenized(episode(*CHAT[:4]))
    tokenized(episode(("system", "s"), *CHAT[:2]))
    with pytest.raises(DataError, match="the chat template leaves out, repeats or moves turn 1 of 4"):
        tokenized(episode(("system", "s"), *CHAT[:4]))
    counting = simple("{{ messages | length }}" + LOOP + PROMPT)
    with pytest.raises(ConfigError, match="generation prompt is not how it begins the agent's message"):
        TrajectoryTokenizer(counting)
    late = simple("{{ 'long' if messages | length > 3 }}" + LOOP + PROMPT)
    with pytest.raises(
        DataError, match="writes the history before turn 4 in another way once the episode goes on; use"
    ):
        TrajectoryTokenizer(late)(episode(*CHAT))


LLAMA2 = """{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}
{%- else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"""


def test_sentence_piece_chat_equals_the_whole_text():
    tokenizer = sentence_piece(LLAMA2)
    turns = (("user", "Hello"), ("assistant", "Hello Good"), ("user", "é"), ("assistant", "Hell"))
    tokenized = TrajectoryTokenizer(tokenizer)
    row = tokenized(episode(*turns))
    assert row["input_ids"] == tokenizer.apply_chat_template(messages(turns))["input_ids"]
    assert [tokenized.action_text(span) for span in spans(row)] == ["Hello Good", "Hell"]


def test_special_tokens_that_swallow_whitespace():
    template = (
        "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
    )
    tokenizer = byte_bpe(["<|user|>", "<|assistant|>", "<|end|>", "<eos>"], None, "<eos>", template, rstrip=True)
    row = TrajectoryTokenizer(tokenizer)(episode(*CHAT))
    assert row["input_ids"] == tokenizer.apply_chat_template(messages(CHAT))["input_ids"]
    assert tokenizer.encode("\n")[0] not in row["input_ids"]


def test_each_sequence_of_roles_is_checked_once(monkeypatch):
    tokenizer = chat("chatml")
    tokenized = TrajectoryTokenizer(tokenizer)
    calls = []
    render = type(tokenizer).apply_chat_template
    monkeypatch.setattr(
        type(tokenizer), "apply_chat_template", lambda self, *args, **kw: calls.append(1) or render(self, *args, **kw)
    )
    tokenized(episode(*CHAT))
    first = len(calls)
    tokenized(episode(*CHAT))
    assert (first, len(calls) - first) == (2, 1)  # The two shorter ones were checked when the template was read.


def test_several_templates_by_name():
    """As some models have one for tools beside the one that is meant unless another is asked for."""
    tokenizer = chat("chatml")
    expected = TrajectoryTokenizer(tokenizer)(episode(*CHAT))
    tokenizer.chat_template = {"tool_use": "{{ raise_exception('no') }}", "default": tokenizer.chat_template}
    assert TrajectoryTokenizer(tokenizer)(episode(*CHAT)) == expected
    tokenizer.chat_template = {"rag": "", "tool_use": ""}
    with pytest.raises(ConfigError, match="the tokenizer's chat templates are rag, tool_use; name one of them default"):
        TrajectoryTokenizer(tokenizer)
