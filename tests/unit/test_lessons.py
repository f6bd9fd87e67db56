"""What policies are taught with: neighbours are looked up where a policy may look at them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import policies
from bandit_service.core import events as ev
from bandit_service.core.apply import fold
from bandit_service.core.learner import Lesson
from bandit_service.core.resolve import resolve
from bandit_service.core.world import World, new_world
from bandit_service.runtime.live_world import LiveWorld
from bandit_service.runtime.supervisor import Supervisor
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId

A = ArmId("a")
ITEM = 2048
"""What the query of the second event is remembered by."""


def _world(name: str) -> World:
    """A world that remembers one query."""
    world = new_world({name: policies.load(name)}, name, 10)
    spec = ev.ArmSpec(id=A, usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
    for event in (ev.ArmAdded(ts=0.0, arm=spec, source="api"), _outcome()):
        fold(world, resolve(world, event))
    return world


def _outcome(near: bool = False) -> ev.Rewarded:
    vector = np.eye(4, dtype=np.float32)[0]
    subject = ev.Subject(
        embedding=ev.pack(vector),
        tokens=1,
        willingness_to_pay=0.1,
        neighbours=(ITEM,) if near else (),
        similarities=(1.0,) if near else (),
    )
    return ev.Rewarded(ts=1.0, subject=subject, arm=A, quality=1.0, reward=1.0)


def _near(lessons: Sequence[Lesson]) -> list[int]:
    (lesson,) = lessons
    assert isinstance(lesson, policies.Rewarded)
    return [one.id for one in lesson.context.neighbours]


@pytest.mark.parametrize(("name", "near"), [("knn", [ITEM]), ("nested", [])])
def test_a_lesson_has_neighbours_where_a_policy_looks_at_them(name: str, near: list[int]) -> None:
    world = _world(name)
    assert list(world.history.items) == [ITEM]
    assert _near(fold(world, resolve(world, _outcome(near=True)))) == near


def test_so_it_has_if_only_a_policy_beside_looks_at_them() -> None:
    world = _world("nested")
    joined = ev.PolicyJoined(ts=1.0, policy="knn", key="knn", parameters=b"{}")
    fold(world, resolve(world, joined))
    assert _near(fold(world, resolve(world, _outcome(near=True)))) == [ITEM]


def test_what_is_taught_to_policies_elsewhere_has_them() -> None:
    telemetry = Telemetry(pending=lambda: 0, remembered=lambda: 0)
    tasks = Supervisor(lambda _: None, lambda *_: None)
    live = LiveWorld(_world("nested"), telemetry, tasks, ends=lambda _: None)
    with live.lessons() as some, live.lessons() as others:
        live.apply(_outcome(near=True))
    assert _near(some) == _near(others) == [ITEM]
    assert not live.world.learners.read_neighbours()
