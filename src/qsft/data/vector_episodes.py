"""Episodes whose observations and actions are vectors, as trajectories: what every reader of robot data shares.

A vector becomes a line of symbols, one a dimension (:class:`qsft.data.action_tokens.VectorTokens`); pictures become files
beside the trajectories. The bins stand in the trajectory's metadata as ``vectors``, so that symbols become vectors again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from qsft.data.action_tokens import VectorTokens
from qsft.data.episode_images import ImageFolder
from qsft.data.files import write_trajectories
from qsft.data.progress import RowProgress
from qsft.data.trajectory import AGENT_ROLE, Ended, Trajectory, Turn
from qsft.data.vector_metadata import describe, vector_tokens
from qsft.errors import ConfigError, DataError

#: OpenVLA's percentiles (Kim et al. 2024).
PERCENTILES = (1.0, 99.0)
_ROUNDING = 1e-6  # of a range
# Rows that percentiles are taken from: their bounds change by less than a bin with more of them.
_SAMPLE = 200_000


@dataclass(frozen=True)
class VectorSpec:
    """What is known of the dimensions of a vector.

    Attributes:
        names: [D], how errors and metadata name them.
        low, high: [D] float64, smallest and largest value allowed; infinite where unknown.
        values: [D] int64, how many values a discrete dimension has, ``low`` to ``high`` in steps of 1; 0: it is continuous.
    """

    names: tuple[str, ...]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    values: NDArray[np.int64]

    @classmethod
    def continuous(cls, names: Iterable[str], low: float = -np.inf, high: float = np.inf) -> VectorSpec:
        """Dimensions that share their bounds."""
        names = tuple(names)
        size = len(names)
        return cls(names, np.full(size, low), np.full(size, high), np.zeros(size, np.int64))

    def __len__(self) -> int:
        return len(self.names)


def numbered(name: str, size: int) -> list[str]:
    """What the dimensions of one part of a vector are called: ``["arm[0]", "arm[1]"]``, or its name where it has one."""
    return [name] if size == 1 else [f"{name}[{i}]" for i in range(size)]


@dataclass(frozen=True)
class VectorEpisode:
    """One episode of T actions.

    Attributes:
        where: how errors name it, for example ``"data/file-000.parquet: episode 3"``.
        observations: [T + 1, D], or [T, D] where what follows the last action was not recorded.
        actions: [T, A].
        rewards: [T].
        ended: as in :class:`Trajectory`.
        images: by camera, as many pictures as observations, each ``[height, width, 3]`` or ``[height, width]`` uint8.
        instruction: what the agent is told to do.
        metadata: of the trajectory.
    """

    where: str
    observations: NDArray[np.float64]
    actions: NDArray[np.float64]
    rewards: NDArray[np.float64]
    ended: Ended
    images: Mapping[str, Iterable[NDArray[np.uint8]]] = field(default_factory=dict)
    instruction: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


class VectorSource(Protocol):
    """A data set that can be read again and again.

    Attributes:
        observation, action: its dimensions.
        cameras: names of its pictures.
        vectors: what bins its values are the middles of (:mod:`qsft.data.vector_metadata`), where they were trajectories
            before; else ``None``.
    """

    observation: VectorSpec
    action: VectorSpec
    cameras: tuple[str, ...]
    vectors: Mapping[str, Any] | None

    def episodes(self, cameras: Sequence[str]) -> Iterator[VectorEpisode]:
        """All episodes in order, with the pictures of these cameras alone."""
        ...

    def fraction(self) -> float:
        """How much has been read, from 0 to 1."""
        ...


def convert(
    source: VectorSource,
    out: str | os.PathLike[str],
    bins: int | None = None,
    percentiles: bool = False,
    instruction: bool = False,
    cameras: Sequence[str] | None = None,
    image_size: int | None = None,
) -> int:
    """Write a source's episodes as trajectories, and their pictures into the folder ``NAME-images`` beside the file.

    The data are read twice: first to check every value and to find the bounds of the bins, then to write.

    - Actions: bins between the bounds that the source knows, else between the 1st and the 99th percentile of the data,
      beyond which values are clipped.
    - Observations: between the smallest and the largest value in the data.
    - A discrete dimension has one bin for each of its values, and one that never changes has a single bin.
    - Of a source that was trajectories before, the bins that it had: symbols become what they were.

    Metadata of each trajectory: ``vectors`` (:mod:`qsft.data.vector_metadata`), the ``instruction`` where it is written
    into the observations, and what the source adds.

    Args:
        out: a ``.jsonl`` or ``.parquet`` file, replaced as a whole.
        bins: of each continuous dimension; ``None``: those that the source knows, else 256.
        percentiles: the actions' bounds at percentiles even where the source knows bounds.
        instruction: begin each observation with the episode's instruction: who sees a single step is told too.
        cameras: whose pictures to write; ``None``: all.
        image_size: pixels of a side that pictures are resized to; ``None``: as they are.

    Returns:
        how many episodes were written.

    Raises:
        ConfigError: fewer than two bins, an unknown camera, or instructions of a source that has none.
        DataError: naming episode, field and step: a value that is not finite or out of the source's bounds, a wrong
            number of dimensions, missing pictures. Nothing has been written then.
    """
    if bins is not None and bins < 2:
        raise ConfigError(f"bins: {bins}; give at least 2")
    if image_size is not None and image_size < 1:
        raise ConfigError(f"image_size: {image_size}; give at least 1 pixel")
    chosen = source.cameras if cameras is None else tuple(cameras)
    for camera in chosen:
        if camera not in source.cameras:
            raise ConfigError(f"cameras: {camera!r} is unknown; there are {', '.join(source.cameras) or 'none'}")
    out = Path(out)
    if out.suffix not in (".jsonl", ".parquet"):  # before minutes of reading
        raise DataError(f"{out}: cannot write format {out.suffix or '(no extension)'}; use .jsonl or .parquet")
    if not len(source.observation.names) and not chosen:
        raise ConfigError(f"{out}: there is nothing to see, neither numbers nor pictures; choose a camera")
    pictures = ImageFolder(out, image_size)
    if chosen:
        pictures.check_free()
    actions, observations = _Range(source.action), _Range(source.observation)
    with RowProgress(f"Checking what becomes {out.name}", source.fraction) as progress:
        for episode in source.episodes([]):
            _check(episode, source)
            if instruction and episode.instruction is None:
                raise ConfigError(f"{episode.where}: has no instruction; leave --instruction out")
            actions.add(episode.actions)
            observations.add(episode.observations)
            progress.advance()
    if source.vectors is not None and bins is None and not percentiles:
        vectors = {**source.vectors, "cameras": list(chosen)}
        action_tokens, observation_tokens = _known_tokens(vectors, source)
    else:
        action_tokens = actions.tokens(bins or 256, "a", "percentiles" if percentiles else "known")
        observation_tokens = observations.tokens(bins or 256, "s", "ends") if len(source.observation) else None
        vectors = {
            "action": describe(action_tokens, source.action.names, source.action.values > 0),
            "observation": describe(observation_tokens, source.observation.names, source.observation.values > 0),
            "cameras": list(chosen),
        }
    with RowProgress(f"Writing {out.name}", source.fraction) as progress, pictures as folder:

        def trajectories() -> Iterator[Trajectory]:
            for number, episode in enumerate(source.episodes(chosen)):
                told = f"{episode.instruction} " if instruction else ""
                turns = _turns(episode, told, observation_tokens, action_tokens, folder, f"{number:06d}")
                noted = {"instruction": episode.instruction} if instruction else {}
                yield Trajectory(turns, episode.ended, {**episode.metadata, **noted, "vectors": vectors})
                progress.advance()

        return write_trajectories(out, trajectories())


def _known_tokens(vectors: Mapping[str, Any], source: VectorSource) -> tuple[VectorTokens, VectorTokens | None]:
    """The bins that the source knows, of actions and observations."""
    action, observation = (
        vector_tokens({"vectors": vectors}, kind, "the source") for kind in ("action", "observation")
    )
    sizes = [0 if tokens is None else tokens.dimensions for tokens in (action, observation)]
    if action is None or sizes != [len(source.action), len(source.observation)]:
        raise DataError(
            f"the data say that they were {sizes[0]} symbols an action and {sizes[1]} an observation, and have "
            f"{len(source.action)} and {len(source.observation)} dimensions; give bins for new ones"
        )
    return action, observation


class _Range:
    """Smallest and largest values, and a sample of rows, of vectors that stream by."""

    def __init__(self, spec: VectorSpec) -> None:
        self._spec = spec
        self._low, self._high = np.full(len(spec), np.inf), np.full(len(spec), -np.inf)
        self._rows: list[np.ndarray] = []
        self._stride, self._seen = 1, 0

    def add(self, vectors: NDArray[np.float64]) -> None:
        self._low = np.minimum(self._low, vectors.min(0, initial=np.inf))
        self._high = np.maximum(self._high, vectors.max(0, initial=-np.inf))
        first = -self._seen % self._stride
        self._rows.extend(vectors[first :: self._stride].astype(np.float32))
        self._seen += len(vectors)
        if len(self._rows) > _SAMPLE:
            self._rows = self._rows[::2]
            self._stride *= 2

    def tokens(self, bins: int, prefix: str, bounds: Literal["known", "percentiles", "ends"]) -> VectorTokens:
        """Bins between the spec's bounds (``known``; where there are none, percentiles), the data's percentiles (where
        both are the same value, its ends), or the data's ends."""
        spec = self._spec
        if not self._rows:
            raise DataError("the data hold no episode; there is nothing to convert")
        low, high = self._low.copy(), self._high.copy()
        if bounds != "ends":
            lower, upper = np.percentile(np.array(self._rows, np.float64), PERCENTILES, axis=0)
            spread = lower < upper
            low[spread], high[spread] = lower[spread], upper[spread]
        if bounds == "known":
            known = np.isfinite(spec.low) & np.isfinite(spec.high)
            low[known], high[known] = spec.low[known], spec.high[known]
        discrete = spec.values > 0
        # also one that moves by no more than its numbers are rounded by, where no bins can be told apart
        constant = (high - low <= 8 * bins * np.spacing(np.maximum(np.abs(low), np.abs(high)))) & ~discrete
        low[discrete], high[discrete] = spec.low[discrete] - 0.5, spec.high[discrete] + 0.5
        margin = np.maximum(0.5, np.abs(high[constant]) * 1e-3)  # a bin must be wider than the numbers' own resolution
        low[constant], high[constant] = low[constant] - margin, high[constant] + margin
        return VectorTokens(low, high, np.where(discrete, spec.values, np.where(constant, 1, bins)).tolist(), prefix)


