"""JSON lines: one event a line, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from bandit_service.core import events as ev
from bandit_service.data.scan import Scan

EMBEDDINGS = ("base64", "list", "none")


def lines(scan: Scan, embeddings: str) -> Iterator[bytes]:
    """Every event as a line."""
    for offset, event in scan.events():
        scan.counts.wrote("events")
        yield line(offset, event, embeddings)


def line(offset: int, event: ev.AnyEvent, embeddings: str = "base64") -> bytes:
    """One event as JSON: `offset`, `kind` and its fields, except fields with their default value.

    Embeddings are base64 of little-endian float32, or lists of numbers, or left out.
    """
    if embeddings == "base64":
        return b'{"offset":%d,' % offset + msgspec.json.encode(event)[1:] + b"\n"
    fields: dict[str, Any] = {"offset": offset, **msgspec.to_builtins(event)}
    of: Any = getattr(event, "subject", None) or event
    holder = fields.get("subject", fields)
    if "embedding" in holder:
        if embeddings == "none":
            del holder["embedding"]
            holder.pop("surface", None)
        else:
            holder["embedding"] = numbers(of.embedding)
    return msgspec.json.encode(fields) + b"\n"


def numbers(embedding: bytes) -> msgspec.Raw:
    """A JSON array in which each float32 has enough digits to be read back exactly."""
    text = ",".join(map("%.9g".__mod__, ev.unpack(embedding).tolist()))
    return msgspec.Raw(f"[{text}]".encode())


def read(text: bytes) -> tuple[int, ev.AnyEvent]:
    """The offset and the event of a line.

    Raises msgspec.MsgspecError if it is not one. An omitted embedding is read as an empty one.
    """
    fields: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    offset = msgspec.convert(fields.pop("offset", None), int)
    for holder in (fields, fields.get("subject")):
        if not isinstance(holder, dict):
            continue
        if isinstance(given := holder.get("embedding"), list):
            holder["embedding"] = np.asarray(given, dtype="<f4").tobytes()
        elif given is None and (holder is not fields or fields.get("kind") == "decided"):
            holder["embedding"] = b""
    event: ev.AnyEvent = msgspec.convert(fields, ev.AnyEvent)
    return offset, event
