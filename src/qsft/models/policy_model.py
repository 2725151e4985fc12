"""Behaviour and likelihood model as one `PreTrainedModel` that generates."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from qsft.errors import CheckpointError, ConfigError, wrong_argument
from qsft.models.extraction import Extraction
from qsft.models.generation import InnerGeneration, ends_of, whole_inputs
from qsft.objectives import scaled_value

LIKELIHOOD_DIR = "likelihood"
BEHAVIOUR_DIR = "behaviour"


class QSFTPolicyConfig(PreTrainedConfig):
    """What a Q-SFT policy is made of.

    Args:
        likelihood: config of the likelihood model.
        behaviour: config of the behaviour model.
        extraction: arguments of :class:`~qsft.models.extraction.Extraction`.
        dummy_token_id: the token that is never an action; ``None`` where there is none (supervised fine-tuning).
        return_range: ``(low, high)``: a ratio ``V`` stands for the value ``low + V (high - low)``.
        horizon: with one, ``low`` is ``low (1 - t / horizon)`` at agent turn t.
        weight_temperature: with one, a ratio ``exp((V - 1) / weight_temperature)`` stands for the scaled value ``V``.
        sampling_temperature: how :class:`~qsft.policies.model.ModelPolicy` draws; 0 for greedy.
    """

    model_type = "qsft_policy"
    has_no_defaults_at_init = True

    def __init__(
        self,
        likelihood: dict[str, Any] | None = None,
        behaviour: dict[str, Any] | None = None,
        extraction: dict[str, Any] | None = None,
        dummy_token_id: int | None = None,
        return_range: tuple[float, float] = (0.0, 1.0),
        horizon: int | None = None,
        weight_temperature: float | None = None,
        sampling_temperature: float = 0.0,
        **kwargs: Any,
    ) -> None:
        # where a model was loaded from is no part of it
        self.likelihood = {name: value for name, value in (likelihood or {}).items() if name != "_name_or_path"}
        self.behaviour = {name: value for name, value in (behaviour or {}).items() if name != "_name_or_path"}
        self.extraction = extraction or Extraction().to_dict()
        self.dummy_token_id = dummy_token_id
        self.return_range = tuple(return_range)
        self.horizon = horizon
        self.weight_temperature = weight_temperature
        self.sampling_temperature = sampling_temperature
        super().__init__(**kwargs)

    def value(self, ratio: float, turn: int) -> float:
        """A scaled value (clipped to [0, 1]) in reward units, at agent turn ``turn`` (from 0).

        From turn ``horizon`` on nothing is at stake below 0: ``low`` is 0 there.
        """
        low, high = self.return_range
        if self.horizon is not None:
            low *= max(1 - turn / self.horizon, 0.0)
        return low + min(max(ratio, 0.0), 1.0) * (high - low)


class Reading(NamedTuple):
    """What a policy's models make of every token of the vocabulary at some positions. All ``[B, T, V]`` float32.

    Attributes:
        q: scaled Q-values.
        prior: log-probabilities of the behaviour model.
        logits: of the policy; of tokens that it never draws -inf, or 10,000 lower outside the support.
    """

    q: Tensor
    prior: Tensor
    logits: Tensor


class PairCache(Cache):
    """The caches of two models as one: beam search reorders both, each model updates its own half."""

    def __init__(self, likelihood: DynamicCache, behaviour: DynamicCache) -> None:
        super().__init__(layers=[*likelihood.layers, *behaviour.layers])
        self.likelihood = likelihood
        self.behaviour = behaviour


class QSFTPolicyModel(PreTrainedModel, InnerGeneration, GenerationMixin):
    """A causal LM whose logits are the policy's: ``generate`` plays it (greedy, sampling, beams, left padding, cache).

    With the ``product`` extraction the behaviour model is neither needed nor loaded. Of vision-language models, inputs
    of images go to both.
    """

    config_class = QSFTPolicyConfig
    main_input_name = "input_ids"

    def __init__(
        self,
        config: QSFTPolicyConfig,
        likelihood: PreTrainedModel,
        behaviour: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config)
        self.likelihood = likelihood
        self.behaviour = behaviour
        self.extraction = Extraction(**config.extraction)
        self.generation_config = ends_of(likelihood)

    @property
    def inner(self) -> Any:
        return self.likelihood

    @property
    def extraction(self) -> Extraction:
        """How tokens are drawn; assign another :class:`Extraction` to change it."""
        return self._extraction

    @extraction.setter
    def extraction(self, extraction: Extraction) -> None:
        if extraction.kind == "advantage":
            raise ConfigError(
                "extraction 'advantage' needs a run with Q heads: ilql, cql, q-transformer or monte-carlo."
            )
        if extraction.needs_behaviour and self.behaviour is None:
            raise ConfigError(
                f"extraction {extraction.kind!r} needs the behaviour model; load the policy with with_behaviour=True."
            )
        self._extraction = extraction
        self.config.extraction = extraction.to_dict()

    @classmethod
    def combine(
        cls,
        likelihood: PreTrainedModel,
        behaviour: PreTrainedModel | None,
        *,
        dummy_token_id: int | None,
        extraction: Extraction | None = None,
        return_range: tuple[float, float] = (0.0, 1.0),
        horizon: int | None = None,
        weight_temperature: float | None = None,
    ) -> QSFTPolicyModel:
        """A policy of two models in memory.

        Args:
            likelihood, behaviour: of one vocabulary; the latter is not needed with the ``product`` extraction.
            dummy_token_id, return_range, horizon, weight_temperature: what the likelihood model was trained with.
            extraction: ``None``: ``product``.

        Raises:
            CheckpointError: the two have different vocabularies.
        """
        check_vocabularies(likelihood, behaviour)
        config = QSFTPolicyConfig(
            likelihood=likelihood.config.to_dict(),
            behaviour={} if behaviour is None else behaviour.config.to_dict(),
            extraction=(extraction or Extraction()).to_dict(),
            dummy_token_id=dummy_token_id,
            return_range=return_range,
            horizon=horizon,
            weight_temperature=weight_temperature,
        )
        return cls(config, likelihood, behaviour).eval()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits ``[B, T, V]`` of the policy; of tokens that it never draws -inf, or 10,000 lower outside the support."""
        both = self.extraction.needs_behaviour
        if use_cache and cache is None:
            cache = self._new_cache()
        shared = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
            **kwargs,
        }
        pair = isinstance(cache, PairCache)
        if cache is not None and both != pair:
            raise ConfigError("cache: the cache was made for another extraction; start generation again.")
        likelihood = self.likelihood(
            **shared,
            cache=cache.likelihood if isinstance(cache, PairCache) else cache,
        )
        behaviour_logits = None
        if both:
            assert self.behaviour is not None
            behaviour_logits = self.behaviour(
                **shared,
                cache=cache.behaviour if isinstance(cache, PairCache) else None,
            ).logits
        logits = self._policy_logits(likelihood.logits, behaviour_logits)
        return CausalLMOutputWithPast(logits=logits, cache=cache)  # type: ignore[arg-type]

    @torch.no_grad()
    def read(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, logits_to_keep: int = 0, **images: Tensor
    ) -> Reading:
        """Every token's Q-value, what the ratio ``p / pi`` stands for (not clipped), prior and policy logit.

        Args:
            input_ids, attention_mask: ``[B, T]``, padded on the left.
            logits_to_keep: only the last so many positions; 0: all.
            images: what a vision-language model reads beside these.

        Raises:
            ConfigError: the behaviour model is not loaded.
        """
        if self.behaviour is None:
            raise ConfigError("Q-values need the behaviour model; load the policy with with_behaviour=True.")
        inputs = {**whole_inputs(self.inner, input_ids, attention_mask, **images), "logits_to_keep": logits_to_keep}
        likelihood = self.likelihood(**inputs).logits
        behaviour = self.behaviour(**inputs).logits
        prior = torch.log_softmax(behaviour.float(), dim=-1)
        log_ratios = torch.log_softmax(likelihood.float(), dim=-1) - prior
        q = scaled_value(log_ratios, self.config.weight_temperature)
        return Reading(q, prior, self._policy_logits(likelihood, behaviour))

    def _policy_logits(self, likelihood: Tensor, behaviour: Tensor | None) -> Tensor:
        settings = self.config
        return self.extraction.policy_logits(
            likelihood, behaviour, settings.dummy_token_id, settings.weight_temperature
        )

    def _new_cache(self) -> Cache:
        likelihood = DynamicCache(config=self.likelihood.config)
        if not self.extraction.needs_behaviour:
            return likelihood
        assert self.behaviour is not None
        return PairCache(likelihood, DynamicCache(config=self.behaviour.config))

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:  # type: ignore[override]
        """Write ``config.json`` and two ordinary checkpoints, ``likelihood/`` and ``behaviour/``.

        Any serving engine can play the ``product`` policy from ``likelihood/`` alone, with one token masked.
        """
        root = Path(save_directory)
        root.mkdir(parents=True, exist_ok=True)
        self.config.architectures = [type(self).__name__]
        self.config.save_pretrained(root)
        self.likelihood.save_pretrained(root / LIKELIHOOD_DIR, **kwargs)
        if self.behaviour is not None:
            self.behaviour.save_pretrained(root / BEHAVIOUR_DIR, **kwargs)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        path: str | os.PathLike[str],
        *,
        extraction: Extraction | None = None,
        with_behaviour: bool = False,
        **kwargs: Any,
    ) -> QSFTPolicyModel:
        """Load a policy written by :meth:`save_pretrained` or by stage 2.

        Args:
            path: the folder.
            extraction: instead of the saved one.
            with_behaviour: load the behaviour model even if the extraction does not need it (for Q-values).
            kwargs: passed to both models' ``from_pretrained`` (``dtype``, ``device_map``, ...).

        Raises:
            CheckpointError: not such a folder, or the two models do not fit each other.
        """
        root = Path(path)
        kwargs.pop("config", None)  # AutoModelForCausalLM has read it already; so do we
        config = _read_config(root)
        if extraction is not None:
            config.extraction = extraction.to_dict()
        likelihood = load_causal_lm(root / LIKELIHOOD_DIR, exact=True, **kwargs)
        behaviour = None
        if with_behaviour or Extraction(**config.extraction).needs_behaviour:
            behaviour = load_causal_lm(root / BEHAVIOUR_DIR, exact=True, **kwargs)
        check_vocabularies(likelihood, behaviour)
        return cls(config, likelihood, behaviour).eval()


