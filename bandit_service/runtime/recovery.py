"""Recovery: the newest valid snapshot, and the rest of the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bandit_service.core import codec, snapshot
from bandit_service.core import events as ev
from bandit_service.core.apply import apply, skip
from bandit_service.core.history import PER_ITEM
from bandit_service.core.learner import OF_THE_MACHINE
from bandit_service.core.world import World, new_world
from bandit_service.settings import PolicySettings, Settings, load_policy, policy_key
from store import Corrupt, EventLog, Offset, StoreError, first_of
from store.snapshots import FileSnapshots

_log = logging.getLogger("bandit.recovery")
Progress = Callable[[int, int], None]
_SWITCH = b"policy_changed"


class NotWhole(StoreError):
    """The log begins after its first event, and no snapshot reaches its beginning."""


class OtherPast(StoreError):
    """A snapshot is of another log than the one it lies beside."""


class NotApplied(StoreError):
    """An event of the log cannot be applied by this process."""


@dataclass(frozen=True)
class Recovered:
    """The world after the whole log, and how it was obtained.

    policy: what its learner was folded for, which is not the configured one while that is still to
    be folded. after: the snapshot's offset, 0 for none. erased: events whose record was erased.
    unknown: how many of those no snapshot that was gone on from knew, so that what they taught is
    not in this world.
    """

    world: World
    policy: PolicySettings
    after: int = 0
    erased: int = 0
    unknown: int = 0


def snapshot_key(policy: PolicySettings, settings: Settings) -> str:
    """The key of a world folded for this policy under these settings."""
    key = policy_key(policy.name, policy.parameters)
    return snapshot.key_of(key, settings.history.capacity, PER_ITEM)


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


def recover(
    log: EventLog, settings: Settings, snapshots: FileSnapshots, progress: Progress | None = None
) -> Recovered:
    """The newest valid snapshot with the rest of the log; the whole log where there is none.

    The policy that decides is the one that the log says, or the configured one if the configuration
    has changed since; while that one is still to be folded, the one that decided before will do.
    Raises Corrupt where a snapshot is of more events than the log has: snapshots are made only of
    what was on the disk, so the end of the log is lost.
    """
    newest = snapshots.newest(log.last)
    if newest > log.last:
        raise Corrupt(
            int(log.last) + 1,
            f"it ends at {log.last}, and there is a snapshot of {newest} events; if an older log "
            f"was put here on purpose, move the snapshots away ({snapshots.directory})",
        )
    said = _said(log, snapshots)
    wanted, _ = _wanted(said, settings)
    before = said.settings() if said.policy else wanted
    for policy in [wanted] if wanted == before else [wanted, before]:
        found = _from_snapshot(policy, log, settings, snapshots, progress)
        if found is not None:
            return found
    others = _of_other_versions(snapshots)
    if first_of(log) == 1:
        if others:
            _log.warning("snapshots of another version are not used", extra={"keys": others})
        return replayed(log, settings, wanted, progress)
    for policy in _there(snapshots):  # of a log that cannot be folded again, any that reaches it
        found = _from_snapshot(policy, log, settings, snapshots, progress)
        if found is not None:
            return found
    if others:
        raise NotWhole(
            f"the log begins at {first_of(log)}, and the snapshots that reach it are of another "
            f"version ({', '.join(others)}); use the version that made them"
        )
    return replayed(log, settings, wanted, progress)


def _of_other_versions(snapshots: FileSnapshots) -> list[str]:
    """The keys of the snapshots that this version does not read."""
    keys = {each.key for each in snapshots.found() if not each.why}
    return sorted(key for key in keys if not snapshot.is_of_this_version(key))


def _from_snapshot(
    policy: PolicySettings,
    log: EventLog,
    settings: Settings,
    snapshots: FileSnapshots,
    progress: Progress | None,
) -> Recovered | None:
    """From the newest valid snapshot for this policy; None where there is none that can be used."""
    found = snapshots.latest(snapshot_key(policy, settings))
    if found is None or found[0] < first_of(log) - 1:
        return None
    at = found[0]
    try:
        kept = snapshot.read(found[1])
        world = snapshot.restore(kept, {policy.name: load_policy(policy)}, policy.name)
    except (ValueError, TypeError) as error:
        _log.warning("snapshot unusable", extra={"offset": int(at), "why": str(error)})
        return None
    if kept.mark and mark_at(log, at) not in (kept.mark, b""):
        raise OtherPast(
            f"the snapshot at offset {at} is not of this log; move the snapshots away, or "
            "restore the log that they were made of"
        )
    begin = at if settings.log.verify == "tail" else Offset(first_of(log) - 1)
    return _folded(log, Recovered(world, policy, int(at)), progress, begin)


def mark_at(log: EventLog, at: Offset) -> bytes:
    """The mark of the record at this offset; empty where it is no longer there."""
    if not first_of(log) <= at <= log.last:
        return b""
    return snapshot.mark_of(next(body for _, body in log.replay(Offset(at - 1))))


def wanted_policy(world: World, settings: Settings) -> tuple[PolicySettings, str]:
    """The policy that is to serve, and who says so.

    The configured one, unless the API named another since the configuration last changed.
    """
    return _wanted(
        _Said(world.policy.name, world.policy.parameters, world.policy.configured), settings
    )


@dataclass(frozen=True, slots=True)
class _Said:
    """What the log last said of the policy, "" where it said nothing."""

    policy: str = ""
    parameters: bytes = b"{}"
    configured: str = ""

    def settings(self) -> PolicySettings:
        return PolicySettings(self.policy, json.loads(self.parameters))


def _wanted(said: _Said, settings: Settings) -> tuple[PolicySettings, str]:
    configured = policy_key(settings.policy.name, settings.policy.parameters)
    if said.configured != configured or not said.policy:
        return settings.policy, "config"
    named = said.settings()
    if not _loads(named):
        _log.warning(
            "the policy that the API set is not there; the configured one serves",
            extra={"policy": named.name, "configured": settings.policy.name},
        )
        return settings.policy, "config"
    return named, "api"


def _said(log: EventLog, snapshots: FileSnapshots) -> _Said:
    """By the newest valid snapshot, of whatever policy, and the events since."""
    said, after = _Said(), Offset(first_of(log) - 1)
    for kept, at in _kept(snapshots):
        if first_of(log) - 1 <= at <= log.last:
            said = _Said(kept.policy, kept.parameters, kept.configured_policy)
            after = at
            break
    for _, body in log.replay(after):
        if _SWITCH not in body:  # most events are not worth decoding for this
            continue
        event = ev.decode(body)
        if isinstance(event, ev.PolicyChanged):
            configured = event.key if event.source == "config" else said.configured
            said = _Said(event.policy, event.parameters, configured)
    return said


def _kept(snapshots: FileSnapshots) -> Iterator[tuple[snapshot.Kept, Offset]]:
    """The valid ones of all keys, newest first."""
    for each in sorted(snapshots.found(), key=lambda one: -one.offset):
        found = None if each.why else snapshots.latest(each.key)
        if found is not None and found[0] == each.offset:
            with suppress(ValueError):
                yield snapshot.read(found[1]), each.offset


def _there(snapshots: FileSnapshots) -> list[PolicySettings]:
    """The policies of which there are valid snapshots, newest first."""
    found = []
    for kept, _ in _kept(snapshots):
        named = PolicySettings(kept.policy, json.loads(kept.parameters))
        if named not in found and _loads(named):
            found.append(named)
    return found


def _loads(policy: PolicySettings) -> bool:
    try:
        load_policy(policy)
    except (ValueError, TypeError):
        return False
    return True


def _folded(
    log: EventLog, start: Recovered, progress: Progress | None, begin: Offset | None = None
) -> Recovered:
    """Apply what comes after the snapshot; what comes after `begin` is read, and so verified."""
    world, total, erased, unknown = start.world, log.last, start.erased, 0
    for offset, body in log.replay(begin or Offset(0)):
        erased += not body
        if offset > start.after:
            unknown += not body
            world = _applied(world, int(offset), body)
            world.history.take_changes()
        if progress is not None and (offset % 500 == 0 or offset == total):
            progress(int(offset), int(total))
    world.learners.serving_key = policy_key(start.policy.name, start.policy.parameters)
    return Recovered(world, start.policy, start.after, erased, unknown)


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
        raise NotApplied(
            f"the event at offset {offset} cannot be applied ({type(error).__name__}); give the "
            "process more memory, or configure another policy"
        ) from None


def task_arguments(policy: PolicySettings, settings: Settings) -> dict[str, Any]:
    """What `folding.Task` reads of the settings."""
    return {
        "policy": policy.name,
        "parameters": policy.parameters,
        "key": snapshot_key(policy, settings),
        "capacity": settings.history.capacity,
        "per_item": PER_ITEM,
        "keep": settings.snapshots.keep,
    }
