"""A snapshot of another version is no error: the log is folded again, and the service says so."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.runtime import recovery
from policies import ArmId
from store import EventLog, Offset, Record, can_trim

ARMS = 20


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
