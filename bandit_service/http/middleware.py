"""The middleware: caller, request id, body, errors, one count and one log line for each request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web
from multidict import CIMultiDictProxy

from bandit_service import clock, logs, settings
from bandit_service.core.errors import (
    Busy,
    Denied,
    Malformed,
    Refused,
    ServiceError,
    TooLarge,
    TooSlow,
    Unavailable,
    Unknown,
    UpstreamError,
    stopped,
)
from bandit_service.core.pools import POOL
from bandit_service.gateway.client import Reply
from bandit_service.gateway.providers import front_of
from bandit_service.http.admission import Admission, retry_after
from bandit_service.http.auth import ANYBODY, Caller, Gate
from bandit_service.http.entrance import Entrance
from bandit_service.http.origins import Borders, Headers
from bandit_service.http.provider_calls import is_absent, not_there
from bandit_service.http.read_your_writes import AFTER, name_offset, reached
from bandit_service.http.responses.outcomes import Error, ErrorDetail
from bandit_service.http.shutdown import ENDING
from bandit_service.runtime.live_configuration import LiveConfiguration
from bandit_service.runtime.maintenance import Maintenance
from bandit_service.runtime.router import Router
from bandit_service.telemetry.telemetry import Telemetry

ROUTER = web.AppKey("router", Router)
KEEPER = web.AppKey("keeper", Maintenance)
TELEMETRY = web.AppKey("telemetry", Telemetry)
GATE = web.AppKey("gate", Gate)
CONFIGURATION = web.AppKey("configuration", LiveConfiguration)
BORDERS = web.AppKey("borders", Borders)
SETTINGS = web.AppKey("settings", settings.Settings)
ADMISSION = web.AppKey("admission", Admission)
DRAINING = web.AppKey("draining", asyncio.Event)

REQUEST_ID = web.RequestKey("request_id", str)
CALLER = web.RequestKey("caller", Caller)
MISDIRECTED = web.RequestKey("misdirected", ServiceError)
"""Why no pool of this process answers a request."""
WAITED = web.RequestKey("waited_s", float)
"""The time that a request waited until its replica had learned enough."""

PATIENCE = "X-Request-Timeout"
"""The header with the seconds that a client waits at most."""

CLIENT_GONE = 499
"""The status that is logged if the client left before its answer."""


class _LargerThan(Exception):
    """The body is too large."""


_access = logging.getLogger("bandit.access")
_encoder = msgspec.json.Encoder()
_ids = clock.Ids()
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def reply(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(
        body=_encoder.encode(body), status=status, headers=headers, content_type="application/json"
    )


def failed(error: ServiceError, request: web.Request | None = None) -> web.Response:
    """An error, in the shape of the dialect that its client speaks."""
    anthropic = request is not None and speaks_anthropic(request)
    id = None if request is None else request.get(REQUEST_ID)
    told = refusal(error, id, anthropic=anthropic)
    return web.Response(
        body=told.body, status=told.status, headers=told.headers, content_type="application/json"
    )


def refusal(error: ServiceError, id: str | None, *, anthropic: bool) -> Reply:
    """The same; id: of the request. anthropic: its client speaks Anthropic's API."""
    headers = dict(error.headers)
    if isinstance(error, Busy | Unavailable):
        headers["Retry-After"] = retry_after(error.retry_after_s)
    if isinstance(error, UpstreamError) and error.retry_after_s:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, Denied):
        headers["WWW-Authenticate"] = "Bearer"
    if anthropic:
        told = front_of("anthropic").error(error.status, error.body()) | {"request_id": id}
        return Reply(_encoder.encode(told), headers, error.status)
    return Reply(_encoder.encode(Error(error=ErrorDetail.of(error))), headers, error.status)


def speaks_anthropic(request: web.Request) -> bool:
    """Whether a client speaks Anthropic's API;

    at a shared path by the version header that it sends.
    """
    if request.path.startswith("/v1/models"):
        return "anthropic-version" in request.headers
    return request.path.startswith("/v1/messages")


