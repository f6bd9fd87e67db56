"""A shared log in memory whose calls can fail in every way, and replicas on it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import policies
from bandit_service import clock, wire
from bandit_service.core import events as ev
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.core.world import World, new_world
from bandit_service.runtime.router import Router
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.runtime.shared.checkpoint import Checkpoint, Place
from bandit_service.runtime.shared.link import Link, LinkRules
from bandit_service.runtime.shared.rules import SharedRules
from bandit_service.runtime.shared.spool import Spool
from bandit_service.runtime.shared.writer import SharedWriter
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId
from store import (
    Corrupt,
    Duplicate,
    Entry,
    Fenced,
    Lease,
    LogState,
    Mark,
    Membership,
    Offset,
    OtherKey,
    Outdated,
    Record,
    Replica,
    Tailed,
    Trimmed,
    Unsure,
)
from store._shared import NO_MARK
from store.history import ExactIndex
from store.memory import MemoryLog

DIM = 4
HANG_S = 120.0
"""Only what hangs takes so long: a machine that is busy makes a file's turn take seconds."""


class Engine:
    """What all replicas share. down: nobody reaches it. unsure: the next append of each replica of
    these names is not answered, and done if True. durable: up to where it is told, until a replica
    says that it is alive; None for all. base: up to where records are trimmed. kept: the snapshots,
    by key and offset. skew_s: how far the clocks of replicas of these names are ahead.
    """

    def __init__(self) -> None:
        self.records: list[tuple[Record, bytes, bytes]] = []
        self.members: dict[str, list[Any]] = {}  # name: slot, epoch, settled, closed, clean
        self.leases: dict[str, tuple[str, int]] = {}
        self.marks: dict[str, tuple[int, Mark]] = {}
        self.down = False
        self.other_key = ""
        self.reads: dict[str, int] = {}
        self.unsure: dict[str, bool] = {}
        self.skew_s: dict[str, float] = {}
        self.durable: int | None = None
        self.base = 0
        self.kept: dict[tuple[str, Offset], bytes] = {}

    def chain(self, offset: int) -> bytes:
        """Of the records up to here."""
        return self.records[offset - 1][2] if self.base < offset <= len(self.records) else b""


