"""Trajectories of a policy in an environment: as an iterator, or into a file that a kill cannot spoil."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsft.data.pictures import picture_folder, save_pictures
from qsft.data.progress import RowProgress
from qsft.data.rows import trajectory_to_row
from qsft.data.trajectory import Trajectory
from qsft.envs.base import BlockPlayer
from qsft.envs.registry import make, make_policy
from qsft.envs.rollout import Game, derive_seed, rollout
from qsft.errors import ConfigError, DataError, QSFTError

if TYPE_CHECKING:
    from qsft.policies.base import Policy

logger = logging.getLogger(__name__)


class RolloutPlayer:
    """The :class:`BlockPlayer` for any policy in any environment: a block is one lockstep rollout.

    Episode i is reset with ``derive_seed(seed, 0, i)``; the policy restarts from ``derive_seed(seed, 1, block)``.
    """

    size = 16

    def __init__(self, env_name: str, policy: Policy, env_options: Mapping[str, Any]) -> None:
        self.policy = policy
        self._make = lambda: make(env_name, **env_options)
        self.environments = [self._make() for _ in range(self.size)]

    def play(self, seed: int, block: int) -> list[Trajectory]:
        self.policy.seed(derive_seed(seed, 1, block))
        episodes = range(block * self.size, (block + 1) * self.size)
        seeds = [derive_seed(seed, 0, episode) for episode in episodes]
        return rollout(self.environments, self.policy, seeds, on_error=self._replace)

    def _replace(self, game: Game, error: Exception) -> None:
        game.trajectory.metadata["error"] = f"{type(error).__name__}: {error}"
        try:
            self.environments[game.number].close()
        except Exception as second:
            logger.warning("closing an environment that broke failed too: %s: %s", type(second).__name__, second)
        self.environments[game.number] = self._make()


class Collection:
    """A policy's episodes 0, 1, 2, ... in an environment, without end and always the same.

    Episodes come in blocks that depend on the seed and the block's number alone. So the first n episodes are the same
    however many are asked for, and one can begin at any block.

    Args:
        env_name: as for :func:`qsft.envs.make`.
        policy: name of one of the environment's scripted policies, or any policy.
        seed: at least 0.
        env_options: options of the environment.

    Attributes:
        block_size: episodes a block.
        source: what each episode's metadata says of where it comes from.
        repeatable: whether the same episodes can be played again (:class:`qsft.envs.base.Environment`).

    Raises:
        ConfigError: unknown name or option, or a negative seed.
    """

    def __init__(
        self, env_name: str, policy: str | Policy, seed: int = 0, env_options: Mapping[str, Any] | None = None
    ) -> None:
        derive_seed(seed)
        options = dict(env_options or {})
        environment = make(env_name, **options)
        if isinstance(policy, str):
            policy = make_policy(env_name, policy, env_options=options)
        self._player: BlockPlayer = environment.block_player(policy) or RolloutPlayer(env_name, policy, options)
        self._seed = seed
        self.source = source_of(environment.name, policy.name, seed, options)
        self.block_size = self._player.size
        self.repeatable = environment.repeatable

    def block(self, number: int) -> list[Trajectory]:
        """Episodes ``number * block_size`` to ``(number + 1) * block_size``, the latter excluded.

        Metadata: ``env``, ``policy``, ``seed``, ``env_options``, ``episode``, the reset options that replay it,
        ``success``; or ``error`` for one that its environment could not play to the end.

        Raises:
            QSFTError: none of them could be played: the others would not fare better.
        """
        trajectories = self._player.play(self._seed, number)
        if all("error" in trajectory.metadata for trajectory in trajectories):
            raise QSFTError(
                f"all of {len(trajectories)} episodes failed, the first with {trajectories[0].metadata['error']}"
            )
        for episode, trajectory in enumerate(trajectories, start=number * self.block_size):
            trajectory.metadata = {**self.source, "episode": episode, **trajectory.metadata}
        return trajectories


def source_of(env_name: str, policy_name: str, seed: int, env_options: Mapping[str, Any]) -> dict[str, Any]:
    """Where episodes come from, for their metadata."""
    options = {name: _noted(value) for name, value in env_options.items()}
    return {"env": env_name, "policy": policy_name, "seed": seed, "env_options": options}


def _noted(value: Any) -> Any:
    """An option's value as a row has it: of a long one a digest, of one that is no JSON its type."""
    text = json.dumps(value, default=lambda part: type(part).__name__)
    return json.loads(text) if len(text) <= 100 else f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def collect(
    env_name: str,
    policy: str | Policy,
    episodes: int,
    seed: int = 0,
    env_options: Mapping[str, Any] | None = None,
) -> Iterator[Trajectory]:
    """Plays ``episodes`` episodes (at least 1) and yields them in order; the rest is as for :class:`Collection`.

    Those that failed are left out, with a warning.

    Raises:
        ConfigError: at once.
    """
    collection = Collection(env_name, policy, seed, env_options)
    blocks = _blocks(collection, 0, _at_least_one(episodes))
    return (trajectory for block in blocks for trajectory in block if not _is_lost(trajectory))


