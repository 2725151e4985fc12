"""What a run does on disk: results that appear whole or not at all, and full disks."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qsft.data.text_files import write_text


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder that takes its name only when the block ends well; its files join an existing folder then."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            for file in partial.iterdir():
                os.replace(file, folder / file.name)
            partial.rmdir()
        else:
            os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def disk_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error; ``safetensors`` and ``torch.save`` say so in words of their own."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(error) for words in ("No space left", "iostream error", "PytorchStreamWriter failed")):
            return True
        error = error.__cause__ or error.__context__
    return False
