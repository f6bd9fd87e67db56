"""What a client does with an answer says something of it: it retries, regenerates, or edits.

A request is compared with the one before it of the same conversation, of which only hashes are kept
in memory. Nothing is taken for a signal unless its weight is set (`[implicit]`).
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

MOST_TALKS = 10_000
"""Conversations whose last request is remembered, the newest."""


@dataclass(frozen=True, slots=True)
class Whose:
    """By what a client names a conversation, as far as it does."""

    conversation: str = ""
    session: str = ""
    unit: str = ""


class Turn:
    """One request of a conversation. talk: which. before, last: hashes of the messages up to the
    last one, and of that. answers: whether earlier answers are among them. ended: its answer came
    whole, or not; None while it is under way. only_newest: the client seems to send nothing but
    the newest message of the conversation.
    """

    __slots__ = ("answers", "at", "before", "decision_id", "ended", "last", "only_newest", "talk")

    def __init__(self, talk: str, before: str, last: str, at: float, answers: bool) -> None:
        self.talk, self.before, self.last, self.at = talk, before, last, at
        self.answers, self.only_newest = answers, False
        self.decision_id = ""
        self.ended: bool | None = None


class ImplicitSignals:
    """What is taken for which signal. weights: by signal; one of weight 0 is not looked for."""

    def __init__(self, weights: Mapping[str, float], window_s: float) -> None:
        self._wanted = {name for name, weight in weights.items() if weight > 0.0}
        self._window_s = window_s
        self._talks: OrderedDict[str, Turn] = OrderedDict()

    def turn(self, messages: object, by: Sequence[str], whose: Whose, at: float) -> Turn | None:
        """The request as a turn; None where nothing is looked for, or nobody says whose it is.

        messages: of the request. by: the key that asks, and for which tenant. at: when it came.
        """
        if not self._wanted or not isinstance(messages, list) or not messages:
            return None
        if _role(messages[-1]) != "user":
            return None  # a tool's result is no word of a user's
        talk = _talk(messages, by, whose)
        if not talk:
            return None
        answers = any(_role(each) == "assistant" for each in messages)
        return Turn(talk, _hashed(messages[:-1]), _hashed([messages[-1]]), at, answers)

    def said(self, turn: Turn) -> tuple[str, str] | None:
        """The signal that a turn is of the one before it, and that one's decision."""
        before = self._talks.get(turn.talk)
        if before is None or before.ended is None or not before.decision_id:
            return None  # what is asked at the same time is no second thought
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
        """Remember the turn, and whether its answer came whole, which it says itself."""
        before = self._talks.pop(turn.talk, None)
        if before is not None and not turn.answers and turn.before == before.before:
            turn.only_newest = before.only_newest or turn.last != before.last
        self._talks[turn.talk] = turn
        if len(self._talks) > MOST_TALKS:
            self._talks.popitem(last=False)
        try:
            yield
        finally:
            turn.ended = bool(turn.ended)


def _talk(messages: Sequence[Any], by: Sequence[str], whose: Whose) -> str:
    """Which conversation it is: by its own name, or by that of its session or user with how it
    began; "" where none is named.
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
