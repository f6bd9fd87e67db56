"""Named metrics, folded: what they come to is the quality learned, and weights can change."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.core import codec, snapshot
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.errors import Conflict, Refused
from bandit_service.core.metric_spec import NamedMetric, quality_of
from bandit_service.core.outcomes import (
    Reported,
    RewardRule,
    Signals,
    decision_rewarded,
    decision_reweighed,
    decision_voted,
)
from bandit_service.core.world import World
from policies import ArmId
from tests.unit.experiments.given import a_world, asked, decided, two_arms

RULE = RewardRule(willingness_to_pay=0.1)
RESOLVED = NamedMetric(name="resolved", kind="boolean", weight=3.0)
STARS = NamedMetric(name="stars", low=1.0, high=5.0)
EDITS = NamedMetric(name="edits", high=10.0, lower_is_better=True, weight=2.0)


def named(world: World, *specs: NamedMetric) -> None:
    apply(world, ev.MetricsChanged(ts=world.ts, metrics=specs))


def told(
    world: World, id: str, *, correction: bool = False, provisional: bool = False, **said: Any
) -> ev.Rewarded | None:
    """One report; `said` are signals, and `metrics` among them."""
    report = Reported(Signals(**said), correction=correction, provisional=provisional)
    pending = world.pending.decisions[id]
    found = decision_rewarded(pending, id, report, RULE, world.ts, named=world.named)
    if found is not None:
        apply(world, ev.decode(ev.encode(found)))
    return found


def reweighed(world: World) -> int:
    """As the service does after the weights have changed; how many decisions were taught anew."""
    count = 0
    for id, pending in world.pending.decisions.items():
        event = decision_reweighed(pending, id, RULE, world.ts, world.named)
        if event is not None:
            apply(world, ev.decode(ev.encode(event)))
            count += 1
    apply(world, ev.MetricsWeighed(ts=world.ts))
    return count


def vote(world: World, id: str, says: float | None) -> ev.Rewarded | None:
    pending = world.pending.decisions[id]
    found = decision_voted(pending, id, says, RULE, world.ts, world.named)
    if found is not None:
        apply(world, found)
    return found


def test_the_quality_is_the_weighted_mean_of_what_is_known() -> None:
    three = (RESOLVED, STARS, EDITS)
    assert quality_of(three, {"resolved": 1.0, "stars": 5.0, "edits": 0.0}) == 1.0
    assert quality_of(three, {"resolved": 0.0, "stars": 1.0, "edits": 10.0}) == 0.0
    assert quality_of(three, {"resolved": 1.0, "stars": 3.0, "edits": 5.0}) == 4.5 / 6
    assert quality_of(three, {"resolved": 1.0}) == 1.0
    assert quality_of(three, {"edits": 4.0, "other": 7.0}) == 0.6
    assert quality_of(three, {"other": 7.0}) is None
    assert quality_of([NamedMetric(name="stars", weight=0.0)], {"stars": 1.0}) is None


def test_metrics_settle_a_decision_and_each_further_one_corrects_it() -> None:
    world = a_world(serving="nested")
    named(world, RESOLVED, STARS)
    one = decided(world, asked())
    first = told(world, one.id, metrics={"resolved": 1.0})
    assert first is not None
    assert (first.quality, first.weighed, first.correction) == (1.0, True, False)
    second = told(world, one.id, metrics={"stars": 1.0})
    assert second is not None
    assert (second.quality, second.weighed, second.correction) == (0.75, True, True)
    pending = world.pending.decisions[one.id]
    assert pending.signals == {"quality": 0.75, "resolved": 1.0, "stars": 1.0}
    assert pending.reward == pytest.approx(0.75 - one.expected_cost_usd / 0.1)
    assert told(world, one.id, metrics={"stars": 1.0}) is None
    with pytest.raises(Conflict, match="stars: already reported as 1, now 2"):
        told(world, one.id, metrics={"stars": 2.0})
    again = told(world, one.id, metrics={"stars": 3.0}, correction=True)
    assert again is not None
    assert again.quality == 0.875


def test_a_metric_that_changes_nothing_of_the_quality_is_only_recorded() -> None:
    world = a_world(serving="nested")
    named(world, RESOLVED, NamedMetric(name="stars", low=1.0, high=5.0, weight=0.0))
    one = decided(world, asked())
    only = told(world, one.id, metrics={"stars": 5.0})
    assert only is not None
    assert (only.quality, only.reward, only.weighed) == (None, None, False)
    assert not world.pending.decisions[one.id].settled
    told(world, one.id, metrics={"resolved": 1.0})
    assert world.pending.decisions[one.id].signals["quality"] == 1.0


def test_a_users_own_quality_stands_before_and_after_metrics() -> None:
    world = a_world(serving="nested")
    named(world, RESOLVED)
    one, two = decided(world, asked()), decided(world, asked(axis=1))
    told(world, one.id, quality=0.25)
    recorded = told(world, one.id, metrics={"resolved": 1.0})
    assert recorded is not None
    assert (recorded.quality, recorded.weighed) == (None, False)
    told(world, two.id, metrics={"resolved": 1.0})
    own = told(world, two.id, quality=0.25)
    assert own is not None
    assert (own.quality, own.correction, own.weighed) == (0.25, True, False)
    assert not world.pending.decisions[two.id].weighed
    with pytest.raises(Conflict):
        told(world, two.id, quality=0.5)


def test_metrics_take_the_place_of_a_judges_grade() -> None:
    world = a_world(serving="nested")
    named(world, RESOLVED)
    one = decided(world, asked())
    told(world, one.id, quality=0.4, provisional=True)
    event = told(world, one.id, metrics={"resolved": 1.0})
    assert event is not None
    assert (event.quality, event.correction, event.weighed) == (1.0, True, True)
    pending = world.pending.decisions[one.id]
    assert (pending.provisional, pending.weighed) == (False, True)


@pytest.mark.parametrize(
    ("spec", "value", "why"),
    [
        (RESOLVED, 0.5, "metrics.resolved: must be true or false, got 0.5"),
        (STARS, 6.0, "metrics.stars: must be a number from 1 to 5, got 6"),
    ],
)
def test_a_value_out_of_range_is_refused_and_changes_nothing(
    spec: NamedMetric, value: float, why: str
) -> None:
    world = a_world(serving="nested")
    named(world, spec)
    one = decided(world, asked())
    before = world.digest()
    with pytest.raises(Refused, match=why):
        told(world, one.id, metrics={spec.name: value})
    assert world.digest() == before


def test_a_vote_is_the_named_metric_vote_where_there_is_one() -> None:
    world = a_world(serving="nested")
    named(world, NamedMetric(name="vote", kind="boolean"), RESOLVED)
    one = decided(world, asked())
    told(world, one.id, metrics={"resolved": 1.0})
    down = vote(world, one.id, 0.0)
    assert down is not None
    assert (down.quality, down.metrics, down.weighed) == (0.75, {"vote": 0.0}, True)
    vote(world, one.id, 1.0)
    assert world.pending.decisions[one.id].signals["quality"] == 1.0
    vote(world, one.id, 0.0)
    vote(world, one.id, None)
    assert world.pending.decisions[one.id].signals == {"resolved": 1.0}
    assert reweighed(world) == 1
    pending = world.pending.decisions[one.id]
    assert (pending.signals, pending.weighed) == ({"resolved": 1.0, "quality": 1.0}, True)


@pytest.mark.parametrize("policy", ["nested", "metallm", "epsilon_greedy", "knn"])
def test_weights_that_change_and_change_back_leave_what_was_learned(policy: str) -> None:
    world = a_world(serving=policy)
    named(world, RESOLVED, STARS, EDITS)
    ids = []
    for axis in range(12):
        one = decided(world, asked(axis=axis))
        ids.append(one.id)
        told(world, one.id, metrics={"resolved": float(axis % 2), "stars": 1.0 + axis % 5})
        if axis % 3 == 0:
            told(world, one.id, cost_usd=0.001 * axis, metrics={"edits": 2.0})
        if axis % 3 == 1:
            told(world, one.id, cost_usd=0.002, latency_s=1.0)  # after its reward
    reweighed(world)
    learned = codec.dump(world.learners[policy].state)
    pending = codec.dump(world.pending)
    rewards = [world.pending.decisions[id].reward for id in ids]
    named(world, RESOLVED, NamedMetric(name="stars", low=1.0, high=5.0, weight=9.0), EDITS)
    assert reweighed(world) == 11  # of one all is 0 by any weights
    assert [world.pending.decisions[id].reward for id in ids] != rewards
    assert codec.dump(world.learners[policy].state) != learned
    named(world, RESOLVED, STARS, EDITS)
    assert reweighed(world) == 11  # of one all is 0 by any weights
    assert [world.pending.decisions[id].reward for id in ids] == rewards
    assert codec.dump(world.pending) == pending
    assert codec.dump(world.learners[policy].state) == learned


def test_reweighing_is_done_once_and_goes_on_where_it_was_broken_off() -> None:
    world = a_world(serving="nested")
    named(world, RESOLVED, STARS)
    for axis in range(6):
        one = decided(world, asked(axis=axis))
        told(world, one.id, metrics={"resolved": 1.0, "stars": 2.0})
    assert (world.named.stale, reweighed(world)) == (True, 0)
    assert not world.named.stale
    named(world, RESOLVED, EDITS)
    for id, pending in list(world.pending.decisions.items())[:2]:
        event = decision_reweighed(pending, id, RULE, world.ts, world.named)
        assert event is not None
        apply(world, event)
    restored = snapshot.restore(
        snapshot.read(snapshot.dump(world)), {"nested": world.learners["nested"].policy}, "nested"
    )
    assert restored.digest() == world.digest()
    assert restored.named.stale
    assert reweighed(restored) == 4


def test_metrics_without_any_weight_take_their_quality_back() -> None:
    world = a_world(serving="nested")
    named(world, RESOLVED)
    one = decided(world, asked())
    told(world, one.id, metrics={"resolved": 1.0})
    named(world, NamedMetric(name="resolved", kind="boolean", weight=0.0))
    assert reweighed(world) == 1
    pending = world.pending.decisions[one.id]
    assert (pending.signals, pending.reward, pending.revoked) == ({"resolved": 1.0}, None, True)
    assert reweighed(world) == 0
    named(world, RESOLVED)
    assert reweighed(world) == 1
    assert world.pending.decisions[one.id].signals == {"resolved": 1.0, "quality": 1.0}


def test_the_mean_of_a_metric_is_kept_by_arm_through_corrections() -> None:
    world = a_world("only", serving="nested")
    named(world, STARS, NamedMetric(name="vote", kind="boolean"))
    one, two = decided(world, asked()), decided(world, asked(axis=1))
    told(world, one.id, metrics={"stars": 2.0})
    told(world, two.id, metrics={"stars": 5.0})
    assert world.named.mean("stars", ArmId("only")) == 3.5
    told(world, two.id, metrics={"stars": 4.0}, correction=True)
    assert world.named.mean("stars", ArmId("only")) == 3.0
    vote(world, one.id, 1.0)
    assert world.named.mean("vote", ArmId("only")) == 1.0
    vote(world, one.id, None)
    assert world.named.mean("vote", ArmId("only")) is None
    assert world.named.mean("stars", ArmId("other")) is None
    named(world, RESOLVED)
    assert not world.named.tallies


def test_an_experiment_measures_the_quality_that_follows() -> None:
    from tests.unit.experiments.given import run

    world = a_world()
    run(world, two_arms(primary="quality"))
    named(world, RESOLVED, STARS)
    one = decided(world, asked(unit="u1"))
    assert one.experiment == "e"
    told(world, one.id, metrics={"resolved": 1.0})
    told(world, one.id, metrics={"stars": 1.0})
    sums = world.experiments.trials["e"].members[one.member].sums
    assert sums["quality"] == (0.75, 1)


def _weigh(world: World, id: str, **weights: float) -> None:
    spec = ev.RouteSpec(id=id, policy="knn", weights=weights)
    apply(world, ev.RouteChanged(ts=world.ts, route=spec, key="k"))


def _stale(world: World) -> bool:
    return world.named.stale


def test_weights_of_a_route_are_for_it_alone_and_others_keep_the_metrics_own() -> None:
    world = a_world(serving="nested")
    named(world, RESOLVED, STARS)
    apply(world, ev.MetricsWeighed(ts=world.ts))
    _weigh(world, "plain")
    assert not _stale(world)
    assert world.named.of("plain") is world.named
    _weigh(world, "bot", resolved=0.0)
    assert _stale(world), "nothing teaches again what was learned by other weights"
    signals = {"resolved": 0.0, "stars": 5.0}
    assert [world.named.of(id).quality(signals, 0.5) for id in ("bot", "plain", "")] == [
        1.0,
        0.25,
        0.25,
    ]
    assert not world.named.of("bot").weighs(["resolved"])
    before = world.named.by_route
    apply(world, ev.MetricsWeighed(ts=world.ts))
    _weigh(world, "bot", resolved=0.0)
    assert (_stale(world), world.named.by_route is before) == (False, True)
    apply(world, ev.RouteRemoved(ts=world.ts, id="bot"))
    assert _stale(world)
    assert b"by_route" not in codec.dump(world)


def test_weights_of_a_route_survive_a_snapshot() -> None:
    world = a_world(serving="nested")
    _weigh(world, "bot", resolved=2.0)
    assert not _stale(world), "no metric is named, so that no weight changes anything"
    kept = codec.load(codec.dump(world.named), type(world.named))
    assert kept == world.named


def test_a_world_without_named_metrics_is_written_as_before() -> None:
    world = a_world()
    assert b"named" not in codec.dump(world)
    named(world, RESOLVED)
    assert b"named" in codec.dump(world)


RETRIED = NamedMetric(name="implicit_retry", kind="boolean", lower_is_better=True, weight=0.25)


def test_an_implicit_signal_alone_pulls_what_was_expected_by_its_weight() -> None:
    world = a_world(serving="nested")
    named(world, RETRIED)
    one = decided(world, asked())
    told(world, one.id, metrics={"implicit_retry": 1.0})
    assert one.expected_quality is not None
    expected = one.expected_quality / 1.25
    pending = world.pending.decisions[one.id]
    assert pending.signals["quality"] == pytest.approx(expected)
    told(world, one.id, quality=0.9)
    assert (pending.signals["quality"], pending.weighed) == (0.9, False)


def test_an_implicit_signal_is_weighed_with_what_was_said() -> None:
    world = a_world(serving="nested")
    named(world, RESOLVED, RETRIED)
    one = decided(world, asked())
    told(world, one.id, metrics={"implicit_retry": 1.0})
    told(world, one.id, metrics={"resolved": 1.0})
    assert world.pending.decisions[one.id].signals["quality"] == pytest.approx(3.0 / 3.25)


def test_a_judges_grade_also_takes_the_place_of_an_implicit_signal() -> None:
    world = a_world(serving="nested")
    named(world, RESOLVED, RETRIED)
    one, two = decided(world, asked()), decided(world, asked(axis=1))
    told(world, one.id, metrics={"implicit_retry": 1.0})
    told(world, one.id, quality=0.4, provisional=True)
    pending = world.pending.decisions[one.id]
    assert (pending.signals["quality"], pending.provisional, pending.weighed) == (0.4, True, False)
    told(world, one.id, quality=0.9)
    assert (pending.signals["quality"], pending.provisional) == (0.9, False)
    told(world, two.id, metrics={"implicit_retry": 1.0, "resolved": 1.0})
    with pytest.raises(Conflict):
        told(world, two.id, quality=0.4, provisional=True)


def test_a_judges_grade_stands_before_an_implicit_signal() -> None:
    world = a_world(serving="nested")
    named(world, RESOLVED, RETRIED)
    one = decided(world, asked())
    told(world, one.id, quality=0.4, provisional=True)
    told(world, one.id, metrics={"implicit_retry": 1.0})
    pending = world.pending.decisions[one.id]
    assert (pending.signals["quality"], pending.provisional) == (0.4, True)
    assert reweighed(world) == 0
    told(world, one.id, metrics={"resolved": 1.0})
    assert pending.signals["quality"] == pytest.approx(3.0 / 3.25)


_VALUES = st.fixed_dictionaries(
    {},
    optional={
        "resolved": st.sampled_from([0.0, 1.0]),
        "stars": st.integers(4, 20).map(lambda quarter: quarter / 4),
        "edits": st.integers(0, 10).map(float),
    },
)


@given(
    st.lists(st.tuples(_VALUES, st.booleans(), st.booleans()), min_size=1, max_size=12),
    st.lists(st.tuples(*[st.integers(1, 9)] * 3), min_size=1, max_size=4),
)
def test_whatever_the_weights_were_between_the_same_ones_teach_the_same(
    reports: list[tuple[dict[str, float], bool, bool]], between: list[tuple[int, int, int]]
) -> None:
    """With costs before and after the reward; and sent once more, nothing changes."""
    world = a_world("a", "b", serving="nested")
    named(world, RESOLVED, STARS, EDITS)
    for axis, (metrics, before, after) in enumerate(reports):
        id = decided(world, asked(axis=axis)).id
        if before:
            told(world, id, cost_usd=0.0005 * axis)
        if metrics:
            told(world, id, metrics=metrics)
        if after and not before:
            told(world, id, cost_usd=0.002, latency_s=0.5)
        resent = world.digest()
        if metrics:
            assert told(world, id, metrics=metrics) is None
        assert world.digest() == resent
    assert reweighed(world) == 0
    learned, pending = codec.dump(world.learners["nested"].state), codec.dump(world.pending)
    tallies = codec.dump(world.named.tallies)
    for weights in between:
        specs = zip((RESOLVED, STARS, EDITS), weights, strict=True)
        named(world, *(msgspec.structs.replace(one, weight=float(w)) for one, w in specs))
        reweighed(world)
    named(world, RESOLVED, STARS, EDITS)
    reweighed(world)
    assert codec.dump(world.learners["nested"].state) == learned
    assert codec.dump(world.pending) == pending
    assert codec.dump(world.named.tallies) == tallies
