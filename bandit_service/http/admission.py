"""Load shedding: few requests wait, and the rest are refused at once.

One loop does all the work, so a request beyond its capacity waits, and so does everything after it.
The limit is therefore on the waiting time, not on the number of waiting requests: `Limit` finds by
trial how many requests may run so that each is answered in about the allowed time. A 429 through
the whole HTTP stack costs a third of a decision, so at three times the capacity a service that
refuses in its handlers would do nothing else. `Entrance` answers before the stack, in some twenty
microseconds.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from email.utils import formatdate

import msgspec

from bandit_service import clock
from bandit_service.core.errors import Busy

_WINDOW_S = 0.1
_WIDEN, _NARROW = 1.1, 0.7
_LONGEST_HEAD = 8192
_ENDS = b"\r\n\r\n"
JITTER_S = 3
_USUAL_BYTES = 16_384
"""A request of more bytes, which is a long list, counts as several."""
_PATIENCE = 10.0  # with outcomes, which may take so many times longer than decides

DECIDE, OUTCOME = "decide", "outcome"
_PATHS = {
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


class Entrance(asyncio.Protocol):
    """Stands between a connection and the HTTP stack, and refuses requests beyond the limits.

    It handles only requests whose beginning is certain: each has a plain Content-Length and comes
    after the answer to the one before. Anything else (chunked bodies, pipelining, WebSockets) is
    passed on unchanged from there on; server.max_in_flight and the stream's own credits bound it.
    """

    def __init__(
        self,
        inner: asyncio.Protocol,
        admission: Admission,
        closed_to: Callable[[asyncio.Transport], bool] = lambda _: False,
    ) -> None:
        """closed_to: returns whether a new connection was one too many, and has been closed."""
        self._inner = inner
        self._closed_to = closed_to
        self._admission = admission
        self._transport: asyncio.Transport | None = None
        self._plain = True
        self._busy = self._closes = False
        self._head = b""
        self._length: int | None = None
        self._body_left = 0
        self._refused: tuple[str, str] | None = None
        self._kind = ""
        self._weight = 1
        self._entered = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        assert isinstance(transport, asyncio.Transport)
        if self._closed_to(transport):
            self._inner = asyncio.Protocol()  # nothing to do for it any more
            return
        self._transport = transport
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        self.answered()
        self._inner.connection_lost(exc)

    def eof_received(self) -> bool | None:
        """Called by the loop."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._inner.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._plain:
            if not self._body_left:
                self._begin(data)
            elif len(data) > self._body_left:
                self._plain = False
            else:
                self._body_left -= len(data)
            if self._plain and not self._body_left:
                self._enter()
            if self._refused is not None and self._plain:
                if not self._body_left:
                    self._refuse(*self._refused)
                return
        self._inner.data_received(data)

    def answered(self) -> None:
        """The running request has its answer."""
        self._busy = False
        if self._entered:
            self._admission.leave(self._kind, self._entered, self._weight)
        self._kind, self._entered = "", 0.0

    def _begin(self, data: bytes) -> None:
        """The first bytes of a request: its length, and whether it is admitted."""
        ends = -1 if self._busy else data.find(_ENDS, 0, _LONGEST_HEAD)
        head = data[: max(0, ends)]
        if head != self._head:  # a client's requests begin alike
            self._head = head
            self._length, self._closes = _framing(head)
        if self._length is None:
            self._plain = False
            return
        self._body_left = self._length - (len(data) - ends - len(_ENDS))
        if self._body_left < 0:
            self._plain = False
            return
        endpoint, kind = _PATHS.get(head[: head.find(b" ", 5) + 1], ("", ""))
        if kind and self._admission.limits[kind].full:
            self._refused = (endpoint, kind)
            return
        self._busy, self._kind = True, kind

    def _enter(self) -> None:
        """The request is complete.

        Before, it did not count as running, since its client may be slow.
        """
        if self._kind and not self._entered:
            self._weight = 1 + (self._length or 0) // _USUAL_BYTES
            self._entered = self._admission.enter(self._kind, self._weight)

    def _refuse(self, endpoint: str, kind: str) -> None:
        self._refused = None
        if self._transport is not None:
            self._transport.write(self._admission.refusal(endpoint, kind))
            if self._closes:
                self._transport.close()


def _framing(head: bytes) -> tuple[int | None, bool]:
    """The length of the body, None without a plain Content-Length;

    and whether the connection ends.
    """
    length: int | None = None
    closes = False
    lines = head.lower().split(b"\r\n")
    if not lines[0].endswith(b" http/1.1"):
        return None, False
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        value = value.strip()
        if name == b"content-length":
            if length is not None or not value.isdigit():
                return None, False
            length = int(value)
        elif name == b"connection":
            closes = value == b"close"
            if not closes and value != b"keep-alive":
                return None, False
        elif name in (b"transfer-encoding", b"upgrade", b"expect") or name != name.strip():
            return None, False
    return length or 0, closes
