"""Corrections, silence, erasure and log time, by values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

import policies
from bandit_service import clock
from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.apply import apply, skip
from bandit_service.core.errors import Conflict
from bandit_service.core.outcomes import Reported, RewardRule, Signals, decision_rewarded
from bandit_service.core.world import World, new_world
from policies import ArmId, Outcome

RULE = RewardRule(willingness_to_pay=0.1)


def _world(name: str = "epsilon_greedy") -> World:
    world = new_world({name: policies.load(name)}, name, 10)
    for id in ("a", "b"):
        spec = ev.ArmSpec(id=ArmId(id), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
        apply(world, ev.ArmAdded(ts=0.0, arm=spec, source="api"))
    return world


def _decided(id: str, unit: str = "", at: int = 0) -> ev.Decided:
    embedding = np.zeros(4, np.float32)
    embedding[at] = 1.0
    return ev.Decided(
        ts=1.0,
        id=id,
        embedding=ev.pack(embedding),
        tokens=10,
        willingness_to_pay=0.1,
        arms=(ArmId("a"), ArmId("b")),
        propensities=(0.5, 0.5),
        scores=(0.0, 0.0),
        drawn=0,
        policy="p",
        key="k",
        list_cost_usd=0.002,
        expected_cost_usd=0.002,
        price=1.0,
        unit=unit,
    )


def _report(
    world: World,
    id: str,
    correction: bool = False,
    quality: float | None = None,
    cost_usd: float | None = None,
) -> ev.Rewarded:
    report = Reported(Signals(quality, cost_usd), correction=correction)
    event = decision_rewarded(world.pending.decisions[id], id, report, RULE, 2.0)
    assert event is not None
    apply(world, event)
    return event


def test_a_correction_takes_the_first_values_place_everywhere() -> None:
    """0.9 − 0.01/0.1 = 0.8 becomes 0.4 − 0.01/0.1 = 0.3, then with twice the bill 0.2."""
    world = _world()
    apply(world, _decided("d"))
    _report(world, "d", quality=0.9, cost_usd=0.01)
    assert world.learners["epsilon_greedy"].state.total == {"a": pytest.approx(0.8, abs=2**-16)}
    assert _report(world, "d", correction=True, quality=0.4).reward == pytest.approx(0.3)
    learner = world.learners["epsilon_greedy"]
    assert learner.state.total == {"a": pytest.approx(0.3, abs=2**-16)}
    assert learner.state.count == {"a": 1.0}
    assert _report(world, "d", correction=True, cost_usd=0.02).reward == pytest.approx(0.2)
    assert learner.state.total == {"a": pytest.approx(0.2, abs=2**-16)}
    assert (
        world.arms[ArmId("a")].observed_usd,
        world.arms[ArmId("a")].costs,
    ) == (0.02, 1)
    (item,) = world.history.items.values()
    (outcome,) = item.outcomes
    assert outcome == Outcome(ArmId("a"), 0.4, outcome.reward)
    assert outcome.reward == pytest.approx(0.2)


def test_an_estimated_cost_stands_in_its_decisions_window_until_the_cost_is_reported() -> None:
    world = _world()
    for id in ("one", "two"):
        apply(world, _decided(id))
        apply(world, ev.Spent(ts=1.0 + 86_400, decision_id=id, usd=0.5))
    assert world.spend.spent("day", 1.0, "service") == 1.0
    assert world.spend.spent("day", 1.0 + 86_400, "service") == 0.0
    _report(world, "one", cost_usd=2.0)
    assert world.spend.spent("day", 1.0, "service") == 2.5
    apply(world, ev.Spent(ts=2.0, decision_id="one", usd=0.5))
    assert world.spend.spent("day", 1.0, "service") == 2.5, "what it cost was known"
    assert world.arms[ArmId("a")].observed_usd == 2.0, "an estimate is not learned"
    kept = snapshot.read(snapshot.dump(world))
    again = snapshot.restore(
        kept, {"epsilon_greedy": policies.load("epsilon_greedy")}, "epsilon_greedy"
    )
    for each in (world, again):
        _report(each, "two", cost_usd=0.25)
        _report(each, "two", cost_usd=0.75, correction=True)
        assert each.spend.spent("day", 1.0, "service") == 2.75
    assert again.digest() == world.digest()


def test_without_the_word_correction_another_value_is_a_conflict_and_changes_nothing() -> None:
    world = _world()
    apply(world, _decided("d"))
    _report(world, "d", quality=0.9)
    before = world.digest()
    report = Reported(Signals(quality=0.4))
    with pytest.raises(Conflict, match=r"0\.9.*0\.4.*correction"):
        decision_rewarded(world.pending.decisions["d"], "d", report, RULE, 2.0)
    assert world.digest() == before
    same = Reported(Signals(quality=0.9), correction=True)
    assert decision_rewarded(world.pending.decisions["d"], "d", same, RULE, 2.0) is None


def test_a_policy_that_is_no_sum_keeps_what_it_learned_and_is_counted() -> None:
    world = _world("pickllm_q")
    apply(world, _decided("d"))
    _report(world, "d", quality=0.9)
    state = dict(world.learners["pickllm_q"].state.q)
    _report(world, "d", correction=True, quality=0.1)
    assert world.learners["pickllm_q"].state.q == state
    assert world.learners["pickllm_q"].uncorrected == 1
    assert world.pending.decisions["d"].signals["quality"] == 0.1


def test_silence_teaches_the_default_once_and_only_where_nothing_was_said() -> None:
    world = _world()
    for id in ("silent", "rewarded", "billed"):
        apply(world, _decided(id))
    _report(world, "rewarded", quality=0.9, cost_usd=0.01)
    _report(world, "billed", cost_usd=0.01)
    ids = ("silent", "rewarded", "billed", "unheard of")
    apply(world, ev.DecisionsExpired(ts=3.0, ids=ids, default_reward=-0.25))
    state = world.learners["epsilon_greedy"].state
    assert state.total == {"a": pytest.approx(0.8 - 0.25 - 0.25, abs=2**-16)}
    assert state.count == {"a": 3.0}
    assert not world.pending.decisions
    dropped = _world()
    apply(dropped, _decided("silent"))
    apply(dropped, ev.DecisionsExpired(ts=3.0, ids=("silent",)))
    assert dropped.learners["epsilon_greedy"].state.total == {}


def test_a_forgotten_unit_leaves_pending_and_history_and_no_one_else_does() -> None:
    world = _world()
    apply(world, _decided("mine", "me", at=0))
    apply(world, _decided("theirs", "you", at=1))
    apply(world, _decided("shared", "you", at=0))  # the same query as mine
    for id in ("mine", "theirs", "shared"):
        _report(world, id, quality=0.5)
    apply(world, _decided("open", "me", at=2))
    apply(world, ev.Forgotten(ts=3.0, owner=ev.owner_of("", "me")))
    assert set(world.pending.decisions) == {"theirs", "shared"}
    assert [len(item.outcomes) for item in world.history.items.values()] == [1, 1]
    assert world.learners["epsilon_greedy"].state.count == {"a": 3.0}
    assert list(world.erasures.owners) == [ev.owner_of("", "me")]
    apply(world, ev.Forgotten(ts=3.0, owner=ev.owner_of("", "you")))
    assert not world.history.items
    assert world.history.vectors()[1].size == 0
    apply(world, ev.Erased(ts=4.0, owner=ev.owner_of("", "me")))
    assert list(world.erasures.owners) == [ev.owner_of("", "you")]


def test_the_folds_time_never_goes_back_and_ids_go_on_after_it() -> None:
    world = _world()
    apply(world, ev.DecisionsExpired(ts=5.0, ids=()))
    apply(world, ev.DecisionsExpired(ts=2.0, ids=()))
    assert world.ts == 5.0
    before = clock.Ids().new(1_700_000_000.0)
    after = clock.Ids(1_700_000_000.0)
    ids = [before, *(after.new(1_700_000_000.0 - 3600.0) for _ in range(5000))]
    assert ids == sorted(set(ids))
    made = clock.time_of(ids[-1])
    assert made is not None
    assert math.isclose(made, 1_700_000_000.0, abs_tol=0.01)


def test_a_remembered_query_has_the_same_number_when_one_before_it_was_erased() -> None:
    whole, gap = _world(), _world()
    for at, unit in enumerate(("me", "you", "you")):
        apply(whole, _decided(f"d{at}", unit, at=at))
        event = _report(whole, f"d{at}", quality=0.5)
        if unit == "me":
            skip(skip(gap))
        else:
            apply(apply(gap, _decided(f"d{at}", unit, at=at)), event)
    assert list(gap.history.items) == list(whole.history.items)[1:]
    apply(apply(whole, _decided("e0", at=0)), _decided("e1", at=3))
    apply(skip(gap), _decided("e1", at=3))  # e0 was erased
    for world in (whole, gap):
        apply(world, ev.DecisionsExpired(ts=3.0, ids=("e0", "e1"), default_reward=0.0))
    assert max(gap.history.items) == max(whole.history.items)


def test_a_users_word_takes_the_place_of_a_judges_and_no_judges_of_a_users() -> None:
    """0.9 − 0.01/0.1 = 0.8 is the judge's, 0.4 − 0.01/0.1 = 0.3 the user's."""
    world = _world()
    apply(world, _decided("d"))
    pending = world.pending.decisions["d"]
    learner = world.learners["epsilon_greedy"]

    def said(quality: float, provisional: bool = False) -> ev.Rewarded | None:
        report = Reported(Signals(quality), provisional=provisional)
        event = decision_rewarded(pending, "d", report, RULE, 2.0)
        if event is not None:
            apply(world, ev.decode(ev.encode(event)))
        return event

    _report(world, "d", cost_usd=0.01)
    assert said(0.9, provisional=True) is not None
    assert (learner.state.total, pending.provisional) == (
        {"a": pytest.approx(0.8, abs=2**-16)},
        True,
    )
    again = snapshot.restore(
        snapshot.read(snapshot.dump(world)),
        {"epsilon_greedy": policies.load("epsilon_greedy")},
        "epsilon_greedy",
    )
    assert again.digest() == world.digest()
    assert said(0.9, provisional=True) is None
    superseding = said(0.4)
    assert superseding is not None
    assert superseding.correction
    assert (learner.state.total, learner.state.count) == (
        {"a": pytest.approx(0.3, abs=2**-16)},
        {"a": 1.0},
    )
    assert not pending.provisional
    assert said(0.4) is None
    for late in (0.5, 0.9):
        with pytest.raises(Conflict):
            said(late)
        with pytest.raises(Conflict):
            said(late, provisional=True)


def test_a_user_who_agrees_with_the_judge_has_the_last_word() -> None:
    world = _world()
    apply(world, _decided("d"))
    judged = Reported(Signals(0.8), provisional=True)
    apply(world, _expect(decision_rewarded(world.pending.decisions["d"], "d", judged, RULE, 2.0)))
    _report(world, "d", quality=0.8)
    with pytest.raises(Conflict):
        decision_rewarded(world.pending.decisions["d"], "d", Reported(Signals(0.7)), RULE, 2.0)


def test_a_users_reward_takes_the_place_of_a_judges_quality() -> None:
    world = _world()
    apply(world, _decided("d"))
    judged = Reported(Signals(0.8), provisional=True)
    apply(world, _expect(decision_rewarded(world.pending.decisions["d"], "d", judged, RULE, 2.0)))
    told = Reported(Signals(reward=-0.5))
    apply(world, _expect(decision_rewarded(world.pending.decisions["d"], "d", told, RULE, 2.0)))
    assert world.learners["epsilon_greedy"].state.total == {"a": pytest.approx(-0.5, abs=2**-16)}


def _expect(event: ev.Rewarded | None) -> ev.Rewarded:
    assert event is not None
    return event
