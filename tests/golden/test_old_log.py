"""A log of the first layout of the code is read by today's: what both know is equal, to the bit.

Commit 5a5a85b wrote both files, the log in format 2. `log-5a5a85b.sqlite3.gz`: 307 events of 16
kinds, among them decisions, rewards, corrections, comparisons, two experiments that run, drift
and erased units. `world-5a5a85b.json`: what that commit's own fold knew at the end. They are never
written again.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import policies
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.world import World, new_world
from bandit_service.statistics.calibration import Calibrating
from store.sqlite import SqliteLog

HERE = Path(__file__).parent
THEN: dict[str, Any] = json.loads((HERE / "world-5a5a85b.json").read_text(encoding="utf-8"))


def test_what_both_know_of_an_old_log_is_equal(tmp_path: Path) -> None:
    world = _world(tmp_path)
    assert world.unapplied == 0
    assert list(_differences(THEN, _of_today(world))) == []


def test_a_changed_bit_is_found(tmp_path: Path) -> None:
    """The comparison above can fail: at a count, the last bit of a sum, a decision that is gone."""
    now = _of_today(_world(tmp_path))
    now["counts"][2] += 1
    now["spend"]["hour"]["2026-11-29T14"]["service"] += 1e-15
    del now["pending"][next(iter(now["pending"]))]
    found = sorted(each.split(":")[0] for each in _differences(THEN, now))
    assert found == ["/counts/2", "/pending", "/spend/hour/2026-11-29T14/service"]


def _world(tmp_path: Path) -> World:
    path = tmp_path / "events.sqlite3"
    path.write_bytes(gzip.decompress((HERE / "log-5a5a85b.sqlite3.gz").read_bytes()))
    world = new_world({"eagle": policies.load("eagle")}, "eagle", 6)
    log = SqliteLog(path)
    for _, body in log.replay():
        world = apply(world, ev.decode(body))
    log.close()
    return world


def _of_today(world: World) -> dict[str, Any]:
    """What the old world had, from where it is now."""
    learners, history, trials = world.learners, world.history, world.experiments
    now = {
        "learner_state": {label: one.state for label, one in learners.items()},
        "learner_meta": {
            label: [one.failures, one.uncorrected, one.name, one.key, one.own, one.seeded]
            for label, one in learners.items()
        },
        "history": history.items,
        "history_meta": [history.capacity, history.per_item, history.next_id],
        "history_vectors": history.vectors()[1].tobytes(),
        "history_faded": history.faded,
        "arms": world.arms,
        "configured": world.catalogue.configured,
        "pending": world.pending.decisions,
        "keys": world.pending.keys,
        "counts": [world.events, world.decisions, world.rewards, world.comparisons],
        "policy": [
            world.policy.name,
            world.policy.key,
            world.policy.parameters,
            world.policy.configured,
        ],
        "ts": world.ts,
        "erasing": list(world.erasures.owners),
        "spend": world.spend.windows,
        "drift": world.drift,
        "specs": trials.specs,
        "configured_experiments": trials.configured,
        "trials": trials.trials,
        "rules": trials.rules,
        "configured_rules": trials.configured_rules,
        "calibration": world.calibrations.known(),
    }
    plain: dict[str, Any] = _plain(now)
    return plain


def _plain(value: Any) -> Any:
    """`value` as JSON has it, with every field of a record and without caches."""
    match value:
        case np.ndarray():
            return ["array", value.dtype.str, list(value.shape), value.tobytes().hex()]
        case np.generic():
            return value.item()
        case bytes():
            return value.hex()
        case msgspec.Struct():
            return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case Calibrating():
            return _plain(value.known())
        case _ if dataclasses.is_dataclass(value):
            names = (each.name for each in dataclasses.fields(value))
            return {name: _plain(getattr(value, name)) for name in names if name[0] != "_"}
        case _:
            return value


def _differences(then: Any, now: Any, path: str = "") -> Iterator[str]:
    """Where `now` is not as `then` says; what only `now` has is no difference."""
    if isinstance(then, dict) and isinstance(now, dict):
        if missing := then.keys() - now.keys():
            yield f"{path}: without {sorted(missing)}"
        for key in then.keys() & now.keys():
            yield from _differences(then[key], now[key], f"{path}/{key}")
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for i, (one, other) in enumerate(zip(then, now, strict=True)):
            yield from _differences(one, other, f"{path}/{i}")
    elif then != now:
        yield f"{path}: was {then!r}, is {now!r}"
