"""The page's examples run as they stand, with a tiny model in the place of the one from the hub."""

from __future__ import annotations

import json
import re
from pathlib import Path

from qsft.data import trajectory_from_row
from qsft.models.scratch import model_from_config
from qsft.settings_file import read_yaml
from tests.vision import families

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "vision.md").read_text(encoding="utf-8")
HUB_ID = '"HuggingFaceTB/SmolVLM-256M-Instruct"'


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    families.make("idefics3").save_pretrained("tiny")
    families.processor("idefics3").save_pretrained("tiny")
    (row,) = blocks("json")
    row = json.loads(row)
    assert len(trajectory_from_row(row).rewards) == 2
    for name in ("0001.png", "0002.png", "new.png"):
        families.save(tmp_path / "pictures", name, len(name), 20, 30)
    lost = {**row, "rewards": [0.0, 0.0]}
    Path("episodes.jsonl").write_text("".join(json.dumps(each) + "\n" for each in (row, lost) * 4))
    (example,) = blocks("python")
    assert HUB_ID in example
    assert len([line for line in example.splitlines() if line and not line.startswith("from ")]) <= 10
    exec(example.replace(HUB_ID, '"tiny"'), {})
    assert "TokenValue" in capsys.readouterr().out


def test_the_models_named_are_those_tested():
    listed = re.findall(r"^\| ([\w.-]+)(?: \(.*\))? \| `(\w+)` \|", PAGE, re.MULTILINE)
    made = {family.replace("_", "").lower(): families.processor(family) for family in families.FAMILIES}
    assert {name.lower().replace(".", "").replace("-", "") for name, _ in listed} == set(made)
    for name, processor in listed:
        kinds = [kind.__name__ for kind in type(made[name.lower().replace(".", "").replace("-", "")]).__mro__]
        assert processor in kinds


def test_the_config_makes_a_model():
    text, of_a_study = blocks("yaml")
    settings, processor = read_yaml(text, "text")["model"], families.processor("llava")
    model = model_from_config(settings, processor, 0)
    assert model.config.text_config.vocab_size == len(processor.tokenizer)
    assert model.config.image_token_id == processor.image_token_id
    assert len(model.base_model.vision_tower.encoder.layers) == settings["vision_config"]["num_hidden_layers"]
    study = read_yaml((ROOT / "experiments/agents/alfworld-image.yaml").read_text(encoding="utf-8"), "study")
    assert read_yaml(of_a_study, "text") == {"tokenizer": study["tokenizer"]}
