"""Where prompting policies get their answers: a served model, or one in memory. Both answer many conversations at once."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from qsft.data.pictures import png, read_picture
from qsft.endpoint import Endpoint
from qsft.errors import ConfigError

#: ``{"role": "system" | "user" | "assistant", "content": ...}`` each; the content is a text, or a list of parts with
#: pictures in it (:func:`picture_part`)
Messages = list[dict[str, Any]]
_PNG = b"\x89PNG\r\n\x1a\n"


class Chat(Protocol):
    """Conversations and a seed to answers, in order.

    Attributes:
        name: of the model.
    """

    name: str

    def __call__(self, conversations: Sequence[Messages], seed: int) -> list[str]: ...


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
        self.name = endpoint.model
        self.endpoint = endpoint
        self.settings = {"temperature": temperature, "max_tokens": max_tokens}
        self.parallel = parallel

    def __call__(self, conversations: Sequence[Messages], seed: int) -> list[str]:
        """Answers in order.

        Raises:
            EndpointError: the endpoint is down; requests that have not begun are not made.
        """
        seeded = self.settings["temperature"] > 0
        pool = ThreadPoolExecutor(self.parallel)
        try:
            waiting = [
                pool.submit(self.endpoint.chat, messages, **self.settings, **({"seed": seed + i} if seeded else {}))
                for i, messages in enumerate(conversations)
            ]
            return [answer.result() for answer in waiting]
        finally:
            pool.shutdown(cancel_futures=True)


class LocalChat:
    """Answers of a Hugging Face chat model in this process.

    Args:
        path: hub id or local checkpoint; its tokenizer needs a chat template.
        temperature: of sampling; 0 for greedy.
        max_tokens: longest answer.
        device: where it runs.

    Raises:
        CheckpointError: it cannot be loaded.
        ConfigError: no chat template.
    """

    def __init__(self, path: str, temperature: float = 0.0, max_tokens: int = 512, device: str = "cpu") -> None:
        from qsft.models.policy_model import load_causal_lm
        from qsft.models.scratch import load_tokenizer

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

    def __call__(self, conversations: Sequence[Messages], seed: int) -> list[str]:
        """Answers in order.

        Raises:
            ConfigError: a message with pictures.
        """
        import torch

        if any(not isinstance(message["content"], str) for messages in conversations for message in messages):
            raise ConfigError(f"{self.name}: a local chat model is shown texts alone; serve it, and give --endpoint.")

        inputs = self.tokenizer.apply_chat_template(
            list(conversations), add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        ).to(self.model.device)
        sampling: dict[str, Any] = {"do_sample": False}
        if self.temperature > 0:
            sampling = {"do_sample": True, "temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        with torch.no_grad(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            output = self.model.generate(
                **inputs, max_new_tokens=self.max_tokens, pad_token_id=self.tokenizer.pad_token_id, **sampling
            )
        replies = output[:, inputs["input_ids"].shape[1] :]
        return list(self.tokenizer.batch_decode(replies, skip_special_tokens=True))