AutoConfig.register(QSFTPolicyConfig.model_type, QSFTPolicyConfig)
AutoModelForCausalLM.register(QSFTPolicyConfig, QSFTPolicyModel)


def auto_model(config: PreTrainedConfig) -> Any:
    """``AutoModelForImageTextToText`` for the config of a vision-language model, else ``AutoModelForCausalLM``."""
    return AutoModelForImageTextToText if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING else AutoModelForCausalLM


#: what the folder of a run is, where it is no language model itself
_POLICIES = ("qsft_policy", "qsft_value")


def load_causal_lm(path: str | os.PathLike[str], exact: bool = False, **kwargs: Any) -> PreTrainedModel:
    """``from_pretrained`` of the fitting auto class, with a one-line error that says what is wrong with the checkpoint.

    Args:
        path: folder or hub id.
        exact: also refuse weights that the architecture has no place for, as a checkpoint from elsewhere may have (other
            heads) and one of a run has not.
        kwargs: passed on (``dtype``, ``device_map``, ...).
    """
    if isinstance(path, Path) and not path.is_dir():  # else transformers would look for it on the hub
        raise CheckpointError(f"{path}: the folder is missing; give the whole folder of a finished run.")
    report: dict[str, Any] | None = None
    try:
        config = AutoConfig.from_pretrained(path)
        if config.model_type not in _POLICIES:
            loaded: Any = auto_model(config).from_pretrained(path, output_loading_info=True, **kwargs)
            model, report = loaded
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError, StrictDataclassError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: cannot be loaded as a causal language model: {reason}") from error
    if report is None:
        raise CheckpointError(f"{path}: holds the policy of a run, not a language model; give {path}/behaviour.")
    wrong = sorted(report["missing_keys"]) or [key for key, *_ in report["mismatched_keys"]]
    if exact:
        wrong = wrong or sorted(report["unexpected_keys"])
    if wrong:
        raise CheckpointError(
            f"{path}: {len(wrong)} weights do not fit the architecture in config.json, the first is {wrong[0]!r}; "
            "use the config that the checkpoint was saved with."
        )
    return model


