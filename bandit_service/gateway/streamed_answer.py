"""A provider's stream: its events as they arrive, rewritten for the client, and their content."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from bandit_service.gateway import provider_errors, sse
from bandit_service.gateway.affinity import MAX_CALLS, calls_in
from bandit_service.gateway.allowance import Allowance
from bandit_service.gateway.calls import Response
from bandit_service.gateway.failures import (
    Failed,
    Rejected,
    of_error,
    raise_for_error,
    reported_failure,
)
from bandit_service.gateway.providers import Teller, front_of
from bandit_service.gateway.text_chunks import PlainChunk, Renamed, plain_chunk
from bandit_service.gateway.translation import WRONG_TYPE, Own
from bandit_service.gateway.usage import answer_bytes, merged, usage_in
from bandit_service.parsing.inputs import said_json, whole

DONE = b"[DONE]"
_MAX_AT_ONCE = 64
"""Events that are looked at together, so that none is looked at again and again."""


@dataclass(slots=True)
class StreamedAnswer:
    """The content of a stream so far.

    teller: translates it to the client's dialect. passed: it comes in that dialect. hide_usage: the
    client did not ask for it. text: the pieces of the only choice's text, if they are kept for a
    judge. model, theirs: the provider's names of its model and of the answer. choices: those that
    have begun, and whether each said why it stopped. finished: all of them did, or the stream said
    that it is done. received: bytes of their text. spoke: one of them has content, or a finish
    reason. done: the stream said that it is done. complete: all of it came, and the client was
    there. broken: why it ended before its end. calls: the ids of the tools that it calls. renamed:
    passes chunks to a client of the same dialect, with another id.
    """

    teller: Teller = field(default_factory=lambda: front_of("openai").teller({}, "", 0))
    passed: bool = False
    renamed: Renamed | None = None
    hide_usage: bool = False
    usage: dict[str, Any] | None = None
    finished: bool = False
    text: list[str] | None = None
    model: str = ""
    theirs: str = ""
    finish_reason: str = ""
    broken: Failed | None = None
    done: bool = False
    complete: bool = False
    choices: dict[str, bool] = field(default_factory=dict)
    received: int = 0
    spoke: bool = False
    calls: list[str] = field(default_factory=list)

    def whole_text(self) -> str | None:
        """The text as far as it came; None if it is not kept."""
        return None if self.text is None else str(whole("".join(self.text)))


async def events_of(
    response: Response, max_bytes: int, allowance: Allowance
) -> AsyncGenerator[list[bytes], None]:
    """The data of the events that each piece completes; an empty list is a sign of life.

    max_bytes: of an event. Raises Failed if the stream breaks off, and Failed or Rejected if an
    event is named an error.
    """
    parser = sse.Events(max_bytes)
    try:
        while piece := await response.content.readany():
            events = parser.feed(piece)
            if not parser.odd:
                yield events
                continue
            for i, data in enumerate(events):
                if isinstance(data, sse.ErrorEvent | sse.Stray) and (failed := _reported(data)):
                    if i:
                        yield events[:i]
                    raise failed
            yield [data for data in events if not isinstance(data, sse.Stray)]
    except sse.TooLong as why:
        raise Failed(f"{why} (gateway.max_answer_bytes)") from None
    except (TimeoutError, aiohttp.ServerTimeoutError):
        raise allowance.timed_out("timed out reading the stream") from None
    except aiohttp.ClientError as error:
        raise Failed(f"the stream broke off ({type(error).__name__})") from None
    last = parser.end()
    if isinstance(last, sse.ErrorEvent | sse.Stray) and (failed := _reported(last)):
        raise failed
    if last and not isinstance(last, sse.Stray):
        yield [last]


def _reported(data: bytes) -> Failed | Rejected | None:
    """The error that an event named error, or text that is of no event, reports; None if none."""
    said: object = None
    with suppress(ValueError):
        said = said_json(data)
    error = provider_errors.error_in(said)
    if error is None and isinstance(data, sse.Stray):
        return None
    return of_error(error or provider_errors.refusal(0, data), said)


def rewritten(piece: list[bytes], id: str, answer: StreamedAnswer) -> bytes:
    """The events for the client, under the decision's id and without what it did not ask for.

    An error, or what is no JSON object, raises Failed or Rejected while there was no content; later
    this returns what came before it, and sets `answer.broken`.
    """
    events: list[bytes] = []
    renamed = answer.renamed
    at = 0
    while at < len(piece):
        data = piece[at]
        at += 1
        if renamed is not None and (text := renamed.alike(data)) is not None:
            more = renamed.run(piece[at : at + _MAX_AT_ONCE]) if at < len(piece) - 1 else []
            at += len(more)
            _noted([text, *more], answer)
            events.append(renamed.told_all([text, *more]))
            continue
        try:
            events.append(_rewritten(data, id, answer))
        except Failed as failed:
            if not answer.spoke:
                raise
            answer.broken = failed
        except WRONG_TYPE as error:
            answer.broken = Failed(f"an event has an unexpected form ({type(error).__name__})")
            if not answer.spoke:
                raise answer.broken from None
        if answer.done or answer.broken is not None:
            break  # nothing may come after the end
    return b"".join(events)


def _rewritten(data: bytes, id: str, answer: StreamedAnswer) -> bytes:
    if isinstance(data, Own):
        return _own(data, answer)
    if data.strip() == DONE:
        answer.finished = answer.done = True
        return answer.teller.end(done=True)
    if answer.renamed is not None and (told := _plain(data, answer.renamed, answer)) is not None:
        return told
    chunk = _heard(data, id, answer)
    return b"" if chunk is None else answer.teller.feed(chunk)


def _plain(data: bytes, renamed: Renamed, answer: StreamedAnswer) -> bytes | None:
    """The event of a chunk that goes on as it came; its content is recorded. None for any other."""
    chunk = plain_chunk(data)
    if chunk is None:
        return None
    unasked = answer.hide_usage and not chunk.choices  # it is a usage and nothing else
    told = b"" if unasked else renamed.event(data)
    if told is None:
        return None
    answer.model = answer.model or whole(chunk.model)
    answer.theirs = answer.theirs or chunk.id
    if chunk.usage is not None:
        answer.usage = merged(answer.usage, chunk.usage)
    if chunk.choices:
        text = _note_plain(chunk, answer)
        if chunk.usage is None and not chunk.choices[0].finish_reason:
            renamed.learn(data, text, told)
    return told


def _note_plain(chunk: PlainChunk, answer: StreamedAnswer) -> str:
    """The text of a chunk of one choice, which is recorded."""
    choice = chunk.choices[0]
    text, reason, index = choice.delta.content or "", choice.finish_reason, str(choice.index)
    answer.received += len(text) if text.isascii() else len(text.encode(errors="replace"))
    answer.spoke = answer.spoke or bool(text or reason)
    answer.choices[index] = bool(reason) or answer.choices.get(index, False)
    answer.finished = all(answer.choices.values())
    if reason:
        answer.finish_reason = reason
    if answer.text is not None:
        if choice.index:
            answer.text = None
        else:
            answer.text.append(text)
    return text


def _noted(texts: Sequence[bytes], answer: StreamedAnswer) -> None:
    """Further pieces of text of a choice."""
    text = b"".join(texts)
    answer.received += len(text)
    if text:
        answer.spoke = True
    if answer.text is not None:
        answer.text.append(text.decode())


def _own(data: Own, answer: StreamedAnswer) -> bytes:
    """An event of the client's own dialect; its content is recorded."""
    for each in data.chunks:
        if each == DONE:
            answer.finished = answer.done = True
        else:
            _heard(each, "", answer)
    told, speaks = answer.teller.own(data)
    answer.spoke = answer.spoke or speaks
    return told


