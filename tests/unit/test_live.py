"""What the page is told: steps of time, sums, reasons, the map, and who is told."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import policies
from bandit_service.core import events as ev
from bandit_service.core.apply import fold
from bandit_service.core.errors import Busy, Unavailable
from bandit_service.core.resolve import resolve
from bandit_service.core.resolved import Pending
from bandit_service.core.world import World, new_world
from bandit_service.observe.broadcast import BEHIND, Broadcast
from bandit_service.observe.feed import RECENT, STEP, ActivityFeeds
from bandit_service.observe.reasons import (
    HealthSignals,
    changes,
    drifted,
    exposures,
    nearly_spent,
    relearned,
    state,
    why,
)
from bandit_service.observe.ring import Ring
from bandit_service.observe.scatter import FEWEST, plane_of, scatter
from bandit_service.statistics.moments import ENOUGH, Moments
from bandit_service.telemetry.learning import KNOWN, ArmSeen, LearningFold
from policies import ArmId, OwnAlarms

A, B = ArmId("a"), ArmId("b")


def decided(id: str, ts: float = 1000.0, drawn: int = 0, **fields: object) -> ev.Decided:
    whole: dict[str, object] = {
        "ts": ts, "id": id, "embedding": ev.pack(np.array([1.0, 0.0], np.float32)), "tokens": 10,
        "willingness_to_pay": 0.1, "arms": (A, B), "propensities": (0.75, 0.25),
        "scores": (0.5, 0.25), "drawn": drawn, "policy": "eagle", "key": "", "price": 0.5,
        "list_cost_usd": 0.1, "expected_cost_usd": 0.1,
    }  # fmt: skip
    return ev.Decided(**whole | fields)  # type: ignore[arg-type]


class Seen:
    """A world whose every event is told to feeds."""

    def __init__(self, tenants: set[str] | None = None) -> None:
        self.world: World = new_world({"eagle": policies.load("eagle")}, "eagle", 100)
        self.fold = LearningFold("b")
        self.feeds = ActivityFeeds(tenants or set(), self.fold)
        for id, usd in ((A, 1.0), (B, 10.0)):
            spec = ev.ArmSpec(id=id, usd_per_mtok_in=usd, usd_per_mtok_out=0.0)
            self.happens(ev.ArmAdded(ts=1.0, arm=spec, source="api"))

    def happens(self, event: ev.AnyEvent) -> None:
        what = resolve(self.world, event)
        fold(self.world, what)
        self.fold.heard(what, self.world)
        self.feeds.heard(what, self.world)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40), st.integers(0, 40))
def test_moments_are_the_mean_and_variance_of_all_values_however_they_are_merged(
    values: list[float], cut: int
) -> None:
    left, right = Moments(), Moments()
    for value in values[:cut]:
        left.add(value)
    for value in values[cut:]:
        right.add(value)
    left.merge(right)
    assert left.n == len(values)
    assert left.mean == pytest.approx(np.mean(values), abs=1e-6)
    assert left.m2 == pytest.approx(np.var(values) * len(values), abs=1e-4, rel=1e-6)


def test_an_interval_is_shown_only_of_enough_values_and_nothing_of_none() -> None:
    seen = Moments()
    assert seen.said() == {"n": 0, "mean": None, "low": None, "high": None}
    for i in range(ENOUGH - 1):
        seen.add(0.4 + 0.2 * (i % 2))
    assert seen.said()["low"] is None
    seen.add(0.6)
    said = seen.said()
    assert said["n"] == ENOUGH
    assert said["mean"] == pytest.approx(0.5)
    assert 0.4 < said["low"] < said["mean"] < said["high"] < 0.6


def test_a_ring_keeps_the_newest_steps_and_leaves_out_the_empty_ones() -> None:
    ring = Ring(step_s=10, most=3)
    for ts in (5.0, 12.0, 19.9, 47.0, 58.0):
        step = ring.at(ts)
        step.arms[0] = step.arms.get(0, 0) + 1
    assert [(step.ts, step.arms[0]) for step in ring.since(0.0)] == [(10, 2), (40, 1), (50, 1)]
    assert [step.ts for step in ring.since(50.0)] == [50]
    assert [step.ts for step in ring.kept(now=80.0)] == [50]
    assert ring.at(3.0).ts == 50  # a clock that went back


def test_what_happens_is_counted_by_arm_second_and_signal() -> None:
    seen = Seen()
    seen.happens(decided("1", 1000.2))
    seen.happens(decided("2", 1000.9, drawn=1))
    seen.happens(decided("3", 1002.0))
    seen.happens(ev.Rewarded(ts=1002.5, decision_id="1", quality=0.9, cost_usd=0.00001, reward=0.8))
    seen.happens(ev.Compared(ts=1003.0, winner=A, loser=B, decision_id="3"))
    feed = seen.feeds.all
    rows = [step.row() for step in feed.fine.since(0.0)]
    assert rows == [[1000, [0, 1, 1, 1], 0, None, None, None], [1002, [0, 1], 1, 0.8, None, None]]
    assert feed.learning.arms[A].decisions == 2
    assert feed.learning.arms[A].signals["quality"].said()["mean"] == pytest.approx(0.9)
    assert feed.learning.arms[A].signals["reward"].n == 1
    assert feed.learning.arms[B].compared == 1
    assert feed.learning.health.elo[A] > feed.learning.health.elo[B]
    # b would have cost ten tokens at 10 USD per million, and a prior without observations
    assert feed.learning.money[B].would_cost_usd == pytest.approx(1e-4)
    assert feed.learning.money[B].saved.mean == pytest.approx(9e-5)
    mean, best = feed.learning.means()
    assert mean == pytest.approx(0.8)
    assert best is None  # of one reward nothing is known


def test_the_best_arm_is_one_of_which_enough_is_known() -> None:
    seen = Seen()
    for i in range(KNOWN):
        seen.happens(decided(f"a{i}"))
        seen.happens(ev.Rewarded(ts=1001.0, decision_id=f"a{i}", reward=0.5))
    seen.happens(decided("b", drawn=1))
    seen.happens(ev.Rewarded(ts=1001.0, decision_id="b", reward=1.0))
    mean, best = seen.feeds.all.learning.means()
    assert mean == pytest.approx((KNOWN * 0.5 + 1.0) / (KNOWN + 1), abs=1e-3)
    assert best == pytest.approx(0.5)


def test_a_tenant_sees_what_is_its_own_and_nobody_elses() -> None:
    seen = Seen({"acme"})
    seen.happens(decided("1", tenant="acme"))
    seen.happens(decided("2", tenant="other"))
    seen.happens(decided("3"))
    for id in ("1", "2", "3"):
        seen.happens(ev.Rewarded(ts=1001.0, decision_id=id, reward=0.5))
    subject = ev.Subject(
        embedding=ev.pack(np.array([0.0, 1.0], np.float32)),
        tokens=1,
        willingness_to_pay=0.1,
        tenant="acme",
    )
    seen.happens(ev.Rewarded(ts=1002.0, subject=subject, arm=B, reward=0.1))
    own = seen.feeds.of("acme")
    assert list(own.recent) == ["1"]
    assert own.learning.arms[A].signals["reward"].n == 1
    assert own.learning.arms[B].signals["reward"].n == 1
    assert list(seen.feeds.of(None).recent) == ["1", "2", "3"]
    with pytest.raises(KeyError):
        seen.feeds.of("other")


def test_what_is_forgotten_or_expired_leaves_the_feed_and_the_map() -> None:
    seen = Seen()
    seen.happens(decided("1", unit="u"))
    seen.happens(decided("2"))
    seen.happens(decided("3"))
    seen.happens(ev.Forgotten(ts=1001.0, owner=ev.owner_of("", "u")))
    assert list(seen.feeds.all.recent) == ["2", "3"]
    seen.happens(ev.DecisionsExpired(ts=1002.0, ids=("2",)))
    assert list(seen.feeds.all.recent) == ["3"]


def test_a_start_recalls_pending_decisions_with_what_came_back() -> None:
    seen = Seen({"acme"})
    for i in range(RECENT + 10):
        seen.happens(decided(f"{i:04}", 1000.0 + i, tenant="acme" if i % 2 else ""))
    seen.happens(ev.Rewarded(ts=2000.0, decision_id="0505", quality=0.5, reward=0.25))
    again = ActivityFeeds({"acme"}, LearningFold("b"))
    again.recall(seen.world)
    assert again.of(None).numbers, "who looks finds what was before"
    assert list(again.all.recent) == [f"{i:04}" for i in range(10, RECENT + 10)]
    assert again.all.learning.arms[A].decisions == RECENT + 10
    assert again.of("acme").learning.arms[A].decisions == RECENT // 2 + 5
    assert again.all.learning.arms[A].signals["reward"].mean == 0.25
    assert again.all.fine.since(0.0)[-5].reward.mean == 0.25


def test_decisions_from_before_the_start_are_counted_in_steps_or_when_somebody_looks() -> None:
    seen, most = Seen(), 3 * STEP + 5
    for i in range(most):
        seen.happens(decided(f"{i:04}", 1000.0 + i))
    again = ActivityFeeds((), LearningFold("b"))
    again.recall(seen.world)
    counted = again.all.learning.arms
    assert not counted, "a start does not wait for it"
    next(again.past)
    next(again.past)
    assert counted[A].decisions == 2 * STEP
    again.admit({"acme"})
    assert counted[A].decisions == most, "a new tenant's feed has none of it"
    again.catch_up()
    assert (counted[A].decisions, list(again.past)) == (most, [])


def test_why_an_arm_has_its_traffic() -> None:
    dear = "max_cost_usd 0.001 < expected 0.01"
    limited = [
        decided(str(i), arms=(A,), propensities=(1.0,), scores=(0.5,), excluded={B: dear})
        for i in range(30)
    ]
    free = [decided(str(i)) for i in range(10)]
    treated = exposures(limited + free)
    assert treated[B].offered == 10
    assert treated[B].propensity == pytest.approx(0.25)
    assert treated[B].gap == pytest.approx(0.25)
    assert treated[A].gap == 0.0
    # scores of another unit, by few decisions
    mixed = exposures(free + [decided("k", policy="knn", scores=(900.0, 0.0))] * 3)
    assert mixed[B].gap == pytest.approx(0.25)
    fixed = [decided("f", policy="fixed", scores=(0.0, 1.0))] * 30
    assert exposures(free + fixed)[B].gap == pytest.approx(0.25)
    assert exposures(fixed)[B].gap is None
    said = why(treated[B], retired=False, upstream="closed")
    assert said.startswith("Excluded from 75 % of the recent queries: max_cost_usd.")
    assert "0.250 below the best" in said
    assert "with the best score" in why(treated[A], retired=False, upstream="")
    assert why(treated[A], retired=False, upstream="open").startswith("Masked")
    assert why(None, retired=True, upstream="").startswith("Retired")
    assert why(None, retired=False, upstream="").startswith("Not enough data")


def test_an_arm_that_nothing_came_of_is_said_to_be_untried() -> None:
    """By the newest decision of the usual policy that it was offered to; no other policy's."""
    newest_first = [decided("3", arms=(A,), propensities=(1.0,), scores=(0.5,), untried=())]
    newest_first += [decided("2", untried=(1,)), decided("1", untried=(0, 1))]
    newest_first.insert(0, decided("4", policy="knn", untried=(0, 1)))
    treated = exposures(newest_first)
    assert not treated[A].untried
    assert treated[B].untried
    said = why(treated[B], retired=False, upstream="", untried=True)
    assert said.startswith("Untried: its score is a prior, for no outcome came of it yet. ")
    assert "Untried" not in why(treated[A], retired=False, upstream="")


