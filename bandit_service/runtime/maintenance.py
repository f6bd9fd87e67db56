"""Maintenance of the log while serving: snapshots, retention, erasure, another policy.

The service decides meanwhile. A child process applies the events; the event loop only reads the log
in chunks of some tens of events.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Protocol

import numpy as np

import policies
from bandit_service import clock
from bandit_service.core import codec, snapshot
from bandit_service.core import events as ev
from bandit_service.core.errors import Conflict, Refused, ServiceError, Unavailable
from bandit_service.core.learner import Learner, teach
from bandit_service.runtime.folding import (
    Folded,
    FoldFailed,
    Progress,
    Stalled,
    Task,
    fold_elsewhere,
)
from bandit_service.runtime.recovery import mark_at, snapshot_key, task_arguments
from bandit_service.runtime.supervisor import FIRST_S, Kept
from bandit_service.runtime.writer import Writer
from bandit_service.settings import PolicySettings, Settings, load_policy, policy_key
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId, Arms, Context
from store import Offset, StoreError, Unsupported, can_erase, can_trim, first_of
from store.snapshots import FileSnapshots

_log = logging.getLogger("bandit.keeper")
_SLICE = 20
_LOOK_S, _AGAIN_S = 1.0, 30.0
_SWITCHES = 5


class SharedErasing(Protocol):
    """How records are erased where several processes share the log."""

    async def look(self) -> None:
        """Do what is left to do."""
        ...

    async def carry_out(self) -> None:
        """Erase this process' copy, as far as it is ordered."""
        ...

    async def done(self, owner: str) -> int:
        """Wait until it is erased; how many records of the copy."""
        ...


class SharedRetaining(Protocol):
    """How old records are deleted where several processes share the log."""

    async def look(self) -> None:
        """Do what is left to do."""
        ...

    async def carry_out(self) -> None:
        """Delete from this process' copy, as far as it is ordered."""
        ...


