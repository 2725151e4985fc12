"""Embeddings of whole-action tokens that know the spelling."""

import pytest
import torch

from qsft.errors import ConfigError
from qsft.models.scratch import model_from_config, word_level_tokenizer

SIZES = {"model_type": "gpt2", "n_layer": 1, "n_embd": 512, "n_head": 2, "n_positions": 8, "tie_word_embeddings": False}
WORDS = ["a b c", "a b d", "d c b", "x y z", "x x x"]


@pytest.fixture(scope="module")
def rows():
    tokenizer = word_level_tokenizer([*WORDS, "hello", *"abcd"])
    model = model_from_config({**SIZES, "spelled_tokens": 0.1}, tokenizer, seed=3)
    head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in [*WORDS, "hello"]}
    assert all(torch.equal(head[ids[word]], table[ids[word]]) for word in WORDS)
    assert not torch.equal(head[ids["hello"]], table[ids["hello"]])  # one symbol: as transformers made it
    return {word: head[i].detach() for word, i in ids.items()}


def cosine(a, b):
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def test_shared_symbols_make_words_alike(rows):
    # of six codes each (three places, three letters) four are shared, then two, then none
    assert cosine(rows["a b c"], rows["a b d"]) == pytest.approx(4 / 6, abs=0.1)
    assert cosine(rows["a b c"], rows["d c b"]) == pytest.approx(2 / 6, abs=0.1)
    assert cosine(rows["a b c"], rows["x y z"]) == pytest.approx(0, abs=0.1)


def test_std(rows):
    for word in WORDS:
        assert float(rows[word].std()) == pytest.approx(0.1, rel=0.1)
    assert float(rows["hello"].std()) == pytest.approx(0.02, rel=0.1)


def test_the_seed_decides_and_the_rest_of_the_model_is_as_without():
    tokenizer = word_level_tokenizer(WORDS)
    models = [model_from_config({**SIZES, "spelled_tokens": 0.1}, tokenizer, seed) for seed in (1, 1, 2)]
    same, again, other = (model.get_output_embeddings().weight for model in models)
    assert torch.equal(same, again) and not torch.equal(same, other)
    plain = model_from_config(SIZES, tokenizer, 1)
    for (name, a), (_, b) in zip(models[0].named_parameters(), plain.named_parameters(), strict=True):
        assert torch.equal(a, b) == (name not in ("transformer.wte.weight", "lm_head.weight"))


def test_refused_where_no_token_is_spelt():
    with pytest.raises(ConfigError, match="whole_actions"):
        model_from_config({**SIZES, "spelled_tokens": 0.1}, word_level_tokenizer(["a", "b"]), 0)
