"""Who plays: the policy that the options of `qsft evaluate`, `qsft play` and `qsft collect` ask for."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qsft.errors import ConfigError

_DECODING = ("extraction", "beta", "eta", "support", "temperature", "beams", "target_return", "only_legal", "device")
_DECODING_OF_CHATS = ("temperature", "device")
_PROMPTING = ("model", "endpoint", "instructions", "examples", "shots", "max_tokens", "timeout", "retries")


def decoding_options(verb: argparse.ArgumentParser) -> None:
    """Adds how a run decodes, and where."""
    group = verb.add_argument_group("decoding (default: what the run was saved with)")
    group.add_argument("--extraction", choices=("product", "value", "likelihood", "advantage"))
    group.add_argument("--beta", type=float)
    group.add_argument("--eta", type=float)
    group.add_argument("--support", type=float)
    group.add_argument("--temperature", type=float, help="0 plays greedily")
    group.add_argument("--beams", type=positive, help="beam search; needs --temperature 0")
    group.add_argument(
        "--target-return", type=float, help="what a return-conditioned run is asked for; default: the best"
    )
    group.add_argument(
        "--only-legal",
        action="store_true",
        default=None,
        help="say only what the environment's rules allow, where its texts tell (chess)",
    )
    group.add_argument("--device", help="default: cuda where there is one, else cpu")


def prompting_options(verb: argparse.ArgumentParser) -> None:
    """Adds which chat model is prompted, and with what."""
    group = chat_options(verb)
    group.add_argument("--instructions", metavar="FILE", help="text with the rules of the task")
    group.add_argument("--examples", metavar="FILE", help="trajectories, whose best are shown")
    group.add_argument("--shots", type=positive, help="how many of them (default: 3)")


def chat_options(verb: argparse.ArgumentParser) -> Any:
    """Adds which chat model is prompted; the group of the options."""
    group = verb.add_argument_group("prompting (react, few-shot); the key of an endpoint is read from OPENAI_API_KEY")
    group.add_argument("--model", help="its name at the endpoint; without --endpoint a hub id or local checkpoint")
    group.add_argument(
        "--endpoint",
        nargs="?",
        const="",
        metavar="URL",
        help="OpenAI-compatible, such as http://localhost:8000/v1; without a URL: OPENAI_BASE_URL",
    )
    group.add_argument("--max-tokens", type=positive, help="longest answer (default: 512)")
    group.add_argument("--timeout", type=float, help="seconds that a request may take (default: 60)")
    group.add_argument("--retries", type=int, help="how often a failed request is repeated (default: 4)")
    return group


def player(
    arguments: argparse.Namespace, options: dict[str, Any], with_behaviour: bool = False, keep_thoughts: bool = False
) -> Any:
    """A run's policy where the argument is a folder, a prompted chat model, or a scripted policy of the environment.

    Args:
        arguments: parsed, with ``policy``, ``env``, ``seed``, and the options above.
        options: of the environment.
        with_behaviour: load the behaviour model of a run, for Q-values.
        keep_thoughts: of react, where the environment reads them.

    Raises:
        ConfigError: nobody of that name, or an option that does not fit who plays.
    """
    from qsft.envs import make_policy, scripted_policies

    chats, scripted = ("react", "few-shot"), scripted_policies(arguments.env)
    named = arguments.policy in (*chats, *scripted)
    # a folder that happens to be called like a scripted policy, and is none of a run, is not meant
    is_run = Path(arguments.policy, "run.json").exists() if named else Path(arguments.policy).is_dir()
    prompted = not is_run and arguments.policy in chats
    for name in _DECODING:
        if not is_run and not (prompted and name in _DECODING_OF_CHATS) and getattr(arguments, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')}: {arguments.policy!r} is not the folder of a run.")
    for name in _PROMPTING:
        if not prompted and getattr(arguments, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')}: is for react and few-shot, not for {arguments.policy!r}.")
    if prompted:
        return _chat_policy(arguments, options, keep_thoughts)
    if is_run:
        from qsft.policies import load_policy

        device = _device(arguments.device)
        return load_policy(
            arguments.policy,
            extraction=_extraction(arguments),
            temperature=arguments.temperature,
            beams=arguments.beams,
            target_return=arguments.target_return,
            with_behaviour=with_behaviour,
            legal_actions=_legal_actions(arguments, options),
            seed=arguments.seed,
            **({} if device == "cpu" else {"device_map": device}),
        )
    if arguments.policy not in scripted:
        raise ConfigError(
            f"{arguments.policy!r} is neither the folder of a run nor a scripted policy of {arguments.env} "
            f"({', '.join(scripted)})."
        )
    return make_policy(arguments.env, arguments.policy, env_options=options, seed=arguments.seed)


def _legal_actions(arguments: argparse.Namespace, options: dict[str, Any]) -> Any:
    from qsft.envs.registry import legal_actions

    if not arguments.only_legal:
        return None
    try:
        return legal_actions(arguments.env, **options)
    except ConfigError as error:
        raise ConfigError(f"--only-legal: {error}") from error


def _chat_policy(arguments: argparse.Namespace, options: dict[str, Any], keep_thoughts: bool) -> Any:
    """A chat model, served or local, that is prompted to play."""
    from qsft.envs import make
    from qsft.policies.prompting import PromptingPolicy, best_examples

    if arguments.model is None:
        raise ConfigError(f"--model: {arguments.policy} needs one: its name at --endpoint, or a local chat model.")
    chat = chat_model(arguments)
    if arguments.shots is not None and arguments.examples is None:
        raise ConfigError("--shots: needs --examples, the file that they are taken from.")
    environment = make(arguments.env, **options)
    policy = PromptingPolicy(
        arguments.policy,
        chat,
        instructions=_text(arguments.instructions, "--instructions") if arguments.instructions else "",
        examples=best_examples(arguments.examples, arguments.shots or 3) if arguments.examples else (),
        to_action=environment.typed_action,
        keep_thoughts=keep_thoughts and environment.thoughts,
    )
    policy.seed(arguments.seed)
    return policy


def chat_model(arguments: argparse.Namespace) -> Any:
    """The chat model of :func:`chat_options`, served or local.

    Raises:
        ConfigError: options that contradict each other.
    """
    from qsft.endpoint import Endpoint
    from qsft.policies.chats import EndpointChat, LocalChat

    chat_settings = _given(arguments, ("temperature", "max_tokens"))
    served = _given(arguments, ("timeout", "retries"))
    if arguments.endpoint is None:
        if served:
            raise ConfigError(f"--{next(iter(served))}: needs --endpoint.")
        return LocalChat(arguments.model, **chat_settings, device=_device(getattr(arguments, "device", None)))
    if getattr(arguments, "device", None) is not None:
        raise ConfigError("--device: a model behind --endpoint runs where it is served.")
    url = arguments.endpoint or os.environ.get("OPENAI_BASE_URL", "")
    key = "OPENAI_API_KEY" if os.environ.get("OPENAI_API_KEY") else None
    return EndpointChat(Endpoint(url, arguments.model, **served, api_key_env=key), **chat_settings)


def _text(path: str, flag: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{flag}: {path}: cannot be read as text ({error}).") from error


def _device(name: str | None) -> str:
    """The device that was asked for, or the best there is.

    Raises:
        ConfigError: it is not there.
    """
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device: {name!r} cannot be used ({str(error).splitlines()[0]}).") from error
    return name


def _given(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name, None) is not None}


def _extraction(arguments: argparse.Namespace) -> Any:
    """The extraction that the decoding options ask for; ``None`` when none is given."""
    given = _given(arguments, ("beta", "eta", "support"))
    if arguments.extraction is None:
        if given:
            raise ConfigError(f"--{next(iter(given))}: needs --extraction, which says what it applies to.")
        return None
    from qsft.models import Extraction

    return Extraction(arguments.extraction, **given)


def natural(text: str) -> int:
    """An argument that is a whole number of at least 0, and as small as every seed has to be."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is less than 0")
    if value >= 1 << 32:
        raise argparse.ArgumentTypeError(f"{value} is not below 2 ** 32")
    return value


def positive(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value
