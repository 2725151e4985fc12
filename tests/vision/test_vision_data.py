"""Images in trajectories: their tokens against the processors' own, masks, files, and what cannot be used."""

from __future__ import annotations

import itertools
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qsft.data import Trajectory, TrajectoryCollator, TrajectoryTokenizer, Turn, summarise, tokenize_file
from qsft.data.dataset import FEATURES
from qsft.data.pictures import png, read_picture
from qsft.errors import ConfigError, DataError
from tests.models import tiny
from tests.vision import families

CHAT_FAMILIES = [family for family in families.FAMILIES if family != "paligemma"]


@pytest.fixture(scope="module", params=families.FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def tokenizers():
    return {family: TrajectoryTokenizer(families.processor(family)) for family in families.FAMILIES}


def images_of(trajectory):
    return [Image.open(path).convert("RGB") for turn in trajectory.turns for path in turn.images]


def parts(turns):
    return [
        {"role": turn.role, "content": [*[{"type": "image"}] * len(turn.images), {"type": "text", "text": turn.text}]}
        for turn in turns
    ]


class TestTokens:
    @pytest.mark.parametrize("family", CHAT_FAMILIES)
    def test_are_those_of_the_processor_for_the_whole_chat(self, family, tokenizers, tmp_path):
        processor = families.processor(family)
        sizes = [(8, 8), (16, 12), (8, 40)]
        for trajectory in families.episodes(tmp_path, 6, sizes):
            images = images_of(trajectory)
            open_end = trajectory.ended == "truncated" and not trajectory.turns[-1].is_agent
            text = processor.apply_chat_template(parts(trajectory.turns), add_generation_prompt=open_end)
            expected = processor(text=[text], images=[images] if images else None)["input_ids"][0]
            found = tokenizers[family](trajectory)["input_ids"]
            # behind the last end of turn the template writes a newline, from which nobody learns
            assert list(expected)[: len(found)] == found and len(expected) - len(found) == (0 if open_end else 1)

    @pytest.mark.parametrize("images", [0, 1, 2])
    def test_paligemma_reads_images_bos_and_text(self, images, tokenizers, tmp_path):
        processor = families.processor("paligemma")
        paths = tuple(families.save(tmp_path, f"{i}.png", i) for i in range(images))
        found = tokenizers["paligemma"].prompt(Trajectory([Turn("user", "up?\n", images=paths)]))
        if images:
            pictures = [Image.open(path) for path in paths]
            expected = processor(text=["<image>" * images + "up?"], images=[pictures])["input_ids"][0]
        else:
            expected = processor.tokenizer("<bos>up?\n", add_special_tokens=False)["input_ids"]
        assert found == list(expected)

    def test_masks_hold_what_the_agent_said(self, family, tokenizers, tmp_path):
        tokenizer = tokenizers[family]
        for trajectory in families.episodes(tmp_path, 6):
            row = tokenizer(trajectory)
            said, start = [], None
            for i, (mine, end) in enumerate(zip(row["agent_mask"], row["turn_end"], strict=True)):
                start = i if mine and start is None else start
                if end:
                    said.append(tokenizer.action_text(row["input_ids"][start : i + 1]))
                    start = None
            assert said == [turn.text for turn in trajectory.agent_turns]
            assert row["images"] == [path for turn in trajectory.turns for path in turn.images]

    def test_what_precedes_a_turn_is_its_prompt(self, family, tokenizers, tmp_path):
        tokenizer = tokenizers[family]
        for trajectory in families.episodes(tmp_path, 6):
            row = tokenizer(trajectory)
            starts = [i for i, m in enumerate(row["agent_mask"]) if m and not row["agent_mask"][i - 1]]
            agents = [i for i, turn in enumerate(trajectory.turns) if turn.is_agent]
            for start, turn in zip(starts, agents, strict=True):
                prompt = tokenizer.read(Trajectory(trajectory.turns[:turn]))
                assert prompt.input_ids == row["input_ids"][:start]
                assert list(prompt.images) == [image for t in trajectory.turns[:turn] for image in t.images]
                assert prompt.prefix == min(starts[0], start)

    def test_an_image_stands_where_the_text_says(self, tokenizers, tmp_path):
        path = families.save(tmp_path, "a.png", 0)
        said = Turn("assistant", "up", 1.0)
        row = tokenizers["llava"](Trajectory([Turn("user", "see <image> here", images=(path,)), said], "terminated"))
        text = families.processor("llava").tokenizer.decode(row["input_ids"])
        assert "user\nsee " + "<image>" * 4 + " here<|im_end|>" in text

    def test_a_template_that_reads_text_only(self, tmp_path):
        processor = families.processor("llava")
        template = (
            "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        )
        processor.chat_template = template + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
        path = families.save(tmp_path, "a.png", 0)
        found = TrajectoryTokenizer(processor).prompt(Trajectory([Turn("user", "up?", images=(path,))]))
        text = "<|im_start|>user\n" + "<image>" * 4 + "up?<|im_end|>\n<|im_start|>assistant\n"
        assert processor.tokenizer.decode(found) == text

    def test_a_long_row_loses_the_images_of_its_oldest_exchanges(self, tmp_path):
        processor = families.processor("llava")
        paths = [families.save(tmp_path, f"{i}.png", i) for i in range(4)]
        turns = [t for i in range(4) for t in (Turn("user", "?\n", images=(paths[i],)), Turn("assistant", "a", 0.0))]
        whole = TrajectoryTokenizer(processor)(Trajectory(turns, "terminated"))
        half = TrajectoryTokenizer(processor)(Trajectory(turns[4:], "terminated"))
        cut = TrajectoryTokenizer(processor, max_length=len(half["input_ids"]))
        assert cut(Trajectory(turns, "terminated")) == half
        assert half["images"] == paths[2:] and whole["images"] == paths
        assert cut.read(Trajectory(turns[:-1]), reply_tokens=2).images == (paths[2], paths[3])


class TestBatches:
    def test_the_processor_reads_each_image_once_in_order(self, family, tokenizers, tmp_path):
        """Pixels of a batch are those of each row alone, one after the other."""
        tokenizer = tokenizers[family]
        rows = [tokenizer(trajectory) for trajectory in families.episodes(tmp_path, 4)]
        collator = TrajectoryCollator(0, images=tokenizer.images)
        together, flat = collator(rows), []
        for row in rows:
            if row["images"]:
                pixels = collator([row])["pixel_values"]
                flat.append(pixels[0] if family == "idefics3" else pixels)
        pixels = together["pixel_values"]
        assert torch.equal(pixels[0] if family == "idefics3" else pixels, torch.cat(flat))

    def test_text_alone_has_no_pixels(self, family, tokenizers):
        tokenizer = tokenizers[family]
        row = tokenizer(Trajectory([Turn("user", "up?\n"), Turn("assistant", "up\n", 0.0)], "terminated"))
        assert row["images"] == []
        extra = set(TrajectoryCollator(0, images=tokenizer.images)([row])) - set(TrajectoryCollator(0)([row]))
        assert all(key.endswith("token_type_ids") for key in extra)

    def test_types_of_tokens(self, tokenizers, tmp_path):
        path = families.save(tmp_path, "a.png", 0)
        turns = [
            Turn("user", "ab\n", images=(path,)),
            Turn("assistant", "c\n", 0.0),
            Turn("user", "d\n", images=(path,)),
        ]
        for family, name in (("paligemma", "token_type_ids"), ("qwen3_vl", "mm_token_type_ids")):
            tokenizer = tokenizers[family]
            row = tokenizer(Trajectory(turns, "truncated"))
            types = TrajectoryCollator(0, images=tokenizer.images)([row])[name][0].tolist()
            if family == "paligemma":  # 1 from the first token of the agent on: what stands before is read as a whole
                assert types == list(itertools.accumulate(row["agent_mask"], max))
            else:
                assert types == [int(token == tokenizer.images.token_ids[0]) for token in row["input_ids"]]
                assert sum(types) == 2


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row_of(content, images=(), reward=1.0):
    user = {"role": "user", "content": content, "images": list(images)}
    return {"messages": [user, {"role": "assistant", "content": "up"}], "rewards": [reward]}


class TestFiles:
    def test_paths_are_relative_to_the_file_and_pixels_are_not_stored(self, tmp_path, monkeypatch):
        families.save(tmp_path / "games" / "pictures", "a.png", 0, 64, 64)
        file = write(tmp_path / "games" / "g.jsonl", row_of("up?", ["pictures/a.png"]), row_of("left?"))
        monkeypatch.chdir(tmp_path)
        made = tokenize_file(file, TrajectoryTokenizer(families.processor("llava")), tmp_path / "cache")
        assert made["images"] == [[str(tmp_path / "games" / "pictures" / "a.png")], []]
        stored = Path(made.cache_files[0]["filename"])
        assert stored.stat().st_size < 64 * 64 * 3
        assert summarise(file, families.processor("llava")).episodes == 2

    def test_the_cache_knows_processor_and_folder(self, tmp_path):
        def key(folder, processor):
            families.save(folder, "a.png", 0)
            file = write(folder / "g.jsonl", row_of("up?", ["a.png"]))
            return tokenize_file(file, TrajectoryTokenizer(processor), tmp_path / "cache").cache_files[0]["filename"]

        first = key(tmp_path / "one", families.processor("llava"))
        assert key(tmp_path / "one", families.processor("llava")) == first
        assert key(tmp_path / "two", families.processor("llava")) != first
        finer = families.processor("llava")
        finer.patch_size = 2
        assert key(tmp_path / "one", finer) != first

    def test_text_rows_are_as_they_were(self, tmp_path):
        made = tokenize_file(tiny.trajectories(3), TrajectoryTokenizer(tiny.tokenizer()), tmp_path)
        assert made.column_names == [*FEATURES]

    @pytest.mark.parametrize(
        ("content", "images", "message"),
        [
            ("up?", ["none.png"], r"row 2: turn 1: image .*none.png: no such file"),
            ("up?", ["text.png"], r"row 2: turn 1: image .*text.png: cannot be read"),
            ("up?", ["half.png"], r"row 2: turn 1: image .*half.png: cannot be read"),
            ("up?", ["half.jpg"], r"row 2: turn 1: image .*half.jpg: cannot be read"),
            (
                "<image><image>up?",
                ["a.png"],
                r"row 2: turn 1: the text has 2 image placeholders \(<image>\) .* 1 images",
            ),
            ("<image>up?", [], r"row 2: turn 1: the text has 1 image placeholders \(<image>\) .* 0 images"),
        ],
    )
    def test_what_cannot_be_used(self, tmp_path, content, images, message):
        families.save(tmp_path, "a.png", 0)
        (tmp_path / "text.png").write_text("no image")
        for kind in ("png", "jpg"):
            whole = tmp_path / f"whole.{kind}"
            Image.fromarray(families.picture(0, 60, 60)).save(whole)
            (tmp_path / f"half.{kind}").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        file = write(tmp_path / "g.jsonl", row_of("up?", ["a.png"]), row_of(content, images))
        with pytest.raises(DataError, match=message):
            tokenize_file(file, TrajectoryTokenizer(families.processor("llava")), tmp_path / "cache")
        assert not list((tmp_path / "cache").iterdir())

    def test_images_of_the_agent_and_in_memory_and_without_a_processor(self, tmp_path, tokenizers):
        path = families.save(tmp_path, "a.png", 0)
        shown = [Turn("user", "up?", images=(path,)), Turn("assistant", "up", 0.0)]
        spoken = [Turn("user", "up?"), Turn("assistant", "up", 0.0, images=(path,))]
        held = [Turn("user", "up?", images=(png(families.picture(0)),)), Turn("assistant", "up", 0.0)]
        for tokenizer, turns, message in (
            (tokenizers["llava"], spoken, "turn 2: the agent's message has images"),
            (tokenizers["llava"], held, "pictures in memory"),
            (TrajectoryTokenizer(tiny.tokenizer()), shown, "turn 1: has images, and a tokenizer reads text only"),
        ):
            with pytest.raises(DataError, match=message):
                tokenizer(Trajectory(turns, "terminated"))

    def test_images_that_change_after_tokenisation(self, tmp_path):
        path = families.save(tmp_path, "a.png", 0)
        file = write(tmp_path / "g.jsonl", row_of("up?", ["a.png"]))
        tokenizer = TrajectoryTokenizer(families.processor("idefics3"))
        rows = list(tokenize_file(file, tokenizer, tmp_path / "cache"))
        collator = TrajectoryCollator(0, images=tokenizer.images)
        collator(rows)
        families.save(tmp_path, "a.png", 0, 8, 100)
        with pytest.raises(DataError, match=r"rows 1: .*a.png .* another size than when the data was tokenised"):
            collator(rows)
        Path(path).unlink()
        with pytest.raises(DataError, match=r"rows 1: image .*a.png: no such file"):
            collator(rows)


class TestPlay:
    def test_a_placeholder_that_a_policy_writes_ends_no_game(self, tokenizers, tmp_path):
        path = families.save(tmp_path, "a.png", 0)
        turns = [Turn("user", "up?", images=(path,)), Turn("assistant", "<image> left<image>"), Turn("user", "so?")]
        clean = [turns[0], Turn("assistant", " left"), turns[2]]
        assert tokenizers["llava"].read(Trajectory(turns)) == tokenizers["llava"].read(Trajectory(clean))

    def test_pictures_in_memory_are_read_like_files(self, tokenizers, tmp_path):
        pixels = families.picture(3, 9, 7)
        path = families.save(tmp_path, "a.png", 3, 9, 7)
        assert np.array_equal(np.asarray(read_picture(png(pixels))), pixels)
        tokenizer = tokenizers["idefics3"]
        made = []
        for image in (path, png(pixels)):
            prompt = tokenizer.read(Trajectory([Turn("user", "up?", images=(image,))]))
            ids = np.array([prompt.input_ids])
            made.append(
                (prompt.input_ids, tokenizer.images.inputs(ids, [prompt.prefix], prompt.images)["pixel_values"])
            )
        assert made[0][0] == made[1][0] and torch.equal(made[0][1], made[1][1])


class Odd:
    """A processor in name; puts ``ids(images)`` into a text."""

    image_token, image_token_id = "<image>", 4

    def __init__(self, ids, **more):
        self.tokenizer, self.ids, self.more = families.byte_tokenizer("<image>"), ids, more

    def __call__(self, text, images, **settings):
        return {"input_ids": [self.ids(len(images[0]))], **self.more}


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (Odd(lambda images: [4] * images, cross_attention_mask=[]), "its model reads images beside the text"),
        (Odd(lambda images: [4, *[5] * images]), "does not put the same tokens for each image"),
        (Odd(lambda images: []), "does not put the same tokens for each image"),
    ],
)
def test_processors_that_do_not_fit(odd, message):
    with pytest.raises(ConfigError, match=message):
        TrajectoryTokenizer(odd)
    for name, message in (("image_token_id", "has no image_token_id"), ("image_token", "has no image_token,")):
        odd.__dict__[name] = None
        with pytest.raises(ConfigError, match=message):
            TrajectoryTokenizer(odd)


def test_a_collator_goes_to_other_processes(tokenizers, tmp_path):
    tokenizer = tokenizers["idefics3"]
    rows = [tokenizer(trajectory) for trajectory in families.episodes(tmp_path, 3)]
    collator = TrajectoryCollator(0, images=tokenizer.images)
    sent = pickle.loads(pickle.dumps(collator))
    assert torch.equal(sent(rows)["pixel_values"], collator(rows)["pixel_values"])
