"""Rewards, corrections, comparisons and silence: what each changes in the world."""

from __future__ import annotations

from collections.abc import Mapping

import policies
from bandit_service.core import events as ev
from bandit_service.core.experiments import participation
from bandit_service.core.lessons import context_of, learn, origin_of
from bandit_service.core.world import (
    REMEMBERED_KEYS,
    ArmRecord,
    Correction,
    Pending,
    Recompared,
    World,
    dearest_price,
    relative_price,
)
from policies import Comparison, Context, Outcome

SIGNALS = ("quality", "cost_usd", "latency_s", "reward")


def rewarded(world: World, event: ev.Rewarded) -> None:
    """Every policy that may learns it; arm, accounts, experiment and history take it in.

    What names a decision that has left, or an arm that never was, changes nothing but counts.
    """
    pending = world.pending.get(event.decision_id) if event.decision_id else None
    of = event.subject if pending is None else pending.decided
    if of is None:
        return  # its decision had left before this event was made: nothing to learn from
    world.rewards += 1
    if pending is None:
        arm, propensity = event.arm, 1.0
    else:
        arm, propensity = pending.decided.arm, pending.decided.propensity
    before = dict(pending.signals) if pending is not None else {}
    if pending is not None:
        _note_signals(pending, event)
    _note_key(world, pending, event)
    record = world.arms.get(arm)
    if record is None:
        return  # an arm that never was: the router refuses it, a hand-made log may hold it
    if pending is not None and event.correction:
        _correct(world, pending, record, before, event)
        return
    if isinstance(of, ev.Decided):
        listed, expected, price = of.list_cost_usd, of.expected_cost_usd, of.price
    else:
        listed, expected = record.list_cost_usd(of.tokens), record.expected_cost_usd(of.tokens)
        price = relative_price(record.spec, dearest_price(world))
    if event.cost_usd is not None:
        record.listed_usd += listed
        record.observed_usd += event.cost_usd
        record.costs += 1
        _book(world, of, event, event.cost_usd - _guessed(pending))
    if event.latency_s is not None:
        record.latency_s += event.latency_s
        record.latencies += 1
    context = context_of(world, of)
    settled = None if pending is None else pending.learned.get("reward")
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
    learn(world, rewarded, of, event.prior)
    if pending is not None:
        _note_learned(pending, rewarded)
        participation.measured(world, pending.decided, event, before, settled)
        if event.reward is not None:
            world.drift.settled(pending.decided, event.reward, world.events)
    if event.reward is not None:
        outcome = Outcome(arm, event.quality, event.reward)
        owner = ev.owner_of(of.tenant, of.unit)
        world.history.remember(context.embedding, outcome, owner, origin_of(world, of))


def spent(world: World, event: ev.Spent) -> None:
    """On the accounts; in the window of the decision where its cost is estimated."""
    pending = None if event.judge else world.pending.get(event.decision_id)
    if pending is None:
        world.spend.add(event.ts, event.usd, event.tenant, event.caller, event.judge)
    elif "cost_usd" not in pending.signals:
        decided = pending.decided
        world.spend.add(decided.ts, event.usd, decided.tenant, decided.caller)
        pending.guessed_usd += event.usd


def _guessed(pending: Pending | None) -> float:
    """The provisional cost, now replaced by the reported one."""
    if pending is None:
        return 0.0
    usd, pending.guessed_usd = pending.guessed_usd, 0.0
    return usd


def _book(world: World, of: ev.Decided | ev.Subject, event: ev.Rewarded, usd: float) -> None:
    """On the accounts and in the window of the decision, where there is one."""
    if isinstance(of, ev.Decided):
        world.spend.add(of.ts, usd, of.tenant, of.caller)
    else:
        world.spend.add(event.ts, usd, of.tenant, "")


def _correct(
    world: World, pending: Pending, record: ArmRecord, before: dict[str, float], event: ev.Rewarded
) -> None:
    """Put the new values in the place of the old ones: exactly in sums, not at all elsewhere."""
    decided = pending.decided
    if event.cost_usd is not None:
        if "cost_usd" not in before:
            record.listed_usd += decided.list_cost_usd
            record.costs += 1
        more = event.cost_usd - before.get("cost_usd", 0.0)
        record.observed_usd += more
        _book(world, decided, event, more - _guessed(pending))
    if event.latency_s is not None:
        record.latencies += "latency_s" not in before
        record.latency_s += event.latency_s - before.get("latency_s", 0.0)
    context = context_of(world, decided)
    participation.measured(world, decided, event, before, pending.learned.get("reward"))
    if not pending.settled:
        if event.reward is not None:  # it brought quality or reward for the first time
            rewarded = _told(context, pending, {**pending.signals, "reward": event.reward})
            learn(world, rewarded, decided)
            _note_learned(pending, rewarded)
            _remember(world, context, decided, rewarded)
        return
    if event.reward is None:
        return
    old = _told(context, pending, pending.learned)
    told = {name: pending.signals.get(name, value) for name, value in pending.learned.items()}
    if event.quality is not None:
        told["quality"] = event.quality
    new = _told(context, pending, {**told, "reward": event.reward})
    learn(world, Correction(old, new), decided)
    _note_learned(pending, new)
    assert old.reward is not None
    world.history.correct(
        context.embedding,
        Outcome(decided.arm, old.quality, old.reward),
        Outcome(decided.arm, new.quality, event.reward),
        ev.owner_of(decided.tenant, decided.unit),
    )


