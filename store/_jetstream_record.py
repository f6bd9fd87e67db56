"""A record as one message: its subject tells which records may conflict with it, its payload has
the rest.
"""

from __future__ import annotations

import hashlib
import re
import struct
import uuid
import zlib
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote

from store._protocols import Offset, Record
from store._shared import Tailed
from store.errors import Corrupt

SHARDS = 4096
_HEAD = struct.Struct("<BdIHHHH")  # format, ts, crc of the body, lengths of what stands before it
_WHOLE, _HELD, _GONE = 1, 2, 3
"""Formats: with the body, or with the SHA-256 of a body that is too large for a message."""
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
MESSAGE_ID = "Nats-Msg-Id"
BATCH, POSITION, COMMIT = "Nats-Batch-Id", "Nats-Batch-Sequence", "Nats-Batch-Commit"
EXPECTED = "Nats-Expected-Last-Subject-Sequence"


def token(name: str) -> str:
    """A name as a part of a subject and of a stream's name."""
    if _PLAIN.fullmatch(name):
        return name
    told = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:24]
    return f"{told}_{hashlib.sha256(name.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Subjects:
    """The subjects of a log: checked records by what they were checked against, a keeper's records
    by its role, all others by the replica that wrote them.
    """

    log: str

    @property
    def all(self) -> str:
        """All subjects of the stream."""
        return f"bandit.{self.log}.>"

    def of_replica(self, name: str) -> str:
        """Records that only this replica writes."""
        return f"bandit.{self.log}.d.{token(name)}"

    @property
    def of_replicas(self) -> str:
        """The subjects of all replicas."""
        return f"bandit.{self.log}.d.*"

    def of_role(self, role: str) -> str:
        """Records that only the keeper of this role writes."""
        return f"bandit.{self.log}.led.{token(role)}"

    def of_shard(self, shard: int) -> str:
        """One of the 4,096 shards."""
        return f"bandit.{self.log}.o.{shard}"


def shard_of(subject: bytes) -> int:
    """The shard of a record's subject."""
    return zlib.crc32(subject) % SHARDS


def message_id(eid: str) -> str:
    """An id of a record as a header's value, never empty."""
    return "e" + quote(eid, safe="")


def eid_of(message_id: str) -> str:
    """The id of the record again."""
    return unquote(message_id[1:])


def pack(record: Record, subject: bytes, held: bytes = b"") -> bytes:
    """The payload of a message. held: the key of its body in the object store. A record without a
    body is one that was erased in another log.
    """
    eid, kind, owner = record.eid.encode(), record.kind.encode(), record.owner.encode()
    sizes = len(eid), len(kind), len(owner), len(subject)
    form = _HELD if held else _WHOLE if record.body else _GONE
    head = _HEAD.pack(form, record.ts, zlib.crc32(record.body), *sizes)
    return b"".join((head, eid, kind, owner, subject, held or record.body))


@dataclass(frozen=True, slots=True)
class Message:
    """A record in the stream. ns: when the server stored it. ends: an append ended here. held: the
    key of its body, if that is in the object store.
    """

    offset: Offset
    record: Record
    subject: bytes
    crc: int
    ns: int
    ends: bool
    held: bytes

    @property
    def chain(self) -> bytes:
        """A mark that no other past has: its offset, its id, its body and when it was stored."""
        if not self.ends:
            return b""
        said = f"{int(self.offset)}|{self.ns}|{self.crc}|{self.record.eid}"
        return hashlib.sha256(said.encode()).digest()[:16]

    def with_body(self, body: bytes) -> Message:
        """Raise Corrupt if it is another body."""
        _check(int(self.offset), body, self.crc)
        return replace(self, record=self.record._replace(body=body), held=b"")

    def without_body(self) -> Message:
        """What stays of an erased record."""
        return replace(self, record=self.record._replace(body=b""), held=b"")

    def told(self) -> list[Any]:
        """The same for JSON."""
        record = self.record
        names = [record.eid, record.kind, record.ts, record.owner]
        return [int(self.offset), *names, self.subject.hex(), self.crc, self.ns, self.ends]

    def tailed(self) -> Tailed:
        """The record as a replica reads it."""
        return Tailed(self.offset, self.record, self.chain)


def unpack(offset: int, payload: bytes, ns: int, ends: bool) -> Message:
    """Raise Corrupt if it is damaged."""
    try:
        known, ts, crc, *sizes = _HEAD.unpack_from(payload)
        if known not in (_WHOLE, _HELD, _GONE):
            raise Corrupt(offset, f"the message in the stream has format {known}")
        at, parts = _HEAD.size, list[bytes]()
        for size in sizes:
            parts.append(payload[at : at + size])
            at += size
        eid, kind, owner, subject = parts
        held, body = (payload[at:], b"") if known == _HELD else (b"", payload[at:])
        record = Record(eid.decode(), kind.decode(), ts, body, owner.decode())
    except (struct.error, UnicodeDecodeError):
        raise Corrupt(offset, "the message in the stream is no record") from None
    if not held and known != _GONE:
        _check(offset, body, crc)
    return Message(Offset(offset), record, subject, crc, ns, ends, held)


def _check(offset: int, body: bytes, crc: int) -> None:
    if not body or zlib.crc32(body) != crc:
        raise Corrupt(offset, "its checksum in the stream does not match")


def told_again(told: list[Any]) -> Message:
    """The message that `told` was made of, without its body."""
    offset, eid, kind, ts, owner, subject, crc, ns, ends = told
    record = Record(eid, kind, ts, b"", owner)
    return Message(Offset(offset), record, bytes.fromhex(subject), crc, ns, ends, b"")


def made_at(eid: str) -> float | None:
    """The UTC seconds in a UUIDv7; None for another id."""
    try:
        value = uuid.UUID(eid)
    except ValueError:
        return None
    return (value.int >> 80) / 1000 if value.version == 7 else None
