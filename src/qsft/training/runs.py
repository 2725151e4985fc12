"""One command from a file of trajectories to a policy on disk: the stages in order, each resumable."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from safetensors import SafetensorError
from transformers import PreTrainedModel, PrinterCallback, ProgressCallback, set_seed

from qsft.data.dataset import check_dummy_token, filter_top, tokenize_file
from qsft.data.returns import ReturnRange
from qsft.data.tokenize import TrajectoryTokenizer
from qsft.errors import CheckpointError, ConfigError, QSFTError
from qsft.models.policy_model import BEHAVIOUR_DIR, LIKELIHOOD_DIR, QSFTPolicyModel, load_causal_lm
from qsft.models.scratch import load_or_make_model, load_tokenizer
from qsft.models.states import output_head, pick_dummy_token
from qsft.models.support import SupportRule, compute_support, with_support
from qsft.training.config import QSFTConfig, SFTConfig
from qsft.training.disk import disk_full, whole_folder, write_json
from qsft.training.progress import StageProgress
from qsft.training.trainer import JSONLinesLog, QSFTTrainer, SFTTrainer, last_checkpoint, pad_token

METHODS = ("qsft", "sft", "filtered-bc")
RUN_FILE = "run.json"
logger = logging.getLogger("qsft")


@dataclass
class RunSettings:
    """Everything that decides what a run produces.

    Args:
        method: ``"qsft"``, ``"sft"`` or ``"filtered-bc"``.
        data: file of trajectories (JSONL, Parquet, or a folder that ``datasets`` loads).
        model: hub id, local checkpoint, or the config of a model to initialise (a dict with ``model_type``, or the path
            of a JSON file).
        tokenizer: hub id or local path; ``None``: the model's.
        format: ``"chat"``, ``"text"`` or ``"auto"``, see :class:`qsft.data.TrajectoryTokenizer`.
        behaviour: settings of stage 1, fields of :class:`SFTConfig`.
        likelihood: settings of stage 2, fields of :class:`QSFTConfig`.
        behaviour_model: a finished model that takes stage 1's place (a checkpoint of supervised fine-tuning on the same
            data), or whose training goes on (``sft``, ``filtered-bc``).
        start_from: what stage 2 starts from: ``"behaviour"`` or ``"model"`` (the pretrained or fresh ``model``).
        filter_share: share of the trajectories, best returns first, that ``filtered-bc`` keeps.
        lora: arguments of ``peft.LoraConfig``; ``None`` trains all weights.
        seed: of weights and data order.
    """

    method: str
    data: str
    model: str | dict[str, Any]
    tokenizer: str | None = None
    format: str = "auto"
    behaviour: dict[str, Any] = field(default_factory=dict)
    likelihood: dict[str, Any] = field(default_factory=dict)
    behaviour_model: str | None = None
    start_from: str = "behaviour"
    filter_share: float = 0.3
    lora: dict[str, Any] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self.data = os.fspath(self.data)
        for name in ("behaviour", "likelihood"):
            if not isinstance(getattr(self, name), dict):
                raise ConfigError(f"{name}: must hold settings as NAME: VALUE pairs, not {getattr(self, name)!r}.")
        if self.method not in METHODS:
            raise ConfigError(f"method: {self.method!r} is unknown; use one of {', '.join(METHODS)}.")
        if self.start_from not in ("behaviour", "model"):
            raise ConfigError(f"start_from: {self.start_from!r} is unknown; use 'behaviour' or 'model'.")
        if not 0 < self.filter_share <= 1:
            raise ConfigError(f"filter_share: {self.filter_share} is outside (0, 1].")
        if self.method != "qsft" and self.likelihood:
            raise ConfigError(f"likelihood: {self.method} has no second stage; remove these settings.")

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
        tokenizer: a tokenizer in memory instead of ``settings.tokenizer``.
        resume: continue the run in ``out``.
        cache_dir: where tokenised data is kept for the next run on the same file; ``None``: in ``out``.
        quiet: no progress bars.

    Returns:
        ``out``.

    Raises:
        ConfigError, DataError, CheckpointError: one line that says what to do.
    """
    run = _Run(settings, Path(out), tokenizer, resume, Path(cache_dir) if cache_dir else None, quiet)
    try:
        run.execute()
    except QSFTError:
        run.withdraw()
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        if disk_full(error):
            raise CheckpointError(
                f"{out}: the disk is full; free some space and run the same command with --resume."
            ) from error
        raise
    return run.out


