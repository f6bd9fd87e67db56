"""What is said of a session, folded: credited to its decisions by a rule, once, and corrected."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.core import codec, snapshot
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.errors import Conflict, Refused, Unknown
from bandit_service.core.experiments.spec import Metric
from bandit_service.core.metric_spec import NamedMetric
from bandit_service.core.outcomes import (
    Reported,
    RewardRule,
    Signals,
    decision_rewarded,
    decision_voted,
    digest,
)
from bandit_service.core.session_outcomes import CreditRule, session_credited, session_rewarded
from bandit_service.core.sessions import CREDITS, group_of, groups_of, shares_of, weights_of
from bandit_service.core.world import World
from policies import ArmId
from tests.unit.experiments.given import a_world, asked, decided, run, two_arms

RULE = RewardRule(willingness_to_pay=0.1)
S = group_of("", "session", "s")
CSAT = NamedMetric(name="csat", low=1.0, high=5.0, scope="session")
SOLVED = NamedMetric(name="solved", kind="boolean", scope="session")


def talk(world: World, n: int = 3, session: str = "s", **more: Any) -> list[str]:
    """So many decisions of one session."""
    groups = groups_of("", session, "")
    return [decided(world, asked(axis=i, groups=groups, **more)).id for i in range(n)]


def told(
    world: World, *, key: str = "", correction: bool = False, credit: str = "equal",
    parts: int | None = None, group: str = S, **said: Any,
) -> ev.SessionRewarded | None:  # fmt: skip
    """As the service does it; parts: so many decisions learn it, and then the process ends."""
    signals = Signals(**said)
    report = Reported(signals, key, digest(signals.said()), correction)
    rule = CreditRule(credit, 0.5)
    event = session_rewarded(world, group, "session: no session 's'", report, rule, world.ts)
    if event is not None:
        apply(world, ev.decode(ev.encode(event)))
        finish(world, parts, group)
    return event


def finish(world: World, parts: int | None = None, group: str = S) -> int:
    """Let the decisions learn; how many did."""
    session = world.sessions.told[group]
    count = 0
    for id in list(session.weights)[:parts]:
        found = session_credited(world, group, id, RULE, world.ts)
        if found is not None:
            apply(world, ev.decode(ev.encode(found)))
            count += 1
    if parts is None:
        apply(world, ev.SessionCredited(ts=world.ts, group=group, number=session.number))
    return count


def reward(world: World, id: str, *, correction: bool = False, **said: Any) -> None:
    report = Reported(Signals(**said), correction=correction)
    pending = world.pending.decisions[id]
    event = decision_rewarded(pending, id, report, RULE, world.ts, named=world.named)
    assert event is not None
    apply(world, event)


def qualities(world: World, ids: list[str]) -> list[float | None]:
    return [world.pending.decisions[id].signals.get("quality") for id in ids]


@given(st.integers(1, 1000), st.sampled_from(CREDITS), st.floats(0.01, 1.0))
def test_the_shares_of_a_session_sum_to_one_exactly(n: int, rule: str, discount: float) -> None:
    weights = weights_of(n, rule, discount)
    shares = shares_of(weights)
    assert sum(shares) == 1.0
    assert min(shares) >= 0.0
    assert weights[-1] == max(weights) == 1.0
    assert all(a <= b + 1 / 65536 for a, b in itertools.pairwise(shares))


@pytest.mark.parametrize(
    ("credit", "expected"),
    [("equal", [0.75, 0.75, 0.75]), ("last", [None, None, 0.75])],
)
def test_a_quality_is_credited_by_the_rule(credit: str, expected: list[float | None]) -> None:
    world = a_world(serving="nested")
    ids = talk(world)
    event = told(world, quality=0.75, credit=credit)
    assert event is not None
    assert sum(event.credits) == 1.0
    assert qualities(world, ids) == expected
    assert world.sessions.told[S].done


def test_discounted_an_earlier_decision_learns_what_lies_nearer_to_what_was_expected() -> None:
    world = a_world(serving="nested")
    ids = talk(world)
    expected = [world.pending.decisions[id].decided.expected_quality for id in ids]
    told(world, quality=0.0, credit="discounted")
    for weight, was, now in zip((0.25, 0.5, 1.0), expected, qualities(world, ids), strict=True):
        assert was is not None
        assert now == pytest.approx((1.0 - weight) * was)


def test_the_same_again_changes_nothing_and_another_value_is_a_conflict() -> None:
    world = a_world(serving="nested")
    talk(world)
    assert told(world, quality=0.75, key="k") is not None
    before = world.digest()
    assert told(world, quality=0.75, key="k") is None
    assert told(world, quality=0.75) is None
    assert finish(world, parts=3) == 0
    with pytest.raises(
        Conflict, match=r"quality: already reported of this session as 0\.75, now 1"
    ):
        told(world, quality=1.0)
    with pytest.raises(Conflict, match="idempotency_key"):
        told(world, quality=1.0, key="k")
    assert world.digest() == before


def test_a_correction_replaces_it_and_back_gives_the_same_policy() -> None:
    world = a_world(serving="nested")
    ids = talk(world)
    told(world, quality=0.75)
    learned = codec.dump(world.learners["nested"].state)
    told(world, quality=0.25, correction=True)
    assert qualities(world, ids) == [0.25] * 3
    assert codec.dump(world.learners["nested"].state) != learned
    told(world, quality=0.75, correction=True)
    assert qualities(world, ids) == [0.75] * 3
    assert codec.dump(world.learners["nested"].state) == learned


def test_a_correction_reaches_decisions_that_came_since() -> None:
    world = a_world(serving="nested")
    ids = talk(world, 2)
    told(world, quality=0.75)
    ids += talk(world, 1)
    assert qualities(world, ids) == [0.75, 0.75, None]
    told(world, quality=0.5, correction=True)
    assert qualities(world, ids) == [0.5] * 3


def test_what_is_said_of_the_decision_itself_stands() -> None:
    world = a_world(serving="nested")
    ids = talk(world)
    reward(world, ids[0], quality=0.125)
    told(world, quality=0.75)
    assert qualities(world, ids) == [0.125, 0.75, 0.75]
    reward(world, ids[1], quality=0.25, correction=True)
    told(world, quality=1.0, correction=True)
    assert qualities(world, ids) == [0.125, 0.25, 1.0]


@pytest.mark.parametrize("own", [{"quality": 0.25}, {"quality": 0.75}, {"reward": 0.1}])
def test_what_is_said_of_the_decision_afterwards_stands_too(own: dict[str, Any]) -> None:
    world = a_world(serving="nested")
    ids = talk(world)
    told(world, quality=0.75)
    reward(world, ids[0], cost_usd=0.001)  # says nothing of its worth
    reward(world, ids[0], **own)
    told(world, quality=1.0, correction=True)
    assert qualities(world, ids) == [own.get("quality", 0.75), 1.0, 1.0]
    pending = world.pending.decisions[ids[0]]
    assert {name: pending.signals[name] for name in own} == own
    with pytest.raises(Conflict):
        reward(world, ids[0], quality=0.5)


def test_a_vote_stands_before_its_sessions_quality_until_it_is_withdrawn() -> None:
    world = a_world(serving="nested")
    ids = talk(world)
    told(world, quality=0.75)
    learned = codec.dump(world.learners["nested"].state)
    pending = world.pending.decisions[ids[0]]
    for _ in range(2):
        for vote in (0.0, 1.0, None):
            event = decision_voted(pending, ids[0], vote, RULE, world.ts)
            assert event is not None
            apply(world, event)
            assert pending.signals.get("quality") == vote
        assert finish(world, parts=3) == 1
        assert qualities(world, ids) == [0.75] * 3
    assert codec.dump(world.learners["nested"].state) == learned


def test_a_judge_does_not_replace_a_sessions_quality() -> None:
    world = a_world(serving="nested")
    (id,) = talk(world, 1)
    told(world, quality=1.0)
    report = Reported(Signals(quality=0.2), provisional=True)
    with pytest.raises(Conflict):
        decision_rewarded(world.pending.decisions[id], id, report, RULE, world.ts)


def test_a_judges_grade_gives_way_to_the_sessions() -> None:
    world = a_world(serving="nested")
    (id,) = talk(world, 1)
    report = Reported(Signals(quality=0.2), provisional=True)
    judged = decision_rewarded(world.pending.decisions[id], id, report, RULE, world.ts)
    assert judged is not None
    apply(world, judged)
    told(world, quality=1.0)
    assert qualities(world, [id]) == [1.0]


@pytest.mark.parametrize("parts", [0, 1, 2, 3])
def test_a_session_that_was_broken_off_is_finished_once(parts: int) -> None:
    whole, broken = a_world(serving="nested"), a_world(serving="nested")
    for world in (whole, broken):
        talk(world)
    told(whole, quality=0.75)
    told(broken, quality=0.75, parts=parts)
    kept = snapshot.read(snapshot.dump(broken))
    world = snapshot.restore(kept, {"nested": broken.learners["nested"].policy}, "nested")
    assert world.digest() == broken.digest()
    assert world.sessions.unfinished() == [S]
    assert finish(world) == 3 - parts
    assert not world.sessions.unfinished()
    assert world.digest() == whole.digest()


def test_session_metrics_are_weighed_with_those_of_the_decisions() -> None:
    world = a_world("only", serving="nested")
    decision = NamedMetric(name="resolved", kind="boolean", weight=3.0)
    apply(world, ev.MetricsChanged(ts=world.ts, metrics=(CSAT, decision, SOLVED)))
    ids = talk(world, 2)
    reward(world, ids[0], metrics={"resolved": 1.0})
    told(world, metrics={"csat": 3.0})
    assert qualities(world, ids) == [0.875, 0.5]
    with pytest.raises(Refused, match=r"metrics\.csat: must be a number from 1 to 5, got 6"):
        told(world, metrics={"csat": 6.0}, correction=True)
    with pytest.raises(Refused, match=r"metrics\.solved: must be true or false, got 0\.5"):
        told(world, metrics={"solved": 0.5})


@given(
    st.lists(
        st.tuples(st.integers(1, 7), st.sampled_from(CREDITS), st.integers(4, 20), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_each_session_counts_as_one_however_it_is_credited(
    sessions: list[tuple[int, str, int, bool]],
) -> None:
    world = a_world("a", "b", "c")
    apply(world, ev.MetricsChanged(ts=world.ts, metrics=(CSAT,)))
    total = 0.0
    for i, (n, credit, quarter, again) in enumerate(sessions):
        group = group_of("", "session", str(i))
        talk(world, n, session=str(i))
        told(world, metrics={"csat": quarter / 4}, credit=credit, group=group)
        if again:
            talk(world, 1, session=str(i))
            told(world, metrics={"csat": 2.5}, credit=credit, correction=True, group=group)
        total += 2.5 if again else quarter / 4
    by_arm = world.sessions.tallies["csat"]
    assert sum(one.weight for one in by_arm.values()) == len(sessions)
    assert sum(one.total for one in by_arm.values()) == total


def test_sessions_leave_with_their_decisions_and_their_units() -> None:
    world = a_world(serving="nested")
    nothing = codec.dump(world.sessions)
    ids = talk(world, 2, unit="u")
    told(world, quality=0.5)
    apply(world, ev.DecisionsExpired(ts=world.ts, ids=(ids[0],)))
    assert world.sessions.members == {S: [ids[1]]}
    apply(world, ev.Forgotten(ts=world.ts, owner=ev.owner_of("", "u")))
    assert codec.dump(world.sessions) == nothing
    with pytest.raises(Unknown, match="session: no session 's'; none of its decisions"):
        told(world, quality=0.5)


def test_what_names_no_session_is_written_as_before() -> None:
    world = a_world()
    event = decided(world, asked())
    assert b"groups" not in ev.encode(event)
    assert b"sessions" not in codec.dump(world)
    assert world.named.mean("csat", ArmId("cheap")) is None


def test_a_unit_leaves_the_sessions_that_it_shares() -> None:
    world = a_world(serving="nested")
    gone, left = talk(world, 2, unit="u"), talk(world, 1, unit="v")
    talk(world, 2, session="t", unit="u")
    told(world, quality=0.5)
    apply(world, ev.Forgotten(ts=world.ts, owner=ev.owner_of("", "u")))
    assert world.sessions.members == {S: left}
    assert set(world.sessions.owners) == set(left)
    told(world, quality=0.75, correction=True)
    assert qualities(world, left) == [0.75]
    assert not set(gone) & world.pending.decisions.keys()


def test_what_an_experiment_cannot_measure_is_refused_before_anything_is_written() -> None:
    world = a_world()
    csat = Metric(name="csat", low=0.0, high=1.0)
    run(world, two_arms(primary="quality", metrics=(csat,)))
    ids = talk(world, 2, unit="u1")
    assert world.pending.decisions[ids[0]].decided.experiment == "e"
    before = world.digest()
    with pytest.raises(Refused, match="metrics: csat must be from 0 to 1, got 4"):
        told(world, metrics={"csat": 4.0})
    assert world.digest() == before
