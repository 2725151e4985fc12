"""What a study's YAML file says, checked before anything is trained."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qsft.envs.registry import check_options, environment_class, scripted_policies
from qsft.errors import ConfigError
from qsft.policies.decoding import extraction, sampling
from qsft.policies.load import EXTRACTIONS_OF
from qsft.policies.prompting import KINDS as PROMPTED
from qsft.pretrain import read_settings
from qsft.settings_file import read_yaml_file
from qsft.training.config import SFTConfig
from qsft.training.runs import METHODS, STAGES_OF, RunSettings, stage_config, stage_configs, unread_settings

#: methods of runs that train nothing
UNTRAINED = ("scripted", *PROMPTED)
_EPISODES = ("episodes", "seed", "env_options")
_COLLECTION = ("policy", *_EPISODES)
_MOST = 2**31  # of a number of episodes or a seed, which the row's is added to
_STAGES = ("behaviour", *STAGES_OF)
#: what a study says is right or wrong on any machine, also on one without the GPU that its bf16 is for
_ANYWHERE = {"use_cpu": True}


@dataclass(frozen=True)
class StudyRun:
    """One row of the table, for every seed.

    Args:
        name: the row's ``config``.
        method: a method of ``qsft train``; ``"scripted"`` for a scripted policy of that name; ``"react"`` or
            ``"few-shot"`` for a chat model that is prompted, whose settings are ``instructions`` (a text) and ``shots``.
        decoding: which of the study's grids it decodes with.
        data: which of the study's collections it is trained on.
        behaviour_of: name of the run whose model it starts from.
        policy_of: name of a run of the same method whose policy is played; nothing is trained.
        only_legal: whether its policy says only what the environment's rules allow; ``None``: as the study.
        env_options: of its selection and test episodes, over the study's: what is changed for this row alone.
        settings: overrides of the study's ``model``, ``tokenizer``, ``behaviour``, ``likelihood`` and ``critic``, any
            other field of :class:`qsft.training.RunSettings`.
    """

    name: str
    method: str
    decoding: str = ""
    data: str = "train"
    behaviour_of: str | None = None
    policy_of: str | None = None
    only_legal: bool | None = None
    env_options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """See the module's docstring; fields are those of the YAML file."""

    env: str
    runs: list[StudyRun]
    collect: dict[str, dict[str, Any]]
    decoding: dict[str, list[dict[str, Any]]]
    select: dict[str, Any]
    test: dict[str, Any]
    env_options: dict[str, Any] = field(default_factory=dict)
    tokenizer: dict[str, Any] | str | None = None
    model: dict[str, Any] | str = field(default_factory=dict)
    behaviour: dict[str, Any] = field(default_factory=dict)
    likelihood: dict[str, Any] = field(default_factory=dict)
    critic: dict[str, Any] = field(default_factory=dict)
    pretrain: dict[str, Any] | None = None
    table: str | None = None
    only_legal: bool = False

    @property
    def row_env(self) -> str:
        """``env`` of the rows: ``table``, which tells apart studies of one environment, or the environment's name."""
        return self.table or self.env

    @classmethod
    def load(cls, path: str | os.PathLike[str], quick: bool = False) -> Study:
        """Read a study.

        Args:
            path: the YAML file.
            quick: lay what the file has under ``quick`` over the rest: fewer episodes, smaller collections.

        Raises:
            ConfigError: not a study, with the field that is wrong.
        """
        values = read_yaml_file(path)
        known = {f.name for f in dataclasses.fields(cls)}
        reduced = values.pop("quick", None) if isinstance(values, dict) else None
        if quick:
            if not isinstance(reduced, dict):
                raise ConfigError(f"{path}: quick: the study has no reduced form; run it without --quick.")
            values = _laid_over(values, reduced)
        if not isinstance(values, dict) or set(values) - known:
            wrong = sorted(set(values) - known) if isinstance(values, dict) else type(values).__name__
            raise ConfigError(f"{path}: {wrong} is no field of a study; there are {', '.join(sorted(known))}.")
        try:
            runs = [StudyRun(**run) for run in values.pop("runs")]
            study = cls(runs=runs, **values)
        except (TypeError, KeyError) as error:
            raise ConfigError(
                f"{path}: {error}; a study needs env, runs, collect, decoding, select and test."
            ) from error
        study.check(str(path))
        return study

    def check(self, where: str) -> None:
        """Find now what would fail after hours of training.

        Raises:
            ConfigError: naming ``where``, the run or grid, and what is wrong.
        """
        if not isinstance(self.env, str) or not isinstance(self.table, str | None):
            raise ConfigError(f"{where}: env and table are names; write them as text.")
        for run in self.runs:
            if not (
                isinstance(run.name, str) and run.name and isinstance(run.method, str) and isinstance(run.decoding, str)
            ):
                raise ConfigError(
                    f"{where}: run {run.name!r:.60}: name, method and decoding are names; write them as text."
                )
        sections = ("collect", "decoding", "select", "test", "env_options", "behaviour", "likelihood", "critic")
        for name in sections if self.pretrain is None else (*sections, "pretrain"):
            if not isinstance(getattr(self, name), dict):
                raise ConfigError(f"{where}: {name}: must hold NAME: VALUE pairs.")
        for name, value in {
            "": self.only_legal,
            **{f"run {run.name!r}: ": run.only_legal for run in self.runs},
        }.items():
            if value is not None and not isinstance(value, bool):
                raise ConfigError(f"{where}: {name}only_legal: {value!r:.40} is neither true nor false.")
            if value and environment_class(self.env).legal_actions is None:
                raise ConfigError(f"{where}: {name}only_legal: the texts of {self.env} do not tell what is legal.")
        for name in ("select", "test"):
            for key, least in (("episodes", 1), ("seed", 0)):
                if not _is_whole(getattr(self, name).get(key), least):
                    raise ConfigError(
                        f"{where}: {name}: {key} is missing, or no whole number from {least} to 2**31 - 1."
                    )
            if not isinstance(getattr(self, name).get("env_options", {}), dict):
                raise ConfigError(f"{where}: {name}: env_options: must hold NAME: VALUE pairs.")
            _check_names(getattr(self, name), _EPISODES, f"{where}: {name}")
        if self.select["seed"] == self.test["seed"]:
            raise ConfigError(
                f"{where}: select and test have the same seed; the choice would be judged on its own games."
            )
        for name, plan in self.collect.items():
            if not isinstance(plan, dict):
                raise ConfigError(f"{where}: collect: {name}: must hold NAME: VALUE pairs.")
            if missing := {"policy", "episodes"} - set(plan):
                raise ConfigError(f"{where}: collect: {name}: {min(missing)} is missing.")
            for key, least in (("episodes", 1), ("seed", 0)):
                if not _is_whole(plan.get(key, 1), least):
                    raise ConfigError(
                        f"{where}: collect: {name}: {key}: {plan[key]!r:.40} is no whole number from {least} to 2**31 - 1."
                    )
            if not isinstance(plan["policy"], str):
                raise ConfigError(f"{where}: collect: {name}: policy: {plan['policy']!r:.40} is no name of a policy.")
            if not isinstance(plan.get("env_options", {}), dict):
                raise ConfigError(f"{where}: collect: {name}: env_options: must hold NAME: VALUE pairs.")
            _check_names(plan, _COLLECTION, f"{where}: collect: {name}")
        for name, grid in self.decoding.items():
            if not isinstance(grid, list) or not grid or not all(isinstance(setting, dict) for setting in grid):
                raise ConfigError(f"{where}: decoding: {name}: give a list of settings, such as [{{temperature: 0}}].")
            for number, setting in enumerate(grid):
                if setting in grid[:number]:
                    raise ConfigError(f"{where}: decoding: {name}: {setting} is there twice; take one out.")
                try:
                    extraction(setting), sampling(setting)
                except ConfigError as error:
                    raise ConfigError(f"{where}: decoding: {name}: {setting}: {error}") from error
        if self.pretrain is not None and isinstance(self.tokenizer, str):
            raise ConfigError(
                f"{where}: tokenizer: {self.tokenizer} would not be used, as pretrain makes a model from its start; give an "
                "environment's symbols, or leave it out and give pretrain a vocabulary."
            )
        if self.pretrain is not None:
            try:
                _, stage = read_settings(self.pretrain, own_tokenizer=self.tokenizer is not None)
                stage_config(SFTConfig, stage, "pretrain", Path(), **_ANYWHERE)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from error
        for run in self.runs:
            self._check_run(run, f"{where}: run {run.name!r}")
        options = {name: getattr(self, name).get("env_options", {}) for name in ("select", "test")}
        options |= {f"collect: {name}": plan.get("env_options", {}) for name, plan in self.collect.items()}
        options |= {f"run {run.name!r}": run.env_options for run in self.runs}
        for name, own in {"env_options": self.env_options, **options}.items():
            try:
                check_options(self.env, own)
            except ConfigError as error:
                raise ConfigError(f"{where}: {name}: {error}") from error

    def run_named(self, name: str, where: str) -> StudyRun:
        """The run of that name.

        Raises:
            ConfigError: there is none; the message begins with ``where``.
        """
        for run in self.runs:
            if run.name == name:
                return run
        raise ConfigError(f"{where} {name!r} is not a run of the study.")

    def _check_run(self, run: StudyRun, where: str) -> None:
        if sum(other.name == run.name for other in self.runs) > 1:
            raise ConfigError(f"{where}: there are two of this name; rows are told apart by it.")
        if run.method not in (*UNTRAINED, *METHODS):
            raise ConfigError(
                f"{where}: method {run.method!r} is unknown; there are {', '.join((*UNTRAINED, *METHODS))}."
            )
        for name in ("settings", "env_options"):
            if not isinstance(getattr(run, name), dict):
                raise ConfigError(f"{where}: {name}: must hold NAME: VALUE pairs.")
        if run.method in UNTRAINED:
            shots = run.settings.get("shots", 0)
            if isinstance(shots, bool) or not isinstance(shots, int) or shots < 0:
                raise ConfigError(f"{where}: settings: shots: {shots!r:.40} must be a whole number of at least 0.")
            if run.method == "scripted" and run.name not in (known := scripted_policies(self.env)):
                raise ConfigError(f"{where}: is no scripted policy of {self.env}; there are {', '.join(known)}.")
            return
        if run.decoding not in self.decoding:
            raise ConfigError(f"{where}: decoding grid {run.decoding!r} is not in the study.")
        for setting in self.decoding[run.decoding]:
            kind = extraction(setting).kind
            if setting.get("target_return") is not None and run.method != "return-conditioned":
                raise ConfigError(
                    f"{where}: decoding grid {run.decoding!r}: target_return is of return-conditioned, not of {run.method}."
                )
            if kind not in EXTRACTIONS_OF.get(run.method, ("product",)):
                raise ConfigError(
                    f"{where}: decoding grid {run.decoding!r}: extraction {kind!r} reads values that {run.method} has not."
                )
        if run.policy_of is not None:
            origin = self.run_named(run.policy_of, f"{where}: policy_of")
            if origin.method != run.method or origin.policy_of is not None:
                raise ConfigError(f"{where}: policy_of {run.policy_of!r} is no run that trains {run.method}.")
            if run.settings or run.behaviour_of:
                raise ConfigError(f"{where}: settings and behaviour_of would not be used, as policy_of trains nothing.")
            return
        if run.data not in self.collect:
            raise ConfigError(f"{where}: data {run.data!r} is not collected; there are {', '.join(self.collect)}.")
        self._check_start(run, where)
        self._check_settings(run, where)
        if self.pretrain is not None and (own := {"model", "tokenizer"} & set(run.settings)):
            raise ConfigError(
                f"{where}: settings: {min(own)} would not be used, as all runs start from the model that pretrain makes; "
                "take it out, or give the run a study of its own."
            )

    def _check_start(self, run: StudyRun, where: str) -> None:
        """That the runs which a run goes on from are trained, and end."""
        passed = [run.name]
        while run.behaviour_of is not None:
            run = self.run_named(run.behaviour_of, f"{where}: behaviour_of")
            if run.method in UNTRAINED:
                raise ConfigError(f"{where}: behaviour_of {run.name!r} trains nothing.")
            if run.name in passed:
                raise ConfigError(f"{where}: behaviour_of leads back to {run.name!r}.")
            passed.append(run.name)

    def _check_settings(self, run: StudyRun, where: str) -> None:
        """That settings have a name that a run knows, are read by its method, and with the study's make its stages."""
        given = {"method", "data", "seed", "behaviour_model"}  # the study's own
        known = {f.name for f in dataclasses.fields(RunSettings)} - given
        if unknown := sorted(set(run.settings) - known):
            raise ConfigError(f"{where}: settings: {unknown[0]!r} is none of {', '.join(sorted(known))}.")
        for name in unread_settings(run.method, run.settings):
            raise ConfigError(f"{where}: settings: {name}: {run.method} has no such stage or setting; take it out.")
        for name in _STAGES:
            if not isinstance(run.settings.get(name, {}), dict):
                raise ConfigError(f"{where}: settings: {name}: must hold NAME: VALUE pairs.")
        try:
            stage_configs(run_settings(self, run, data="", seed=0), Path(), **_ANYWHERE)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error


