"""The stages that a run is made of: models trained one after the other, each into a folder of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import torch
from transformers import AutoConfig, GenerationConfig, PreTrainedModel, PrinterCallback, ProgressCallback, set_seed

from qsft.data.batch import pad_token
from qsft.data.dataset import check_dummy_token, check_steps, content_hash
from qsft.data.files import row_number
from qsft.data.images import image_inputs, tokenizer_of
from qsft.data.returns import ReturnRange
from qsft.errors import CheckpointError, ConfigError, DataError, QSFTError, raised_in_worker, wrong_argument
from qsft.models.new_tokens import start_token_rows
from qsft.models.policy_model import (
    BEHAVIOUR_DIR,
    LIKELIHOOD_DIR,
    QSFTPolicyConfig,
    QSFTPolicyModel,
    check_vocabularies,
    load_causal_lm,
)
from qsft.models.robot_transformer import RobotTransformerConfig
from qsft.models.scratch import load_or_make_model
from qsft.models.states import max_positions, output_head, pick_dummy_token
from qsft.models.support import SupportRule, compute_support, with_support
from qsft.objectives import stake
from qsft.training.callbacks import JSONLinesLog
from qsft.training.checkpoints import last_checkpoint
from qsft.training.config import QSFTConfig, SFTConfig, check_numbers, reads_support
from qsft.training.critic_config import CriticConfig
from qsft.training.critic_trainers import CRITICS
from qsft.training.disk import whole_folder
from qsft.training.progress import StageProgress
from qsft.training.trainer import QSFTTrainer, SFTTrainer

if TYPE_CHECKING:
    from qsft.training.runs import RunSettings


class Stages:
    """Trains the models of a run; a finished stage is not done again, an unfinished one goes on.

    Args:
        settings: of the run.
        out: its folder.
        cache_dir: of the support table.
        tokenizer: or processor, return tokens included.
        return_ids: their ids.
        end_ids: of the tokens that end a turn of the agent.
        first: config of stage 1.
        second: config of stage 2, where the method has one.
        quiet: no progress bars.

    Raises:
        ConfigError: a stage asks for an evaluation.
    """

    def __init__(
        self,
        settings: RunSettings,
        out: Path,
        cache_dir: Path,
        tokenizer: Any,
        return_ids: list[int],
        end_ids: Sequence[int],
        first: SFTConfig,
        second: QSFTConfig | CriticConfig | None,
        quiet: bool,
    ) -> None:
        self.settings, self.out, self.cache_dir = settings, out, cache_dir
        self.tokenizer, self.return_ids, self.end_ids = tokenizer, return_ids, end_ids
        self.first, self.second, self.quiet = first, second, quiet
        self.training_began = False
        for stage, config in self._configs():
            if config.eval_strategy != "no":  # the trainer of stage 2 would find out after stage 1
                raise ConfigError(f"{stage}: eval_strategy: a run has no eval_dataset to evaluate on; leave it out.")

    def _configs(self) -> list[tuple[str, SFTConfig]]:
        """The stages that are trained, and their settings."""
        first = [] if self.second and self.settings.behaviour_model else [("behaviour", self.first)]
        name = "likelihood" if self.settings.method == "qsft" else "critic"
        return [*first, *([(name, self.second)] if self.second else [])]

    def _check_batches(self, dataset: datasets.Dataset) -> None:
        """Raises ConfigError where a stage would leave out the only batch that it has."""
        for stage, config in self._configs():
            if config.dataloader_drop_last and len(dataset) < config.per_device_train_batch_size:
                raise ConfigError(
                    f"{stage}: dataloader_drop_last: nothing is left of {len(dataset)} rows in batches of "
                    f"{config.per_device_train_batch_size}; leave it out, or take smaller batches."
                )

    def supervised(self, dataset: datasets.Dataset) -> None:
        """The one stage of a supervised method."""
        self._check_batches(dataset)
        self._cross_entropy(dataset, self.out, self._first_model())

    def _cross_entropy(self, dataset: datasets.Dataset, folder: Path, model: PreTrainedModel) -> None:
        _check_rows(model, dataset, self.settings.data)
        self._train(SFTTrainer, self._adapted(model), self.first, dataset, "behaviour", folder)

    def q_sft(self, dataset: datasets.Dataset) -> tuple[float, float]:
        """Both stages of Q-SFT; the return range."""
        config = self.second
        assert isinstance(config, QSFTConfig)
        likelihood_dir = self.out / LIKELIHOOD_DIR
        # what can be refused is refused before hours of training
        self._check_batches(dataset)
        if config.horizon is not None and self.first.max_length is not None and self.first.max_exchanges is None:
            raise ConfigError(
                "horizon: turns are counted from an episode's start, which max_length cuts; use one of them."
            )
        returns = _return_range(config, dataset, self.settings.data)
        config.return_low, config.return_high = returns
        if config.horizon is not None:
            _check_horizon(dataset, config.horizon, returns[0], self.settings.data)
        rule = SupportRule(config.support, config.support_threshold, config.support_max_tokens)
        behaviour = self._behaviour_so_far()
        dummy = pick_dummy_token(tokenizer_of(self.tokenizer), output_head(behaviour)[0].shape[0], config.dummy_token)
        check_dummy_token(dataset, dummy, self.settings.data)
        behaviour = self._behaviour(dataset, behaviour)
        if not likelihood_dir.exists():
            self._likelihood(dataset, behaviour, rule, dummy)
        policy = QSFTPolicyConfig(
            AutoConfig.from_pretrained(likelihood_dir).to_dict(),
            AutoConfig.from_pretrained(self.out / BEHAVIOUR_DIR).to_dict(),
            dummy_token_id=dummy,
            return_range=returns,
            horizon=config.horizon,
            weight_temperature=config.weight_temperature,
            architectures=[QSFTPolicyModel.__name__],
        )
        policy.save_pretrained(self.out)
        return returns

    def critic(self, dataset: datasets.Dataset) -> tuple[float, float]:
        """Both stages of a method with a critic; the return range."""
        config = self.second
        assert isinstance(config, CriticConfig)
        self._check_batches(dataset)
        config.return_low, config.return_high = _return_range(config, dataset, self.settings.data)
        behaviour = self._behaviour(dataset, self._behaviour_so_far())
        kind = CRITICS[self.settings.method]
        self._train(kind, self._second_model(behaviour).float(), config, dataset, "critic", self.out)
        return config.return_range

    def _behaviour_so_far(self) -> PreTrainedModel:
        """The behaviour model, or before stage 1 what it starts from."""
        folder = self.out / BEHAVIOUR_DIR
        return load_causal_lm(folder) if folder.exists() else self._first_model()

    def _behaviour(self, dataset: datasets.Dataset, model: PreTrainedModel) -> PreTrainedModel:
        """Stage 1, unless it is done or a given model takes its place."""
        folder = self.out / BEHAVIOUR_DIR
        if folder.exists():
            return model
        if self.settings.behaviour_model:
            _check_rows(model, dataset, self.settings.data)
            model = model.float()  # log-probabilities in half precision are off by more than ratios of them can bear
            with whole_folder(folder) as partial:
                model.save_pretrained(partial)
            return model
        self._cross_entropy(dataset, folder, model)
        return load_causal_lm(folder)

    def _second_model(self, behaviour: PreTrainedModel) -> PreTrainedModel:
        """What stage 2 starts from."""
        if self.settings.start_from == "model":
            return load_or_make_model(self.settings.model, self.tokenizer, self.settings.seed + 1)
        return behaviour

    def _likelihood(self, dataset: datasets.Dataset, behaviour: PreTrainedModel, rule: SupportRule, dummy: int) -> None:
        config = self.second
        assert isinstance(config, QSFTConfig)
        model = self._second_model(behaviour)
        check_vocabularies(model, behaviour)
        if reads_support(config.form, config.backup, config.weight_temperature):
            dataset = self._with_support(dataset, behaviour, rule, dummy)
        self._train(QSFTTrainer, self._adapted(model), config, dataset, "likelihood", self.out / LIKELIHOOD_DIR, dummy)

    def _with_support(
        self, dataset: datasets.Dataset, behaviour: PreTrainedModel, rule: SupportRule, dummy: int
    ) -> datasets.Dataset:
        assert self.second is not None
        table = self.cache_dir / f"support-{_support_key(dataset, self.out / BEHAVIOUR_DIR, rule, dummy)}.arrow"
        if not table.exists():
            compute_support(
                behaviour.to(self.second.device),  # type: ignore[arg-type]
                dataset,
                rule,
                table,
                pad_token_id=pad_token(self.tokenizer),
                dummy_id=dummy,
                batch_size=self.second.per_device_train_batch_size,
                progress=not self.quiet,
                images=image_inputs(self.tokenizer),
            )
            behaviour.to("cpu")  # type: ignore[arg-type]
        return with_support(dataset, table)

    def _first_model(self) -> PreTrainedModel:
        if self.settings.behaviour_model:
            model = load_causal_lm(self.settings.behaviour_model)
        else:
            model = load_or_make_model(self.settings.model, self.tokenizer, self.settings.seed)
        if self.return_ids:
            start_token_rows(model, self.return_ids)
        rows, tokens = output_head(model)[0].shape[0], max(tokenizer_of(self.tokenizer).get_vocab().values()) + 1
        if tokens > rows:
            raise ConfigError(
                f"model: it has {rows} tokens and the tokenizer {tokens}; use the model's own tokenizer, or resize the "
                "model's embeddings."
            )
        return model

    def _adapted(self, model: PreTrainedModel) -> Any:
        if self.settings.lora is None:
            # in half precision most updates of a weight are lost to rounding; to compute in it there is bf16: true
            return model.float()
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise ConfigError("lora: needs the package peft; install it with pip install 'qsft[peft]'.") from error
        if self.settings.method == "qsft" and self.settings.lora.get("bias", "none") != "none":
            raise ConfigError("lora: bias: the target is a second adapter, and biases belong to one; leave it out.")
        set_seed(self.settings.seed)  # of the adapters' weights
        try:
            check_numbers(LoraConfig, self.settings.lora)
            rows = {"trainable_token_indices": self.return_ids} if self.return_ids else {}
            return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **{**rows, **self.settings.lora}))
        except ConfigError as error:
            raise ConfigError(f"lora: {error}") from error
        except (TypeError, ValueError) as error:
            raise ConfigError(f"lora: {wrong_argument(error)}; see peft.LoraConfig.") from error

    def _train(
        self,
        kind: type[SFTTrainer],
        model: Any,
        config: Any,
        dataset: datasets.Dataset,
        stage: str,
        folder: Path,
        dummy: int | None = None,
    ) -> None:
        """Train to the end, from the newest checkpoint where there is one, and put the model into ``folder`` whole."""
        try:
            trainer = kind(model, config, dataset, self.tokenizer)
        except QSFTError:
            raise
        except (ValueError, ImportError) as error:  # of a setting that transformers reads here first
            raise ConfigError(f"{stage}: {wrong_argument(error)}") from error
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        if not self.quiet:
            trainer.add_callback(StageProgress(f"{self.settings.method}: {stage} model"))
        trainer.add_callback(JSONLinesLog(self.out / f"log-{stage}.jsonl"))
        checkpoint = last_checkpoint(checkpoints(self.out, stage))
        began, self.training_began = self.training_began, True
        if checkpoint and _at_the_end(checkpoint):
            trainer._load_from_checkpoint(str(checkpoint))
        else:
            try:
                _fit(trainer, checkpoint, stage)
            except QSFTError:
                if trainer.state.global_step == 0:  # nothing of this stage is lost with the folder
                    self.training_began = began
                raise
        model = trainer.finished_model
        broken = next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None)
        if broken:
            raise ConfigError(
                f"{stage}: learning_rate: training left no numbers in {broken}; train anew with a smaller one."
            )
        if hasattr(model, "merge_and_unload"):
            if "target" in model.peft_config:
                model.delete_adapter("target")
            model = model.float().merge_and_unload()  # in half precision a small adapter would be lost to rounding
        self._play_as_is(model, dummy)
        with whole_folder(folder) as partial:
            model.save_pretrained(partial)
            if folder != self.out:
                self.tokenizer.save_pretrained(partial)

    def _play_as_is(self, model: PreTrainedModel, dummy: int | None) -> None:
        """What an engine that serves the folder is told: where turns end, what is never said, and nothing that changes the
        policy's probabilities, as the first model's own settings of sampling would."""
        if model.can_generate():
            model.generation_config = GenerationConfig(
                bos_token_id=tokenizer_of(self.tokenizer).bos_token_id,
                pad_token_id=pad_token(self.tokenizer),
                eos_token_id=list(self.end_ids),
                suppress_tokens=None if dummy is None else [dummy],
            )


def _fit(trainer: SFTTrainer, checkpoint: Path | None, stage: str) -> None:
    """Train; what the data or a setting is the cause of is one line.

    Until the first step, libraries' own errors are of settings that could not be tried before; afterwards they are bugs,
    and stay as they are.
    """
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except CheckpointError:
        raise
    except DataError as error:
        raise DataError(raised_in_worker(error)) from error
    except ConfigError as error:
        raise ConfigError(f"{stage}: {error}") from error
    except (ImportError, OverflowError, TypeError, ValueError) as error:
        if trainer.state.global_step > 0 and not isinstance(error, ImportError):
            raise
        line = raised_in_worker(error) if "DataLoader worker" in str(error) else wrong_argument(error)
        raise ConfigError(f"{stage}: {line}") from error


def checkpoints(out: Path, stage: str) -> Path:
    """Where a stage of the run in ``out`` keeps its checkpoints."""
    return out / "checkpoints" / stage


def _check_rows(model: PreTrainedModel, dataset: datasets.Dataset, source: str) -> None:
    """Raises where the model would read a row otherwise than it stands there.

    ConfigError for one that is longer than the model: learnt positions would fail in the middle of a run. DataError for
    one that is not in steps, where the model reads steps.
    """
    if isinstance(model.config, RobotTransformerConfig):
        assert model.config.eos_token_id is not None
        check_steps(dataset, model.config.eos_token_id, source)
    most = max_positions(model)
    if most is None:
        return
    if longer := _first_longer(dataset, "contexts" if "contexts" in dataset.column_names else "input_ids", most):
        length, row = longer
        raise ConfigError(
            f"{source}: row {row_number(source, row)}: has {length} tokens and the model {most} positions; set "
            "behaviour.max_length, or take a model with more."
        )


def _at_the_end(checkpoint: Path) -> bool:
    """Whether training was over; ``Trainer`` would make one step more where the last one is not the end of an epoch."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return bool(state["global_step"] >= state["max_steps"])