def _check(episode: VectorEpisode, source: VectorSource) -> None:
    """Raises DataError, naming episode, field, step and dimension, for what no trajectory can hold."""
    where, steps = episode.where, len(episode.actions)
    if not steps:
        raise DataError(f"{where}: field action: no step; drop the episode")
    if len(episode.rewards) != steps:
        raise DataError(f"{where}: field reward: {len(episode.rewards)} values for {steps} actions; mend the episode")
    if len(episode.observations) not in (steps, steps + 1):
        raise DataError(
            f"{where}: field observation: {len(episode.observations)} for {steps} actions; give as many, or one more"
        )
    _check_vectors(episode.actions, source.action, f"{where}: field action", source.action.low, source.action.high)
    discrete = source.observation.values > 0
    low = np.where(discrete, source.observation.low, -np.inf)
    high = np.where(discrete, source.observation.high, np.inf)
    _check_vectors(episode.observations, source.observation, f"{where}: field observation", low, high)
    _check_vectors(
        episode.rewards[:, None],
        VectorSpec.continuous(["reward"]),
        f"{where}: field reward",
        np.array([-np.inf]),
        np.array([np.inf]),
    )


def _check_vectors(
    vectors: NDArray[np.float64], spec: VectorSpec, where: str, low: NDArray[np.float64], high: NDArray[np.float64]
) -> None:
    if vectors.ndim != 2 or vectors.shape[1] != len(spec):
        raise DataError(f"{where}: shape {vectors.shape[1:]} a step; the data say {len(spec)} dimensions; mend one")
    # bounds and values may have been rounded apart; what is over by that is clipped
    slack = np.where(np.isfinite(high - low), _ROUNDING * (high - low), 0.0)
    for wrong, problem in (
        (~np.isfinite(vectors), "it must be finite"),
        ((vectors < low - slack) | (vectors > high + slack), "it is out of its bounds"),
    ):
        if wrong.any():
            step, dimension = (int(index) for index in np.argwhere(wrong)[0])
            bounds = "" if "finite" in problem else f" {low[dimension]:.9g} to {high[dimension]:.9g}"
            raise DataError(
                f"{where}: step {step}: {spec.names[dimension]} is {vectors[step, dimension]:.9g}; {problem}{bounds}; "
                "mend or drop the episode"
            )
    fractional = (spec.values > 0) & (vectors != np.round(vectors))
    if fractional.any():
        step, dimension = (int(index) for index in np.argwhere(fractional)[0])
        raise DataError(
            f"{where}: step {step}: {spec.names[dimension]} is {vectors[step, dimension]:g}; it must be a whole number"
        )