class Maintenance:
    """Keeps recovery short, and deletes old and erased records.

    announce: how a change of the policy begins where several processes share the log, else None.
    erasing, retaining: the same for erasures and for old records. forget_beside: deletes what is
    kept of an owner beside the log. due: whether a snapshot is made for all as soon as that can be.
    """

    def __init__(
        self,
        writer: Writer,
        snapshots: FileSnapshots,
        settings: Settings,
        telemetry: Telemetry,
        serving: PolicySettings,
        recovered_at: int,
    ) -> None:
        self.serving = serving
        self.progress: tuple[int, int] | None = None
        self.wanted: PolicySettings | None = None
        self._writer = writer
        self._snapshots = snapshots
        self._settings = settings
        self._telemetry = telemetry
        self._saved_at = recovered_at
        self._saved_time = time.monotonic()
        self._not_before = 0.0
        self._folding = asyncio.Lock()
        self._erasing: dict[str, asyncio.Future[int]] = {}
        self.announce: Callable[[PolicySettings, str], Awaitable[None]] | None = None
        self.erasing: SharedErasing | None = None
        self.forget_beside: Callable[[str], Awaitable[None]] = _nothing_beside
        self.retaining: SharedRetaining | None = None
        self.due = False
        self._looking: Kept | None = None
        self._changing: Kept | None = None
        made = snapshots.made_at(snapshot_key(serving, settings), Offset(recovered_at))
        telemetry.snapshot(recovered_at, made=made)

    def start(self) -> None:
        """Begin to make snapshots and to delete old records."""
        self._looking = self._writer.tasks.keep("upkeep", self._look_forever)

    async def close(self) -> None:
        """Stop; if anything is new, a last snapshot of the present world is made."""
        for task in (self._looking, self._changing):
            if task is not None:
                await task.end()
        last = self._writer.log.last
        if last > self._saved_at and not self._writer.broken.done():
            key = snapshot_key(self.serving, self._settings)
            mark = mark_at(self._writer.log, last)
            try:
                self._snapshots.save(last, key, snapshot.dump(self._writer.world, mark))
            except StoreError as error:
                _log.error("no snapshot at the end", extra={"why": str(error)})

    @property
    def key(self) -> str:
        """The key of snapshots of the present world."""
        return self.key_of(self.serving)

    def key_of(self, policy: PolicySettings) -> str:
        """The key of snapshots of a world that this policy serves."""
        return snapshot_key(policy, self._settings)

    # --- snapshots and retention ----------------------------------------------------------

    async def snapshot(self) -> Folded:
        """Make a snapshot of everything up to now. Raises StoreError or FoldFailed."""
        async with self._folding:
            folded = await self._snapshot(await self._writer.synced())
            await self.tried("shared snapshot", self._shared(Offset(folded.at)))
        return folded

    async def snapshot_for_all(self) -> Offset:
        """One that lies in the shared log; StoreError where it does not."""
        async with self._folding:
            at = Offset((await self._snapshot(await self._writer.synced())).at)
            shared = await self._shared(at)
        if not shared:
            raise StoreError("the snapshot was not shared: another is the keeper, or states differ")
        return at

    async def _shared(self, at: Offset) -> bool:
        """Under the lock, or an older one might come there after an erasure has deleted those."""
        return await self._shared_as(self.key, at)

    async def _shared_as(self, key: str, at: Offset) -> bool:
        def read() -> bytes:
            found = self._snapshots.latest(key)
            if found is None or found[0] != at:
                raise StoreError(f"the snapshot of offset {at} is not there any more")
            return bytes(found[1])

        return await self._writer.membership.share_snapshot(key, at, read)

    async def _snapshot(self, upto: Offset) -> Folded:
        """A snapshot of durable events: never of an event that a power cut may undo."""
        log = self._writer.log
        task = Task(
            **task_arguments(self.serving, self._settings),
            directory=str(self._snapshots.directory),
            first=int(first_of(log)),
        )
        begun = time.monotonic()
        folded = await self._fold(task, upto)
        self._saved_at, self._saved_time = folded.at, time.monotonic()
        self._telemetry.snapshot(folded.at, folded.size, self._saved_time - begun)
        self._writer.tasks.well("snapshots")
        _log.info("snapshot", extra={"offset": folded.at, "bytes": folded.size})
        return folded

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if time.monotonic() < self._not_before:
                continue
            due = self._settings.snapshots
            new = self._writer.log.last - self._saved_at
            waited = time.monotonic() - self._saved_time
            now = self.due and self._writer.membership.keeps
            if new >= due.every_events or (new and (now or waited >= due.every_s)):
                self.due = not await self.tried("snapshots", self.snapshot())
            await self._erase_left()
            await self.tried("retention", self._retain())
            self._writer.tasks.well("upkeep")

    async def tried(self, name: str, work: Awaitable[object]) -> bool:
        """One piece of upkeep; an error is reported, and it is tried again later."""
        tasks = self._writer.tasks
        try:
            await work
        except Exception as error:  # noqa: BLE001 - the next round comes whatever this one met
            self._not_before = time.monotonic() + _AGAIN_S
            self._telemetry.metrics.upkeep_failures.inc()
            tasks.failed(name, error)
            return False
        tasks.well(name)
        return True

    async def _fold(self, task: Task, upto: Offset, progress: Progress | None = None) -> Folded:
        stalled_s = self._settings.snapshots.stalled_s
        try:
            return await fold_elsewhere(task, self._writer.log, upto, progress, stalled_s)
        except Stalled:
            self._writer.child_ended()
            raise

    async def _retain(self) -> None:
        """Delete records beyond the limits of age and size, up to the oldest snapshot that may be
        needed.
        """
        if self.retaining is not None:
            await self.retaining.look()
            return
        upto = self.beyond_the_limits()
        if upto < first_of(self._writer.log):
            return
        kept = self._snapshots.offsets(snapshot_key(self.serving, self._settings))
        async with self._folding:
            await self._trimmed(min(upto, int(kept[0])) if kept else 0)

    def beyond_the_limits(self) -> int:
        """Up to where records are beyond the limits of age and size; 0 if none is."""
        log, rules = self._writer.log, self._settings.retention
        if not can_trim(log):
            return 0  # a start refuses rules of retention in this case
        upto = 0
        if rules.max_age_s:
            upto = int(log.offset_at(clock.now() - rules.max_age_s))
        if rules.max_bytes and log.size_bytes > rules.max_bytes:
            over = 1.0 - rules.max_bytes / log.size_bytes
            upto = max(upto, int(log.first) - 1 + int(over * (log.last - log.first + 1)))
        return upto

    async def _trimmed(self, upto: int) -> None:
        log = self._writer.log
        left = int(can_trim(log) and upto >= log.first)
        while left and can_trim(log):
            left = log.trim(Offset(upto))
            await asyncio.sleep(0)

    async def trim_copy(self, upto: Offset) -> None:
        """Delete the records up to an offset from this process' copy, once a snapshot of its own
        covers them.
        """
        async with self._folding:
            kept = self._snapshots.offsets(snapshot_key(self.serving, self._settings))
            if not kept or kept[-1] < upto:
                await self._snapshot(await self._writer.synced())
            await self._trimmed(int(upto))
            self._snapshots.forget(upto)  # from which nothing can begin any more

    # --- erasure --------------------------------------------------------------------------

    async def _erase_left(self) -> None:
        """What was begun before a restart, or when it failed."""
        if self.erasing is not None:
            await self.tried("erasure", self.erasing.look())
            return
        owners = self._writer.world.erasures.owners
        for owner in [one for one in owners if one not in self._erasing]:
            await self.tried("erasure", self.erase(owner))
        if not owners:
            self._writer.tasks.well("erasure")

    async def erase_copy(self, orders: Sequence[ev.ErasureOrdered]) -> dict[str, int]:
        """Erase what is ordered of this process' copy, once a snapshot knows it; how many records
        of each owner.
        """
        log, counts = self._writer.log, dict[str, int]()
        if not can_erase(log):
            raise Unsupported(log, "erase the records of a unit")
        async with self._folding:
            folded = await self._snapshot(await self._writer.synced())
            for each in orders:
                await self.forget_beside(each.owner)
                count = log.forget(each.owner, Offset(each.upto))
                counts[each.owner] = counts.get(each.owner, 0) + count
            self._snapshots.forget(Offset(folded.at))
        return counts

    async def erase(self, owner: str) -> int:
        """Erase the records of an owner that the world has forgotten; returns how many.

        An erasure that is under way is waited for. Raises Unsupported if the log cannot erase.
        """
        if self.erasing is not None:
            return await self.erasing.done(owner)
        while (under_way := self._erasing.get(owner)) is not None:
            await asyncio.wait([under_way])
            if not under_way.cancelled():
                return under_way.result()
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._erasing[owner] = ended
        try:
            ended.set_result(await self._erase(owner))
        except Exception as error:  # noqa: BLE001 - told to all who wait for it
            ended.set_exception(error)
        finally:
            del self._erasing[owner]
            ended.cancel()  # nothing where it has ended
        return ended.result()

    async def _erase(self, owner: str) -> int:
        """In this order: a snapshot without the owner, the records, the older snapshots.

        So at any moment a valid snapshot covers every record that can no longer be applied.
        """
        log = self._writer.log
        if not can_erase(log):
            raise Unsupported(log, "erase the records of a unit")
        await self.forget_beside(owner)
        folded = await self.snapshot()
        async with self._folding:
            count = log.forget(owner, Offset(folded.at))
            self._snapshots.forget(Offset(folded.at))
        await self._writer.submit(lambda: ev.Erased(ts=self._writer.now(), owner=owner))
        _log.info("erased", extra={"records": count})
        return count

    # --- another policy -------------------------------------------------------------------

    def change_policy(self, wanted: PolicySettings, source: str = "api") -> None:
        """Begin to train another policy, or other parameters, on the past; it serves when done.

        Raises Refused for an unknown policy, Conflict while another is in training, and Unavailable
        if another process on the log cannot read its events.
        """
        if not policies.exists(wanted.name):
            there_are = policies.there_are()
            raise Refused(
                f"name: no policy {wanted.name!r}; expected one of {there_are}", param="name"
            )
        try:
            load_policy(wanted)
        except (ValueError, TypeError) as error:
            raise Refused(f"parameters: {error}", param="parameters") from None
        if self.wanted is not None:
            raise Conflict(f"name: {self.wanted.name!r} is being folded; wait until it serves")
        if self.announce is not None:
            self._writer.membership.check_read_by_all(ev.PolicyAnnounced)
        self.wanted, self.progress = wanted, (0, int(self._writer.log.last))
        change = self._change if self.announce is None else self._announced
        self._changing = self._writer.tasks.keep("policy", partial(change, wanted, source))

    async def _announced(self, wanted: PolicySettings, source: str) -> None:
        """All that share the log train it, and switch together."""
        assert self.announce is not None
        try:
            await self.announce(wanted, source)
        except ServiceError as error:
            if self.wanted is wanted:
                self.wanted = self.progress = None
            _log.error("the policy was not changed", extra={"why": error.message})

    async def _change(self, wanted: PolicySettings, source: str) -> None:
        """Train and switch; tried several times, since the obstacle may be temporary."""
        try:
            for i in range(_SWITCHES):
                if i:
                    await asyncio.sleep(FIRST_S * 4.0**i)
                if await self.tried("policy", self._switched(wanted, source)):
                    return
        finally:
            self.wanted = self.progress = None
        why = self._writer.tasks.failing.get("policy", "")
        _log.error("the policy was not changed", extra={"policy": wanted.name, "why": why})

    async def _switched(self, wanted: PolicySettings, source: str) -> None:
        built = await self.folded(wanted, self._note_progress)
        self._switch(wanted, built, source)

    async def folded_to_serve(self, wanted: PolicySettings) -> Learner:
        """The same for a policy that will serve: its progress is reported, and a snapshot is kept
        for it.
        """
        return await self.folded(wanted, self._note_progress)

    async def folded_for_all(self, wanted: PolicySettings) -> tuple[Learner, Offset]:
        """The same, and the snapshot that is kept lies in the shared log; its offset."""
        ats = list[Offset]()

        async def share(at: Offset) -> None:
            if not await self._shared_as(snapshot_key(wanted, self._settings), at):
                raise StoreError(
                    "the policy was not shared: another is the keeper, or states differ"
                )
            ats.append(at)

        return await self.folded(wanted, self._note_progress, share), ats[-1]

    async def folded_on(self, wanted: PolicySettings, at: Offset, state: bytes) -> Learner:
        """The same from another process' snapshot of it."""
        self._snapshots.save(at, snapshot_key(wanted, self._settings), state)
        return await self.folded(wanted, self._note_progress, is_begun=True)

    async def carried_out(self) -> bool:
        """Erase and delete from this process' copy what is ordered; whether its log begins later
        than the first event.
        """
        if self.erasing is not None:
            await self.erasing.carry_out()
        if self.retaining is not None:
            await self.retaining.carry_out()
        return first_of(self._writer.log) > 1

    async def folded(
        self,
        wanted: PolicySettings,
        progress: Progress | None = None,
        share: Callable[[Offset], Awaitable[None]] | None = None,
        *,
        is_begun: bool = False,
    ) -> Learner:
        """A policy trained on the whole log by a child process, up to the present event.

        It learns the lessons of the meantime at the end. The caller must put the learner in its
        place before awaiting anything else. progress: also keep a snapshot for it, since it will
        serve. share: called with the offset of that snapshot. is_begun: there is a snapshot for it
        to continue from.
        """
        await self.carried_out()
        policy, log = load_policy(wanted), self._writer.log
        await asyncio.to_thread(policy.init)  # this may import a library
        with ExitStack() as until_learned:
            async with self._folding:
                queue = until_learned.enter_context(self._writer.lessons())
                upto = log.last
                await self._writer.synced()
                if progress is not None or first_of(log) > 1:
                    await self._snapshot(upto)
                task = Task(
                    **task_arguments(wanted, self._settings),
                    directory=str(self._snapshots.directory),
                    begin="taught" if is_begun else "fresh",
                    base_key=snapshot_key(self.serving, self._settings),
                    first=int(first_of(log)),
                    save=progress is not None,
                )
                folded = await self._fold(task, upto, progress)
                if share is not None:
                    await share(Offset(folded.at))
            built = snapshot.load_learner(folded.learner, policy)
            ids = tuple(sorted(self._writer.world.arms))
            await asyncio.to_thread(_warm, built, ids, self._dim())
            while queue:
                lessons, queue[:_SLICE] = queue[:_SLICE], []
                for lesson in lessons:
                    teach(built, lesson)
                if queue:
                    await asyncio.sleep(0)
            return built

    async def seeds(
        self, wanted: Sequence[PolicySettings], route: str = ""
    ) -> tuple[int, list[bytes]]:
        """What each policy would have learned from the whole log so far, and up to which event.

        All are of one moment; the state of the policy that serves the route, "" being the default
        one, is taken as it is. Raises Unavailable if that policy cannot be loaded.
        """
        async with self._folding:
            await self._writer.synced()
            world, log = self._writer.world, self._writer.log
            upto, events = log.last, world.events
            label = ev.label_of_route(route) if route else ""
            usual = world.learners.get(label or self.serving.name)
            if usual is None:
                raise Unavailable(f"route: the policy of {route!r} cannot be loaded here")
            serving = policy_key(self.serving.name, self.serving.parameters)
            key = usual.key if route else serving
            same = codec.dump(usual.state)
            states, based = [], False
            for each in wanted:
                if policy_key(each.name, each.parameters) == key:
                    states.append(same)
                    continue
                if first_of(log) > 1 and not based:
                    await self._snapshot(upto)
                    based = True
                task = Task(
                    **task_arguments(each, self._settings),
                    directory=str(self._snapshots.directory),
                    begin="fresh",
                    base_key=snapshot_key(self.serving, self._settings),
                    first=int(first_of(log)),
                    save=False,
                    route=label,
                )
                folded = await self._fold(task, upto)
                learner = snapshot.load_learner(folded.learner, load_policy(each))
                states.append(codec.dump(learner.state))
        return events, states

    def _switch(self, wanted: PolicySettings, built: Learner, source: str) -> None:
        """Append the event and replace the old learner, with no decision in between."""
        key = policy_key(wanted.name, wanted.parameters)
        changed = ev.PolicyChanged(
            ts=self._writer.now(),
            policy=wanted.name,
            key=key,
            parameters=json.dumps(wanted.parameters).encode(),
            source=source,
        )
        learners = self._writer.world.learners
        written = self._writer.append_now(
            changed, then=lambda: learners.serve(wanted.name, key, built)
        )
        if not written or learners.get(learners.serving) is not built:
            raise FoldFailed("the switch could not be written to the log; the old policy continues")
        self.serving = wanted
        _log.info("policy switched", extra={"policy": wanted.name, "key": key})

    def _note_progress(self, done: int, total: int) -> None:
        self.progress = (done, total)

    def _dim(self) -> int:
        history = self._writer.world.history
        return int(history.matrix.shape[1]) if history.items else 0


def _warm(learner: Learner, ids: tuple[ArmId, ...], dim: int) -> None:
    """Propose once, so that its first decision does not wait for caches."""
    if not ids or not dim:
        return
    nothing = Context(np.zeros(dim, np.float32), 1, 1.0)
    with suppress(ValueError, ArithmeticError, LookupError, TypeError):
        learner.policy.propose(
            learner.state, nothing, Arms(ids, np.zeros(len(ids)), np.zeros(len(ids)))
        )


async def _nothing_beside(_: str) -> None:
    """Nothing is kept beside the log."""
