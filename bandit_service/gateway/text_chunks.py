"""Chunks as nearly all of a stream are: a piece of text, a finish reason, or a usage. Pure.

Such a chunk goes to the client as it came, under another id. A chunk with any field that is not
named here, a tool call or an error is read as any event is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from bandit_service.gateway.provider_errors import ended_badly

_ID = re.compile(rb'"id"\s*:\s*"[^"\\]*"')
_CONTENT = re.compile(rb'"content"\s*:\s*"')
_NO_USAGE = re.compile(rb',\s*"usage"\s*:\s*null')
# within a text each quote has a backslash before it, so these are names of fields


class _Delta(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: str | None = None
    content: str | None = None
    refusal: None = None
    function_call: None = None
    tool_calls: None = None


class _Choice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    delta: _Delta
    index: int = 0
    finish_reason: str | None = None
    logprobs: None = None


class PlainChunk(msgspec.Struct, forbid_unknown_fields=True):
    """A chunk of at most one choice, which says nothing but this."""

    id: str
    choices: Annotated[tuple[_Choice, ...], msgspec.Meta(max_length=1)]
    model: str = ""
    object: str = ""
    created: int | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    obfuscation: str = ""
    usage: dict[str, Any] | None = None


_MAX_MISSES = 4
_decode = msgspec.json.Decoder(PlainChunk).decode


def plain_chunk(data: bytes) -> PlainChunk | None:
    """The chunk; None if it must be read as any event.

    >>> plain_chunk(b'{"id":"a","choices":[{"delta":{"content":"Hi"}}]}').choices[0].delta.content
    'Hi'
    >>> plain_chunk(b'{"id":"a","choices":[{"delta":{"tool_calls":[]}}]}')
    """
    try:
        chunk = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if chunk.object == "error" or chunk.usage == {}:
        return None
    if not chunk.choices:
        return None if chunk.usage is None else chunk
    reason = chunk.choices[0].finish_reason
    return None if reason and ended_badly(reason) else chunk


def _is_plain(text: bytes) -> bool:
    """Whether the characters of a text stand for themselves in JSON."""
    if b'"' in text or b"\\" in text:
        return False
    try:
        return text.decode().isprintable()
    except UnicodeDecodeError:
        return False


class Renamed:
    """The events of a stream's text chunks under an id of ours. hide_usage: without that field,
    which says nothing in them.

    >>> Renamed("b", hide_usage=True).event(b'{"id": "a", "choices": [], "usage": null}')
    b'data: {"id":"b", "choices": []}\\n\\n'
    """

    def __init__(self, id: str, hide_usage: bool) -> None:
        self._id = b'"id":"%b"' % id.encode()
        self._hide_usage = hide_usage
        self._head = self._ours = self._tail = b""
        self._before = self._after = self._told_before = self._told_after = b""
        self._misses = 0

    def alike(self, data: bytes) -> bytes | None:
        """The text of a chunk that differs from the last learned one only by its text; None for any
        other.

        Its event is `told` of its text. Nothing in it needs decoding: a text without quotes,
        backslashes and unprintable characters is written as it is.
        """
        before, after = self._before, self._after
        if not before or not data.startswith(before) or not data.endswith(after):
            return None
        if len(data) < len(before) + len(after):
            return None
        text = data[len(before) : -len(after)]
        if not _is_plain(text):
            return None
        self._misses = 0
        return text

    def run(self, events: Sequence[bytes]) -> list[bytes]:
        """The texts of the first of these events that are `alike`, up to one that is not, or may
        not be. One look at all is cheaper than one at each.
        """
        before, after = self._before, self._after
        joined = b"\n".join(events)
        if not before or not joined.startswith(before) or joined.count(b"\n") >= len(events):
            return []
        texts = joined[len(before) :].split(after + b"\n" + before)
        whole = texts[-1].endswith(after)
        if whole:
            texts[-1] = texts[-1][: -len(after)]
            if _is_plain(b" ".join(texts)):
                return texts
        begins = len(texts) - 1 if _is_plain(b" ".join(texts[:-1])) else 0
        for i, text in enumerate(texts[begins:], begins):
            if not _is_plain(text) or (i == len(texts) - 1 and not whole):
                last, there, _ = text.partition(after + b"\n")
                return [*texts[:i], last] if there and _is_plain(last) else texts[:i]
        return texts

    def told_all(self, texts: Sequence[bytes]) -> bytes:
        """The events of chunks with these texts, each as `told`."""
        return (
            self._told_before
            + (self._told_after + self._told_before).join(texts)
            + (self._told_after)
        )

    def told(self, text: bytes) -> bytes:
        """The event of a chunk with this text that is like the one last learned.

        >>> renamed = Renamed("b", hide_usage=False)
        >>> first, then = (b'{"id":"a","choices":[{"delta":{"content":"%b"}}]}' % each
        ...                for each in (b"Hi", b" you"))
        >>> renamed.learn(first, "Hi", renamed.event(first))
        >>> renamed.told(renamed.alike(then))
        b'data: {"id":"b","choices":[{"delta":{"content":" you"}}]}\\n\\n'
        """
        return self._told_before + text + self._told_after

    def learn(self, data: bytes, text: str, told: bytes) -> None:
        """How a chunk of this text is written in both forms. If chunks differ again and again,
        nothing more is learned.
        """
        if not text or self._misses >= _MAX_MISSES:
            return
        self._misses += 1
        here, there, said = _CONTENT.search(data), _CONTENT.search(told), text.encode()
        if here is None or there is None or data.count(b'"content"') != 1:
            return
        end, told_end = here.end() + len(said), there.end() + len(said)
        if data[here.end() : end] != said or told[there.end() : told_end] != said:
            return
        self._before, self._after = data[: here.end()], data[end:]
        self._told_before, self._told_after = told[: there.end()], told[told_end:]

    def event(self, data: bytes) -> bytes | None:
        """The chunk's event; None if the two fields are not written in the usual form."""
        if data.count(b'"id"') != 1 or b"\n" in data:
            return None
        head = len(self._head)
        if not head or not data.startswith(self._head):  # all chunks of a stream begin alike
            found = _ID.search(data)
            if found is None:
                return None
            head = found.end()
            self._head, self._ours = data[:head], data[: found.start()] + self._id
        if not self._hide_usage or not (usages := data.count(b'"usage"')):
            return b"data: %b%b\n\n" % (self._ours, data[head:])
        if self._tail and usages == 1 and data.endswith(self._tail):
            return b"data: %b%b}\n\n" % (self._ours, data[head : -len(self._tail)])
        found = _NO_USAGE.search(data, head)
        if usages != 1 or found is None:
            return None
        rest = data[found.end() :]
        self._tail = data[found.start() :] if rest == b"}" else b""
        return b"data: %b%b%b\n\n" % (self._ours, data[head : found.start()], rest)
