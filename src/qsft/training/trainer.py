"""Trainers of the two stages, on `transformers.Trainer`."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import datasets
import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from qsft.data.batch import TrajectoryCollator, pad_token
from qsft.data.dataset import check_dummy_token
from qsft.data.images import image_inputs, tokenizer_of
from qsft.data.returns import ReturnRange
from qsft.errors import CheckpointError, ConfigError
from qsft.models.generation import check_padding
from qsft.models.mean_start import start_at_mean
from qsft.models.states import check_head, output_head, pick_dummy_token, unwrap_adapters
from qsft.models.support import SUPPORT_COLUMNS
from qsft.models.target import TargetNetwork, make_target
from qsft.training.callbacks import FollowModel
from qsft.training.checkpoints import COMPLETE, load_weights
from qsft.training.config import QSFTConfig, SFTConfig, reads_support
from qsft.training.losses import QLoss, QLossSettings, SupervisedLoss
from qsft.training.order import EpochOrder

TARGET_FILE = "target.safetensors"
#: rows whose mean return stage 2 starts at, where it is asked to
MEAN_OF_ROWS = 256


class SFTTrainer(Trainer):
    """Stage 1: cross-entropy on the agent's tokens of whole trajectories (behaviour cloning).

    Args:
        model: any causal LM or vision-language model, or a PEFT model.
        args: :class:`SFTConfig`.
        train_dataset: tokenised trajectories (:func:`qsft.data.tokenize_file`).
        processing_class: the tokenizer, or the processor of a vision-language model.
        kwargs: passed to ``transformers.Trainer``.

    Raises:
        ConfigError: an argument of another kind than these, or settings that contradict each other; during training, a
            loss that is no finite number.
    """

    args: SFTConfig
    config_class: ClassVar[type[SFTConfig]] = SFTConfig

    def __init__(
        self,
        model: PreTrainedModel | nn.Module,
        args: SFTConfig,
        train_dataset: datasets.Dataset,
        processing_class: Any,
        **kwargs: Any,
    ) -> None:
        if args.n_gpu > 1:
            raise ConfigError(
                f"{args.n_gpu} GPUs in one process would train as nn.DataParallel, which cannot gather the metrics; "
                "start with torchrun or accelerate launch, or show one GPU with CUDA_VISIBLE_DEVICES=0."
            )
        self.prepare(model, args, train_dataset, processing_class)
        self.loss_module = self.make_loss(model, args, processing_class)
        super().__init__(
            model=self.loss_module,
            args=args,
            train_dataset=train_dataset,  # type: ignore[arg-type]
            data_collator=self.make_collator(args, processing_class),
            processing_class=processing_class,
            **kwargs,
        )
        self._metric_sums: dict[str, Tensor] = {}
        self._metric_counts: dict[str, Tensor] = {}
        self._metrics_since = time.perf_counter()

    def prepare(self, model: Any, args: SFTConfig, dataset: datasets.Dataset, tokenizer: Any) -> None:
        """Checks what the trainer is given, before anything is built on it."""
        if not isinstance(model, nn.Module):
            raise ConfigError(f"model: {model!r:.80} is not a model; load it with qsft.models.load_causal_lm.")
        if not isinstance(args, self.config_class):
            raise ConfigError(f"args: {type(args).__name__} is not the {self.config_class.__name__} that this takes.")
        if tokenizer is None:
            raise ConfigError("processing_class: is missing; give the tokenizer that the rows were made with.")
        if "agent_mask" not in getattr(dataset, "column_names", ()):
            raise ConfigError("train_dataset: holds no tokenised trajectories; make it with qsft.data.tokenize_file.")
        check_head(model)  # type: ignore[arg-type]
        check_padding(unwrap_adapters(model))

    def make_loss(self, model: nn.Module, args: SFTConfig, tokenizer: Any) -> SupervisedLoss:
        """The module whose forward pass is a training step's loss."""
        return SupervisedLoss(model, args.loss_chunk_size)

    def make_collator(self, args: SFTConfig, tokenizer: Any) -> TrajectoryCollator:
        return TrajectoryCollator(pad_token(tokenizer), images=image_inputs(tokenizer))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        # A sampler by length measures what the processing class names first: of a processor that may be the pixels.
        processor = self.processing_class
        self.processing_class = tokenizer_of(processor)
        try:
            sampler = super()._get_train_sampler(train_dataset)
        finally:
            self.processing_class = processor
        if isinstance(sampler, LengthGroupedSampler):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return EpochOrder(sampler, seed)
        return sampler

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        # of the language model, and not of the module that holds it with its loss and has no config
        held, self.model = self.model, self.inner_model
        try:
            super().create_model_card(*args, **kwargs)
        finally:
            self.model = held

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.args.muon and self.optimizer is None:
            module = self.loss_module if model is None else model
            self.optimizer = self.args.muon_optimizer(module, self.output_weights())
        return super().create_optimizer(model)

    @property
    def inner_model(self) -> Any:
        """The model itself, as checkpoints hold it."""
        return self.loss_module.model

    def output_weights(self) -> list[Tensor]:
        """Weights of the output heads, which Muon is not for."""
        return [output_head(self.inner_model)[0]]

    @property
    def finished_model(self) -> Any:
        """What the stage leaves behind when it is over."""
        return self.inner_model

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        outputs = model(**inputs, num_items_in_batch=num_items_in_batch)
        if model.training:
            self._add_metrics(outputs["metrics"])
        loss = outputs["loss"]
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        # evaluation knows the loss alone: there are no logits to gather
        with torch.no_grad():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | int | None:
        return self._total([self.loss_module.count_targets(batch) for batch in batch_samples], device)

    def _total(self, counts: Sequence[Tensor], device: torch.device) -> Tensor:
        """Of the micro-batches of a step, on all processes where they share the loss's denominator."""
        total = torch.as_tensor(sum(counts), device=device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if not math.isfinite(logs.get("loss", 0.0)):
            raise ConfigError(
                f"learning_rate: by step {self.state.global_step} the loss is {logs['loss']}, so the model is lost; train "
                f"anew with less than {self.args.learning_rate:g}, or with a smaller max_grad_norm."
            )
        if "loss" in logs and self._metric_counts:
            logs = {**logs, **self._take_metrics()}
        super().log(logs, start_time)

    def _add_metrics(self, metrics: dict[str, tuple[Tensor, Tensor | int]]) -> None:
        """Sums stay on the device until a line is logged: to read one at every step would wait for the step each time."""
        for name, (total, count) in metrics.items():
            # float64, which Apple's accelerators do not have, loses nothing over many steps
            exact = torch.float32 if total.device.type == "mps" else torch.float64
            for kept, value in ((self._metric_sums, total), (self._metric_counts, count)):
                added = torch.as_tensor(value).detach().to(exact)  # a number stays here: moving it would wait too
                kept[name] = kept[name] + added if name in kept else added

    def _take_metrics(self) -> dict[str, float]:
        """Means since the last call, and the counters back to zero."""
        sums, counts = (
            {name: float(value) for name, value in kept.items()} for kept in (self._metric_sums, self._metric_counts)
        )
        self._metric_sums, self._metric_counts = {}, {}
        now = time.perf_counter()
        rate = sums.pop("tokens") / max(now - self._metrics_since, 1e-9)
        self._metrics_since = now
        means = {name: total / max(counts[name], 1.0) for name, total in sums.items()}
        return {**means, "tokens_per_second": round(rate, 1)}

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if not self.args.should_save:
            return
        folder = output_dir or self.args.output_dir or "."
        os.makedirs(folder, exist_ok=True)
        if state_dict is not None:
            state_dict = {key[len("model.") :]: value for key, value in state_dict.items() if key.startswith("model.")}
        adapters = {"selected_adapters": ["default"]} if hasattr(self.inner_model, "peft_config") else {}
        self.inner_model.save_pretrained(folder, state_dict=state_dict, **adapters)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
            if self.args.should_save:
                self._save_extra(folder)
                (folder / COMPLETE).touch()
        except Exception:  # a full disk: make room again, the previous checkpoint is still there
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:  # only now, when the newest is complete, may older ones go
            rotate_checkpoints(str(folder.parent), limit, self.state.best_model_checkpoint)

    def _save_extra(self, folder: Path) -> None:
        """What a later stage keeps beside the model, optimiser and random states."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        load_weights(self.inner_model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        load_weights(self.inner_model, Path(str(self.state.best_model_checkpoint)))


class QSFTTrainer(SFTTrainer):
    """Stage 2: Q-values as token probabilities.

    Args:
        model: the likelihood model, starting as the behaviour model (or, by the paper's letter, as the pretrained one).
        args: :class:`QSFTConfig` with ``return_low`` and ``return_high`` set.
        train_dataset: tokenised trajectories with their support table (:func:`qsft.models.with_support`), which
            Monte-Carlo targets of the dummy form can do without.
        processing_class: the tokenizer.
        kwargs: passed to ``transformers.Trainer``.
    """

    args: QSFTConfig
    config_class = QSFTConfig

    def __init__(
        self,
        model: PreTrainedModel | nn.Module,
        args: QSFTConfig,
        train_dataset: datasets.Dataset,
        processing_class: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, args, train_dataset, processing_class, **kwargs)
        self.add_callback(FollowModel(self))

    def prepare(self, model: Any, args: SFTConfig, dataset: datasets.Dataset, tokenizer: Any) -> None:
        super().prepare(model, args, dataset, tokenizer)
        assert isinstance(args, QSFTConfig)
        missing = [name for name in SUPPORT_COLUMNS if name not in dataset.column_names]
        if missing and reads_support(args.form, args.backup, args.weight_temperature):
            raise ConfigError(
                f"train_dataset: column {missing[0]!r} is missing; compute the support table of the behaviour model "
                "first (qsft.models.compute_support, with_support)."
            )
        settings = self._loss_settings(model, args, tokenizer)
        ReturnRange(*settings.return_range).check(dataset, args.gamma, args.gamma_per, "train_dataset")
        check_dummy_token(dataset, settings.dummy_id, "train_dataset")
        if args.start_at_mean:
            self._start_at_mean(model, args, settings, dataset, tokenizer)

    def _start_at_mean(
        self, model: Any, args: QSFTConfig, settings: QLossSettings, dataset: datasets.Dataset, tokenizer: Any
    ) -> None:
        if not hasattr(model, "hf_device_map"):
            model.to(args.device)
        rows = dataset.shuffle(seed=args.seed).select(range(min(MEAN_OF_ROWS, len(dataset))))
        collate, size = self.make_collator(args, tokenizer), args.per_device_train_batch_size
        batches = [
            {key: value.to(model.device) for key, value in collate([rows[i] for i in part]).items()}
            for part in (range(first, min(first + size, len(rows))) for first in range(0, len(rows), size))
        ]
        tied = output_head(model)[0] is unwrap_adapters(model).get_input_embeddings().weight
        if tied and any(((b["input_ids"] == settings.dummy_id) & b["attention_mask"].bool()).any() for b in batches):
            raise ConfigError(
                f"start_at_mean: the dummy token {settings.dummy_id} is also read, and the model reads and says tokens with "
                "the same embeddings; name one that never occurs with dummy_token."
            )
        weights = []
        for batch in batches:
            found = settings.monte_carlo(batch)
            weights.append(found.weights[found.valid])
        start_at_mean(model, batches, settings.dummy_id, float(torch.cat(weights).mean().clamp(1e-4, 0.99)))

    def make_loss(self, model: nn.Module, args: SFTConfig, tokenizer: Any) -> QLoss:
        assert isinstance(args, QSFTConfig)
        return QLoss(model, make_target(model), self._loss_settings(model, args, tokenizer), args.loss_chunk_size)

    @staticmethod
    def _loss_settings(model: nn.Module, args: QSFTConfig, tokenizer: Any) -> QLossSettings:
        if args.return_low is None or args.return_high is None:
            raise ConfigError("return_low, return_high: stage 2 needs the range of returns; set both.")
        return QLossSettings(
            form=args.form,
            backup=args.backup,
            backup_beta=args.backup_beta,
            trace=args.trace,
            gamma=args.gamma,
            gamma_per=args.gamma_per,
            return_range=(args.return_low, args.return_high),
            horizon=args.horizon,
            dummy_id=pick_dummy_token(tokenizer_of(tokenizer), output_head(model)[0].shape[0], args.dummy_token),
            max_weight=args.max_weight,
            weight_temperature=args.weight_temperature,
        )

    def make_collator(self, args: SFTConfig, tokenizer: Any) -> TrajectoryCollator:
        assert isinstance(args, QSFTConfig)
        return TrajectoryCollator(pad_token(tokenizer), args.gamma, args.gamma_per, image_inputs(tokenizer))

    @property
    def target(self) -> TargetNetwork:
        assert isinstance(self.loss_module, QLoss)
        return self.loss_module.target

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | int | None:
        # a step's tokens are counted before any of its callbacks is called, so the Monte-Carlo phase is decided here
        loss: Any = self.loss_module
        loss.monte_carlo_only = self.state.global_step < self.args.monte_carlo_first * self.state.max_steps
        return super()._get_num_items_in_batch(batch_samples, device)

    def _take_metrics(self) -> dict[str, float]:
        means = super()._take_metrics()
        square = means.pop("target_square")
        means["target_std"] = max(square - means["target_mean"] ** 2, 0.0) ** 0.5
        means["target_distance"] = self.target.distance(self.inner_model)
        return means

    def _save_extra(self, folder: Path) -> None:
        ours, _ = self.target.pairs(self.inner_model)
        tensors = {str(i): p.detach().contiguous() for i, p in enumerate(ours)}
        safetensors.torch.save_file(tensors, folder / TARGET_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.target.take_buffers(self.inner_model)
        ours, _ = self.target.pairs(self.inner_model)
        path = Path(resume_from_checkpoint) / TARGET_FILE
        try:
            saved = safetensors.torch.load_file(path)
            with torch.no_grad():
                for i, parameter in enumerate(ours):
                    parameter.copy_(saved[str(i)])
        except (OSError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
            raise CheckpointError(
                f"{path}: the target network cannot be read ({str(error).splitlines()[0]}); delete the checkpoint."
            ) from error
