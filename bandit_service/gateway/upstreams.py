"""Calls to the providers: one pool of connections, a timeout for each stage, keys unseen.

A call is sent a second time to the same provider only where it has surely or almost surely not
been worked on: no connection was made, or one that had been kept open was closed without a byte of
an answer (RFC 9112, section 9.3.1: the usual end of an idle connection). Everything else is a
failure of the arm, and another one may be asked.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec

from bandit_service import clock
from bandit_service.core.errors import Refused
from bandit_service.gateway import anthropic
from bandit_service.gateway.configured import Upstream, UpstreamSpec

_RETRY_STATUS = frozenset({401, 402, 404, 408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Not the client's fault: our key, credit or name of the model there, or what may be better later.
403 is not among them, since it may be about the content."""
_MOST_ERROR = 65_536


class Failed(Exception):
    """An upstream gave no answer that can be passed on, and another arm may be tried.

    status: 0 where there was none. retry_after_s: what it said of when to come back, 0 if nothing.
    usage: what it said of its cost all the same.
    """

    usage: object = None

    def __init__(
        self, why: str, *, status: int = 0, retry_after_s: float = 0.0, timeout: bool = False
    ) -> None:
        super().__init__(why)
        self.status = status
        self.retry_after_s = retry_after_s
        self.timeout = timeout


class Rejected(Exception):
    """An upstream says that the request is wrong: no other arm would do better."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"status {status}")
        self.status, self.body = status, body


@dataclass(slots=True)
class _Sent:
    """reused: the connection had served another call before."""

    reused: bool = False


class Upstreams:
    """All providers, over one session. `close` it at the end.

    sent_again: called with the provider's id where a call is sent a second time.
    """

    def __init__(
        self, upstreams: Mapping[str, Upstream], sent_again: Callable[[str], None] = lambda _: None
    ) -> None:
        self._upstreams = dict(upstreams)
        self._sent_again = sent_again
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60.0),
            auto_decompress=True,
            trace_configs=[tracing],
        )

    def __contains__(self, id: object) -> bool:
        return id in self._upstreams

    def spec(self, id: str) -> UpstreamSpec:
        """One provider's settings."""
        return self._upstreams[id].spec

    def unsuited(self, path: str, body: Mapping[str, Any]) -> dict[str, Refused]:
        """The providers that cannot be asked this, each with the reason."""
        ids = [id for id, each in self._upstreams.items() if each.spec.kind == "anthropic"]
        try:
            if ids:
                anthropic.request(path, body)
        except Refused as refused:
            return dict.fromkeys(ids, refused)
        return {}

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    @asynccontextmanager
    async def send(
        self, id: str, path: str, body: Mapping[str, Any], extra: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a POST, once it has begun and says 200. Raises Failed or Rejected."""
        upstream = self._upstreams[id]
        spec = upstream.spec
        url = spec.base_url.rstrip("/") + path
        if spec.kind == "anthropic":
            url, body = anthropic.url(spec.base_url), anthropic.request(path, body)
        data, headers = msgspec.json.encode(body), upstream.headers() | dict(extra)
        try:
            async with asyncio.timeout(spec.first_byte_s):
                response = await self._begun(spec, url, data, headers)
        except (TimeoutError, aiohttp.ServerTimeoutError):
            raise Failed(f"no answer within {spec.first_byte_s:g} s", timeout=True) from None
        except aiohttp.ClientError as error:
            raise Failed(f"no connection ({type(error).__name__})") from None
        try:
            if response.status != 200:
                await _refuse(response)
            yield response
        finally:
            response.close() if not response.content.at_eof() else response.release()

    async def _begun(
        self, spec: UpstreamSpec, url: str, data: bytes, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """The answer's head; sent again as often as is allowed and safe."""
        timeout = aiohttp.ClientTimeout(
            total=spec.total_s, sock_connect=spec.connect_s, sock_read=spec.idle_s
        )
        again = spec.resend
        while True:
            sent = _Sent()
            try:
                return await self._session.post(
                    url,
                    data=data,
                    headers=headers,
                    params=spec.query or None,
                    timeout=timeout,
                    allow_redirects=False,
                    trace_request_ctx=sent,
                )
            except aiohttp.ClientConnectionError as error:
                if again <= 0 or not _unanswered(error, sent):
                    raise
            again -= 1
            self._sent_again(spec.id)
            await asyncio.sleep(spec.resend_after_s * (0.5 + secrets.randbits(16) / 65536))


async def _note_reuse(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _params: aiohttp.TraceConnectionReuseconnParams,
) -> None:
    context.trace_request_ctx.reused = True


def _unanswered(error: aiohttp.ClientConnectionError, sent: _Sent) -> bool:
    """Whether the call may be sent again without being worked on twice."""
    if isinstance(error, aiohttp.ServerTimeoutError):
        return False
    return isinstance(error, aiohttp.ClientConnectorError) or sent.reused


async def _refuse(response: aiohttp.ClientResponse) -> None:
    try:
        body = await response.content.read(_MOST_ERROR)
    except (aiohttp.ClientError, TimeoutError):
        body = b""
    if response.status in _RETRY_STATUS or response.status >= 500 or response.status < 400:
        raise Failed(
            f"status {response.status}",
            status=response.status if response.status >= 400 else 0,
            retry_after_s=retry_after_s(response.headers, clock.now()),
        )
    raise Rejected(response.status, body)


def retry_after_s(headers: Mapping[str, str], now: float) -> float:
    """How long a provider asks to wait; 0 where it says nothing that can be read.

    `retry-after-ms` of OpenAI and Azure, else Retry-After, in seconds or a date (RFC 9110, 10.2.3).
    """
    for name, unit in (("retry-after-ms", 1e-3), ("Retry-After", 1.0)):
        with suppress(ValueError):
            found = float(headers.get(name, "")) * unit
            return found if 0.0 < found < math.inf else 0.0
    with suppress(ValueError, TypeError):
        date = parsedate_to_datetime(headers.get("Retry-After", ""))
        return max(0.0, date.timestamp() - now)
    return 0.0


async def whole(response: aiohttp.ClientResponse, most: int) -> dict[str, Any]:
    """The JSON object that an answer holds; Failed when it is none, too long or cut off."""
    try:
        body = await response.content.read(most + 1)
        while len(body) <= most and not response.content.at_eof():
            body += await response.content.read(most + 1 - len(body))
    except (TimeoutError, aiohttp.ServerTimeoutError):
        raise Failed("the answer stopped coming", timeout=True) from None
    except aiohttp.ClientError as error:
        raise Failed(f"the answer broke off ({type(error).__name__})") from None
    if len(body) > most:
        raise Failed(f"the answer is larger than {most} bytes")
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Failed("the answer is not JSON") from None
    if not isinstance(answer, dict):
        raise Failed("the answer is not an object")
    return answer


def error_body(rejected: Rejected, arm: str) -> bytes:
    """The provider's own error with the arm in it, in OpenAI's shape whatever it was."""
    try:
        body = json.loads(rejected.body)
        error = body["error"] if isinstance(body, dict) else None
    except (ValueError, KeyError):
        error = None
    if not isinstance(error, dict):
        error = {
            "message": f"arm {arm!r} answered status {rejected.status}",
            "type": "upstream_error", "param": None, "code": "upstream_rejected",
        }  # fmt: skip
    return msgspec.json.encode({"error": {"param": None, "code": None, **error, "arm": arm}})