def collect_to_file(
    env_name: str,
    policy: str | Policy,
    episodes: int,
    out: str | os.PathLike[str],
    seed: int = 0,
    env_options: Mapping[str, Any] | None = None,
) -> int:
    """Plays ``episodes`` episodes (at least 1) into a new file; the rest is as for :class:`Collection`.

    They are gathered in ``NAME.partial.jsonl`` beside the file, which takes the file's name at the end. When it is
    there already, an interrupted collection is continued: the file comes out the same to the byte, unless the environment
    does not repeat itself (a player limited by time). Pictures are written to the folder ``NAME-images`` beside it
    (:func:`qsft.data.pictures.save_pictures`).

    An episode that its environment fails in, such as a game whose engine dies again and again, is left out of the file;
    its number is missing in the metadata then.

    Args:
        out: a ``.jsonl`` or ``.parquet`` file that does not exist yet.

    Returns:
        the number of episodes in the file.

    Raises:
        ConfigError: at once.
        DataError: ``out``, or the folder of its pictures, exists; it has another ending; what was gathered before was
            made with other arguments; another process is writing it; the disk is full. What was gathered so far is kept.
        QSFTError: a whole block of episodes failed, an environment's endpoint is down, or the episode that is played
            again to see that what was gathered is this collection's failed. What was gathered so far is kept.
    """
    # Only here: reading and writing files brings in pyarrow and datasets, which playing does not need.
    from qsft.data.files import only_writer

    out = Path(out)
    partial = partial_file(out)
    collection = Collection(env_name, policy, seed, env_options)
    with only_writer(partial):
        return _collect(collection, _at_least_one(episodes), out, partial)


def partial_file(out: Path) -> Path:
    """Where episodes are gathered until a file of them is whole.

    Raises:
        DataError: ``out`` has another ending than those that can be written.
    """
    if out.suffix not in (".jsonl", ".parquet"):
        raise DataError(f"{out}: cannot write format {out.suffix or '(no extension)'}; use .jsonl or .parquet")
    return out.with_suffix(".partial.jsonl")


def free_picture_folder(out: Path, partial: Path) -> Path:
    """The folder of the pictures of a file that is to be made, or to be gone on with where ``partial`` is there.

    Raises:
        DataError: ``out`` or the folder exists.
    """
    if out.exists():
        raise DataError(f"{out}: exists already; delete it or choose another file")
    pictures = picture_folder(out)
    if pictures.exists() and not partial.exists():
        raise DataError(
            f"{pictures}: exists already, and the pictures would go there; delete it or choose another file"
        )
    return pictures