def test_what_changed_about_an_arm_is_said_where_it_surely_did_and_for_ten_minutes() -> None:
    chance = np.random.default_rng(3)
    seen = ArmSeen()
    for second in range(300):  # its price rises after 200 s, its quality never
        ts = 1000.0 + second
        usd = (0.001 if second < 200 else 0.06) * chance.uniform(0.8, 1.2)
        seen.add("cost_usd", usd, ts)
        seen.add("quality", chance.uniform(0.7, 0.9), ts)
        if second < 200:
            assert changes(seen, ts) == ""
    said = changes(seen, 1300.0)
    assert said.startswith("Within ten minutes its cost rose from $0.00")
    assert "to $0.0" in said
    assert "quality" not in said
    assert changes(seen, 1750.0).startswith("Within ten minutes its cost rose")
    assert changes(seen, 1900.0) == ""  # the cheap ones are longer ago


def test_alarms_of_drift_are_said_once_for_each_arm() -> None:
    alarm = ev.DriftDetected(
        ts=1.0, detector="adwin", direction="down", before=0.1, after=-0.3, arm=A
    )
    queries = ev.DriftDetected(ts=1.0, detector="adwin", direction="up", before=0.4, after=0.7)
    said = drifted([alarm, alarm, queries])
    assert len(said) == 2
    assert said[0] == "Drift: the residual of a fell from 0.10 to -0.30."
    assert said[1].startswith("Drift: the distance of queries from the past")
    assert state(HealthSignals(2, 500, 400, 0, 200, noticed=said))[0] == "warn"


