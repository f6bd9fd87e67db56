"""Recovery: the newest valid snapshot, and the rest of the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.apply import apply, skip
from bandit_service.core.history import PER_ITEM
from bandit_service.core.world import World, new_world
from bandit_service.settings import PolicySettings, Settings, load_policy, policy_key
from store import EventLog, Offset, StoreError
from store.snapshots import FileSnapshots

_log = logging.getLogger("bandit.recovery")
Progress = Callable[[int, int], None]


class NotWhole(StoreError):
    """The log begins after its first event, and no snapshot reaches its beginning."""


class OtherPast(StoreError):
    """A snapshot is of another log than the one it lies beside."""


@dataclass(frozen=True)
class Recovered:
    """The world after the whole log, and how it was come by.

    policy: what its learner was folded for, which is not the configured one while that is still to
    be folded. after: the snapshot's offset, 0 for none. erased: events whose record was erased.
    """

    world: World
    policy: PolicySettings
    after: int = 0
    erased: int = 0


def snapshot_key(policy: PolicySettings, settings: Settings) -> str:
    """The key of a world folded for this policy under these settings."""
    key = policy_key(policy.name, policy.parameters)
    return snapshot.key_of(key, settings.history.capacity, PER_ITEM)


def replayed(
    log: EventLog, settings: Settings, policy: PolicySettings | None = None,
    progress: Progress | None = None,
) -> Recovered:  # fmt: skip
    """The fold of the whole log for one policy, by default the configured one, from nothing."""
    chosen = policy or settings.policy
    if log.first > 1:
        raise NotWhole(
            f"the log begins at {log.first}: what was before is deleted by age or size, and no "
            "valid snapshot reaches it; `bandit-service inspect` lists the snapshots"
        )
    by_name = {chosen.name: load_policy(chosen)}
    world = new_world(by_name, chosen.name, settings.history.capacity)
    return _folded(log, Recovered(world, chosen), progress)


def recover(
    log: EventLog, settings: Settings, snapshots: FileSnapshots, progress: Progress | None = None
) -> Recovered:
    """The newest valid snapshot with the rest of the log; the whole log where there is none.

    Where there is none for the policy that is to serve, one of another policy will do: the service
    can decide by that at once.
    """
    snapshots.discard(after=log.last)  # of a log that was longer, and is not this one any more
    for policy in _candidates(settings, snapshots):
        found = snapshots.latest(snapshot_key(policy, settings))
        if found is None or found[0] < log.first - 1:
            continue
        at = found[0]
        try:
            kept = snapshot.read(found[1])
        except ValueError as error:
            _log.warning("snapshot unusable", extra={"offset": int(at), "why": str(error)})
            continue
        if kept.mark and mark_at(log, at) not in (kept.mark, b""):
            raise OtherPast(
                f"the snapshot at offset {at} is not of this log; move the snapshots away, or "
                "restore the log that they were made of"
            )
        world = snapshot.restore(kept, {policy.name: load_policy(policy)}, policy.name)
        begin = at if settings.log.verify == "tail" else Offset(log.first - 1)
        return _folded(log, Recovered(world, policy, int(at)), progress, begin)
    return replayed(log, settings, progress=progress)


def mark_at(log: EventLog, at: Offset) -> bytes:
    """The mark of the record at this offset; empty where it is no longer there."""
    if not log.first <= at <= log.last:
        return b""
    return snapshot.mark_of(next(body for _, body in log.replay(Offset(at - 1))))


def wanted_policy(world: World, settings: Settings) -> tuple[PolicySettings, str]:
    """The policy that is to serve, and who says so.

    The configured one, unless the API named another since the configuration last changed.
    """
    configured = policy_key(settings.policy.name, settings.policy.parameters)
    if world.configured_policy != configured or not world.policy:
        return settings.policy, "config"
    named = PolicySettings(world.policy, json.loads(world.parameters))
    try:
        load_policy(named)
    except (ValueError, TypeError) as error:
        _log.warning(
            "the policy that the API set is not there; the configured one serves",
            extra={"policy": named.name, "configured": settings.policy.name, "why": str(error)},
        )
        return settings.policy, "config"
    return named, "api"


def _candidates(settings: Settings, snapshots: FileSnapshots) -> list[PolicySettings]:
    """The configured policy and the one that the newest valid snapshot names, best first."""
    for each in sorted(snapshots.found(), key=lambda one: -one.offset):
        found = snapshots.latest(each.key)
        if found is None:
            continue
        try:
            kept = snapshot.read(found[1])
            named = PolicySettings(kept.policy, json.loads(kept.parameters))
            load_policy(named)
        except (ValueError, TypeError):
            continue
        as_before = kept.configured_policy == policy_key(
            settings.policy.name, settings.policy.parameters
        )
        return [named, settings.policy] if as_before else [settings.policy, named]
    return [settings.policy]


def _folded(
    log: EventLog, start: Recovered, progress: Progress | None, begin: Offset | None = None
) -> Recovered:
    """Apply what comes after the snapshot; what comes after `begin` is read, and so verified."""
    world, total, erased = start.world, log.last, start.erased
    for offset, body in log.replay(begin or Offset(0)):
        erased += not body
        if offset > start.after:
            world = apply(world, ev.decode(body)) if body else skip(world)
            world.history.take_changes()
        if progress is not None and (offset % 500 == 0 or offset == total):
            progress(int(offset), int(total))
    return Recovered(world, start.policy, start.after, erased)


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
