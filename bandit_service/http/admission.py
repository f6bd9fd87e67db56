"""Load shedding: few requests wait, and the rest are refused at once.

One loop does all the work, so a request beyond its capacity waits, and so does everything after it.
The limit is therefore on the waiting time, not on the number of waiting requests: `Limit` finds by
trial how many requests may run so that each is answered in about the allowed time. A 429 through
the whole HTTP stack costs a third of a decision, so at three times the capacity a service that
refuses in its handlers would do nothing else. `entrance.py` answers before the stack, in some
twenty microseconds.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from email.utils import formatdate

import msgspec

from bandit_service import clock
from bandit_service.core.errors import Busy

_WINDOW_S = 0.1
_WIDEN, _NARROW = 1.1, 0.7
JITTER_S = 3
_PATIENCE = 10.0  # with outcomes, which may take so many times longer than decides

DECIDE, OUTCOME = "decide", "outcome"
PATHS = {
    b"POST /v1/decide ": ("/v1/decide", DECIDE),
    b"POST /v1/rewards ": ("/v1/rewards", OUTCOME),
    b"POST /v1/comparisons ": ("/v1/comparisons", OUTCOME),
}


def retry_after(least_s: int) -> str:
    """Seconds after which to retry, drawn for each client, so that they do not retry at once."""
    return str(least_s + secrets.randbelow(JITTER_S))


class Limit:
    """How many requests may run so that each takes about `target_s`, from `least` to `most`.

    The limit falls while they take longer, and rises while they do not and the limit is used.
    start: its first value, four times `least` by default.
    """

    def __init__(self, target_s: float, least: int, most: int, start: int | None = None) -> None:
        self.under_way = 0
        self._target_s, self._least, self._most = target_s, min(least, most), most
        self._allowed = float(min(4 * self._least if start is None else start, most))
        self._begun = self._sum_s = 0.0
        self._done = self._peak = 0

    @property
    def allowed(self) -> int:
        """How many may run now."""
        return int(self._allowed)

    @property
    def full(self) -> bool:
        """Whether the next one must be refused."""
        return self.under_way >= self.allowed

    def enter(self, weight: int = 1) -> None:
        """One more is running, which is as much work as `weight` usual ones."""
        self.under_way += weight
        self._peak = max(self._peak, self.under_way)

    def leave(self, seconds: float, now: float, weight: int = 1) -> None:
        """It is answered, after this time; `now` is of a monotonic clock."""
        self.under_way -= weight
        self._sum_s += seconds
        self._done += weight
        if now - self._begun < _WINDOW_S:
            return
        mean_s = self._sum_s / self._done
        if mean_s > self._target_s:
            narrower = self._allowed * max(_NARROW, self._target_s / mean_s)
            self._allowed = max(float(self._least), narrower)
        elif self._peak >= 0.8 * self.allowed:
            self._allowed = min(float(self._most), self._allowed * _WIDEN + 1)
        self._begun, self._sum_s = now, 0.0
        self._done, self._peak = 0, self.under_way


class Admission:
    """The limits of decides and of outcomes.

    Outcomes are refused later, since policies learn from them. least: how many decides are always
    admitted, two batches of the embedding model.
    """

    def __init__(
        self, target_s: float, least: int, most: int, count: Callable[[str, str], None]
    ) -> None:
        self.limits = {
            DECIDE: Limit(target_s, least, most),
            OUTCOME: Limit(_PATIENCE * target_s, least, most, start=most),
        }
        self._count = count
        self._date_at, self._date = -1, b""
        self._process, self._refused = secrets.token_hex(8).encode(), 0

    def enter(self, kind: str, weight: int = 1) -> float:
        """Admit one, which must `leave` with the returned value and the same weight."""
        self.limits[kind].enter(weight)
        return time.perf_counter()

    def set_aside(self, kind: str, weight: int = 1) -> None:
        """An admitted request leaves without an answer, and may `enter` again."""
        self.limits[kind].under_way -= weight

    def leave(self, kind: str, entered: float, weight: int = 1) -> None:
        """An admitted request is answered."""
        now = time.perf_counter()
        self.limits[kind].leave(now - entered, now, weight)

    def refusal(self, endpoint: str, kind: str) -> bytes:
        """The whole answer to an HTTP request that is not admitted."""
        self._count(endpoint, kind)
        now = clock.now()
        if int(now) != self._date_at:
            self._date_at, self._date = int(now), formatdate(now, usegmt=True).encode()
        self._refused += 1
        wait_s = Busy.retry_after_s + secrets.randbelow(JITTER_S)
        return _REFUSAL % (wait_s, self._process, self._refused, self._date)


_FULL = "service overloaded; retry later"
_BODY = msgspec.json.encode({"error": Busy(_FULL).body()})
_REFUSAL = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json; charset=utf-8\r\n"
    b"Retry-After: %d\r\nx-request-id: %b-%d\r\nDate: %b\r\n"
    + f"Content-Length: {len(_BODY)}\r\n\r\n".encode()
    + _BODY
)
