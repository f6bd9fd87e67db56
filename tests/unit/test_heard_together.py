"""A world and its listeners that take decisions together know what they know one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from bandit_service.core import events as ev
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World, new_world
from bandit_service.observe.feed import ActivityFeed, ActivityFeeds
from bandit_service.runtime.detectors import DriftWatch
from bandit_service.runtime.live_world import NOT_APPLIED, OURS, LiveWorld
from bandit_service.runtime.supervisor import Supervisor
from bandit_service.statistics.calibration import Calibrating
from bandit_service.telemetry.learning import Learning
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId

A, B = ArmId("a"), ArmId("b")
TENANTS = ("", "one", "two")


class _Live:
    """A world with the listeners of a service that take many decisions at once."""

    def __init__(self) -> None:
        world = new_world({"uniform": policies.load("uniform")}, "uniform", 10)
        self.telemetry = Telemetry(pending=lambda: 0, remembered=lambda: 0)
        self.tasks = Supervisor(lambda _: None, lambda *_: None)
        self.broken: list[str] = []
        self.live = LiveWorld(world, self.telemetry, self.tasks, self.broken.append)
        self.feeds = ActivityFeeds(TENANTS[1:2], self.telemetry.learning.fold)
        self.watch, self.alarms = DriftWatch(), list[ev.DriftDetected]()
        self.live.listen(self.telemetry.heard, many=self.telemetry.decisions)
        self.live.listen(self.feeds.heard, many=self.feeds.decided)
        self.live.listen(self.watched, many=lambda some, world: self.watched(some[-1], world))
        for id in (A, B):
            spec = ev.ArmSpec(id=id, usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
            self.live.apply(ev.ArmAdded(ts=0.0, arm=spec, source="api"))

    def watched(self, what: Resolved, world: World) -> None:
        alarm = self.watch.happened(what, world)
        if alarm is not None:
            self.alarms.append(alarm)

    def known(self) -> list[Any]:
        learning, feeds = self.telemetry.learning.fold, (self.feeds.all, self.feeds.of("one"))
        health = learning.all.health
        return [
            self.live.world.digest(),
            [(one.arms, one.routes) for one in (learning.all, learning.of("one"))],
            [health.entropy(2), health.least_propensity(), health.rewards],
            [(list(one.recent), one.numbers) for one in feeds],
            [
                [step.row() for step in ring.since(-1.0)]
                for ring in (feeds[0].fine, feeds[0].coarse)
            ],
            [(one.detector, one.direction) for one in self.alarms],
        ]


def _decided(i: int, arm: int, similarity: float | None, tenant: str) -> ev.Decided:
    return ev.Decided(
        ts=i / 3,
        id=f"{i:04}",
        embedding=np.eye(4, dtype=np.float32)[0].tobytes(),
        tokens=1,
        willingness_to_pay=0.1,
        arms=(A,) if i % 13 == 0 else (B, A) if i % 8 == 0 else (A, B),
        propensities=(1.0,) if i % 13 == 0 else (0.75, 0.25) if i % 2 else (0.5, 0.5),
        scores=(0.0, 0.0),
        drawn=0 if i % 13 == 0 else arm,
        policy="fixed" if i % 5 == 0 else "uniform",
        experiment="e" if i % 5 == 0 else "",
        fallback="embed: TimeoutError" if i % 11 == 0 else "",
        request_key="k" if i % 4 == 0 else "",
        groups=("g",) if i % 6 == 0 else (),
        unit="u" if i % 6 == 0 else "",
        route="r" if i % 7 == 0 else "",
        key="k",
        list_cost_usd=0.01,
        expected_cost_usd=0.01,
        price=1.0,
        neighbours=() if similarity is None else (1,),
        similarities=() if similarity is None else (similarity,),
        tenant=tenant,
    )


_decisions = st.tuples(
    st.integers(0, 1), st.sampled_from([None, 0.2, 0.7, 0.9]), st.sampled_from(TENANTS)
)
_rewards = st.floats(-1.0, 1.0).map(lambda value: (value,))
_alarms = st.tuples(st.sampled_from(["", "a"]), st.integers(1, 4))
_parts = st.lists(st.lists(_decisions | _decisions | _rewards | _alarms, max_size=12), max_size=10)


def _events(parts: Sequence[Sequence[tuple[Any, ...]]], warm: int) -> list[list[ev.AnyEvent]]:
    """Of which the first are so many decisions that drift is watched."""
    number, found = 0, list[list[ev.AnyEvent]]()
    for part in ([(i % 2, 0.5 + i % 3 / 10, "") for i in range(warm)], *parts):
        events: list[ev.AnyEvent] = []
        for one in part:
            if len(one) == 3:
                events.append(_decided(number, *one))
                number += 1
            elif len(one) == 2:
                alarm = ev.DriftDetected(
                    ts=number / 3, arm=ArmId(one[0]), detector="adwin", direction="up",
                    before=0.1, after=0.4, explore=0.1, decisions=one[1],
                )  # fmt: skip
                events.append(alarm)
            elif number:
                id = f"{number - 1:04}"
                events.append(ev.Rewarded(ts=number / 3, decision_id=id, reward=one[0]))
        found.append(events)
    return found


@settings(deadline=None, max_examples=25)
@given(_parts, st.sampled_from([0, 300]))
def test_many_events_are_heard_as_one_by_one(parts: list[list[tuple[Any, ...]]], warm: int) -> None:
    alone, together = _Live(), _Live()
    for events in _events(parts, warm):
        whys = [alone.live.apply(event) for event in events]
        assert together.live.apply_many(events) == whys
    assert together.known() == alone.known()


def test_a_drift_is_found_within_decisions_that_are_heard_together() -> None:
    calm = [_decided(i, 0, 0.8 + i % 3 / 100, "") for i in range(400)]
    apart = [_decided(i, 0, 0.1, "") for i in range(400, 500)]
    alone, together = _Live(), _Live()
    for event in (*calm, *apart):
        alone.live.apply(event)
    for i in range(0, 500, 20):
        together.live.apply_many((*calm, *apart)[i : i + 20])
    assert alone.alarms
    assert [one.seen for one in together.alarms] == [one.seen for one in alone.alarms]


def test_a_decision_is_told_to_its_own_tenant_alone_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, told = _Live(), list[object]()
    one.feeds.admit([f"t{i}" for i in range(50)])
    for kind in (Learning, ActivityFeed):
        monkeypatch.setattr(kind, "decided", lambda self, some: told.append((self, len(some))))
    one.live.apply(_decided(0, 0, None, "t7"))
    one.live.apply_many([_decided(i, 0, None, f"t{i % 2}") for i in range(1, 5)])
    fold, feeds = one.telemetry.learning.fold, one.feeds
    own = [((of("t7"), 1), (of("t0"), 2), (of("t1"), 2)) for of in (fold.of, feeds.of)]
    for expected in (*own, ((fold.all, 1), (fold.all, 4), (feeds.all, 1), (feeds.all, 4))):
        for each in expected:
            told.remove(each)
    assert not told


def test_a_listener_that_fails_for_one_decision_hears_of_the_others() -> None:
    one, heard, late = _Live(), list[str](), list[int]()

    def fails(what: Resolved, _: World) -> None:
        heard.append(what.event.id)  # type: ignore[union-attr]
        if what.arm == B:
            raise KeyError(B)

    def fails_for_all(some: Sequence[Resolved], _: World) -> None:
        late.append(len(some))
        raise KeyError("all")

    one.live.listen(fails, ev.Decided)
    one.live.listen(lambda *_: None, ev.Decided, many=fails_for_all)
    assert one.live.apply_many([_decided(i, i % 2, None, "") for i in range(4)]) == [""] * 4
    assert (heard, late) == (["0000", "0001", "0002", "0003"], [4])
    assert one.tasks.failing == {"look on": "KeyError"}
    one.live.apply(_decided(4, 0, None, ""))
    assert one.tasks.failing == {}


def test_what_a_bug_stops_is_told_of_that_event_alone() -> None:
    one, wrong = _Live(), _decided(1, 7, None, "")
    events = [_decided(0, 0, None, ""), wrong, _decided(2, 0, None, "")]
    assert one.live.apply_many(events) == ["", OURS, ""]
    assert one.live.world.unapplied == 1


def test_after_an_error_of_the_machine_nothing_more_is_applied(monkeypatch: Any) -> None:
    one, reward = _Live(), ev.Rewarded(ts=1.0, decision_id="0000", reward=0.5)
    events = [_decided(i, 0, None, "") for i in range(3)]

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Calibrating, "add_many", full)
    whys = one.live.apply_many([events[0], reward, *events[1:], reward])
    assert whys == ["", "", NOT_APPLIED, NOT_APPLIED, NOT_APPLIED]
    assert (one.broken, list(one.feeds.all.recent)) == (["MemoryError"], ["0000"])