def _check_horizon(dataset: datasets.Dataset, horizon: int, low: float, source: str) -> None:
    """Raises DataError for an episode that is longer, or for a return below what a turn has at stake."""
    if longer := _first_longer(dataset, "turn_rewards", horizon):
        turns, row = longer
        raise DataError(
            f"{source}: row {row_number(source, row)}: has {turns} turns of the agent, more than likelihood.horizon "
            f"({horizon}); set the horizon to the most turns an episode can have."
        )
    for table in dataset.select_columns(["turn_rewards", "episode"]).with_format("arrow").iter(1000):
        column = table.column("turn_rewards").combine_chunks()
        ends = np.cumsum(column.value_lengths().to_numpy())
        rows = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        sums = np.cumsum(np.concatenate([[0.0], column.flatten().to_numpy()]))
        following = sums[ends][rows] - sums[:-1]
        turns = np.arange(len(rows)) - np.concatenate([[0], ends])[rows]
        bounds = stake(low, torch.from_numpy(turns), horizon).numpy()
        if (below := np.flatnonzero(following < bounds - 1e-6 * abs(low))).size:
            first = below[0]
            row = row_number(source, table.column("episode")[int(rows[first])].as_py())
            raise DataError(
                f"{source}: row {row}: turn {turns[first] + 1} of the agent is followed by a return of "
                f"{following[first]:g}, below the {bounds[first]:g} that likelihood.horizon leaves there; it is for "
                "episodes in which every turn can cost as much as another, so take it out."
            )