class _Run:
    def __init__(
        self, settings: RunSettings, out: Path, tokenizer: Any, resume: bool, cache_dir: Path | None, quiet: bool
    ) -> None:
        self.settings, self.out, self.quiet = settings, out, quiet
        # settings are checked before anything is written
        self.sft_config = self._config(SFTConfig, settings.behaviour, "behaviour")
        self.q_config = (
            self._config(QSFTConfig, settings.likelihood, "likelihood") if settings.method == "qsft" else None
        )
        self.cache_dir = cache_dir or out / "cache"
        name = settings.tokenizer or (settings.model if isinstance(settings.model, str) else None)
        if tokenizer is None and name is None:
            raise ConfigError("tokenizer: a model made from a config needs one; give its path or hub id.")
        self.tokenizer = tokenizer if tokenizer is not None else load_tokenizer(str(name))
        self.trajectories = TrajectoryTokenizer(
            self.tokenizer, format=settings.format, max_length=self.sft_config.max_length
        )
        self.training_began = False
        self.fresh = self._claim(resume)

    def _config(self, kind: type[Any], values: dict[str, Any], stage: str) -> Any:
        defaults = {"seed": self.settings.seed, "disable_tqdm": self.quiet, "output_dir": str(self._checkpoints(stage))}
        if "output_dir" in values:
            raise ConfigError(f"{stage}: output_dir: checkpoints go into the run's folder; remove it.")
        if stage == "likelihood" and "max_length" in values:
            raise ConfigError("likelihood: max_length: both stages read the same tokens; set it under behaviour.")
        try:
            return kind(**{**defaults, **values})
        except ConfigError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{stage}: {str(error).split('__init__() ')[-1]}; see qsft.training.{kind.__name__}."
            ) from error

    def _checkpoints(self, stage: str) -> Path:
        return self.out / "checkpoints" / stage

    def _claim(self, resume: bool) -> bool:
        """Take the folder: a fresh one (True), or the same run's (False)."""
        wanted = json.loads(json.dumps(dataclasses.asdict(self.settings)))
        path = self.out / RUN_FILE
        if path.exists():
            if not resume:
                raise ConfigError(
                    f"{self.out}: there is a run already; continue it with --resume or choose another --out."
                )
            found = self._record()["settings"]
            for name, value in wanted.items():
                if found.get(name) != value:
                    raise ConfigError(
                        f"{path}: {name} was {found.get(name)!r} and is now {value!r}; resume with the same settings, "
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
        if self.fresh and not self.training_began:
            shutil.rmtree(self.out, ignore_errors=True)

    def execute(self) -> None:
        record = self._record()
        if record["finished"]:
            return
        dataset = tokenize_file(self.settings.data, self.trajectories, self.cache_dir)
        tokens = Path(dataset.cache_files[0]["filename"]).stem  # a hash of the data, the tokenizer and its settings
        if record.setdefault("tokens", tokens) != tokens:
            raise ConfigError(
                f"{self.settings.data}: the data or the tokenizer changed since the run in {self.out} began; resume "
                "with the same ones, or choose another --out."
            )
        write_json(self.out / RUN_FILE, record)
        extra: dict[str, Any] = {"reply_tokens": longest_reply(dataset)}
        if self.settings.method == "qsft":
            extra["return_range"] = self._two_stages(dataset)
        else:
            if self.settings.method == "filtered-bc":
                dataset = filter_top(dataset, self.settings.filter_share)
            self._supervised(dataset, self.out, self._first_model())
        self.tokenizer.save_pretrained(self.out)
        write_json(
            self.out / RUN_FILE, {**record, "trajectories": self.trajectories.to_dict(), **extra, "finished": True}
        )
        shutil.rmtree(self.out / "checkpoints", ignore_errors=True)
        if self.cache_dir == self.out / "cache":
            shutil.rmtree(self.cache_dir, ignore_errors=True)

    def _first_model(self) -> PreTrainedModel:
        if self.settings.behaviour_model:
            model = load_causal_lm(self.settings.behaviour_model)
        else:
            model = load_or_make_model(self.settings.model, self.tokenizer, self.settings.seed)
        rows, tokens = output_head(model)[0].shape[0], max(self.tokenizer.get_vocab().values()) + 1
        if tokens > rows:
            raise ConfigError(
                f"model: it has {rows} tokens and the tokenizer {tokens}; use the model's own tokenizer, or resize the "
                "model's embeddings."
            )
        return model

    def _supervised(self, dataset: datasets.Dataset, folder: Path, model: PreTrainedModel) -> None:
        trainer = SFTTrainer(self._adapted(model), self.sft_config, dataset, self.tokenizer)
        self._finish(trainer, "behaviour", folder)

    def _two_stages(self, dataset: datasets.Dataset) -> tuple[float, float]:
        config = self.q_config
        assert config is not None
        behaviour_dir, likelihood_dir = self.out / BEHAVIOUR_DIR, self.out / LIKELIHOOD_DIR
        # what can be refused is refused before hours of training
        if config.horizon is not None and self.sft_config.max_length is not None:
            raise ConfigError(
                "horizon: turns are counted from an episode's start, which max_length cuts; use one of them."
            )
        returns = _return_range(config, dataset, self.settings.data)
        config.return_low, config.return_high = returns
        rule = SupportRule(config.support, config.support_threshold, config.support_max_tokens)
        behaviour = load_causal_lm(behaviour_dir) if behaviour_dir.exists() else self._first_model()
        dummy = pick_dummy_token(self.tokenizer, output_head(behaviour)[0].shape[0], config.dummy_token)
        check_dummy_token(dataset, dummy, self.settings.data)
        if not behaviour_dir.exists():
            if self.settings.behaviour_model:
                with whole_folder(behaviour_dir) as partial:
                    behaviour.save_pretrained(partial)
            else:
                self._supervised(dataset, behaviour_dir, behaviour)
                behaviour = load_causal_lm(behaviour_dir)
        if not likelihood_dir.exists():
            self._likelihood(dataset, behaviour, rule, dummy)
        policy = QSFTPolicyModel.combine(
            load_causal_lm(likelihood_dir),
            behaviour,
            dummy_token_id=dummy,
            return_range=returns,
            horizon=config.horizon,
        )
        policy.config.architectures = [type(policy).__name__]
        policy.config.save_pretrained(self.out)
        return returns

    def _likelihood(self, dataset: datasets.Dataset, behaviour: PreTrainedModel, rule: SupportRule, dummy: int) -> None:
        config = self.q_config
        assert config is not None
        table = self.cache_dir / f"support-{_support_key(dataset, self.out / BEHAVIOUR_DIR, rule, dummy)}.arrow"
        if not table.exists():
            compute_support(
                behaviour.to(config.device),  # type: ignore[arg-type]
                dataset,
                rule,
                table,
                pad_token_id=pad_token(self.tokenizer),
                dummy_id=dummy,
                batch_size=config.per_device_train_batch_size,
                progress=not self.quiet,
            )
            behaviour.to("cpu")  # type: ignore[arg-type]
        supported = with_support(dataset, table)
        model = behaviour
        if self.settings.start_from == "model":
            model = load_or_make_model(self.settings.model, self.tokenizer, self.settings.seed + 1)
        trainer = QSFTTrainer(self._adapted(model), config, supported, self.tokenizer)
        self._finish(trainer, "likelihood", self.out / LIKELIHOOD_DIR)

    def _adapted(self, model: PreTrainedModel) -> Any:
        if self.settings.lora is None:
            # in half precision most updates of a weight are lost to rounding; to compute in it there is bf16: true
            return model.float()
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise ConfigError("lora: needs the package peft; install it with pip install 'qsft[peft]'.") from error
        set_seed(self.settings.seed)  # of the adapters' weights
        try:
            return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **self.settings.lora))
        except (TypeError, ValueError) as error:
            reason = str(error).splitlines()[0].split("__init__() ")[-1]
            raise ConfigError(f"lora: {reason}; see peft.LoraConfig.") from error

    def _finish(self, trainer: SFTTrainer, stage: str, folder: Path) -> None:
        """Train to the end, from the newest checkpoint where there is one, and put the model into ``folder`` whole."""
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        if not self.quiet:
            trainer.add_callback(StageProgress(f"{self.settings.method}: {stage} model"))
        trainer.add_callback(JSONLinesLog(self.out / f"log-{stage}.jsonl"))
        checkpoint = last_checkpoint(self._checkpoints(stage))
        self.training_began = True
        if checkpoint and _at_the_end(checkpoint):
            trainer._load_from_checkpoint(str(checkpoint))
        else:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        model = trainer.inner_model
        if hasattr(model, "merge_and_unload"):
            if "target" in model.peft_config:
                model.delete_adapter("target")
            model = model.merge_and_unload()
        with whole_folder(folder) as partial:
            model.save_pretrained(partial)
            if folder != self.out:
                self.tokenizer.save_pretrained(partial)


