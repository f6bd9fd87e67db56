"""The source of an export: the log of a stopped service, or a running service."""

from __future__ import annotations

import http.client
import ssl
import struct
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Protocol, TypeAlias
from urllib.parse import urlsplit

import msgspec

from bandit_service.core import events as ev
from bandit_service.core.pools import POOL
from bandit_service.data.events_frame import FRAME, LAST, LOG_FIRST, LOG_LAST
from store import EventLog, Offset, first_of

PAGE = 5000
_TIMEOUT_S = 60.0
_NIL = b"\xc0"
_BROKEN = (OSError, http.client.HTTPException, msgspec.MsgspecError, struct.error)

Stored: TypeAlias = tuple[int, ev.AnyEvent | None]
"""An offset and its event; None if it was erased."""


class Unreadable(Exception):
    """The source cannot be read."""


class Source(Protocol):
    """Events from `first` to `last`, both as they were when it was opened."""

    first: int
    last: int

    def events(self, after: int) -> Iterator[Stored]:
        """The events after `after`, in order."""
        ...


class LogSource:
    """A log that this process holds open."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.first, self.last = int(first_of(log)), int(log.last)

    def events(self, after: int) -> Iterator[Stored]:
        """The events after `after`, in order."""
        replayed = self._log.replay(Offset(max(after, self.first - 1)))
        for offset, body in takewhile(lambda each: each[0] <= self.last, replayed):
            yield int(offset), ev.decode(body) if body else None


class ServiceSource:
    """A running service, asked page by page over GET /v1/events."""

    def __init__(
        self,
        url: str,
        key: str = "",
        ca: Path | None = None,
        page: int = PAGE,
        pool: str = "",
    ) -> None:
        """pool: the one whose log is read, "" for the default one."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unreadable(f"--url: must be http://HOST:PORT or https://HOST:PORT, got {url!r}")
        self._parts, self._page = parts, page
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._headers |= {POOL: pool} if pool else {}
        self._tls = ssl.create_default_context(cafile=ca) if parts.scheme == "https" else None
        self._decoder = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw])
        connection, response = self._ask("?limit=1")
        self.first = int(response.headers[LOG_FIRST])
        self.last = int(response.headers[LOG_LAST])
        response.close()
        connection.close()

    def events(self, after: int) -> Iterator[Stored]:
        """The events after `after`, in order."""
        at = max(after, self.first - 1)
        while at < self.last:
            limit = min(self._page, self.last - at)
            connection, response = self._ask(f"?after={at}&limit={limit}")
            upto = int(response.headers[LAST])
            try:
                while header := response.read(FRAME.size):
                    at, body = self._decoder.decode(response.read(*FRAME.unpack(header)))
                    yield at, None if bytes(body) == _NIL else ev.decode(bytes(body))
            except _BROKEN as error:
                raise Unreadable(
                    f"the connection ended after offset {at} ({type(error).__name__})"
                ) from None
            finally:
                response.close()
                connection.close()
            if at != upto:
                raise Unreadable(f"the service stopped after offset {at}, but announced {upto}")

    def _ask(self, query: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        host, port = str(self._parts.hostname), self._parts.port
        connection = (
            http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
            if self._tls is None
            else http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=self._tls)
        )
        path = f"{self._parts.path.rstrip('/')}/v1/events{query}"
        try:
            connection.request("GET", path, headers=self._headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unreadable(f"{self._parts.netloc} does not answer ({error})") from None
        if response.status != http.client.OK or LOG_LAST not in response.headers:
            said = response.read(4096)
            connection.close()
            raise Unreadable(_why(response.status, said))
        return connection, response


def _why(status: int, said: bytes) -> str:
    try:
        return f"the service says: {msgspec.json.decode(said)['error']['message']}"
    except (msgspec.MsgspecError, LookupError, TypeError):
        return f"the server there is not a bandit-service (status {status})"