def _told(context: Context, pending: Pending, values: Mapping[str, float]) -> policies.Rewarded:
    decided = pending.decided
    return policies.Rewarded(
        context=context,
        arm=decided.arm,
        propensity=decided.propensity,
        price=decided.price,
        expected_cost_usd=decided.expected_cost_usd,
        quality=values.get("quality"),
        cost_usd=values.get("cost_usd"),
        latency_s=values.get("latency_s"),
        reward=values.get("reward"),
    )


def _remember(
    world: World, context: Context, decided: ev.Decided, rewarded: policies.Rewarded
) -> None:
    assert rewarded.reward is not None
    outcome = Outcome(decided.arm, rewarded.quality, rewarded.reward)
    owner = ev.owner_of(decided.tenant, decided.unit)
    world.history.remember(context.embedding, outcome, owner, origin_of(world, decided))


def expired(world: World, pending: Pending | None, default_reward: float | None) -> None:
    """A decision that nobody rewarded leaves, and teaches the reward of silence if there is one."""
    if pending is None or pending.settled or default_reward is None:
        return
    if pending.decided.arm not in world.arms:
        return
    context = context_of(world, pending.decided)
    rewarded = _told(context, pending, {**pending.signals, "reward": default_reward})
    learn(world, rewarded, pending.decided)
    _remember(world, context, pending.decided, rewarded)
    participation.valued(world, pending.decided, "reward", default_reward, None)


def compared(world: World, event: ev.Compared) -> None:
    """Every policy that may learns it, and the history remembers it.

    A correction takes the place of the earlier one in the history and counts once. The policies
    cannot take a comparison back: they learn the other result beside it, so that the two together
    say about as much as a tie.
    """
    pending = world.pending.get(event.decision_id) if event.decision_id else None
    of = event.subject if pending is None else pending.decided
    if of is None:
        return
    _note_key(world, pending, event)
    if pending is not None:
        _note_pair(pending, event)
    context = context_of(world, of)
    lesson = policies.Compared(context, event.winner, event.loser, event.tie)
    learn(world, Recompared(lesson) if event.correction else lesson, of, event.prior)
    comparison = Comparison(event.winner, event.loser, event.tie)
    owner = ev.owner_of(of.tenant, of.unit)
    if event.correction and world.history.recompare(context.embedding, comparison, owner):
        return
    world.comparisons += not event.correction
    world.history.remember(context.embedding, comparison, owner, origin_of(world, of))


def _note_signals(pending: Pending, event: ev.Rewarded) -> None:
    for name in ("quality", "cost_usd", "latency_s"):
        value = getattr(event, name)
        if value is not None:
            pending.signals[name] = value
    if event.reward is not None and event.explicit:
        pending.signals["reward"] = event.reward
    pending.signals |= event.metrics
    if event.quality is not None or event.explicit:
        pending.provisional = event.provisional


def _note_learned(pending: Pending, rewarded: policies.Rewarded) -> None:
    if rewarded.reward is not None:
        values = ((name, getattr(rewarded, name)) for name in SIGNALS)
        pending.learned = {name: value for name, value in values if value is not None}


def _note_pair(pending: Pending, event: ev.Compared) -> None:
    arm = pending.decided.arm
    if arm in (event.winner, event.loser):
        other = event.loser if event.winner == arm else event.winner
        result = 0.5 if event.tie else float(event.winner == arm)
        pending.compared[other] = result, event.provisional


def _note_key(world: World, pending: Pending | None, event: ev.Rewarded | ev.Compared) -> None:
    if not event.idempotency_key:
        return
    if pending is not None:
        pending.keys[event.idempotency_key] = event.digest
        return
    world.keys[event.idempotency_key] = event.digest
    while len(world.keys) > REMEMBERED_KEYS:
        world.keys.popitem(last=False)
