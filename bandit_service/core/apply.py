"""world = apply(world, event): the one line that live, recovery, replay and audit run.

`apply` consumes the world: it writes into it and returns it. It is total: every event that
`decode` yields can be applied, in any order, so a log never becomes unreadable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

import msgspec
import numpy as np

import policies
from bandit_service.core import codec, taking_part, trial
from bandit_service.core import events as ev
from bandit_service.core.experiments import label_of
from bandit_service.core.history import Origin, View
from bandit_service.core.world import (
    REMEMBERED_KEYS,
    ArmRecord,
    Correction,
    Fading,
    Learner,
    Lesson,
    Pending,
    World,
    beside,
)
from bandit_service.statistics.calibration import Calibration
from policies import Comparison, Context, Outcome

ITEMS_PER_EVENT = 1024
"""No event may remember more queries than this; only `expired` remembers more than one."""

SIGNALS = ("quality", "cost_usd", "latency_s", "reward")


def apply(world: World, event: ev.AnyEvent) -> World:
    """The world after `event`. O(1) in the number of past events."""
    skip(world)
    world.ts = max(world.ts, event.ts)
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
            world.policy_key, world.policy = event.key, event.policy
            world.parameters = event.parameters
            if event.source == "config":
                world.configured_policy = event.key
        case ev.PolicyJoined():
            _join(world, event)
        case ev.PolicyLeft():
            world.learners.pop(beside(event.policy), None)
        case ev.Decided():
            world.decisions += 1
            world.pending[event.id] = Pending(event)
            _calibrate(world, event)
            world.drift.decided(event, world.events)
            taking_part.takes_part(world, event)
        case ev.Rewarded():
            _reward(world, event)
        case ev.Compared():
            _compare(world, event)
        case ev.DecisionsExpired():
            for i, id in enumerate(event.ids):
                world.history.next_id = world.events * ITEMS_PER_EVENT + i
                _expire(world, world.pending.pop(id, None), event.default_reward)
        case ev.Spent():
            world.spend.add(event.ts, event.usd, event.tenant, event.caller, event.judge)
        case ev.ExperimentChanged():
            _set_experiment(world, event)
        case ev.ExperimentDeleted():
            _delete_experiment(world, event.id)
        case ev.VariantSeeded():
            _seed(world, event)
        case ev.RulesChanged():
            taking_part.set_rules(world, event)
        case ev.DriftDetected():
            _drift(world, event)
        case ev.Forgotten():
            _forget(world, event.owner)
        case ev.Erased():
            world.erasing.pop(event.owner, None)
        case _:
            assert_never(event)
    return world


def skip(world: World) -> World:
    """The world after an event whose record was erased: it only counts.

    A remembered query has a number made of the event's, so that the neighbours that decisions name
    are the same queries whether or not what was between them can still be read.
    """
    world.events += 1
    world.history.next_id = world.events * ITEMS_PER_EVENT
    return world


def context_of(
    world: World, of: ev.Decided | ev.Subject, learner: Learner | None = None
) -> Context:
    """The context as it was decided on, with its neighbours as they are known now.

    learner: the one that is to see it, where it may not see all.
    """
    return Context(
        embedding=ev.unpack(of.embedding),
        tokens=of.tokens,
        willingness_to_pay=of.willingness_to_pay,
        neighbours=world.history.neighbours(of.neighbours, of.similarities, view_of(learner)),
    )


def view_of(learner: Learner | None) -> View | None:
    """What of the history a policy may see; None for all of it."""
    return View(learner.own, learner.seeded) if learner is not None and learner.own else None


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


def _calibrate(world: World, event: ev.Decided) -> None:
    """Hold what was drawn against its propensities; where there was no choice, nothing is said."""
    if len(event.arms) > 1:
        told = world.calibration.setdefault(event.policy, Calibration())
        told.add(zip(event.arms, event.propensities, strict=True), event.arm)


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
        _book(world, of, event, event.cost_usd)
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
    _learn(world, rewarded, of)
    if pending is not None:
        _note_learned(pending, rewarded)
        taking_part.measured(world, pending.decided, event, before, settled)
        if event.reward is not None:
            world.drift.settled(pending.decided, event.reward, world.events)
    if event.reward is not None:
        outcome = Outcome(arm, event.quality, event.reward)
        owner = ev.owner_of(of.tenant, of.unit)
        world.history.remember(context.embedding, outcome, owner, _origin(world, of))


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
        _book(world, decided, event, more)
    if event.latency_s is not None:
        record.latencies += "latency_s" not in before
        record.latency_s += event.latency_s - before.get("latency_s", 0.0)
    context = context_of(world, decided)
    taking_part.measured(world, decided, event, before, pending.learned.get("reward"))
    if not pending.settled:
        if event.reward is not None:  # it brought quality or reward for the first time
            rewarded = _told(context, pending, {**pending.signals, "reward": event.reward})
            _learn(world, rewarded, decided)
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
    _learn(world, Correction(old, new), decided)
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
    world.history.remember(context.embedding, outcome, owner, _origin(world, decided))


def _expire(world: World, pending: Pending | None, default_reward: float | None) -> None:
    if pending is None or pending.settled or default_reward is None:
        return
    if pending.decided.arm not in world.arms:
        return
    context = context_of(world, pending.decided)
    rewarded = _told(context, pending, {**pending.signals, "reward": default_reward})
    _learn(world, rewarded, pending.decided)
    _remember(world, context, pending.decided, rewarded)
    taking_part.valued(world, pending.decided, "reward", default_reward, None)


def _forget(world: World, owner: str) -> None:
    """O(pending + history); rare. Sums keep what they learned, where no one is told apart."""
    for id, pending in list(world.pending.items()):
        if ev.owner_of(pending.decided.tenant, pending.decided.unit) == owner:
            del world.pending[id]
    world.history.forget(owner)
    for each in world.trials.values():
        trial.forget(each, owner)
    world.erasing[owner] = None


def _compare(world: World, event: ev.Compared) -> None:
    pending = world.pending.get(event.decision_id) if event.decision_id else None
    of = event.subject if pending is None else pending.decided
    if of is None:
        return
    world.comparisons += 1
    _note_key(world, pending, event)
    context = context_of(world, of)
    _learn(world, policies.Compared(context, event.winner, event.loser, event.tie), of)
    comparison = Comparison(event.winner, event.loser, event.tie)
    owner = ev.owner_of(of.tenant, of.unit)
    world.history.remember(context.embedding, comparison, owner, _origin(world, of))


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


def _note_key(world: World, pending: Pending | None, event: ev.Rewarded | ev.Compared) -> None:
    if not event.idempotency_key:
        return
    if pending is not None:
        pending.keys[event.idempotency_key] = event.digest
        return
    world.keys[event.idempotency_key] = event.digest
    while len(world.keys) > REMEMBERED_KEYS:
        world.keys.popitem(last=False)


def _set_experiment(world: World, event: ev.ExperimentChanged) -> None:
    spec = event.experiment
    state = world.trials.setdefault(spec.id, trial.Trial())
    before = world.experiments.get(spec.id)
    world.experiments[spec.id] = spec
    if event.source == "config":
        world.configured_experiments[spec.id] = event.configured or spec
    trial.changed(state, before, event)
    if event.status == "stopped":
        _unseed(world, spec.id)


def _delete_experiment(world: World, id: str) -> None:
    _unseed(world, id)
    world.experiments.pop(id, None)
    world.trials.pop(id, None)
    world.configured_experiments.pop(id, None)


def _join(world: World, event: ev.PolicyJoined) -> None:
    """A policy that cannot be loaded is not there, and a query that names it is told so."""
    learner = _loaded(event.policy, event.parameters, event.state)
    if learner is not None:
        learner.key = event.key
        world.learners[beside(event.policy)] = learner


def _loaded(name: str, parameters: bytes, state: bytes) -> Learner | None:
    try:
        policy = policies.load(name, **msgspec.json.decode(parameters))
        known = codec.load(state, type(policy.init())) if state else policy.init()
    except (ValueError, TypeError, LookupError, *codec.UNREADABLE):
        return None
    return Learner(policy, known, name=name, parameters=parameters)


def _seed(world: World, event: ev.VariantSeeded) -> None:
    """A variant's policy begins; one that cannot be loaded leaves the serving one to decide."""
    spec = world.experiments.get(event.experiment)
    variant = None if spec is None else spec.variant(event.variant)
    if variant is None:
        return
    label = label_of(event.experiment, event.variant)
    learner = _loaded(event.policy, event.parameters, event.state)
    if learner is None:
        return
    learner.key = policies_key(event.policy, event.parameters)
    learner.own = label if variant.learning == "isolated" and not variant.shadow else ""
    learner.seeded = world.trials[event.experiment].seeded = event.upto
    world.learners[label] = learner


