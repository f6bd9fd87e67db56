"""What every policy promises. Each public function here is one law; its name says it.

A law takes a factory of policies and raises AssertionError when the policy breaks it, so that
anybody can hold a policy of their own against all of them:

    for law in laws.all_laws().values():
        with contextlib.suppress(laws.NotApplicable):  # of what the policy does not claim to do
            law(MyPolicy)

The policy's class must be importable, since one law folds events in another process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import itertools
import math
import re
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bandit_service.core import codec
from policies import (
    SURFACE,
    ArmId,
    Arms,
    Compared,
    Context,
    Correctable,
    Floats,
    Forgetful,
    Neighbour,
    Outcome,
    Policy,
    Proposal,
    Rewarded,
    draw,
    mix,
)
from tests.laws import events as made
from tests.laws import other_process

Factory = Callable[[], Policy[Any]]
Law = Callable[[Factory], None]


class NotApplicable(Exception):
    """The law is about something optional that the policy does not do."""


# What the service takes for "this policy refuses this event"; anything else is a crash.
_REFUSALS = (ValueError, ArithmeticError, LookupError, TypeError)
_ROUNDING = 1e-6

_tried = settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=False,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


def all_laws() -> dict[str, Law]:
    """Every law by its name, in the order of this file."""
    functions = inspect.getmembers(sys.modules[__name__], inspect.isfunction)
    found = {
        name: function
        for name, function in functions
        if not name.startswith("_")
        and function.__module__ == __name__
        and list(inspect.signature(function).parameters) == ["make"]
    }
    return dict(sorted(found.items(), key=lambda item: item[1].__code__.co_firstlineno))


# What is proposed


def a_proposal_is_a_distribution_at_any_state_under_any_subset_of_arms(make: Factory) -> None:
    """Finite, >= 0, of sum 1 and of shape (K,), whatever was learned before."""
    policy = make()

    @_tried
    @given(made.histories, made.queries, made.subsets)
    def holds(past: list[made.Event], query: Context, ids: list[ArmId]) -> None:
        _distribution(policy, _fold(policy, past), query, made.arms_of(ids))

    holds()


def one_eligible_arm_gets_everything(make: Factory) -> None:
    """Known or not, before and after learning."""
    policy = make()
    for state in (policy.init(), _fold(policy, made.history(40))):
        for id in (*made.IDS, ArmId("unheard of")):
            proposal = _distribution(policy, state, made.context_of(3), made.arms_of([id]))
            assert proposal.propensities.tolist() == [1.0], f"{id}: {proposal.propensities}"


def no_eligible_arm_is_a_value_error(make: Factory) -> None:
    """An empty pool is refused in so many words, before and after learning."""
    policy = make()
    for state in (policy.init(), _fold(policy, made.history(40))):
        refusal = ""
        try:
            policy.propose(state, made.context_of(1), made.arms_of([]))
        except ValueError as error:
            refusal = str(error)
        assert "arm" in refusal, f"no refusal that speaks of arms, but {refusal!r}"


def a_query_without_an_embedding_gets_an_answer(make: Factory) -> None:
    """All zeros are what the service passes when embedding failed; nor are neighbours there."""
    policy = make()
    blind = Context(made.vector(0), 0, 0.1)
    for state in (policy.init(), _fold(policy, made.history(40))):
        _distribution(policy, state, blind, made.arms_of(made.IDS))


def propose_changes_nothing(make: Factory) -> None:
    """Not the state, not its arguments, not the next answer; and its answer is the caller's."""
    policy = make()
    state = _fold(policy, made.history(60))
    arms, contexts = made.arms_of(made.IDS), [made.context_of(i) for i in range(8)]
    before = codec.dump(state)
    first = [_distribution(policy, state, context, arms) for context in contexts]
    kept = [_copied(proposal) for proposal in first]
    for proposal in first:
        for array in (proposal.scores, proposal.propensities, proposal.quality):
            if array is not None and array.flags.writeable:
                array.fill(-5.0)
    again = [_distribution(policy, state, context, arms) for context in contexts]
    assert codec.dump(state) == before, "propose changed the state"
    for one, other in zip(kept, again, strict=True):
        _identical(one, other, "asked twice")


