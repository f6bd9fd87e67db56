"""A stream of server-sent events passed on as it arrives, with the usage read at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from bandit_service.gateway import sse
from bandit_service.gateway.counts import merged, usage_in
from bandit_service.gateway.sizes import said_in
from bandit_service.gateway.upstreams import Failed

DONE = b"[DONE]"
_MOST = 4_194_304


@dataclass(slots=True)
class Passed:
    """What a stream told. finished: it said why it stopped, or that it is done.

    hide_usage: the client did not ask for it. text: the pieces of the only choice's text, where
    they are kept for a judge. model, finish_reason: what it said of itself. broken: why it ended
    before its end. done: it said that it is done. whole: all of it came, and the client was there.
    choices: those that have begun, and whether each said why it stopped. said: bytes of their text.
    """

    hide_usage: bool = False
    usage: dict[str, Any] | None = None
    finished: bool = False
    text: list[str] | None = None
    model: str = ""
    finish_reason: str = ""
    broken: Failed | None = None
    done: bool = False
    whole: bool = False
    choices: dict[str, bool] = field(default_factory=dict)
    said: int = 0

    def whole_text(self) -> str | None:
        """The text as far as it came; None where it is not kept."""
        return None if self.text is None else "".join(self.text)


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[list[bytes]]:
    """The data of the events that are whole with each piece. Failed when the stream breaks off."""
    parser = sse.Events(_MOST)
    try:
        async for piece in response.content.iter_any():
            if found := parser.feed(piece):
                yield found
    except sse.TooLong as why:
        raise Failed(str(why)) from None
    except (TimeoutError, aiohttp.ServerTimeoutError):
        raise Failed("the stream stopped coming", timeout=True) from None
    except aiohttp.ClientError as error:
        raise Failed(f"the stream broke off ({type(error).__name__})") from None
    if data := parser.end():
        yield [data]


def rewritten(piece: list[bytes], id: str, passed: Passed) -> bytes:
    """The events for the client, under our id and without what it did not ask for.

    Where one is no JSON object or an error, those before it are given and `passed.broken` is set;
    Failed where there are none before it.
    """
    told: list[bytes] = []
    for data in piece:
        try:
            told.append(_rewritten(data, id, passed))
        except Failed as failed:
            if not told:
                raise
            passed.broken = failed
        if passed.done or passed.broken is not None:
            break  # nothing comes after the end
    return b"".join(told)


def _rewritten(data: bytes, id: str, passed: Passed) -> bytes:
    if data == DONE:
        passed.finished = passed.done = True
        return b"data: [DONE]\n\n"
    try:
        chunk = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Failed("an event is not JSON") from None
    if not isinstance(chunk, dict):
        raise Failed("an event is not an object")
    if "error" in chunk and "choices" not in chunk:
        raise Failed("the stream told of an error")
    choices, usage = chunk.get("choices"), usage_in(chunk)
    if isinstance(usage, dict):
        passed.usage = merged(passed.usage, usage)
    if not passed.model and isinstance(chunk.get("model"), str):
        passed.model = chunk["model"]
    if isinstance(choices, list):
        _look(passed, choices)
    if passed.hide_usage and "usage" in chunk:
        if not choices:
            return b""
        del chunk["usage"]
    chunk["id"] = id
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def _look(passed: Passed, choices: list[Any]) -> None:
    passed.said += said_in(choices)
    for each in choices:
        if not isinstance(each, dict):
            continue
        index = str(each.get("index", 0))
        reason = each.get("finish_reason")
        passed.choices[index] = bool(reason) or passed.choices.get(index, False)
        if reason:
            passed.finish_reason = str(reason)
    passed.finished = bool(passed.choices) and all(passed.choices.values())
    if passed.text is not None:
        _keep(passed, choices)


def _keep(passed: Passed, choices: list[Any]) -> None:
    """The text of this event; what calls a tool or has two choices is not kept at all."""
    for choice in choices:
        delta = choice.get("delta") if isinstance(choice, dict) else None
        piece = delta.get("content") if isinstance(delta, dict) else None
        if piece is None and isinstance(choice, dict):
            piece = choice.get("text")
        tool = isinstance(delta, dict) and delta.get("tool_calls")
        if tool or not isinstance(choice, dict) or choice.get("index", 0) != 0:
            passed.text = None
            return
        if isinstance(piece, str) and passed.text is not None:
            passed.text.append(piece)