def broken_off(error: QSFTError, kept: int, episodes: int, partial: Path) -> QSFTError:
    """The error that ends a collection, with what is left of it."""
    return QSFTError(f"{error} ({kept} of {episodes} episodes are kept in {partial}; repeat to go on)")


def _collect(collection: Collection, episodes: int, out: Path, partial: Path) -> int:
    from qsft.data.files import append_rows, write_trajectories
    from qsft.data.rows import trajectory_from_row

    pictures = free_picture_folder(out, partial)
    done, failures = _resume(partial, collection, episodes, pictures)
    append_rows(partial, [])  # pictures without it would look like those of another file
    blocks = _blocks(collection, done, episodes)
    with RowProgress(f"Collecting {out.name}", lambda: done / episodes) as progress:
        while done < episodes:
            try:
                block = next(blocks)
            except QSFTError as error:
                raise broken_off(error, done, episodes, partial) from error
            append_rows(partial, [_row(each, pictures) for each in block])
            failures += sum(_is_lost(each) for each in block)
            done += len(block)
            progress.advance(len(block))
    if out.suffix == ".jsonl" and not failures:
        os.replace(partial, out)
    else:
        with partial.open(encoding="utf-8") as file:
            rows = (json.loads(line) for line in file)
            write_trajectories(out, (trajectory_from_row(row) for row in rows if "error" not in row["metadata"]))
        partial.unlink()
    return episodes - failures


def _row(played: Trajectory, pictures: Path) -> dict[str, Any]:
    """Its row in the partial file; of one that failed only what it was, so that a row is an episode."""
    if "error" in played.metadata:
        return {"messages": [], "rewards": [], "metadata": played.metadata}
    return trajectory_to_row(save_pictures(played, pictures))


def _is_lost(played: Trajectory) -> bool:
    """Whether its environment failed, which is told."""
    if "error" not in played.metadata:
        return False
    logger.warning("episode %d failed and is left out: %s", played.metadata["episode"], played.metadata["error"])
    return True


def _blocks(collection: Collection, start: int, stop: int) -> Iterator[list[Trajectory]]:
    """Episodes ``start`` to ``stop`` (excluded)."""
    while start < stop:
        number, skip = divmod(start, collection.block_size)
        block = collection.block(number)[skip : skip + stop - start]
        yield block
        start += len(block)


def _resume(partial: Path, collection: Collection, episodes: int, pictures: Path) -> tuple[int, int]:
    """Cuts what was gathered before back to whole rows, at most ``episodes``; their number, and of those that failed."""
    if not partial.exists():
        return 0, 0
    rows = size = failures = 0
    played: dict[str, Any] = {}  # the last one that was played to its end
    with partial.open("rb") as file:
        for line in file:
            if rows == episodes or not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                noted = dict(row["metadata"])
            except (ValueError, KeyError, TypeError):
                noted = {}
            # first what was asked for: pictures of other options must not be written over those that are there
            if {**noted, **collection.source, "episode": rows} != noted:
                raise _other(partial, rows + 1)
            rows, size, failures = rows + 1, size + len(line), failures + ("error" in noted)
            if "error" not in noted:
                played = row
    if played and collection.repeatable:
        episode = played["metadata"]["episode"]
        number, index = divmod(episode, collection.block_size)
        again = collection.block(number)[index]
        if "error" in again.metadata:
            raise QSFTError(
                f"episode {episode}, which is played again to see that {partial} is of this command, failed: "
                f"{again.metadata['error']}; mend that and repeat the command"
            )
        if played != json.loads(json.dumps(_row(again, pictures))):
            raise _other(partial, episode + 1)
    os.truncate(partial, size)
    return rows, failures


def _other(partial: Path, row: int) -> DataError:
    return DataError(
        f"{partial}: row {row}: not what this command would have written there; repeat the command that was interrupted, or "
        "delete the file"
    )


def _at_least_one(episodes: int) -> int:
    if episodes < 1:
        raise ConfigError(f"episodes={episodes} is less than 1; give the number of episodes to play")
    return episodes
