"""GET /v1/history: what was decided, earned and spent, by period."""

from __future__ import annotations

from aiohttp import web

from bandit_service.http.middleware import CALLER, reply
from bandit_service.offline.history.asked import Histories

HISTORIES = web.AppKey("histories", Histories)


async def history(request: web.Request) -> web.Response:
    """GET /v1/history; to a tenant's key that of its tenant."""
    given = dict(request.rel_url.query)
    return reply(await request.app[HISTORIES].ask(given, request[CALLER].tenant))