def test_an_arm_is_said_to_be_relearned_until_enough_came_of_it() -> None:
    said = relearned({A: OwnAlarms(2, 7), B: OwnAlarms(1, 100)})
    assert said == {A: "a changed: the policy is relearning it, with 7 outcomes since."}
    assert state(HealthSignals(2, 500, 400, 0, 200, noticed=list(said.values())))[0] == "warn"


def test_the_state_of_the_whole_names_the_gravest_first() -> None:
    calm = HealthSignals(offered=2, decisions=500, rewards=400, fallbacks=0, looked_at=200)
    assert state(calm)[0] == "good"
    assert state(HealthSignals(2, 0, 0, 0, 0))[0] == "idle"
    silent = state(HealthSignals(2, 500, 0, 0, 200))
    assert silent[0] == "warn"
    assert "no reward" in silent[1][0]
    worse = state(HealthSignals(2, 500, 0, 50, 200, masked=["a"], degraded="disk full"))
    assert worse[0] == "bad"
    assert "disk full" in worse[1][0]
    assert "25 %" in worse[1][1]
    assert worse[1][2] == "a is masked: its calls fail."
    failing = state(HealthSignals(2, 500, 400, 0, 200, failed=3, answered=200))
    assert failing == (
        "bad",
        ["2 % of the newest answers were errors of the service or a provider."],
    )
    assert state(HealthSignals(2, 500, 400, 0, 200, failed=2, answered=200))[0] == "good"
    assert (
        state(HealthSignals(2, 500, 400, 0, 200, failed=2, answered=20))[0] == "good"
    )  # few alone


