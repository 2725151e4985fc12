"""What a file of trajectories holds: the content of ``qsft validate``."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qsft.data.files import PathLike, RowFile
from qsft.data.pictures import read_picture, with_paths
from qsft.data.progress import RowProgress
from qsft.data.rows import trajectory_from_row
from qsft.data.trajectory import Trajectory
from qsft.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from qsft.data.tokenize import TrajectoryTokenizer

_BINS = 10
_BAR = 40
_ROWS_A_BATCH = 500


@dataclass(frozen=True)
class Summary:
    """Counts and spreads over a file.

    Attributes:
        path: the file.
        episodes, turns, agent_turns: how many there are; ``turns`` counts the environment's too.
        characters: in all turns together.
        tokens, agent_tokens, longest: tokens of all rows as training would see them, those of the agent, and the tokens
            of the longest row; ``None`` without a tokenizer.
        return_mean, return_sd, return_min, return_max: of the episodes' undiscounted returns; ``return_sd`` is the
            sample's (divided by n - 1), 0 for one episode.
        histogram: ``(low, high, count)`` of each bin of returns; the last bin includes its upper edge.
        agent_turns_mean, agent_turns_min, agent_turns_max: of the episodes' numbers of agent turns.
        terminated_share: share of the episodes that ended for good, those that do not say it included.
        ended_absent_share: share of the episodes whose row does not say how they ended.
    """

    path: str
    episodes: int
    turns: int
    agent_turns: int
    characters: int
    tokens: int | None
    agent_tokens: int | None
    longest: int | None
    return_mean: float
    return_sd: float
    return_min: float
    return_max: float
    histogram: tuple[tuple[float, float, int], ...]
    agent_turns_mean: float
    agent_turns_min: int
    agent_turns_max: int
    terminated_share: float
    ended_absent_share: float

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {**asdict(self), "histogram": [list(bin) for bin in self.histogram]}


def summarise(path: PathLike, tokenizer: TrajectoryTokenizer | PreTrainedTokenizerBase | None = None) -> Summary:
    """Check every row of a file, and count.

    Memory: 12 bytes an episode (its return and its turns); everything else streams.

    Args:
        path: see :class:`qsft.data.files.RowFile`.
        tokenizer: also tokenises every row, which finds what only a tokenizer can, and counts tokens. A Hugging Face
            tokenizer is used as :class:`TrajectoryTokenizer` uses it by default.

    Raises:
        DataError: at the first row that training could not use; its pictures are read too.
        ConfigError: a tokenizer without a usable end of turn; or there are pictures, and Pillow is not installed.
    """
    if tokenizer is not None:
        from qsft.data.tokenize import TrajectoryTokenizer  # Brings in transformers, which counting rows does not need.

        if not isinstance(tokenizer, TrajectoryTokenizer):
            tokenizer = TrajectoryTokenizer(tokenizer)
    file = RowFile(path)
    returns = array("d")
    agent_turns = array("i")
    turns = characters = tokens = agent_tokens = longest = terminated = absent = 0
    with RowProgress(f"Reading {file.path.name}", file.fraction) as progress:
        rows = _checked(file)
        while batch := list(islice(rows, _ROWS_A_BATCH)):
            for _, trajectory, told in batch:
                rewards = trajectory.rewards
                returns.append(math.fsum(rewards))
                agent_turns.append(len(rewards))
                turns += len(trajectory.turns)
                characters += sum(len(turn.text) for turn in trajectory.turns)
                terminated += trajectory.ended == "terminated"
                absent += not told
            if tokenizer is None:
                for name, trajectory, _ in batch:
                    _check_pictures(trajectory, name)
            else:
                names = [name for name, _, _ in batch]
                columns = tokenizer.batch([trajectory for _, trajectory, _ in batch], names.__getitem__)
                tokens += len(columns.input_ids)
                agent_tokens += int(columns.agent_mask.sum())
                longest = max(longest, int(columns.lengths.max()))
            progress.advance(len(batch))
    values = np.frombuffer(returns)
    counts = np.frombuffer(agent_turns, np.int32)
    counted, edges = _bins(values)
    return Summary(
        path=str(file.path),
        episodes=len(values),
        turns=turns,
        agent_turns=int(counts.sum()),
        characters=characters,
        tokens=None if tokenizer is None else tokens,
        agent_tokens=None if tokenizer is None else agent_tokens,
        longest=None if tokenizer is None else longest,
        return_mean=float(values.mean()),
        return_sd=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        return_min=float(values.min()),
        return_max=float(values.max()),
        histogram=tuple(
            (float(low), float(high), int(count))
            for low, high, count in zip(edges[:-1], edges[1:], counted, strict=True)
        ),
        agent_turns_mean=float(counts.mean()),
        agent_turns_min=int(counts.min()),
        agent_turns_max=int(counts.max()),
        terminated_share=terminated / len(values),
        ended_absent_share=absent / len(values),
    )


def _bins(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts and edges; one bin where the values differ by rounding alone."""
    low, high = values.min(), values.max()
    alike = high - low <= _BINS * np.spacing(max(abs(low), abs(high)))
    return (np.array([len(values)]), np.array([low, high])) if alike else np.histogram(values, _BINS)


def render(summary: Summary) -> RenderableType:
    """The summary for a terminal: a table of counts and a histogram of returns."""
    table = Table(title=summary.path, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("episodes", f"{summary.episodes:,}")
    table.add_row("turns", f"{summary.turns:,} ({summary.agent_turns:,} of the agent)")
    table.add_row(
        "agent turns an episode",
        f"{summary.agent_turns_mean:.2f} ({summary.agent_turns_min} to {summary.agent_turns_max})",
    )
    if summary.tokens is None:
        table.add_row("characters", f"{summary.characters:,}")
    else:
        table.add_row("tokens", f"{summary.tokens:,} ({summary.agent_tokens:,} of the agent)")
        table.add_row("longest episode", f"{summary.longest:,} tokens")
    table.add_row("return, mean ± sd", f"{summary.return_mean:.3f} ± {summary.return_sd:.3f}")
    table.add_row("return, range", f"{summary.return_min:g} to {summary.return_max:g}")
    table.add_row("terminated", f"{summary.terminated_share:.1%}")
    if summary.ended_absent_share:
        table.add_row("ended not said", f"{summary.ended_absent_share:.1%} (taken as terminated)")
    return Group(table, Text("returns", style="bold"), *_histogram(summary))


def _histogram(summary: Summary) -> Iterator[Text]:
    most = max(count for _, _, count in summary.histogram)
    edges = [f"{low:.4g}" for low, _, _ in summary.histogram] + [f"{summary.histogram[-1][1]:.4g}"]
    width = max(map(len, edges))
    for low, high, (_, _, count) in zip(edges[:-1], edges[1:], summary.histogram, strict=True):
        bar = "█" * round(_BAR * count / most) or ("▏" if count else "")
        yield Text(f"{low:>{width}} to {high:>{width}} {bar} {count:,}")


def _checked(file: RowFile) -> Iterator[tuple[str, Trajectory, bool]]:
    for number, row in file:
        where = file.where(number)
        trajectory = trajectory_from_row(row, where)
        yield where, with_paths(trajectory, file.folder), row.get("ended") is not None


def _check_pictures(trajectory: Trajectory, where: str) -> None:
    """Reads them as a tokenizer of pictures would."""
    for number, turn in enumerate(trajectory.turns, 1):
        for picture in turn.images:
            try:
                read_picture(picture)
            except DataError as error:
                raise DataError(f"{where}: turn {number}: {error}") from None
