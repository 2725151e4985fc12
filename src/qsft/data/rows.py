"""A row of a file of trajectories, and its way to a :class:`Trajectory` and back.

A row is the conversational ``messages`` format of chat datasets plus one reward per assistant message and how the
episode ended::

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}],
     "rewards": [1.0], "ended": "terminated", "metadata": {}}

``ended`` may be absent or null (then ``"terminated"``), and so may ``metadata``. ``content`` is text, or the list of
parts that multimodal chat datasets use. Other columns are not read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from numbers import Real
from typing import Any, cast

from qsft.data.trajectory import AGENT_ROLE, ENVIRONMENT_ROLES, Ended, Trajectory, Turn
from qsft.errors import DataError

ROLES = (*ENVIRONMENT_ROLES, AGENT_ROLE)
ENDINGS = ("terminated", "truncated")
#: What ``ended`` means where a row does not say it.
DEFAULT_ENDED = "terminated"
#: Rewards become float32 on their way to the loss.
LARGEST_REWARD = 3.4e38
# Parts of a reply that live outside of `content`: dropping them would train on something the agent did not do.
_UNREAD_MESSAGE_FIELDS = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")
_ADDRESS = re.compile(r"[a-zA-Z]+://|data:")
_IMAGE_FIELDS = ("path", "image", "url", "image_url")


def trajectory_from_row(row: Mapping[str, Any], where: str = "row") -> Trajectory:
    """The trajectory that a row holds.

    Args:
        row: see the module's text. Anything that is not one of its fields is ignored, except what would change what
            the model reads (``tools``, ``tool_calls``, thoughts in a field of their own, ``images`` of the whole row),
            which is refused.
        where: how errors name the row, for example ``"games.jsonl: row 3"``.

    Raises:
        DataError: in one line what is wrong, in which field, and what to do.
    """
    if type(row) is not dict and not isinstance(row, Mapping):
        raise DataError(
            f"{where}: it is {_kind(row)}, not an object; write one {{...}} with messages and rewards a row"
        )
    messages = row.get("messages")
    if messages is None:
        raise DataError(f"{where}: field messages: missing; give the list of messages with role and content")
    if not isinstance(messages, list | tuple) or not messages:
        raise DataError(f"{where}: field messages: must be a list with at least one message")
    if row.get("tools"):
        raise DataError(f"{where}: field tools: not read; write the description of the tools into the system message")
    if row.get("images"):
        raise DataError(f"{where}: field images: not read; write the path of each image into its message")
    rewards = _rewards(row, where)
    turns: list[Turn] = []
    agent_turns = 0
    for number, message in enumerate(messages, 1):
        role, text, images = _message(message, where, number)
        if role == AGENT_ROLE:
            turns.append(Turn(role, text, rewards[agent_turns] if agent_turns < len(rewards) else None, images))
            agent_turns += 1
        else:
            turns.append(Turn(role, text, None, images))
    if not agent_turns:
        raise DataError(
            f"{where}: field messages: no message has role assistant; drop the row, there is no agent in it"
        )
    if agent_turns != len(rewards):
        raise DataError(
            f"{where}: field rewards: {len(rewards)} values for {agent_turns} assistant messages; give one for each"
        )
    ended = row.get("ended")
    if ended is None:
        ended = DEFAULT_ENDED
    elif ended not in ENDINGS:
        raise DataError(
            f"{where}: field ended: {_show(ended)}; use terminated, or truncated for an episode cut by a limit"
        )
    return Trajectory(turns, cast(Ended, ended), _metadata(row.get("metadata"), where))


def trajectory_to_row(trajectory: Trajectory, where: str = "trajectory") -> dict[str, Any]:
    """The row of a finished trajectory; the inverse of :func:`trajectory_from_row`.

    Raises:
        DataError: the trajectory is unfinished, or holds something that could not be read back.
    """
    messages: list[dict[str, Any]] = []
    rewards: list[float] = []
    for number, turn in enumerate(trajectory.turns, 1):
        if turn.role not in ROLES:
            raise DataError(f"{where}: turn {number}: role {_show(turn.role)}; use one of {', '.join(ROLES)}")
        _check_text(turn.text, where, f"turn {number}: text")
        if turn.is_agent:
            if turn.reward is None:
                raise DataError(f"{where}: turn {number}: its reward is not known yet; finish the episode first")
            rewards.append(_reward(turn.reward, where, len(rewards) + 1))
        elif turn.reward is not None:
            raise DataError(
                f"{where}: turn {number}: role {turn.role} has a reward; only the assistant's turns have one"
            )
        message: dict[str, Any] = {"role": turn.role, "content": turn.text}
        if turn.images:
            if any(isinstance(image, bytes) for image in turn.images):
                raise DataError(
                    f"{where}: turn {number}: has a picture in memory; write it to a file and give its path"
                )
            message["images"] = [_image_path(cast(str, image), where, number) for image in turn.images]
        messages.append(message)
    if not rewards:
        raise DataError(f"{where}: no turn has role assistant; drop it, there is no agent in it")
    if trajectory.ended not in ENDINGS:
        raise DataError(f"{where}: ended is {_show(trajectory.ended)}; set terminated or truncated before writing")
    row: dict[str, Any] = {"messages": messages, "rewards": rewards, "ended": trajectory.ended}
    if trajectory.metadata:
        row["metadata"] = trajectory.metadata
    return row


def json_line(value: Mapping[str, Any], where: str = "trajectory") -> str:
    """A row of :func:`trajectory_to_row`, or its metadata, as one line of JSON that a person can read.

    Raises:
        DataError: the metadata holds something JSON has no word for.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: field metadata: not JSON ({error}); keep to text, finite numbers, lists, dicts"
        ) from None
    return text


