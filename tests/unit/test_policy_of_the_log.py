"""A log may name a policy that this version refuses: a start goes on by the configured one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import policies
from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.apply import apply
from bandit_service.core.world import new_world
from bandit_service.runtime import recovery
from bandit_service.settings import PolicySettings, policy_key
from policies import ArmId
from store import Record


@pytest.mark.parametrize("kept", [False, True])
def test_a_parameter_that_is_refused_now_ends_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: bool
) -> None:
    """Before it had a range, `PUT /v1/policy` took it."""
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(tmp_path)})
    refused = PolicySettings("metallm", {"ridge": 1e-300})
    spec = ev.ArmSpec(id=ArmId("a"), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
    made: list[ev.AnyEvent] = [ev.ArmAdded(ts=0.0, arm=spec, source="api")]
    for one, parameters, source in (
        (chosen.policy, b"{}", "config"),
        (refused, b'{"ridge": 1e-300}', "api"),
    ):
        key = policy_key(one.name, one.parameters)
        made.append(
            ev.PolicyChanged(ts=1.0, policy=one.name, key=key, parameters=parameters, source=source)
        )
    log, snapshots = assembly.open_log(chosen), assembly.open_snapshots(chosen)
    world = new_world({"metallm": policies.load("metallm")}, "metallm", chosen.history.capacity)
    for i, event in enumerate(made):
        log.append([Record(f"{i:026d}", ev.kind(event), event.ts, ev.encode(event), "")])
        apply(world, event)
    if kept:
        state = snapshot.dump(world, snapshot.mark_of(ev.encode(made[-1])))
        snapshots.save(log.sync(), recovery.snapshot_key(refused, chosen), state)
    with caplog.at_level(logging.WARNING, "bandit.recovery"):
        found = recovery.recover(log, chosen, snapshots)
    assert (found.policy, found.world.events) == (chosen.policy, len(made))
    whys = [vars(one).get("why", "") for one in caplog.records]
    assert any(why.startswith("ridge: must be a number >= 1e-12") for why in whys), whys
    log.close()