def _read_config(root: Path) -> QSFTPolicyConfig:
    if not (root / "config.json").is_file():
        raise CheckpointError(f"{root}: no config.json; give the folder of a finished `qsft train qsft` run.")
    try:
        values, _ = QSFTPolicyConfig.get_config_dict(root)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{root / 'config.json'}: cannot be read: {str(error).splitlines()[0]}") from error
    if values.get("model_type") != QSFTPolicyConfig.model_type:
        raise CheckpointError(
            f"{root}: config.json holds a {values.get('model_type')!r} model, not a Q-SFT policy; "
            "give the folder of a finished `qsft train qsft` run."
        )
    config = QSFTPolicyConfig.from_dict(values)
    try:
        Extraction(**config.extraction)
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"{root / 'config.json'}: extraction: {wrong_argument(error)}") from error
    return config


def check_vocabularies(likelihood: PreTrainedModel, behaviour: PreTrainedModel | None) -> None:
    """Raises CheckpointError for models of different vocabularies, whose tokens cannot be compared."""
    if behaviour is None:
        return
    sizes = [model.get_output_embeddings().weight.shape[0] for model in (likelihood, behaviour)]
    if sizes[0] != sizes[1]:
        raise CheckpointError(
            f"the likelihood model has {sizes[0]} output tokens and the behaviour model {sizes[1]}; "
            "both must come from the same run."
        )
