"""Settings of the two stages, on `transformers.TrainingArguments`."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_optimizer import is_optimizer_factory

from qsft.data.returns import ReturnRange
from qsft.errors import ConfigError, wrong_argument
from qsft.models.support import SupportRule
from qsft.training.muon import MuonWithAdamW

logger = logging.getLogger("qsft")
#: settings of TrainingArguments for losses and embeddings that transformers computes
UNREAD = ("label_smoothing_factor", "neftune_noise_alpha", "use_liger_kernel")


@dataclass
class SFTConfig(TrainingArguments):
    """Stage 1, and every method that is a cross-entropy on agent tokens.

    Everything of ``transformers.TrainingArguments`` is there but what changes the model's own loss (``UNREAD``) or makes
    checkpoints that cannot be resumed; the fields below are new or have another default.

    Args:
        logging_nan_inf_filter: False, so that a training that diverges is seen, and ends.
        max_length: longer histories lose whole turns from the left (``None``: no limit). It and ``max_exchanges`` are
            read by :func:`qsft.train`, which tokenises; trainers take rows as they are.
        max_exchanges: most exchanges that the model reads at a turn, that of the turn included (``None``: no limit); see
            :class:`qsft.data.TrajectoryTokenizer`.
        loss_chunk_size: agent tokens whose logits exist at a time.
        muon: update hidden matrices with Muon instead of AdamW (:class:`qsft.training.muon.MuonWithAdamW`): for a
            network from random weights.

    Raises:
        ConfigError: a setting that is impossible, is not read, or that optimiser, schedule or data loader refuse.
    """

    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Trajectories a step and device."})
    logging_steps: float = field(default=50, metadata={"help": "Optimiser steps between log lines."})
    save_steps: float = field(default=500, metadata={"help": "Optimiser steps between checkpoints."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept."})
    report_to: str | list[str] | None = field(default="none", metadata={"help": "tensorboard, wandb, trackio, ..."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator reads its own columns."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hides steps whose loss is not finite."})
    max_length: int | None = field(default=None, metadata={"help": "Longest history in tokens."})
    max_exchanges: int | None = field(default=None, metadata={"help": "Most exchanges read at a turn."})
    loss_chunk_size: int = field(default=256, metadata={"help": "Agent tokens whose logits exist at a time."})
    muon: bool = field(default=False, metadata={"help": "Muon for hidden matrices, AdamW for the rest."})

    def __post_init__(self) -> None:
        check_numbers(type(self), vars(self))  # before anything is computed from them
        for name in ("logging_steps", "save_steps"):
            if getattr(self, name) % 1:  # a share of a length that is not known yet, so neither is the multiple below
                raise ConfigError(f"{name}: {getattr(self, name)} is no number of steps; give a whole one.")
        super().__post_init__()
        counts = ("loss_chunk_size", "per_device_train_batch_size", "gradient_accumulation_steps")
        for name in (*counts, "dataloader_prefetch_factor"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ConfigError(f"{name}: {count} must be at least 1.")
        if not 0 <= self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate: {self.learning_rate} must be a number of at least 0.")
        if not 0 < self.num_train_epochs < math.inf and self.max_steps <= 0:
            raise ConfigError(f"num_train_epochs: {self.num_train_epochs} must be above 0 and finite, or max_steps.")
        known = self.__dataclass_fields__["train_sampling_strategy"].metadata["choices"]
        one_of("train_sampling_strategy", self.train_sampling_strategy, known)
        for name in UNREAD:
            if getattr(self, name):
                raise ConfigError(
                    f"{name}: the loss is computed apart from the model's own and does not read it; remove it."
                )
        if self.muon and (unread := self._changed("optim", "optim_args", "optim_target_modules")):
            raise ConfigError(f"{unread[0]}: muon is the optimiser and does not read it; remove one of the two.")
        if self.save_only_model:
            raise ConfigError(
                "save_only_model: a checkpoint without its optimiser cannot be resumed exactly; remove it."
            )
        self._check_trackers()
        if self.remove_unused_columns:
            raise ConfigError("remove_unused_columns: must stay False, the collator needs the trajectory columns.")
        if self.save_strategy in ("steps", "epoch") and self.logging_strategy not in ("no", self.save_strategy):
            raise ConfigError(
                f"save_strategy: {self.save_strategy} differs from logging_strategy ({self.logging_strategy}), so a "
                "resumed run could not continue a half-averaged log line; make them equal."
            )
        if self.save_strategy == self.logging_strategy == "steps" and self.save_steps % self.logging_steps:
            raise ConfigError(
                f"save_steps: {self.save_steps} is not a multiple of logging_steps ({self.logging_steps}), so a "
                "resumed run could not continue a half-averaged log line; make it one."
            )
        self._check_parts()

    def muon_optimizer(self, model: nn.Module, heads: Iterable[Tensor]) -> MuonWithAdamW:
        """The optimiser of ``muon`` for a model's parameters, its output heads' weights among them."""
        betas = (self.adam_beta1, self.adam_beta2)
        return MuonWithAdamW(model, heads, self.learning_rate, self.weight_decay, betas, self.adam_epsilon)

    def _check_parts(self) -> None:
        """That optimiser, schedule, data loader and checkpointing can be made of their settings, tried on one weight: the
        trainer of the second stage would find out after the first."""
        model = nn.utils.skip_init(nn.Linear, 1, 1)  # draws no random numbers, which are the training's
        adam = ("adam_beta1", "adam_beta2", "adam_epsilon")
        with self._made_of("optim", "optim_args", "optim_target_modules", *adam, "weight_decay"):
            optimizer = self.muon_optimizer(model, []) if self.muon else self._optimizer(model)
        with self._made_of("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"):
            # how many steps an epoch has is not known yet
            steps = self.max_steps if self.max_steps > 0 else 1000 + int(self.warmup_steps)
            warmup = self.get_warmup_steps(steps)
            given: Any = self.lr_scheduler_kwargs
            schedule = get_scheduler(self.lr_scheduler_type, optimizer, warmup, steps, given)
            for rate in getattr(schedule, "lr_lambdas", ()):  # they read some settings at their steps only
                rate(min(warmup, steps))
                rate(steps)
        options = ("num_workers", "prefetch_factor", "persistent_workers", "multiprocessing_context")
        with self._made_of(*(f"dataloader_{name}" for name in options)):
            DataLoader(TensorDataset(), **{name: getattr(self, f"dataloader_{name}") for name in options})
        if self.gradient_checkpointing:
            with self._made_of("gradient_checkpointing_kwargs"):
                settings: dict[str, Any] = dict(self.gradient_checkpointing_kwargs or {})  # type: ignore[arg-type]
                _ = 0 % settings.pop("every_n_layers", 1)  # as the model does, which reads it and the next one itself
                settings.pop("offload", None)
                checkpoint(torch.abs, torch.zeros(1, requires_grad=True), **(settings or {"use_reentrant": False}))

    def _optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """As ``Trainer.create_optimizer`` makes it."""
        args = copy.copy(self)
        if args.optim_target_modules:  # names in the model to train, which is not there yet
            args.optim_target_modules = "all-linear"
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(args, model)  # type: ignore[arg-type]
        if is_optimizer_factory(kind):
            return kind()(model, **settings)
        parameters: Any = model.parameters()
        for name in ("params", "model", "optimizer_dict"):  # of one that takes more than parameters
            parameters = settings.pop(name, parameters)
        return kind(parameters, **settings)

    def _changed(self, *names: str) -> list[str]:
        """Which of these settings have another value than the default."""
        return [name for name in names if getattr(self, name) != getattr(type(self), name)]

    @contextmanager
    def _made_of(self, *names: str) -> Iterator[None]:
        """What cannot be made of the settings of these names is an error in one line."""
        try:
            yield
        except Exception as error:  # libraries raise all kinds, and nothing but settings can be wrong here
            values = {name: getattr(self, name) for name in self._changed(*names) or names[:1]}
            given = ", ".join(f"{name}: {getattr(value, 'value', value)!s:.80}" for name, value in values.items())
            raise ConfigError(f"{given}: {wrong_argument(error).rstrip('. ')}; change it or leave it out.") from error

    def _check_trackers(self) -> None:
        """That what reports go to is known and installed: the trainer of the second stage would find out after the first."""
        if not self.report_to:
            return
        # transformers does not say whether the last two are there
        installed = {*get_available_reporting_integrations(), "azure_ml", "flyte"}
        for name in self.report_to:
            if name not in INTEGRATION_TO_CALLBACK:
                raise ConfigError(
                    f"report_to: {name!r} is unknown; use none, or some of {', '.join(INTEGRATION_TO_CALLBACK)}."
                )
            if name not in installed:
                raise ConfigError(
                    f"report_to: {name} is not installed; install it with pip install {name}, or leave report_to out."
                )


@dataclass
class QSFTConfig(SFTConfig):
    """Stage 2: Q-values as token probabilities.

    Source: Hong, Dragan, Levine, "Q-SFT", ICLR 2025 (arXiv 2411.05193), section 4; the anchored form and the soft
    backup are ours. The defaults come from the ablation in ``experiments/wordle``.

    Args:
        form: ``"dummy"``, ``"balanced"``, ``"anchored"`` or ``"uniform"`` (the paper's), see
            :mod:`qsft.objectives.forms`.
        max_weight: where the balanced form cuts the weights of the policy.
        weight_temperature: weights are ``exp((v - 1) / weight_temperature)`` of scaled values instead of these themselves
            (:func:`qsft.objectives.exponential_weights`); a small one imitates what did best. The soft backup is then the
            KL-regularised value of that temperature, read off the dummy token. ``None``: off.
        backup: value of the next state: ``"soft"`` (KL-regularised), ``"max"`` (the paper's) or ``"monte-carlo"`` (no
            backup: the weight is the return-to-go).
        backup_beta: inverse temperature of the soft backup, in units of the scaled return.
        trace: lambda of the targets: 0 bootstraps from the next token, 1 is the Monte-Carlo return.
        monte_carlo_first: share of the steps, at the beginning, whose weight is the return-to-go alone.
        gamma: discount.
        gamma_per: ``"turn"`` or ``"token"``.
        return_low, return_high: bounds on every return-to-go in reward units; ``None`` reads them off the data.
        horizon: agent turns that an episode can last, where that is known and every turn can cost as much as another; needs
            ``gamma`` 1, and every return-to-go of the data above the bound.
            Values then count from the worst return still possible, ``return_low (1 - t / horizon)`` at turn t, instead
            of from ``return_low`` (:func:`qsft.objectives.stake`). The policy weighs actions by *ratios* of values,
            which this makes as large late in an episode as early; the order of actions stays the same. ``None``: off.
        start_at_mean: begin with every value at the mean return of the data instead of at the top of the range
            (:func:`qsft.models.mean_start.start_at_mean`); not with the uniform form, which has no dummy token.
        target_rate: alpha of the target network's moving average.
        support: ``"relative"`` or ``"absolute"`` threshold on the behaviour model's probabilities.
        support_threshold: see :class:`qsft.models.support.SupportRule`.
        support_max_tokens: at most this many tokens a state.
        dummy_token: token (or id) that is never an action; ``None`` picks one.
    """

    form: Literal["anchored", "balanced", "dummy", "uniform"] = "dummy"
    max_weight: float = 20.0
    weight_temperature: float | None = None
    backup: Literal["soft", "max", "monte-carlo"] = "soft"
    backup_beta: float = 15.0
    trace: float = 0.9
    monte_carlo_first: float = 0.0
    gamma: float = 1.0
    gamma_per: Literal["turn", "token"] = "turn"
    return_low: float | None = None
    return_high: float | None = None
    horizon: int | None = None
    start_at_mean: bool = False
    target_rate: float = 0.005
    support: Literal["relative", "absolute"] = "relative"
    support_threshold: float = 0.1
    support_max_tokens: int = 512
    dummy_token: str | int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        warn_of_grouping(self)
        one_of("form", self.form, ("anchored", "balanced", "dummy", "uniform"))
        one_of("backup", self.backup, ("soft", "max", "monte-carlo"))
        one_of("gamma_per", self.gamma_per, ("turn", "token"))
        within("gamma", self.gamma, 0.0, 1.0)
        within("trace", self.trace, 0.0, 1.0)
        within("monte_carlo_first", self.monte_carlo_first, 0.0, 1.0)
        within("target_rate", self.target_rate, 0.0, 1.0)
        if self.horizon is not None and (self.horizon < 1 or self.gamma != 1.0):
            raise ConfigError(f"horizon: {self.horizon}: must be at least 1, and needs gamma 1.")
        check_max_weight(self.max_weight)
        if self.weight_temperature is not None:
            positive("weight_temperature", self.weight_temperature, 0.1)
            if self.horizon is not None:
                raise ConfigError(
                    "weight_temperature: weighs differences of values, horizon their ratios; use one of them."
                )
            if self.form == "uniform":
                raise ConfigError(
                    "weight_temperature: the uniform form has no ratio p / pi to hold it; use another form."
                )
        if self.start_at_mean and self.form == "uniform":
            raise ConfigError("start_at_mean: the uniform form has no dummy token to start from; use the dummy form.")
        positive("backup_beta", self.backup_beta, 15)
        if isinstance(self.dummy_token, bool) or not isinstance(self.dummy_token, str | int | None):
            raise ConfigError(f"dummy_token: {self.dummy_token!r} is neither a token nor the id of one.")
        SupportRule(self.support, self.support_threshold, self.support_max_tokens)
        if self.return_low is not None and self.return_high is not None:
            ReturnRange(self.return_low, self.return_high)


def reads_values(form: str, backup: str) -> bool:
    """Whether stage 2 reads the target network's values; if not, it is not run."""
    return backup != "monte-carlo" or form in ("anchored", "uniform")


def reads_support(form: str, backup: str, weight_temperature: float | None) -> bool:
    """Whether stage 2 reads the support table."""
    return form == "anchored" or (reads_values(form, backup) and not value_is_alive(backup, weight_temperature))


def value_is_alive(backup: str, weight_temperature: float | None) -> bool:
    """Whether ``1 - p(dummy)`` alone tells the next state's value: the soft backup of exponential weights."""
    return backup == "soft" and weight_temperature is not None


def warn_of_grouping(config: TrainingArguments) -> None:
    """Logs a warning where a stage that learns values is to see episodes of one length together.

    Lost episodes are often the long ones. Then batches are all won or all lost, and values that are pulled up and down by
    turns come out wrong: a third of the mean return at the first turn of ALFWorld, whose games end when they are won.
    """
    if config.train_sampling_strategy == "group_by_length":
        logger.warning(
            "train_sampling_strategy: group_by_length in a stage that learns values: where an episode's length tells its "
            "return, each batch holds one return; leave it out unless lengths tell nothing."
        )


_FORMS = {frozenset({"bool"}): "true or false", frozenset({"int"}): "a whole number"}


def check_numbers(kind: type[Any], values: Mapping[str, Any]) -> None:
    """Raises ConfigError for a value that is empty or of another kind where a dataclass takes nothing but numbers, true or
    false: whole ones alone where it takes no others, and none that is not a number (``nan``).

    ``gamma:`` with nothing behind it is ``None`` in YAML.
    """
    for known in dataclasses.fields(kind):
        wanted = str(known.type)
        numbers = re.findall(r"\b(int|float|bool)\b", wanted)
        if known.name not in values or not numbers or re.search(r"\b(str|dict|list|Literal)\b", wanted):
            continue
        value, form = values[known.name], _FORMS.get(frozenset(numbers), "a number")
        if value is None:
            if known.default is not None and not re.search(r"\b(None|Optional)\b", wanted):
                raise ConfigError(f"{known.name}: is empty; give {form}, or take it out.")
            continue
        wrong = not isinstance(value, Real) or (isinstance(value, bool) and "bool" not in numbers)
        if wrong or math.isnan(value) or (form == "a whole number" and not isinstance(value, Integral)):
            raise ConfigError(f"{known.name}: {value!r:.40} must be {form}.")


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name}: {value!r} is unknown; use one of {', '.join(map(repr, allowed))}.")


def positive(name: str, value: float, start: float) -> None:
    if not 0 < value < math.inf:
        raise ConfigError(f"{name}: {value} must be positive and finite; {start} is a good start.")


def check_max_weight(max_weight: float) -> None:
    if max_weight < 1:
        raise ConfigError(f"max_weight: {max_weight} must be at least 1, the weight of the average action.")


def within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name}: {value} is outside [{low}, {high}].")
