"""GET /v1/events: the stored events in order, as a stream that waits for a slow reader."""

from __future__ import annotations

import asyncio
import logging
from itertools import islice, takewhile

import msgspec
from aiohttp import web

from bandit_service.core.errors import Expired, Refused, Unavailable
from bandit_service.data.events_frame import FRAME, LAST, LOG_FIRST, LOG_LAST
from bandit_service.http.middleware import DRAINING, ROUTER
from store import Closed, Offset, StoreError, first_of

DEFAULT_LIMIT, MAX_LIMIT = 10_000, 100_000
_CHUNK = 64
_STALLED_S = 60.0
_encoder = msgspec.msgpack.Encoder()
_log = logging.getLogger("bandit.events")


def framed(offset: int, body: bytes) -> bytes:
    """One event: the length in 4 bytes, big-endian, and MessagePack of [offset, event or nil]."""
    packed = _encoder.encode((offset, msgspec.Raw(body) if body else None))
    return FRAME.pack(len(packed)) + packed


async def events(request: web.Request) -> web.StreamResponse:
    """The durable events after `after`, at most `limit`.

    Only one chunk and the socket's buffer are in memory. An answer that cannot be finished is
    broken off, which the reader notices.
    """
    writer = request.app[ROUTER].writer
    log = writer.log
    after = _whole(request, "after", int(first_of(log)) - 1, 0, 2**63 - 1)
    limit = _whole(request, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    try:
        newest = int(await writer.synced())
    except Closed as error:
        raise Unavailable(f"the event log cannot be read: {error}") from None
    first = int(first_of(log))
    if after < first - 1:
        raise Expired(
            f"after: events up to {first - 1} were deleted, got {after}; ask from {first - 1} on",
            param="after",
        )
    last = max(after, min(after + limit, newest))
    response = web.StreamResponse(
        headers={LOG_FIRST: str(first), LOG_LAST: str(newest), LAST: str(last)}
    )
    response.content_type = "application/octet-stream"
    await response.prepare(request)
    try:
        await _send(request, response, after, last)
    except (StoreError, TimeoutError, ConnectionError) as error:
        _log.warning("events broken off", extra={"why": str(error) or type(error).__name__})
        if request.transport is not None:
            request.transport.abort()
    return response


async def _send(request: web.Request, response: web.StreamResponse, after: int, last: int) -> None:
    if after == last:
        return
    log = request.app[ROUTER].writer.log
    replayed = takewhile(lambda each: each[0] <= last, log.replay(Offset(after)))
    while chunk := list(islice(replayed, _CHUNK)):
        if request.app[DRAINING].is_set():
            raise ConnectionError("the service is stopping")
        async with asyncio.timeout(_STALLED_S):
            await response.write(b"".join(framed(int(at), body) for at, body in chunk))
        await asyncio.sleep(0)  # a write that fits into the buffer does not wait


def _whole(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    given = request.query.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdigit() and len(given) < 20 and low <= int(given) <= high):
        raise Refused(
            f"{name}: must be a whole number from {low} to {high}, got {given[:40]!r}", param=name
        )
    return int(given)
