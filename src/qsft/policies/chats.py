"""Where prompting policies get their answers: a served model, or one in memory. Both answer many conversations at once."""

from __future__ import annotations

import math
import queue
import threading
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Protocol

import jinja2
import numpy as np

from qsft.data.pictures import png, read_picture
from qsft.endpoint import Endpoint, RefusedRequest
from qsft.errors import ConfigError

#: ``{"role": "system" | "user" | "assistant", "content": ...}`` each; the content is a text, or a list of parts with
#: pictures in it (:func:`picture_part`)
Messages = list[dict[str, Any]]
_PNG = b"\x89PNG\r\n\x1a\n"


class Chat(Protocol):
    """Conversations and a seed to answers, in order; an error in place of an answer that is refused.

    Attributes:
        name: of the model.
    """

    name: str

    def __call__(self, conversations: Sequence[Messages], seed: int) -> Sequence[str | RefusedRequest]: ...


def picture_part(image: str | bytes) -> dict[str, Any]:
    """A picture (path or content of a file) as a part of a message, in the form of OpenAI's interface: a PNG file.

    Raises:
        DataError: it cannot be read.
    """
    content = image if isinstance(image, bytes) else b""
    if not content.startswith(_PNG):
        content = png(np.asarray(read_picture(image)))
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64encode(content).decode()}"}}


class EndpointChat:
    """Answers of a served model, up to ``parallel`` requests at a time.

    Args:
        endpoint: where it is served.
        temperature: of sampling; above 0 each request carries a seed, which a server may ignore.
        max_tokens: longest answer.
        parallel: requests at a time.
    """

    def __init__(self, endpoint: Endpoint, temperature: float = 0.0, max_tokens: int = 512, parallel: int = 8) -> None:
        _check_temperature(temperature)
        self.name = endpoint.model
        self.endpoint = endpoint
        self.settings = {"temperature": temperature, "max_tokens": max_tokens}
        self.parallel = parallel

    def __call__(self, conversations: Sequence[Messages], seed: int) -> list[str | RefusedRequest]:
        """Answers in order; the error in place of one that is refused.

        Raises:
            EndpointError: the endpoint is down; requests that have not begun are not made.
        """
        seeded = self.settings["temperature"] > 0
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[int, str | Exception]] = queue.SimpleQueue()
        for place in range(len(conversations)):
            todo.put(place)
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                try:
                    place = todo.get_nowait()
                except queue.Empty:
                    return
                settings = {**self.settings, **({"seed": seed + place} if seeded else {})}
                try:
                    done.put((place, self.endpoint.chat(conversations[place], **settings)))
                except Exception as error:
                    done.put((place, error))

        # not a pool: its threads are waited for when one interrupts, however long the endpoint is silent
        for _ in range(min(self.parallel, len(conversations))):
            threading.Thread(target=work, daemon=True).start()
        answers: dict[int, str | RefusedRequest] = {}
        try:
            while len(answers) < len(conversations):
                place, answer = done.get()
                if isinstance(answer, Exception) and not isinstance(answer, RefusedRequest):
                    raise answer
                answers[place] = answer
        finally:
            over.set()
        return [answers[place] for place in range(len(conversations))]


def _check_temperature(temperature: float) -> None:
    if not 0 <= temperature < math.inf:
        raise ConfigError(f"temperature: {temperature} must be finite and not negative; 0 is greedy.")


class LocalChat:
    """Answers of a Hugging Face chat model in this process.

    Args:
        path: hub id or local checkpoint; its tokenizer needs a chat template. Where that has no role for the system, its
            text stands at the head of the first message of the user.
        temperature: of sampling; 0 for greedy.
        max_tokens: longest answer.
        device: where it runs.

    Raises:
        CheckpointError: it cannot be loaded.
        ConfigError: no chat template, or one that refuses these conversations.
    """

    def __init__(self, path: str, temperature: float = 0.0, max_tokens: int = 512, device: str = "cpu") -> None:
        from qsft.models.policy_model import load_causal_lm
        from qsft.models.scratch import load_tokenizer

        _check_temperature(temperature)
        self.name = path
        self.tokenizer = load_tokenizer(path)
        if self.tokenizer.chat_template is None:
            raise ConfigError(f"{path}: its tokenizer has no chat template; give a chat (instruction) model.")
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model: Any = load_causal_lm(path, device_map=device).eval()
        self.temperature = temperature
        self.max_tokens = max_tokens

    def __call__(self, conversations: Sequence[Messages], seed: int) -> list[str | RefusedRequest]:
        """Answers in order; an error in place of one to a conversation that the model has no room for.

        Raises:
            ConfigError: a message with pictures.
        """
        import torch

        from qsft.models.states import max_positions

        if any(not isinstance(message["content"], str) for messages in conversations for message in messages):
            raise ConfigError(f"{self.name}: a local chat model is shown texts alone; serve it, and give --endpoint.")

        inputs = self._rendered(conversations).to(self.model.device)
        lengths, most = inputs["attention_mask"].sum(dim=1).tolist(), max_positions(self.model)
        answers: dict[int, str | RefusedRequest] = {
            place: RefusedRequest(
                f"{self.name}: a conversation of {length} tokens and {self.max_tokens} of the answer are more than its "
                f"{most} positions; give fewer --shots, shorter --instructions, a smaller --max-tokens, or another model"
            )
            for place, length in enumerate(lengths)
            if most is not None and length + self.max_tokens > most
        }
        fits = [place for place in range(len(lengths)) if place not in answers]
        if not fits:
            return list(answers.values())
        width = max(lengths[place] for place in fits)
        inputs = {name: values[fits][:, -width:] for name, values in inputs.items()}
        sampling: dict[str, Any] = {"do_sample": False}
        if self.temperature > 0:
            sampling = {"do_sample": True, "temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        with torch.no_grad(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            output = self.model.generate(
                **inputs, max_new_tokens=self.max_tokens, pad_token_id=self.tokenizer.pad_token_id, **sampling
            )
        replies = self.tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
        answers.update(zip(fits, replies, strict=True))
        return [answers[place] for place in range(len(lengths))]

    def _rendered(self, conversations: Sequence[Messages]) -> Any:
        settings = {"add_generation_prompt": True, "padding": True, "return_tensors": "pt", "return_dict": True}
        try:
            try:
                return self.tokenizer.apply_chat_template(list(conversations), **settings)
            except jinja2.TemplateError:  # those of some models have no role for the system
                told_by_user = [_told_by_user(messages) for messages in conversations]
                return self.tokenizer.apply_chat_template(told_by_user, **settings)
        except jinja2.TemplateError as error:
            raise ConfigError(
                f"{self.name}: its chat template refuses the conversation ({' '.join(str(error).split())}); give another "
                "model"
            ) from None


def _told_by_user(messages: Messages) -> Messages:
    """What the system says at the head of the first message, which is the user's."""
    if len(messages) < 2 or [message["role"] for message in messages[:2]] != ["system", "user"]:
        return messages
    return [{"role": "user", "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}, *messages[2:]]
