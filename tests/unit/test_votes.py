"""A user's votes, folded: the last one counts, and one that is taken back is gone."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

import policies
from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.apply import apply
from bandit_service.core.errors import Conflict
from bandit_service.core.experiments.spec import Metric
from bandit_service.core.outcomes import (
    Reported,
    RewardRule,
    Signals,
    decision_rewarded,
    decision_voted,
)
from bandit_service.core.world import World
from bandit_service.data.scan import Outcomes
from policies import Arms
from tests.unit.experiments.given import a_world, asked, decided, run, two_arms

RULE = RewardRule(willingness_to_pay=0.1)
UP, DOWN, NEUTRAL = 1.0, 0.0, None


def _vote(world: World, event: ev.Decided, vote: float | None) -> ev.Rewarded | None:
    found = decision_voted(world.pending.decisions[event.id], event.id, vote, RULE, world.ts)
    if found is not None:
        apply(world, ev.decode(ev.encode(found)))
    return found


def _told(
    world: World, event: ev.Decided, *, correction: bool = False, provisional: bool = False,
    **signals: float,
) -> None:  # fmt: skip
    report = Reported(Signals(**signals), correction=correction, provisional=provisional)  # type: ignore[arg-type]
    found = decision_rewarded(world.pending.decisions[event.id], event.id, report, RULE, world.ts)
    assert found is not None
    apply(world, found)


def _quality(world: World) -> list[float]:
    """What the serving policy expects of each arm."""
    query, arms = asked(), world.catalogue.priced(world.offered(), 10)
    context = policies.Context(query.embedding, 10, 0.1)
    learner = world.learners[world.serving]
    told = learner.policy.propose(learner.state, context, Arms(arms.ids, arms.cost_usd, arms.price))
    assert told.quality is not None
    return [float(one) for one in told.quality]


def test_the_last_vote_counts_and_the_same_again_changes_nothing() -> None:
    world = a_world(serving="nested")
    event = decided(world, asked())
    first = _vote(world, event, UP)
    assert first is not None
    assert (first.quality, first.metrics, first.correction) == (1.0, {"vote": 1.0}, False)
    assert _vote(world, event, UP) is None
    second = _vote(world, event, DOWN)
    assert second is not None
    assert (second.quality, second.correction) == (0.0, True)
    pending = world.pending.decisions[event.id]
    assert pending.signals == {"quality": 0.0, "vote": 0.0}
    assert pending.reward == pytest.approx(-event.expected_cost_usd / 0.1)


@pytest.mark.parametrize("name", ["nested", "metallm"])
def test_a_vote_that_is_taken_back_pulls_the_estimates_nowhere(name: str) -> None:
    """Some outcomes of before, then the very vote: the estimate goes back to where it was."""
    world = a_world(serving=name)
    for axis, quality in enumerate((0.25, 0.75, 0.5, 0.5)):
        _told(world, decided(world, asked(axis=axis)), quality=quality)
    event = decided(world, asked())
    before = _quality(world)
    _vote(world, event, UP)
    voted = max(abs(a - b) for a, b in zip(_quality(world), before, strict=True))
    assert voted > 0.002
    revoked = _vote(world, event, NEUTRAL)
    assert revoked is not None
    assert revoked.quality == event.expected_quality
    pulled = max(abs(a - b) for a, b in zip(_quality(world), before, strict=True))
    assert pulled < 0.15 * voted
    pending = world.pending.decisions[event.id]
    assert (pending.signals, pending.reward) == ({}, None)
    assert _vote(world, event, NEUTRAL) is None


def test_who_votes_again_after_all_is_counted_once() -> None:
    world = a_world(serving="epsilon_greedy")
    straight = a_world(serving="epsilon_greedy")
    event = decided(world, asked())
    apply(straight, event)
    for vote in (UP, NEUTRAL, DOWN, NEUTRAL, UP):
        _vote(world, event, vote)
    _vote(straight, event, UP)
    states = [one.learners["epsilon_greedy"].state for one in (world, straight)]
    assert states[0] == states[1]
    outcomes = [[item.outcomes for item in one.history.items.values()] for one in (world, straight)]
    assert outcomes[0] == outcomes[1]


def test_a_vote_stands_in_the_place_of_a_judges_grade_and_not_of_the_clients() -> None:
    world = a_world(serving="nested")
    judged, graded, rewarded = (decided(world, asked(axis=i)) for i in range(3))
    _told(world, judged, quality=0.25, provisional=True)
    assert _vote(world, judged, UP) is not None
    assert world.pending.decisions[judged.id].signals["quality"] == 1.0
    _told(world, graded, quality=0.25)
    _told(world, rewarded, reward=0.25)
    for event, name in ((graded, "quality"), (rewarded, "reward")):
        for vote in (UP, NEUTRAL):
            with pytest.raises(Conflict, match=f"vote: {name} was already reported"):
                _vote(world, event, vote)


def test_after_it_was_taken_back_anybody_may_grade_and_a_cost_settles_nothing() -> None:
    world = a_world(serving="nested")
    event = decided(world, asked())
    _told(world, event, cost_usd=0.001)
    _vote(world, event, UP)
    _vote(world, event, NEUTRAL)
    _told(world, event, cost_usd=0.002, correction=True)
    assert world.pending.decisions[event.id].reward is None
    _told(world, event, quality=0.5)
    assert world.pending.decisions[event.id].reward == pytest.approx(0.5 - 0.02)


def test_an_experiment_forgets_what_was_taken_back_and_counts_a_new_vote() -> None:
    world = a_world()
    run(world, two_arms(primary="quality", metrics=(Metric(name="vote", low=0.0, high=1.0),)))
    event = decided(world, asked("u"))
    other = decided(world, asked("u"))
    _told(world, other, quality=0.5)
    side = world.experiments.trials["e"].sides[event.variant]
    _vote(world, event, UP)
    assert (side.sums["quality"].s, side.sums["vote"].s, side.rewards) == (1.5, 1.0, 2)
    _vote(world, event, NEUTRAL)
    assert (side.sums["quality"].s, side.sums["quality"].n) == (0.5, 1.0)
    assert (side.sums["vote"].units, side.rewards) == (0, 1)
    scores = [one.score.n for one in side.scores.values()]
    _vote(world, event, DOWN)
    assert (side.sums["vote"].units, side.sums["vote"].s, side.rewards) == (1, 0.0, 2)
    assert [one.score.n for one in side.scores.values()] == scores, "not its first outcome"


def test_it_is_the_same_after_a_snapshot() -> None:
    world = a_world(serving="nested")
    event = decided(world, asked())
    _vote(world, event, UP)
    _vote(world, event, NEUTRAL)
    kept = snapshot.read(snapshot.dump(world))
    again = snapshot.restore(kept, {"nested": policies.load("nested")}, "nested")
    for one in (world, again):
        _vote(one, event, DOWN)
    assert again.digest() == world.digest()


def test_an_export_has_no_outcome_of_what_was_taken_back() -> None:
    world = a_world()
    event = decided(world, asked())
    outcomes = Outcomes()
    for vote in (UP, NEUTRAL):
        found = _vote(world, event, vote)
        assert found is not None
        outcomes.rewarded(found)
    outcome = outcomes.of(event.id)
    assert outcome is not None
    assert (outcome.quality, outcome.reward, outcome.reward_ts) == (None, None, None)
    assert (outcome.settled, outcome.corrected) == (False, True)
    outcomes.close()


def test_an_event_without_a_revocation_is_written_as_before() -> None:
    world = a_world()
    found = decision_voted(world.pending.decisions[decided(world, asked()).id], "d", UP, RULE, 1.0)
    assert found is not None
    assert "revoked" not in msgspec.msgpack.decode(ev.encode(found))
    assert np.isfinite(found.reward or 0.0)
