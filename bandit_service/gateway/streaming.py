"""A streamed answer, passed on to the client as it arrives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp

from bandit_service.core.errors import stopped
from bandit_service.gateway import streamed_answer as relay
from bandit_service.gateway import translation as dialects
from bandit_service.gateway.event_stream import Line, event
from bandit_service.gateway.exchange import Teaching
from bandit_service.gateway.resources import Call, gave_none
from bandit_service.gateway.upstreams import Failed

_EMPTY_S = 1.0
_HELD = 65_536


async def pass_on(
    line: Line,
    upstream: aiohttp.ClientResponse,
    kind: str,
    call: Call,
    passed: relay.Passed,
    teaching: Teaching,
    most: int,
) -> None:
    """Pass on what comes, all that came at once in one write, and teach what came of it.

    Until the answer says something the arm may still fail, with Failed or Rejected. What comes once
    every choice has said why it stopped is held until the end: by then what it cost is in the log.
    What breaks off ends with an error event. `passed.whole` says afterwards whether all of it came.
    most: bytes of an event.
    """
    pieces = dialects.streamed(kind, relay.events(upstream, most))
    told = await _first(pieces, line, call, passed, most)
    call.first = time.perf_counter()
    client = line.client
    why: Failed | None = None
    cut, held = False, b""
    try:
        with client.answered(upstream.close):  # who waits for a piece is woken by that
            while not passed.done:
                told, held = held + told, b""
                if passed.finished and passed.broken is None and len(told) < _HELD:
                    held, told = told, b""
                if told:
                    await line.write(told)
                else:
                    await line.sign()
                if passed.broken is not None:
                    raise passed.broken
                piece = await anext(pieces, None)
                told = b""
                if piece is None:
                    break
                told = relay.rewritten(piece, call.decided.id, passed)
    except Failed as failed:
        # after its end an answer is whole, whatever the connection does
        why = None if passed.finished and not failed.told else failed
        told = b""
    except ConnectionError:
        pass  # the client left; the transport says so too
    except asyncio.CancelledError:
        cut, told = client.cut(), b""
        if not cut:
            raise
    gone = client.gone
    if (gone or cut) and not passed.finished:
        passed.broken = Failed("it was cut off") if cut else None
        await teaching.left(call, passed.usage, passed.said, by_client=gone)
        await (line.end(b"") if gone else line.failed(event(stopped().body())))
        return
    if why is None and not passed.finished:
        why = Failed("the stream ended before a finish reason")
    if why is not None:
        passed.broken = why
        await teaching.failed(call, why, passed.usage, passed.said)
        await line.failed(event(gave_none(call.spec.id, why).body()), held)
        return
    await teaching.answered(call, passed.usage, passed.said)
    passed.whole = True
    await line.end(held + told)
    if passed.done:
        await _emptied(pieces)


async def _first(
    pieces: AsyncIterator[list[bytes]], line: Line, call: Call, passed: relay.Passed, most: int
) -> bytes:
    """What comes until the answer says something; held back, since the arm may fail before."""
    held = b""
    while not passed.spoke and not passed.done and len(held) <= most:
        piece = await anext(pieces, None)
        if piece is None:
            break
        held += relay.rewritten(piece, call.decided.id, passed)
        if not passed.spoke:
            with suppress(ConnectionError):  # who has left ends this task
                await line.sign()
    if not passed.spoke and not (passed.done and passed.choices):
        raise Failed("the stream ended before it began")
    return held


async def _emptied(pieces: AsyncIterator[list[bytes]]) -> None:
    """Read to the end what has no more to say, so that its connection can be used again."""
    with suppress(TimeoutError, Failed):
        async with asyncio.timeout(_EMPTY_S):
            async for _ in pieces:
                pass
