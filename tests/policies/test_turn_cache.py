"""Keys and values kept between turns: the same play as without them, and less to read."""

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from qsft.data import Trajectory, TrajectoryTokenizer, Turn
from qsft.models import Extraction, QSFTPolicyModel
from qsft.policies import ModelPolicy
from qsft.policies.turn_cache import GrowingLayer
from tests.models import tiny

WORDS = "abcdefgh"
EXTRACTIONS = [Extraction("product"), Extraction("value", beta=12.0, support=0.05)]


def player(family, extraction, temperature=0.0, **settings):
    models = tiny.make(family, seed=1), tiny.make(family, seed=2)
    model = QSFTPolicyModel.combine(*models, dummy_token_id=0, extraction=extraction)
    return ModelPolicy(model, TrajectoryTokenizer(tiny.tokenizer()), "tiny", temperature, 4, seed=3, **settings)


def observation(generator):
    letters = torch.randint(len(WORDS), (int(torch.randint(1, 5, (), generator=generator)),), generator=generator)
    return Turn("user", " ".join(WORDS[i] for i in letters) + "\n")


def games(policy, fresh):
    """What is played in 5 turns of 3 places, in which one episode ends and another begins at every other turn.

    ``fresh`` forgets between the turns, by playing on copies that it has never seen, with an empty cache.
    """
    generator = torch.Generator().manual_seed(0)
    playing = [Trajectory([observation(generator)]) for _ in range(3)]
    said = []
    for turn in range(5):
        if fresh:
            policy._turn_cache.__init__()
        actions = policy.act(playing)
        said.append(actions)
        for game, action in zip(playing, actions, strict=True):
            game.turns += [Turn("assistant", action, 0.0), observation(generator)]
        if turn % 2:
            del playing[turn // 2]
            playing.append(Trajectory([observation(generator)]))
    return said


@pytest.mark.parametrize("extraction", EXTRACTIONS, ids=str)
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_play_is_that_without_a_cache(family, extraction, temperature):
    kept = games(player(family, extraction, temperature), fresh=False)
    assert kept == games(player(family, extraction, temperature), fresh=True)
    assert len({action for turn in kept for action in turn}) > 3  # else anything would be equal


def test_only_what_is_new_is_read():
    policy = player("gpt2", EXTRACTIONS[0])
    read = []
    policy._model.likelihood.register_forward_pre_hook(
        lambda _, args, inputs: read.append(inputs["input_ids"].shape), with_kwargs=True
    )
    game = Trajectory([Turn("user", "a b c d e f g h\n")])
    action = policy.act([game])[0]
    first = list(read)
    game.turns += [Turn("assistant", action, 0.0), Turn("user", "a b\n")]
    read.clear()
    policy.act([game])
    assert first[0][1] > 8  # the whole observation
    assert read[0][1] <= 5  # the new one, and at most the reply's last tokens


def test_a_row_that_is_new_does_not_make_others_be_read_again():
    policy = player("llama", EXTRACTIONS[0])
    masks = []
    policy._model.likelihood.register_forward_pre_hook(
        lambda _, args, inputs: masks.append((inputs["input_ids"].shape[1], inputs["attention_mask"])), with_kwargs=True
    )
    old = Trajectory([Turn("user", "a b c d e f g h\n")])
    action = policy.act([old])[0]
    old.turns += [Turn("assistant", action, 0.0), Turn("user", "a b\n")]
    masks.clear()
    policy.act([old, Trajectory([Turn("user", "h g f e d c\n")])])
    read, mask = masks[0]
    assert read <= 8, "what is new of the longer row, and of the other one"
    assert mask[0, -read:].sum() <= 5 and mask[1, -read:].sum() == mask[1].sum()


def test_a_model_that_counts_columns_is_told_no_gaps():
    """Where a model is not told where tokens stand, padding between them would move them apart."""
    policy = player("llama", EXTRACTIONS[0])
    game = Trajectory([Turn("user", "a b c d\n")])
    policy.act([game])
    assert policy._turn_cache._cache is not None
    forward = policy._model.inner.forward
    policy._model.inner.forward = lambda input_ids, **inputs: forward(input_ids, **inputs)
    policy._turn_cache.__init__()
    policy.act([game])
    assert policy._turn_cache._cache is None


def test_a_history_that_is_no_continuation_is_read_anew():
    """The same object with another past: as a key it is known, its tokens are not."""
    policy = player("gpt2", EXTRACTIONS[0])
    game = Trajectory([Turn("user", "a b c d\n")])
    policy.act([game])
    game.turns[:] = [Turn("user", "h h g g e e\n")]
    assert policy.act([game]) == player("gpt2", EXTRACTIONS[0]).act([game])


def test_a_growing_layer_holds_what_a_plain_one_holds():
    generator = torch.Generator().manual_seed(0)
    plain, growing = DynamicLayer(), GrowingLayer()
    moved = set()
    for step in range(200):
        new = [torch.randn(2, 3, 1 + 40 * (step % 50 == 0), 4, generator=generator) for _ in range(2)]
        for expected, found in zip(plain.update(*new), growing.update(*new), strict=True):
            assert torch.equal(expected, found)
        moved.add(growing.keys.data_ptr())
        if step == 120:  # as beams or a crop would
            for layer in (plain, growing):
                layer.keys, layer.values = layer.keys[..., :50, :].clone(), layer.values[..., :50, :].clone()
    assert growing.get_seq_length() == plain.get_seq_length()
    assert len(moved) < 8, "hardly ever copied"