def _first_longer(dataset: datasets.Dataset, column: str, most: int) -> tuple[int, int] | None:
    """Of a column of lists one that is longer than ``most``: its length, and the index of its row in the file.

    Of ``contexts``, which are lengths themselves, the longest of each row counts.
    """
    for table in dataset.select_columns([column, "episode"]).with_format("arrow").iter(1000):
        lists = table.column(column).combine_chunks()
        lengths = lists.value_lengths().to_numpy()
        if column == "contexts":
            lengths = np.maximum.reduceat(lists.flatten().to_numpy(), np.cumsum(lengths) - lengths)
        if lengths.max() > most:
            return int(lengths.max()), int(table.column("episode")[int(lengths.argmax())].as_py())
    return None


def _support_key(dataset: datasets.Dataset, behaviour: Path, rule: SupportRule, dummy: int) -> str:
    """Names a support table by all that decides its content: data, behaviour model, rule."""
    files = sorted([*behaviour.glob("*.safetensors"), *behaviour.glob("config.json")])
    text = f"{dataset.cache_files} {len(dataset)} {rule} {dummy} {' '.join(map(content_hash, files))}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _return_range(config: QSFTConfig | CriticConfig, dataset: datasets.Dataset, source: str) -> tuple[float, float]:
    low, high = config.return_low, config.return_high
    if low is None or high is None:
        found = ReturnRange.from_data(dataset, config.gamma, config.gamma_per)
        low, high = found.low if low is None else low, found.high if high is None else high
    given = ReturnRange(float(low), float(high))
    given.check(dataset, config.gamma, config.gamma_per, source)
    return given.low, given.high
