"""A streamed answer, passed on to the client as it arrives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass

from bandit_service.core.errors import ServiceError, stopped
from bandit_service.gateway.calls import Response
from bandit_service.gateway.event_stream import EventStream
from bandit_service.gateway.failures import Failed, Rejected, upstream_error
from bandit_service.gateway.routed_exchange import RoutedExchange
from bandit_service.gateway.streamed_answer import StreamedAnswer, rewritten

_DRAIN_S = 1.0
_MAX_HELD = 65_536

Pieces = AsyncIterator[list[bytes]]


@dataclass(slots=True)
class _Rest:
    """How passing on ended. unsent: what has not gone out. cut: the service's end cut it off."""

    unsent: bytes = b""
    failed: Failed | None = None
    cut: bool = False


async def pass_on(
    stream: EventStream,
    response: Response,
    exchange: RoutedExchange,
    answer: StreamedAnswer,
    max_bytes: int,
) -> None:
    """Pass on the stream, with one write for all that arrived together, and end the exchange.

    Until the answer has content the arm may still fail, with Failed or Rejected. What comes after
    the last finish reason is held until the end, when the cost is in the log. A stream that breaks
    off ends with an error event. `answer.complete` says afterwards whether all of it came.
    max_bytes: of an event.
    """
    async with aclosing(exchange.chunks(response, answer.passed)) as pieces:
        await _passed_on(stream, response, pieces, exchange, answer, max_bytes)


async def _passed_on(
    stream: EventStream,
    response: Response,
    pieces: Pieces,
    exchange: RoutedExchange,
    answer: StreamedAnswer,
    max_bytes: int,
) -> None:
    first = await _first(pieces, stream, exchange, answer, max_bytes)
    exchange.first_token_at = time.perf_counter()
    rest = await _relayed(first, pieces, stream, response, exchange, answer)
    exchange.heard(answer.model)
    gone = stream.client.gone
    if (gone or rest.cut) and not answer.finished:
        answer.broken = Failed("it was cut off") if rest.cut else None
        await exchange.left(answer.usage, answer.received, by_client=gone)
        error: ServiceError = stopped()
        await stream.end(b"" if gone else answer.teller.fail(error.status, error.body()))
        return
    failed = rest.failed
    if failed is None and not answer.finished:
        failed = Failed("the stream ended before a finish reason")
    if failed is not None:
        answer.broken = failed
        await exchange.failed(failed, answer.usage, answer.received, begun=True)
        error = upstream_error(exchange.spec.id, failed)
        await stream.end(rest.unsent + answer.teller.fail(error.status, error.body()))
        return
    exchange.calls = tuple(answer.calls)
    await exchange.answered(answer.usage, answer.received)
    answer.complete = True
    await stream.end(rest.unsent + answer.teller.end(done=False))
    if answer.done and not response.content.at_eof():
        await _drained(pieces)


async def _relayed(
    first: bytes,
    pieces: Pieces,
    stream: EventStream,
    response: Response,
    exchange: RoutedExchange,
    answer: StreamedAnswer,
) -> _Rest:
    """Pass on the first bytes and what follows, until the stream or its client ends."""
    rest, data = _Rest(), first
    try:
        with stream.client.answered(response.close):  # this wakes the task that waits for a piece
            while not answer.done:
                data, rest.unsent = rest.unsent + data, b""
                if answer.finished and answer.broken is None and len(data) < _MAX_HELD:
                    rest.unsent, data = data, b""
                began = time.perf_counter()
                await (stream.write(data) if data else stream.idle())
                exchange.allowance.client_took(time.perf_counter() - began)
                if answer.broken is not None:
                    raise answer.broken
                piece = await anext(pieces, None)
                data = b""
                if piece is None:
                    break
                data = rewritten(piece, exchange.decided.id, answer)
    except Failed as failed:
        # after its end an answer is complete, whatever the connection does
        rest.failed = None if answer.finished and not failed.reported else failed
        data = b""
    except Rejected as rejected:  # too late for another arm
        rest.failed = Failed(f"it reported an error (status {rejected.status})", reported=True)
        data = b""
    except ConnectionError:
        pass  # the client left; the transport says so too
    except asyncio.CancelledError:
        rest.cut, data = stream.client.cut(), b""
        if not rest.cut:
            raise
    rest.unsent += data
    return rest


async def _first(
    pieces: Pieces,
    stream: EventStream,
    exchange: RoutedExchange,
    answer: StreamedAnswer,
    max_bytes: int,
) -> bytes:
    """The part before the answer's first content; held back, since the arm may fail before it."""
    held = b""
    while not answer.spoke and not answer.done and len(held) <= max_bytes:
        piece = await anext(pieces, None)
        if piece is None:
            break
        held += rewritten(piece, exchange.decided.id, answer)
        if not answer.spoke:
            with suppress(ConnectionError):  # a client that has left ends this task
                await stream.idle()
    if not answer.spoke and not (answer.done and answer.choices):
        raise Failed("the stream ended before it began")
    return held


async def _drained(pieces: Pieces) -> None:
    """Read the rest of a stream without further content, so that its connection can be reused."""
    with suppress(TimeoutError, Failed, Rejected):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in pieces:
                pass
