"""What a network that has learnt to see reads off new pictures: how far off each feature is.

    python experiments/robots/images/seeing.py runs/images/pick/pretrained

A feature is read as the mean of its bins, given the features before it. Beside the error stands the spread of the
feature itself, which is the error of who sees nothing.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from qsft.data import Trajectory
from qsft.envs import make
from qsft.envs.manipulation import Manipulation
from qsft.models.policy_model import load_causal_lm
from qsft.models.robot_processor import RobotProcessor
from qsft.study_file import Study


@torch.no_grad()
def readings(folder: Path, env: Manipulation, texts: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What is read and what is true, each ``[moments, features]`` in units of the features, text by text."""
    processor, model = RobotProcessor.from_pretrained(folder), load_causal_lm(str(folder)).eval()
    symbols = torch.tensor(processor.tokenizer.convert_tokens_to_ids(env.state_tokens.symbols))
    for text in env.corpus(texts, seed):
        batch = processor(text=[_written(text)], images=[_shown(text)], return_tensors="pt")
        ids = batch["input_ids"][0]
        places = torch.isin(ids, symbols).nonzero()[:, 0]
        chances = model(**batch).logits[0, places - 1][:, symbols].softmax(-1).double()
        bins = torch.arange(len(symbols), dtype=chances.dtype)
        read = (chances @ bins).reshape(-1, len(env.features)).numpy()
        true = (ids[places, None] == symbols).double() @ bins
        tokens = env.state_tokens
        yield tuple(tokens.low + (each + 0.5) * tokens.width for each in (read, true.reshape(read.shape).numpy()))


def _written(text: Trajectory) -> str:
    return "".join(turn.text if turn.is_agent else "<image>" * len(turn.images) + turn.text for turn in text.turns)


def _shown(text: Trajectory) -> list[Image.Image]:
    return [Image.open(io.BytesIO(image)).convert("RGB") for turn in text.turns for image in turn.images]


def table(folder: Path, env: Manipulation, texts: int, seed: int) -> str:
    """Mean error of each feature in its units, and its standard deviation, for the moments of ``texts`` episodes."""
    read, true = (np.concatenate(parts) for parts in zip(*readings(folder, env, texts, seed), strict=True))
    rows = [f"| {len(true)} pictures | mean error | spread |", "|---|---:|---:|"]
    for name, error, spread in zip(env.features, np.abs(read - true).mean(0), true.std(0), strict=True):
        rows.append(f"| {name} | {error:.4f} | {spread:.4f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a study's pretrained model")
    parser.add_argument("--env", default="pick", help="the study's: pick or closed-drawer")
    parser.add_argument("--texts", type=int, default=40, help="of up to 16 pictures each")
    parser.add_argument("--seed", type=int, default=700_000)
    arguments = parser.parse_args()
    study = Study.load(Path(__file__).with_name(f"{arguments.env}.yaml"))
    env = make(study.env, **study.env_options)
    assert isinstance(env, Manipulation)
    print(table(arguments.folder, env, arguments.texts, arguments.seed))


if __name__ == "__main__":
    main()
