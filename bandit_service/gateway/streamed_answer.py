"""A stream of server-sent events passed on as it arrives, with the usage read at its end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from bandit_service.gateway import sse, trouble
from bandit_service.gateway.request_size import said_in
from bandit_service.gateway.upstreams import Failed, check, tells
from bandit_service.gateway.usage import merged, usage_in
from bandit_service.parsing.inputs import json_of, whole

DONE = b"[DONE]"


@dataclass(slots=True)
class Passed:
    """What a stream told. finished: it said why it stopped, or that it is done.

    hide_usage: the client did not ask for it. text: the pieces of the only choice's text, where
    they are kept for a judge. model, finish_reason: what it said of itself. broken: why it ended
    before its end. done: it said that it is done. whole: all of it came, and the client was there.
    choices: those that have begun, and whether each said why it stopped. said: bytes of their text.
    spoke: one of them said something, or why it stopped.
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
    spoke: bool = False

    def whole_text(self) -> str | None:
        """The text as far as it came; None where it is not kept."""
        return None if self.text is None else str(whole("".join(self.text)))


async def events(response: aiohttp.ClientResponse, most: int) -> AsyncIterator[list[bytes]]:
    """The data of the events that are whole with each piece; none is a sign of life.

    most: bytes of an event. Failed when the stream breaks off, or an event is named an error.
    """
    parser = sse.Events(most)
    try:
        async for piece in response.content.iter_any():
            found = parser.feed(piece)
            for i, data in enumerate(found):
                if isinstance(data, sse.ErrorEvent | sse.Stray) and (failed := _told(data)):
                    if i:
                        yield found[:i]
                    raise failed
            yield [data for data in found if not isinstance(data, sse.Stray)]
    except sse.TooLong as why:
        raise Failed(f"{why} (gateway.max_answer_bytes)") from None
    except (TimeoutError, aiohttp.ServerTimeoutError):
        raise Failed("the stream stopped coming", timeout=True) from None
    except aiohttp.ClientError as error:
        raise Failed(f"the stream broke off ({type(error).__name__})") from None
    last = parser.end()
    if isinstance(last, sse.ErrorEvent | sse.Stray) and (failed := _told(last)):
        raise failed
    if last and not isinstance(last, sse.Stray):
        yield [last]


def _told(data: bytes) -> Failed | None:
    """What an event named error, or text that is of no event, tells of; None for nothing."""
    try:
        error = trouble.error_in(json_of(data))
    except ValueError:
        error = None
    if error is None and isinstance(data, sse.Stray):
        return None
    return tells(error or trouble.Error())


def rewritten(piece: list[bytes], id: str, passed: Passed) -> bytes:
    """The events for the client, under our id and without what it did not ask for.

    What is no JSON object, or an error, raises Failed or Rejected while nothing was said; later
    what was before it is given, and `passed.broken` is set.
    """
    told: list[bytes] = []
    for data in piece:
        try:
            told.append(_rewritten(data, id, passed))
        except Failed as failed:
            if not passed.spoke:
                raise
            passed.broken = failed
        if passed.done or passed.broken is not None:
            break  # nothing comes after the end
    return b"".join(told)


def _rewritten(data: bytes, id: str, passed: Passed) -> bytes:
    if data.strip() == DONE:
        passed.finished = passed.done = True
        return b"data: [DONE]\n\n"
    try:
        chunk = json_of(data, halves=True) if data.strip() else None
    except ValueError:
        if passed.finished:  # all of the answer is there
            return b""
        raise Failed("an event is not JSON") from None
    usage = usage_in(chunk) if isinstance(chunk, dict) else None
    if isinstance(usage, dict):  # of one that fails too
        passed.usage = merged(passed.usage, usage)
    if not passed.spoke:
        check(chunk)
    elif error := trouble.error_in(chunk):  # too late for another arm
        raise tells(error)
    if not isinstance(chunk, dict):
        if chunk is None or passed.finished:
            return b""
        raise Failed("an event is not an object")
    choices = chunk.get("choices")
    if not passed.model and isinstance(chunk.get("model"), str):
        passed.model = whole(chunk["model"])
    if isinstance(choices, list):
        _look(passed, choices)
    if passed.hide_usage and "usage" in chunk:
        if not choices and usage is not None:
            return b""
        del chunk["usage"]
    if chunk.get("error"):  # an error of nothing, which clients would take for one
        del chunk["error"]
    chunk["id"] = id
    return b"data: " + _encoded(chunk) + b"\n\n"


def _encoded(chunk: dict[str, Any]) -> bytes:
    """JSON; of an emoji that was cut in two over events each half goes on as it came."""
    try:
        return msgspec.json.encode(chunk)
    except UnicodeEncodeError:
        return json.dumps(chunk).encode()


def _look(passed: Passed, choices: list[Any]) -> None:
    passed.said += said_in(choices)
    for each in choices:
        if not isinstance(each, dict):
            continue
        index = str(each.get("index") or 0)
        reason = each.get("finish_reason")
        passed.spoke = passed.spoke or bool(reason) or _speaks(each)
        passed.choices[index] = bool(reason) or passed.choices.get(index, False)
        if reason:
            passed.finish_reason = whole(str(reason))
    passed.finished = bool(passed.choices) and all(passed.choices.values())
    if passed.text is not None:
        _keep(passed, choices)


def _speaks(choice: dict[str, Any]) -> bool:
    """Whether a choice of an event says anything but whose turn it is."""
    delta = choice.get("delta")
    said = delta if isinstance(delta, dict) else {}
    return trouble.there(choice.get("text")) or any(
        trouble.there(value) for name, value in said.items() if name != "role"
    )


def _keep(passed: Passed, choices: list[Any]) -> None:
    """The text of this event; what calls a tool or has two choices is not kept at all."""
    for choice in choices:
        delta = choice.get("delta") if isinstance(choice, dict) else None
        piece = delta.get("content") if isinstance(delta, dict) else None
        if piece is None and isinstance(choice, dict):
            piece = choice.get("text")
        tool = isinstance(delta, dict) and delta.get("tool_calls")
        if tool or not isinstance(choice, dict) or choice.get("index") not in (0, None):
            passed.text = None
            return
        if isinstance(piece, str) and passed.text is not None:
            passed.text.append(piece)
