"""What is learned: only what the event says, all of it or nothing, and one arm at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from bandit_service.core import codec
from bandit_service.testing import events as made
from bandit_service.testing.laws.parts import (
    REFUSALS,
    ROUNDING,
    Factory,
    NotApplicable,
    agree,
    all_finite,
    distribution,
    folded,
    identical,
    learned,
)
from policies import (
    SURFACE,
    ArmId,
    Compared,
    Context,
    Correctable,
    Forgetful,
    LearnsMany,
    Policy,
    Rewarded,
    order_free,
)


def a_learn_that_raises_leaves_the_state_as_it_was(make: Factory) -> None:
    """An invalid event is refused completely, or does no harm: a wrong embedding, a number that is
    not finite or whose square is not, and an arm compared with itself, which changes nothing.
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
    state: Any = None
    for warm in (False, True):
        for event in bad:
            if state is None:
                state = folded(policy, past)
            if warm:  # caches are there, and must not be left half written either
                distribution(policy, state, good, arms)
            before = codec.dump(state)
            refusal = ""
            try:
                with np.errstate(over="raise", invalid="raise", divide="raise"):
                    state = policy.learn(state, event)
            except REFUSALS as error:
                refusal = repr(error)
            if refusal:
                assert codec.dump(state) == before, f"{refusal} was raised after a first write"
                restored = codec.load(before, type(state))
                for context in contexts:
                    agree(
                        distribution(policy, restored, context, arms),
                        distribution(policy, state, context, arms),
                        "after a refusal",
                    )
            assert all_finite(state), f"{event} made the state not finite"
            if isinstance(event, Compared) and event.winner == event.loser:
                assert codec.dump(state) == before, f"{event.winner} learned from beating itself"
            for context in contexts:
                distribution(policy, state, context, arms)
            if not refusal:
                state = None  # what is refused leaves it as it was


def what_is_not_a_number_teaches_nothing(make: Factory) -> None:
    """An event whose every signal is NaN is refused or ignored; it is never taken for a value."""
    policy = make()
    nan = math.nan
    for quality in (None, nan):
        for arm in (made.IDS[0], ArmId("newcomer")):
            state = folded(policy, made.history(30))
            before = codec.dump(state)
            with contextlib.suppress(*REFUSALS):
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
        state = learned(policy, state, event)
        assert all_finite(state), f"{event} made the state not finite"
        distribution(policy, state, made.context_of(i + 1), arms)


def comparisons_of_unknown_arms_are_harmless(make: Factory) -> None:
    """They may be learned, and known arms are still proposed."""
    policy = make()
    known = made.arms_of(made.IDS)
    for past in ([], made.history(40)):
        state = folded(policy, past)
        for i in range(20):
            one, other = ArmId(f"unknown-{i % 3}"), ArmId("unheard of")
            state = learned(policy, state, Compared(made.context_of(i), one, other, i % 4 == 0))
            state = learned(policy, state, Compared(made.context_of(i), made.IDS[0], other))
            assert all_finite(state), "the state is not finite"
            distribution(policy, state, made.context_of(i + 1), known)


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
    straight, other = folded(policy, past), folded(policy, turned)
    for i in range(20):
        context, arms = made.context_of(i), made.arms_of(made.IDS)
        one = distribution(policy, straight, context, arms)
        agree(one, distribution(policy, other, context, arms), "ties turned round")


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
                state = folded(policy, made.history(30))
                for context in contexts:
                    distribution(policy, state, context, pool)
                for reward in rewards:
                    state = learned(policy, state, reward)
                    for context in contexts[:1]:
                        distribution(policy, state, context, pool)
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
            state = folded(policy, past[: at + 1])
            if asked:
                policy.propose(state, made.context_of(3), made.arms_of(made.IDS))
            state = policy.correct(state, before, after)
            for event in past[at + 1 :]:
                state = learned(policy, state, event)
            straight = folded(policy, [*past[:at], after, *past[at + 1 :]])
            for i in range(5):
                query = made.context_of(100 + i)
                agree(
                    policy.propose(state, query, made.arms_of(made.IDS)),
                    policy.propose(straight, query, made.arms_of(made.IDS)),
                    f"after the correction to {quality}, {reward}",
                )


def the_same_outcomes_in_another_order_give_the_same_bytes(make: Factory) -> None:
    """Where a policy says that order tells it nothing (`order_free`): bit for bit, whatever was
    proposed or restored between, and a corrected outcome is as if it had been so from the first.
    """
    policy = make()
    if not order_free(policy):
        raise NotApplicable("what it learns depends on the order")
    past, arms = made.history(90, seed=7), made.arms_of(made.IDS)
    straight = codec.dump(folded(policy, past))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(past)).tolist()
        state = policy.init()
        for i, at in enumerate(order if seed else reversed(range(len(past)))):
            if i % (7 + seed) == 0:  # caches are there from here on
                distribution(policy, state, past[at].context, arms)
            if i % 31 == 30:
                state = codec.load(codec.dump(state), type(state))
            state = learned(policy, state, past[at])
        assert codec.dump(state) == straight, f"another order ({seed}) gave other bytes"
    if isinstance(policy, Correctable):
        settled = [one for one in past if isinstance(one, Rewarded) and one.reward is not None]
        wrong = {id(one): dataclasses.replace(one, quality=0.3, reward=0.1) for one in settled[::3]}
        state = folded(policy, [wrong.get(id(one), one) for one in past])
        for one in settled[::3]:
            state = policy.correct(state, wrong[id(one)], one)
        assert codec.dump(state) == straight, "corrections left a trace"