class MemoryShared:
    """A `SharedLog` on an engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name = ""
        self.member = Membership(0, 0, 0.0)

    def _check(self) -> None:
        if self.engine.down:
            raise Unsure("it is down")

    async def connect(self) -> None:
        await asyncio.sleep(0)
        self._check()

    async def join(self, name: str, key: str, reads: int = 1) -> Membership:
        self._check()
        if self.engine.other_key:
            raise OtherKey(self.engine.other_key)
        self.engine.reads[name] = reads
        self.name = name
        before = self.engine.members.setdefault(name, [len(self.engine.members) + 1, 0, 0.0, 0, 0])
        before[1], before[3], before[4] = before[1] + 1, False, False
        self.member = Membership(before[0], before[1], before[2])
        return self.member

    def _member(self) -> list[Any]:
        found = self.engine.members[self.name]
        if found[1] != self.member.epoch or found[3]:
            raise Fenced("closed")
        return found

    async def append(
        self, entries: Sequence[Entry], settled: float, lease: Lease | None = None
    ) -> Offset:
        await asyncio.sleep(0)
        self._check()
        done = self.engine.unsure.pop(self.name, None)
        if done is not False:
            self._put(entries, settled, lease)
        if done is not None:
            raise Unsure("no answer")
        last = Offset(len(self.engine.records))
        await asyncio.sleep(0)
        return last

    def _put(self, entries: Sequence[Entry], settled: float, lease: Lease | None) -> None:
        member, records = self._member(), self.engine.records
        if lease is not None and self.engine.leases.get(lease.role) != (self.name, lease.epoch):
            raise Fenced("not the keeper")
        there = {record.eid for record, _, _ in records}
        for each in entries:
            if each.record.eid in there:
                raise Duplicate(each.record.eid)
        newer = {}
        for i, each in enumerate(entries):
            of = [
                at for at, one in enumerate(records, 1) if each.subject and one[1] == each.subject
            ]
            if of and of[-1] > each.seen:
                newer[i] = Offset(of[-1])
        if newer:
            raise Outdated(newer)
        for each in entries:
            before = records[-1][2] if records else b""
            chain = hashlib.sha256(before + each.record.body).digest()
            records.append((each.record, each.subject, chain))
        member[2] = max(member[2], settled)

    async def append_copied(self, records: Sequence[Record]) -> Offset:
        return await self.append([Entry(each) for each in records], 0.0)

    async def begin_after(self, offset: Offset) -> None:
        raise NotImplementedError("its offsets are the places in a list")

    async def beat(self, settled: float, applied: int, mark: Mark = NO_MARK) -> None:
        self._check()
        member = self._member()
        self.engine.marks[self.name] = applied, mark
        self.engine.durable = None
        member[2] = max(member[2], settled)

    async def tail(self, after: Offset, most: int = 512) -> list[Tailed]:
        self._check()
        if after < self.engine.base:
            raise Trimmed(int(after), self.engine.base + 1)
        some = self.engine.records[: self.engine.durable][after : after + most]
        return [
            Tailed(Offset(at), record, chain)
            for at, (record, _, chain) in enumerate(some, int(after) + 1)
        ]

    async def find(self, eids: Sequence[str]) -> Mapping[str, Offset]:
        self._check()
        there = {record.eid: Offset(at) for at, (record, _, _) in enumerate(self.engine.records, 1)}
        return {eid: there[eid] for eid in eids if eid in there}

    async def state(self) -> LogState:
        self._check()
        head = len(self.engine.records)
        open_ = [each[2] for each in self.engine.members.values() if not each[4]]
        settled = min(open_, default=0.0)
        now = clock.now() - self.engine.skew_s.get(self.name, 0.0)
        return LogState(head, head, settled, now, self.engine.base)

    async def replicas(self) -> list[Replica]:
        self._check()
        found, marks = [], self.engine.marks
        for name, (slot, epoch, settled, closed, _) in self.engine.members.items():
            applied, mark = marks.get(name, (0, NO_MARK))
            found.append(
                Replica(
                    slot,
                    name,
                    epoch,
                    applied,
                    0,
                    settled,
                    0.0,
                    bool(closed),
                    "key",
                    (),
                    mark,
                    self.engine.reads.get(name, 1),
                )
            )
        return found

    async def chain_at(self, offset: Offset) -> bytes:
        self._check()
        return self.engine.chain(int(offset))

    async def lead(self, role: str, held: Lease | None, ttl_s: float) -> Lease | None:
        self._check()
        now = self.engine.leases.get(role)
        if now is None:
            now = self.engine.leases[role] = (self.name, 1)
        return Lease(role, now[1]) if now[0] == self.name else None

    async def close_silent(self, ttl_s: float) -> int:
        return 0

    async def save_snapshot(self, key: str, at: Offset, state: bytes, keep: int) -> None:
        self._check()
        self.engine.kept[key, at] = state

    async def newest_snapshot(
        self, key: str, after: Offset, upto: Offset
    ) -> tuple[Offset, bytes] | None:
        self._check()
        fit = [at for other, at in self.engine.kept if other == key and after < at <= upto]
        if not fit:
            return None
        state = self.engine.kept[key, max(fit)]
        if not state:
            raise Corrupt(int(max(fit)), "planted")
        return max(fit), state

    async def snapshots(self) -> list[tuple[str, Offset]]:
        self._check()
        return sorted(self.engine.kept, key=lambda each: each[1], reverse=True)

    async def trim(self, upto: Offset) -> None:
        self._check()
        self.engine.base = max(self.engine.base, int(upto))

    async def leave(self) -> None:
        self._check()
        member = self._member()
        member[3] = member[4] = True

    async def close(self) -> None:
        pass


class _Embedder:
    dim = DIM
    waiting = 0

    def clear(self) -> None:
        pass


class Running:
    """One replica: `decide` and `reward` as a client would, `die` as by kill -9."""

    def __init__(
        self, engine: Engine, path: Path, ttl_s: float = 1000.0, embeddings: str = ev.FLOAT32
    ) -> None:
        self.shared = MemoryShared(engine)
        self.dead = False
        self.begins_ts = 0.0
        self._path, self._ttl_s, self._embeddings = path, ttl_s, embeddings

    async def put_an_arm(self) -> None:
        """The one that all decisions draw."""
        spec = ev.ArmSpec(id=ArmId("a"), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
        await self.router.catalogue.put_arm(spec)

    async def start(self, forgotten: dict[str, float] | None = None, **rules: Any) -> Running:
        self._path.mkdir(exist_ok=True)
        checkpoint = Checkpoint(self._path / "replica.json", "main")
        self.name = checkpoint.name
        copy = MemoryLog()
        link = Link(self.shared, copy, checkpoint, LinkRules("key", 5.0, 3.0, 0.5, 300.0))
        world = new_world({"uniform": policies.load("uniform")}, "uniform", 10)
        telemetry = Telemetry(pending=lambda: 0, remembered=lambda: 0)
        chosen: dict[str, Any] = {
            "max_batch": 8,
            "poll_s": 0.001,
            "timeout_s": 1.0,
            "park_s": HANG_S,
        } | rules
        chosen = {
            "max_parked": 100,
            "max_spool": 100,
            "after_wait_s": HANG_S,
            "digest_every": 0,
            "keep_snapshots": 0,
        } | chosen
        self.spool = Spool(self._path / "spool.sqlite3")
        self.writer = SharedWriter(
            world,
            copy,
            telemetry,
            link,
            self.spool,
            SharedRules(**chosen),
            sync_interval_s=60.0,
            embeddings=self._embeddings,
        )
        link.forgotten, link.begins_ts = forgotten or {}, self.begins_ts
        link.place = Place()  # its copy is in memory, and begins anew
        self.router = Router(
            writer=self.writer,
            index=ExactIndex(DIM),
            embedder=_Embedder(),  # type: ignore[arg-type]  # every query brings its embedding
            telemetry=telemetry,
            rules=RouterRules(
                Exploration(),
                RewardRule(),
                0,
                self._ttl_s,
                None,
                1000,
                10,
                100,
                1000,
                1.0,
                embeddings=self._embeddings,
            ),
        )
        await link.join()
        await self.router.start()
        await self.writer.caught_up()
        return self

    @property
    def world(self) -> World:
        return self.writer.world

    async def decide(self, i: int = 0, unit: str = "") -> str:
        vector = np.eye(DIM)[i % DIM].tolist()
        return (await self.router.decide(wire.DecideRequest(embedding=vector, unit=unit))).id

    async def reward(self, id: str, quality: float = 0.5, **more: Any) -> str:
        return await self.router.reward(wire.RewardRequest(decision_id=id, quality=quality, **more))

    async def die(self) -> None:
        """What it has in memory is gone; its files stay, and nobody else is told."""
        self.dead, router = True, self.router
        beside = (router.pending._kept, router.measuring._kept, router._crediting._kept)
        for task in (*self.writer._running, *beside, self.writer._committing):
            if task is not None:
                await task.end()
        self.spool.close()

    async def close(self) -> None:
        await self.router.close()


async def same(*replicas: Running) -> str:
    """The digest of all, once all have all."""
    last = len(replicas[0].shared.engine.records)
    async with asyncio.timeout(HANG_S):
        for each in replicas:
            while each.writer.seen < last:
                await asyncio.sleep(0.001)
    digests = {each.world.digest() for each in replicas}
    assert len(digests) == 1, digests
    return digests.pop()
