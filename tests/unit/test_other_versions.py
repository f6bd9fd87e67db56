"""A snapshot of another version is no error: the log is folded again, and the service says so.

Where the log cannot be folded again, since it was trimmed or has erased records, the service goes
on from the snapshot of the version before.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import policies
from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import codec, snapshot, upgrade
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.calibrations import Calibrations
from bandit_service.core.drift import Drift
from bandit_service.core.learners import Learners
from bandit_service.core.world import World, new_world
from bandit_service.runtime import recovery
from policies import ArmId, Arms, Context
from store import EventLog, Offset, Record, can_erase, can_trim

ARMS = 20


class Before(msgspec.Struct):
    """Events, and the snapshot of them by the last version that wrote its version."""

    policy: str
    parameters: dict[str, Any]
    capacity: int
    events: list[bytes]
    snapshot: bytes

    def folded(self) -> World:
        """The fold of the events by this version."""
        made = policies.load(self.policy, **self.parameters)
        world = new_world({self.policy: made}, self.policy, self.capacity)
        for body in self.events:
            apply(world, ev.decode(body))
        return world

    def key(self, chosen: settings.Settings, version: int = 9) -> str:
        return recovery.snapshot_key(chosen.policy, chosen, version)

    def log(self, chosen: settings.Settings) -> EventLog:
        """The events in a log, each of the owner of its decision's number."""
        log = assembly.open_log(chosen)
        for i, body in enumerate(self.events):
            event = ev.decode(body)
            log.append([Record(f"{i:026d}", ev.kind(event), event.ts, body, f"{i}")])
        log.sync()
        return log


def _golden(version: int) -> Before:
    path = Path(__file__).parents[1] / "golden" / f"world-{version}.msgpack"
    return msgspec.msgpack.decode(path.read_bytes(), type=Before)


NINE, ELEVEN, TWELVE = _golden(9), _golden(11), _golden(12)


def of_before(before: Before, data: Path) -> settings.Settings:
    return replace(
        _chosen(data),
        policy=settings.PolicySettings(before.policy, dict(before.parameters)),
        history=settings.HistorySettings(capacity=before.capacity),
    )


def _chosen(data: Path) -> settings.Settings:
    return settings.read(None, {"BANDIT_DATA_DIR": str(data)})