def _heard(data: bytes, id: str, answer: StreamedAnswer) -> dict[str, Any] | None:
    """A chunk for the client; its content is recorded. None if nothing of it is for the client."""
    try:
        chunk = said_json(data, halves=True) if data.strip() else None
    except ValueError:
        if answer.finished:  # all of the answer is there
            return None
        raise Failed("an event is not JSON") from None
    usage = usage_in(chunk) if isinstance(chunk, dict) else None
    if isinstance(usage, dict):  # of one that fails too
        answer.usage = merged(answer.usage, usage)
    if not answer.spoke:
        raise_for_error(chunk)
    elif error := provider_errors.error_in(chunk):  # too late for another arm
        raise reported_failure(error)
    if not isinstance(chunk, dict):
        if chunk is None or answer.finished:
            return None
        raise Failed("an event is not an object")
    choices = chunk.get("choices")
    if not answer.model and isinstance(chunk.get("model"), str):
        answer.model = whole(chunk["model"])
    if not answer.theirs and isinstance(chunk.get("id"), str):
        answer.theirs = whole(chunk["id"])
    if isinstance(choices, list):
        _note(answer, choices)
    if answer.hide_usage and "usage" in chunk:
        if not choices and usage is not None:
            return None
        del chunk["usage"]
    if chunk.get("error"):  # an empty one, which clients would take for an error
        del chunk["error"]
    chunk["id"] = id
    return chunk


def _note(answer: StreamedAnswer, choices: list[Any]) -> None:
    answer.received += answer_bytes(choices)
    if len(answer.calls) < MAX_CALLS:
        answer.calls += (id for id in calls_in(choices, "delta") if id not in answer.calls)
    for each in choices:
        if not isinstance(each, dict):
            continue
        index = str(each.get("index") or 0)
        reason = each.get("finish_reason")
        answer.spoke = answer.spoke or bool(reason) or _speaks(each)
        answer.choices[index] = bool(reason) or answer.choices.get(index, False)
        if reason:
            answer.finish_reason = whole(str(reason))
    answer.finished = bool(answer.choices) and all(answer.choices.values())
    if answer.text is not None:
        _keep(answer, choices)


def _speaks(choice: dict[str, Any]) -> bool:
    """Whether a choice of an event says anything beyond the role."""
    delta = choice.get("delta")
    fields = delta if isinstance(delta, dict) else {}
    return provider_errors.there(choice.get("text")) or any(
        provider_errors.there(value) for name, value in fields.items() if name != "role"
    )


def _keep(answer: StreamedAnswer, choices: list[Any]) -> None:
    """Keep the text of this event; an answer that calls a tool or has two choices is not kept."""
    for choice in choices:
        delta = choice.get("delta") if isinstance(choice, dict) else None
        piece = delta.get("content") if isinstance(delta, dict) else None
        if piece is None and isinstance(choice, dict):
            piece = choice.get("text")
        tool = isinstance(delta, dict) and delta.get("tool_calls")
        if tool or not isinstance(choice, dict) or choice.get("index") not in (0, None):
            answer.text = None
            return
        if isinstance(piece, str) and answer.text is not None:
            answer.text.append(piece)
