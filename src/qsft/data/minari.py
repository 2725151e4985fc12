"""Minari data sets (https://minari.farama.org) in and out: vectors and pictures there, trajectories here."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from qsft.data.action_tokens import VectorTokens
from qsft.data.episode_images import read_image
from qsft.data.files import RowFile
from qsft.data.progress import RowProgress
from qsft.data.rows import trajectory_from_row
from qsft.data.spaces import flat, is_picture, leaves, space_parts, vector_spec
from qsft.data.text_files import make_folder
from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.data.vector_episodes import VectorEpisode
from qsft.data.vector_metadata import vector_tokens
from qsft.errors import ConfigError, DataError

# where a data set of :func:`write_minari` says what bins its values are the middles of
_VECTORS = "qsft_vectors"


class MinariSource:
    """A local Minari data set; nothing is downloaded.

    Actions may be vectors, whole numbers or tuples and dicts of these. Of observations (or their parts, in a tuple or a
    dict) ``uint8`` boxes with two or three axes are pictures, texts the instruction, and all else is one vector.

    Args:
        name: a data set's name, such as ``"D4RL/door/human-v2"``, which is looked up where Minari keeps them
            (``MINARI_DATASETS_PATH``, or ``~/.minari/datasets``); or a data set's folder.

    Raises:
        ConfigError: Minari is not installed.
        DataError: there is no such data set, it cannot be read, or its spaces hold something else.
    """

    def __init__(self, name: str | os.PathLike[str]) -> None:
        self._dataset = load_minari(name)
        self._name = os.fspath(name)
        self._done = 0
        self._parts = space_parts(self._dataset.observation_space, "observation", self._name)
        self._action_parts = space_parts(self._dataset.action_space, "action", self._name)
        for part, space in self._action_parts.items():
            if is_picture(space) or isinstance(space, spaces.Text):
                raise DataError(f"{self._name}: field {part}: actions must be vectors or whole numbers, not {space}")
        self.observation = vector_spec(self._parts)
        self.action = vector_spec(self._action_parts)
        self.cameras = tuple(part for part, space in self._parts.items() if is_picture(space))
        self.vectors = self._dataset.storage.metadata.get(_VECTORS)

    def fraction(self) -> float:
        return self._done / max(self._dataset.total_episodes, 1)

    def episodes(self, cameras: Sequence[str]) -> Iterator[VectorEpisode]:
        self._done = 0
        for episode in self._dataset.iterate_episodes():
            where = f"{self._name}: episode {int(episode.id)}"
            observations = dict(leaves(episode.observations, "observation"))
            steps, entries = len(episode.rewards), len(next(iter(observations.values())))
            texts = [
                text
                for part, space in self._parts.items()
                if isinstance(space, spaces.Text)
                for text in observations[part]
            ]
            if len(set(texts)) > 1:
                raise DataError(f"{where}: its text changes from step to step; only one instruction an episode is read")
            yield VectorEpisode(
                where,
                flat(observations, self._parts, entries, where),
                flat(dict(leaves(episode.actions, "action")), self._action_parts, steps, where),
                np.asarray(episode.rewards, np.float64).reshape(-1),
                "terminated" if bool(np.any(episode.terminations)) else "truncated",
                {camera: list(observations[camera]) for camera in cameras},
                texts[0] if texts else None,
                {"source": self._dataset.id, "episode": int(episode.id)},
            )
            self._done += 1


def write_minari(trajectories: str | os.PathLike[str], out: str | os.PathLike[str]) -> int:
    """Write a file of trajectories as a Minari data set (HDF5, pictures without loss).

    Symbols become the middles of their bins: for actions of qsft's robot tasks that is exactly what was done, for
    observations what the agent saw. Pictures make the observation a dict of ``vector`` and the cameras; the instruction that
    :func:`qsft.data.vector_episodes.convert` wrote into observations is a text in that dict.

    Args:
        trajectories: a file whose rows know their bins, as those of :func:`qsft.data.vector_episodes.convert` and the
            collected ones of robot tasks do.
        out: the data set's name, such as ``"robots/drawer-v0"`` (it is put where Minari looks for it), or a folder: any
            path that begins with a dot or slash, or does not end in ``-v`` and a number.

    Returns:
        how many episodes were written.

    Raises:
        ConfigError: Minari is not installed.
        DataError: ``out`` exists, or a row is no episode of vectors; nothing has been written then.
    """
    minari = _minari()
    from minari.dataset.minari_dataset import DATASET_ID_RE
    from minari.dataset.minari_storage import MinariStorage

    name = os.fspath(out)
    match = DATASET_ID_RE.fullmatch(name)
    is_name = match is not None and match["version"] is not None
    folder = (_place_of(name) if is_name else Path(name)).absolute()  # Minari measures its size wrongly otherwise
    if folder.exists():
        raise DataError(f"{folder}: exists already; delete it or choose another name")
    rows = RowFile(trajectories)
    layout = _Layout(rows)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    make_folder(temporary / "data")
    try:
        storage = MinariStorage.new(
            temporary / "data", layout.observation_space, layout.action_space, jpeg_encoding=False
        )
        dataset_id = name if is_name else f"{re.sub('[^-_0-9A-Za-z]', '-', folder.name)}-v0"
        storage.update_metadata(
            {"dataset_id": dataset_id, "minari_version": minari.__version__, _VECTORS: layout.described}
        )
        with RowProgress(f"Writing {name}", rows.fraction) as progress:
            storage.update_episodes(_buffers(rows, layout, progress))
        episodes = int(storage.total_episodes)
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return episodes


class _Layout:
    """The spaces of a data set to be written, from the first trajectory of a file, and its trajectories' arrays."""

    def __init__(self, rows: RowFile) -> None:
        number, row = next(iter(rows))
        where = rows.where(number)
        trajectory = trajectory_from_row(row, where)
        self._folder = rows.folder
        self._vectors: dict[str, Any] = trajectory.metadata.get("vectors", {})
        action = vector_tokens(trajectory.metadata, "action", where)
        if action is None:
            raise DataError(f"{where}: field metadata.vectors: its actions have no dimension")
        self._action = action
        # Pictures may stand where a robot task would else show symbols.
        seen = (turn for turn in trajectory.turns if turn.role not in (AGENT_ROLE, "system"))
        told = any(_symbols(turn, trajectory) for turn in seen)
        self._observation = vector_tokens(trajectory.metadata, "observation", where) if told else None
        self.action_space = _space(action, self._vectors["action"]["discrete"])
        shown = next((turn.images for turn in trajectory.turns if not turn.is_agent and turn.images), ())
        named = self._vectors.get("cameras", [])
        self._cameras = named if len(named) == len(shown) else [f"image_{i}" for i in range(len(shown))]
        parts: dict[str, gymnasium.Space] = {}
        if self._observation is not None:
            parts["vector"] = _space(self._observation, self._vectors["observation"]["discrete"])
        for camera, image in zip(self._cameras, shown, strict=True):
            shape = read_image(self._folder, image, where).shape
            parts[camera] = spaces.Box(0, 255, shape, dtype=np.uint8)
        if not parts:
            raise DataError(f"{where}: its observations have neither dimensions nor pictures")
        if "instruction" in trajectory.metadata:
            every = (trajectory_from_row(row, rows.where(number)) for number, row in rows)
            parts["instruction"] = _text_space([str(each.metadata.get("instruction")) for each in every])
        self._parts = parts
        observed = self._vectors["observation"] if self._observation is not None else {"names": []}
        self.described = {**self._vectors, "observation": observed}
        self.observation_space = spaces.Dict(parts) if list(parts) != ["vector"] else parts["vector"]

    def episode(self, trajectory: Trajectory, where: str) -> dict[str, Any]:
        """The arrays of one episode, as Minari's ``EpisodeBuffer`` takes them."""
        if trajectory.metadata.get("vectors") != self._vectors:
            raise DataError(f"{where}: field metadata.vectors: other bins than in the first row; convert them apart")
        if ("instruction" in trajectory.metadata) != ("instruction" in self._parts):
            raise DataError(
                f"{where}: field metadata.instruction: some rows have one and others none; convert them apart"
            )
        turns = [turn for turn in trajectory.turns if turn.role != "system"]
        seen, done = turns[::2], turns[1::2]
        if len(seen) != len(done) + 1 or any(turn.is_agent for turn in seen) or not all(turn.is_agent for turn in done):
            raise DataError(
                f"{where}: field messages: Minari wants an observation before each action and one after the last; "
                "these trajectories do not have that"
            )
        steps = len(done)
        actions = _decoded([turn.text for turn in done], self._action, f"{where}: action")
        ends = np.arange(steps) == steps - 1
        return {
            "observations": self._observations(seen, trajectory, where),
            "actions": _as(self.action_space, actions),
            "rewards": np.array(trajectory.rewards),
            "terminations": ends & (trajectory.ended == "terminated"),
            "truncations": ends & (trajectory.ended == "truncated"),
            "infos": {},  # without them Minari cannot print the episode
        }

    def _observations(self, turns: list[Turn], trajectory: Trajectory, where: str) -> Any:
        observations: dict[str, Any] = {}
        if "instruction" in self._parts:
            observations["instruction"] = [str(trajectory.metadata["instruction"])] * len(turns)
        if self._observation is not None:
            symbols = [_symbols(turn, trajectory) for turn in turns]
            vectors = _decoded(symbols, self._observation, f"{where}: observation")
            observations["vector"] = _as(self._parts["vector"], vectors)
        for index, camera in enumerate(self._cameras):
            frames = []
            for step, turn in enumerate(turns):
                place = f"{where}: observation {step}: {camera}"
                if len(turn.images) != len(self._cameras):
                    raise DataError(f"{place}: {len(turn.images)} pictures, the first one has {len(self._cameras)}")
                frame = read_image(self._folder, turn.images[index], place)
                if frame.shape != self._parts[camera].shape:
                    raise DataError(f"{place}: {frame.shape}, the first one is {self._parts[camera].shape}")
                frames.append(frame)
            observations[camera] = np.stack(frames)
        return observations if isinstance(self.observation_space, spaces.Dict) else observations["vector"]


