"""GET /v1/live and /v1/live/map: the page's numbers, as server-sent events and as one picture."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from bandit_service import clock
from bandit_service.core.errors import Denied, Forbidden
from bandit_service.http.auth import Caller
from bandit_service.http.middleware import CALLER, GATE, reply
from bandit_service.http.responses.operations import Map
from bandit_service.observe.broadcast import Broadcast
from bandit_service.observe.feed import ActivityFeed, ActivityFeeds
from bandit_service.observe.scatter import Plane, scatter
from bandit_service.observe.snapshots import Shown

LONGEST_S = 600.0
"""After this a stream ends and the page comes again."""
_STALLED_S, _MAP_S = 10.0, 5.0
_BUFFER = 65_536
_log = logging.getLogger("bandit.live")
_encoder = msgspec.json.Encoder()


@dataclass
class Live:
    """The shown data, by caller, and cached maps."""

    feeds: ActivityFeeds
    shown: Shown
    most: int
    broadcast: Broadcast = field(init=False)
    _maps: dict[str | None, _Map] = field(default_factory=dict)
    _looking_back: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.broadcast = Broadcast(self._tick, self.most)

    def look_back(self) -> None:
        """Count the decisions from before the start, a few in each turn of the loop."""
        self._looking_back = asyncio.get_running_loop().create_task(self._look_back())

    async def _look_back(self) -> None:
        for _ in self.feeds.past:
            await asyncio.sleep(0)

    def close(self) -> None:
        """Show nothing any more."""
        if self._looking_back is not None:
            self._looking_back.cancel()
        self.broadcast.close()

    def feed_of(self, tenant: str | None) -> ActivityFeed:
        """What a caller may see. Raises Forbidden for a tenant without a key of its own."""
        try:
            return self.feeds.of(tenant)
        except KeyError:
            raise Forbidden("tenant: nothing is shown for it", reason="tenant") from None

    def begin(self, caller: Caller) -> bytes:
        """The first frame."""
        tenant = caller.tenant
        topics = self.shown.router.topics is not None and tenant is None
        body = self.shown.begin(self.feed_of(tenant), tenant)
        return _frame("begin", body | {"topics": topics and "texts" in caller.scopes})

    async def map(self, tenant: str | None) -> dict[str, Any]:
        """The newest queries on a plane, computed in a thread at most every few seconds."""
        feed = self.feed_of(tenant)
        made = self._maps.setdefault(tenant, _Map())
        async with made.lock:
            if time.monotonic() - made.at > _MAP_S:
                newest = feed.newest(len(feed.recent))[::-1]
                made.body, made.plane = await asyncio.to_thread(scatter, newest, made.plane)
                made.at = time.monotonic()
        return made.body

    def _tick(self, tenant: str | None) -> bytes:
        return _frame("tick", self.shown.tick(self.feed_of(tenant), tenant, clock.now()))


@dataclass
class _Map:
    at: float = float("-inf")
    body: dict[str, Any] = field(default_factory=dict)
    plane: Plane | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


LIVE = web.AppKey("live", Live)


async def live(request: web.Request) -> web.StreamResponse:
    """GET /v1/live: `begin` with what is kept, then a `tick` every second, for ten minutes or until
    the key is revoked.
    """
    seen, caller = request.app[LIVE], request[CALLER]
    tenant = caller.tenant
    seen.feed_of(tenant)
    listener = seen.broadcast.join(tenant)
    response = web.StreamResponse(
        headers={
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            "X-Content-Type-Options": "nosniff",
        }
    )
    response.content_type = "text/event-stream"
    ends = time.monotonic() + LONGEST_S
    try:
        _narrow(request)
        await response.prepare(request)
        frame: bytes | None = seen.begin(caller)
        while frame is not None and time.monotonic() < ends:
            request.app[GATE].still(caller, clock.now())
            async with asyncio.timeout(_STALLED_S):
                await response.write(frame)
            frame = await listener.next()
    except (TimeoutError, ConnectionError, Denied) as error:
        _log.info("a listener left", extra={"why": type(error).__name__})
    finally:
        seen.broadcast.leave(listener)
    if listener.dropped and request.transport is not None:
        request.transport.abort()  # the client will never read the rest
    return response


def _narrow(request: web.Request) -> None:
    """Little is buffered for a client that does not read, so that this shows soon."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)


async def picture(request: web.Request) -> web.Response:
    """GET /v1/live/map: the newest queries by their two principal directions."""
    return reply(Map(**await request.app[LIVE].map(request[CALLER].tenant)))


def _frame(kind: str, body: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encoder.encode(body))
