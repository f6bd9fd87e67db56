"""The span of each HTTP request, if tracing is on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from bandit_service.telemetry import tracing
from bandit_service.telemetry.tracing import Span, Tracer

TRACER = web.AppKey("tracer", Tracer)
_SPAN = web.RequestKey("span", Span)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def traced(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A span around a request of the API; not around the stream's, which lasts as long as it."""
    resource = request.match_info.route.resource
    route = "" if resource is None else resource.canonical
    if not route.startswith("/v1/") or route == "/v1/stream":
        return await handler(request)
    attributes = {"http.request.method": request.method, "http.route": route}
    span = request.app[TRACER].request(f"{request.method} {route}", request.headers, attributes)
    request[_SPAN] = span
    with tracing.within(span):
        try:
            response = await handler(request)
        except asyncio.CancelledError:
            span.failed("client_left")
            raise
        span.set({"http.response.status_code": response.status})
        if response.status >= 500:
            span.failed(str(response.status))
        return response


async def name_span(request: web.Request, response: web.StreamResponse) -> None:
    """The answer names its span."""
    span = request.get(_SPAN)
    if span is not None:
        response.headers["traceparent"] = span.headers()["traceparent"]
