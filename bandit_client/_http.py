"""Requests over HTTP: one connection pool, timeouts, retries, and errors as exceptions."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from uuid import uuid4

import aiohttp
import msgspec
from yarl import URL

from bandit_client._address import Address
from bandit_client._calls import Call, encoded
from bandit_client._retry import Patience, Retries
from bandit_client.errors import (
    BadAnswer,
    BanditError,
    NoAnswer,
    NotReached,
    ServiceError,
    Unavailable,
    told,
)

T = TypeVar("T")
_IDLE_S = 15.0
"""A connection that was idle for longer is not used again: the service, or what is in front of it,
may be closing it just then, and a decision sent on it would be lost."""
_TOLD_SHARE = 0.9
"""The share of its time that the client leaves to the service: the service gives up first, and says
that nothing was decided."""
_CONNECT_SHARE = 0.95
"""So that a connection that is not made in time is told from an answer that does not come."""
_MIN_TOLD_S, _MAX_TOLD_S = 0.001, 3600.0
_SHOWN = 200
_OFFSET, _AFTER = "x-bandit-offset", "x-bandit-after"


class Transport:
    """The connections of one event loop to a service."""

    def __init__(
        self,
        address: Address,
        retries: Retries,
        timeout_s: float,
        tls: ssl.SSLContext | None = None,
        *,
        read_your_writes: bool = False,
    ) -> None:
        self.address = address
        self.retries = retries
        self.timeout_s = timeout_s
        self._tls: ssl.SSLContext | bool = True if tls is None else tls
        self._reads_own = read_your_writes
        self._learned = 0  # the greatest offset that an answer named
        self._session: aiohttp.ClientSession | None = None

    def session(self) -> aiohttp.ClientSession:
        """The pool of connections, opened when it is first needed."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(keepalive_timeout=_IDLE_S, ssl=self._tls),
                headers={"User-Agent": "bandit-client", **self.address.headers},
                auto_decompress=True,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(self, call: Call[T], timeout_s: float | None = None) -> T:
        """The answer. Retried within the timeout, as the service's errors suggest.

        After the last `behind` the request is sent once more without an offset: a failover may
        have lost the events up to there, and then no replica would ever answer.
        """
        seconds = self.timeout_s if timeout_s is None else timeout_s
        check_timeout(seconds)
        raw = None if call.body is None else encoded(call.body)
        patience = Patience(seconds, self.retries)
        try:
            return await self._patiently(call, raw, patience)
        except Unavailable as error:
            if error.code != "behind" or patience.left_s <= 0.0:
                raise
        return await self.once(call, raw, patience.left_s, anew=True)

    async def _patiently(self, call: Call[T], raw: bytes | None, patience: Patience) -> T:
        while True:
            try:
                return await self.once(call, raw, patience.left_s)
            except BanditError as error:
                await patience.failed(error, call.harmless)

    async def once(
        self, call: Call[T], raw: bytes | None, left_s: float, *, anew: bool = False
    ) -> T:
        """The answer to one attempt.

        anew: send no offset, and continue from the offset of this answer.
        """
        id = uuid4().hex
        headers = {"x-request-id": id}
        if call.key:
            headers["Idempotency-Key"] = call.key
        if call.match:
            headers["If-Match"] = call.match
        if raw is not None:
            headers["Content-Type"] = "application/json"
        known = self._learned
        waits = self._reads_own and known > 0 and call.shows_learned and not anew
        if waits:
            headers[_AFTER] = str(known)
        if call.timed or waits:
            allowed = min(max(left_s * _TOLD_SHARE, _MIN_TOLD_S), _MAX_TOLD_S)
            headers["X-Request-Timeout"] = f"{allowed:.3f}"
        url = URL(self.address.url + call.path, encoded=True)
        try:
            async with self.session().request(
                call.method,
                url,
                data=raw,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=max(left_s, 0.001), sock_connect=max(_CONNECT_SHARE * left_s, 0.001)
                ),
            ) as answer:
                body = await answer.read()
                status, said = answer.status, answer.headers
                named = offset_of(said.get(_OFFSET))
                begins = anew and named > 0 and self._learned == known  # no other call has moved it
                self._learned = named if begins else max(self._learned, named)
        except aiohttp.ClientConnectorError as error:
            raise NotReached(f"{self.address.url}: {error}") from error
        except aiohttp.ConnectionTimeoutError as error:
            raise NotReached(f"{self.address.url}: no connection in {left_s:.3g} s") from error
        except TimeoutError as error:
            raise NoAnswer(
                f"{call.method} {call.path}: no answer in {left_s:.3g} s", request_id=id
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            why = str(error) or type(error).__name__
            raise NoAnswer(
                f"{call.method} {call.path}: the connection was cut before the answer ({why})",
                request_id=id,
            ) from error
        if status >= 300:
            raise refused(status, said, body)
        try:
            return call.read(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, IndexError) as error:
            raise BadAnswer(
                f"{call.method} {call.path}: the answer is not one of a bandit-service ({error}): "
                f"{body[:_SHOWN]!r}"
            ) from error


def check_timeout(seconds: float) -> None:
    """ValueError unless it is a number of seconds above 0."""
    if not 0 < seconds < float("inf"):
        raise ValueError(f"timeout_s: must be a number of seconds above 0, got {seconds}")


def refused(status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
    """The exception for an answer that is an error, also where a proxy gave it."""
    error: Any = None
    with contextlib.suppress(ValueError, LookupError, TypeError):
        error = json.loads(body)["error"]
    if not isinstance(error, dict):
        error = {"message": f"status {status}, which no bandit-service answered: {body[:_SHOWN]!r}"}
    return told(
        error,
        status,
        headers.get("x-request-id", ""),
        retry_after_of(headers.get("Retry-After")),
    )


def offset_of(text: str | None) -> int:
    """The offset in a header; 0 if there is none.

    >>> offset_of("12"), offset_of(None), offset_of("soon")
    (12, 0, 0)
    """
    said = text or ""
    return int(said) if said.isascii() and said.isdigit() and len(said) < 20 else 0


def retry_after_of(text: str | None) -> float | None:
    """The seconds of `Retry-After`, which may be a number or a date.

    >>> retry_after_of("3"), retry_after_of(None), retry_after_of("soon")
    (3.0, None, None)
    """
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(text)
        return max(0.0, (at - at.now(at.tzinfo)).total_seconds())
    except (ValueError, TypeError):
        return None
