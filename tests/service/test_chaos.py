"""Twelve kills with -9 under load; `make chaos` has two hundred. And that the check can fail."""

from __future__ import annotations

import copy
import random  # noqa: TID251 - places of damage, from a fixed seed
import shutil
from collections import Counter
from pathlib import Path

import pytest

from bandit_service.core import events as ev
from loadtest.chaos.load import Ledger, Wrong
from loadtest.chaos.run import Totals, chaos
from loadtest.chaos.trouble import damage
from loadtest.chaos.verify import verify
from policies import ArmId
from store import Record, _opening
from store.sqlite import SqliteLog

KILLS = 12


def _spoiled(how: str, ledger: Ledger) -> Ledger:
    """A ledger that says something else than what was acknowledged."""
    spoiled = copy.deepcopy(ledger)
    known = next(iter(spoiled.signals))
    match how:
        case "a decision that is not there":
            spoiled.decided.append("01900000-0000-7000-8000-000000000000")
        case "another value":
            spoiled.signals[known] = {"quality": 0.123}
        case "a reward that nobody sent":
            del spoiled.signals[known]
        case "an outcome that is not there":
            spoiled.keys["never"] = {}
        case "a cost that is not there":
            spoiled.costs["01900000-0000-7000-8000-000000000000"] = None
        case "another cost":
            spoiled.costs[next(iter(spoiled.costs))] = 7.0
        case "embeddings that are not there":
            spoiled.embedded += 10_000
        case "a key that nobody used":
            spoiled.keys.pop(next(iter(spoiled.keys)))
    return spoiled


@pytest.mark.long
async def test_nothing_acknowledged_is_lost_or_counted_twice_by_kill_9(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    data.mkdir()
    (data / "models").symlink_to(models, target_is_directory=True)
    totals = await chaos(data, KILLS, seed=20, verify_every=KILLS // 2, tick=_nothing)
    assert totals.kills == KILLS
    assert totals.ledger.acknowledged > 200
    assert len(totals.ledger.costs) > 10
    assert totals.ledger.embedded > 0
    assert totals.ledger.resolved > 0
    assert totals.found is not None
    assert totals.compared > 0
    assert totals.beside["costs that waited for space, all found"] > 0
    verify(data, totals.ledger)
    for how in (
        "a decision that is not there",
        "another value",
        "a reward that nobody sent",
        "an outcome that is not there",
        "a cost that is not there",
        "another cost",
        "embeddings that are not there",
        "a key that nobody used",
    ):
        with pytest.raises(Wrong):
            verify(data, _spoiled(how, totals.ledger))


def test_the_check_of_damaged_copies_finds_a_shorter_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, data = tmp_path / "live", tmp_path / "var"
    (data / "snapshots").mkdir(parents=True)
    live.mkdir()
    log = SqliteLog(live / "events.sqlite3")
    for i in range(30):
        arm = ev.ArmSpec(id=ArmId(f"arm-{i}"), usd_per_mtok_in=1.0, usd_per_mtok_out=2.0)
        event = ev.ArmAdded(ts=1.0 + i, arm=arm, source="api")
        log.append([Record(f"e{i}", ev.kind(event), event.ts, ev.encode(event))])
    log.sync()
    for file in live.iterdir():
        shutil.copy(file, data)
    log.close()
    rng, seen = random.Random(1), Counter[str]()
    damage(data, rng, seen)
    assert seen == {f"{how}, refused": 1 for how in ("flipped", "cut off", "missing")}
    monkeypatch.setattr(_opening, "refuse_shortened", lambda *_: None)
    with pytest.raises(Wrong, match="is taken for a shorter log"):
        damage(data, rng, seen)


def _nothing(_: Totals) -> None:
    """Nobody watches."""
