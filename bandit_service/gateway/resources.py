"""What one request is while it is carried out: what was asked, and the decision that is tried."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bandit_service.core import events as ev
from bandit_service.core.errors import UpstreamError, UpstreamTimeout
from bandit_service.gateway.health import Health
from bandit_service.gateway.request import Wanted
from bandit_service.gateway.request_size import Size
from bandit_service.gateway.upstreams import Failed, Rejected

_MOST_TRIED = 20


@dataclass(frozen=True, slots=True)
class GatewayRules:
    """attempts: arms tried for one request. failure_quality: what a failed answer is worth.

    latency_signal: what is reported as latency_s: "total" for the whole answer, "first_token", or
    "per_token" for the whole divided by the tokens of the answer. max_answer_bytes: of an answer,
    and of one event of a stream. keep_alive_s: of silence until a stream's client gets a comment.
    verdict_s: CPU seconds that a pattern or a schema may take.
    """

    attempts: int = 3
    failure_quality: float = 0.0
    latency_signal: str = "total"
    max_answer_bytes: int = 33_554_432
    keep_alive_s: float = 15.0
    verdict_s: float = 1.0

    def over(self, tried: int, refused: Sequence[tuple[object, Rejected]]) -> bool:
        """Whether no other arm is tried for a request. Where arms say that they cannot do it, that
        tells nothing of others, so they do not count as attempts.
        """
        unsuited = sum(rejected.unsuited for _, rejected in refused)
        return self.attempts == 1 or tried - unsuited >= self.attempts or tried >= _MOST_TRIED


@dataclass(frozen=True, slots=True)
class Asked:
    """What the client asked for, and how much. onward: what of its headers goes on."""

    path: str
    body: dict[str, Any]
    size: Size
    wanted: Wanted
    caller: str
    conversation: bytes
    onward: dict[str, str]

    @property
    def may_duel(self) -> bool:
        """Whether another arm may answer too: one answer is wanted, of whichever arm."""
        return not self.wanted.direct and self.body.get("n") in (None, 1)


@dataclass(slots=True)
class Call:
    """One decision being carried out, begun and with its first word at so much of perf_counter.

    duel: a second arm will answer too. ended: what came of it is being written down. refused, at so
    much; before: the calls of this request that were refused before this one.
    """

    decided: ev.Decided
    spec: ev.ArmSpec
    size: Size
    begun: float
    conversation: bytes
    duel: bool = False
    first: float | None = None
    refused: float | None = None
    before: list[Call] = field(default_factory=list)
    ended: bool = False

    def headers(self) -> dict[str, str]:
        """What every answer tells of its decision."""
        headers = {
            "x-decision-id": self.decided.id,
            "x-arm": self.decided.arm,
            "x-policy": self.decided.policy,
        }
        if self.decided.experiment:
            headers |= {"x-experiment": self.decided.experiment, "x-variant": self.decided.variant}
        return headers | {"x-duel": self.decided.id} if self.duel else headers


@contextmanager
def counted(health: Health, arm: str) -> Iterator[None]:
    """A call of an arm that no decision stands behind: its health, and its bound of calls."""
    health.begun(arm)
    try:
        yield
    except Failed as failed:
        health.failed(arm, time.monotonic(), failed.retry_after_s)
        raise
    except BaseException:
        health.left(arm)
        raise
    health.succeeded(arm)


def gave_none(arm: str, failed: Failed) -> UpstreamError:
    """What the client is told of an arm that gave no answer."""
    message = f"arm {arm!r} gave no answer: {failed}"
    if failed.timeout:
        return UpstreamTimeout(message)
    return UpstreamError(message, failed.status or 502, failed.retry_after_s)


def failure(call: Call, failed: Failed) -> UpstreamError:
    """The same, with the decision that led there in its headers."""
    error = gave_none(call.spec.id, failed)
    error.headers = call.headers()
    return error
