"""The stream's frames that only request a decision, and their answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from bandit_service import wire
from bandit_service.http.immediate_answers import AtOnce
from bandit_service.http.responses.decisions import Decision

_encoder = msgspec.msgpack.Encoder()


class Frame(wire.DecideRequest, kw_only=True, forbid_unknown_fields=True):
    """A whole frame that requests a decision."""

    op: Literal["decide"]
    id: int | str


_decoder = msgspec.msgpack.Decoder(Frame)


def plain(frame: bytes) -> Frame | None:
    """A frame that requests a decision on an embedding; None for any other, and for a wrong one."""
    try:
        asked = _decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        return None
    return asked if is_plain(asked) and not wire.is_repeated_at_top(frame) else None


def is_plain(asked: wire.DecideRequest) -> bool:
    """Whether a request only asks for a decision on an embedding."""
    text = asked.query is not None or asked.messages is not None
    more = asked.explain or asked.arms == [] or asked.idempotency_key
    return not (asked.embedding is None or text or more)


class Asked(AtOnce):
    """A decision that a frame requests. id: of the frame."""

    __slots__ = ("id",)

    def __init__(self, id: int | str, tell: Callable[[Asked], None]) -> None:
        super().__init__(tell)
        self.id = id


def answer(id: int | str, decision: Decision) -> bytes:
    """The decision as a map that begins with the id which it answers."""
    body = _encoder.encode(decision)
    # the head of a map is a byte with its size in it, or 0xDE and two bytes of size
    size, begins = (body[0] & 0x0F, 1) if body[0] < 0x90 else (int.from_bytes(body[1:3], "big"), 3)
    return b"\xde%b\xa2id%b%b" % (
        (size + 1).to_bytes(2, "big"),
        _encoder.encode(id),
        body[begins:],
    )
