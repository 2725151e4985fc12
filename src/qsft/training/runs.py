"""One command from a file of trajectories to a policy on disk: the stages in order, each resumable."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from qsft.data.dataset import filter_top, tokenize_file
from qsft.data.files import load_trajectories
from qsft.data.return_tokens import add_return_tokens, return_levels
from qsft.data.returns import returns_to_go
from qsft.data.tokenize import TrajectoryTokenizer
from qsft.errors import CheckpointError, ConfigError, QSFTError, wrong_argument
from qsft.models.scratch import load_processor
from qsft.training.config import QSFTConfig, SFTConfig
from qsft.training.critic_config import CriticConfig
from qsft.training.critic_trainers import CRITICS
from qsft.training.disk import disk_full, write_json
from qsft.training.stages import Stages, checkpoints

#: ``bc`` is ``sft`` by the name that robotics has for it
METHODS = ("qsft", "sft", "bc", "filtered-bc", "return-conditioned", *CRITICS)
#: settings of stages that only some methods have
STAGES_OF = {"likelihood": ("qsft",), "critic": tuple(CRITICS)}
#: other settings that only some methods read
SETTINGS_OF = {
    "start_from": ("qsft", *CRITICS),
    "filter_share": ("filtered-bc",),
    "filter_gamma": ("filtered-bc",),
    "return_tokens": ("return-conditioned",),
}
RUN_FILE = "run.json"
logger = logging.getLogger("qsft")


@dataclass
class RunSettings:
    """Everything that decides what a run produces.

    Args:
        method: one of ``METHODS``.
        data: file of trajectories (JSONL, Parquet, or a folder that ``datasets`` loads).
        model: hub id, local checkpoint, or the config of a model to initialise (a dict with ``model_type``, or the path
            of a JSON file).
        tokenizer: hub id or local path, of a vision-language model's processor too; ``None``: the model's.
        format: ``"chat"``, ``"text"`` or ``"auto"``, see :class:`qsft.data.TrajectoryTokenizer`.
        end_of_turn: tokens that end the agent's turn, see :class:`qsft.data.TrajectoryTokenizer`; ``None``: the format's.
        behaviour: settings of stage 1, fields of :class:`SFTConfig`.
        likelihood: settings of stage 2 of ``qsft``, fields of :class:`QSFTConfig`.
        critic: settings of stage 2 of the methods with a critic, fields of their config
            (:mod:`qsft.training.critic_config`).
        behaviour_model: a finished model that takes stage 1's place (a checkpoint of supervised fine-tuning on the same
            data), or whose training goes on (``sft``, ``filtered-bc``, ``return-conditioned``).
        start_from: what stage 2 starts from: ``"behaviour"`` or ``"model"`` (the pretrained or fresh ``model``).
        filter_share: of ``filtered-bc``: share of the trajectories, best returns first, that it keeps.
        filter_gamma: of ``filtered-bc``: the discount of these returns, once a turn.
        return_tokens: of ``return-conditioned``: returns that it tells apart at most, see
            :func:`qsft.data.return_tokens.return_levels`.
        lora: arguments of ``peft.LoraConfig``; ``None`` trains all weights.
        seed: of weights and data order.
    """

    method: str
    data: str
    model: str | dict[str, Any]
    tokenizer: str | None = None
    format: str = "auto"
    end_of_turn: str | list[str] | None = None
    behaviour: dict[str, Any] = field(default_factory=dict)
    likelihood: dict[str, Any] = field(default_factory=dict)
    critic: dict[str, Any] = field(default_factory=dict)
    behaviour_model: str | None = None
    start_from: str = "behaviour"
    filter_share: float = 0.3
    filter_gamma: float = 1.0
    return_tokens: int = 32
    lora: dict[str, Any] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        number = (int, float)
        for name, kind, least in (
            ("filter_share", number, 0),
            ("filter_gamma", number, 0),
            ("return_tokens", int, 1),
            ("seed", int, 0),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name}: {value!r} must be a number of at least {least}.")
        if self.seed >= 1 << 32:
            raise ConfigError(f"seed: {self.seed} must be below 2 ** 32, as NumPy's are.")
        try:
            self.data = os.fspath(self.data)
        except TypeError:
            raise ConfigError(f"data: {self.data!r} is no path; give a file of trajectories.") from None
        for name in ("behaviour", "likelihood", "critic"):
            if not isinstance(getattr(self, name), dict):
                raise ConfigError(f"{name}: must hold settings as NAME: VALUE pairs, not {getattr(self, name)!r}.")
        ends = [self.end_of_turn] if isinstance(self.end_of_turn, str) else self.end_of_turn
        if ends is not None and (
            not isinstance(ends, list) or not ends or not all(isinstance(e, str) and e for e in ends)
        ):
            raise ConfigError(
                f"end_of_turn: {self.end_of_turn!r:.80} must be the text of a token, or a list of such texts."
            )
        if not isinstance(self.lora, dict | None):
            raise ConfigError(f"lora: must hold arguments of peft.LoraConfig as NAME: VALUE pairs, not {self.lora!r}.")
        if self.method not in METHODS:
            raise ConfigError(f"method: {self.method!r} is unknown; use one of {', '.join(METHODS)}.")
        if self.start_from not in ("behaviour", "model"):
            raise ConfigError(f"start_from: {self.start_from!r} is unknown; use 'behaviour' or 'model'.")
        if not 0 < self.filter_share <= 1:
            raise ConfigError(f"filter_share: {self.filter_share} is outside (0, 1].")
        if not self.filter_gamma <= 1:
            raise ConfigError(f"filter_gamma: {self.filter_gamma} is outside [0, 1].")
        for name, methods in STAGES_OF.items():
            if getattr(self, name) and self.method not in methods:
                raise ConfigError(f"{name}: {self.method} has no such stage; remove these settings.")
        for name, methods in SETTINGS_OF.items():
            if getattr(self, name) != getattr(RunSettings, name) and self.method not in methods:
                raise ConfigError(f"{name}: {self.method} does not read it; remove it.")
        if self.lora is not None and self.method in CRITICS:
            raise ConfigError(f"lora: {self.method} trains its heads with all weights of the model; remove it.")

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str) -> RunSettings:
        """Settings from a mapping; unknown and missing names are errors that name ``where``."""
        known = {f.name: f for f in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise ConfigError(f"{where}: {name!r} is not a setting; there are {', '.join(known)}.")
        for name in ("method", "data", "model"):
            if values.get(name) is None:
                raise ConfigError(f"{where}: {name!r} is missing; give it in the config or as --{name}.")
        return cls(**values)


def unread_settings(method: str, values: dict[str, Any]) -> list[str]:
    """Which of the settings in a mapping only other methods read."""
    return [name for name, methods in {**STAGES_OF, **SETTINGS_OF}.items() if name in values and method not in methods]


def train(
    settings: RunSettings,
    out: str | os.PathLike[str],
    *,
    tokenizer: Any = None,
    resume: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    quiet: bool = False,
) -> Path:
    """Run a method from data to a policy folder that :func:`qsft.policies.load_policy` opens.

    Every stage leaves its result in ``out`` whole or not at all, with checkpoints on the way; ``resume`` goes on
    exactly where a killed run was, with the same losses as an uninterrupted one.

    Args:
        settings: what to do.
        out: folder of the run; must not exist unless ``resume``.
        tokenizer: a tokenizer, or processor, in memory instead of ``settings.tokenizer``.
        resume: continue the run in ``out``.
        cache_dir: where tokenised data is kept for the next run on the same file; ``None``: in ``out``.
        quiet: no progress bars.

    Returns:
        ``out``.

    Raises:
        ConfigError, DataError, CheckpointError: one line that says what to do.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"{out}: {os.environ['WORLD_SIZE']} processes would write the same run; start one process, without torchrun "
            "(several GPUs: train the stages with the trainers, as docs/training.md shows)."
        )
    run = _Run(settings, Path(out), tokenizer, resume, Path(cache_dir) if cache_dir else None, quiet)
    try:
        run.execute()
    except QSFTError:
        run.withdraw()
        raise
    except Exception as error:
        if disk_full(error):
            raise CheckpointError(
                f"{out}: the disk is full; free some space and run the same command with --resume."
            ) from error
        run.withdraw()
        raise
    return run.out


