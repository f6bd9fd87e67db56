"""Calls to the providers: one pool of connections, a timeout for each stage, keys unseen.

A call is sent a second time to the same provider only where it has surely or almost surely not
been worked on: no connection was made, or one that had been kept open was closed without a byte of
an answer (RFC 9112, section 9.3.1: the usual end of an idle connection). Everything else is a
failure of the arm, and another one may be asked.
"""

from __future__ import annotations

import asyncio
import io
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
from bandit_service.gateway import trouble
from bandit_service.gateway.providers import _anthropic_request as anthropic
from bandit_service.gateway.trouble import About
from bandit_service.gateway.usage import usage_in
from bandit_service.parsing.inputs import json_of
from bandit_service.settings.upstreams import Upstream, UpstreamSpec

_MOST_ERROR = 65_536
_LARGE = 1 << 20
"""Bytes of a body that is written in pieces, so that other calls go on meanwhile."""


class Failed(Exception):
    """An upstream gave no answer that can be passed on, and another arm may be tried.

    status: 0 where there was none. retry_after_s: what it said of when to come back, 0 if nothing.
    told: it told so itself. usage: what it said of its cost all the same.
    """

    usage: object = None

    def __init__(
        self,
        why: str,
        *,
        status: int = 0,
        retry_after_s: float = 0.0,
        timeout: bool = False,
        told: bool = False,
    ) -> None:
        super().__init__(why)
        self.status = status
        self.retry_after_s = retry_after_s
        self.timeout = timeout
        self.told = told


class Rejected(Exception):
    """An upstream refuses this request, and is well itself; another arm may take it.

    unsuited: it says that this model cannot do it, so that others may, however many refused it.
    """

    def __init__(self, status: int, body: bytes, unsuited: bool = False) -> None:
        super().__init__(f"status {status}")
        self.status, self.body, self.unsuited = status, body, unsuited


@dataclass(slots=True)
class _Sent:
    """reused: the connection had served another call before."""

    reused: bool = False


def headers_of(upstream: Upstream) -> dict[str, str]:
    """What every call carries; the key is in it."""
    spec, headers = upstream.spec, {"Content-Type": "application/json"}
    carrier = spec.auth_header or "Authorization"
    if spec.kind == "anthropic":
        headers["anthropic-version"] = anthropic.VERSION
        carrier = spec.auth_header or "x-api-key"
    headers |= spec.headers
    if key := upstream.key:
        headers[carrier] = f"Bearer {key}" if carrier == "Authorization" else key
    return headers