def _is_whole(value: Any, least: int) -> bool:
    """Whether it is a number of episodes, or a seed."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < _MOST


def _check_names(values: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    if wrong := sorted(set(values) - set(known)):
        raise ConfigError(f"{where}: {wrong[0]!r} is unknown; there are {', '.join(known)}.")


def study_files(name: str | os.PathLike[str]) -> list[Path]:
    """The studies that a name stands for: a YAML file, a folder of them, or a folder's name in ``experiments``.

    Raises:
        ConfigError: a folder without studies, or none of that name.
    """
    path = Path(name)
    for folder in (path, Path("experiments") / path):
        if folder.is_dir():
            if not (found := sorted(folder.glob("*.yaml"))):
                raise ConfigError(f"{folder}: holds no study; give a YAML file or a folder of them.")
            return found
    if not path.exists() and path.suffix == "":
        raise ConfigError(
            f"{name}: no such study; the studies are in qsft's repository: run it there, where experiments/{name} is, or "
            "give a YAML file."
        )
    return [path]


def is_only_legal(study: Study, run: StudyRun) -> bool:
    """Whether the run's policy says only what the rules allow."""
    return study.only_legal if run.only_legal is None else run.only_legal


def run_settings(
    study: Study, run: StudyRun, data: str, seed: int, behaviour_model: str | None = None, pretrained: str | None = None
) -> RunSettings:
    """What a run is trained with: the settings of the study, and over them its own.

    Args:
        study: of the run.
        run: one that trains.
        data: file of its collection.
        seed: of weights and data order.
        behaviour_model: folder of the run that it goes on from.
        pretrained: folder of the study's pretrained model, with a tokenizer beside it.

    Raises:
        ConfigError: naming the setting that is wrong.
    """
    own = copy.deepcopy(run.settings)
    model, tokenizer = own.pop("model", study.model), own.pop("tokenizer", study.tokenizer)
    if pretrained is not None:
        model, tokenizer = pretrained, None
    values: dict[str, Any] = {
        "tokenizer": tokenizer if isinstance(tokenizer, str) else None,
        "format": "text" if isinstance(tokenizer, dict) else "auto",
        "behaviour_model": behaviour_model,
        "seed": seed,
    }
    for name in _STAGES:
        if run.method in STAGES_OF.get(name, (run.method,)):
            values[name] = {**getattr(study, name), **own.pop(name, {})}
    return RunSettings(run.method, data, model, **{**values, **own})


def row_method(run: StudyRun) -> str:
    """Method name of a run's row; a scripted policy's is its own name."""
    return run.name if run.method == "scripted" else run.method


def episode_options(study: Study, episodes: Mapping[str, Any], run: StudyRun | None = None) -> dict[str, Any]:
    """Options of the environment in a collection of the study, or in ``select`` or ``test`` as a run plays them."""
    return {**study.env_options, **episodes.get("env_options", {}), **(run.env_options if run else {})}


def slug(name: str) -> str:
    """A run's name as the name of a folder."""
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)


def _laid_over(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``values`` with the leaves of ``changes`` in place of its own."""
    merged = dict(values)
    for name, change in changes.items():
        inner = merged.get(name)
        merged[name] = _laid_over(inner, change) if isinstance(inner, dict) and isinstance(change, dict) else change
    return merged
