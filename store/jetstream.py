"""A `SharedLog` in NATS JetStream 2.12 or newer, by nats-py. See docs/adr/0020.

The stream's leader orders the messages, and acknowledges a message once a majority has it on disk.
A record is a message, so its offset is its number in the stream; an append is an atomic batch of
them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from store import _jetstream_snapshots as shared_snapshots
from store._format import check_record
from store._jetstream_members import Members
from store._jetstream_reading import BEAT_S, Tail, ids_of, owned
from store._jetstream_record import (
    BATCH,
    COMMIT,
    EXPECTED,
    MESSAGE_ID,
    POSITION,
    Message,
    made_at,
    message_id,
    pack,
    shard_of,
)
from store._jetstream_shards import Shards
from store._jetstream_stream import Names, Stream, in_parallel, prepare
from store._nats_wire import Refused, Wire, address_of
from store._protocols import START, Offset, Record
from store._shared import (
    NO_MARK,
    Entry,
    Fenced,
    Lease,
    LogState,
    Mark,
    Membership,
    Outdated,
    Replica,
    Tailed,
    Unsure,
)
from store.errors import Corrupt, Duplicate, Trimmed

MOST = 1000
"""The maximum of records in an append: the servers accept no larger batch."""
_WRONG_LAST = (10071, 10164)
_TWICE = 10201
_CUT_OFF = (10174, 10175, 10176, 10207)
_TRIED = 50_000
_HEADERS = 2048
"""The bytes of a message that are reserved for its headers."""
_EARLIER_S = 60.0
_NOT_JOINED = Membership(0, 0, 0.0)


@dataclass(slots=True)
class _Message:
    subject: str
    body: bytes
    headers: dict[str, str]


class JetStreamLog:
    """One named log.

    Appends wait for each other, and so do reads; other calls do not. timeout_s: of every request.
    alive_s: a replica that was silent for less counts as open. lost_after_s: how long to wait for
    what a closed replica may still append. insecure_single: one copy is enough, which is lost with
    its server.
    """

    def __init__(
        self,
        address: str,
        name: str = "main",
        *,
        timeout_s: float = 3.0,
        alive_s: float = 5.0,
        lost_after_s: float = 600.0,
        insecure_single: bool = False,
    ) -> None:
        self.name = name
        self.member = _NOT_JOINED
        self._address = address_of(address)
        # replicas spread over them; the one that was reached last is the first
        found = self._address.servers
        first = secrets.randbelow(len(found))
        self._servers = (*found[first:], *found[:first])
        self._names = Names(name, insecure_single)
        self._timeout_s, self._alive_s, self._lost_after_s = timeout_s, alive_s, lost_after_s
        self._replica = ""
        self._own_last: dict[str, int] = {}
        self._tried: dict[str, tuple[str, int]] = {}
        self._empty_at = -1
        self._settled = 0.0
        self._base = 0
        self._gone: dict[int, Message] = {}
        self._erases = True
        self._write_lock, self._read_lock = asyncio.Lock(), asyncio.Lock()
        self._member_lock = asyncio.Lock()
        self._on(Wire(timeout_s))

    def _on(self, wire: Wire) -> None:
        """Knowledge of the log belongs to one connection: a new one starts without any."""
        names = self._names
        self._wire = wire
        self._stream = Stream(wire, names.stream)
        bucket = Stream(wire, f"KV_{names.bucket}")
        self._members = Members(bucket, names.bucket, self._alive_s, self._lost_after_s)
        self._shards = Shards(self._stream, names.subjects)
        self._tail = Tail(wire, names.stream, self._held, self._erased)

    async def connect(self) -> None:
        """Connect to one of the servers, and create missing streams. Raises Unsure, or Unfit if the
        streams keep too little.
        """
        await self._wire.close()  # pending requests on it end
        async with self._write_lock, self._read_lock, self._member_lock:
            told, servers = list[str](), self._servers
            for i, server in enumerate(servers):
                wire = Wire(self._timeout_s)
                try:
                    await wire.open(self._address, server, self._timeout_s / len(servers))
                    self._erases = await prepare(wire, self._names)
                except Unsure as error:
                    told.append(f"{server}: {error}")
                    await wire.close()
                except BaseException:
                    await wire.close()
                    raise
                else:
                    self._servers = (*servers[i:], *servers[:i])
                    self._on(wire)
                    return
        raise Unsure("; ".join(told))

    async def join(self, name: str, key: str, reads: int = 1) -> Membership:
        """Take the slot of this name, or a free one, under a new epoch."""
        async with self._write_lock, self._member_lock:
            self.member = await self._members.join(name, key, reads)
            self._replica = name
            # pending appends of an earlier connection are refused from now on, or are in the log
            self._own_last = {}
            await self._own(self._names.subjects.of_replica(name))
            self._base = await self._members.base()
        return self.member

    async def append_copied(self, records: Sequence[Record]) -> Offset:
        """The same."""
        last = START
        for first in range(0, len(records), MOST):
            some = [Entry(each) for each in records[first : first + MOST]]
            last = await self._appended(some, 0.0, None)
        return last

    async def begin_after(self, offset: Offset) -> None:
        """A purge beyond the end."""
        if not (await self._stream.state()).last:
            await self._members.set_base(int(offset))
            await self._stream.purge(int(offset))

    async def append(
        self, entries: Sequence[Entry], settled: float, lease: Lease | None = None
    ) -> Offset:
        """One atomic batch. The next sign of life publishes what is settled by it."""
        _check(entries)
        if not entries:
            return Offset((await self._stream.state()).last)
        return await self._appended(entries, settled, lease)

    async def _appended(
        self, entries: Sequence[Entry], settled: float, lease: Lease | None
    ) -> Offset:
        async with self._write_lock:
            last = asyncio.get_running_loop().time() + self._timeout_s
            while True:
                try:
                    offset = Offset(await self._append(entries, lease))
                    self._settled = max(self._settled, settled)
                    return offset
                except _Again:
                    if asyncio.get_running_loop().time() > last:
                        raise Unsure(
                            "other replicas were first several times; nothing was written"
                        ) from None

    async def _append(self, entries: Sequence[Entry], lease: Lease | None) -> int:
        wanted: dict[int, int] = {}
        for each in entries:
            if each.subject:
                shard = shard_of(each.subject)
                wanted[shard] = min(wanted.get(shard, each.seen), each.seen)
        await self._shards.learn(wanted)
        newer = {
            i: Offset(at)
            for i, each in enumerate(entries)
            if each.subject
            and (at := max(self._shards.newer(each.subject, each.seen), self._purged(each.seen)))
        }
        if newer:
            raise Outdated(newer)
        messages = await self._messages(entries, lease)
        try:
            last = await self._publish(messages, lease)
        except Refused as error:
            if error.code in _WRONG_LAST:
                await self._look_again(entries, wanted, messages)
                raise _Again from None
            if error.code == _TWICE:
                known = await self.find([each.record.eid for each in entries])
                raise Duplicate(next(iter(known), entries[0].record.eid)) from None
            if error.code in _CUT_OFF:  # the leader has changed
                raise _Again from None
            raise Unsure(f"JetStream refused the append: {error}") from None
        for offset, (each, message) in enumerate(
            zip(entries, messages, strict=True), last - len(entries) + 1
        ):
            if each.subject:
                self._shards.appended(each.subject, offset)
            else:
                self._own_last[message.subject] = offset
        return last

    def _purged(self, seen: int) -> int:
        """Up to where records of its subject may have been purged unseen, otherwise 0. What was
        checked that long ago waited while the servers were away; the base is asked at a join.
        """
        return self._base if self._base > seen else 0

    async def _messages(self, entries: Sequence[Entry], lease: Lease | None) -> list[_Message]:
        """The first message of each subject names the one that it expects to be the last there."""
        subjects, known, found = self._names.subjects, set[str](), list[_Message]()
        for each in entries:
            if each.subject:
                shard = shard_of(each.subject)
                subject, last = subjects.of_shard(shard), self._shards.last(shard)
            else:
                role = None if lease is None else lease.role
                subject = (
                    subjects.of_replica(self._replica) if role is None else subjects.of_role(role)
                )
                last = await self._own(subject)
            headers = {MESSAGE_ID: message_id(each.record.eid)}
            if subject not in known:
                known.add(subject)
                headers[EXPECTED] = str(last)
            body = pack(each.record, each.subject)
            if len(body) + _HEADERS > self._wire.max_payload:
                held = await shared_snapshots.hold(self._apart, self._names, each.record.body)
                body = pack(each.record, each.subject, held)
            self._try(each.record.eid, subject, last)
            found.append(_Message(subject, body, headers))
        return found

    async def _publish(self, messages: Sequence[_Message], lease: Lease | None) -> int:
        """Nothing counts before the last message, which is sent only if this replica is open."""
        batch = secrets.token_hex(8)
        if len(messages) > 1:
            for i, each in enumerate(messages, 1):
                each.headers |= {BATCH: batch, POSITION: str(i)}
            for each in messages[:-1]:
                await self._wire.publish(each.subject, each.body, each.headers)
            messages[-1].headers[COMMIT] = "1"
        await self._members.check(lease)
        last = messages[-1]
        answer = await self._wire.put(last.subject, last.body, last.headers)
        if answer.get("duplicate"):
            raise Refused(_TWICE, "duplicate message id")
        return int(answer["seq"])

    async def _look_again(
        self, entries: Sequence[Entry], shards: dict[int, int], messages: Sequence[_Message]
    ) -> None:
        """Read what was written meanwhile.

        Raises Duplicate if an earlier try of this append was.
        """
        ours = {each.record.eid for each in entries}
        for message in await self._shards.look_again(shards):
            if message.record.eid in ours:
                raise Duplicate(message.record.eid)
        for subject in {each.subject for each in messages} & self._own_last.keys():
            before = self._own_last[subject]
            async for eid, offset in ids_of(
                self._wire, self._names.stream, [subject], after=before
            ):
                if eid in ours:
                    raise Duplicate(eid)
                self._own_last[subject] = offset
            if self._own_last[subject] == before:  # it may have been deleted
                self._own_last[subject] = min(before, await self._stream.last_of(subject))

    async def _own(self, subject: str) -> int:
        """The last message of a subject that has no shard."""
        if subject not in self._own_last:
            found = await self._stream.newest(subject)
            self._own_last[subject] = 0 if found is None else found.seq
        return self._own_last[subject]

    def _try(self, eid: str, subject: str, last: int) -> None:
        """Note that an append of it is pending, whatever its result."""
        self._tried.setdefault(eid, (subject, last))
        while len(self._tried) > _TRIED:
            del self._tried[next(iter(self._tried))]

    async def beat(self, settled: float, applied: int, mark: Mark = NO_MARK) -> None:
        """Write this replica's row again. Raises Fenced if it was closed."""
        async with self._member_lock:
            await self._members.beat(max(settled, self._settled), applied, applied, mark)

    async def tail(self, after: Offset, most: int = 512) -> list[Tailed]:
        """The messages that the server pushed; if there are none, the leader is asked whether there
        are more. If there is nothing after the same offset a second time, this waits for a while.
        """
        async with self._read_lock:
            wait_s = BEAT_S if self._empty_at == after else 0.0
            last = asyncio.get_running_loop().time() + self._timeout_s
            while True:
                found = await self._next(int(after), most, wait_s)
                state = None if found else await self._stream.state()
                if state is not None and state.last > after and wait_s:
                    found = await self._tail.erased()
                if found:
                    before = int(after)
                    for each in found:
                        self._shards.read(before, each)
                        before = int(each.offset)
                    self._empty_at = -1
                    return [each.tailed() for each in found]
                if state is not None and state.last <= after:
                    self._empty_at = int(after)
                    return []
                if (base := await self._members.base()) > after:
                    raise Trimmed(int(after), base + 1)
                if asyncio.get_running_loop().time() > last:
                    await self._tail.drop()
                    raise Unsure("the server has more messages than it sends")
                wait_s = BEAT_S

    async def _next(self, after: int, most: int, wait_s: float) -> list[Message]:
        try:
            return await self._tail.next(after, most, wait_s)
        except Corrupt:
            await self._tail.drop()
            base = await self._members.base()
            if base > after:
                raise Trimmed(after, base + 1) from None
            raise

    async def find(self, eids: Sequence[str]) -> dict[str, Offset]:
        """For appends of this process, search their subjects; for others, the records that a
        replica of this name wrote since the ids were made.
        """
        found: dict[str, Offset] = {}
        tried: dict[str, int] = {}
        rest = set[str]()
        for eid in eids:
            if eid in self._tried:
                subject, last = self._tried[eid]
                tried[subject] = min(tried.get(subject, last), last)
            else:
                rest.add(eid)
        wanted, stream = set(eids), self._names.stream
        shards = {subject: last for subject, last in tried.items() if subject not in self._own_last}
        for each in await in_parallel(*map(self._stream.following, shards, shards.values())):
            found |= {m.record.eid: m.offset for m in (one.message() for one in each)}
        for subject in tried.keys() - shards.keys():
            async for eid, offset in ids_of(self._wire, stream, [subject], after=tried[subject]):
                found[eid] = Offset(offset)
        found = {eid: offset for eid, offset in found.items() if eid in wanted}
        if rest:
            times = [made_at(eid) for eid in rest]
            since = min((each for each in times if each is not None), default=0.0) - _EARLIER_S
            if None in times:
                since = 0.0
            async for eid, offset in ids_of(self._wire, stream, self._earlier(), since=since):
                if eid in rest:
                    found[eid] = Offset(offset)
        return found

    def _earlier(self) -> list[str]:
        """The subjects that an earlier process may have used;

        of another name, if this one is new.
        """
        subjects = self._names.subjects
        if self.member.epoch > 1:
            return [subjects.of_replica(self._replica)]
        return [subjects.of_replicas]

    async def state(self) -> LogState:
        """The settled time is read first: everything settled is then before the head."""
        settled, _ = await self._members.settled()
        state = await self._stream.state()
        return LogState(state.last, state.last, settled, state.now, await self._members.base())

    async def replicas(self) -> list[Replica]:
        """All keys of the bucket."""
        return await self._members.replicas()

    async def chain_at(self, offset: Offset) -> bytes:
        """Of the message that has this number."""
        found = await self._stream.at(int(offset)) if offset > 0 else None
        if found is not None:
            return found.message().chain
        gone = await self._erased(int(offset)) if offset > 0 else None
        return b"" if gone is None else gone.chain

    async def lead(self, role: str, held: Lease | None, ttl_s: float) -> Lease | None:
        """Take or keep it by the revision of the lease's key."""
        async with self._member_lock:
            lease = await self._members.lead(role, held, ttl_s)
        if lease is not None and lease != held:
            subject = self._names.subjects.of_role(role)
            async with self._write_lock:  # what is not written yet is refused from now on
                self._own_last.pop(subject, None)
                await self._own(subject)
        return lease

    async def close_silent(self, ttl_s: float) -> int:
        """Close them by the revisions of their keys, so a new sign of life keeps a replica open."""
        return await self._members.close_silent(ttl_s)

    async def save_snapshot(self, key: str, at: Offset, state: bytes, keep: int) -> None:
        """In the object store, on a separate connection."""
        await shared_snapshots.save(self._apart, self._names, key, at, state, keep)

    async def newest_snapshot(
        self, key: str, after: Offset, upto: Offset
    ) -> tuple[Offset, bytes] | None:
        """From the object store, on a separate connection."""
        return await shared_snapshots.newest(self._apart, self._names, key, after, upto)

    async def snapshots(self) -> list[tuple[str, Offset]]:
        """From the object store, on a separate connection."""
        return await shared_snapshots.all_of(self._apart, self._names)

    async def trim(self, upto: Offset) -> None:
        """One purge of the stream; then the bodies in the object store that are older than the
        first record that is left.
        """
        base = min(int(upto), (await self._stream.state()).last)
        await self._members.set_base(base)
        await self._stream.purge(base)
        first = await self._stream.next(self._names.subjects.all, base)
        if first is not None:
            before = first.ns / 1e9 - _EARLIER_S
            await shared_snapshots.let_go(self._apart, self._names, before, base)

    @property
    def cannot_erase(self) -> str:
        """A stream that an earlier release created denies it for ever."""
        if self._erases:
            return ""
        return (
            f"the stream {self._names.stream} was created by an earlier release, which had it deny "
            "deletions; migrate the log to another log.name"
        )

    async def forget(self, owners: Sequence[str], upto: Offset) -> int:
        """What stays of each record is stored first, then it is overwritten and deleted. All
        records are read, since the servers know no owners.
        """
        if not all(owners):
            raise ValueError("owners: none must be empty")
        wire, count, some = await self._apart(), 0, list[Message]()
        try:
            async for message in owned(wire, self._names.stream, owners, int(upto)):
                some.append(message)
                if len(some) == MOST:
                    count += await self._erase(some)
                    some = []
            return count + (await self._erase(some) if some else 0)
        finally:
            await wire.close()

    async def _erase(self, messages: Sequence[Message]) -> int:
        await shared_snapshots.note_erased(
            self._apart, self._names, [each.without_body() for each in messages]
        )
        for each in messages:
            if each.held:
                await shared_snapshots.drop_body(self._apart, self._names, each.held)
            await self._stream.erase(int(each.offset))
        return len(messages)

    async def _erased(self, offset: int) -> Message | None:
        """What stays of an erased record; None if it was not erased."""
        if offset not in self._gone:
            self._gone = await shared_snapshots.erased(self._apart, self._names)
        return self._gone.get(offset)

    async def forget_snapshots(self, before: Offset) -> None:
        """In the object store."""
        await shared_snapshots.forget(self._apart, self._names, before)

    async def _apart(self) -> Wire:
        """A connection for large data, so that nothing else waits for it."""
        wire = Wire(self._timeout_s)
        try:
            await wire.open(self._address, self._servers[0], self._timeout_s)
        except BaseException:  # also where the service ends meanwhile
            await wire.close()
            raise
        return wire

    async def _held(self, digest: bytes) -> bytes:
        return await shared_snapshots.held(self._apart, self._names, digest)

    async def leave(self) -> None:
        """Close this replica's row, after all pending appends."""
        async with self._write_lock, self._member_lock:
            try:
                await self._members.beat(self._settled, 0, 0, NO_MARK)
                await self._members.leave()
            except Fenced:
                return

    async def close(self) -> None:
        """Close the connection; pending requests on it fail."""
        await self._wire.close()


class _Again(Exception):
    """Nothing was written; the next try may succeed."""


def _check(entries: Sequence[Entry]) -> None:
    ids: set[str] = set()
    for each in entries:
        check_record(each.record)
        if each.record.eid in ids:
            raise Duplicate(each.record.eid)
        ids.add(each.record.eid)
    if len(entries) > MOST:
        raise ValueError(f"entries: at most {MOST} in one append, got {len(entries)}")
