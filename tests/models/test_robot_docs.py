"""docs/robots.md: its examples run one after the other, and its table holds the defaults."""

import inspect
import re
from pathlib import Path

import pytest

from qsft.models import RobotTransformerConfig
from qsft.settings_file import read_yaml

PAGE = Path(__file__).parents[2] / "docs/robots.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        exec(block.replace('"max_steps": 10', '"max_steps": 1, "use_cpu": True'), names)
    assert names["vector"] is None or names["vector"].shape == (2,)
    assert names["processor"].image_tokens == 8


def test_the_table_holds_the_defaults() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", PAGE.read_text(), re.MULTILINE))
    known = inspect.signature(RobotTransformerConfig.__init__).parameters
    left_out = {"self", "kwargs", "vocab_size", "initializer_range", "pad_token_id", "bos_token_id", "eos_token_id"}
    assert set(table) == set(known) - left_out
    written = {name: read_yaml(value, "table") for name, value in table.items()}
    assert written == {name: known[name].default for name in table}
