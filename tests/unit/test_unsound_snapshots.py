"""A snapshot is hashed while its world is restored: nothing of an invalid one is used."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

import policies
from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.apply import apply
from bandit_service.core.decide import decide
from bandit_service.core.exploration import Exploration
from bandit_service.core.query import Query, Recalled
from bandit_service.core.world import World, new_world
from bandit_service.runtime import recovery
from bandit_service.settings import policy_key
from policies import ArmId
from store import EventLog, Record
from store.snapshots import FileSnapshots


def _chosen(data: Path) -> settings.Settings:
    return settings.read(None, {"BANDIT_DATA_DIR": str(data)})


def _kept(chosen: settings.Settings) -> tuple[EventLog, FileSnapshots, World]:
    """A log, snapshots of its first half and of all of it, and the world after it."""
    name, snapshots = chosen.policy.name, assembly.open_snapshots(chosen)
    world = new_world({name: policies.load(name)}, name, chosen.history.capacity)
    log, key = assembly.open_log(chosen), recovery.snapshot_key(chosen.policy, chosen)
    spec = ev.ArmSpec(id=ArmId("a"), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
    made: list[ev.AnyEvent] = [ev.ArmAdded(ts=0.0, arm=spec, source="api")]
    for i in range(6):
        query = Query(np.eye(6, dtype=np.float32)[i], 25, 0.1)
        of = apply(world, made[0]) if not i else world
        made.append(decide(of, query, Recalled(), f"d{i}", float(i), Exploration()))
        made.append(ev.Rewarded(ts=float(i), decision_id=f"d{i}", quality=0.5, reward=0.5))
    for i, event in enumerate(made):
        log.append([Record(f"{i:026d}", ev.kind(event), event.ts, ev.encode(event), "")])
        if i:
            apply(world, event)
        if i in (6, len(made) - 1):
            mark = snapshot.mark_of(ev.encode(event))
            snapshots.save(log.sync(), key, snapshot.dump(world, mark))
    return log, snapshots, world


def _newest(chosen: settings.Settings) -> Path:
    there = (Path(chosen.data_dir) / chosen.snapshots.directory).glob("*.snapshot")
    return max(there, key=lambda one: one.name)


@pytest.mark.parametrize("in_pieces", [False, True])
def test_with_any_byte_flipped_the_one_before_it_is_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    in_pieces: bool,
) -> None:
    if in_pieces:
        monkeypatch.setattr("store.snapshots._PIECE", 1000)
    chosen = _chosen(tmp_path)
    log, snapshots, world = _kept(chosen)
    path = _newest(chosen)
    whole, caught = path.read_bytes(), 0
    assert recovery.recover(log, chosen, snapshots).after == log.last
    for at in range(9, len(whole), len(whole) // 25):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        caplog.clear()
        with caplog.at_level(logging.WARNING, "bandit.recovery"):
            found = recovery.recover(log, chosen, snapshots)
        assert found.after == 7
        assert found.world.digest() == world.digest()
        caught += any("checksum" in vars(one).get("why", "") for one in caplog.records)
    assert caught > 10, "most is read as if it were sound"
    log.close()


def test_an_error_in_what_is_not_sound_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = _chosen(tmp_path)
    log, snapshots, _ = _kept(chosen)
    path = _newest(chosen)
    whole, restore, tried = path.read_bytes(), snapshot.restore, list[int]()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))

    def starved(*args: object) -> World:
        tried.append(1)
        if len(tried) == 1:
            raise MemoryError
        return restore(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshot, "restore", starved)
    assert recovery.recover(log, chosen, snapshots).after == 7
    path.write_bytes(whole)
    tried.clear()
    with pytest.raises(MemoryError):
        recovery.recover(log, chosen, snapshots)
    log.close()


def test_what_a_damaged_one_says_of_the_policy_ends_no_start(tmp_path: Path) -> None:
    """It is read before the snapshot is known to be sound."""
    chosen = _chosen(tmp_path)
    log, snapshots, world = _kept(chosen)
    name, key = chosen.policy.name, policy_key(chosen.policy.name, chosen.policy.parameters)
    event = ev.PolicyChanged(ts=9.0, policy=name, key=key, parameters=b"{}", source="config")
    log.append([Record(f"{99:026d}", ev.kind(event), event.ts, ev.encode(event), "")])
    apply(world, event)
    made = snapshot.dump(world, snapshot.mark_of(ev.encode(event)))
    snapshots.save(log.sync(), recovery.snapshot_key(chosen.policy, chosen), made)
    path = _newest(chosen)
    whole = path.read_bytes()
    said, world_at = whole.index(b"\xa6policy"), whole.index(b"\xa5world")
    assert recovery.recover(log, chosen, snapshots).after == log.last
    for at in range(said, world_at):
        for bit in (0x01, 0x80):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            found = recovery.recover(log, chosen, snapshots)
            assert found.after < log.last
            assert found.world.digest() == world.digest()
    log.close()