def the_order_of_arms_does_not_matter(make: Factory) -> None:
    """Arms in another order get the same answers in that order."""
    policy = make()

    @_tried
    @given(made.histories, made.queries, made.subsets, st.randoms(use_true_random=False))
    def holds(past: list[made.Event], query: Context, ids: list[ArmId], chance: Any) -> None:
        state = _fold(policy, past)
        order = list(range(len(ids)))
        chance.shuffle(order)
        straight = _distribution(policy, state, query, made.arms_of(ids))
        shuffled = _distribution(policy, state, query, made.arms_of([ids[i] for i in order]))
        _agree(_permuted(straight, order), shuffled, "arms in another order")

    holds()


def the_order_of_neighbours_does_not_matter(make: Factory) -> None:
    """Neither for what is proposed nor for what is learned."""
    policy = make()
    arms = made.arms_of(made.IDS)
    past = made.history(60)
    turned = [dataclasses.replace(event, context=_turned(event.context)) for event in past]
    straight, other = _fold(policy, past), _fold(policy, turned)
    for i in range(30):
        context = made.context_of(i)
        one = _distribution(policy, straight, context, arms)
        _agree(one, _distribution(policy, straight, _turned(context), arms), "proposed")
        _agree(one, _distribution(policy, other, context, arms), "learned")


def arms_never_seen_are_equals(make: Factory) -> None:
    """Two arms of the same price and cost of which nothing is known get the same."""
    policy = make()
    arms = made.alike([ArmId("new-1"), *made.IDS, ArmId("new-2")])
    for state in (policy.init(), _fold(policy, made.history(60))):
        p = _distribution(policy, state, made.context_of(4), arms).propensities
        assert math.isclose(p[0], p[-1], abs_tol=_ROUNDING), f"new arms got {p[0]} and {p[-1]}"