def _symbols(turn: Turn, trajectory: Trajectory) -> str:
    """What an observation says of the state, without the instruction that stands before it."""
    return turn.text.removeprefix(str(trajectory.metadata.get("instruction", ""))).strip()


def _buffers(rows: RowFile, layout: _Layout, progress: RowProgress) -> Iterator[Any]:
    from minari.data_collector.episode_buffer import EpisodeBuffer

    for number, row in rows:
        where = rows.where(number)
        yield EpisodeBuffer(**layout.episode(trajectory_from_row(row, where), where))
        progress.advance()


def _space(tokens: VectorTokens, discrete: list[bool]) -> gymnasium.Space:
    """Whole numbers where all dimensions are, else a box: as wide as the bins, for discrete dimensions as the values."""
    steps = np.where(discrete, tokens.width / 2, 0.0)
    low, high = tokens.low + steps, tokens.high - steps
    if all(discrete) and (tokens.width == 1).all():
        start = low.astype(np.int64)
        if len(start) == 1:
            return spaces.Discrete(int(tokens.bins[0]), start=int(start[0]))
        return spaces.MultiDiscrete(tokens.bins, start=start)
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def _text_space(texts: list[str]) -> gymnasium.Space:
    return spaces.Text(max(map(len, texts)), min_length=0, charset="".join(sorted(set("".join(texts)))))


