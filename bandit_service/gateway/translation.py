"""How each kind of upstream is spoken to: what is sent to it, and what its answers mean."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from bandit_service import clock
from bandit_service.gateway.providers import _anthropic_answer as anthropic_answer
from bandit_service.gateway.upstreams import Failed

_ODD = (TypeError, AttributeError, ValueError, KeyError, OverflowError)
"""What reading raises where a value is of another type than the API's."""


def answered(kind: str, answer: dict[str, Any]) -> dict[str, Any]:
    """An upstream's answer as OpenAI's. Raises Failed for what is none."""
    if kind != "anthropic":
        return answer
    try:
        return anthropic_answer.answer(answer, int(clock.now()))
    except anthropic_answer.Misspoken as why:
        raise Failed(str(why), status=why.status) from None
    except _ODD as error:
        raise Failed(f"the answer is of another form ({type(error).__name__})") from None


async def streamed(kind: str, pieces: AsyncIterator[list[bytes]]) -> AsyncIterator[list[bytes]]:
    """The data of an upstream's events as OpenAI's, those that came together. Raises Failed.

    Where the reason why it stopped is known, what cannot be read after it is no failure.
    """
    if kind != "anthropic":
        async for piece in pieces:
            yield piece
        return
    stream = anthropic_answer.Stream(int(clock.now()))
    try:
        async for piece in pieces:
            told: list[bytes] = []
            try:
                for data in piece:
                    told += stream.feed(data)
            except anthropic_answer.Misspoken as why:
                if told:
                    yield told
                raise Failed(str(why), status=why.status, told=why.status > 0) from None
            except _ODD as error:
                raise Failed(f"an event is of another form ({type(error).__name__})") from None
            yield told
    except Failed as failed:
        ended = [] if failed.told else stream.end()
        if not ended:
            raise
        yield ended
        return
    if told := list(stream.end()):
        yield told