def arms_appear_vanish_and_return(make: Factory) -> None:
    """At any event; and what was learned of an arm is still known when it comes back."""
    policy = make()
    state, pool = policy.init(), list(made.IDS)
    for i, event in enumerate(made.history(60, seed=2)):
        eligible = [arm for j, arm in enumerate(pool) if (i // (j + 1)) % 3 != 1] or pool[:1]
        newcomers = [ArmId(f"new-{i // 10}")] if i % 10 > 4 else []
        _distribution(policy, state, event.context, made.arms_of(eligible + newcomers))
        state = _learn(policy, state, event)
    best, others = ArmId("a"), (ArmId("b"), ArmId("c"))
    state, context = policy.init(), Context(made.vector(1), 10, 1.0)
    arms = made.alike((best, *others))
    for i in range(60):
        state = _play(policy, state, context, best, others[i % 2], 1.0)
        state = _play(policy, state, context, others[i % 2], best, 0.0)
    before = _distribution(policy, state, context, arms).scores
    for i in range(20):
        _distribution(policy, state, context, made.alike(others))
        state = _learn(policy, state, _outcome(context, others[i % 2], 0.0))
    after = _distribution(policy, state, context, arms).scores
    if before[0] > before[1:].max():
        assert after[0] > after[1:].max(), f"the best arm was forgotten: {before} became {after}"


# What is learned


def a_learn_that_raises_leaves_the_state_as_it_was(make: Factory) -> None:
    """What cannot be learned from is refused whole, or does no harm.

    That is a wrong embedding, a number that is none or whose square is none, and an arm compared
    with itself, which says nothing and so changes nothing.
    """
    policy = make()
    past = made.history(30)
    arms, contexts = made.arms_of(made.IDS), [made.context_of(i) for i in range(5)]
    newcomer = ArmId("newcomer")
    good = made.context_of(2)
    wrong = made.context_of(2, dim=made.DIM + 3)
    broken = dataclasses.replace(good, embedding=np.full(made.DIM, np.nan, np.float32))
    formless = dataclasses.replace(good, surface=np.full(SURFACE, np.nan, np.float32))
    bad: list[made.Event] = []
    for context in (wrong, broken, formless):
        for arm, other in ((made.IDS[0], made.IDS[1]), (newcomer, made.IDS[0])):
            bad.append(made.rewarded(context, arm, 0.5, 0.1, 1.0, 0.4))
            bad += [Compared(context, arm, other), Compared(context, arm, other, tie=True)]
            bad.append(Compared(context, other, arm))
    for arm in (made.IDS[0], newcomer):
        for odd in (math.nan, math.inf, -math.inf, 1e300, -1e300):
            for at in range(4):
                values = [0.5, 0.1, 1.0, 0.4]
                values[at] = odd
                bad.append(made.rewarded(good, arm, *values))
            bad.append(made.rewarded(good, arm, None, None, None, odd))
            bad.append(made.rewarded(good, arm, odd, odd, odd, odd))
        bad += [Compared(good, arm, arm), Compared(good, arm, arm, tie=True)]
    for warm in (False, True):
        for event in bad:
            state = _fold(policy, past)
            if warm:  # caches are there, and must not be left half written either
                _distribution(policy, state, good, arms)
            before = codec.dump(state)
            refusal = ""
            try:
                with np.errstate(over="raise", invalid="raise", divide="raise"):
                    state = policy.learn(state, event)
            except _REFUSALS as error:
                refusal = repr(error)
            if refusal:
                assert codec.dump(state) == before, f"{refusal} was raised after a first write"
                restored = codec.load(before, type(state))
                for context in contexts:
                    _agree(
                        _distribution(policy, restored, context, arms),
                        _distribution(policy, state, context, arms),
                        "after a refusal",
                    )
            assert _all_finite(state), f"{event} made the state not finite"
            if isinstance(event, Compared) and event.winner == event.loser:
                assert codec.dump(state) == before, f"{event.winner} learned from beating itself"
            for context in contexts:
                _distribution(policy, state, context, arms)


def what_is_not_a_number_teaches_nothing(make: Factory) -> None:
    """An event whose every signal is NaN is refused or ignored; it is never taken for a value."""
    policy = make()
    nan = math.nan
    for quality in (None, nan):
        for arm in (made.IDS[0], ArmId("newcomer")):
            state = _fold(policy, made.history(30))
            before = codec.dump(state)
            with contextlib.suppress(*_REFUSALS):
                state = policy.learn(
                    state, made.rewarded(made.context_of(2), arm, quality, nan, nan, nan)
                )
            assert codec.dump(state) == before, f"{arm} learned from NaN, quality {quality}"


def missing_signals_are_harmless(make: Factory) -> None:
    """Every subset of the signals may come, alone and in any number, and none is refused."""
    policy = make()
    state = policy.init()
    arms = made.arms_of(made.IDS)
    choices: list[tuple[float | None, ...]] = [(None, v) for v in (0.7, 0.01, 2.0, 0.6)]
    for i, (quality, cost, latency, reward) in enumerate(4 * list(itertools.product(*choices))):
        arm = made.IDS[i % 5]
        event = made.rewarded(made.context_of(i), arm, quality, cost, latency, reward)
        state = _learn(policy, state, event)
        assert _all_finite(state), f"{event} made the state not finite"
        _distribution(policy, state, made.context_of(i + 1), arms)


def comparisons_of_unknown_arms_are_harmless(make: Factory) -> None:
    """They may be learned, and the arms that are known go on being proposed."""
    policy = make()
    known = made.arms_of(made.IDS)
    for past in ([], made.history(40)):
        state = _fold(policy, past)
        for i in range(20):
            one, other = ArmId(f"unknown-{i % 3}"), ArmId("unheard of")
            state = _learn(policy, state, Compared(made.context_of(i), one, other, i % 4 == 0))
            state = _learn(policy, state, Compared(made.context_of(i), made.IDS[0], other))
            assert _all_finite(state), "the state is not finite"
            _distribution(policy, state, made.context_of(i + 1), known)


def the_order_of_a_tie_says_nothing(make: Factory) -> None:
    """A tie teaches the same whichever arm is named first."""
    policy = make()
    past = made.history(60, seed=3)
    turned = [
        dataclasses.replace(event, winner=event.loser, loser=event.winner)
        if isinstance(event, Compared) and event.tie
        else event
        for event in past
    ]
    straight, other = _fold(policy, past), _fold(policy, turned)
    for i in range(20):
        context, arms = made.context_of(i), made.arms_of(made.IDS)
        one = _distribution(policy, straight, context, arms)
        _agree(one, _distribution(policy, other, context, arms), "ties turned round")


def a_late_reward_is_learned_by_what_its_own_event_carries(make: Factory) -> None:
    """Whatever was proposed meanwhile, and in whatever order, learning reads the event alone."""
    policy = make()
    arms = made.arms_of(made.IDS)
    first, second = made.context_of(11), made.context_of(12)
    late = [
        dataclasses.replace(made.rewarded(second, made.IDS[1], 0.9, 0.001, 1.0, 0.8), propensity=p)
        for p in (0.05, 0.9)
    ]
    early = dataclasses.replace(
        made.rewarded(first, made.IDS[0], 0.2, 0.001, 1.0, 0.1), propensity=0.6
    )
    pools = (arms, made.arms_of(made.IDS[:2]))
    for rewards in ([late[0], early], [early, late[1]], [late[1], early, late[0]]):
        reached = set()
        asked: list[list[Context]] = [[], [first, second], [second, first], [second, second]]
        for contexts in asked:
            for pool in pools:
                state = _fold(policy, made.history(30))
                for context in contexts:
                    _distribution(policy, state, context, pool)
                for reward in rewards:
                    state = _learn(policy, state, reward)
                    for context in contexts[:1]:
                        _distribution(policy, state, context, pool)
                reached.add(codec.dump(state))
        assert len(reached) == 1, "what was proposed between decision and reward was learned"


def a_corrected_outcome_is_as_if_it_had_been_so_from_the_first(make: Factory) -> None:
    """Where a policy takes corrections, the old outcome leaves no trace but rounding."""
    policy = make()
    if not isinstance(policy, Correctable):
        raise NotApplicable("it takes no corrections")
    past = made.history(30)
    at = next(i for i in range(10, 30) if getattr(past[i], "reward", None) is not None)
    before = past[at]
    assert isinstance(before, Rewarded)
    for quality, reward in ((0.25, 0.125), (None, -0.5)):
        after = dataclasses.replace(before, quality=quality, reward=reward)
        for asked in (False, True):  # caches are there, or not
            state = _fold(policy, past[: at + 1])
            if asked:
                policy.propose(state, made.context_of(3), made.arms_of(made.IDS))
            state = policy.correct(state, before, after)
            for event in past[at + 1 :]:
                state = _learn(policy, state, event)
            straight = _fold(policy, [*past[:at], after, *past[at + 1 :]])
            for i in range(5):
                query = made.context_of(100 + i)
                _agree(
                    policy.propose(state, query, made.arms_of(made.IDS)),
                    policy.propose(straight, query, made.arms_of(made.IDS)),
                    f"after the correction to {quality}, {reward}",
                )


def what_fades_is_one_arms_alone(make: Factory) -> None:
    """Where a policy can forget an arm, whatever is kept, the other arms are proposed as before,
    and an arm never seen changes nothing."""
    policy = make()
    if not isinstance(policy, Forgetful):
        raise NotApplicable("it forgets no arm")
    arm, unseen, others = made.IDS[0], ArmId("never seen"), made.arms_of(made.IDS[1:])
    for state, keep, queries in _faded(policy):
        whole = _fold(policy, made.history(60))
        told = [_distribution(policy, whole, query, others) for query in queries]
        before = codec.dump(state)
        state = policy.forget(state, unseen, keep)
        assert codec.dump(state) == before, "an arm never seen was forgotten"
        state = policy.forget(state, arm, keep)
        for query, one in zip(queries, told, strict=True):
            _agree(one, _distribution(policy, state, query, others), f"others, {keep} kept")


def what_fades_ends_at_its_prior(make: Factory) -> None:
    """Where a policy can forget an arm: keeping all changes nothing, keeping nothing makes the arm
    one that was never seen, and what is no share is refused."""
    policy = make()
    if not isinstance(policy, Forgetful):
        raise NotApplicable("it forgets no arm")
    arm, unseen = made.IDS[0], ArmId("never seen")
    for state, keep, queries in _faded(policy):
        before = codec.dump(state)
        state = policy.forget(state, arm, keep)
        assert keep < 1.0 or codec.dump(state) == before, "all was kept, and the state is another"
        assert _all_finite(state), f"not finite after keeping {keep}"
        again = codec.load(codec.dump(state), type(state))
        for query in queries:
            both = made.arms_of(made.IDS)
            restored = _distribution(policy, again, query, both)
            _agree(restored, _distribution(policy, state, query, both), f"restored, {keep} kept")
            if keep == 0.0:
                gone = _distribution(policy, state, query, made.alike((arm, unseen)))
                assert math.isclose(*gone.scores, abs_tol=_ROUNDING), f"not forgotten: {gone}"
    for wrong in (-0.1, 1.1, math.nan):
        refused = False
        try:
            policy.forget(_fold(policy, made.history(60)), arm, wrong)
        except ValueError as error:
            refused = "keep" in str(error)
        assert refused, f"a share of {wrong} was kept"


def _faded(policy: Policy[Any]) -> Iterator[tuple[Any, float, list[Context]]]:
    """A state of which something is to fade, with caches and without; what to keep; queries."""
    queries = [dataclasses.replace(made.context_of(100 + i), neighbours=()) for i in range(5)]
    for keep, asked in itertools.product((1.0, 0.5, 0.1, 0.0), (False, True)):
        state = _fold(policy, made.history(60))
        if asked:
            policy.propose(state, queries[0], made.arms_of(made.IDS))
        yield state, keep, queries


def a_second_instance_changes_nothing(make: Factory) -> None:
    """Everything that is learned is in the state: not on the object, its class or its module."""
    arms, past = made.arms_of(made.IDS), made.history(50)
    policy = make()
    alone = _fold(policy, past)
    expected = _distribution(policy, alone, made.context_of(1), arms)
    noise = made.history(50, seed=9)
    policy, other = make(), make()
    state, theirs = policy.init(), other.init()
    for event, noisy in zip(past, noise, strict=True):
        theirs = _learn(other, theirs, noisy)
        _distribution(other, theirs, noisy.context, arms)
        state = _learn(policy, state, event)
    assert codec.dump(state) == codec.dump(alone), "another instance was learned from"
    _identical(expected, _distribution(policy, state, made.context_of(1), arms), "two instances")


# What lasts


def the_same_events_give_the_same_state_under_another_hash_seed(make: Factory) -> None:
    """In another process, where sets and hash() come out differently, bit for bit."""
    policy = make()
    fields = dataclasses.fields(policy)  # type: ignore[arg-type]
    parameters = {field.name: getattr(policy, field.name) for field in fields}
    here = other_process.reached(policy)
    elsewhere = other_process.reached_elsewhere(type(policy), parameters)
    assert here == elsewhere, "the state depends on the process that folded it"


def a_snapshot_restored_at_any_cut_goes_on_alike(make: Factory) -> None:
    """load(dump(state)) ends, event by event, in the same bytes and the same proposals."""
    policy = make()
    past, arms = made.history(24, seed=4), made.arms_of(made.IDS)
    state, cuts = policy.init(), []
    for event in past:
        cuts.append(codec.dump(state))
        _distribution(policy, state, event.context, arms)
        state = _learn(policy, state, event)
    cuts.append(codec.dump(state))
    probes = [made.context_of(i) for i in range(1, 6)]
    wanted = [_distribution(policy, state, context, arms) for context in probes]
    for at, cut in enumerate(cuts):
        restored = codec.load(cut, type(state))
        assert codec.dump(restored) == cut, f"event {at}: restored and dumped, it differs"
        for event in past[at:]:
            restored = _learn(policy, restored, event)
        assert codec.dump(restored) == cuts[-1], f"cut at event {at}, the end differs"
        for context, proposal in zip(probes, wanted, strict=True):
            _agree(proposal, _distribution(policy, restored, context, arms), f"cut at {at}")


def extreme_signals_and_ten_thousand_updates_stay_finite(make: Factory) -> None:
    """Far outside what the service lets through, a signal is refused or survived."""
    policy = make()
    arms = made.arms_of(made.IDS)
    levels = (0.0, 1.0, -1.0, 1e-12, 1e6, -1e6, 1e12, -1e12)
    signals = [
        made.rewarded(
            made.context_of(i % 50),
            made.IDS[i % 5],
            levels[i % 8] if i % 3 else min(1.0, max(0.0, levels[i % 8])),
            abs(levels[(i // 2) % 8]),
            abs(levels[(i // 3) % 8]),
            levels[(i // 5) % 8],
            propensity=(1.0, 0.01, 1e-6)[i % 3],
        )
        for i in range(240)
    ]
    votes = [Compared(made.context_of(i), made.IDS[0], made.IDS[1 + i % 4]) for i in range(40)]
    same = [_outcome(made.context_of(1), made.IDS[0], 1.0)] * 40
    cycle: list[made.Event] = [*signals, *votes, *same]
    state = policy.init()
    for i in range(10_000):
        try:
            with np.errstate(over="raise", invalid="raise", divide="raise"):
                state = policy.learn(state, cycle[i % len(cycle)])
        except _REFUSALS:
            pass
        if i % 500 == 499:
            assert _all_finite(state), f"after {i + 1} updates the state is not finite"
            _distribution(policy, state, made.context_of(i), arms)


def the_state_does_not_grow_with_events(make: Factory) -> None:
    """2,000 events of the same arms take the room of 200, but for the digits of counters."""
    policy = make()
    state, sizes = policy.init(), []
    for i, event in enumerate(made.history(2000), start=1):
        state = _learn(policy, state, event)
        if i in (200, 2000):
            sizes.append(len(codec.dump(state)))
    assert sizes[1] <= 1.02 * sizes[0] + 64, f"{sizes[0]} bytes grew to {sizes[1]}"


def the_work_is_linear_in_arms_and_flat_in_history(make: Factory) -> None:
    """By counted calls, not by the clock: twice the arms, at most about twice the calls.

    After 2,000 events a proposal and an update make as many calls as after 100.
    """
    policy, context = make(), made.context_of(13)
    state, calls = policy.init(), []
    wide = [made.alike([ArmId(f"arm-{i}") for i in range(k)]) for k in (20, 40, 80)]
    for i, event in enumerate(made.history(2000, seed=6), start=1):
        state = _learn(policy, state, event)
        if i == 100:
            few, more, most = (_calls(policy.propose, state, context, arms) for arms in wide)
            assert most - more <= 2.2 * (more - few) + 10, f"{few}, {more}, {most} calls"
        if i in (100, 2000):
            reward = made.rewarded(context, made.IDS[0], 0.5, 0.001, 1.0, 0.4)
            calls.append(
                _calls(policy.propose, state, context, made.arms_of(made.IDS))
                + _calls(policy.learn, state, reward)
                + _calls(policy.learn, state, Compared(context, made.IDS[0], made.IDS[1]))
            )
    assert calls[1] <= 1.05 * calls[0] + 5, f"{calls[0]} calls became {calls[1]}"


def the_best_arm_of_an_easy_problem_is_found(make: Factory) -> None:
    """One of three arms is better by 0.5: of the last 200 of 1,000 draws it gets 80 %.

    With every one of three seeds, and with each another arm is the best. Every fourth query
    brings a comparison too, and queries share a direction, as embeddings of text do, so that a
    linear model needs no constant to find the arm.
    """
    shares = [_share_of_best(make(), seed) for seed in range(3)]
    assert min(shares) >= 0.8, f"the best arm got {shares} of the last draws"


# What it is configured by


def bad_parameters_are_refused_by_name(make: Factory) -> None:
    """Every number has bounds: outside them is a ValueError that names it; inside, it works.

    A word is one of those allowed, or works whatever it is.
    """
    policy = make()
    past, arms = made.history(12), made.arms_of(made.IDS)
    for name, kinds in _parameters(policy):
        if not kinds & {int, float, str}:
            continue
        refused = []
        for value in _values(kinds):
            changed, refusal = policy, ""
            try:
                changed = dataclasses.replace(policy, **{name: value})  # type: ignore[type-var]
            except ValueError as error:
                refusal = f"refused: {error}"
            if refusal:
                assert name in refusal, f"{name}={value} was refused without its name: {refusal}"
                refused.append(value)
                continue
            unbounded = isinstance(value, float) and not math.isfinite(value)
            assert not unbounded, f"{name}={value} was accepted"
            with np.errstate(over="raise", invalid="raise", divide="raise"):
                try:
                    state = _fold(changed, past)
                    _distribution(changed, state, made.context_of(1), arms)
                except _REFUSALS as error:
                    raise AssertionError(f"{name}={value} was accepted, then {error!r}") from error
        assert refused or str in kinds, f"{name} has no bounds"


def every_parameter_has_a_default_and_is_documented(make: Factory) -> None:
    """The class is a frozen dataclass; it can be made of nothing; its docstring names them all."""
    cls: Any = type(make())
    frozen = getattr(getattr(cls, "__dataclass_params__", None), "frozen", False)
    assert frozen, f"{cls.__name__} is not a frozen dataclass"
    docstring = cls.__dict__.get("__doc__") or ""
    for field in dataclasses.fields(cls):
        missing = (dataclasses.MISSING, dataclasses.MISSING)
        assert (field.default, field.default_factory) != missing, f"{field.name} has no default"
        documented = re.search(rf"^ *(\w+, )*{field.name}(, \w+)*:", docstring, re.MULTILINE)
        assert documented, f"{cls.__name__} does not document {field.name}"


# How the laws look at a policy


def _fold(policy: Policy[Any], past: Sequence[made.Event]) -> Any:
    return reduce(lambda state, event: _learn(policy, state, event), past, policy.init())


def _learn(policy: Policy[Any], state: Any, event: made.Event) -> Any:
    """The state after an event that no policy has a reason to refuse."""
    try:
        return policy.learn(state, event)
    except _REFUSALS as error:
        raise AssertionError(f"a proper event was refused: {event}: {error!r}") from error


def _distribution(policy: Policy[Any], state: Any, context: Context, arms: Arms) -> Proposal:
    """The proposal, which is checked."""
    try:
        proposal = policy.propose(state, context, arms)
    except _REFUSALS as error:
        raise AssertionError(f"no proposal for {len(arms)} arms: {error!r}") from error
    k, p = len(arms), proposal.propensities
    assert p.shape == (k,), f"{p.shape} propensities for {k} arms"
    assert np.isfinite(p).all(), f"propensities are not finite: {p}"
    assert p.min() >= 0.0, f"a propensity is negative: {p}"
    assert abs(float(p.sum()) - 1.0) <= 1e-9, f"propensities sum to {p.sum()}"
    assert proposal.scores.shape == (k,), f"{proposal.scores.shape} scores for {k} arms"
    assert np.isfinite(proposal.scores).all(), f"scores are not finite: {proposal.scores}"
    if proposal.quality is not None:
        assert proposal.quality.shape == (k,), f"quality has shape {proposal.quality.shape}"
        assert np.isfinite(proposal.quality).all(), f"quality is not finite: {proposal.quality}"
    return proposal


def _copied(proposal: Proposal) -> Proposal:
    quality = None if proposal.quality is None else proposal.quality.copy()
    return Proposal(proposal.scores.copy(), proposal.propensities.copy(), quality)


def _permuted(proposal: Proposal, order: list[int]) -> Proposal:
    quality = None if proposal.quality is None else proposal.quality[order]
    return Proposal(proposal.scores[order], proposal.propensities[order], quality)


def _identical(one: Proposal, other: Proposal, when: str) -> None:
    for name in ("scores", "propensities", "quality"):
        before, after = getattr(one, name), getattr(other, name)
        assert np.array_equal(before, after), f"{when}: {name} {before} became {after}"


def _agree(one: Proposal, other: Proposal, when: str) -> None:
    """Equal but for rounding, which may decide between arms whose scores are as good as equal."""
    scale = max(1.0, float(np.abs(one.scores).max()))
    near = bool(np.allclose(one.scores, other.scores, rtol=0.0, atol=_ROUNDING * scale))
    assert near, f"{when}: scores {one.scores} became {other.scores}"
    top = np.sort(one.scores)[::-1]
    tied = len(top) > 1 and top[0] - top[1] <= 4 * _ROUNDING * scale
    p_near = bool(np.allclose(one.propensities, other.propensities, rtol=0.0, atol=_ROUNDING))
    assert p_near or (tied and top[0] != top[1]), (
        f"{when}: propensities {one.propensities} became {other.propensities}"
    )


def _turned(context: Context) -> Context:
    return dataclasses.replace(context, neighbours=context.neighbours[::-1])


def _all_finite(value: Any) -> bool:
    """No NaN and no infinity anywhere in a state, caches included."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    if dataclasses.is_dataclass(value):
        return all(_all_finite(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, dict):
        return all(_all_finite(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_all_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def _calls(function: Callable[..., Any], *arguments: Any) -> int:
    """How many functions, of Python or of C, one call calls, once caches are warm."""
    function(*arguments)
    count = 0

    def counted(frame: Any, what: str, _: Any) -> None:
        nonlocal count
        count += what in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        function(*arguments)
    finally:
        sys.setprofile(before)
    return count


def _outcome(context: Context, arm: ArmId, value: float) -> made.Event:
    return made.rewarded(context, arm, value, 0.0, 1.0, value)


def _play(
    policy: Policy[Any], state: Any, context: Context, arm: ArmId, other: ArmId, value: float
) -> Any:
    """The state after one reward, and one comparison that says the same."""
    state = _learn(policy, state, _outcome(context, arm, value))
    winner, loser = (arm, other) if value > 0.5 else (other, arm)
    return _learn(policy, state, Compared(context, winner, loser))


def _parameters(policy: Policy[Any]) -> Iterator[tuple[str, set[type]]]:
    """The name of each parameter and the types that it may have."""
    hints = typing.get_type_hints(type(policy))
    for field in dataclasses.fields(policy):  # type: ignore[arg-type]
        hint = hints[field.name]
        yield field.name, set(typing.get_args(hint) or (hint,))


def _values(kinds: set[type]) -> list[Any]:
    if str in kinds:
        return ["", "no such thing"]
    if float in kinds:
        odd = [math.nan, math.inf, -math.inf]
        return [*odd, -1e12, -1.0, -1e-9, 0.0, 1e-9, 0.5, 1.0, 1.5, 1e3, 1e6]
    return [-(10**9), -1, 0, 1, 2, 1000, 10**6]


def _share_of_best(policy: Policy[Any], seed: int) -> float:
    """How often the best arm was drawn in the last 200 of 1,000 rounds."""
    rng = np.random.default_rng([2024, seed])
    arms = made.alike(made.IDS[:3])
    best = seed % 3
    means: Floats = np.where(np.arange(3) == best, 0.8, 0.3)
    vectors = rng.normal(size=(1000, made.DIM)) + 2.0 * np.eye(made.DIM)[0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors.astype(np.float32)
    outcomes: list[Outcome] = []
    state, drawn = policy.init(), []
    for i in range(1000):
        context = Context(queries[i], 100, 0.1, _nearest(queries[: i + 1], outcomes))
        p = mix(policy.propose(state, context, arms).propensities, 0.02)
        j = draw(p, float(rng.uniform()))
        drawn.append(j)
        noise = rng.uniform(-0.1, 0.1, size=3)
        quality = float(means[j] + noise[j])
        reward = quality - 0.001 / 0.1
        event = Rewarded(context, arms.ids[j], float(p[j]), 0.5, 0.001, quality, 0.001, 1.0, reward)
        state = _learn(policy, state, event)
        outcomes.append(Outcome(arms.ids[j], quality, reward))
        if i % 4 == 0:
            other = (j + 1 + int(rng.integers(0, 2))) % 3
            better, worse = (j, other) if means[j] >= means[other] else (other, j)
            tie = bool(means[j] == means[other])
            state = _learn(policy, state, Compared(context, arms.ids[better], arms.ids[worse], tie))
    return drawn[-200:].count(best) / 200


def _nearest(queries: Any, outcomes: list[Outcome]) -> tuple[Neighbour, ...]:
    """The ten past queries nearest to the last one."""
    if not outcomes:
        return ()
    similarity = queries[:-1] @ queries[-1]
    order = np.argsort(-similarity, kind="stable")[:10]
    return tuple(Neighbour(int(i) + 1, float(similarity[i]), (outcomes[i],)) for i in order)
