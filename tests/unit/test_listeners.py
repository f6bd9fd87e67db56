"""What listens to the writer: the index of the history, and the log of the learning policy."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import policies
from bandit_service.core import events as ev
from bandit_service.core.apply import fold
from bandit_service.core.learner import Learner
from bandit_service.core.resolve import resolve
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World, new_world
from bandit_service.runtime.index_feed import IndexFeed
from bandit_service.runtime.learner_log import LearnerLog
from bandit_service.runtime.live_world import LiveWorld
from bandit_service.runtime.supervisor import Supervisor
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId
from store.history import HybridIndex

A = ArmId("a")
UNIFORM = policies.load("uniform")


def _world(capacity: int = 10) -> World:
    world = new_world({"uniform": UNIFORM}, "uniform", capacity)
    spec = ev.ArmSpec(id=A, usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
    _happens(world, ev.ArmAdded(ts=0.0, arm=spec, source="api"))
    return world


def _happens(world: World, event: ev.AnyEvent) -> Resolved:
    what = resolve(world, event)
    fold(world, what)
    return what


def _outcome(i: int) -> ev.Rewarded:
    vector = np.eye(4, dtype=np.float32)[i]
    subject = ev.Subject(embedding=ev.pack(vector), tokens=1, willingness_to_pay=0.1)
    return ev.Rewarded(ts=1.0, subject=subject, arm=A, quality=1.0, reward=1.0)


async def test_the_index_has_what_is_remembered_and_loses_what_has_left() -> None:
    world, index = _world(capacity=2), HybridIndex(4, 2)
    feed = IndexFeed(index, Supervisor(lambda _: None, lambda *_: None))
    for i in range(3):
        feed.heard(_happens(world, _outcome(i)), world)
    feed.close()
    found = index.recall(np.eye(4, dtype=np.float32)[0], 3)
    assert sorted(int(id) for id in found.ids) == list(world.history.items)
    index.close()


class _Refuses:
    """A policy with a bug in it."""

    def init(self) -> int:
        return 0

    def learn(self, _: int, __: object) -> int:
        raise ArithmeticError("a bug")


def _log() -> tuple[World, LearnerLog, Telemetry]:
    world, telemetry = _world(), Telemetry(pending=lambda: 0, remembered=lambda: 0)
    return world, LearnerLog(telemetry, world), telemetry


def _failures(telemetry: Telemetry, policy: str) -> float | None:
    found = telemetry.metrics.registry.get_sample_value
    return found("bandit_policy_learn_failures", {"policy": policy})


def test_an_event_that_the_policy_refuses_is_told_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world, log, telemetry = _log()
    log.heard(_happens(world, _outcome(0)), world)
    assert (_failures(telemetry, "uniform"), caplog.records) == (None, [])
    world.learners["uniform"] = Learner(_Refuses(), 0)  # type: ignore[arg-type]
    log.heard(_happens(world, _outcome(1)), world)
    assert _failures(telemetry, "uniform") == 1.0
    assert [each.getMessage() for each in caplog.records] == ["the policy refused to learn"]


def test_what_another_policy_refused_before_it_served_is_not_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world, log, telemetry = _log()
    changed = ev.PolicyChanged(ts=1.0, policy="other", key="key", parameters=b"{}")
    what = _happens(world, changed)
    world.learners.serve("other", "key", Learner(_Refuses(), 0, failures=7))  # type: ignore[arg-type]
    log.heard(what, world)
    assert (world.serving, _failures(telemetry, "other"), caplog.records) == ("other", None, [])
    log.heard(_happens(world, _outcome(0)), world)
    assert _failures(telemetry, "other") == 8.0


def test_an_alarm_of_drift_is_in_the_log_of_the_service(caplog: pytest.LogCaptureFixture) -> None:
    world, log, _ = _log()
    alarm = ev.DriftDetected(
        ts=1.0, arm=A, detector="adwin", direction="down", before=0.1, after=-0.4, seen=9, begun=1
    )
    with caplog.at_level(logging.WARNING):
        log.heard(_happens(world, alarm), world)
    (said,) = caplog.records
    assert (said.getMessage(), vars(said)["arm"], vars(said)["after"]) == ("drift", "a", -0.4)


def test_what_is_due_is_done_once_and_before_the_next_event() -> None:
    world, telemetry = _world(), Telemetry(pending=lambda: 0, remembered=lambda: 0)
    live = LiveWorld(world, telemetry, Supervisor(lambda _: None, lambda *_: None), lambda _: None)
    before, found = world.events, list[int]()
    live.before_next = lambda: found.append(world.events)
    live.apply(_outcome(0))
    live.apply(_outcome(1))
    assert (found, world.events) == ([before], before + 2)


def test_an_event_is_applied_although_what_was_due_fails() -> None:
    world, telemetry = _world(), Telemetry(pending=lambda: 0, remembered=lambda: 0)
    told = list[tuple[str, bool]]()

    def fails() -> None:
        raise ArithmeticError("a bug")

    tasks = Supervisor(lambda _: None, lambda name, failing: told.append((name, failing)))
    live = LiveWorld(world, telemetry, tasks, lambda _: None)
    live.before_next = fails
    assert live.apply(_outcome(0)) == ""
    assert (world.rewards, told) == (1, [("look on", True), ("look on", False)])
