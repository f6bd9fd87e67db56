"""world = apply(world, event): the one line that live, recovery, replay and audit run.

`apply` consumes the world: it writes into it and returns it. It is total: every event that
`decode` yields can be applied, in any order, so a log never becomes unreadable.
"""

from __future__ import annotations

from typing import assert_never

import numpy as np

import policies
from bandit_service.core import events as ev
from bandit_service.core.world import REMEMBERED_KEYS, ArmRecord, Learner, Pending, World
from policies import Comparison, Context, Outcome


def apply(world: World, event: ev.AnyEvent) -> World:
    """The world after `event`. O(1) in the number of past events."""
    world.events += 1
    match event:
        case ev.ArmAdded() | ev.ArmUpdated():
            _set_arm(world, event.arm, event.source)
        case ev.ArmRetired():
            if event.id in world.arms:
                world.arms[event.id].retired = True
                world.arms[event.id].source = event.source
            if event.source == "config":
                world.configured.pop(event.id, None)
        case ev.PolicyChanged():
            world.policy_key = event.key
        case ev.Decided():
            world.decisions += 1
            world.pending[event.id] = Pending(event)
        case ev.Rewarded():
            _reward(world, event)
        case ev.Compared():
            _compare(world, event)
        case ev.DecisionsExpired():
            for id in event.ids:
                world.pending.pop(id, None)
        case _:
            assert_never(event)
    return world


def context_of(world: World, of: ev.Decided | ev.Subject) -> Context:
    """The context as it was decided on, with its neighbours as they are known now."""
    return Context(
        embedding=ev.unpack(of.embedding),
        tokens=of.tokens,
        willingness_to_pay=of.willingness_to_pay,
        neighbours=world.history.neighbours(of.neighbours, of.similarities),
    )


def dearest_price(world: World) -> float:
    """The highest list price (in + out, USD per million tokens) of any offered arm."""
    prices = (
        record.spec.usd_per_mtok_in + record.spec.usd_per_mtok_out for record in world.offered()
    )
    return max(prices, default=0.0)


def relative_price(spec: ev.ArmSpec, dearest: float) -> float:
    """The arm's list price divided by the dearest offered arm's, in [0, 1]."""
    price = spec.usd_per_mtok_in + spec.usd_per_mtok_out
    return min(price / dearest, 1.0) if dearest > 0.0 else 0.0


def _set_arm(world: World, spec: ev.ArmSpec, source: str) -> None:
    if source == "config":
        world.configured[spec.id] = spec
    record = world.arms.get(spec.id)
    if record is None:
        world.arms[spec.id] = ArmRecord(spec, source)
    else:
        record.spec, record.source, record.retired = spec, source, False


def _reward(world: World, event: ev.Rewarded) -> None:
    pending = world.pending.get(event.decision_id) if event.decision_id else None
    of = event.subject if pending is None else pending.decided
    if of is None:
        return  # its decision had left before this event was made: nothing to learn from
    world.rewards += 1
    if pending is None:
        arm, propensity = event.arm, 1.0
    else:
        arm, propensity = pending.decided.arm, pending.decided.propensity
        _note_signals(pending, event)
    _note_key(world, pending, event)
    record = world.arms.get(arm)
    if record is None:
        return  # an arm that never was: the router refuses it, a hand-made log may hold it
    if isinstance(of, ev.Decided):
        listed, expected, price = of.list_cost_usd, of.expected_cost_usd, of.price
    else:
        listed, expected = record.list_cost_usd(of.tokens), record.expected_cost_usd(of.tokens)
        price = relative_price(record.spec, dearest_price(world))
    if event.cost_usd is not None:
        record.listed_usd += listed
        record.observed_usd += event.cost_usd
        record.costs += 1
    if event.latency_s is not None:
        record.latency_s += event.latency_s
        record.latencies += 1
    context = context_of(world, of)
    rewarded = policies.Rewarded(
        context=context,
        arm=arm,
        propensity=propensity,
        price=price,
        expected_cost_usd=expected,
        quality=event.quality,
        cost_usd=event.cost_usd if pending is None else pending.signals.get("cost_usd"),
        latency_s=event.latency_s if pending is None else pending.signals.get("latency_s"),
        reward=event.reward,
    )
    _learn(world, rewarded)
    if event.reward is not None:
        world.history.remember(context.embedding, Outcome(arm, event.quality, event.reward))


def _compare(world: World, event: ev.Compared) -> None:
    pending = world.pending.get(event.decision_id) if event.decision_id else None
    of = event.subject if pending is None else pending.decided
    if of is None:
        return
    world.comparisons += 1
    _note_key(world, pending, event)
    context = context_of(world, of)
    _learn(world, policies.Compared(context, event.winner, event.loser, event.tie))
    world.history.remember(context.embedding, Comparison(event.winner, event.loser, event.tie))


def _note_signals(pending: Pending, event: ev.Rewarded) -> None:
    for name in ("quality", "cost_usd", "latency_s"):
        value = getattr(event, name)
        if value is not None:
            pending.signals[name] = value
    if event.reward is not None:
        pending.settled = True
        if event.explicit:
            pending.signals["reward"] = event.reward


def _note_key(world: World, pending: Pending | None, event: ev.Rewarded | ev.Compared) -> None:
    if not event.idempotency_key:
        return
    if pending is not None:
        pending.keys[event.idempotency_key] = event.digest
        return
    world.keys[event.idempotency_key] = event.digest
    while len(world.keys) > REMEMBERED_KEYS:
        world.keys.popitem(last=False)


def _learn(world: World, event: policies.Rewarded | policies.Compared) -> None:
    for learner in world.learners.values():
        _learn_one(learner, event)


def _learn_one(learner: Learner, event: policies.Rewarded | policies.Compared) -> None:
    # A policy that refuses an event has left its state as it was (a law); one bad policy must
    # neither stop the log nor the others, and on replay it refuses the same event again.
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            learner.state = learner.policy.learn(learner.state, event)
    except (ValueError, ArithmeticError, LookupError, TypeError):
        learner.failures += 1