def test_a_budget_is_spoken_of_when_a_tenth_or_less_is_left() -> None:
    row = {"account": "tenant:acme", "per": "day", "usd": 20.0, "spent_usd": 17.0, "held_usd": 0.9}
    assert nearly_spent([row]) == []
    assert nearly_spent([row | {"held_usd": 1.0}]) == [
        "90 % of a budget is spent (tenant acme, 20 USD per day)."
    ]


def test_the_plane_holds_the_most_variance_and_does_not_flip() -> None:
    chance = np.random.default_rng(1)
    flat = np.zeros((200, 16))
    flat[:, 3], flat[:, 7] = chance.normal(size=200) * 5.0, chance.normal(size=200) * 2.0
    vectors = flat + chance.normal(size=flat.shape) * 0.1
    first = plane_of(vectors)
    assert first is not None
    assert abs(first.axes[0, 3]) > 0.99
    assert abs(first.axes[1, 7]) > 0.99
    assert first.share > 0.98
    assert np.allclose(first.axes @ first.axes.T, np.eye(2))
    turned = plane_of(vectors[::-1] * 1.0, first)
    assert turned is not None
    assert (turned.axes * first.axes).sum(axis=1).min() > 0.99


def test_the_map_says_where_there_is_not_enough_to_show() -> None:
    def pending(i: int, x: float, y: float) -> Pending:
        return Pending(decided(str(i), embedding=ev.pack(np.array([x, y], np.float32))))

    few = [pending(i, 1.0, float(i)) for i in range(FEWEST - 1)]
    assert scatter(few, None)[0]["state"] == "not enough data"
    assert scatter([pending(i, 1.0, 0.0) for i in range(20)], None)[0]["state"] == "all alike"
    unknown = [pending(i, 0.0, 0.0) for i in range(20)]
    assert scatter(unknown, None)[0] == {"state": "not enough data", "n": 0, "needed": FEWEST}
    angles = np.linspace(0.0, 3.0, 20)
    body, plane = scatter(
        [pending(i, math.cos(t), math.sin(t)) for i, t in enumerate(angles)], None
    )
    assert plane is not None
    assert body["n"] == len(body["points"]) == 20
    assert body["points"][0].keys() == {"id", "x", "y", "arm", "reward"}