def _with_an_old_snapshot(chosen: settings.Settings) -> tuple[EventLog, str]:
    """A log, and a snapshot of all of it by the version before."""
    log = assembly.open_log(chosen)
    for i in range(ARMS):
        spec = ev.ArmSpec(id=ArmId(f"arm{i}"), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
        event = ev.ArmAdded(ts=float(i), arm=spec, source="api")
        log.append([Record(f"{i:026d}", ev.kind(event), event.ts, ev.encode(event), "")])
    log.sync()
    ours = recovery.snapshot_key(chosen.policy, chosen)
    old = ours.removesuffix(f"-v{snapshot.VERSION}") + f"-v{snapshot.VERSION - 1}"
    assembly.open_snapshots(chosen).save(log.last, old, b"another encoding")
    return log, old


def test_the_log_is_folded_again_and_it_is_said_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = _chosen(tmp_path)
    log, old = _with_an_old_snapshot(chosen)
    with caplog.at_level(logging.WARNING, "bandit.recovery"):
        recovered = recovery.recover(log, chosen, assembly.open_snapshots(chosen))
    log.close()
    assert (recovered.after, len(recovered.world.arms)) == (0, ARMS)
    (said,) = caplog.records
    assert said.getMessage() == "snapshots of another version are not used"
    assert vars(said)["keys"] == [old]


def test_a_log_without_its_beginning_names_the_version_that_is_needed(tmp_path: Path) -> None:
    chosen = _chosen(tmp_path)
    log, old = _with_an_old_snapshot(chosen)
    assert can_trim(log)
    while log.trim(Offset(ARMS // 2)):
        pass
    with pytest.raises(recovery.NotWhole, match="of another version") as told:
        recovery.recover(log, chosen, assembly.open_snapshots(chosen))
    log.close()
    assert old in str(told.value)


def test_there_is_a_step_from_the_version_before() -> None:
    assert snapshot.VERSION - 1 in upgrade.STEPS
    assert snapshot.versions_before()[0] == snapshot.VERSION - 1


def _but_learners(world: World) -> str:
    """The digest without what policies know, since these may learn otherwise by now."""
    _without_what_13_knows(world)
    return replace(world, learners=Learners()).digest()


def test_a_world_of_version_9_is_the_fold_of_its_events() -> None:
    made = policies.load(NINE.policy, **NINE.parameters)
    kept = snapshot.read(NINE.snapshot)
    world, anew = snapshot.restore_before(kept, 9, {NINE.policy: made}, NINE.policy)
    folded = NINE.folded()
    assert _but_learners(world) == _but_learners(folded)
    assert world.learners.keys() == folded.learners.keys() > {NINE.policy}
    for label in world.learners.keys() - set(anew):
        assert codec.dump(world.learners[label].state) in NINE.snapshot, "it knows what it knew"


def test_a_world_of_version_11_is_the_fold_of_its_events_but_for_who_answered() -> None:
    """It has deployments, a route, an experiment and a metric."""
    made = {ELEVEN.policy: policies.load(ELEVEN.policy)}
    kept = snapshot.read(ELEVEN.snapshot)
    world, anew = snapshot.restore_before(kept, 11, made, ELEVEN.policy)
    folded = ELEVEN.folded()
    known = {one.deployment for one in folded.pending.decisions.values()}
    assert (anew, known) == ([], {"", "one", "two"})
    assert world.digest() != folded.digest()
    for one in folded.pending.decisions.values():
        one.deployment = ""
    _without_what_13_knows(folded)
    assert world.digest() == folded.digest()


def test_a_world_of_version_12_is_the_fold_of_its_events_but_for_what_was_not_taught() -> None:
    """It has a route whose policy began anew, and corrections before and after that."""
    made = {TWELVE.policy: policies.load(TWELVE.policy)}
    kept = snapshot.read(TWELVE.snapshot)
    world, anew = snapshot.restore_before(kept, 12, made, TWELVE.policy)
    folded = TWELVE.folded()
    assert anew == []
    assert world.digest() != folded.digest()
    _without_what_13_knows(folded)
    assert world.digest() == folded.digest()


def _without_what_13_knows(world: World) -> None:
    for one in world.pending.decisions.values():
        one.taught = 0
    for learner in world.learners.values():
        learner.missed = (0, 0)


def test_replicas_that_kept_a_snapshot_of_version_11_have_the_state_of_those_that_did_not(
    tmp_path: Path,
) -> None:
    chosen = of_before(ELEVEN, tmp_path)
    log, snapshots = ELEVEN.log(chosen), assembly.open_snapshots(chosen)
    snapshots.save(log.last, ELEVEN.key(chosen, 11), ELEVEN.snapshot)
    recovered = recovery.recover(log, chosen, snapshots)
    folded = recovery.replayed(log, chosen)
    log.close()
    assert recovered.world.digest() == folded.world.digest()


def test_a_part_that_was_not_there_begins_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(world: upgrade.Parts) -> upgrade.Parts:
        moved = upgrade.STEPS[8](world)
        del moved["drift"], moved["calibrations"]
        return moved

    monkeypatch.setitem(upgrade.STEPS, 8, upgrade.STEPS[9])
    monkeypatch.setitem(upgrade.STEPS, 9, without)
    made = policies.load(NINE.policy, **NINE.parameters)
    kept = snapshot.read(NINE.snapshot)
    world, _ = snapshot.restore_before(kept, 9, {NINE.policy: made}, NINE.policy)
    assert (world.drift, world.calibrations) == (Drift(), Calibrations())
    assert world.counts == NINE.folded().counts


def test_a_version_without_a_step_is_told() -> None:
    made = policies.load(NINE.policy, **NINE.parameters)
    kept = snapshot.read(NINE.snapshot)
    with pytest.raises(ValueError, match="not a world of version 3"):
        snapshot.restore_before(kept, 3, {NINE.policy: made}, NINE.policy)


def test_a_trimmed_log_goes_on_from_the_version_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = of_before(NINE, tmp_path)
    log, snapshots = NINE.log(chosen), assembly.open_snapshots(chosen)
    snapshots.save(log.last, NINE.key(chosen), NINE.snapshot)
    later = ev.Forgotten(ts=100.0, owner="another")
    log.append([Record("later", ev.kind(later), later.ts, ev.encode(later))])
    assert can_trim(log)
    while log.trim(Offset(40)):
        pass
    recovered = recovery.recover(log, chosen, snapshots)
    assert (recovered.version, recovered.after) == (9, len(NINE.events))
    with caplog.at_level(logging.WARNING, "bandit.app"):
        assembly._keep_upgraded(recovered, log, chosen, snapshots)
    assert vars(caplog.records[-1])["version"] == 9
    again = recovery.recover(log, chosen, snapshots)
    log.close()
    assert (again.version, again.after) == (snapshot.VERSION, len(NINE.events) + 1)
    assert again.world.digest() == recovered.world.digest()
    expected = apply(NINE.folded(), later)
    assert _but_learners(recovered.world) == _but_learners(expected)


def test_so_does_a_log_with_erased_records(tmp_path: Path) -> None:
    chosen = of_before(NINE, tmp_path)
    log, snapshots = NINE.log(chosen), assembly.open_snapshots(chosen)
    snapshots.save(log.last, NINE.key(chosen), NINE.snapshot)
    assert can_erase(log)
    assert log.forget("7", log.last) == 1
    recovered = recovery.recover(log, chosen, snapshots)
    log.close()
    assert (recovered.version, recovered.unknown) == (9, 0)
    assert _but_learners(recovered.world) == _but_learners(NINE.folded())


def test_a_policy_that_cannot_be_read_learns_what_is_remembered() -> None:
    """As one whose state has got other fields: here it is read as another policy's."""
    other, untaught = policies.load("metallm"), policies.load("metallm").init()
    kept = snapshot.read(NINE.snapshot)
    world, anew = snapshot.restore_before(kept, 9, {NINE.policy: other}, NINE.policy)
    assert NINE.policy in anew
    context = Context(np.array([1.0, 0.0, 0.0, 0.0], np.float32), 25, 0.1)
    arms = Arms(tuple(map(ArmId, "abc")), np.zeros(3), np.zeros(3))
    learned = other.propose(world.learners[NINE.policy].state, context, arms)
    assert not np.allclose(learned.scores, other.propose(untaught, context, arms).scores)
