"""Chunks of OpenAI's that say a piece of text and nothing else, as nearly all of a stream do. Pure.

Such a chunk goes to the client as it came, under another id. Whatever has a field that is not named
here, a reason to stop, a usage, a call of a tool or an error is none, and is read as any event is.
"""

from __future__ import annotations

import re

import msgspec

_ID = re.compile(rb'"id"\s*:\s*"[^"\\]*"')
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
    finish_reason: None = None
    logprobs: None = None


class _Chunk(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: str
    choices: tuple[_Choice]
    model: str = ""
    object: str = ""
    created: int | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    obfuscation: str = ""
    usage: None = None


_decode = msgspec.json.Decoder(_Chunk).decode


class TextChunk:
    """model: as it is named there. text: "" where it only begins."""

    __slots__ = ("index", "model", "text")

    def __init__(self, model: str, index: int, text: str) -> None:
        self.model, self.index, self.text = model, index, text


def text_chunk(data: bytes) -> TextChunk | None:
    """What the chunk says; None if it is to be read as any event.

    >>> chunk = text_chunk(b'{"id":"a","choices":[{"index":0,"delta":{"content":"Hi"}}]}')
    >>> chunk.text, text_chunk(b'{"id":"a","choices":[],"usage":{"prompt_tokens":3}}')
    ('Hi', None)
    """
    try:
        chunk = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    choice = chunk.choices[0]
    return TextChunk(chunk.model, choice.index, choice.delta.content or "")


def under(id: str, data: bytes, hide_usage: bool) -> bytes | None:
    """The chunk's event with this id, without the field of its usage, which says nothing, if that
    is to be hidden; None where the two are not found as they are usually written.

    >>> under("b", b'{"id": "a", "choices": [], "usage": null}', hide_usage=True)
    b'data: {"id":"b", "choices": []}\\n\\n'
    """
    if b"\n" in data or data.count(b'"id"') != 1:
        return None
    told, found = _ID.subn(b'"id":"%b"' % id.encode(), data)
    if not found:
        return None
    if hide_usage and b'"usage"' in told:
        told, found = _NO_USAGE.subn(b"", told)
        if found != 1 or b'"usage"' in told:
            return None
    return b"data: %b\n\n" % told