async def test_one_frame_is_made_for_all_listeners_of_a_tenant_and_none_for_nobody() -> None:
    made: list[str | None] = []

    def frame(tenant: str | None) -> bytes:
        made.append(tenant)
        return str(tenant).encode()

    broadcast = Broadcast(frame, most=50, every_s=0.001)
    everybody = [broadcast.join(None) for _ in range(30)] + [broadcast.join("acme")]
    broadcast.tell()
    assert sorted(made, key=str) == [None, "acme"]
    assert [await each.next() for each in everybody] == [b"None"] * 30 + [b"acme"]
    for each in everybody:
        broadcast.leave(each)
    assert broadcast.listeners == 0
    async with asyncio.timeout(60):  # until nothing ticks any more
        while [task for task in asyncio.all_tasks() if task.get_name() == "live"]:
            await asyncio.sleep(0)


async def test_the_ticks_come_by_themselves_and_a_bug_in_one_does_not_end_them() -> None:
    asked = 0

    def frame(tenant: str | None) -> bytes:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise ZeroDivisionError
        return b"%d" % asked

    broadcast = Broadcast(frame, most=1, every_s=0.001)
    listener = broadcast.join(None)
    assert await listener.next() == b"2"
    assert await listener.next() == b"3"
    broadcast.leave(listener)


async def test_one_who_does_not_keep_up_is_dropped_and_the_others_go_on() -> None:
    broadcast = Broadcast(lambda _: b"x", most=2, every_s=3600.0)
    slow, quick = broadcast.join(None), broadcast.join(None)
    for _ in range(BEHIND + 1):
        broadcast.tell()
        assert await quick.next() == b"x"
    assert slow.dropped
    assert await slow.next() is None
    assert not quick.dropped
    broadcast.leave(slow)
    broadcast.leave(quick)


async def test_listeners_are_bounded_and_told_when_it_is_over() -> None:
    broadcast = Broadcast(lambda _: b"x", most=1)
    listener = broadcast.join(None)
    with pytest.raises(Busy, match=r"monitoring\.max_listeners"):
        broadcast.join(None)
    broadcast.close()
    assert await listener.next() is None
    broadcast.leave(listener)
    with pytest.raises(Unavailable):
        broadcast.join(None)
