"""Spans: what a request passes through, and how long each part of it took.

Off by default: then `current` is None, nothing is done, and OpenTelemetry is not imported. What
sends them is in `otel.py`. Times are of `time.perf_counter`. No attribute ever holds what was asked
or answered, nor a unit, a tenant or a key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeAlias

from bandit_service.core import events as ev

Value: TypeAlias = str | int | float | bool | Sequence[str]


class Span(Protocol):
    """Something that takes time. It began when it was made, and lasts until `end`."""

    def set(self, attributes: Mapping[str, Value]) -> None:
        """What is known of it."""

    def failed(self, kind: str) -> None:
        """It failed: `error.type`, of few values."""

    def stage(self, name: str, begun: float, ended: float) -> None:
        """A part of it that is over."""

    def call(self, name: str, attributes: Mapping[str, Value]) -> Span:
        """A part of it that somebody else does, which begins now."""

    def headers(self) -> dict[str, str]:
        """What tells somebody else that he works within it: `traceparent`, and `tracestate`."""

    def end(self) -> None:
        """It is over."""


class Tracer(Protocol):
    """Makes the spans of requests, and sends them."""

    def request(
        self, name: str, headers: Mapping[str, str], attributes: Mapping[str, Value]
    ) -> Span:
        """A request that begins now, within what its headers name as its parent."""

    def close(self) -> None:
        """Send the remaining spans; it takes time, so not on the event loop."""


_current: ContextVar[Span | None] = ContextVar("span", default=None)


def current() -> Span | None:
    """The span of the running request; None without one."""
    return _current.get()


@contextmanager
def within(span: Span) -> Iterator[None]:
    """What is done here, and in tasks that begin here, is part of `span`, which ends with it."""
    token = _current.set(span)
    try:
        yield
    finally:
        _current.reset(token)
        span.end()


def decision(event: ev.Decided) -> dict[str, Value]:
    """The attributes of a decision on its request's span."""
    told: dict[str, Value] = {
        "bandit.decision_id": event.id,
        "bandit.arm": event.arm,
        "bandit.policy": event.policy,
        "bandit.propensity": event.propensity,
        "bandit.reason": event.why,
    }
    if event.conversation:
        told["gen_ai.conversation.id"] = event.conversation
    if event.experiment:
        told |= {"bandit.experiment": event.experiment, "bandit.variant": event.variant}
    if event.fallback:
        told["bandit.fallback"] = event.fallback
    return told
