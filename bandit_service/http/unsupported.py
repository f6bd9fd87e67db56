"""Calls of providers' APIs that are not supported, and to which a body is sent."""

from __future__ import annotations

from aiohttp import web

from bandit_service.http.middleware import TELEMETRY, body_of, failed
from bandit_service.http.provider_calls import not_there


async def unsupported(request: web.Request) -> web.Response:
    """Answers any of them; the body is read, so that the connection can be reused."""
    await body_of(request, "gateway.max_body_bytes")
    error = not_there(request.path)
    request.app[TELEMETRY].rejected(error)
    return failed(error, request)