def _rewards(row: Mapping[str, Any], where: str) -> list[float]:
    values = row.get("rewards")
    if values is None:
        raise DataError(f"{where}: field rewards: missing; give a list with one number for each assistant message")
    if type(values) is not list and (
        isinstance(values, str | bytes | Mapping) or not (hasattr(values, "__len__") and hasattr(values, "__iter__"))
    ):
        raise DataError(f"{where}: field rewards: {_kind(values)}; give a list, one number for each assistant message")
    return [_reward(value, where, number) for number, value in enumerate(values, 1)]


def _reward(value: Any, where: str, number: int) -> float:
    if type(value) is not float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise DataError(
                f"{where}: field rewards: value {number} is {_show(value)}, not a number; write it as a number"
            )
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
    if value != value:
        raise DataError(f"{where}: field rewards: value {number} is NaN; give a finite number, or drop the row")
    if math.isinf(value):
        raise DataError(f"{where}: field rewards: value {number} is infinite; give a finite number, or drop the row")
    if abs(value) > LARGEST_REWARD:
        raise DataError(
            f"{where}: field rewards: value {number} is {value:g}, too large for float32; scale the rewards"
        )
    return value


def _message(message: Any, where: str, number: int) -> tuple[str, str, tuple[str, ...]]:
    if type(message) is not dict and not isinstance(message, Mapping):
        raise DataError(f"{where}: message {number}: {_kind(message)}; give an object with role and content")
    role = message.get("role")
    if role not in ROLES:
        raise DataError(f"{where}: message {number}: field role: {_show(role)}; use one of {', '.join(ROLES)}")
    if len(message) > 2:
        for name in _UNREAD_MESSAGE_FIELDS:
            if message.get(name):
                raise DataError(f"{where}: message {number}: field {name}: not read; write it out in content")
    content = message.get("content")
    listed = message.get("images")
    images: tuple[str, ...] = _image_paths(listed, where, number) if listed else ()
    if not isinstance(content, str) and isinstance(content, list | tuple):
        content, images = _parts(content, images, where, number)
    if not isinstance(content, str) or not content.isascii():
        _check_text(content, where, f"message {number}: field content")
    return role, cast(str, content), images


def _parts(
    parts: list[Any] | tuple[Any, ...], listed: tuple[str, ...], where: str, number: int
) -> tuple[str, tuple[str, ...]]:
    """Text and images of a content given as parts. A part without a path stands for the next of ``images``."""
    texts: list[str] = []
    images: list[str] = []
    waiting = iter(listed)
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("image", "image_url"):
            path = next((part[name] for name in _IMAGE_FIELDS if part.get(name) is not None), None)
            if isinstance(path, Mapping):
                path = path.get("url") or path.get("path")
            path = path if path is not None else next(waiting, None)
            if not isinstance(path, str):
                raise DataError(
                    f"{where}: message {number}: field content: an image without a path; give its file's path"
                )
            images.append(_image_path(path, where, number))
        else:
            raise DataError(
                f"{where}: message {number}: field content: part {_show(part)}; use parts of type text or image"
            )
    images.extend(waiting)
    return "".join(texts), tuple(images)


def _image_paths(listed: Any, where: str, number: int) -> tuple[str, ...]:
    if not isinstance(listed, list | tuple) or not all(isinstance(path, str) for path in listed):
        raise DataError(f"{where}: message {number}: field images: give a list of paths")
    return tuple(_image_path(path, where, number) for path in listed)


def _image_path(path: str, where: str, number: int) -> str:
    name = f"message {number}: field images"
    if not path.isascii():
        _check_text(path, where, name)
    if "\0" in path:
        raise DataError(f"{where}: {name}: {path!r:.60} holds a null character; give a file's path")
    if _ADDRESS.match(path):
        raise DataError(f"{where}: {name}: {path[:40]!r} is no file; save the picture and give its path")
    return path


def _check_text(text: Any, where: str, name: str) -> None:
    if not isinstance(text, str):
        raise DataError(f"{where}: {name}: {_kind(text)}, not text; write it as a string")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{where}: {name}: half a surrogate pair at character {error.start}; mend the text"
            ) from None


def _metadata(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise DataError(
                f"{where}: field metadata: text that is not JSON; give an object, or leave it out"
            ) from None
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: field metadata: {_kind(value)}; give an object, or leave it out")
    return dict(value)


def _kind(value: Any) -> str:
    names = {"NoneType": "null", "str": "text", "list": "a list", "dict": "an object", "bool": "a truth value"}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number"
    return names.get(type(value).__name__, f"of type {type(value).__name__}")


def _show(value: Any) -> str:
    text = repr(value) if value is not None else "null"
    return text if len(text) <= 40 else text[:37] + "..."