def _turns(
    episode: VectorEpisode,
    told: str,
    observation_tokens: VectorTokens | None,
    action_tokens: VectorTokens,
    folder: ImageFolder,
    name: str,
) -> list[Turn]:
    turns: list[Turn] = []
    cameras = {camera: iter(frames) for camera, frames in episode.images.items()}
    for step, observation in enumerate(episode.observations):
        paths = []
        for camera, frames in cameras.items():
            frame = next(frames, None)
            where = f"{episode.where}: field {camera}"
            if frame is None:
                raise DataError(f"{where}: {step} pictures for {len(episode.observations)} observations; mend the data")
            file = camera.replace("/", "_")  # a name in somebody's data, not a place on this disk
            paths.append(folder.save(frame, f"{name}/{file}-{step:05d}.png", where))
        text = observation_tokens.text(observation, clip=True) if observation_tokens is not None else ""
        turns.append(Turn("user", (told + text).rstrip() + "\n", images=tuple(paths)))
        if step < len(episode.actions):
            action = action_tokens.text(episode.actions[step], clip=True)
            turns.append(Turn(AGENT_ROLE, action + "\n", float(episode.rewards[step])))
    for camera, frames in cameras.items():
        if next(frames, None) is not None:
            raise DataError(
                f"{episode.where}: field {camera}: more pictures than its {len(episode.observations)} observations"
            )
    return turns
