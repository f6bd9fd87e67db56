"""Calls to the providers: one pool of connections, a timeout for each stage, keys unseen.

A call is repeated at the same provider only if the provider has certainly or almost certainly not
worked on it: no connection was made, or one that had been kept open was closed without a byte of an
answer (RFC 9112, section 9.3.1: the usual end of an idle connection). Everything else is a failure
of the arm, and another arm may be tried.
"""

from __future__ import annotations

import asyncio
import io
import math
import secrets
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Container,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from copy import copy
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec
from aiohttp.http_exceptions import HttpProcessingError

from bandit_service import clock
from bandit_service.core.arm_request import NOTHING, ArmRequest
from bandit_service.core.deployments import calls_of
from bandit_service.core.errors import Unavailable
from bandit_service.core.events import ArmSpec
from bandit_service.gateway import provider_errors, translation
from bandit_service.gateway.affinity import vendor_of
from bandit_service.gateway.allowance import Allowance
from bandit_service.gateway.arm_fit import ArmFit, fit_of, plain_kinds
from bandit_service.gateway.calls import Calls, Connector, Head, Response, Sent
from bandit_service.gateway.descriptors import is_lacking, socket_factory
from bandit_service.gateway.failures import Failed, Rejected, raise_for_error, told_status
from bandit_service.gateway.large_requests import LARGE, apart
from bandit_service.gateway.provider_errors import About
from bandit_service.gateway.providers import HttpRequest, Provider, provider_of
from bandit_service.gateway.request import Asked
from bandit_service.gateway.usage import usage_in
from bandit_service.parsing.inputs import said_json
from bandit_service.settings.upstreams import Upstream, UpstreamSpec

_MAX_ERROR = 65_536
_NO_DESCRIPTOR = (
    "more calls are under way than there are descriptors for (ulimit -n); retry in a moment"
)
_LARGE = 1 << 20
"""A larger body, in bytes, is written in pieces, so that other calls continue meanwhile."""


