"""A vision-language model as a player: batches, caches, beams and Q-values against one whole pass a token."""

from __future__ import annotations

import os

import pytest
import torch

from qsft.data import Trajectory, TrajectoryTokenizer, Turn
from qsft.errors import ConfigError
from qsft.models import Extraction, QSFTPolicyModel
from qsft.models.value_model import ValueModel
from qsft.policies import ModelPolicy
from tests.models import naive
from tests.vision import families
from tests.vision.seeing import Seeing

DUMMY, COUNT = 0, 3
VALUE = Extraction("value", beta=12.0, support=0.02)


@pytest.fixture(scope="module", params=families.FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def models(family):
    return families.make(family, 1), families.make(family, 2)


@pytest.fixture(scope="module")
def tokenizer(family):
    return TrajectoryTokenizer(families.processor(family))


@pytest.fixture(scope="module")
def histories(tmp_path_factory):
    """Of different lengths, with none to two pictures a turn, of different sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    sizes = [(8, 8), (8, 24), (16, 12), (8, 8), (20, 8)]
    paths = [families.save(folder, f"{i}.png", i, *size) for i, size in enumerate(sizes)]
    return [
        Trajectory([Turn("user", "up?\n", images=(paths[0],))]),
        Trajectory(
            [Turn("user", "a\n", images=(paths[1], paths[2])), Turn("assistant", "left\n"), Turn("user", "so?\n")]
        ),
        Trajectory(
            [Turn("user", "?\n"), Turn("assistant", "b\n"), Turn("user", "now?\n", images=(paths[3], paths[4]))]
        ),
        Trajectory([Turn("user", "no picture\n")]),
    ]


def player(models, tokenizer, extraction=VALUE, **settings):
    model = QSFTPolicyModel.combine(*models, dummy_token_id=DUMMY, extraction=extraction, return_range=(-6.0, -1.0))
    return ModelPolicy(model, tokenizer, "tiny", 0.0, COUNT, **settings)


def step(models, family, prompt, extraction=VALUE):
    """The definition: log-probabilities of the token after some ids, from whole passes of both models."""
    row = {"images": list(prompt.images), "agent_mask": [0] * prompt.prefix + [1]}
    seeing = [Seeing(model, family, row) for model in models]
    unsayable = seeing[0].processor.image_token_id

    def of(ids):
        logps = naive.log_policy(*seeing, ids, extraction, DUMMY)
        logps[unsayable] = -torch.inf
        return logps

    return of


def said(tokenizer, models, family, prompt):
    ends, ids, new = tokenizer.end_of_turn_ids, list(prompt.input_ids), []
    of = step(models, family, prompt)
    while len(new) < COUNT and not (new and new[-1] in ends):
        new.append(int(of([*ids, *new]).argmax()))
    return tokenizer.action_text(new)


def test_greedy_play_of_a_batch_is_the_definition(family, models, tokenizer, histories):
    policy = player(models, tokenizer)
    together = policy.act(histories)
    assert together == [said(tokenizer, models, family, tokenizer.read(history, COUNT)) for history in histories]
    assert together == [policy.act([history])[0] for history in histories]


def test_beams_find_what_beams_of_whole_passes_find(family, models, tokenizer, histories):
    policy = player(models, tokenizer, beams=3)
    policy.max_new_tokens = 2
    found = policy.act(histories[1:3])
    for history, text in zip(histories[1:3], found, strict=True):
        prompt = tokenizer.read(history, 2)
        best = naive.beams(step(models, family, prompt), prompt.input_ids, 2, 3)
        assert text == tokenizer.action_text(best)


def test_q_values_are_ratios_of_whole_passes(family, models, tokenizer, histories):
    policy = player(models, tokenizer)
    for history in histories[:3]:
        prompt = tokenizer.read(history, COUNT)
        row = {"images": list(prompt.images), "agent_mask": [0] * prompt.prefix + [1]}
        p, pi = (naive._probabilities(Seeing(model, family, row), prompt.input_ids) for model in models)
        for value in policy.q_values(history):
            ratio = min(p[value.token_id] / pi[value.token_id], 1.0)
            assert value.q == pytest.approx(-6.0 + 5.0 * ratio, abs=2e-3)
            assert value.prior == pytest.approx(pi[value.token_id], rel=1e-3)
        (reply,) = policy.q_values(history, ["up\n"])
        ids = tokenizer.reply(history, "up\n")
        p, pi = (naive._probabilities(Seeing(m, family, row), [*prompt.input_ids, *ids[:-1]]) for m in models)
        assert reply.q == pytest.approx(-6.0 + 5.0 * min(p[ids[-1]] / pi[ids[-1]], 1.0), abs=2e-3)


def test_padding_and_batches_change_no_state_value(models, tokenizer, histories):
    policy = player(models, tokenizer)
    alone = [policy.state_values([history])[0] for history in histories]
    assert policy.state_values(histories) == pytest.approx(alone, abs=1e-3)


def test_value_heads_play_what_they_see(family, models, tokenizer, histories):
    """The critic's policy: greedy over log pi + beta Q from one whole pass a token."""
    torch.manual_seed(0)
    model = ValueModel.with_heads(models[0], len(tokenizer.tokenizer), False, False).eval()
    for head in model.q:
        torch.nn.init.normal_(head.outer.weight, std=0.5)
    policy = ModelPolicy(model, tokenizer, "critic", 0.0, COUNT)
    together = policy.act(histories)
    for history, text in zip(histories, together, strict=True):
        prompt = tokenizer.read(history, COUNT)
        row = {"images": list(prompt.images), "agent_mask": [0] * prompt.prefix + [1]}
        seeing, new = Seeing(models[0], family, row), []
        while len(new) < COUNT and not (new and new[-1] in tokenizer.end_of_turn_ids):
            seen = {}
            handle = (
                models[0].get_output_embeddings().register_forward_hook(lambda _, i, o, seen=seen: seen.update(h=i[0]))
            )
            with torch.no_grad():
                prior = seeing(torch.tensor([[*prompt.input_ids, *new]]), False).logits[0, -1]
                q = torch.minimum(*(head(seen["h"][0, -1]) for head in model.q))
            handle.remove()
            scores = torch.log_softmax(prior, -1) + model.extraction.beta * q
            scores[tokenizer.images.token_ids] = -torch.inf
            new.append(int(scores.argmax()))
        assert text == tokenizer.action_text(new)


def test_images_are_read_once_with_the_prompt(family, models, tokenizer, histories):
    policy = player(models, tokenizer)
    name = {"llava": "vision_tower", "paligemma": "vision_tower", "idefics3": "vision_model"}.get(family, "visual")
    read = []
    handles = [getattr(m.base_model, name).register_forward_hook(lambda *_: read.append(1)) for m in models]
    inputs = policy._left_padded([policy._prompt(history) for history in histories])
    output = policy.model.generate(**inputs, max_new_tokens=3, min_new_tokens=3)
    for handle in handles:
        handle.remove()
    assert output.shape[1] == inputs["input_ids"].shape[1] + 3
    assert len(read) == 2  # once for each of the two models


#: whose images are nothing but tokens, so that keys and values are kept from turn to turn
KEPT = ("llava", "idefics3")


def episodes(policy, pictures, forgets):
    """Replies in four turns of three places, of which the second is given to another episode after two turns."""
    playing = [Trajectory([Turn("user", "up?\n", images=pictures[:n])]) for n in (1, 2, 0)]
    texts = []
    for turn in range(4):
        if forgets:
            policy._turn_cache.__init__()
        replies = policy.act(playing)
        texts.append(replies)
        for place, (game, reply) in enumerate(zip(playing, replies, strict=True)):
            images = pictures[turn + place : turn + place + 1 + (place == turn)]
            game.turns += [Turn("assistant", reply), Turn("user", "so?\n" * (place + 1), images=images)]
        if turn == 1:
            playing[1] = Trajectory([Turn("user", "and here?\n", images=pictures[3:5])])
    return texts


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("turns")
    sizes = [(8, 8), (8, 24), (16, 12), (8, 8), (20, 8), (8, 16), (24, 24)]
    return tuple(families.save(folder, f"{i}.png", i + 9, *size) for i, size in enumerate(sizes))


def test_play_with_what_earlier_turns_have_read_is_play_without(models, tokenizer, pictures):
    kept, fresh = (episodes(player(models, tokenizer), pictures, forgets) for forgets in (False, True))
    assert kept == fresh
    assert len({reply for turn in kept for reply in turn}) > 1  # else anything would be equal


def test_only_new_images_are_read(family, models, tokenizer, pictures):
    policy, asked = player(models, tokenizer, Extraction("product")), []
    inputs = tokenizer.images.inputs
    tokenizer.images.inputs = lambda ids, prefixes, images: asked.append(list(images)) or inputs(ids, prefixes, images)
    game = Trajectory([Turn("user", "up?\n", images=pictures[:2])])
    policy.act([game])
    game.turns += [Turn("assistant", "left\n"), Turn("user", "so?\n", images=pictures[2:3])]
    policy.act([game])
    game.turns[0] = Turn("user", "up?\n", images=(pictures[0], pictures[3]))  # another past
    again = policy.act([game])
    policy._turn_cache.__init__()
    assert again == policy.act([game])
    del tokenizer.images.inputs
    whole = [[*pictures[:2]], [*pictures[:3]], [pictures[0], *pictures[3:1:-1]]]
    new = [whole[0], [pictures[2]], [pictures[3], pictures[2]]]
    assert asked[:3] == (new if family in KEPT else whole)


def test_only_new_images_are_read_of_many_histories(family, models, tokenizer, pictures):
    """Whatever else is in the batch: images and words stand in other columns in each row, and one row is new."""
    policy, asked, columns = player(models, tokenizer, Extraction("product")), [], []
    playing = [Trajectory([Turn("user", "up?\n" * (1 + n % 3), images=pictures[:n])]) for n in range(6)]
    policy.act(playing)
    for number, game in enumerate(playing):
        game.turns += [
            Turn("assistant", "left\n"),
            Turn("user", "so?\n" * (1 + 9 * (number == 5)), images=pictures[number : number + 1]),
        ]
    playing[3] = Trajectory([Turn("user", "down?\n", images=pictures[2:3])])
    inputs = tokenizer.images.inputs
    tokenizer.images.inputs = lambda ids, prefixes, images: (
        asked.append(list(images)),
        columns.append(ids.shape[1]),
        inputs(ids, prefixes, images),
    )[-1]
    kept = policy.act(playing)
    policy._turn_cache.__init__()
    assert kept == policy.act(playing)
    del tokenizer.images.inputs
    new = [pictures[number] if number != 3 else pictures[2] for number in range(6)]
    whole = [image for game in playing for turn in game.turns for image in turn.images]
    assert asked == ([new, whole] if family in KEPT else [whole, whole])
    assert columns[0] < columns[1] or family not in KEPT


def test_a_file_that_shows_something_new_is_read_again(family, models, tokenizer, tmp_path):
    """A camera that writes every frame to the same file."""
    policy, asked = player(models, tokenizer, Extraction("product")), []
    game = Trajectory([Turn("user", "up?\n", images=(families.save(tmp_path, "now.png", 1),))])
    policy.act([game])
    families.save(tmp_path, "now.png", 2, 8, 8)
    os.utime(tmp_path / "now.png", ns=(1, 1))
    inputs = tokenizer.images.inputs
    tokenizer.images.inputs = lambda ids, prefixes, images: asked.append(list(images)) or inputs(ids, prefixes, images)
    policy.act([game])
    del tokenizer.images.inputs
    assert asked == [list(game.turns[0].images)]


def test_another_picture_is_another_value(models, tokenizer, histories, tmp_path):
    policy = player(models, tokenizer)
    other = Trajectory([Turn("user", "up?\n", images=(families.save(tmp_path, "o.png", 77),))])
    priors = [max(value.prior for value in policy.q_values(history)) for history in (histories[0], other)]
    assert abs(priors[0] - priors[1]) > 1e-4


def test_it_never_says_an_image(models, tokenizer, histories):
    policy = player(models, tokenizer, Extraction("product"))
    head = policy.model.likelihood.get_output_embeddings().weight
    with torch.no_grad():
        kept = head.clone()
        head[tokenizer.images.token_ids] *= 50
        texts = policy.act(histories)
        shown = [value for history in histories for value in policy.q_values(history, support=0.0)]
        head.copy_(kept)
    assert all(tokenizer.images.placeholder not in text for text in texts)
    chances = [value.probability for value in shown if value.token_id in tokenizer.images.token_ids]
    assert chances and not any(chances)


def test_beams_of_several_rows_with_images_are_refused(models, tokenizer, histories):
    policy = player(models, tokenizer)
    inputs = policy._left_padded([policy._prompt(history) for history in histories])
    with pytest.raises(ConfigError, match="one row at a time"):
        policy.model.generate(**inputs, num_beams=2, max_new_tokens=2)
