"""What is proposed: a distribution, whatever was learned, in any order of arms."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.core import codec
from bandit_service.testing import events as made
from bandit_service.testing.laws.parts import (
    ROUNDING,
    Factory,
    NotApplicable,
    agree,
    copied,
    distribution,
    folded,
    identical,
    learned,
    outcome_of,
    permuted,
    play,
    tried,
    turned,
)
from policies import (
    ArmId,
    Context,
    Contexts,
    ManyAtOnce,
    reads_neighbours,
)


def a_proposal_is_a_distribution_at_any_state_under_any_subset_of_arms(make: Factory) -> None:
    """Finite, >= 0, of sum 1 and of shape (K,), whatever was learned before."""
    policy = make()

    @tried
    @given(made.histories, made.queries, made.subsets)
    def holds(past: list[made.Event], query: Context, ids: list[ArmId]) -> None:
        distribution(policy, folded(policy, past), query, made.arms_of(ids))

    holds()


def one_eligible_arm_gets_everything(make: Factory) -> None:
    """Known or not, before and after learning."""
    policy = make()
    for state in (policy.init(), folded(policy, made.history(40))):
        for id in (*made.IDS, ArmId("unheard of")):
            proposal = distribution(policy, state, made.context_of(3), made.arms_of([id]))
            assert proposal.propensities.tolist() == [1.0], f"{id}: {proposal.propensities}"


def no_eligible_arm_is_a_value_error(make: Factory) -> None:
    """An empty pool is refused with a clear message, before and after learning."""
    policy = make()
    for state in (policy.init(), folded(policy, made.history(40))):
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
    for state in (policy.init(), folded(policy, made.history(40))):
        distribution(policy, state, blind, made.arms_of(made.IDS))


def propose_changes_nothing(make: Factory) -> None:
    """Not the state, not its arguments, not the next answer; and its answer is the caller's."""
    policy = make()
    state = folded(policy, made.history(60))
    arms, contexts = made.arms_of(made.IDS), [made.context_of(i) for i in range(8)]
    before = codec.dump(state)
    first = [distribution(policy, state, context, arms) for context in contexts]
    kept = [copied(proposal) for proposal in first]
    for proposal in first:
        for array in (proposal.scores, proposal.propensities, proposal.quality):
            if array is not None and array.flags.writeable:
                array.fill(-5.0)
    again = [distribution(policy, state, context, arms) for context in contexts]
    assert codec.dump(state) == before, "propose changed the state"
    for one, other in zip(kept, again, strict=True):
        identical(one, other, "asked twice")


def the_order_of_arms_does_not_matter(make: Factory) -> None:
    """Arms in another order get the same answers in that order."""
    policy = make()

    @tried
    @given(made.histories, made.queries, made.subsets, st.randoms(use_true_random=False))
    def holds(past: list[made.Event], query: Context, ids: list[ArmId], chance: Any) -> None:
        state = folded(policy, past)
        order = list(range(len(ids)))
        chance.shuffle(order)
        straight = distribution(policy, state, query, made.arms_of(ids))
        shuffled = distribution(policy, state, query, made.arms_of([ids[i] for i in order]))
        agree(permuted(straight, order), shuffled, "arms in another order")

    holds()


def the_order_of_neighbours_does_not_matter(make: Factory) -> None:
    """Neither for what is proposed nor for what is learned."""
    policy = make()
    arms = made.arms_of(made.IDS)
    past = made.history(60)
    backwards = [dataclasses.replace(event, context=turned(event.context)) for event in past]
    straight, other = folded(policy, past), folded(policy, backwards)
    for i in range(30):
        context = made.context_of(i)
        one = distribution(policy, straight, context, arms)
        agree(one, distribution(policy, straight, turned(context), arms), "proposed")
        agree(one, distribution(policy, other, context, arms), "learned")


