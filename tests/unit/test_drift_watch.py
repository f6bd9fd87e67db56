"""The detectors beside the fold: planted changes, restarts, a full disk."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

import policies
from bandit_service.app.assembly import drift_watch
from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.apply import apply
from bandit_service.core.drift import ARM_WARM_UP, QUERIES_WARM_UP
from bandit_service.core.resolve import resolve
from bandit_service.core.world import World, new_world
from bandit_service.runtime.detectors import DriftWatch
from bandit_service.runtime.drift_alarms import DriftAlarms
from bandit_service.runtime.writer import Writer
from bandit_service.settings import DriftSettings, Settings
from bandit_service.telemetry.drift_metrics import DriftMetrics
from bandit_service.telemetry.metrics import Metrics
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId
from store import Full, Offset, Record
from store.memory import MemoryLog

A = ArmId("a")


def _world() -> World:
    world = new_world({"uniform": policies.load("uniform")}, "uniform", 10)
    spec = ev.ArmSpec(id=A, usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
    return apply(world, ev.ArmAdded(ts=0.0, arm=spec, source="api"))


def _events(qualities: Iterator[float], near: float = 0.5) -> Iterator[ev.AnyEvent]:
    """Decisions that expect 0.7, each followed by the quality that came."""
    for i, quality in enumerate(qualities):
        yield ev.Decided(
            ts=1.0,
            id=f"d{i}",
            embedding=bytes(16),
            tokens=1,
            willingness_to_pay=1.0,
            arms=(A,),
            propensities=(1.0,),
            scores=(0.0,),
            drawn=0,
            policy="p",
            key="k",
            list_cost_usd=0.0,
            expected_cost_usd=0.0,
            price=1.0,
            expected_quality=0.7,
            neighbours=(0,),
            similarities=(near,),
        )
        yield ev.Rewarded(ts=1.0, decision_id=f"d{i}", quality=quality, reward=quality)


def _coins(p: float, n: int, seed: int) -> list[float]:
    return [float(x) for x in np.random.default_rng(seed).random(n) < p]


def _fed(watch: DriftWatch, world: World, events: Iterator[ev.AnyEvent]) -> list[ev.DriftDetected]:
    found = []
    for event in events:
        apply(world, event)
        alarm = watch.happened(resolve(world, event), world)
        if alarm is not None:
            found.append(alarm)
            apply(world, alarm)
            assert watch.happened(resolve(world, alarm), world) is None
    return found


def test_a_planted_drop_is_found_with_its_moment_and_means() -> None:
    """0.7, and from the 1001st outcome on 0.4."""
    world, watch = _world(), DriftWatch(DriftSettings(keep=0.1, explore=0.05, explore_decisions=7))
    coins = [*_coins(0.7, 1000, 1), *_coins(0.4, 300, 2)]
    (alarm,) = _fed(watch, world, _events(iter(coins)))
    assert (alarm.arm, alarm.direction) == (A, "down")
    assert alarm.before == pytest.approx(0.0, abs=0.05)
    assert alarm.after == pytest.approx(-0.3, abs=0.12)
    assert alarm.begun == pytest.approx(1 + 2 * 1000, abs=80)  # two events of each, one before
    assert (alarm.keep, alarm.explore, alarm.decisions) == (0.1, 0.05, 7)


def test_a_rise_is_found_by_adwin() -> None:
    coins = [*_coins(0.3, 1000, 1), *_coins(0.9, 300, 2)]
    (alarm,) = _fed(DriftWatch(), _world(), _events(iter(coins)))
    assert (alarm.detector, alarm.direction) == ("adwin", "up")
    assert (alarm.keep, alarm.explore, alarm.decisions) == (0.1, 0.0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_a_steady_arm_gives_no_alarm(seed: int) -> None:
    assert _fed(DriftWatch(), _world(), _events(iter(_coins(0.7, 2000, seed)))) == []


def test_queries_that_leave_the_known_ground_are_told_and_those_that_come_nearer_are_not() -> None:
    world, watch = _world(), DriftWatch()
    rng = np.random.default_rng(0)
    n = QUERIES_WARM_UP + 500

    def near(low: float, n: int) -> Iterator[ev.AnyEvent]:
        for similarity in rng.uniform(low, low + 0.2, n):
            yield from list(_events(iter([0.7]), float(similarity)))[:1]

    assert _fed(watch, world, near(0.3, n)) == []
    assert _fed(watch, world, near(0.7, n)) == []
    (alarm, *_) = _fed(watch, world, near(0.2, n))
    assert (alarm.arm, alarm.direction, alarm.keep) == ("", "up", 1.0)


def test_a_restart_in_the_middle_of_a_change_finds_it_all_the_same() -> None:
    """The detectors are lost, what they were fed with is not."""
    coins = [*_coins(0.7, 500, 1), *_coins(0.3, 150, 2)]
    straight = _fed(DriftWatch(), _world(), _events(iter(coins)))
    world, watch, found = _world(), DriftWatch(), []
    for i, event in enumerate(_events(iter(coins))):
        if i == 2 * 520:  # twenty outcomes after the change
            kept = snapshot.read(snapshot.dump(world))
            world = snapshot.restore(kept, {"uniform": policies.load("uniform")}, "uniform")
            watch = DriftWatch()
            assert watch.begin(world) == []
        found += _fed(watch, world, iter([event]))
    assert found == straight
    assert len(found) == 1


def test_an_alarm_that_a_crash_kept_from_being_written_is_found_at_the_start() -> None:
    world = _world()
    coins = [*_coins(0.7, 500, 1), *_coins(0.2, 150, 2)]
    for event in _events(iter(coins)):
        apply(world, event)  # nobody watched
    (alarm,) = DriftWatch().begin(world)
    assert (alarm.arm, alarm.direction) == (A, "down")


class _Disk(MemoryLog):
    full = False

    def append(self, records: list[Record]) -> Offset:  # type: ignore[override]
        if self.full and any(record.kind == "drift_detected" for record in records):
            raise Full("no space left")
        return super().append(records)


def _writer(log: MemoryLog, watch: DriftWatch) -> Writer:
    """Begun, with the watch listening."""
    telemetry = Telemetry(pending=lambda: 0, remembered=lambda: 0)
    writer = Writer(_world(), log, telemetry, sync_interval_s=60.0, max_backlog=10)
    writer.start()
    DriftAlarms(watch, writer).start()
    return writer


def _kinds(log: MemoryLog) -> list[str]:
    return [ev.kind(ev.decode(body)) for _, body in log.replay()]


async def test_the_alarm_stands_in_the_log_after_what_gave_it_and_folds_to_the_same_world() -> None:
    log = MemoryLog()
    writer = _writer(log, DriftWatch(DriftSettings(keep=0.1)))
    coins = [*_coins(0.7, ARM_WARM_UP + 300, 1), *_coins(0.2, 150, 2)]
    events = list(_events(iter(coins)))
    for i in range(0, len(events), 64):  # many of one arm in one batch
        batch = [
            writer.submit(lambda event=event: event, durable=False)  # type: ignore[misc]
            for event in events[i : i + 64]
        ]
        for done in batch:
            await done
    await writer.close()
    assert _kinds(log).count("drift_detected") == 1
    world = _world()
    for _, body in log.replay():
        world = apply(world, ev.decode(body))
        world.history.take_changes()
    assert world.digest() == writer.world.digest()


async def test_an_alarm_that_cannot_be_written_is_told_when_it_can() -> None:
    log = _Disk()
    writer = _writer(log, DriftWatch())
    log.full = True
    coins = [*_coins(0.7, ARM_WARM_UP + 300, 1), *_coins(0.0, 200, 2)]
    for i, event in enumerate(_events(iter(coins))):
        log.full = i < 2 * (ARM_WARM_UP + 420)
        await writer.submit(lambda event=event: event, durable=False)  # type: ignore[misc]
    await writer.close()
    assert _kinds(log).count("drift_detected") == 1


def test_the_settings_reach_the_detectors() -> None:
    chosen = DriftSettings(
        adwin_delta=0.01,
        page_hinkley_threshold=30.0,
        page_hinkley_delta=0.02,
        keep=0.1,
        explore=0.05,
        explore_decisions=9,
    )
    watch = drift_watch(Settings(drift=chosen), policies.load("metallm"))
    assert watch is not None
    assert (watch.settings, watch.keep) == (chosen, 0.1)
    off = Settings(drift=DriftSettings(enabled=False))
    assert drift_watch(off, policies.load("metallm")) is None
    by_default = drift_watch(Settings(), policies.load("metallm"))
    assert by_default is not None
    assert by_default.settings == DriftSettings()
    assert by_default.keep == 0.1


@pytest.mark.parametrize(
    ("policy", "parameters", "keep", "told"),
    [
        ("nested", {}, 0.3, True),
        ("nested", {}, None, False),
        ("nested", {"alarm": 0.0}, 0.3, False),
        ("metallm", {}, 0.3, False),
    ],
)
def test_a_share_that_does_nothing_to_the_serving_policy_is_told(
    policy: str,
    parameters: dict[str, float],
    keep: float | None,
    told: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    drift_watch(Settings(drift=DriftSettings(keep=keep)), policies.load(policy, **parameters))
    assert [record.getMessage() for record in caplog.records] == [
        "drift.keep does nothing to the serving policy, which watches its arms itself"
    ] * told


def test_alarms_are_counted_and_what_is_watched_is_shown() -> None:
    registry = CollectorRegistry()
    shown, world = DriftMetrics(Metrics(registry), str), _world()
    shown.look(world, {A})
    assert math.isnan(registry.get_sample_value("bandit_query_distance_mean") or 0.0)
    for event in _events(iter([0.4, 0.4])):  # 0.7 was expected, and a similarity of 0.5 recalled
        apply(world, event)
    shown.look(world, {A})
    assert registry.get_sample_value("bandit_arm_residual_mean", {"arm": "a"}) == pytest.approx(
        -0.3
    )
    assert registry.get_sample_value("bandit_query_distance_mean") == pytest.approx(0.5)
    for arm in (A, ArmId("")):
        shown.detected(
            ev.DriftDetected(
                ts=1.0, arm=arm, detector="adwin", direction="up", before=0.0, after=0.1
            )
        )
    labels = {"detector": "adwin", "direction": "up"}
    assert registry.get_sample_value("bandit_query_drift_detected_total", labels) == 1.0
    assert registry.get_sample_value("bandit_drift_detected_total", labels | {"arm": "a"}) == 1.0