def _at_the_end(checkpoint: Path) -> bool:
    """Whether training was over; ``Trainer`` would make one step more where the last one is not the end of an epoch."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return bool(state["global_step"] >= state["max_steps"])


def longest_reply(dataset: datasets.Dataset) -> int:
    """Tokens of the longest agent turn, its end included."""
    longest = 0
    for row in dataset.select_columns(["agent_mask", "turn_end"]).with_format("numpy").iter(batch_size=1000):
        for mask, end in zip(row["agent_mask"], row["turn_end"], strict=True):
            spoken = np.cumsum(mask)[np.asarray(end, bool)]
            longest = max(longest, int(np.diff(spoken, prepend=0).max()))
    return longest


def _support_key(dataset: datasets.Dataset, behaviour: Path, rule: SupportRule, dummy: int) -> str:
    """Names a support table by all that decides its content: data, behaviour model, rule."""
    digest = hashlib.blake2b(f"{dataset.cache_files} {len(dataset)} {rule} {dummy}".encode(), digest_size=16)
    for file in sorted([*behaviour.glob("*.safetensors"), *behaviour.glob("config.json")]):
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _return_range(config: QSFTConfig, dataset: datasets.Dataset, source: str) -> tuple[float, float]:
    low, high = config.return_low, config.return_high
    if low is None or high is None:
        found = ReturnRange.from_data(dataset, config.gamma, config.gamma_per)
        low, high = found.low if low is None else low, found.high if high is None else high
    given = ReturnRange(float(low), float(high))
    given.check(dataset, config.gamma, config.gamma_per, source)
    return given.low, given.high