def given_id(headers: Mapping[str, str]) -> str:
    """The id that a client gives its request; "" for none, or one that cannot be repeated."""
    given = headers.get("x-request-id", "")
    return given if given.isascii() and given.isprintable() and 0 < len(given) <= 128 else ""


def new_id() -> str:
    """An id for a request."""
    return _ids.new(clock.now())


def internal_error() -> ServiceError:
    """What is told of a bug, which goes to the log; to be called where it is caught."""
    _access.exception("internal error")
    return ServiceError("internal error; search the log for this request id")


@web.middleware
async def frame(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A request id on every answer and log line, errors rendered, one count and one log line."""
    id = given_id(request.headers) or new_id()
    logs.request_id.set(id)
    request[REQUEST_ID] = id
    begun, app = time.perf_counter(), request.app
    try:
        _cross(request)
        if app[DRAINING].is_set() and request.path.startswith("/v1/"):
            app[TELEMETRY].shed("draining")
            raise Unavailable(
                "the service is stopping; retry in a few seconds, or at another instance"
            )
        request[CALLER] = _caller(request)
        if MISDIRECTED in request:
            raise request[MISDIRECTED]
        _has_pool(request)
        app[ENDING].begun()
        response = await _unless_cut(request, handler)
    except ServiceError as error:
        app[TELEMETRY].rejected(error)
        response = failed(error, request)
    except web.HTTPNotFound:
        unknown = _unknown_path(request)
        app[TELEMETRY].rejected(unknown)
        response = failed(unknown, request)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        refused = Refused(f"method not allowed: {request.method}; use {allowed}")
        refused.status, refused.headers = 405, {"Allow": allowed}
        response = failed(refused, request)
    except asyncio.CancelledError:
        _told(request, CLIENT_GONE, begun)
        raise
    except Exception:  # noqa: BLE001 - a bug: say so, show no inside
        response = failed(internal_error(), request)
    transport = request.transport
    entrance = None if transport is None else transport.get_protocol()
    if isinstance(entrance, Entrance):
        entrance.answered()
    _told(request, response.status, begun)
    return response


def _has_pool(request: web.Request) -> None:
    """Raise Refused for a pool that is named where there is one log."""
    named, chosen = request.headers.get(POOL), request.app[SETTINGS]
    if named and not chosen.pools and named != chosen.log.name:
        raise Refused(
            f"{POOL}: no pool {named!r}; there is one log here, {chosen.log.name!r}", param=POOL
        )


def _unknown_path(request: web.Request) -> ServiceError:
    """What is said of a path that there is not."""
    if is_absent(request.path):
        return not_there(request.path)
    longer = f"/v1/{request.path.strip('/')}"
    there = {resource.canonical for resource in request.app.router.resources()}
    meant = f"; did you mean {longer}?" if longer in there else ""
    return Unknown(f"no such path{meant}; GET /openapi.json lists them: {request.path}")


async def _unless_cut(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The answer; an error if the end of the service cut it off before it began."""
    try:
        await _learned(request)
        return await handler(request)
    except asyncio.CancelledError:
        begun = request.transport is None or request.writer.output_size > 0
        if begun or not request.app[ENDING].cuts():
            raise
        raise stopped() from None


async def _learned(request: web.Request) -> None:
    """Wait until this replica has learned up to the offset that the request requires."""
    is_of_api = request.path.startswith("/v1/") and request.match_info.route.resource is not None
    if not is_of_api or AFTER not in request.headers:
        return
    begun = time.monotonic()
    await reached(request, request.app[ROUTER].writer, timeout_of(request))
    request[WAITED] = time.monotonic() - begun


def _told(request: web.Request, status: int, begun: float) -> None:
    resource = request.match_info.route.resource
    endpoint = "unmatched" if resource is None else resource.canonical
    tell(request.app, request.method, endpoint, status, begun)


def tell(app: web.Application, method: str, endpoint: str, status: int, begun: float) -> None:
    """One count and one log line."""
    seconds = time.perf_counter() - begun
    app[TELEMETRY].request(endpoint, status, seconds)
    if _access.isEnabledFor(logging.INFO):
        told = {"endpoint": f"{method} {endpoint}", "code": status, "seconds": round(seconds, 6)}
        _access.info("request", extra=told)


def _cross(request: web.Request) -> None:
    """Raise Forbidden for a foreign host name or a page of another origin, on every path."""
    resource = request.match_info.route.resource
    path = request.path if resource is None else resource.canonical
    scope = request.app[GATE].needed(request.method, path)
    request.app[BORDERS].cross(seen_in(request.headers), scope)


def seen_in(headers: CIMultiDictProxy[str]) -> Headers:
    """The headers that the borders look at."""
    return Headers(
        headers.getall("Host", ()),
        headers.getall("Origin", ()),
        headers.get("Sec-Fetch-Site", ""),
    )


def _caller(request: web.Request) -> Caller:
    """The caller; an unknown path needs no key."""
    resource = request.match_info.route.resource
    if resource is None:
        return ANYBODY
    return request.app[GATE].admit(
        request.method,
        resource.canonical,
        authorization(request.headers),
        clock.now(),
        time.monotonic(),
    )


def authorization(headers: Mapping[str, str]) -> str:
    """The credentials; Anthropic's clients send the key as x-api-key."""
    given = headers.get("Authorization", "")
    key = headers.get("x-api-key", "")
    return given if given or not key else f"Bearer {key}"


async def name_response(request: web.Request, response: web.StreamResponse) -> None:
    """Every answer has its request id, also the switch to a WebSocket, and the applied offset."""
    # requests that aiohttp itself refuses, such as a malformed header, never reach `frame`
    id = request.get(REQUEST_ID) or new_id()
    response.headers["x-request-id"] = id
    if speaks_anthropic(request):  # whose clients look for it under this name
        response.headers["request-id"] = id
    if CALLER in request:
        name_offset(response, request.app[ROUTER].writer)
    if request.content.exception() is not None:  # the rest of the body cannot be skipped
        response.force_close()
        response.headers["Connection"] = "close"


async def body_of(request: web.Request, limit: str = "server.max_body_bytes") -> bytes:
    """The body.

    Raises TooSlow if it takes too long, Malformed if it breaks off, TooLarge. limit: the setting
    that bounds it.
    """
    server = request.app[SETTINGS].server
    gateway = request.app[SETTINGS].gateway
    seconds, most = server.body_s, server.max_body_bytes
    if limit == "gateway.max_body_bytes":
        most = gateway.max_body_bytes
    try:
        if (request.content_length or 0) > most:  # and nothing of it is read
            raise _LargerThan
        content = request.content
        came = content.read_nowait() if content.is_eof() else b""
        if came and content.at_eof():  # as nearly always
            if len(came) > most:
                raise _LargerThan
            return came
        async with asyncio.timeout(seconds):
            return await _read(request, came, most)
    except TimeoutError:
        raise TooSlow(f"timed out reading the request body after {seconds:g} s") from None
    except _LargerThan:
        request.app[TELEMETRY].shed("body")
        raise TooLarge(f"the body is larger than {most} bytes ({limit})") from None
    except (web.RequestPayloadError, ConnectionError):
        raise Malformed("the body is truncated or does not match its Content-Encoding") from None


async def _read(request: web.Request, came: bytes, most: int) -> bytes:
    """The whole decompressed body, after the part that came.

    aiohttp has only one limit for all paths.
    """
    body = bytearray(came)
    while chunk := await request.content.readany():
        body += chunk
        if len(body) > most:
            raise _LargerThan
    return bytes(body)


def timeout_of(request: web.Request) -> float | None:
    """The seconds that the client waits at most, by `X-Request-Timeout`; None without a limit."""
    given = request.headers.get(PATIENCE)
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0.001 <= seconds <= 3600.0:
        raise Refused(
            f"{PATIENCE}: must be seconds from 0.001 to 3600",
            param=PATIENCE,
        )
    return seconds
