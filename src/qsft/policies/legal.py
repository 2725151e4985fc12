"""Replies that the rules allow, token by token: what restricts a policy to legal actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qsft.data.trajectory import Trajectory
from qsft.errors import DataError

if TYPE_CHECKING:
    from qsft.data.tokenize import TrajectoryTokenizer

#: all actions that the rules allow after a history, in the one spelling that counts as legal here
LegalActions = Callable[[Trajectory], Sequence[str]]


class LegalReplies:
    """The legal replies to one history, as a tree of tokens.

    Args:
        tokenizer: makes tokens of replies.
        history: ends with the environment's turn.
        actions: texts of the legal replies; at least one.
        known: tokens of replies by their text, kept from history to history.

    Raises:
        DataError: no action is legal; the episode should be over.
    """

    def __init__(
        self,
        tokenizer: TrajectoryTokenizer,
        history: Trajectory,
        actions: Sequence[str],
        known: dict[str, list[int]],
    ) -> None:
        if not actions:
            raise DataError(
                f"no action is legal after {history.turns[-1].text!r:.80}; an episode that goes on needs one"
            )
        self._next: dict[tuple[int, ...], list[int]] = {}
        context = Trajectory(history.turns[-1:])  # a reply's own tokens do not depend on what was said before
        for action in actions:
            if action not in known:
                known[action] = tokenizer.reply(context, action)
            ids = tuple(known[action])
            for length, token in enumerate(ids):
                following = self._next.setdefault(ids[:length], [])
                if token not in following:
                    following.append(token)
        self.longest = max(len(known[action]) for action in actions)

    def following(self, said: Sequence[int]) -> list[int]:
        """Tokens that may follow the first ones of a reply; none after a whole reply, or after what begins none."""
        return self._next.get(tuple(said), [])
