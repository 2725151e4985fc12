"""YAML as people mean it."""

import pytest

from qsft.errors import ConfigError
from qsft.settings_file import read_yaml


def test_numbers_are_numbers_and_quoted_text_is_text():
    text = "{rate: 3e-4, big: 1E5, dot: 2.5e+1, whole: 12, secret: '12345', code: \"007\", word: e5, point: 1.5}"
    read = read_yaml(text, "x.yaml")
    assert [read[name] for name in ("rate", "big", "dot", "point")] == [3e-4, 1e5, 25.0, 1.5]
    assert [read[name] for name in ("secret", "code", "word")] == ["12345", "007", "e5"]
    assert read["whole"] == 12
    assert isinstance(read["whole"], int)


def test_what_is_no_yaml_is_one_line():
    with pytest.raises(ConfigError, match=r"--set gamma: cannot be read as YAML") as raised:
        read_yaml("[1", "--set gamma")
    assert "\n" not in str(raised.value)