def who_reads_no_neighbours_does_as_well_without(make: Factory) -> None:
    """Where it says that it looks at none, they change no proposal and nothing it learns."""
    policy = make()
    if reads_neighbours(policy):
        raise NotApplicable("it reads neighbours")
    arms, past = made.arms_of(made.IDS), made.history(60)
    bare = [dataclasses.replace(event, context=_alone(event.context)) for event in past]
    one, other = folded(policy, past), folded(policy, bare)
    assert codec.dump(one) == codec.dump(other), "learned from neighbours"
    for i in range(30):
        context = made.context_of(i)
        found = distribution(policy, one, context, arms)
        identical(found, distribution(policy, one, _alone(context), arms), "without neighbours")


def _alone(context: Context) -> Context:
    return dataclasses.replace(context, neighbours=())


def many_at_once_are_proposed_as_one_by_one(make: Factory) -> None:
    """Where a policy takes many queries together, each gets the bits that it gets alone."""
    policy = make()
    if not isinstance(policy, ManyAtOnce):
        raise NotApplicable("it takes queries one by one")
    pool = [*made.IDS, *(ArmId(f"new-{i}") for i in range(11 - len(made.IDS)))]
    blind = Context(made.vector(0), 0, 0.1)
    for past in ([], made.history(60), made.history(400, queries=30)):
        for ids in (pool, made.IDS, pool[:1]):
            for n in (1, 2, 9, 33):
                contexts = [*(made.context_of(5 * i) for i in range(n - 1)), blind]
                contexts = [
                    dataclasses.replace(one, willingness_to_pay=0.01 * (i + 1))
                    for i, one in enumerate(contexts)
                ]
                one = made.arms_of(ids)
                costs = one.cost_usd * (1.0 + np.arange(n))[:, None]
                arms = [dataclasses.replace(one, cost_usd=each) for each in costs]
                state = folded(policy, past)
                before = codec.dump(state)
                alike = dataclasses.replace(one, cost_usd=costs)
                together = policy.propose_many(state, Contexts.of(contexts), alike)
                assert codec.dump(state) == before, "propose_many changed the state"
                assert len(together) == n, f"{len(together)} proposals for {n} queries"
                fresh = folded(policy, past)
                for found, context, offered in zip(together, contexts, arms, strict=True):
                    identical(distribution(policy, fresh, context, offered), found, f"{n} together")
    refusal = ""
    try:
        nothing = made.arms_of([])
        policy.propose_many(policy.init(), Contexts.of([blind]), nothing.one_row())
    except ValueError as error:
        refusal = str(error)
    assert "arm" in refusal, f"no refusal that speaks of arms, but {refusal!r}"


def arms_never_seen_are_equals(make: Factory) -> None:
    """Two arms of the same price and cost of which nothing is known get the same."""
    policy = make()
    arms = made.alike([ArmId("new-1"), *made.IDS, ArmId("new-2")])
    for state in (policy.init(), folded(policy, made.history(60))):
        p = distribution(policy, state, made.context_of(4), arms).propensities
        assert math.isclose(p[0], p[-1], abs_tol=ROUNDING), f"new arms got {p[0]} and {p[-1]}"


def arms_appear_vanish_and_return(make: Factory) -> None:
    """At any event; and what was learned of an arm is still known when it comes back."""
    policy = make()
    state, pool = policy.init(), list(made.IDS)
    for i, event in enumerate(made.history(60, seed=2)):
        eligible = [arm for j, arm in enumerate(pool) if (i // (j + 1)) % 3 != 1] or pool[:1]
        newcomers = [ArmId(f"new-{i // 10}")] if i % 10 > 4 else []
        distribution(policy, state, event.context, made.arms_of(eligible + newcomers))
        state = learned(policy, state, event)
    best, others = ArmId("a"), (ArmId("b"), ArmId("c"))
    state, context = policy.init(), Context(made.vector(1), 10, 1.0)
    arms = made.alike((best, *others))
    for i in range(60):
        state = play(policy, state, context, best, others[i % 2], 1.0)
        state = play(policy, state, context, others[i % 2], best, 0.0)
    before = distribution(policy, state, context, arms).scores
    for i in range(20):
        distribution(policy, state, context, made.alike(others))
        state = learned(policy, state, outcome_of(context, others[i % 2], 0.0))
    after = distribution(policy, state, context, arms).scores
    if before[0] > before[1:].max():
        assert after[0] > after[1:].max(), f"the best arm was forgotten: {before} became {after}"