class Upstreams:
    """All providers, over one session. `close` it at the end.

    sent_again: called with the provider's id where a call is sent a second time. max_header_bytes:
    the longest line of an answer's head.
    """

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        sent_again: Callable[[str], None] = lambda _: None,
        max_header_bytes: int = 65_536,
    ) -> None:
        self._upstreams = dict(upstreams)
        self._sent_again = sent_again
        self._max_header_bytes = max_header_bytes
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60.0),
            auto_decompress=True,
            trace_configs=[tracing],
            max_line_size=max_header_bytes,
            max_field_size=max_header_bytes,
        )

    def __contains__(self, id: object) -> bool:
        return id in self._upstreams

    def own_limit(self, id: str) -> int | None:
        """The limit of an answer that is sent where the client sets none; None where none is."""
        return anthropic.MAX_TOKENS if self.spec(id).kind == "anthropic" else None

    def spec(self, id: str) -> UpstreamSpec:
        """One provider's settings."""
        return self._upstreams[id].spec

    def unsuited(self, path: str, body: Mapping[str, Any]) -> dict[str, Refused]:
        """The providers that cannot be asked this, each with the reason."""
        ids = [id for id, each in self._upstreams.items() if each.spec.kind == "anthropic"]
        try:
            if ids:
                translated(path, body)
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
            url, body = anthropic.url(spec.base_url), translated(path, body)
        data, headers = msgspec.json.encode(body), headers_of(upstream) | dict(extra)
        try:
            async with asyncio.timeout(spec.first_byte_s):
                response = await self._begun(upstream, url, data, headers)
        except (TimeoutError, aiohttp.ServerTimeoutError):
            raise Failed(f"no answer within {spec.first_byte_s:g} s", timeout=True) from None
        except aiohttp.ClientHttpProxyError as error:
            raise Failed(f"its proxy answered status {error.status}") from None
        except aiohttp.ClientResponseError:
            most = self._max_header_bytes
            raise Failed(
                f"the head of its answer is no HTTP, or has a line of more than {most} bytes "
                "(gateway.max_header_bytes)"
            ) from None
        except aiohttp.ClientError as error:
            raise Failed(f"no connection ({type(error).__name__})") from None
        try:
            if response.status != 200:
                await _refuse(response)
            yield response
        finally:
            response.close() if not response.content.at_eof() else response.release()

    async def _begun(
        self, upstream: Upstream, url: str, data: bytes, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """The answer's head; sent again as often as is allowed and safe."""
        spec, proxy, tunnel = upstream.spec, upstream.proxy, url.startswith("https:")
        if proxy and not tunnel:  # then the proxy reads the call itself
            headers = {**headers, **proxy.headers()}
        timeout = aiohttp.ClientTimeout(
            total=spec.total_s, sock_connect=spec.connect_s, sock_read=spec.idle_s
        )
        again = spec.resend
        while True:
            sent = _Sent()
            try:
                return await self._session.post(
                    url,
                    data=data if len(data) < _LARGE else io.BytesIO(data),
                    headers=headers,
                    params=spec.query or None,
                    proxy=proxy.url if proxy else None,
                    proxy_headers=proxy.headers() if proxy and tunnel else None,
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
    body = b""
    try:
        while len(body) < _MOST_ERROR and not response.content.at_eof():
            body += await response.content.read(_MOST_ERROR - len(body))
    except (aiohttp.ClientError, TimeoutError):
        pass  # what came may be enough to tell
    about = trouble.refusal(response.status, body).about
    if about is About.ARM or response.status < 400:
        raise Failed(
            f"status {response.status}",
            status=response.status if response.status >= 400 else 0,
            retry_after_s=retry_after_s(response.headers, clock.now()),
        )
    raise Rejected(response.status, body, about is About.PAIR)


def check(answer: object) -> None:
    """Rejected or Failed where an answer of status 200 tells of an error.

    Its words are not repeated where they would be logged: they may hold what the client wrote.
    """
    error = trouble.error_in(answer)
    if error is None:
        return
    if error.about is About.PAIR:
        raise Rejected(error.status or 400, msgspec.json.encode(answer), unsuited=True)
    raise tells(error)


def tells(error: trouble.Error) -> Failed:
    """The failure that an answer of status 200 tells of."""
    status = f" (status {error.status})" if error.status else ""
    return Failed(f"it told of an error{status}", status=error.status, told=True)


def translated(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The request in the provider's language; Refused for whatever cannot be said in it."""
    try:
        return anthropic.request(path, body)
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 - it is of one kind of provider, and no other's
        what = f"the request cannot be put in this provider's words ({type(error).__name__})"
        raise Refused(what) from None


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
    """The JSON object that an answer holds; Failed when it is none, too long or cut off, and as
    `check` says where it tells of an error.
    """
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
        answer = json_of(body)
    except ValueError:
        raise Failed("the answer is not JSON") from None
    try:
        check(answer)
    except Failed as failed:
        failed.usage = usage_in(answer) if isinstance(answer, dict) else None
        raise
    if not isinstance(answer, dict):
        raise Failed("the answer is not an object")
    return answer


def error_body(rejected: Rejected, arm: str) -> bytes:
    """The provider's own error with the arm in it, in OpenAI's shape whatever it was."""
    try:
        body = json_of(rejected.body)
    except ValueError:
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        told = trouble.refusal(rejected.status, rejected.body).message
        error = {
            "message": told or f"arm {arm!r} answered status {rejected.status}",
            "type": "upstream_error", "param": None, "code": "upstream_rejected",
        }  # fmt: skip
    return msgspec.json.encode({"error": {"param": None, "code": None, **error, "arm": arm}})
