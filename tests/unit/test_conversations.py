"""Which arm a conversation had is a fold of the log; staying is part of what is drawn from."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest

import policies
from bandit_service.core import conversations, exclusions, snapshot
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.conversations import PRIOR, PRIOR_TOKENS, Turn
from bandit_service.core.decide import decide, weigh
from bandit_service.core.exploration import Exploration
from bandit_service.core.learner import Correction, Lesson
from bandit_service.core.lessons import parts
from bandit_service.core.query import Query, Recalled
from bandit_service.core.resolve import resolve
from bandit_service.core.switching_cost import REASONS, Stay, then
from bandit_service.core.world import World, new_world
from bandit_service.gateway import affinity
from policies import ArmId

A, B, C = ArmId("a"), ArmId("b"), ArmId("c")
TALK, OTHER = "talk", "other"
NONE = Exploration(share=0.0)
UNIT = np.array([1.0, 0.0], np.float32)


def a_world(serving: str = "uniform", **prices: tuple[float, float | None]) -> World:
    """A world that offers these arms; of each the price in, also that out, and the cached one."""
    world = new_world({serving: policies.load(serving)}, serving, 50)
    for id, (usd, cached) in (prices or {"a": (1.0, 0.1), "b": (1.0, 0.1)}).items():
        spec = ev.ArmSpec(
            id=ArmId(id), usd_per_mtok_in=usd, usd_per_mtok_out=usd, usd_per_mtok_cached_in=cached
        )
        apply(world, ev.ArmAdded(ts=0.0, arm=spec, source="api"))
    return world


def a_query(world: World, prompt: int = 10_000, ts: float = 10.0, **more: Any) -> Query:
    talk = more.pop("talk", TALK)
    turn = world.conversations.turn(talk, prompt, world.arms, ts, 3600.0) if talk else None
    query = Query(embedding=UNIT, tokens=10, willingness_to_pay=0.1, prompt=prompt, turn=turn)
    for name, value in more.items():
        setattr(query, name, value)
    return query


def answered(
    world: World,
    arm: ArmId = A,
    ts: float = 5.0,
    prompt: int = 10_000,
    cached: int | None = None,
    talk: str = TALK,
    unit: str = "",
    calls: tuple[str, ...] = (),
    deployment: str = "",
) -> None:
    """A turn of the conversation, answered by this arm."""
    id = f"{talk} {ts}"
    query = a_query(world, prompt, ts, talk=talk, arms=(arm,), unit=unit)
    apply(world, decide(world, query, Recalled(), id, ts, NONE))
    told = ev.Rewarded(
        ts=ts + 1.0, decision_id=id, cost_usd=0.01, prompt_tokens=prompt, cached_tokens=cached,
        calls=calls, deployment=deployment,
    )  # fmt: skip
    apply(world, told)


# --- the fold


def test_the_arm_that_answered_is_known_and_of_another_conversation_none() -> None:
    world = a_world()
    answered(world)
    later = world.conversations.later
    assert later == pytest.approx(20 / 21), "one conversation of one turn, and what is assumed"
    both = (A, 9000), (B, 9000)
    assert a_query(world).turn == Turn(TALK, A, ((A, 9000),), both, later)
    assert a_query(world, talk=OTHER).turn == Turn(OTHER, ArmId(""), (), both, later)


def test_it_survives_a_snapshot_and_a_log_of_before_folds_without() -> None:
    world = a_world()
    answered(world, cached=100)
    kept = snapshot.read(snapshot.dump(world))
    again = snapshot.restore(kept, {"uniform": policies.load("uniform")}, "uniform")
    assert a_query(again).turn == a_query(world).turn
    assert again.digest() == world.digest()
    old = a_world()
    event = decide(old, a_query(old, 0, talk=""), Recalled(), "d", 1.0, NONE)
    assert (event.conversation, event.prompt_tokens, event.switch_usd) == ("", 0, ())
    assert ev.decode(ev.encode(event)) == event
    apply(apply(old, event), ev.Rewarded(ts=2.0, decision_id="d", cost_usd=0.1))
    assert not old.conversations.talks


def test_a_decision_whose_arm_gave_no_answer_changes_nothing() -> None:
    world = a_world()
    answered(world)
    failed = decide(world, a_query(world, arms=(B,)), Recalled(), "failed", 9.0, NONE)
    apply(apply(world, failed), ev.Rewarded(ts=9.5, decision_id="failed", quality=0.0))
    turn = a_query(world).turn
    assert turn is not None
    assert turn.before == A


def test_a_conversation_that_was_silent_too_long_begins_anew() -> None:
    world = a_world()
    answered(world, ts=5.0)
    assert a_query(world, ts=3605.0).turn.before == A  # type: ignore[union-attr]
    assert a_query(world, ts=3607.0).turn.before == ""  # type: ignore[union-attr]


def test_a_first_message_that_comes_again_and_again_is_no_conversation_that_goes_on() -> None:
    world = a_world()
    for i in range(50):
        turn = world.conversations.turn(TALK, 100, world.arms, 9.0 * i, 3600.0, begins=True)
        query = a_query(world, 100, turn=turn)
        apply(world, decide(world, query, Recalled(), f"{i}", 9.0 * i, NONE))
        told = ev.Rewarded(ts=9.0 * i, decision_id=f"{i}", cost_usd=0.01, prompt_tokens=100)
        apply(world, told)
    found = world.conversations
    assert (found.begun, found.went_on, len(found.talks)) == (50, 0, 1)
    assert found.later < 1.0


def test_the_oldest_leave_and_the_bound_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "MOST", 3)
    world = a_world()
    for i in range(5):
        answered(world, ts=5.0 + i, talk=f"t{i}")
    answered(world, ts=20.0, talk="t2")
    answered(world, ts=21.0, talk="t5")
    assert list(world.conversations.talks) == ["t4", "t2", "t5"]
    answered(world, ts=22.0 + conversations.KEPT_S, talk="late")
    assert list(world.conversations.talks) == ["late"]


def test_an_arm_that_had_the_conversation_earlier_still_has_what_it_was_sent() -> None:
    world = a_world(a=(1.0, 0.1), b=(1.0, 0.1), c=(1.0, 0.1))
    answered(world, A, ts=5.0, prompt=1000)
    answered(world, B, ts=15.0, prompt=4000)
    turn = a_query(world, 5000, ts=20.0).turn
    assert turn == Turn(TALK, B, ((A, 900), (B, 3600)), ((A, 3600), (B, 3600), (C, 3600)), 1.0)


def test_how_much_is_found_is_learned_for_each_arm_and_age() -> None:
    world = a_world()
    answered(world, ts=5.0, cached=0)
    answered(world, ts=10.0, cached=0)  # nothing was found after 5 s
    share = world.conversations.share
    assert share(A, 0) == pytest.approx(PRIOR[0] * PRIOR_TOKENS / (PRIOR_TOKENS + 10_000))
    assert share(B, 0) == share(A, 1) == PRIOR[0]
    answered(world, ts=5.0, cached=5000, talk=OTHER)  # a prompt that conversations share
    assert share(A, 4) == pytest.approx(5000 / (PRIOR_TOKENS + 20_000))
    assert a_query(world, talk="third").turn.cached == ((A, 714),)  # type: ignore[union-attr]


def test_where_an_arm_answered_is_known_and_another_place_has_cached_nothing() -> None:
    world = a_world()
    answered(world, ts=5.0, deployment="eu")
    known = world.conversations
    assert known.deployment_of(TALK, A, 10.0, 3600.0) == "eu"
    assert known.deployment_of(TALK, B, 10.0, 3600.0) == ""
    assert known.deployment_of(OTHER, A, 10.0, 3600.0) == ""
    assert known.deployment_of(TALK, A, 5.0 + 3602.0, 3600.0) == ""
    before = known.share(A, 0)
    answered(world, ts=10.0, cached=0, deployment="us")
    assert known.share(A, 0) == before, "what is not found elsewhere says nothing of its cache"
    answered(world, ts=15.0, cached=0, deployment="us")
    assert known.share(A, 0) < before
    assert known.deployment_of(TALK, A, 20.0, 3600.0) == "us"
    kept = snapshot.restore(
        snapshot.read(snapshot.dump(world)), {"uniform": policies.load("uniform")}, "uniform"
    )
    assert kept.digest() == world.digest()


def test_who_called_a_tool_is_known_and_the_oldest_calls_leave() -> None:
    world = a_world()
    answered(world, A, calls=("1", "2"))
    answered(world, B, 6.0, calls=("3",))
    known = world.conversations
    assert [known.called(TALK, (call,)) for call in "1234"] == [A, A, B, ""]
    assert known.called(OTHER, ("1",)) == ""
    assert known.called(TALK, ()) == ""
    kept = snapshot.read(snapshot.dump(world))
    again = snapshot.restore(kept, {"uniform": policies.load("uniform")}, "uniform")
    assert again.conversations.called(TALK, ("3",)) == B
    for i in range(conversations.MAX_CALLS):
        answered(world, B, 7.0 + i, calls=(f"more {i}",))
    assert (known.called(TALK, ("3",)), known.called(TALK, ("more 0",))) == ("", B)


def test_sixteen_loops_of_many_calls_that_opened_alike_are_each_bound_to_their_arm() -> None:
    world = a_world()
    loops = {f"loop {i}": A if i % 2 else B for i in range(16)}
    for i, (name, arm) in enumerate(loops.items()):
        calls = affinity.hashed(
            TALK, [f"{name}, call {k}" for k in range(30)][: affinity.MAX_CALLS]
        )
        answered(world, arm, 5.0 + i, calls=calls)
    for name, arm in loops.items():
        results = affinity.hashed(TALK, [f"{name}, call {k}" for k in range(30)])
        assert world.conversations.called(TALK, results) == arm


def test_what_is_forgotten_of_a_unit_is_forgotten_here() -> None:
    world = a_world()
    answered(world, unit="u")
    answered(world, talk=OTHER, unit="v")
    apply(world, ev.Forgotten(ts=9.0, owner=ev.owner_of("", "u")))
    assert list(world.conversations.talks) == [OTHER]


# --- one objective


def test_a_switch_costs_what_the_other_arm_has_to_read_again() -> None:
    world = a_world()
    answered(world)
    event = decide(world, a_query(world), Recalled(), "d", 10.0, NONE)
    at_a, at_b = event.arms.index(A), event.arms.index(B)
    assert event.cached_tokens == (9000, 0)
    assert event.switch_usd[at_a] == 0.0
    ratio = (5 * 0.0103 + 0.01) / (5 * 0.0103 + 0.0103)  # what a was billed is a little less
    assert ratio < 1.0
    assert event.switch_usd[at_b] == pytest.approx(9000 * 0.9 / 1e6)
    turns = 1.0 + event.later_turns
    assert turns == pytest.approx(41 / 21)
    assert event.scores[at_b] == pytest.approx(-event.switch_usd[at_b] / turns / 0.1)


def test_who_scores_no_better_with_the_switch_gets_nothing_and_the_rest_what_it_had() -> None:
    world = a_world("uniform", a=(1.0, 0.1), b=(1.0, 0.1), c=(1.0, 1.0))
    answered(world)
    weighed = weigh(world, a_query(world), Recalled(), NONE)
    # c has no cheaper price for what is cached, so nothing is lost by a switch, but no score won
    assert weighed.propensities.tolist() == [1.0, 0.0, 0.0]
    new = weigh(world, a_query(world, talk=OTHER), Recalled(), NONE)
    assert new.propensities.tolist() == pytest.approx([1 / 3] * 3)


def test_a_switch_that_pays_is_made() -> None:
    """Greedy by what it knows: b is better by more than a switch costs, or by less."""
    for quality, stays in ((0.52, True), (0.95, False)):
        world = a_world("knn")
        for i in range(6):
            for arm, value in ((A, 0.5), (B, quality)):
                query = a_query(world, 0, talk="", arms=(arm,))
                id = f"{arm}{i}"
                apply(world, decide(world, query, Recalled(), id, 1.0, NONE))
                told = ev.Rewarded(ts=1.0, decision_id=id, quality=value, reward=value)
                apply(world, told)
        ids = [*world.history.items]
        recalled = Recalled(ids, [1.0] * len(ids))
        answered(world)
        query = a_query(world, 50_000)
        free = weigh(world, a_query(world, 50_000, talk=OTHER), recalled, NONE)
        assert free.propensities.tolist() == [0.0, 1.0], "without a conversation b is drawn"
        bound = weigh(world, query, recalled, NONE)
        assert bound.propensities.tolist() == ([1.0, 0.0] if stays else [0.0, 1.0])


def test_the_floor_is_as_much_rarer_as_a_draw_is_dearer() -> None:
    world = a_world()
    answered(world)
    explore = Exploration(share=0.1)
    event = decide(world, a_query(world), Recalled(), "d", 10.0, explore)
    warm = event.expected_cost_usd
    cold = 10_300 / 1e6
    p = event.propensities[event.arms.index(B)]
    assert 0.0 < p < 0.05
    assert p == pytest.approx(0.05 * (cold - event.switch_usd[1]) / cold)
    assert warm < cold


# --- true propensities


def _drawn(world: World, explore: Exploration, n: int) -> list[ev.Decided]:
    query = a_query(world)
    weighed = [decide(world, query, Recalled(), f"id {i}", 10.0, explore) for i in range(n)]
    return weighed


@pytest.mark.parametrize("serving", ["uniform", "epsilon_greedy", "metallm", "eagle"])
def test_the_propensities_are_those_of_the_draw(serving: str) -> None:
    world = a_world(serving, a=(1.0, 0.1), b=(0.2, 0.1), c=(3.0, 0.1))
    answered(world)
    n, explore = 4000, Exploration(share=0.3)
    events = _drawn(world, explore, n)
    p = np.array(events[0].propensities)
    assert p.sum() == pytest.approx(1.0)
    assert (p > 0.0).all(), "every arm keeps a chance"
    counts = Counter(event.drawn for event in events)
    found = np.array([counts[k] / n for k in range(3)])
    assert np.abs(found - p).max() < 4.0 * np.sqrt(0.25 / n)
    assert {event.stayed for event in events} == {True, False}
    assert all(event.stayed == (event.arm == A) for event in events)
    assert all(event.why == ("stayed" if event.stayed else "switched") for event in events)
    assert {exclusions.why_excluded(event) for event in events} == {""}


def test_an_off_policy_estimate_over_staying_turns_is_right() -> None:
    """Inverse propensities over turns that may stay give the value of "always b"."""
    world = a_world()
    answered(world)
    value = {A: 0.2, B: 0.8}
    events = _drawn(world, Exploration(share=0.5), 6000)
    weights = [(event.arm == B) / event.propensity for event in events]
    estimate = np.mean([w * value[event.arm] for w, event in zip(weights, events, strict=True)])
    spread = np.std([w * 0.8 for w in weights]) / np.sqrt(len(events))
    assert abs(float(estimate) - 0.8) < 4.0 * spread
    assert np.mean([value[event.arm] for event in events]) < 0.4, "most of them stayed"


def test_a_decision_is_posed_again_as_it_was() -> None:
    world = a_world()
    answered(world)
    event = decide(world, a_query(world), Recalled(), "d", 10.0, Exploration())
    arms, stay = then(world.catalogue, event)
    assert stay is not None
    assert tuple(stay.extra) == pytest.approx(event.switch_usd)
    assert float(arms.cost_usd[event.drawn]) == pytest.approx(event.expected_cost_usd)


def test_one_arm_and_what_the_asker_knows_have_their_reasons() -> None:
    world = a_world()
    answered(world)
    one = decide(world, a_query(world, arms=(A,)), Recalled(), "1", 10.0, NONE)
    told = decide(world, a_query(world, reason="tool_loop", arms=(A,)), Recalled(), "2", 10.0, NONE)
    new = decide(world, a_query(world, talk=OTHER), Recalled(), "3", 10.0, NONE)
    assert [one.why, told.why, new.why] == ["only_one", "tool_loop", "drawn"]
    assert {one.why, told.why, new.why} <= REASONS.keys()
    assert exclusions.why_excluded(one) == "single"


def test_bills_of_cached_prompts_do_not_make_an_arm_look_cheap_elsewhere() -> None:
    world = a_world()
    before = world.arms[A].expected_prompt_usd(10_000, 0)
    for i in range(20):
        id, ts = f"turn {i}", 10.0 + i
        query = a_query(world, ts=ts, arms=(A,))
        event = decide(world, query, Recalled(), id, ts, NONE)
        apply(world, event)
        cached = event.cached_tokens[0] if event.cached_tokens else 0
        usd = ((10_000 - cached) * 1.0 + cached * 0.1 + 300) / 1e6
        told = ev.Rewarded(
            ts=ts, decision_id=id, cost_usd=usd, prompt_tokens=10_000, cached_tokens=cached
        )
        apply(world, told)
    assert world.arms[A].observed_usd / 20 < 0.3 * before
    assert world.arms[A].expected_prompt_usd(10_000, 0) == pytest.approx(before)


# --- another model answers


def test_what_comes_of_a_redirected_decision_says_nothing_of_its_arm() -> None:
    for by in (B, ArmId("")):
        world = a_world()
        event = decide(world, a_query(world, arms=(A,)), Recalled(), "d", 5.0, NONE)
        apply(world, event)
        before = world.arms[A]
        told = ev.Redirected(ts=5.5, decision_id="d", model="m", arm=by, prompt_tokens=10_000)
        apply(world, ev.decode(ev.encode(told)))
        apply(world, ev.Rewarded(ts=6.0, decision_id="d", quality=1.0, reward=1.0, cost_usd=0.2))
        assert (before.live, before.costs, before.prompt_usd) == (0, 0, 0.0)
        credited = world.arms[B]
        assert (credited.live, credited.costs) == ((1, 1) if by else (0, 0))
        assert credited.prompt_usd == 0.0, "its cache was not what was expected of the other's"
        assert world.spend.spent("hour", 5.0, "service") == (0.2 if by else 0.0)
        turn = a_query(world).turn
        assert turn is not None
        assert (turn.before, turn.at(A), turn.at(B)) == (A, 0, 0), "it goes on where it was asked"
        assert world.unapplied == 0
        apply(world, ev.DecisionsExpired(ts=9.0, ids=("d",), default_reward=0.0))
        assert (before.live, world.unapplied) == (0, 0)


def test_of_one_that_expires_nothing_is_learned_of_its_arm_either() -> None:
    world = a_world()
    apply(world, decide(world, a_query(world, arms=(A,)), Recalled(), "d", 5.0, NONE))
    apply(world, ev.Redirected(ts=5.5, decision_id="d", model="m"))
    apply(world, ev.DecisionsExpired(ts=9.0, ids=("d",), default_reward=0.5))
    assert (world.arms[A].live, world.unapplied) == (0, 0)


def test_another_arm_is_taught_with_its_own_prices() -> None:
    world = a_world(a=(1.0, 0.1), b=(9.0, 0.9))
    event = decide(world, a_query(world, talk="", arms=(A,), prompt=0), Recalled(), "d", 5.0, NONE)
    apply(world, event)
    apply(world, ev.Redirected(ts=5.5, decision_id="d", model="m", arm=B))
    usual = world.arms[B].expected_cost_usd(10)
    told = ev.Rewarded(ts=6.0, decision_id="d", quality=1.0, reward=1.0)
    (lesson,) = taught(world, told)
    assert isinstance(lesson, policies.Rewarded)
    assert (lesson.arm, lesson.expected_cost_usd) == (B, usual)
    assert lesson.price == 1.0, "it is the dearest"
    apply(world, msgspec.structs.replace(told, cost_usd=world.arms[B].list_cost_usd(10)))
    assert world.arms[B].expected_cost_usd(10) == pytest.approx(usual), "it costs what it is to"
    (changed,) = taught(world, msgspec.structs.replace(told, correction=True, quality=0.5))
    assert isinstance(changed, Correction)
    assert changed.before.price == changed.after.price == lesson.price


def test_a_redirect_after_its_arm_was_taught_leaves_the_lesson_there() -> None:
    world = a_world()
    apply(world, decide(world, a_query(world, arms=(A,)), Recalled(), "d", 5.0, NONE))
    told = ev.Rewarded(ts=5.2, decision_id="d", quality=1.0, reward=1.0)
    apply(world, told)
    apply(world, ev.Redirected(ts=5.5, decision_id="d", model="m", arm=B))
    (changed,) = taught(world, msgspec.structs.replace(told, correction=True, reward=0.0))
    assert isinstance(changed, Correction)
    assert changed.before.arm == changed.after.arm == A


def taught(world: World, event: ev.Rewarded) -> tuple[Lesson, ...]:
    (what,) = parts(world, resolve(world, event))
    return what.lessons


def test_a_share_is_never_below_zero_whatever_rounding_does() -> None:
    stay = Stay(0, np.ones(4), np.zeros(4))
    over = np.array([0.0, 0.7, 0.2, 0.1 + 1e-15])
    scores = np.array([0.0, 1.0, 1.0, 1.0])
    p = stay.keep(policies.Proposal(scores=scores, propensities=over), 1.0).propensities
    assert p.min() >= 0.0
    assert p.sum() == pytest.approx(1.0)
