"""How each kind of upstream is spoken to: what is sent to it, and what its answers mean."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from bandit_service import clock
from bandit_service.gateway import anthropic_answer
from bandit_service.gateway.upstreams import Failed


def answered(kind: str, answer: dict[str, Any]) -> dict[str, Any]:
    """An upstream's answer as OpenAI's. Raises Failed for what is none."""
    if kind != "anthropic":
        return answer
    try:
        return anthropic_answer.answer(answer, int(clock.now()))
    except anthropic_answer.Misspoken as why:
        raise Failed(str(why), status=why.status) from None


async def streamed(kind: str, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of an upstream's events as OpenAI's. Raises Failed."""
    if kind != "anthropic":
        async for data in events:
            yield data
        return
    stream = anthropic_answer.Stream(int(clock.now()))
    try:
        async for data in events:
            for told in stream.feed(data):
                yield told
    except anthropic_answer.Misspoken as why:
        raise Failed(str(why), status=why.status) from None
    for told in stream.end():
        yield told