def _unseed(world: World, experiment: str) -> None:
    for label in [one for one in world.learners if one.startswith(f"{experiment}/")]:
        del world.learners[label]


def policies_key(name: str, parameters: bytes) -> str:
    """What a variant's policy is called in its decisions."""
    return f"{name}-{codec.sha256(parameters)[:12]}"


def _origin(world: World, of: ev.Decided | ev.Subject) -> Origin:
    """With which event an outcome came, and of which variant."""
    if isinstance(of, ev.Decided) and of.experiment:
        return world.events, label_of(of.experiment, of.variant)
    return world.events, ""


def _drift(world: World, event: ev.DriftDetected) -> None:
    """What was learned of the arm fades everywhere; what is near a query is cut at the change."""
    world.drift.detected(event)
    if event.keep >= 1.0 or event.arm not in world.arms:
        return
    world.history.faded[event.arm] = max(world.history.faded.get(event.arm, 0), event.begun)
    for learner in world.learners.values():
        teach(learner, Fading(event.arm, event.keep))


def _learn(
    world: World,
    lesson: policies.Rewarded | policies.Compared | Correction,
    of: ev.Decided | ev.Subject,
) -> None:
    """Teach every policy that may learn this: all, but of a variant's own only what is its own."""
    origin = label_of(of.experiment, of.variant) if isinstance(of, ev.Decided) else ""
    for learner in world.learners.values():
        if not learner.own:
            teach(learner, lesson)
        elif learner.own == origin:
            teach(learner, _seen(lesson, context_of(world, of, learner)))


def _seen(lesson: policies.Rewarded | policies.Compared | Correction, context: Context) -> Lesson:
    """The same lesson with what of the history may be seen."""
    if isinstance(lesson, Correction):
        return Correction(
            replace(lesson.before, context=context), replace(lesson.after, context=context)
        )
    return replace(lesson, context=context)


def teach(learner: Learner, lesson: Lesson) -> None:
    """Let one policy learn, or put it off while its past is folded elsewhere.

    A policy that refuses an event has left its state as it was (a law); one bad policy must
    neither stop the log nor the others, and on replay it refuses the same event again.
    """
    if learner.queue is not None:
        learner.queue.append(lesson)
        return
    policy = learner.policy
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            if isinstance(lesson, Fading):
                if isinstance(policy, policies.Forgetful):
                    learner.state = policy.forget(learner.state, lesson.arm, lesson.keep)
            elif not isinstance(lesson, Correction):
                learner.state = policy.learn(learner.state, lesson)
            elif isinstance(policy, policies.Correctable):
                learner.state = policy.correct(learner.state, lesson.before, lesson.after)
            else:
                learner.uncorrected += 1
    except (ValueError, ArithmeticError, LookupError, TypeError):
        learner.failures += 1
