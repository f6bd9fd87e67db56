"""Twenty kills with -9 under load; `make chaos` has two hundred. And that the check can fail."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from loadtest.chaos.load import Ledger, Wrong
from loadtest.chaos.run import Totals, chaos
from loadtest.chaos.verify import verify

KILLS = 20


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


async def test_nothing_acknowledged_is_lost_or_counted_twice_by_kill_9(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    data.mkdir()
    (data / "models").symlink_to(models, target_is_directory=True)
    totals = await chaos(data, KILLS, seed=20, verify_every=KILLS // 2, tick=_nothing)
    assert totals.kills == KILLS
    assert totals.ledger.acknowledged > 500
    assert len(totals.ledger.costs) > 20
    assert totals.ledger.embedded > 0
    assert totals.ledger.resolved > 0
    assert totals.found is not None
    assert totals.found.from_snapshot > 0
    assert totals.compared > 0
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


def _nothing(_: Totals) -> None:
    """Nobody watches."""
