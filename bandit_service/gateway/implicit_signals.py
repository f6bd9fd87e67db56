"""What a client does with an answer says something about its quality: it retries, regenerates, or
edits.

A request is compared with the previous one of the same conversation. Only hashes of that one are
kept, in memory. A signal counts only if its weight is set (`[implicit]`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from bandit_service.core.metric_spec import EDIT, REGENERATE, RETRY

MAX_TALKS = 10_000
"""How many conversations are remembered: the newest ones, each with its last request."""


@dataclass(frozen=True, slots=True)
class Whose:
    """The names that a client gives a conversation, as far as it does."""

    conversation: str = ""
    session: str = ""
    unit: str = ""


class Turn:
    """One request of a conversation. talk: the conversation. before, last: hashes of the messages
    before the last one, and of the last one. answers: whether earlier answers are among them.
    ended: whether its answer was complete; None while it is running. only_newest: the client seems
    to send only the newest message of the conversation.
    """

    __slots__ = ("answers", "at", "before", "decision_id", "ended", "last", "only_newest", "talk")

    def __init__(self, talk: str, before: str, last: str, at: float, answers: bool) -> None:
        self.talk, self.before, self.last, self.at = talk, before, last, at
        self.answers, self.only_newest = answers, False
        self.decision_id = ""
        self.ended: bool | None = None


class ImplicitSignals:
    """Finds signals. weights: by signal; a signal of weight 0 is not looked for."""

    def __init__(self, weights: Mapping[str, float], window_s: float) -> None:
        self._wanted = {name for name, weight in weights.items() if weight > 0.0}
        self._window_s = window_s
        self._talks: OrderedDict[str, Turn] = OrderedDict()

    @property
    def looks(self) -> bool:
        """Whether any signal is looked for."""
        return bool(self._wanted)

    def turn(self, messages: object, by: Sequence[str], whose: Whose, at: float) -> Turn | None:
        """The request as a turn; None if no signal is looked for, or if its conversation is
        unknown.

        messages: of the request. by: the key that asks, and for which tenant. at: when it came.
        """
        if not self._wanted or not isinstance(messages, list) or not messages:
            return None
        if _role(messages[-1]) != "user":
            return None  # a tool's result is not a message of the user
        talk = _talk(messages, by, whose)
        if not talk:
            return None
        answers = any(_role(each) == "assistant" for each in messages)
        return Turn(talk, _hashed(messages[:-1]), _hashed([messages[-1]]), at, answers)

    def said(self, turn: Turn) -> tuple[str, str] | None:
        """The signal that a turn gives about the previous one, and the previous one's decision."""
        before = self._talks.get(turn.talk)
        if before is None or before.ended is None or not before.decision_id:
            return None  # a request at the same time is not a reaction to the answer
        if turn.at - before.at > self._window_s or turn.before != before.before:
            return None
        again = REGENERATE if before.ended else RETRY
        signal = again if turn.last == before.last else EDIT
        if signal == REGENERATE and before.only_newest:
            return None  # "go on", and "go on"
        if signal == EDIT and not turn.answers:
            return None  # nor is it known whether it is the next question of one who sends no more
        return (signal, before.decision_id) if signal in self._wanted else None

    @contextmanager
    def under_way(self, turn: Turn) -> Iterator[None]:
        """Remember the turn; its `ended` says whether its answer was complete."""
        before = self._talks.pop(turn.talk, None)
        if before is not None and not turn.answers and turn.before == before.before:
            turn.only_newest = before.only_newest or turn.last != before.last
        self._talks[turn.talk] = turn
        if len(self._talks) > MAX_TALKS:
            self._talks.popitem(last=False)
        try:
            yield
        finally:
            turn.ended = bool(turn.ended)


def _talk(messages: Sequence[Any], by: Sequence[str], whose: Whose) -> str:
    """Which conversation it is: by its own name, or by the name of its session or user together
    with its first message; "" if none is named.
    """
    if whose.conversation:
        return _hashed([*by, "conversation", whose.conversation])
    first = next(each for each in messages if _role(each) == "user")
    for kind, name in (("session", whose.session), ("unit", whose.unit)):
        if name:
            return _hashed([*by, kind, name, first])
    return ""


def _role(message: object) -> object:
    return message.get("role") if isinstance(message, dict) else None


def _hashed(of: Sequence[Any]) -> str:
    return blake2b(msgspec.json.encode(of), digest_size=16).hexdigest()
