"""The replicas of a log and their leases, in a key-value bucket of JetStream.

A key is written only by a client that knows its newest revision. A replica's last sign of life is
the time at which the server stored its key, so only the server's clock counts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from store._jetstream_record import EXPECTED, token
from store._jetstream_stream import Found, Stream, in_parallel
from store._nats_wire import Refused
from store._shared import Fenced, Lease, Mark, Membership, OtherKey, Replica, Unsure

_WRONG_LAST = (10071, 10164)
_GONE_S = 86_400.0
_CLOSED = "this replica was silent for too long, or another of its name joined: it is closed"


@dataclass(frozen=True, slots=True)
class Row:
    """A replica, the revision of its key, and when that was written."""

    slot: int
    revision: int
    seen: float
    name: str
    epoch: int
    key: str
    applied: int = 0
    durable: int = 0
    settled: float = 0.0
    closed: bool = False
    clean: bool = False
    digest_at: int = 0
    digest: str = ""
    reads: int = 1

    def replica(self, now: float, roles: tuple[str, ...]) -> Replica:
        """The replica as the others see it."""
        return Replica(
            slot=self.slot,
            name=self.name,
            epoch=self.epoch,
            applied=self.applied,
            durable=self.durable,
            settled=self.settled,
            unseen_s=max(0.0, now - self.seen),
            closed=self.closed,
            key=self.key,
            roles=roles,
            mark=Mark(self.digest_at, self.digest),
            reads=self.reads,
        )


class Moved(Exception):
    """Another client wrote the key first."""


class Members:
    """The bucket. mine: this replica's row, as it last wrote it."""

    def __init__(self, stream: Stream, bucket: str, alive_s: float, lost_after_s: float) -> None:
        self._stream, self._bucket = stream, bucket
        self._alive_s, self._lost_after_s = alive_s, lost_after_s
        self.mine: Row | None = None

    async def all(self) -> tuple[list[Row], float]:
        """All rows, by slot, and the server's time."""
        state = await self._stream.state(self._key("replica", "*"))
        found = await in_parallel(*(self._stream.newest(each) for each in state.subjects))
        rows = [_row(each) for each in found if each is not None]
        return sorted(rows, key=lambda row: row.slot), state.now

    async def join(self, name: str, key: str, reads: int) -> Membership:
        """Take the slot of this name, a slot whose replica left a day ago, or a new one."""
        while True:
            rows, now = await self.all()
            _refuse_other_key(rows, now, name, key, self._alive_s)
            before = _slot_for(rows, now, name)
            revision = 0 if before is None else before.revision
            slot = max((row.slot for row in rows), default=0) + 1 if before is None else before.slot
            wanted = Row(
                slot,
                revision,
                0.0,
                name,
                1 if before is None else before.epoch + 1,
                key,
                settled=0.0 if before is None else before.settled,
                reads=reads,
            )
            try:
                self.mine = await self._write(wanted)
            except Moved:
                continue
            break
        rows, now = await self.all()  # two that joined at once see each other here
        try:
            _refuse_other_key(rows, now, name, key, self._alive_s)
        except OtherKey:
            await self.leave()
            raise
        settled = max(row.settled for row in rows)
        return Membership(self.mine.slot, self.mine.epoch, settled)

    async def beat(self, settled: float, applied: int, durable: int, mark: Mark) -> None:
        """Write the row of this replica again. Raises Fenced if it was closed."""
        while True:
            mine = self._own()
            try:
                self.mine = await self._write(
                    replace(
                        mine,
                        settled=max(mine.settled, settled),
                        applied=applied,
                        durable=max(mine.durable, durable),
                        digest_at=mark.offset,
                        digest=mark.digest,
                    )
                )
                return
            except Moved:
                await self._read_mine()

    async def check(self, lease: Lease | None) -> None:
        """Raise Fenced if this replica was closed, or another one has the lease."""
        mine = self._own()
        asked = [self._stream.newest(self._key("replica", str(mine.slot)))]
        if lease is not None:
            asked.append(self._stream.newest(self._key("lease", token(lease.role))))
        found = await in_parallel(*asked)
        self._is_mine(found[0])
        if lease is not None:
            held = {} if found[1] is None else json.loads(found[1].payload)
            if (held.get("holder"), held.get("epoch")) != (mine.slot, lease.epoch):
                raise Fenced(f"the role {lease.role!r} has moved to another replica")

    async def leave(self) -> None:
        """Close the row of this replica cleanly, and release its leases."""
        mine = self._own()
        for lease, holder, epoch, revision in await self._leases():
            if holder == mine.slot:
                try:
                    await self._put(
                        self._key("lease", lease),
                        {"holder": 0, "epoch": epoch, "ttl_s": 0},
                        revision,
                    )
                except Moved:
                    continue
        while True:
            try:
                self.mine = await self._write(replace(self._own(), closed=True, clean=True))
                return
            except Moved:
                try:
                    await self._read_mine()
                except Fenced:
                    return

    async def close_silent(self, ttl_s: float) -> int:
        """Close replicas without a sign of life for this long; returns how many."""
        rows, now = await self.all()
        closed = 0
        for row in rows:
            if not row.closed and now - row.seen > ttl_s:
                try:
                    await self._write(replace(row, closed=True))
                except Moved:  # it was seen, or another closed it
                    continue
                closed += 1
        return closed

    async def lead(self, role: str, held: Lease | None, ttl_s: float) -> Lease | None:
        """Take or keep a lease; None if another replica has it."""
        mine, key = self._own(), self._key("lease", token(role))
        now, found = (await self._stream.state()).now, await self._stream.newest(key)
        epoch, revision = 1, 0
        if found is not None:
            told, revision = json.loads(found.payload), found.seq
            own = held is not None and (told["holder"], told["epoch"]) == (mine.slot, held.epoch)
            if not own and told["holder"] and now < found.ns / 1e9 + told["ttl_s"]:
                return None
            epoch = told["epoch"] + (0 if own else 1)
        try:
            await self._put(key, {"holder": mine.slot, "epoch": epoch, "ttl_s": ttl_s}, revision)
        except Moved:
            return None
        return Lease(role, epoch)

    async def replicas(self) -> list[Replica]:
        """All replicas, with their roles."""
        rows, now = await self.all()
        leases = await self._leases(now)
        return [
            row.replica(now, tuple(role for role, holder, *_ in leases if holder == row.slot))
            for row in rows
        ]

    async def settled(self) -> tuple[float, float]:
        """The time before which all answered decisions are durable, and the server's time."""
        rows, now = await self.all()
        counted = [
            row.settled
            for row in rows
            if not row.closed or (not row.clean and now - row.seen < self._lost_after_s)
        ]
        return min(counted, default=0.0), now

    async def base(self) -> int:
        """Up to where the log is trimmed. Its first message does not tell: it may be erased."""
        found = await self._stream.newest(self._key("base"))
        return 0 if found is None else int(json.loads(found.payload)["base"])

    async def set_base(self, upto: int) -> None:
        """Note that it is trimmed up to there, or further."""
        while True:
            found = await self._stream.newest(self._key("base"))
            if found is not None and json.loads(found.payload)["base"] >= upto:
                return
            try:
                await self._put(
                    self._key("base"), {"base": upto}, 0 if found is None else found.seq
                )
            except Moved:
                continue
            return

    # --- inside ---------------------------------------------------------------------------

    async def _leases(self, now: float | None = None) -> list[tuple[str, int, int, int]]:
        """Role, holder, epoch and revision; with `now` only leases that have not ended."""
        state = await self._stream.state(self._key("lease", "*"))
        found = []
        for subject in state.subjects:
            one = await self._stream.newest(subject)
            if one is None:
                continue
            told = json.loads(one.payload)
            if now is None or now < one.ns / 1e9 + told["ttl_s"]:
                role = subject.rpartition(".")[2]
                found.append((role, told["holder"], told["epoch"], one.seq))
        return found

    def _own(self) -> Row:
        if self.mine is None:
            raise Fenced("this replica has not joined")
        return self.mine

    async def _read_mine(self) -> None:
        mine = self._own()
        found = await self._stream.newest(self._key("replica", str(mine.slot)))
        self.mine = self._is_mine(found)

    def _is_mine(self, found: Found | None) -> Row:
        mine = self._own()
        row = None if found is None else _row(found)
        if row is None or row.closed or (row.name, row.epoch) != (mine.name, mine.epoch):
            raise Fenced(_CLOSED)
        return row

    def _key(self, *parts: str) -> str:
        return ".".join((f"$KV.{self._bucket}", *parts))

    async def _write(self, row: Row) -> Row:
        told = {name: getattr(row, name) for name in _TOLD}
        revision = await self._put(self._key("replica", str(row.slot)), told, row.revision)
        return replace(row, revision=revision)

    async def _put(self, key: str, told: dict[str, Any], revision: int) -> int:
        body, wire = json.dumps(told).encode(), self._stream.wire
        try:
            return int((await wire.put(key, body, {EXPECTED: str(revision)}))["seq"])
        except Refused as error:
            if error.code in _WRONG_LAST:
                raise Moved from None
            raise Unsure(f"JetStream refused to write {key}: {error}") from None


_TOLD = [name for name in Row.__slots__ if name not in ("slot", "revision", "seen")]


def _row(found: Found) -> Row:
    slot, told = int(found.subject.rpartition(".")[2]), json.loads(found.payload)
    known = {
        name: told[name] for name in _TOLD if name in told
    }  # a newer release may write more fields
    return Row(slot, found.seq, found.ns / 1e9, **known)


def _slot_for(rows: list[Row], now: float, name: str) -> Row | None:
    for row in rows:
        if row.name == name:
            return row
    return next((row for row in rows if row.closed and now - row.seen > _GONE_S), None)


def _refuse_other_key(rows: list[Row], now: float, name: str, key: str, alive_s: float) -> None:
    for row in rows:
        is_there = not row.closed and now - row.seen < alive_s
        if is_there and row.name != name and row.key != key:
            raise OtherKey(row.key)
