"""Rewards, corrections, comparisons and silence: what each changes in the world."""

from __future__ import annotations

from collections.abc import Mapping

import policies
from bandit_service.core import events as ev
from bandit_service.core.experiments import participation
from bandit_service.core.learner import Correction, Recompared
from bandit_service.core.lessons import context_of, learn
from bandit_service.core.resolve import Resolved
from bandit_service.core.world import (
    REMEMBERED_KEYS,
    ArmRecord,
    Pending,
    World,
    dearest_price,
    relative_price,
)
from policies import Comparison, Context, Outcome

SIGNALS = ("quality", "cost_usd", "latency_s", "reward")


def rewarded(world: World, event: ev.Rewarded, what: Resolved) -> None:
    """Every policy that may learns it; arm, accounts, experiment and history take it in.

    What names a decision that has left, or an arm that never was, changes nothing but counts.
    """
    pending, subject = what.pending, what.subject
    if subject is None:
        return  # its decision had left before this event was made: nothing to learn from
    world.rewards += 1
    if pending is not None:
        _note_signals(pending, event)
    _note_key(world, pending, event)
    record = world.arms.get(what.arm)
    if record is None:
        return  # an arm that never was: the router refuses it, a hand-made log may hold it
    if isinstance(subject, ev.Decided):
        listed, expected, price = subject.list_cost_usd, subject.expected_cost_usd, subject.price
    else:
        listed = record.list_cost_usd(subject.tokens)
        expected = record.expected_cost_usd(subject.tokens)
        price = relative_price(record.spec, dearest_price(world))
    _account(world, event, what, record, listed)
    context = context_of(world, subject)
    if pending is not None:
        participation.measured(world, pending.decided, event, what.before, what.settled)
        if event.correction:
            _correct(world, event, what, pending, context)
            return
    lesson = policies.Rewarded(
        context=context,
        arm=what.arm,
        propensity=what.propensity,
        price=price,
        expected_cost_usd=expected,
        quality=event.quality,
        cost_usd=event.cost_usd if pending is None else pending.signals.get("cost_usd"),
        latency_s=event.latency_s if pending is None else pending.signals.get("latency_s"),
        reward=event.reward,
    )
    learn(world, lesson, what, event.prior)
    if pending is not None:
        _note_learned(pending, lesson)
        if event.reward is not None:
            world.drift.settled(pending.decided, event.reward, what.number)
    if event.reward is not None:
        _remember(world, what, lesson)


def spent(world: World, event: ev.Spent, what: Resolved) -> None:
    """On the accounts; in the window of the decision where its cost is estimated."""
    pending = what.pending
    if pending is None:
        world.spend.add(event.ts, event.usd, event.tenant, event.caller, event.judge)
    elif "cost_usd" not in pending.signals:
        decided = pending.decided
        world.spend.add(decided.ts, event.usd, decided.tenant, decided.caller)
        pending.guessed_usd += event.usd


def expired(world: World, event: ev.DecisionsExpired, what: Resolved) -> None:
    """A decision that nobody rewarded leaves, and teaches the default reward if one is set."""
    pending, reward = what.pending, event.default_reward
    if pending is None or pending.settled or reward is None or what.arm not in world.arms:
        return
    context = context_of(world, pending.decided)
    lesson = _lesson(context, pending, {**pending.signals, "reward": reward})
    learn(world, lesson, what)
    _remember(world, what, lesson)
    participation.valued(world, pending.decided, "reward", reward, None)


def compared(world: World, event: ev.Compared, what: Resolved) -> None:
    """Every policy that may learns it, and the history remembers it.

    A correction takes the place of the earlier one in the history and counts once. The policies
    cannot take a comparison back: they learn the other result beside it, so that the two together
    say about as much as a tie.
    """
    pending, subject = what.pending, what.subject
    if subject is None:
        return
    _note_key(world, pending, event)
    if pending is not None:
        _note_pair(pending, event)
    context = context_of(world, subject)
    lesson = policies.Compared(context, event.winner, event.loser, event.tie)
    learn(world, Recompared(lesson) if event.correction else lesson, what, event.prior)
    comparison = Comparison(event.winner, event.loser, event.tie)
    if event.correction and world.history.recompare(context.embedding, comparison, what.owner):
        return
    world.comparisons += not event.correction
    world.history.remember(context.embedding, comparison, what.owner, (what.number, what.variant))


def _account(
    world: World, event: ev.Rewarded, what: Resolved, record: ArmRecord, listed: float
) -> None:
    """Cost and latency on the arm and on the accounts; a correction counts as its difference."""
    pending = what.pending
    before = what.before if event.correction and pending is not None else {}
    if event.cost_usd is not None:
        if "cost_usd" not in before:
            record.listed_usd += listed
            record.costs += 1
        more = event.cost_usd - before.get("cost_usd", 0.0)
        record.observed_usd += more
        _book(world, event, what, more - _guessed(pending))
    if event.latency_s is not None:
        record.latencies += "latency_s" not in before
        record.latency_s += event.latency_s - before.get("latency_s", 0.0)


def _guessed(pending: Pending | None) -> float:
    """The provisional cost, now replaced by the reported one."""
    if pending is None:
        return 0.0
    usd, pending.guessed_usd = pending.guessed_usd, 0.0
    return usd


def _book(world: World, event: ev.Rewarded, what: Resolved, usd: float) -> None:
    """On the accounts and in the window of the decision, where there is one."""
    if what.decided is not None:
        world.spend.add(what.decided.ts, usd, what.tenant, what.decided.caller)
    else:
        world.spend.add(event.ts, usd, what.tenant, "")


def _correct(
    world: World, event: ev.Rewarded, what: Resolved, pending: Pending, context: Context
) -> None:
    """Put the new values in the place of the old ones: exactly in sums, not at all elsewhere."""
    if event.reward is None:
        return
    if not pending.settled:  # it brought quality or reward for the first time
        lesson = _lesson(context, pending, {**pending.signals, "reward": event.reward})
        learn(world, lesson, what)
        _note_learned(pending, lesson)
        _remember(world, what, lesson)
        return
    old = _lesson(context, pending, pending.learned)
    values = {name: pending.signals.get(name, value) for name, value in pending.learned.items()}
    if event.quality is not None:
        values["quality"] = event.quality
    new = _lesson(context, pending, {**values, "reward": event.reward})
    learn(world, Correction(old, new), what)
    _note_learned(pending, new)
    world.history.correct(context.embedding, _outcome(old), _outcome(new), what.owner)


def _lesson(context: Context, pending: Pending, values: Mapping[str, float]) -> policies.Rewarded:
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


def _remember(world: World, what: Resolved, lesson: policies.Rewarded) -> None:
    origin = what.number, what.variant
    world.history.remember(lesson.context.embedding, _outcome(lesson), what.owner, origin)


def _outcome(lesson: policies.Rewarded) -> Outcome:
    assert lesson.reward is not None
    return Outcome(lesson.arm, lesson.quality, lesson.reward)


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