class Upstreams:
    """All providers, over one session. `close` it at the end.

    sent_again: called with the provider's id whenever a call is sent again. max_header_bytes:
    the longest line of an answer's head.
    """

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        sent_again: Callable[[str], None] = lambda _: None,
        max_header_bytes: int = 65_536,
    ) -> None:
        self._upstreams = dict(upstreams)
        self._owned = True
        self._sent_again = sent_again
        self._fitted: Mapping[str, ArmSpec] = {}
        self._at: Mapping[str, ArmSpec] = {}
        self._kinds: frozenset[str] | None = None
        self._max_header_bytes = max_header_bytes
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        self._session = aiohttp.ClientSession(
            connector=Connector(limit=0, keepalive_timeout=60.0, socket_factory=socket_factory()),
            auto_decompress=True,
            trace_configs=[tracing],
            max_line_size=max_header_bytes,
            max_field_size=max_header_bytes,
        )
        self._calls = Calls(self._session, max_header_bytes)

    def with_others(self, upstreams: Sequence[Upstream]) -> Upstreams:
        """These in the place of those of before, over the same connections; `close` one of both."""
        others = copy(self)
        others._upstreams = {each.spec.id: each for each in upstreams}
        others._fitted, others._at, others._kinds = {}, {}, None
        others._calls = Calls(self._session, self._max_header_bytes)
        return others

    def borrowed(self, upstreams: Sequence[Upstream]) -> Upstreams:
        """These, over the connections of those; `close` of these leaves the connections open."""
        others = self.with_others(upstreams)
        others._owned = False
        return others

    def __contains__(self, id: object) -> bool:
        return id in self._upstreams

    def output_limit(self, id: str) -> int | None:
        """The tokens that bound an answer if the client sets no limit; None if nothing does."""
        return self._provider(id).output_limit()

    def spec(self, id: str) -> UpstreamSpec:
        """One provider's settings."""
        return self._upstreams[id].spec

    def of_vendor(self, vendor: tuple[str, str] | None) -> Container[str] | None:
        """Those that can read what this vendor signed; None, for any, without a vendor."""
        if vendor is None:
            return None
        return {id for id, each in self._upstreams.items() if vendor_of(each.spec) == vendor}

    async def fit(self, asked: Asked, specs: Mapping[str, ArmSpec], pins: bool) -> ArmFit:
        """Which of these arms can take a request; each has an upstream here.

        Their records are never changed in place, so results for the same arms stay valid. All
        deployments of an arm speak one dialect, so one of them stands for all.
        """
        if specs is not self._fitted:
            self._at = {
                id: next(each for each in calls_of(spec) if each.upstream in self._upstreams)
                if spec.deployments
                else spec
                for id, spec in specs.items()
            }
            self._fitted, self._kinds = specs, plain_kinds(self._at, self._upstreams)
        at, kinds = self._at, self._kinds  # another request may bring others meanwhile
        if asked.parts <= LARGE:
            return fit_of(asked, at, self._upstreams, pins, kinds)
        return await apart(asked.parts, lambda: fit_of(asked, at, self._upstreams, pins, kinds))

    def answer_of(self, id: str, answer: dict[str, Any]) -> dict[str, Any]:
        """An upstream's whole answer in OpenAI's shape. Raises Failed."""
        return translation.answer_of(self._provider(id), answer)

    def chunks_of(
        self, id: str, pieces: AsyncIterator[list[bytes]], own: bool = False
    ) -> AsyncGenerator[list[bytes], None]:
        """The data of an upstream's events as OpenAI's chunks, or as they are. Raises Failed."""
        return translation.chunks_of(self._provider(id), pieces, own)

    def _provider(self, id: str) -> Provider:
        return provider_of(self._upstreams[id].spec.kind)

    async def close(self) -> None:
        """Close every connection; none that are borrowed."""
        if self._owned:
            await self._session.close()

    @asynccontextmanager
    async def send(
        self,
        id: str,
        path: str,
        body: Mapping[str, Any],
        extra: Mapping[str, str],
        allowance: Allowance,
        asking: ArmRequest = NOTHING,
        parts: int = 0,
    ) -> AsyncIterator[Response]:
        """The answer to a POST, once its head says 200. Raises Failed or Rejected.

        allowance: of the request, which bounds the call. asking: what the arm sets in it. parts: of
        the body, as `wire.parts_of`.
        """
        response = await self.begin(id, path, body, extra, allowance, asking, parts)
        try:
            yield response
        finally:
            end(response)

    async def begin(
        self,
        id: str,
        path: str,
        body: Mapping[str, Any],
        extra: Mapping[str, str],
        allowance: Allowance,
        asking: ArmRequest = NOTHING,
        parts: int = 0,
    ) -> Response:
        """As `send`; the caller must `end` the answer."""
        upstream = self._upstreams[id]
        spec = upstream.spec

        def written() -> tuple[HttpRequest, bytes]:
            request = translation.request_of(self._provider(id), upstream, path, body)
            asked = translation.configured(spec, path, request.body, asking)
            return request, msgspec.json.encode(asked)

        request, data = written() if parts <= LARGE else await apart(parts, written)
        try:
            response = await self._response(upstream, request, data, extra, allowance)
        except (TimeoutError, aiohttp.ServerTimeoutError):
            raise allowance.timed_out(f"no answer within {spec.first_byte_s:g} s") from None
        except aiohttp.ClientHttpProxyError as error:
            raise Failed(f"its proxy answered status {error.status}") from None
        except (aiohttp.ClientResponseError, HttpProcessingError):
            limit = self._max_header_bytes
            raise Failed(
                f"its answer is not HTTP, or a line of its head has more than {limit} bytes "
                "(gateway.max_header_bytes)"
            ) from None
        except aiohttp.ClientError as error:
            if is_lacking(error):
                raise Unavailable(_NO_DESCRIPTOR) from None
            raise Failed(f"no connection ({type(error).__name__})") from None
        if response.status != 200:
            try:
                await _refuse(response)
            finally:
                end(response)
        return response

    async def _response(
        self,
        upstream: Upstream,
        request: HttpRequest,
        data: bytes,
        extra: Mapping[str, str],
        allowance: Allowance,
    ) -> Response:
        """The answer's head; the call is repeated as often as is allowed and safe."""
        spec, head = upstream.spec, self._head(upstream, request, data, extra)
        again = spec.resend
        while True:
            sent, left_s = Sent(), allowance.left_s
            try:
                if head is not None:
                    return await self._calls.post(head, extra, data, spec, sent, left_s)
                return await self._by_session(upstream, request, data, extra, sent, left_s)
            except aiohttp.ClientConnectionError as error:
                if again <= 0 or not _unanswered(error, sent):
                    raise
            again -= 1
            self._sent_again(spec.id)
            await asyncio.sleep(spec.resend_after_s * (0.5 + secrets.randbits(16) / 65536))

    def _head(
        self, upstream: Upstream, request: HttpRequest, data: bytes, extra: Mapping[str, str]
    ) -> Head | None:
        """The head of a call that needs nothing of the session; None if it does."""
        if upstream.proxy is not None or len(data) >= _LARGE:
            return None
        head = self._calls.head(upstream.spec, request.url, request.headers)
        if head is None or (extra and any(name.lower() in head.names for name in extra)):
            return None
        return head

    async def _by_session(
        self,
        upstream: Upstream,
        request: HttpRequest,
        data: bytes,
        extra: Mapping[str, str],
        sent: Sent,
        left_s: float,
    ) -> Response:
        spec, proxy, url = upstream.spec, upstream.proxy, request.url
        headers, tunnel = _headers(request.headers, extra), url.startswith("https:")
        if proxy and not tunnel:  # in this case the proxy reads the call itself
            headers |= proxy.headers()
        async with asyncio.timeout(min(spec.first_byte_s, left_s)):
            return await self._session.post(
                url,
                data=data if len(data) < _LARGE else io.BytesIO(data),
                headers=headers,
                params=spec.query or None,
                proxy=proxy.url if proxy else None,
                proxy_headers=proxy.headers() if proxy and tunnel else None,
                timeout=_timeouts(spec, left_s),
                allow_redirects=False,
                trace_request_ctx=sent,
            )