def many_at_once_are_learned_as_one_by_one(make: Factory) -> None:
    """Where a policy learns many outcomes together: the same bytes in batches of any size, the same
    proposals but for rounding, and of a batch that it refuses it has learned nothing."""
    policy = make()
    if not isinstance(policy, LearnsMany):
        raise NotApplicable("it learns outcomes one by one")
    past, arms = made.history(200, seed=8), made.arms_of(made.IDS)
    queries = [made.context_of(300 + i) for i in range(5)]
    alone = folded(policy, past)
    for size in (1, 2, 7, 64, len(past)):
        for asked in (False, True):
            state = policy.init()
            for start in range(0, len(past), size):
                state = policy.learn_many(state, past[start : start + size])
                if asked:
                    distribution(policy, state, queries[0], arms)
            state = policy.learn_many(state, [])
            assert codec.dump(state) == codec.dump(alone), f"batches of {size} gave other bytes"
            for query in queries:
                one = distribution(policy, alone, query, arms)
                agree(one, distribution(policy, state, query, arms), f"batches of {size}")
    longer = made.rewarded(made.context_of(2, dim=made.DIM + 3), made.IDS[0], 0.5, 0.1, 1.0, 0.4)
    nothing = made.rewarded(made.context_of(2), made.IDS[0], math.nan, 0.1, 1.0, math.nan)
    for before, wrong in itertools.product(([], past[:30]), (longer, nothing)):
        state, batch = folded(policy, before), [*past[30:50], wrong, *past[50:70]]
        expected = codec.dump(state)
        try:
            state = policy.learn_many(state, batch)
        except REFUSALS:
            pass
        else:
            expected = codec.dump(folded(policy, [*before, *batch]))
        assert codec.dump(state) == expected, "of a batch that was refused, a part was learned"


def what_fades_is_one_arms_alone(make: Factory) -> None:
    """Where a policy can forget an arm, whatever is kept, the other arms are proposed as before,
    and an arm never seen changes nothing."""
    policy = make()
    if not isinstance(policy, Forgetful):
        raise NotApplicable("it forgets no arm")
    arm, unseen, others = made.IDS[0], ArmId("never seen"), made.arms_of(made.IDS[1:])
    for state, keep, queries in _faded(policy):
        whole = folded(policy, made.history(60))
        told = [distribution(policy, whole, query, others) for query in queries]
        before = codec.dump(state)
        state = policy.forget(state, unseen, keep)
        assert codec.dump(state) == before, "an arm never seen was forgotten"
        state = policy.forget(state, arm, keep)
        for query, one in zip(queries, told, strict=True):
            agree(one, distribution(policy, state, query, others), f"others, {keep} kept")


def what_fades_ends_at_its_prior(make: Factory) -> None:
    """If a policy can forget an arm: keeping all changes nothing, keeping nothing makes the arm an
    unseen one, and an invalid share is refused.
    """
    policy = make()
    if not isinstance(policy, Forgetful):
        raise NotApplicable("it forgets no arm")
    arm, unseen = made.IDS[0], ArmId("never seen")
    for state, keep, queries in _faded(policy):
        before = codec.dump(state)
        state = policy.forget(state, arm, keep)
        assert keep < 1.0 or codec.dump(state) == before, "all was kept, and the state is another"
        assert all_finite(state), f"not finite after keeping {keep}"
        again = codec.load(codec.dump(state), type(state))
        for query in queries:
            both = made.arms_of(made.IDS)
            restored = distribution(policy, again, query, both)
            agree(restored, distribution(policy, state, query, both), f"restored, {keep} kept")
            if keep == 0.0:
                gone = distribution(policy, state, query, made.alike((arm, unseen)))
                assert math.isclose(*gone.scores, abs_tol=ROUNDING), f"not forgotten: {gone}"
    for wrong in (-0.1, 1.1, math.nan):
        refused = False
        try:
            policy.forget(folded(policy, made.history(60)), arm, wrong)
        except ValueError as error:
            refused = "keep" in str(error)
        assert refused, f"a share of {wrong} was kept"


def _faded(policy: Policy[Any]) -> Iterator[tuple[Any, float, list[Context]]]:
    """A state of which something is to fade, with caches and without; what to keep; queries."""
    queries = [dataclasses.replace(made.context_of(100 + i), neighbours=()) for i in range(5)]
    for keep, asked in itertools.product((1.0, 0.5, 0.1, 0.0), (False, True)):
        state = folded(policy, made.history(60))
        if asked:
            policy.propose(state, queries[0], made.arms_of(made.IDS))
        yield state, keep, queries


def a_second_instance_changes_nothing(make: Factory) -> None:
    """Everything that is learned is in the state: not on the object, its class or its module."""
    arms, past = made.arms_of(made.IDS), made.history(50)
    policy = make()
    alone = folded(policy, past)
    expected = distribution(policy, alone, made.context_of(1), arms)
    noise = made.history(50, seed=9)
    policy, other = make(), make()
    state, theirs = policy.init(), other.init()
    for event, noisy in zip(past, noise, strict=True):
        theirs = learned(other, theirs, noisy)
        distribution(other, theirs, noisy.context, arms)
        state = learned(policy, state, event)
    assert codec.dump(state) == codec.dump(alone), "another instance was learned from"
    identical(expected, distribution(policy, state, made.context_of(1), arms), "two instances")