class _Run:
    def __init__(
        self, settings: RunSettings, out: Path, tokenizer: Any, resume: bool, cache_dir: Path | None, quiet: bool
    ) -> None:
        self.settings, self.out, self.quiet = settings, out, quiet
        # settings are checked before anything is written
        self.sft_config, self.second_config = stage_configs(settings, out, disable_tqdm=quiet)
        self.cache_dir = cache_dir or out / "cache"
        made = isinstance(settings.model, dict) or str(settings.model).endswith(".json")
        name = settings.tokenizer or (None if made else settings.model)
        if tokenizer is None and name is None:
            raise ConfigError(
                "tokenizer: a model made from a config needs one; give its path or hub id, with --set tokenizer=... on "
                "the command line."
            )
        self.tokenizer = tokenizer if tokenizer is not None else load_processor(str(name))
        self.trajectories = self._trajectory_tokenizer()
        self.return_ids: list[int] = []
        self.stages: Stages | None = None
        self.fresh = self._claim(resume)

    def _trajectory_tokenizer(self, return_levels: Sequence[float] | None = None) -> TrajectoryTokenizer:
        return TrajectoryTokenizer(
            self.tokenizer,
            self.settings.format,
            self.sft_config.max_length,
            self.settings.end_of_turn,
            return_levels=return_levels,
            max_exchanges=self.sft_config.max_exchanges,
        )

    def _claim(self, resume: bool) -> bool:
        """Take the folder: a fresh one (True), or the same run's (False)."""
        wanted = json.loads(json.dumps(dataclasses.asdict(self.settings)))
        path = self.out / RUN_FILE
        if path.exists():
            if not resume:
                raise ConfigError(
                    f"{self.out}: there is a run already; continue it with --resume or choose another --out."
                )
            # a run that began before a setting existed has its default
            defaults = dataclasses.asdict(RunSettings(self.settings.method, self.settings.data, self.settings.model))
            found = {**defaults, **self._record()["settings"]}
            for name, value in wanted.items():
                if found[name] != value:
                    raise ConfigError(
                        f"{path}: {name} was {found[name]!r} and is now {value!r}; resume with the same settings, "
                        "or choose another --out."
                    )
            return False
        try:
            if self.out.exists() and any(self.out.iterdir()):
                raise ConfigError(f"{self.out}: the folder is not empty and holds no run; choose another --out.")
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.out}: cannot be used ({error.strerror}); choose another --out.") from error
        write_json(path, {"settings": wanted, "finished": False})
        return True

    def _record(self) -> dict[str, Any]:
        path = self.out / RUN_FILE
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            record["settings"], record["finished"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: is not the record of a run ({error!r}); choose another --out.") from error
        return record

    def withdraw(self) -> None:
        """Leave no trace of a run that was refused before it trained anything."""
        if self.fresh and not (self.stages and self.stages.training_began):
            shutil.rmtree(self.out, ignore_errors=True)

    def execute(self) -> None:
        record = self._record()
        if record["finished"]:
            return
        extra: dict[str, Any] = {}
        if self.settings.method == "return-conditioned":
            extra["best_return"] = self._add_return_tokens()
        dataset = tokenize_file(self.settings.data, self.trajectories, self.cache_dir)
        tokens = Path(dataset.cache_files[0]["filename"]).stem  # a hash of the data, the tokenizer and its settings
        if record.setdefault("tokens", tokens) != tokens:
            raise ConfigError(
                f"{self.settings.data}: the data or the tokenizer changed since the run in {self.out} began; resume "
                "with the same ones, or choose another --out."
            )
        write_json(self.out / RUN_FILE, record)
        extra["reply_tokens"] = longest_reply(dataset)
        self.stages = Stages(
            self.settings,
            self.out,
            self.cache_dir,
            self.tokenizer,
            self.return_ids,
            self.trajectories.end_of_turn_ids,
            self.sft_config,
            self.second_config,
            self.quiet,
        )
        if self.settings.method == "qsft":
            extra["return_range"] = self.stages.q_sft(dataset)
        elif self.settings.method in CRITICS:
            extra["return_range"] = self.stages.critic(dataset)
        else:
            if self.settings.method == "filtered-bc":
                discounted = self.settings.filter_gamma < 1
                returns = self._discounted_returns(dataset["episode"][:]) if discounted else None
                dataset = filter_top(dataset, self.settings.filter_share, self.settings.seed, returns)
            self.stages.supervised(dataset)
        self.tokenizer.save_pretrained(self.out)
        write_json(
            self.out / RUN_FILE, {**record, "trajectories": self.trajectories.to_dict(), **extra, "finished": True}
        )
        shutil.rmtree(self.out / "checkpoints", ignore_errors=True)
        if self.cache_dir == self.out / "cache":
            shutil.rmtree(self.cache_dir, ignore_errors=True)

    def _discounted_returns(self, episodes: Sequence[int]) -> np.ndarray:
        """Of whole episodes, of which a tokenised row may hold the end alone."""
        gamma = self.settings.filter_gamma
        returns = [returns_to_go(game.rewards, gamma)[:1].sum() for game in load_trajectories(self.settings.data)]
        return np.array(returns)[episodes]

    def _add_return_tokens(self) -> float:
        """A token for each level of the returns in the data; the best return of an episode."""
        levels, best = return_levels(load_trajectories(self.settings.data), self.settings.return_tokens)
        self.tokenizer = add_return_tokens(self.tokenizer, levels)
        self.trajectories = self._trajectory_tokenizer(levels)
        assert self.trajectories.returns is not None
        self.return_ids = self.trajectories.returns.ids.tolist()
        return best


def stage_configs(
    settings: RunSettings, out: Path, **defaults: Any
) -> tuple[SFTConfig, QSFTConfig | CriticConfig | None]:
    """The configs of a run's stages, the second ``None`` where the method has no such stage; nothing is written.

    Args:
        settings: of the run.
        out: its folder.
        defaults: fields of the configs that the settings may change.

    Raises:
        ConfigError: naming stage, field, and what is wrong.
    """
    defaults = {"seed": settings.seed, **defaults}
    first = stage_config(SFTConfig, settings.behaviour, "behaviour", out, **defaults)
    if settings.method == "qsft":
        return first, stage_config(QSFTConfig, settings.likelihood, "likelihood", out, **defaults)
    if settings.method in CRITICS:
        kind = CRITICS[settings.method].config_class
        return first, stage_config(kind, settings.critic, "critic", out, **defaults)
    return first, None


def stage_config(kind: type[Any], values: Mapping[str, Any], stage: str, out: Path, **defaults: Any) -> Any:
    """The config of one stage, as :func:`stage_configs`."""
    for name, reason in (
        ("output_dir", "checkpoints go into the run's folder"),
        ("resume_from_checkpoint", "a run goes on from its own last checkpoint, with --resume"),
    ):
        if name in values:
            raise ConfigError(f"{stage}: {name}: {reason}; remove it.")
    for name in ("max_length", "max_exchanges"):
        if stage in STAGES_OF and name in values:
            raise ConfigError(f"{stage}: {name}: both stages read the same tokens; set it under behaviour.")
    fixed = {
        "output_dir": str(checkpoints(out, stage)),
        # torch warns at every epoch where there is no accelerator to copy to
        "dataloader_pin_memory": torch.accelerator.is_available(),
    }
    try:
        return kind(**{**fixed, **defaults, **values})
    except ConfigError as error:
        raise ConfigError(f"{stage}: {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{stage}: {wrong_argument(error)}; see qsft.training.{kind.__name__}.") from error


def longest_reply(dataset: datasets.Dataset) -> int:
    """Tokens of the longest agent turn, its end included."""
    longest = 0
    for row in dataset.select_columns(["agent_mask", "turn_end"]).with_format("numpy").iter(batch_size=1000):
        for mask, end in zip(row["agent_mask"], row["turn_end"], strict=True):
            spoken = np.cumsum(mask)[np.asarray(end, bool)]
            longest = max(longest, int(np.diff(spoken, prepend=0).max()))
    return longest
