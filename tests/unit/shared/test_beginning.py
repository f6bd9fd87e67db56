"""From which snapshot a replica begins where the log's oldest events are deleted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import policies
from bandit_service import settings
from bandit_service.app import sharing
from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.apply import apply
from bandit_service.core.world import new_world
from bandit_service.runtime.recovery import NotWhole, replica_key, snapshot_key
from bandit_service.runtime.shared.checkpoint import Checkpoint
from bandit_service.runtime.shared.link import Link, LinkRules
from bandit_service.settings import PolicySettings, Settings, load_policy, policy_key
from policies import ArmId
from store import Entry, Offset, Record, Starting, StoreError, Unsure, can_trim
from store.snapshots import FileSnapshots
from store.sqlite import SqliteLog
from tests.unit.shared.memory import Engine, MemoryShared
from tests.unit.test_other_versions import NINE, of_before

BASE, LAST = 4, 8
EVENTS = [
    ev.ArmAdded(
        ts=float(i),
        arm=ev.ArmSpec(id=ArmId(f"a{i}"), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0),
        source="api",
    )
    for i in range(1, LAST + 1)
]


@pytest.fixture
def chosen() -> Settings:
    return settings.read(None, {"BANDIT_POLICY_NAME": "uniform"})


@pytest.fixture
async def shared(engine: Engine) -> MemoryShared:
    """A log whose oldest records are deleted."""
    made = MemoryShared(engine)
    await made.join("one", "key")
    await made.append([Entry(each) for each in _records(0)], 0.0)
    await made.trim(Offset(BASE))
    return made


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(tmp_path / "log")
    log.begin_after(Offset(BASE))
    log.append(_records(BASE))
    yield log
    log.close()


@pytest.fixture
def snapshots(tmp_path: Path) -> FileSnapshots:
    return FileSnapshots(tmp_path / "snapshots")


def _records(after: int) -> list[Record]:
    found = [(f"e{each.ts}", ev.kind(each), each.ts, ev.encode(each)) for each in EVENTS]
    return [Record(*each) for each in found[after:]]


def _keep(engine: Engine, chosen: Settings, at: int, policy: str = "uniform") -> None:
    """Its snapshot of this offset is in the shared log."""
    named = PolicySettings(policy)
    world = new_world({policy: load_policy(named)}, policy, chosen.history.capacity)
    key = policy_key(policy, {})
    said = ev.PolicyChanged(ts=0.5, policy=policy, key=key, parameters=b"{}")
    events: list[ev.AnyEvent] = [said, *EVENTS[1:at]]
    for event in events:
        world = apply(world, event)
    mark = snapshot.mark_of(ev.encode(EVENTS[at - 1]))
    engine.kept[snapshot_key(named, chosen), Offset(at)] = snapshot.dump(world, mark)


async def test_the_newest_one_that_is_whole_is_taken(
    engine: Engine,
    shared: MemoryShared,
    copy: SqliteLog,
    snapshots: FileSnapshots,
    chosen: Settings,
) -> None:
    for at in (5, 6):
        _keep(engine, chosen, at)
    key = snapshot_key(chosen.policy, chosen)
    engine.kept[key, Offset(7)] = b""
    engine.kept[key, Offset(8)] = engine.kept[key, Offset(5)]  # of another past
    await sharing.begun_from(shared, copy, snapshots, chosen)
    assert snapshots.offsets(key) == [6]
    found = sharing.recovered_for_all(copy, chosen, snapshots, None)
    assert (found.after, found.world.events, found.policy.name) == (6, LAST, "uniform")


async def test_the_policy_that_serves_by_the_snapshots_is_gone_on_with(
    engine: Engine,
    shared: MemoryShared,
    copy: SqliteLog,
    snapshots: FileSnapshots,
    chosen: Settings,
) -> None:
    _keep(engine, chosen, 5)
    _keep(engine, chosen, 7, "knn")
    await sharing.begun_from(shared, copy, snapshots, chosen)
    found = sharing.recovered_for_all(copy, chosen, snapshots, None)
    assert (found.after, found.policy.name, found.world.serving) == (7, "knn", "knn")


@pytest.mark.parametrize("at", [0, BASE - 1])
async def test_without_one_that_reaches_the_beginning_a_start_is_refused(
    engine: Engine,
    shared: MemoryShared,
    copy: SqliteLog,
    snapshots: FileSnapshots,
    chosen: Settings,
    at: int,
) -> None:
    if at:
        _keep(engine, chosen, at)
    await sharing.begun_from(shared, copy, snapshots, chosen)
    with pytest.raises(NotWhole, match="the log begins at 5"):
        sharing.recovered_for_all(copy, chosen, snapshots, None)


async def test_a_policy_of_which_there_is_no_snapshot_is_not_replaced_by_another(
    engine: Engine,
    shared: MemoryShared,
    copy: SqliteLog,
    snapshots: FileSnapshots,
    chosen: Settings,
) -> None:
    _keep(engine, chosen, 6)
    changed = ev.PolicyChanged(
        ts=9.0, policy="knn", key=policy_key("knn", {}), parameters=b"{}", source="api"
    )
    record = Record("changed", ev.kind(changed), 9.0, ev.encode(changed))
    await shared.append([Entry(record)], 0.0)
    copy.append([record])
    await sharing.begun_from(shared, copy, snapshots, chosen)
    with pytest.raises(StoreError, match="the policy 'knn' serves, and no snapshot of it is here"):
        sharing.recovered_for_all(copy, chosen, snapshots, None)


async def test_a_snapshot_of_the_release_before_is_better_than_none(
    engine: Engine, tmp_path: Path, snapshots: FileSnapshots
) -> None:
    """Where no replica's directory outlives the upgrade, only the database has what was deleted."""
    chosen = of_before(NINE, tmp_path)
    log, last = NINE.log(chosen), Offset(len(NINE.events))
    shared, begins = MemoryShared(engine), Offset(40)
    engine.kept[NINE.key(chosen), last] = NINE.snapshot
    assert can_trim(log)
    while log.trim(begins):
        pass
    await sharing.begun_from(shared, log, snapshots, chosen)
    found = sharing.recovered_for_all(log, chosen, snapshots, None)
    log.close()
    assert (found.version, found.after) == (9, last)
    assert found.world.counts == NINE.folded().counts