def end(response: Response) -> None:
    """Nothing more is read of an answer; its connection is reused if the answer is complete."""
    response.close() if not response.content.at_eof() else response.release()


def _timeouts(spec: UpstreamSpec, left_s: float) -> aiohttp.ClientTimeout:
    """Of a call of a request that has this much time left."""
    total_s = min(spec.total_s, left_s) or 1e-3  # 0 would be no limit
    return aiohttp.ClientTimeout(total=total_s, sock_connect=spec.connect_s, sock_read=spec.idle_s)


def _headers(own: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The headers of a call.

    The client's take precedence, but the beta headers of both are sent.
    """
    names = {name.lower(): name for name in own}
    headers = dict(own)
    for name, value in given.items():
        there = names.get(name, name)
        both = name == "anthropic-beta" and there in headers
        headers[there] = f"{headers[there]},{value}" if both else value
    return headers


async def _note_reuse(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _params: aiohttp.TraceConnectionReuseconnParams,
) -> None:
    context.trace_request_ctx.reused = True


def _unanswered(error: aiohttp.ClientConnectionError, sent: Sent) -> bool:
    """Whether the call may be repeated without being worked on twice."""
    if isinstance(error, aiohttp.ServerTimeoutError):
        return False
    return isinstance(error, aiohttp.ClientConnectorError) or sent.reused


async def _refuse(response: Response) -> None:
    body = b""
    try:
        while len(body) < _MAX_ERROR and not response.content.at_eof():
            body += await response.content.read(_MAX_ERROR - len(body))
    except (aiohttp.ClientError, TimeoutError):
        pass  # the part that came may be enough
    about = provider_errors.refusal(response.status, body).about
    if about is About.ARM or response.status < 400:
        raise Failed(
            f"status {response.status}",
            status=response.status if response.status >= 400 else 0,
            retry_after_s=retry_after_s(response.headers, clock.now()),
        )
    raise Rejected(told_status(response.status), body, about is About.PAIR)


def retry_after_s(headers: Mapping[str, str], now: float) -> float:
    """How long a provider asks to wait; 0 if it says nothing that can be read.

    `retry-after-ms` of OpenAI and Azure, else Retry-After, in seconds or a date (RFC 9110, 10.2.3).
    """
    for name, unit in (("retry-after-ms", 1e-3), ("Retry-After", 1.0)):
        with suppress(ValueError):
            seconds = float(headers.get(name, "")) * unit
            return seconds if 0.0 < seconds < math.inf else 0.0
    with suppress(ValueError, TypeError):
        date = parsedate_to_datetime(headers.get("Retry-After", ""))
        return max(0.0, date.timestamp() - now)
    return 0.0


async def read_answer(response: Response, max_bytes: int, allowance: Allowance) -> dict[str, Any]:
    """The JSON object of an answer.

    Raises Failed if it is none, too long or cut off; raises as `raise_for_error` does if it reports
    an error.
    """
    try:
        body = await response.content.read(max_bytes + 1)
        while len(body) <= max_bytes and not response.content.at_eof():
            body += await response.content.read(max_bytes + 1 - len(body))
    except (TimeoutError, aiohttp.ServerTimeoutError):
        raise allowance.timed_out("timed out reading the answer") from None
    except aiohttp.ClientError as error:
        raise Failed(f"the answer broke off ({type(error).__name__})") from None
    if len(body) > max_bytes:
        raise Failed(f"the answer is larger than {max_bytes} bytes")
    try:
        answer = said_json(body)
    except ValueError:
        raise Failed("the answer is not JSON") from None
    try:
        raise_for_error(answer)
    except Failed as failed:
        failed.usage = usage_in(answer) if isinstance(answer, dict) else None
        raise
    if not isinstance(answer, dict):
        raise Failed("the answer is not an object")
    return answer
