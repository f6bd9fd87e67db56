"""What lasts: the same state from the same events, finite, bounded, found again from a snapshot."""

from __future__ import annotations

import dataclasses

import numpy as np

from bandit_service.core import codec
from bandit_service.testing import events as made
from bandit_service.testing import other_process
from bandit_service.testing.laws.parts import (
    REFUSALS,
    Factory,
    agree,
    all_finite,
    calls,
    distribution,
    learned,
    outcome_of,
    share_of_best,
)
from policies import (
    ArmId,
    Compared,
)


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
        distribution(policy, state, event.context, arms)
        state = learned(policy, state, event)
    cuts.append(codec.dump(state))
    probes = [made.context_of(i) for i in range(1, 6)]
    wanted = [distribution(policy, state, context, arms) for context in probes]
    for at, cut in enumerate(cuts):
        restored = codec.load(cut, type(state))
        assert codec.dump(restored) == cut, f"event {at}: restored and dumped, it differs"
        for event in past[at:]:
            restored = learned(policy, restored, event)
        assert codec.dump(restored) == cuts[-1], f"cut at event {at}, the end differs"
        for context, proposal in zip(probes, wanted, strict=True):
            agree(proposal, distribution(policy, restored, context, arms), f"cut at {at}")


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
    same = [outcome_of(made.context_of(1), made.IDS[0], 1.0)] * 40
    cycle: list[made.Event] = [*signals, *votes, *same]
    state = policy.init()
    for i in range(10_000):
        try:
            with np.errstate(over="raise", invalid="raise", divide="raise"):
                state = policy.learn(state, cycle[i % len(cycle)])
        except REFUSALS:
            pass
        if i % 500 == 499:
            assert all_finite(state), f"after {i + 1} updates the state is not finite"
            distribution(policy, state, made.context_of(i), arms)


def the_state_does_not_grow_with_events(make: Factory) -> None:
    """2,000 events of the same arms take the room of 200, but for the digits of counters."""
    policy = make()
    state, sizes = policy.init(), []
    for i, event in enumerate(made.history(2000), start=1):
        state = learned(policy, state, event)
        if i in (200, 2000):
            sizes.append(len(codec.dump(state)))
    assert sizes[1] <= 1.02 * sizes[0] + 64, f"{sizes[0]} bytes grew to {sizes[1]}"


def the_work_is_linear_in_arms_and_flat_in_history(make: Factory) -> None:
    """By counted calls, not by the clock: twice the arms, at most about twice the calls.

    After 2,000 events a proposal and an update make as many calls as after 100.
    """
    policy, context = make(), made.context_of(13)
    state, counts = policy.init(), []
    wide = [made.alike([ArmId(f"arm-{i}") for i in range(k)]) for k in (20, 40, 80)]
    for i, event in enumerate(made.history(2000, seed=6), start=1):
        state = learned(policy, state, event)
        if i == 100:
            few, more, most = (calls(policy.propose, state, context, arms) for arms in wide)
            assert most - more <= 2.2 * (more - few) + 10, f"{few}, {more}, {most} calls"
        if i in (100, 2000):
            reward = made.rewarded(context, made.IDS[0], 0.5, 0.001, 1.0, 0.4)
            counts.append(
                calls(policy.propose, state, context, made.arms_of(made.IDS))
                + calls(policy.learn, state, reward)
                + calls(policy.learn, state, Compared(context, made.IDS[0], made.IDS[1]))
            )
    assert counts[1] <= 1.05 * counts[0] + 5, f"{counts[0]} calls became {counts[1]}"


def the_best_arm_of_an_easy_problem_is_found(make: Factory) -> None:
    """One of three arms is better by 0.5: of the last 200 of 1,000 draws it gets 80 %.

    With every one of three seeds, and with each another arm is the best. Every fourth query
    brings a comparison too, and queries share a direction, as embeddings of text do, so that a
    linear model needs no constant to find the arm.
    """
    shares = [share_of_best(make(), seed) for seed in range(3)]
    assert min(shares) >= 0.8, f"the best arm got {shares} of the last draws"
