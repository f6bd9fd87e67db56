"""A connection to one of the servers of an address; its errors become those of the store.

The driver never reconnects it: the caller opens another one, after it has found out the results of
pending requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from store._address import parts_of
from store._shared import Unfit, Unsure

_OLDEST = (2, 12, 1)
"""The first version whose batches accept ids of messages."""
_FILES = ("creds", "tls_ca", "tls_cert", "tls_key")
_SCHEMES = ("nats", "tls")
_FIRST_WAIT_S = 0.5
_CANNOT = (10039, 10076)
"""Codes of the server: JetStream is not there, for this account or for all."""
NO_STREAM = 10059
"""The same: the stream is not there."""


@dataclass(frozen=True, slots=True)
class Address:
    """The servers, and the credentials. A token is a user without a password."""

    servers: tuple[str, ...]
    user: str
    password: str
    files: Mapping[str, str]
    tls: bool


def address_of(text: str) -> Address:
    """Read `nats://USER:PASSWORD@HOST:PORT,HOST:PORT?creds=FILE`; Unfit, which shows none of it."""
    parts = parts_of(text)
    if parts is None or parts.scheme not in _SCHEMES or parts.path not in ("", "/"):
        raise Unfit(_UNREADABLE)
    try:
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise Unfit(_UNREADABLE) from None
    servers = tuple(each if _has_port(each) else f"{each}:4222" for each in parts.hosts)
    if not servers:
        raise Unfit(_UNREADABLE)
    for key, _value in query:
        if key not in _FILES:
            raise Unfit(
                f"the address has {key!r} behind the ?; expected one of {', '.join(_FILES)}"
            )
    user, _, password = parts.user.partition(":")
    files = dict(query)
    return Address(
        servers, unquote(user), unquote(password), files, parts.scheme == "tls" or "tls_ca" in files
    )


_UNREADABLE = (
    "the address of the NATS servers cannot be read; expected "
    "nats://USER:PASSWORD@HOST:PORT,HOST:PORT, and what is special in its user and its password "
    "percent-encoded"
)


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdigit() and not host.endswith("]")


class Refused(Exception):
    """The server refused the request and did nothing. code: the number of its reason."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{why} ({code})")
        self.code, self.why = code, why


class Late(Unsure):
    """The server did not answer in time."""