def test_snapshots_from_which_nothing_can_begin_any_more_are_deleted_at_a_start(
    engine: Engine, tmp_path: Path, copy: SqliteLog, snapshots: FileSnapshots
) -> None:
    """What was erased while this replica was away may be in them."""
    for key in ("key", "other"):
        snapshots.save(Offset(BASE - 1), key, b"of an erased unit")
    link = Link(
        MemoryShared(engine),
        copy,
        Checkpoint(tmp_path / "replica.json", "log"),
        LinkRules("key", 1.0, 1.0, 1.0, 1.0),
    )
    sharing.erased_at_start(link, copy, snapshots)
    assert len(snapshots.found()) == 2, "none is there that reaches the log's beginning"
    snapshots.save(Offset(BASE), "key", b"a newer one")
    sharing.erased_at_start(link, copy, snapshots)
    assert [each.offset for each in snapshots.found()] == [BASE]


def test_replicas_whose_policy_learns_by_another_rule_have_another_key(
    chosen: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_rule = set()
    for fold in (0, 1, 2):
        monkeypatch.setattr(
            policies.load(chosen.policy.name).__class__, "fold", fold, raising=False
        )
        by_rule.add(replica_key(chosen))
    assert len(by_rule) == 3
    assert snapshot_key(chosen.policy, chosen) in by_rule  # of a policy without a version
    assert all(snapshot.is_of_this_version(key) for key in by_rule)


class _Restarting(MemoryShared):
    """A server that takes connections at the third time."""

    asked = 0

    async def connect(self) -> None:
        self.asked += 1
        if self.asked < 3:
            raise Starting("the database system is starting up")


async def test_a_server_that_is_starting_up_is_asked_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sharing, "_PAUSE_S", 0.0)
    shared = _Restarting(engine)
    await sharing._connected(shared, 600.0)
    assert shared.asked == 3
    assert [each.message for each in caplog.records if each.name == "bandit.replica"] == [
        "the log's server is starting up: it is asked again"
    ]


async def test_a_server_that_does_not_get_ready_in_time_ends_the_start(engine: Engine) -> None:
    shared = _Restarting(engine)
    with pytest.raises(Starting, match="starting up"):
        await sharing._connected(shared, 0.0)
    assert shared.asked == 1


async def test_a_server_that_is_away_is_not_asked_again(engine: Engine) -> None:
    engine.down = True
    with pytest.raises(Unsure, match="down"):
        await sharing._connected(MemoryShared(engine), 600.0)
