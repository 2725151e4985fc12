"""Episodes of a policy that does not repeat itself, such as a served model, into a file that a failure cannot spoil."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium

from qsft.data.pictures import save_pictures
from qsft.data.progress import RowProgress
from qsft.envs.collect import broken_off, free_picture_folder, partial_file, source_of
from qsft.envs.registry import environment_class, make
from qsft.envs.rollout import Game, derive_seed, play
from qsft.errors import DataError, QSFTError

if TYPE_CHECKING:
    from qsft.policies.base import Policy

logger = logging.getLogger(__name__)
_MOST_FAILED = 0.1


def gather(
    env_name: str,
    policy: Policy,
    episodes: int,
    out: str | os.PathLike[str],
    seed: int = 0,
    env_options: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    places: int = 8,
) -> int:
    """Plays episodes 0 to ``episodes - 1`` into a new file.

    Each is appended to ``NAME.partial.jsonl`` beside the file as soon as it is over. When the policy fails, what is there
    stays, and the same call plays what is missing. At the end the episodes are put in order and the file gets its name.
    How an episode starts depends on the seed and its number alone. An episode that its environment fails in, or in which
    the policy has no action (:class:`qsft.errors.UnansweredTurns`), is left out of the file, with a warning.

    Args:
        env_name, seed, env_options: as for :func:`qsft.envs.collect.collect`.
        policy: any; it need not do the same again.
        episodes: at least 1.
        out: a ``.jsonl`` or ``.parquet`` file that does not exist yet.
        metadata: what else to note down with each episode, such as the model's name; going on takes the same.
        places: how many are played at once.

    Returns:
        the number of episodes in the file.

    Raises:
        ConfigError: unknown name or option.
        DataError: ``out``, or the folder of its pictures, exists; it has another ending; what was gathered before was
            made with other arguments, or is more than is asked for; another process is writing it.
        QSFTError: the policy failed, or more than a tenth of the episodes did; the message says how many are kept, and
            the same call plays the others.
    """
    from qsft.data.files import only_writer

    out = Path(out)
    partial = partial_file(out)
    options = dict(env_options or {})
    source = {**source_of(environment_class(env_name).name, policy.name, seed, options), **(metadata or {})}
    with only_writer(partial):
        return _gather(policy, episodes, out, partial, seed, source, lambda: make(env_name, **options), places)


def _gather(
    policy: Policy,
    episodes: int,
    out: Path,
    partial: Path,
    seed: int,
    source: Mapping[str, Any],
    env_factory: Callable[[], gymnasium.Env],
    places: int,
) -> int:
    from qsft.data.files import append_trajectories, load_trajectories, write_trajectories

    pictures = free_picture_folder(out, partial)
    done = _gathered(partial, source)
    if done and max(done) >= episodes:
        raise DataError(
            f"{partial}: {len(done)} episodes are there, up to number {max(done)}: ask for at least {max(done) + 1}, or "
            "delete the file"
        )
    missing = [episode for episode in range(episodes) if episode not in done]
    policy.seed(derive_seed(seed, 1, len(done)))
    kept, failures = episodes - len(missing), list[str]()

    def fail(game: Game, error: Exception) -> None:
        failures.append(f"{type(error).__name__}: {error}")
        logger.warning("episode %d failed: %s", missing[game.number], failures[-1])

    games = play(policy, [derive_seed(seed, 0, episode) for episode in missing], env_factory, places, on_error=fail)
    try:
        with RowProgress(f"Collecting {out.name}", lambda: (kept + len(failures)) / episodes) as progress:
            for game in games:
                progress.advance()
                if game.env is None:
                    continue
                played = game.trajectory
                played.metadata = {**source, "episode": missing[game.number], **played.metadata}
                append_trajectories(partial, [save_pictures(played, pictures)])
                kept += 1
        if len(failures) > _MOST_FAILED * episodes:
            raise QSFTError(f"{len(failures)} episodes failed, the first with {failures[0]}")
    except QSFTError as error:
        raise broken_off(error, kept, episodes, partial) from error
    collected = sorted(load_trajectories(partial), key=lambda played: played.metadata["episode"])
    count = write_trajectories(out, collected)
    partial.unlink()
    return count


def _gathered(partial: Path, source: Mapping[str, Any]) -> set[int]:
    """Numbers of the episodes that were gathered before; a last line that was cut off is removed."""
    if not partial.exists():
        return set()
    found: set[int] = set()
    size = 0
    with partial.open("rb") as file:
        for row, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                noted = json.loads(line)["metadata"]
                same = {name: noted[name] for name in source} == dict(source)
                found.add(int(noted["episode"]))
            except (ValueError, KeyError, TypeError):
                same = False
            if not same:
                raise DataError(
                    f"{partial}: row {row}: not what this command gathers; repeat the command that was interrupted, or "
                    "delete the file"
                )
            size += len(line)
    os.truncate(partial, size)
    return found
