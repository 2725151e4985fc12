"""A language model that plays: SFT, filtered behaviour cloning and Q-SFT alike."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qsft.data.batch import pad_token
from qsft.data.tokenize import Prompt, TrajectoryTokenizer
from qsft.data.trajectory import Trajectory
from qsft.errors import ConfigError, DataError
from qsft.models.extraction import Extraction
from qsft.models.policy_model import QSFTPolicyModel
from qsft.models.states import readable_inputs
from qsft.models.support import SupportRule
from qsft.models.value_model import ValueModel
from qsft.objectives import max_value, soft_value
from qsft.policies.decoding import check_sampling
from qsft.policies.legal import LegalActions, LegalReplies
from qsft.policies.turn_cache import TurnCache

logger = logging.getLogger("qsft")


@dataclass(frozen=True)
class TokenValue:
    """One token that the behaviour model finds plausible.

    Attributes:
        token: its text.
        token_id: its id.
        prior: probability under the behaviour model.
        q: Q-value in reward units (``low + ratio (high - low)``, the ratio clipped to [0, 1]).
        probability: probability under the policy.
    """

    token: str
    token_id: int
    prior: float
    q: float
    probability: float


@dataclass(frozen=True)
class ReplyValue:
    """A whole candidate reply: its Q-value, and that of each of its tokens in turn.

    The Q-value of a reply is its last token's: what follows from saying all of it. Earlier tokens have the value of the
    best way to go on from there.

    Attributes:
        reply: its text.
        q: in reward units.
        tokens: the reply's own tokens.
        alternatives: for each of them, the plausible tokens at its place, best first.
    """

    reply: str
    q: float
    tokens: list[TokenValue]
    alternatives: list[list[TokenValue]]


class ModelPolicy:
    """Plays with a causal LM through ``generate``.

    Args:
        model: a :class:`QSFTPolicyModel` (SFT is one with the ``product`` extraction and no behaviour model), or a
            :class:`ValueModel`.
        tokenizer: how histories become tokens.
        name: of the policy, for tables.
        temperature: of sampling; 0 plays greedily.
        max_new_tokens: longest reply in tokens.
        beams: above 1, the likeliest whole reply of a beam search instead of the likeliest next token; needs
            temperature 0. A reply of many tokens has a likeliest first token that no good reply starts with.
        seed: of the sampling.
        extraction: how tokens are drawn; ``None``: the model's. Policies that share a model may differ in it.
        target_return: what the episode is to return, for a model trained with return tokens
            (:meth:`qsft.data.return_tokens.ReturnTokens.wanted`); ``None``: at every turn the highest level.
        legal_actions: all actions that the rules allow after a history, such as an environment's
            (:attr:`qsft.envs.base.Environment.legal_actions`): nothing else is said then. ``None``: anything can be said.

    Raises:
        ConfigError: a value that is not allowed, or that the model cannot do.
    """

    def __init__(
        self,
        model: QSFTPolicyModel | ValueModel,
        tokenizer: TrajectoryTokenizer,
        name: str,
        temperature: float = 1.0,
        max_new_tokens: int = 128,
        beams: int = 1,
        seed: int = 0,
        extraction: Extraction | None = None,
        target_return: float | None = None,
        legal_actions: LegalActions | None = None,
    ) -> None:
        check_sampling(temperature, beams)
        if target_return is not None:
            if tokenizer.returns is None:
                raise ConfigError(
                    f"target_return: {target_return}: only a return-conditioned policy can be asked for one."
                )
            tokenizer.returns.check(target_return)
        self._model = model.eval()
        self._model.extraction = self._extraction = extraction or model.extraction  # refuses what the model cannot do
        self.target_return = target_return
        self.tokenizer = tokenizer
        self.name = name
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens
        self.beams = beams
        self.legal_actions = legal_actions
        self._reply_ids: dict[str, list[int]] = {}
        self._turn_cache = TurnCache()
        self._warned_of_unknown = False
        self.seed(seed)

    @property
    def extraction(self) -> Extraction:
        """How tokens are drawn, from the first turn to the last; :meth:`with_decoding` makes a policy of another."""
        return self._extraction

    @property
    def model(self) -> QSFTPolicyModel | ValueModel:
        """The model, set to draw as this policy does, since other policies may share it.

        So an extraction that is assigned to the model itself lasts only until a policy uses it.
        """
        self._model.extraction = self.extraction
        return self._model

    def seed(self, seed: int) -> None:
        self._seed = seed
        self._generator = torch.Generator().manual_seed(seed)

    def with_decoding(
        self,
        extraction: Extraction,
        temperature: float,
        beams: int = 1,
        name: str | None = None,
        target_return: float | None = None,
    ) -> ModelPolicy:
        """The same models and seed, decoding otherwise; ``target_return`` stays as it is unless given.

        Both policies can be used in turn, but not by two threads at once.
        """
        return ModelPolicy(
            self._model,
            self.tokenizer,
            name or self.name,
            temperature,
            self.max_new_tokens,
            beams,
            self._seed,
            extraction,
            target_return=self.target_return if target_return is None else target_return,
            legal_actions=self.legal_actions,
        )

    @torch.no_grad()
    def act(self, histories: Sequence[Trajectory]) -> list[str]:
        """The agent's next turn in each episode, as text.

        Args:
            histories: all turns so far.

        Raises:
            DataError: a history is longer than the model reads even without its oldest exchanges.
        """
        if not histories:
            return []
        legal = self._legal_replies(histories)
        longest = [self._longest(replies) for replies in legal] or [self.max_new_tokens] * len(histories)
        prompts = [self._prompt(history, tokens) for history, tokens in zip(histories, longest, strict=True)]
        room = min(self._room(prompt, max(longest)) for prompt in prompts)
        # beams can repeat the images of one row alone; and who has less room must not shorten others' replies
        alone = (self.beams > 1 and any(prompt.images for prompt in prompts)) or room < max(longest)
        if alone and len(prompts) > 1:
            return [self.act([history])[0] for history in histories]
        seen = self.tokenizer.images
        keeps = self.beams == 1 and (seen is None or seen.only_tokens) and _reads_positions(self.model.inner)
        episodes = [id(history) for history in histories]
        places: list[list[tuple[int, int]]] = [[] for _ in prompts]
        tokens, read, known = [prompt.input_ids for prompt in prompts], None, [0] * len(prompts)
        if keeps:
            if seen:
                places = [seen.places(prompt.input_ids, prompt.images) for prompt in prompts]
                tokens = [_with_images(prompt, spans) for prompt, spans in zip(prompts, places, strict=True)]
            read, known = self._turn_cache.continued(episodes, tokens, places)
        inputs = self._left_padded(prompts, places, known)
        width = inputs["input_ids"].shape[1]
        sampling: dict[str, Any] = {"do_sample": True, "temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        search: dict[str, Any] = {"do_sample": False, "num_beams": self.beams}
        if self.beams > 1:
            search["length_penalty"] = 0.0  # the probability of the whole reply, not its mean per token
        # generate() draws from the global generator of the model's device, which is to stay as it was
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(int(torch.randint(2**62, (), generator=self._generator)))
            model: Any = self.model
            output = model.generate(
                **inputs,
                cache=read,
                return_dict_in_generate=True,
                max_new_tokens=room,
                eos_token_id=self.tokenizer.end_of_turn_ids,
                pad_token_id=pad_token(self.tokenizer.tokenizer),
                suppress_tokens=self._unsayable or None,
                prefix_allowed_tokens_fn=self._only(legal, width) if legal else None,
                **(sampling if self.temperature > 0 else search),
            )
        if keeps:
            self._turn_cache.keep(episodes, tokens, inputs["attention_mask"], output.sequences, output.cache)
        replies = output.sequences[:, width:].tolist()
        return [self.tokenizer.action_text(self._reply(row)) for row in replies]

    @overload
    def q_values(self, history: Trajectory, candidates: None = None, support: float = 0.1) -> list[TokenValue]: ...

    @overload
    def q_values(self, history: Trajectory, candidates: Sequence[str], support: float = 0.1) -> list[ReplyValue]: ...

    def q_values(
        self, history: Trajectory, candidates: Sequence[str] | None = None, support: float = 0.1
    ) -> list[TokenValue] | list[ReplyValue]:
        """The values that the policy acts on.

        Args:
            history: ends with the environment's turn.
            candidates: whole replies to value. Without them: the first token of a reply.
            support: tokens at least this plausible, relative to the likeliest, are listed; 0: all.

        Returns:
            One :class:`TokenValue` per plausible token, best first; or one :class:`ReplyValue` per candidate, in order.

        Raises:
            ConfigError: the behaviour model is not loaded, or ``support`` is outside of [0, 1].
        """
        if not 0 <= support <= 1:
            raise ConfigError(f"support: {support} is outside [0, 1]; 0 lists every token.")
        legal = self._legal_replies([history])
        prompt = self._prompt(history, *map(self._longest, legal))
        if candidates is None:
            return self._plausible(self._read(prompt, history, legal), 0, support)
        return [self._reply_value(history, prompt, legal, reply, support) for reply in candidates]

    @torch.no_grad()
    def state_values(
        self, histories: Sequence[Trajectory], support: float = 0.1, backup_beta: float | None = None
    ) -> list[float]:
        """``V`` at the first token of the agent's next turn, in reward units, with the models that play.

        Args:
            histories: each ends with the environment's turn.
            support: threshold relative to the likeliest token.
            backup_beta: of the soft value; ``None`` takes the maximum over the support.

        Raises:
            ConfigError: the behaviour model is not loaded, or an argument is out of its range.
        """
        if backup_beta is not None and not 0 < backup_beta < math.inf:
            raise ConfigError(f"backup_beta: {backup_beta} must be positive and finite, or None for the maximum.")
        if not histories:
            return []
        inputs = self._left_padded([self._prompt(history) for history in histories])
        read = self.model.read(**inputs, logits_to_keep=1)
        chosen, logps = SupportRule(threshold=support).select(read.prior[:, 0], self.model.config.dummy_token_id)
        q = read.q[:, 0].gather(1, chosen.clamp_min(0)).clamp(0, 1).masked_fill(chosen < 0, 0.0)
        values = max_value(q, logps) if backup_beta is None else soft_value(q, logps, backup_beta)
        return [self.model.config.value(v, _turn(h)) for v, h in zip(values.tolist(), histories, strict=True)]

    def _reply_value(
        self, history: Trajectory, prompt: Prompt, legal: list[LegalReplies], reply: str, support: float
    ) -> ReplyValue:
        ids = self.tokenizer.reply(history, reply)
        most = self.tokenizer.max_length
        if most is not None and len(prompt.input_ids) + len(ids) > most:
            raise DataError(
                f"the reply {reply!r:.40} has {len(ids)} tokens and its history {len(prompt.input_ids)}; {most} are allowed"
            )
        # the prompt's last position is that of the reply's first token
        read = self._read(prompt, history, legal, ids)
        tokens = [self._token(read, place, token) for place, token in enumerate(ids)]
        alternatives = [self._plausible(read, place, support) for place in range(len(ids))]
        return ReplyValue(reply, tokens[-1].q, tokens, alternatives)

    def _plausible(self, read: tuple[Tensor, Tensor, Tensor], place: int, support: float) -> list[TokenValue]:
        prior = read[1][0, place].clone()
        if self.model.config.dummy_token_id is not None:
            prior[self.model.config.dummy_token_id] = 0.0
        tokens = torch.nonzero(prior >= prior.amax() * support).flatten().tolist()
        return sorted((self._token(read, place, token) for token in tokens), key=lambda value: -value.q)

    @torch.no_grad()
    def _read(
        self, prompt: Prompt, history: Trajectory, legal: list[LegalReplies], said: Sequence[int] = ()
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Q in reward units, prior and probability of the tokens said and of one more: ``[1, n + 1, V]`` each."""
        whole = dataclasses.replace(prompt, input_ids=[*prompt.input_ids, *said])
        ratios, prior, logits = self.model.read(**self._left_padded([whole]), logits_to_keep=len(said) + 1)
        logits[..., self._unsayable] = -torch.inf
        illegal = torch.full_like(logits, bool(legal), dtype=torch.bool)
        for replies in legal:
            for place in range(len(said) + 1):
                illegal[0, place, replies.following(said[:place])] = False
        logits = logits.masked_fill(illegal, torch.finfo(logits.dtype).min)
        if self.temperature > 0:
            policy = torch.softmax(logits / self.temperature, dim=-1)
        else:
            policy = torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).float()
        policy = policy.masked_fill(illegal, 0.0)  # everywhere, behind what begins no legal reply
        worst, best = (self.model.config.value(ratio, _turn(history)) for ratio in (0.0, 1.0))
        return worst + ratios.clamp(0, 1) * (best - worst), prior.exp(), policy

    def _token(self, read: tuple[Tensor, Tensor, Tensor], place: int, token: int) -> TokenValue:
        q, prior, policy = (float(values[0, place, token]) for values in read)
        return TokenValue(str(self.tokenizer.tokenizer.decode([token])), token, prior, q, policy)

    def _legal_replies(self, histories: Sequence[Trajectory]) -> list[LegalReplies]:
        """Those to each history; empty for a policy that may say anything."""
        rules = self.legal_actions
        if rules is None:
            return []
        return [LegalReplies(self.tokenizer, history, rules(history), self._reply_ids) for history in histories]

    def _longest(self, legal: LegalReplies) -> int:
        """Tokens of the longest reply: a legal one may be longer than all of the data's."""
        return max(self.max_new_tokens, legal.longest)

    def _only(self, legal: list[LegalReplies], width: int) -> Callable[[int, Tensor], list[int]]:
        """What ``generate`` asks which tokens may follow; ``width``: of the prompts."""
        after = [self.tokenizer.end_of_turn_ids[0]]  # whole replies are asked for too, until the batch is through
        return lambda row, ids: legal[row].following(ids[width:].tolist()) or after

    def _prompt(self, history: Trajectory, longest: int | None = None) -> Prompt:
        """The history, cut where a reply of ``longest`` tokens would not fit; ``None``: as long as the data's longest."""
        prompt = self.tokenizer.read(history, longest or self.max_new_tokens, self.target_return)
        if not self._warned_of_unknown and self.tokenizer.unknown_id in prompt.input_ids:
            told = [turn.text for turn in history.turns if not turn.is_agent]  # it may say unknown tokens itself
            ids = self.tokenizer.tokenizer(told, add_special_tokens=False)["input_ids"]
            if unknown := sum(text.count(self.tokenizer.unknown_id) for text in ids):
                self._warned_of_unknown = True
                logger.warning(
                    "%s: %d of the %d tokens that it is shown are unknown to its tokenizer; it was trained on other texts, "
                    "perhaps of an environment with other options.",
                    self.name,
                    unknown,
                    sum(map(len, ids)),
                )
        return prompt

    def _room(self, prompt: Prompt, longest: int) -> int:
        """Tokens that a reply may have: ``longest``, or what the prompt leaves."""
        most = self.tokenizer.max_length
        return longest if most is None else min(longest, most - len(prompt.input_ids))

    @property
    def _unsayable(self) -> list[int]:
        """Tokens that only the environment's part of a history has."""
        returns, images = self.tokenizer.returns, self.tokenizer.images
        return [*(returns.ids.tolist() if returns else []), *(images.token_ids if images else [])]

    def _left_padded(
        self,
        prompts: Sequence[Prompt],
        places: Sequence[Sequence[tuple[int, int]]] = (),
        known: Sequence[int] = (),
    ) -> dict[str, Tensor]:
        """What the model reads: ids and attention mask ``[B, T]``, and of one that sees also the images.

        Args:
            prompts: [B].
            places: :meth:`of their images <qsft.data.images.ImageInputs.places>`, where some tokens are known.
            known: tokens of each prompt that a cache holds: they stand in columns of their own, before all others, and
                their images are left out.
        """
        known = known or [0] * len(prompts)
        read = max(known)
        width = read + max(len(prompt.input_ids) - old for prompt, old in zip(prompts, known, strict=True))
        ids = torch.full((len(prompts), width), pad_token(self.tokenizer.tokenizer), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for i, (prompt, old) in enumerate(zip(prompts, known, strict=True)):
            for end, part in ((read, prompt.input_ids[:old]), (width, prompt.input_ids[old:])):
                ids[i, end - len(part) : end] = torch.tensor(part, dtype=torch.int64)
                mask[i, end - len(part) : end] = 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self.tokenizer.images is not None:
            prefixes = [width - len(prompt.input_ids) + prompt.prefix for prompt in prompts]
            images = [image for prompt in prompts for image in prompt.images]
            if read:
                new = [begin >= old for spans, old in zip(places, known, strict=True) for begin, _ in spans]
                images = [image for image, unread in zip(images, new, strict=True) if unread]
            pixels = self.tokenizer.images.inputs(ids[:, read:].numpy(), prefixes, images)
            inputs |= readable_inputs(self.model.inner, pixels)
        return {key: value.to(self.model.device) for key, value in inputs.items()}

    def _reply(self, generated: list[int]) -> list[int]:
        """Generated ids up to and including the end of the turn."""
        for i, token in enumerate(generated):
            if token in self.tokenizer.end_of_turn_ids:
                return generated[: i + 1]
        return generated


def _reads_positions(model: PreTrainedModel) -> bool:
    """Whether a model is told where tokens stand: others count columns, the empty ones between what is read when too."""
    return "position_ids" in inspect.signature(model.forward).parameters


def _with_images(prompt: Prompt, places: Sequence[tuple[int, int]]) -> list[Any]:
    """The prompt's ids with each image in the place of its tokens, which are the same for all images.

    A file is told by its time and size too: a camera may write every frame to the same one.
    """
    tokens: list[Any] = list(prompt.input_ids)
    for image, (first, end) in zip(prompt.images, places, strict=True):
        seen: Any = image
        if not isinstance(image, bytes):
            stat = os.stat(image)
            seen = (image, stat.st_mtime_ns, stat.st_size)
        tokens[first:end] = [seen] * (end - first)
    return tokens


def _turn(history: Trajectory) -> int:
    """Number of the agent's next turn, from 0."""
    return sum(1 for _ in history.agent_turns)
