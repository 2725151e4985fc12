"""Small tokenizers and chat templates, built here, in the styles of the families that are in use."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from qsft.data import Trajectory, Turn

CORPUS = [
    "Wordle:\n c r a n e\n g y b b b\n",
    "Hello there, how are you today? Good day to you, and well met.",
    "the cat sat on the mat. assistant user system tool model",
    "Is it an animal?\nYes.\nNo.\n",
]

CHATML = """{%- for m in messages -%}
{%- if m.role == 'tool' -%}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}{{ '<|im_start|>user' }}{%- endif -%}
{{ '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}{{ '<|im_end|>\\n' }}{%- endif -%}
{%- elif m.role == 'assistant' -%}
{{ '<|im_start|>assistant\\n' }}BEGIN{{ m.content + '<|im_end|>' }}END{{ '\\n' }}
{%- else -%}
{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"""

LLAMA3 = """{{- bos_token -}}
{%- for m in messages -%}
{%- set role = 'ipython' if m.role == 'tool' else m.role -%}
{{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' -}}
{%- if m.role == 'tool' -%}{{- m.content | tojson + '<|eot_id|>' -}}
{%- elif m.role == 'assistant' -%}BEGIN{{- m.content | trim + '<|eot_id|>' -}}END
{%- else -%}{{- m.content | trim + '<|eot_id|>' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"""

MISTRAL = """{{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- if messages[0].role == 'system' -%}
{%- set ns.system = messages[0].content + '\\n\\n' -%}{%- set chat = messages[1:] -%}
{%- else -%}{%- set chat = messages -%}{%- endif -%}
{%- for m in chat -%}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('roles must alternate') }}{%- endif -%}
{%- if m.role == 'user' -%}{{- '[INST] ' + (ns.system if loop.first else '') + m.content + ' [/INST]' -}}
{%- elif m.role == 'assistant' -%}{{- ' ' -}}BEGIN{{- m.content + eos_token -}}END
{%- else -%}{{ raise_exception('only user and assistant') }}{%- endif -%}
{%- endfor -%}"""

GEMMA = """{{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- if messages[0].role == 'system' -%}
{%- set ns.system = messages[0].content | trim + '\\n\\n' -%}{%- set chat = messages[1:] -%}
{%- else -%}{%- set chat = messages -%}{%- endif -%}
{%- for m in chat -%}
{%- if m.role == 'assistant' -%}{{- '<start_of_turn>model\\n' -}}BEGIN{{- m.content | trim + '<end_of_turn>\\n' -}}END
{%- elif m.role == 'user' -%}
{{- '<start_of_turn>user\\n' + (ns.system if loop.first else '') + m.content | trim + '<end_of_turn>\\n' -}}
{%- else -%}{{ raise_exception('no tools here') }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"""

# Keeps every thought, and makes one up (an empty one) where the message has none.
KEEPING = """{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{{ '<|im_start|>assistant\n' }}
{%- if '</think>' not in m.content -%}{{ '<think>\n\n</think>\n\n' }}{%- endif -%}
{{ m.content + '<|im_end|>\n' }}
{%- else -%}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"""

# Leaves out the thoughts of past turns, and shows an empty thought in the last one.
THINKING = """{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{{ '<|im_start|>assistant\\n' }}
{%- if loop.last -%}{{ '<think>\\n\\n</think>\\n\\n' + m.content }}
{%- else -%}{{ m.content.split('</think>')[-1] }}{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- else -%}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"""

#: family: (template, special tokens, bos, eos, end of turn, has tool turns)
FAMILIES = {
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>", "<|endoftext|>"], None, "<|endoftext|>", "<|im_end|>", True),
    "llama3": (
        LLAMA3,
        ["<|begin|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"],
        "<|begin|>",
        "<|end_of_text|>",
        "<|eot_id|>",
        True,
    ),
    "mistral": (MISTRAL, ["<s>", "</s>"], "<s>", "</s>", "</s>", False),
    "gemma": (
        GEMMA,
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
        "<bos>",
        "<eos>",
        "<end_of_turn>",
        False,
    ),
    "thinking": (THINKING, ["<|im_start|>", "<|im_end|>", "<|endoftext|>"], None, "<|endoftext|>", "<|im_end|>", True),
    "keeping": (KEEPING, ["<|im_start|>", "<|im_end|>", "<|endoftext|>"], None, "<|endoftext|>", "<|im_end|>", True),
}


def byte_bpe(special=(), bos=None, eos=None, template=None, **added) -> PreTrainedTokenizerFast:
    """A byte-level BPE, which has tokens for every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[AddedToken(token, special=True, normalized=False, **added) for token in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, chat_template=template)


def sentence_piece(template=None) -> PreTrainedTokenizerFast:
    """In the style of Llama 2: a space before every text, and bytes for what has no token."""
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    vocabulary += [chr(code) for code in range(33, 127)]
    merges = [("▁", "H"), ("▁H", "e"), ("l", "l"), ("▁", "G"), ("▁", "c"), ("o", "o")]
    vocabulary += [left + right for left, right in merges]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(vocabulary)},
            merges=merges,
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("<s>", "</s>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=template
    )


#: families whose templates have {% generation %} blocks when asked to
MARKED = ("chatml", "llama3", "mistral", "gemma")


def chat(family: str, generation: bool = False) -> PreTrainedTokenizerFast:
    template, special, bos, eos, _, _ = FAMILIES[family]
    begin, end = ("{%- generation -%}", "{%- endgeneration -%}") if generation else ("", "")
    return byte_bpe(special, bos, eos, template.replace("BEGIN", begin).replace("END", end))


def episode(*turns: tuple[str, str] | tuple[str, str, float], ended="terminated") -> Trajectory:
    """A trajectory of ``(role, text)``; the agent's turns pay 1, 2, ... unless a third entry says what."""
    made = []
    for role, text, *reward in turns:
        number = sum(turn.is_agent for turn in made) + 1
        made.append(Turn(role, text, (reward[0] if reward else float(number)) if role == "assistant" else None))
    return Trajectory(made, ended)
