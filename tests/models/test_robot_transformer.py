"""The robot transformer: what a token sees, the cache, images at their places, and that it is like any causal LM."""

import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from qsft.errors import CheckpointError, ConfigError
from qsft.models import RobotTransformerConfig, RobotTransformerForCausalLM, check_head, output_head, robot_processor
from qsft.models.new_tokens import start_token_rows
from qsft.models.number_tokens import number_tokens
from qsft.models.robot_transformer import Places
from qsft.models.scratch import model_from_config, word_level_tokenizer

IMAGE = 29
SIZES = {"vocab_size": 30, "hidden_size": 32, "intermediate_size": 48, "pad_token_id": 0, "bos_token_id": 1}
SIZES |= {"eos_token_id": 3}
#: bos, then four steps of an observation of four tokens and an action of three, each with the end of turn, 3
IDS = torch.tensor([[1, *(token for step in range(4) for token in (7 + step, 12, 13, 3, 20 + step, 25, 3))]])


def make(**settings):
    torch.manual_seed(0)
    model = RobotTransformerForCausalLM(RobotTransformerConfig(**SIZES, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


@pytest.mark.parametrize("history", [1, 2, 3])
def test_a_token_sees_as_many_steps_as_its_history(history):
    """Through one layer; a second reaches further."""
    model = make(history=history, layers=1)
    plain = model(IDS).logits[0]
    for changed in range(1, IDS.shape[1]):
        ids = IDS.clone()
        ids[0, changed] = 28 if ids[0, changed] != 3 else 3
        moved = (model(ids).logits[0] - plain).abs().amax(-1) > 1e-6
        step = (changed - 1) // 7
        for position in range(1, IDS.shape[1]):
            sees = changed <= position and (position - 1) // 7 - step < history
            assert moved[position] == (sees and IDS[0, changed] != 3), (changed, position)


def test_with_one_step_of_history_the_past_makes_no_difference():
    """Wherever the history is cut, and whatever else is in the batch: the same logits for the last step."""
    model = make()
    whole = model(IDS).logits[0, -7:]
    cut = torch.cat([IDS[:, :1], IDS[:, -7:]], dim=1)
    torch.testing.assert_close(model(cut).logits[0, -7:], whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(IDS[:, -7:]).logits[0], whole, atol=1e-5, rtol=1e-5)
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), cut], dim=1)
    mask = (torch.arange(padded.shape[1]) >= 5).long()[None]
    torch.testing.assert_close(model(padded, attention_mask=mask).logits[0, -7:], whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pads", [1, 2, 3])
def test_padding_of_the_token_that_ends_turns_is_no_turn(pads):
    """What stands in for a padding token where a tokenizer has none."""
    model = make()
    padded = torch.cat([torch.full((1, pads), SIZES["eos_token_id"]), IDS], dim=1)
    mask = (torch.arange(padded.shape[1]) >= pads).long()[None]
    found = model(padded, attention_mask=mask).logits[:, pads:]
    torch.testing.assert_close(found, model(IDS).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("history", [1, 2])
def test_the_cache_gives_what_one_pass_gives(history):
    model = make(history=history)
    whole = model(IDS).logits
    found, cache = [], None
    for piece in IDS.split([9, 1, 1, 6, 1, 11], dim=1):
        output = model(piece, cache=cache, use_cache=True)
        cache = output.cache
        found.append(output.logits)
    torch.testing.assert_close(torch.cat(found, dim=1), whole, atol=1e-5, rtol=1e-5)
    said = model.generate(IDS[:, :12], max_new_tokens=4, num_beams=3, do_sample=False, pad_token_id=0)
    assert said.shape[1] <= 16


def test_a_cache_whose_padding_changed_is_as_good():
    """From turn to turn the cache's rows move, as other rows of the batch get longer or end."""
    model = make(history=3)
    padded = torch.cat([torch.zeros(1, 2, dtype=torch.long), IDS[:, :15]], dim=1)
    mask = (torch.arange(17) >= 2).long()[None]
    cache = model(padded, attention_mask=mask, use_cache=True).cache
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, 2:], layer.values[:, :, 2:]
    found = model(IDS[:, 15:], cache=cache, use_cache=True).logits
    torch.testing.assert_close(found, model(IDS).logits[:, 15:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("history", [1, 2])
@pytest.mark.parametrize("cut", [3, 8, 11, 15])
@pytest.mark.parametrize("holes", [1, 4])
def test_padding_in_the_middle_is_as_if_it_were_not_there(history, cut, holes):
    """What play puts between what a cache holds of a row and what is read: also where a step ends, or in an action."""
    model, pad = make(history=history), torch.zeros(1, holes, dtype=torch.long)
    ids = torch.cat([IDS[:, :cut], pad, IDS[:, cut:]], dim=1)
    mask = torch.ones_like(ids)
    mask[:, cut : cut + holes] = 0
    whole = model(IDS).logits
    cache = model(IDS[:, :cut], use_cache=True).cache
    found = model(ids[:, cut:], attention_mask=mask, cache=cache, use_cache=True).logits
    torch.testing.assert_close(found[:, holes:], whole[:, cut:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(ids, attention_mask=mask).logits[mask.bool()], whole[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("ends", ["whole", "inside a step"])
def test_steps_as_rows_give_what_masked_attention_gives(ends):
    """Two episodes of unlike length, one padded on the right, gradients included."""
    model = make()
    short = 15 if ends == "whole" else 12
    ids = torch.cat([IDS, IDS.flip(0)])
    ids[1, short:] = 0
    mask = (torch.arange(ids.shape[1]) < torch.tensor([[ids.shape[1]], [short]])).long()

    def read(**inputs):
        model.zero_grad()
        logits = model(ids, attention_mask=mask, **inputs).logits
        (logits.logsumexp(-1) * mask).sum().backward()
        return logits[mask.bool()], [p.grad.clone() for p in model.parameters()]

    rows, masked = read(), read(use_cache=True)
    torch.testing.assert_close(rows[0], masked[0], atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(rows[1], masked[1], strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ("no/where", "vision: no/where: no backbone can be loaded from there"),
        ({"out_features": ["stage4"]}, "give a backbone's config with its model_type"),
        ({"model_type": "no such thing"}, "model: vision: "),
        (
            {"model_type": "resnet", "out_featurez": ["stage4"]},
            "model: vision: ResNetConfig has no setting 'out_featurez'",
        ),
        ({"model_type": "vit"}, "robot_transformer: vision: "),
    ],
)
def test_backbones_that_cannot_be_made(vision, message):
    settings = {"model_type": "robot_transformer", "image_token_id": 3, "vision": vision}
    with pytest.raises(ConfigError, match=message) as caught:
        model_from_config(settings, word_level_tokenizer(["a1"]), 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("history", "layers"), [(2, 2), (3, 2), (2, 3)])
def test_each_layer_reaches_further_back(history, layers):
    model = make(history=history, layers=layers)
    ids = torch.cat([IDS, IDS[:, 1:], IDS[:, 1:]], dim=1)  # twelve steps
    plain = model(ids).logits[0, -1]
    reached = []
    for ago in range(12):
        changed = ids.clone()
        changed[0, -7 * ago - 6] = 28
        if (model(changed).logits[0, -1] - plain).abs().max() > 1e-6:
            reached.append(ago)
    assert reached == list(range(layers * (history - 1) + 1))


def with_images():
    """``(model, ids, images)``: two steps, an image of two tokens each."""
    model = make(image_token_id=IMAGE, image_tokens=2)
    ids = torch.tensor([[1, IMAGE, IMAGE, 3, 20, 21, 3, IMAGE, IMAGE, 3, 22, 23, 3]])
    return model, ids, torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_images_stand_at_their_tokens():
    model, ids, images = with_images()
    plain = model(ids, pixel_values=images).logits[0]
    for number, places in ((0, range(1, 7)), (1, range(7, 13))):
        other = images.clone()
        other[number] += torch.randn(3, 64, 64)
        moved = (model(ids, pixel_values=other).logits[0] - plain).abs().amax(-1) > 1e-6
        assert moved.nonzero().flatten().tolist() == list(places)
    embedded = model.model._embedded(ids, images)
    torch.testing.assert_close(embedded[0, [1, 2, 7, 8]], model.model.vision(images).flatten(0, 1))
    torch.testing.assert_close(embedded[0, 4], model.model.embed_tokens.weight[20])


@pytest.mark.parametrize("tokens", [1, 6, 8, 16])
def test_fresh_tokens_look_at_parts_of_the_picture_and_tell_them_apart(tokens):
    torch.manual_seed(0)
    config = RobotTransformerConfig(**{**SIZES, "hidden_size": 96}, image_token_id=IMAGE, image_tokens=tokens)
    seeing = RobotTransformerForCausalLM(config).model.vision
    pictures = torch.rand(16, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        read = seeing(pictures)
    assert read.std(0).mean() > Places.STD / 4, "what differs between pictures is heard beside the tokens' places"
    centres = seeing.windows.centres
    assert len({tuple(centre) for centre in centres.tolist()}) == tokens and centres.abs().max() < 1
    if tokens < 8:
        return
    grey = torch.zeros(1, 3, 64, 64)
    for token, (row, column) in enumerate(((centres + 1) * 32).int().tolist()):
        marked = grey.clone()
        marked[:, :, row - 4 : row + 4, column - 4 : column + 4] = torch.tensor([1.0, -1.0, 1.0])[:, None, None]
        with torch.no_grad():
            moved = (seeing(marked) - seeing(grey)).norm(dim=-1)[0]
        assert moved.argsort(descending=True)[:3].eq(token).any()


def test_generation_reads_images_once_and_a_cut_cache_is_no_matter():
    model, ids, images = with_images()
    whole = model(ids, pixel_values=images).logits
    first = model(ids[:, :10], pixel_values=images, use_cache=True)
    second = model(ids[:, 10:], pixel_values=images, cache=first.cache, use_cache=True)
    torch.testing.assert_close(torch.cat([first.logits, second.logits], dim=1), whole, atol=1e-5, rtol=1e-5)


def test_a_backbone_of_hugging_face():
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    vision = {**ResNetConfig(**sizes).to_dict(), "out_features": ["stage2"]}
    model = make(image_token_id=IMAGE, image_tokens=2, vision=vision)
    _, ids, images = with_images()
    loss = model(ids, pixel_values=images).logits.logsumexp(-1).mean()
    loss.backward()
    assert all(p.grad is not None for p in model.model.vision.encoder.embedder.parameters())


def test_a_backbone_begins_with_its_pretrained_weights(tmp_path):
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    pretrained = ResNetForImageClassification(ResNetConfig(**sizes, num_labels=2))
    pretrained.save_pretrained(tmp_path / "resnet")
    ViTImageProcessor(image_mean=[0.4, 0.5, 0.6], image_std=[0.1, 0.2, 0.3]).save_pretrained(tmp_path / "resnet")
    name = str(tmp_path / "resnet")
    processor = robot_processor(word_level_tokenizer(["a1"]), image_size=8, image_tokens=2, backbone=name)
    settings = {"model_type": "robot_transformer", "hidden_size": 32, "vision": name, "image_tokens": 2}
    model = model_from_config(settings | {"image_token_id": processor.image_token_id}, processor, 0)
    mine, theirs = model.model.vision.encoder.state_dict(), pretrained.resnet.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine) and len(mine) == len(theirs)
    white = processor(text=["<image>\n"], images=[[np.full((8, 8, 3), 255, np.uint8)]], return_tensors="pt")
    assert white["pixel_values"][0, :, 0, 0].tolist() == pytest.approx([6.0, 2.5, 4 / 3])
    model.save_pretrained(tmp_path / "robot")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "robot")
    shutil.rmtree(name)  # the robot's own folder holds all of it
    inputs = {key: white[key] for key in ("input_ids", "pixel_values")}
    assert_same(again, model)
    torch.testing.assert_close(again.eval()(**inputs).logits, model.eval()(**inputs).logits)
    with pytest.raises(CheckpointError, match="no image processor can be loaded from there"):
        robot_processor(word_level_tokenizer(["a1"]), backbone=str(tmp_path))


def test_every_copy_of_a_row_sees_its_own_images():
    """Beams, and several replies to a prompt."""
    model, ids, images = with_images()
    alone = model.generate(ids, pixel_values=images, max_new_tokens=3, do_sample=False)
    torch.manual_seed(0)
    copies = model.generate(
        ids, pixel_values=images, max_new_tokens=3, do_sample=True, temperature=1e-4, num_return_sequences=3
    )
    assert torch.equal(copies, alone.expand(3, -1))
    with pytest.raises(ConfigError, match="takes one row at a time"):
        model.generate(ids.expand(2, -1), pixel_values=images.repeat(2, 1, 1, 1), max_new_tokens=3, num_beams=2)


def test_an_image_token_that_is_drawn_shows_nothing():
    model, ids, images = with_images()
    with torch.no_grad():
        model.lm_head.weight[IMAGE] += 100 * torch.sign(model.lm_head.weight[IMAGE])
    torch.manual_seed(0)
    said = model.generate(ids.repeat(1, 1), pixel_values=images, max_new_tokens=8, do_sample=True, top_k=0)
    assert (said[0, ids.shape[1] :] == IMAGE).any() and said.shape[1] > ids.shape[1] + 1


def test_a_loss_as_hugging_face_asks_for_it():
    model = make()
    found = model(IDS, labels=IDS).loss
    expected = torch.nn.functional.cross_entropy(model(IDS).logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
    torch.testing.assert_close(found, expected)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    model, ids, images = with_images()
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.config.to_diff_dict() | {"_name_or_path": ""} == model.config.to_diff_dict() | {"_name_or_path": ""}
    assert_same(again, model)
    torch.testing.assert_close(again.eval()(ids, pixel_values=images).logits, model(ids, pixel_values=images).logits)
    bare = AutoModel.from_pretrained(tmp_path).eval()
    assert_same(bare, model.model)
    hidden = bare(ids, pixel_values=images).last_hidden_state
    torch.testing.assert_close(hidden, model.model(ids, pixel_values=images).last_hidden_state)


def assert_same(found, expected):
    """Weights are equal to the bit; outputs need not be, as kernels round by where in memory a weight begins."""
    found, expected = found.state_dict(), expected.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_it_is_a_model_that_the_trainers_know():
    model = make()
    check_head(model)
    assert output_head(model)[0].shape == (30, 32)
    start_token_rows(model, [30, 31])
    assert output_head(model)[0].shape == (32, 32)
    assert model(torch.tensor([[1, 30, 31]])).logits.shape == (1, 3, 32)


def test_what_is_refused():
    model, ids, images = with_images()
    with pytest.raises(ConfigError, match="1 of them for 4 image tokens; give 2 tokens an image"):
        model(ids, pixel_values=images[:1])
    with pytest.raises(ConfigError, match="made without them"):
        make()(IDS, pixel_values=images)
    with pytest.raises(ConfigError, match="eos_token_id: is missing"):
        RobotTransformerForCausalLM(RobotTransformerConfig())
    with pytest.raises(ConfigError, match="history: 0; give at least 1"):
        RobotTransformerConfig(history=0)
    with pytest.raises(ConfigError, match="multiple of 2"):
        RobotTransformerConfig(hidden_size=30, heads=4)


def test_places_begin_as_large_as_bins():
    model = RobotTransformerForCausalLM(RobotTransformerConfig(**SIZES))
    assert model.model.places.weight.std().item() == pytest.approx(0.2, rel=0.1)
    assert model.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_neighbouring_bins_start_alike():
    tokenizer = word_level_tokenizer([*(f"s{i}" for i in range(32)), *(f"a{i}" for i in range(8)), "go"])
    settings = {"model_type": "robot_transformer", "hidden_size": 32, "numbered_tokens": 0.3}
    model = model_from_config(settings, tokenizer, seed=0)
    ids = tokenizer.convert_tokens_to_ids([f"s{i}" for i in range(32)])
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        rows = table.weight[ids].detach()
        distance = torch.cdist(rows, rows)
        assert all(distance[i, i + 1] < distance[i, i + 6] for i in range(26))
        assert (distance + torch.eye(32)).min() > 0.01, "and no two are the same"
        assert rows.std().item() == pytest.approx(0.3, rel=1e-4)
    with pytest.raises(ConfigError, match="numbered_tokens: no token"):
        number_tokens(model, word_level_tokenizer(["go"]), 0.1)
