"""Calls of providers' APIs that are not supported: status 501.

A proxy in front would read a 404 as a deleted deployment, and stop using it; 501 says that only
this call is missing.
"""

from __future__ import annotations

from aiohttp import web

from bandit_service.core.errors import NotThere
from bandit_service.http.frame import TELEMETRY, body_of, failed

ABSENT = (
    "/v1/messages/batches",
    "/v1/responses/compact",
    "/v1/responses/input_tokens",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/moderations",
    "/v1/rerank",
)


async def absent(request: web.Request) -> web.Response:
    """Answers any of them; the body is read, so that the connection can be reused."""
    await body_of(request, "gateway.max_body_bytes")
    path = request.path.rstrip("/")
    error = NotThere(f"{path} is not supported; docs/gateway.md lists the calls that are")
    request.app[TELEMETRY].rejected(error)
    return failed(error, request)
