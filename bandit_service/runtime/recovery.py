"""Recovery: the newest valid snapshot, and the rest of the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from bandit_service.core import codec, snapshot
from bandit_service.core import events as ev
from bandit_service.core.apply import apply, skip, uncollected
from bandit_service.core.history import PER_ITEM
from bandit_service.core.learner import OF_THE_MACHINE
from bandit_service.core.world import World, new_world
from bandit_service.runtime.log_check import verifies_all
from bandit_service.runtime.serving_policy import (
    Read,
    keys_of_other_versions,
    policies_of,
    said_of,
    wanted_of,
)
from bandit_service.settings import PolicySettings, Settings, load_policy, policy_key
from policies import fold_of
from store import Corrupt, EventLog, Offset, StoreError, first_of
from store.snapshots import FileSnapshots, Unsound

_log = logging.getLogger("bandit.recovery")
Progress = Callable[[int, int], None]


class NotWhole(StoreError):
    """The log begins after its first event, and no snapshot reaches its beginning."""


class OtherPast(StoreError):
    """A snapshot belongs to another log than the one next to it."""


class NotApplied(StoreError):
    """An event of the log cannot be applied by this process."""


@dataclass(frozen=True)
class Recovered:
    """The world after the whole log, and how it was obtained.

    policy: the policy of its learner; not the configured one if that still has to be trained.
    after: the snapshot's offset, 0 for none. erased: events whose record was erased. unknown: how
    many of those were in no snapshot that was used, so that their lessons are missing from this
    world. version: of the snapshot's world. anew: the policies whose state of an earlier version
    could not be read, and which learned again from the history. unread: up to which record the log
    was not read, and so not verified; 0 for none.
    """

    world: World
    policy: PolicySettings
    after: int = 0
    erased: int = 0
    unknown: int = 0
    version: int = snapshot.VERSION
    anew: tuple[str, ...] = ()
    unread: int = 0


def snapshot_key(
    policy: PolicySettings, settings: Settings, version: int = snapshot.VERSION
) -> str:
    """The key of a world folded for this policy under these settings."""
    return _world_key(policy_key(policy.name, policy.parameters), settings, version)


def replica_key(settings: Settings) -> str:
    """What replicas must have in common to compute the same states from a log: the key of their
    snapshots, and the version of the policy's learning rule.
    """
    named = settings.policy
    key, fold = policy_key(named.name, named.parameters), fold_of(load_policy(named))
    return _world_key(f"{key}-f{fold}" if fold else key, settings, snapshot.VERSION)


def _world_key(policy: str, settings: Settings, version: int) -> str:
    return snapshot.key_of(policy, settings.history.capacity, PER_ITEM, version)


@uncollected()
def replayed(
    log: EventLog,
    settings: Settings,
    policy: PolicySettings | None = None,
    progress: Progress | None = None,
) -> Recovered:
    """The fold of the whole log for one policy, by default the configured one, from nothing."""
    chosen = policy or settings.policy
    if first_of(log) > 1:
        raise NotWhole(
            f"the log begins at {first_of(log)}: what was before is deleted by age or size, and no "
            "valid snapshot reaches it; `bandit-service inspect` lists the snapshots"
        )
    by_name = {chosen.name: load_policy(chosen)}
    world = new_world(by_name, chosen.name, settings.history.capacity)
    return _folded(log, Recovered(world, chosen), progress)


@uncollected()
def recover(
    log: EventLog, settings: Settings, snapshots: FileSnapshots, progress: Progress | None = None
) -> Recovered:
    """Recover from the newest valid snapshot and the rest of the log, or from the whole log.

    The policy that decides is the one in the log, or the configured one if the configuration has
    changed since; while that one still has to be trained, the previous one decides. Raises Corrupt
    if a snapshot has more events than the log: snapshots are made only of durable events, so the
    end of the log is lost.

    The snapshot is hashed while its world is restored. If it turns out to be invalid, nothing of
    that world is used.
    """
    try:
        return _recovered(log, settings, snapshots, progress, checked=False)
    except Unsound as error:
        _log.warning("snapshot unusable", extra={"why": str(error)})
    # out of the handler: the error keeps what was restored, which is as large as the world
    return _recovered(log, settings, snapshots, progress, checked=True)


def _recovered(
    log: EventLog,
    settings: Settings,
    snapshots: FileSnapshots,
    progress: Progress | None,
    *,
    checked: bool,
) -> Recovered:
    newest = snapshots.newest(log.last)
    if newest > log.last:
        raise Corrupt(
            int(log.last) + 1,
            f"it ends at {log.last}, and there is a snapshot of {newest} events; if an older log "
            f"was put here on purpose, move the snapshots away ({snapshots.directory})",
        )
    said, read = said_of(log, snapshots, checked=checked)
    try:
        wanted, _ = wanted_of(said, settings)
        before = said.settings() if said.policy else wanted
    except Exception:
        if read is not None:
            read.begun.check()  # a damaged one may say anything
        raise
    first = [wanted] if wanted == before else [wanted, before]
    start = _Start(log, settings, snapshots, progress, read)
    del read  # as large as the world
    for policy in first:
        found = start.after_snapshot(policy)
        if found is not None:
            return found
    whole, others = None, keys_of_other_versions(snapshots)
    if first_of(log) == 1:
        if others:
            _log.warning("snapshots of another version are not used", extra={"keys": others})
        whole = replayed(log, settings, wanted, progress)
        if not whole.unknown:
            return whole
    # the log alone does not have all lessons: any snapshot that reaches its beginning is better
    there = policies_of(snapshots)
    for version in (snapshot.VERSION, *snapshot.versions_before()):
        for policy in (*first, *there):
            found = start.after_snapshot(policy, version, may_learn_anew=True)
            if found is not None:
                return found
    if whole is not None:
        return whole
    if others:
        raise NotWhole(
            f"the log begins at {first_of(log)}, and the snapshots that reach it are of another "
            f"version ({', '.join(others)}); use the version that made them"
        )
    return replayed(log, settings, wanted, progress)


@dataclass(slots=True)
class _Start:
    """The basis of a start: one log with the snapshots next to it."""

    log: EventLog
    settings: Settings
    snapshots: FileSnapshots
    progress: Progress | None
    read: Read | None

    def after_snapshot(
        self,
        policy: PolicySettings,
        version: int = snapshot.VERSION,
        may_learn_anew: bool = False,
    ) -> Recovered | None:
        """Recover from the newest valid snapshot for this policy; None if none can be used."""
        log = self.log
        found = self._latest(snapshot_key(policy, self.settings, version))
        if found is None or found[0] < first_of(log) - 1:
            return None
        at, kept, check = found
        try:
            try:
                world, anew = _restored(kept, policy, version, may_learn_anew)
            finally:
                check()  # instead of whatever error a damaged one leads to
        except (ValueError, TypeError) as error:
            _unusable(at, error)
            return None
        if kept.mark and mark_at(log, at) not in (kept.mark, b""):
            raise OtherPast(
                f"the snapshot at offset {at} is not of this log; move the snapshots away, or "
                "restore the log that they were made of"
            )
        del kept, found, check  # as large as the world
        begin = Offset(first_of(log) - 1) if verifies_all(self.settings) else at
        unread = int(begin) if begin >= first_of(log) else 0
        start = Recovered(world, policy, int(at), version=version, anew=tuple(anew), unread=unread)
        return _folded(log, start, self.progress, begin)

    def _latest(self, key: str) -> tuple[Offset, snapshot.Kept, Callable[[], None]] | None:
        """The newest snapshot of a key, and what raises Unsound where it is invalid; it is not read
        again if it is the newest of all.
        """
        read, self.read = self.read, None
        if read is not None and read.key == key:
            return read.at, read.kept, read.begun.check
        if read is not None:
            read.begun.check()  # it said which policies there are
        found = self.snapshots.latest(key)
        if found is None:
            return None
        try:
            return found[0], snapshot.read(found[1]), lambda: None
        except ValueError as error:
            _unusable(found[0], error)
            return None


def _unusable(at: Offset, error: Exception) -> None:
    _log.warning("snapshot unusable", extra={"offset": int(at), "why": str(error)})


def _restored(
    kept: snapshot.Kept, policy: PolicySettings, version: int, may_learn_anew: bool
) -> tuple[World, list[str]]:
    by_label = {policy.name: load_policy(policy)}
    if not may_learn_anew:
        return snapshot.restore(kept, by_label, policy.name), []
    return snapshot.restore_before(kept, version, by_label, policy.name)


def mark_at(log: EventLog, at: Offset) -> bytes:
    """The mark of the record at this offset; empty if the record no longer exists."""
    if not first_of(log) <= at <= log.last:
        return b""
    return snapshot.mark_of(next(body for _, body in log.replay(Offset(at - 1))))


def _folded(
    log: EventLog, start: Recovered, progress: Progress | None, begin: Offset | None = None
) -> Recovered:
    """Apply the events after the snapshot; the records after `begin` are read, and so verified."""
    world, total, erased, unknown = start.world, log.last, start.erased, 0
    offset = after = begin or Offset(0)
    try:
        with world.in_blocks():
            for offset, body in log.replay(after):
                erased += not body
                if offset > start.after:
                    unknown += not body
                    world = _applied(world, offset, body)
                if progress is not None and (offset % 500 == 0 or offset == total):
                    progress(int(offset), int(total))
    except OF_THE_MACHINE as error:  # from the last lessons, which are learned after their events
        raise _not_applied(f"the events up to offset {offset}", error) from None
    world.history.take_changes()  # the index is made of all vectors
    world.learners.serving_key = policy_key(start.policy.name, start.policy.parameters)
    return replace(start, world=world, erased=erased, unknown=unknown)


def _applied(world: World, offset: int, body: bytes) -> World:
    if not body:
        return skip(world)
    try:
        return apply(world, ev.decode(body))
    except codec.UNREADABLE:
        raise NotApplied(
            f"the event at offset {offset} is not known to this version; use the version that "
            "wrote it, or a newer one"
        ) from None
    except OF_THE_MACHINE as error:
        raise _not_applied(f"the event at offset {offset}", error) from None


def _not_applied(what: str, error: Exception) -> NotApplied:
    return NotApplied(
        f"{what} cannot be applied ({type(error).__name__}); give the process more memory, or "
        "configure another policy"
    )


def task_arguments(policy: PolicySettings, settings: Settings) -> dict[str, Any]:
    """The settings that `folding.Task` reads."""
    return {
        "policy": policy.name,
        "parameters": policy.parameters,
        "key": snapshot_key(policy, settings),
        "capacity": settings.history.capacity,
        "per_item": PER_ITEM,
        "keep": settings.snapshots.keep,
    }