class Wire:
    """Requests on one connection, each answered within `timeout_s` or Unsure."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._nc: Any = None
        self._denied: tuple[float, str] | None = None
        self.closed = asyncio.Event()

    async def open(self, address: Address, server: str, within_s: float) -> None:
        """Connect to one of the servers of an address."""
        from nats.aio.client import Client

        told: list[Exception] = []

        async def failed(error: Exception) -> None:
            told.append(error)
            if "permissions violation" in str(error).lower():
                self._denied = time.monotonic(), str(error)

        async def gone() -> None:
            self.closed.set()

        scheme = "tls" if address.tls else "nats"
        let_in = _let_in(address)
        self._nc = Client()
        try:
            async with asyncio.timeout(within_s):
                await self._nc.connect(
                    f"{scheme}://{server}",
                    name="bandit-service",
                    allow_reconnect=False,
                    max_reconnect_attempts=1,  # an error of this very start
                    reconnect_time_wait=0.01,
                    connect_timeout=max(1, int(within_s + 0.999)),
                    error_cb=failed,
                    closed_cb=gone,
                    disconnected_cb=gone,
                    **let_in,
                )
        except TimeoutError:
            raise Unsure(f"it did not answer within {within_s:g} s") from None
        except Exception as error:  # noqa: BLE001 - a driver raises many kinds
            error = told[-1] if told else error
            why = f"{type(error).__name__}: {error}"
            if "uthorization" in why or "uthentication" in why:
                raise Unfit(
                    f"the NATS server rejects the credentials of this address: {why}"
                ) from None
            raise Unsure(f"no NATS server answers: {why}") from None
        found = self._nc.connected_server_version
        if (found.major, found.minor, found.patch) < _OLDEST:
            raise Unfit(
                f"the NATS server is {found.major}.{found.minor}.{found.patch}; "
                f"{'.'.join(map(str, _OLDEST))} or newer is needed"
            )

    @property
    def max_payload(self) -> int:
        """How many bytes a message may have."""
        return int(self._nc.max_payload)

    @property
    def raw(self) -> Any:
        """The driver's client."""
        if self._nc is None or self.closed.is_set():
            raise Unsure("the connection to the NATS server is closed")
        return self._nc

    async def publish(self, subject: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Send without waiting for an answer."""
        try:
            await self.raw.publish(subject, body, headers=dict(headers))
        except Exception as error:  # noqa: BLE001 - a driver raises many kinds
            raise self._ours(error, time.monotonic()) from None

    async def request(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """Send, and wait for the answer, at most `timeout_s` of this connection."""
        begun, raw = time.monotonic(), self.raw
        wait_s = self.timeout_s if timeout_s is None else timeout_s
        asking = asyncio.ensure_future(
            raw.request(subject, body, timeout=wait_s, headers=headers and dict(headers))
        )
        closing = asyncio.ensure_future(self.closed.wait())
        try:
            await asyncio.wait([asking, closing], return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise Unsure("the connection to the NATS server broke")
            answer: bytes = (await asking).data
        except Unsure:
            raise
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a driver raises many kinds
            raise self._ours(error, begun) from None
        finally:
            for each in (asking, closing):
                each.cancel()
        return answer

    async def ask(self, what: str, **given: Any) -> dict[str, Any]:
        """A request to JetStream. Raises Refused."""
        return await self._ask(what, given, self.timeout_s)

    async def ask_again(self, what: str, *, made: bool = True, **given: Any) -> dict[str, Any]:
        """`ask` for what may be done twice. A stream that has no leader yet answers nobody and
        forgets the request, so it is sent again while there is time, each time with a longer wait.

        made: the stream was created, so a server that does not have it yet is asked again, too.
        """
        until, wait_s = time.monotonic() + self.timeout_s, _FIRST_WAIT_S
        while True:
            begun = time.monotonic()
            left_s = until - begun
            try:
                return await self._ask(what, given, min(wait_s, left_s))
            except Late:
                if left_s <= wait_s:
                    raise
            except Refused as error:
                if not made or error.code != NO_STREAM or left_s <= wait_s:
                    raise
                await asyncio.sleep(begun + wait_s - time.monotonic())
            wait_s *= 2

    async def _ask(self, what: str, given: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        body = json.dumps(given).encode() if given else b""
        return _told(await self.request(f"$JS.API.{what}", body, timeout_s=timeout_s))

    async def put(
        self, subject: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Append a message to the stream of the subject. Raises Refused."""
        return _told(await self.request(subject, body, headers))

    def _ours(self, error: Exception, begun: float) -> Exception:
        if isinstance(error, Unsure | Unfit):
            return error
        denied = self._denied
        if denied is not None and denied[0] >= begun:
            return Unfit(f"the NATS server refuses it: {denied[1]}")
        name = type(error).__name__
        if name == "NoRespondersError":
            return Unsure("no JetStream answers: it is not enabled, or has no leader now")
        if isinstance(error, TimeoutError) or name == "TimeoutError":
            return Late(f"the NATS server did not answer within {self.timeout_s:g} s")
        return Unsure(f"the NATS server failed: {name}: {error}")

    async def close(self) -> None:
        """Close it; pending requests fail."""
        self.closed.set()
        if self._nc is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1.0):
                    await self._nc.close()


def _told(answer: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer)
    error = found.get("error")
    if error:
        code = int(error.get("err_code", error.get("code", 0)))
        if code in _CANNOT:
            raise Unfit(f"JetStream is not enabled: {error.get('description')}")
        raise Refused(code, str(error.get("description")))
    return found


def _let_in(address: Address) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if address.password:
        given |= {"user": address.user, "password": address.password}
    elif address.user:
        given["token"] = address.user
    if "creds" in address.files:
        try:
            Path(address.files["creds"]).read_bytes()
        except OSError as error:
            raise Unfit(
                f"the file of credentials in the address cannot be read: {error.strerror}"
            ) from None
        given["user_credentials"] = address.files["creds"]
    if address.tls:
        try:
            context = ssl.create_default_context(cafile=address.files.get("tls_ca"))
            if "tls_cert" in address.files:
                context.load_cert_chain(address.files["tls_cert"], address.files.get("tls_key"))
        except (OSError, ssl.SSLError) as error:
            raise Unfit(f"the files of TLS in the address cannot be read: {error}") from None
        given["tls"] = context
    return given
