"""A streamed answer, passed on to the client as it arrives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import msgspec
from aiohttp import web

from bandit_service.core.errors import ServiceError
from bandit_service.gateway import dialects, relay
from bandit_service.gateway.calls import Call, gave_none
from bandit_service.gateway.teaching import Teaching
from bandit_service.gateway.upstreams import Failed
from bandit_service.http.connections import Connection
from bandit_service.http.ending import ENDING, stopped

_EMPTY_S = 1.0
_HELD = 65_536
_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


async def pass_on(
    request: web.Request,
    upstream: aiohttp.ClientResponse,
    kind: str,
    call: Call,
    passed: relay.Passed,
    teaching: Teaching,
) -> web.StreamResponse:
    """Pass on what comes, all that came at once in one write, and teach what came of it.

    What comes once every choice has said why it stopped is held until the end: by then what it cost
    is in the log. Until the first event is there the arm may still fail, with Failed. What breaks
    off later ends with an error event. `passed.whole` says afterwards whether all of it came.
    """
    pieces = dialects.streamed(kind, relay.events(upstream))
    first = await anext(pieces, None)
    if first is None:
        raise Failed("the stream ended before it began")
    told = relay.rewritten(first, call.decided.id, passed)
    call.first = time.perf_counter()
    response = web.StreamResponse(headers=call.headers() | _HEADERS)
    connection = request.protocol
    assert isinstance(connection, Connection)
    connection.pointless = None  # from here on it has begun, and ends in an orderly way
    connection.lost = upstream.close  # whoever waits for the next piece is woken by that
    why: Failed | None = None
    cut, held = False, b""
    try:
        await response.prepare(request)
        while not passed.done:
            told, held = held + told, b""
            if passed.finished and passed.broken is None and len(told) < _HELD:
                held, told = told, b""
            if told:
                await response.write(told)
            if passed.broken is not None:
                raise passed.broken
            piece = await anext(pieces, None)
            told = b""
            if piece is None:
                break
            told = relay.rewritten(piece, call.decided.id, passed)
    except Failed as failed:
        why = failed
    except ConnectionError:
        pass  # the client left; the transport says so too
    except asyncio.CancelledError:
        cut, told = request.app[ENDING].cuts(), b""
        if not cut:
            raise
    finally:
        connection.lost = None
    gone = request.transport is None or request.transport.is_closing()
    if (gone or cut) and not passed.finished:
        passed.broken = Failed("it was cut off") if cut else None
        await teaching.left(call, passed.usage, passed.said, by_client=gone)
        if not gone:
            await _last_words(response, _error(stopped()))
        return response
    if why is None and not passed.finished:
        why = Failed("the stream ended without an end")
    if why is not None:
        passed.broken = why
        await teaching.failed(call, why, passed.usage, passed.said)
        await _last_words(response, held + _error(gave_none(call.spec.id, why)))
        return response
    await teaching.answered(call, passed.usage, passed.said)
    passed.whole = True
    await _last_words(response, held + told)
    if passed.done:
        await _emptied(pieces)
    return response


def _error(error: ServiceError) -> bytes:
    return b"data: " + msgspec.json.encode({"error": error.body()}) + b"\n\n"


async def _last_words(response: web.StreamResponse, words: bytes) -> None:
    try:
        await response.write_eof(words)
    except ConnectionError:
        return


async def _emptied(pieces: AsyncIterator[list[bytes]]) -> None:
    """Read to the end what has no more to say, so that its connection can be used again."""
    with suppress(TimeoutError, Failed):
        async with asyncio.timeout(_EMPTY_S):
            async for _ in pieces:
                pass