def _as(space: gymnasium.Space, vectors: NDArray[np.float64]) -> NDArray[Any]:
    if isinstance(space, spaces.Discrete):
        return np.rint(vectors[:, 0]).astype(np.int64)
    return vectors.astype(space.dtype) if isinstance(space, spaces.Box) else np.rint(vectors).astype(np.int64)


def _decoded(texts: list[str], tokens: VectorTokens, where: str) -> NDArray[np.float64]:
    vectors = []
    for step, text in enumerate(texts):
        vector = tokens.parse(text)
        if vector is None:
            raise DataError(f"{where} {step}: {text.strip()!r:.60} is no vector of {tokens.dimensions} dimensions")
        vectors.append(vector)
    return np.stack(vectors)


def _place_of(name: str) -> Path:
    """Where Minari keeps the data set of that name."""
    from minari.storage.datasets_root_dir import get_dataset_path

    return get_dataset_path(name)


def load_minari(name: str | os.PathLike[str]) -> Any:
    """A local data set as Minari's own ``MinariDataset``; see :class:`MinariSource`."""
    minari = _minari()
    path = Path(name)
    if not path.is_dir():
        path = _place_of(os.fspath(name))
    path = path / "data" if (path / "data").is_dir() else path
    try:
        return minari.MinariDataset(path)
    # What a damaged data set makes Minari raise is not a closed set.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{os.fspath(name)}: not a Minari data set ({reason:.120}); give the folder of one, or the name of one "
            "that `minari list local` shows"
        ) from error


def _minari() -> Any:
    try:
        import h5py  # noqa: F401
        import minari
    except ImportError as error:
        raise ConfigError(f"Minari data sets need Minari ({error}); install it: pip install 'qsft[minari]'") from error
    return minari
