"""Stands between a connection and the HTTP stack: refuses what is beyond the limits, and hands
usual requests to the fast path.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from bandit_service.http.admission import PATHS, Admission

_LONGEST_HEAD = 8192
_ENDS = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,15})(?=\r\n|\Z)")
_USUAL_BYTES = 16_384
"""A request of more bytes, which is a long list, counts as several."""
_MAX_HELD = 65_536
"""Bytes of the next requests that are taken while the fast path answers one."""

H = TypeVar("H")


class Fast(Protocol[H]):
    """Answers requests by itself, one at a time of each connection."""

    def head_of(self, head: bytes) -> H | None:
        """A head without the line of its length, parsed; None if the request is of another kind."""
        ...

    def takes(self, head: H, body: bytes, entrance: Entrance[H]) -> bool:
        """Whether it answers this request, and then calls `finished`, in a later turn of the loop.
        If not, nothing was done.
        """
        ...


class Entrance(asyncio.Protocol, Generic[H]):
    """Handles only requests whose beginning is certain: each has a plain Content-Length and comes
    after the answer to the one before. Anything else (chunked bodies, pipelining, WebSockets) is
    passed on unchanged from there on; server.max_in_flight and the stream's own credits bound it.
    """

    def __init__(
        self,
        inner: asyncio.Protocol,
        admission: Admission,
        closed_to: Callable[[asyncio.Transport], bool] = lambda _: False,
        fast: Fast[H] | None = None,
    ) -> None:
        """closed_to: returns whether a new connection was one too many, and has been closed."""
        self.inner = inner
        self._closed_to = closed_to
        self._admission = admission
        self._fast = fast
        self._transport: asyncio.Transport | None = None
        self._plain = True
        self._busy = self._closes = False
        self._head = self._rest = b""
        self._rest_length: int | None = None
        self._length: int | None = None
        self._body_left = 0
        self._refused: tuple[str, str] | None = None
        self._kind = ""
        self._weight = 1
        self._entered = 0.0
        self._aside = 0
        self._known: H | None = None
        self._looked = False
        self._held: bytearray | None = None
        self._paused = False

    @property
    def transport(self) -> asyncio.Transport | None:
        """Of the connection; None once it is lost."""
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        assert isinstance(transport, asyncio.Transport)
        if self._closed_to(transport):
            self.inner = asyncio.Protocol()  # nothing to do for it any more
            return
        self._transport = transport
        self.inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        self.answered()
        self.inner.connection_lost(exc)

    def eof_received(self) -> bool | None:
        """Called by the loop."""
        return self.inner.eof_received()

    def pause_writing(self) -> None:
        """Called by the loop."""
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self.inner.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._held is not None:
            self._hold(data)
            return
        if self._plain:
            begins = not self._body_left
            if begins:
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
            if begins and self._plain and not self._body_left and self._taken(data):
                return
        self.inner.data_received(data)

    def answered(self) -> None:
        """The running request has its answer."""
        self._busy = False
        if self._entered and not self._aside:
            self._admission.leave(self._kind, self._entered, self._weight)
        self._kind, self._entered = "", 0.0

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within this the running request waits for what is no work of this process: it takes no
        place from others, and its waiting says nothing of how long they would wait.
        """
        if self._entered and not self._aside:
            self._admission.set_aside(self._kind, self._weight)
        self._aside += 1
        try:
            yield
        finally:
            self._aside -= 1
            if self._entered and not self._aside:
                self._entered = self._admission.enter(self._kind, self._weight)

    def finished(self) -> None:
        """The fast path has answered: what came meanwhile is the next request."""
        self.answered()
        held, self._held = self._held, None
        if self._transport is None or self._transport.is_closing():
            return  # nobody would read the next answer
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        if held:
            self.data_received(bytes(held))

    def _taken(self, data: bytes) -> bool:
        """Whether the fast path answers this request, which came in one piece."""
        if self._fast is None or self._closes:
            return False
        if not self._looked:
            self._looked, self._known = True, self._fast.head_of(self._rest)
        if self._known is None:
            return False
        assert self._length is not None
        self._held = bytearray()
        body = data[len(data) - self._length :] if self._length else b""
        if self._fast.takes(self._known, body, self):
            return True
        self._held = None
        return False

    def _hold(self, data: bytes) -> None:
        assert self._held is not None
        self._held += data
        if not self._paused and len(self._held) > _MAX_HELD:
            assert self._transport is not None
            self._paused = True
            self._transport.pause_reading()

    def _begin(self, data: bytes) -> None:
        """The first bytes of a request: its length, and whether it is admitted."""
        ends = -1 if self._busy else data.find(_ENDS, 0, _LONGEST_HEAD)
        head = data[: max(0, ends)]
        if head != self._head:  # a client's requests begin alike
            self._head = head
            self._length = self._length_of(head)
        if self._length is None:
            self._plain = False
            return
        self._body_left = self._length - (len(data) - ends - len(_ENDS))
        if self._body_left < 0:
            self._plain = False
            return
        endpoint, kind = PATHS.get(head[: head.find(b" ", 5) + 1], ("", ""))
        if kind and self._admission.limits[kind].full:
            self._refused = (endpoint, kind)
            return
        self._busy, self._kind = True, kind

    def _length_of(self, head: bytes) -> int | None:
        """The length of the body; None without a plain Content-Length. The rest of the head is
        looked at only where it differs from the one before.
        """
        found = _LENGTH.search(head)
        rest = head if found is None else head[: found.start()] + head[found.end() :]
        if rest != self._rest:
            self._rest = rest
            self._known, self._looked = None, False
            self._rest_length, self._closes = _framing(rest)
        if found is None or self._rest_length is None:
            return self._rest_length
        if b"content-length" in rest.lower():
            return None
        return int(found[1])

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
