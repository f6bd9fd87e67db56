"""What policies learn from an event: the context at the decision, and which learner sees what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import msgspec

import policies
from bandit_service.core import events as ev
from bandit_service.core.arm_record import ArmRecord, relative_price
from bandit_service.core.experiments.spec import label_of
from bandit_service.core.history import OutsideRoutes, View
from bandit_service.core.learner import Correction, Fading, Learner, Lesson, Recompared
from bandit_service.core.learners import loaded, policies_key
from bandit_service.core.pending import signals_of
from bandit_service.core.resolved import Pending, Resolved, Subject
from bandit_service.core.world import World
from policies import ArmId, Context, Neighbour

_NOBODYS: Mapping[str, Lesson] = MappingProxyType({})


def parts(world: World, what: Resolved) -> Sequence[Resolved] | Iterator[Resolved]:
    """The event with its lessons: one for each expired decision, otherwise one.

    The first expired decision is remembered before the next one is looked up.
    """
    event, subject = what.event, what.subject
    if type(event) is ev.Decided:
        return (what,)  # it teaches nothing
    if type(event) is ev.Rewarded:
        return (what if subject is None else _rewarded(world, event, what, subject),)
    if isinstance(event, ev.DecisionsExpired):
        return (_expired(world, event, i, what.number) for i in range(len(event.ids)))
    return (_prepared(world, what),)


def _prepared(world: World, what: Resolved) -> Resolved:
    event = what.event
    match event:
        case ev.Compared() if what.subject is not None:
            context = _taught(world, what.subject)
            compared = policies.Compared(context, event.winner, event.loser, event.tie)
            return _teaching(world, what, Recompared(compared) if event.correction else compared)
        case ev.DriftDetected() if event.keep < 1.0 and event.arm in world.arms:
            return msgspec.structs.replace(what, lessons=(Fading(event.arm, event.keep),))
        case ev.PriorWeighed():
            return msgspec.structs.replace(what, lessons=_weighed(world, event))
        case ev.PolicyJoined():
            learner = loaded(event.policy, event.parameters, event.state)
            if learner is not None:
                learner.key = event.key
            return msgspec.structs.replace(what, joining=learner)
        case ev.RouteChanged():
            return msgspec.structs.replace(what, joining=_routed(world, event, what.number))
        case ev.VariantSeeded():
            return msgspec.structs.replace(what, joining=_seeded(world, event, what.number))
        case _:
            return what


def _rewarded(world: World, event: ev.Rewarded, what: Resolved, subject: Subject) -> Resolved:
    """Every policy that may learns it; arm, accounts, experiment and history take it in.

    What names an arm that never was only counts: the router refuses it, a hand-made log may not.
    """
    pending = what.pending
    if pending is None:
        arm, propensity, after, guessed = event.arm, 1.0, {}, 0.0
        cost_usd, latency_s = event.cost_usd, event.latency_s
    else:
        arm, propensity, after = pending.arm, pending.propensity, _signals_with(pending, event)
        guessed = pending.guessed_usd
        cost_usd, latency_s = after.get("cost_usd"), after.get("latency_s")
    record = world.catalogue.arms.get(arm)
    if record is None:
        return msgspec.structs.replace(what, after=after)
    listed, expected, price = _asked_usd(world, subject, record, pending)
    context = _taught(world, subject)
    lesson: Lesson | None
    if event.correction and pending is not None:
        lesson = _corrected(world, event, pending, after, context)
    else:
        lesson = policies.Rewarded(
            context,
            arm,
            propensity,
            price,
            expected,
            event.quality,
            cost_usd,
            latency_s,
            event.reward,
        )
    return Resolved(  # of all its fields: to replace some in it takes twice as long
        event,
        what.number,
        pending,
        subject,
        what.before,
        what.settled,
        what.revoked,
        what.part,
        world.ts,
        after,
        True,
        listed,
        guessed,
        () if lesson is None else (lesson,),
        _NOBODYS if lesson is None else _own(world, what, lesson),
    )


def _asked_usd(
    world: World, subject: Subject, record: ArmRecord, pending: Pending | None
) -> tuple[float, float, float]:
    """What a query costs by list price and is expected to cost, and the price, of this arm.

    As the decision has it, unless another arm than the decision's answered.
    """
    if (pending is None or pending.redirected is None) and isinstance(subject, ev.Decided):
        return subject.list_cost_usd, subject.expected_cost_usd, subject.price
    price = relative_price(record.spec, world.catalogue.dearest_price())
    tokens = subject.tokens
    return record.list_cost_usd(tokens), record.expected_cost_usd(tokens), price


def _corrected(
    world: World,
    event: ev.Rewarded,
    pending: Pending,
    after: Mapping[str, float],
    context: Context,
) -> policies.Rewarded | Correction | None:
    """The new values in the place of the old ones: exact in sums, lost elsewhere."""
    if event.reward is None:
        return None
    if not pending.settled:  # it brought quality or reward for the first time
        return _lesson(world, context, pending, {**after, "reward": event.reward})
    values = {name: after.get(name, value) for name, value in pending.learned.items()}
    if event.quality is not None:
        values["quality"] = event.quality
    old = _lesson(world, context, pending, pending.learned)
    new = _lesson(world, context, pending, {**values, "reward": event.reward})
    return Correction(old, new, pending.taught)


def _expired(world: World, event: ev.DecisionsExpired, part: int, number: int) -> Resolved:
    """One decision leaves; unrewarded, it teaches the default reward if one is set."""
    pending, reward = world.pending.decisions.get(event.ids[part]), event.default_reward
    if pending is None:
        return Resolved(event, number, part=part)
    decided, settled = pending.decided, pending.reward
    what = Resolved(
        event, number, pending, decided, pending.signals, settled, part=part, ts=world.ts
    )
    if pending.settled or reward is None or pending.arm not in world.arms:
        return what
    values = {**pending.signals, "reward": reward}
    return _teaching(world, what, _lesson(world, _taught(world, decided), pending, values))


def _lesson(
    world: World, context: Context, pending: Pending, values: Mapping[str, float]
) -> policies.Rewarded:
    record = world.arms[pending.arm]
    _, expected, price = _asked_usd(world, pending.decided, record, pending)
    return policies.Rewarded(
        context=context,
        arm=pending.arm,
        propensity=pending.propensity,
        price=price,
        expected_cost_usd=expected,
        quality=values.get("quality"),
        cost_usd=values.get("cost_usd"),
        latency_s=values.get("latency_s"),
        reward=values.get("reward"),
    )


def _signals_with(pending: Pending, event: ev.Rewarded) -> dict[str, float]:
    """The signals that are known of a decision with those that this event brings."""
    if event.revoked:
        return {name: one for name, one in pending.signals.items() if name not in event.revoked}
    signals = {**pending.signals, **signals_of(event)}
    if event.reward is not None and event.explicit:
        signals["reward"] = event.reward
    if event.metrics:
        signals.update(event.metrics)
    return signals


def _weighed(world: World, event: ev.PriorWeighed) -> tuple[Fading, ...]:
    """What is left of each arm; the router writes no other shares, a hand-made log may."""
    return tuple(
        Fading(arm, keep, drift=False)
        for arm, keep in event.keep.items()
        if arm in world.arms and 0.0 <= keep <= 1.0
    )


def _seeded(world: World, event: ev.VariantSeeded, number: int) -> Learner | None:
    """A variant's policy; if it cannot be loaded, the serving one decides."""
    spec = world.experiments.specs.get(event.experiment)
    variant = None if spec is None else spec.variant(event.variant)
    if spec is None or variant is None:
        return None
    learner = loaded(event.policy, event.parameters, event.state)
    if learner is not None:
        own = variant.learning == "isolated" and not variant.shadow
        label = label_of(event.experiment, event.variant)
        everything = ev.label_of_route(spec.route) if spec.route else ""
        learner.key = policies_key(event.policy, event.parameters)
        learner.own = ev.within_route(spec.route, label) if own else everything
        learner.seeded = event.upto
        learner.missed = (event.upto if event.state else 0, number)
    return learner


def _routed(world: World, event: ev.RouteChanged, number: int) -> Learner | None:
    """A route's policy as it begins; None if it continues, or cannot be loaded."""
    route, label = event.route, ev.label_of_route(event.route.id)
    there = world.learners.get(label)
    if there is not None and there.key == event.key:
        return None
    learner = loaded(route.policy, msgspec.json.encode(route.parameters), b"")
    if learner is not None:
        learner.key, learner.own, learner.missed = event.key, label, (0, number)
    return learner


def _teaching(world: World, what: Resolved, lesson: Lesson) -> Resolved:
    """The event with its lesson, also for those that learn for themselves."""
    return msgspec.structs.replace(what, lessons=(lesson,), own=_own(world, what, lesson))


def _own(world: World, what: Resolved, lesson: Lesson) -> Mapping[str, Lesson]:
    """The lesson as those that learn for themselves see it, by `Learner.own`."""
    variant = what.variant
    if not variant:
        return _NOBODYS
    own: dict[str, Lesson] = {}
    labels = {variant, ev.route_label(variant)} - {""}
    if what.subject is not None:
        for learner in world.learners.values():
            if learner.own in labels and learner.own not in own:  # all of one label see the same
                own[learner.own] = _seen(lesson, context_of(world, what.subject, learner))
    return own


def _seen(lesson: Lesson, context: Context) -> Lesson:
    """The same lesson with the visible part of the history."""
    match lesson:
        case Correction():
            before, after = lesson.before, lesson.after
            return replace(
                lesson,
                before=replace(before, context=context),
                after=replace(after, context=context),
            )
        case Recompared():
            return Recompared(replace(lesson.after, context=context))
        case Fading():
            return lesson
        case _:
            return replace(lesson, context=context)


def context_of(world: World, of: Subject, learner: Learner | None = None) -> Context:
    """The context of the decision, with the present outcomes of its neighbours.

    learner: the one that gets it, if it may not see all.
    """
    view = view_of(world, learner)
    return context_with(of, world.history.neighbours(of.neighbours, of.similarities, view))


def _taught(world: World, of: Subject) -> Context:
    """The context that every policy is taught with; no neighbours where none looks at them."""
    return context_of(world, of) if world.learners.read_neighbours() else context_with(of, ())


def context_with(of: Subject, neighbours: tuple[Neighbour, ...]) -> Context:
    """The context of the decision, with these neighbours."""
    embedding, worth = ev.unpack(of.embedding), of.willingness_to_pay
    if not of.surface:
        return Context(embedding, of.tokens, worth, neighbours)
    return Context(embedding, of.tokens, worth, neighbours, ev.surface_of(of.surface))


_OUTSIDE_ROUTES = OutsideRoutes()


def view_of(world: World, learner: Learner | None) -> View | OutsideRoutes | None:
    """What of the history a policy may see; None for all of it."""
    if learner is not None and learner.own:
        return View(learner.own, learner.seeded)
    return _OUTSIDE_ROUTES if world.routes else None


def own_alarms(world: World) -> Mapping[ArmId, policies.OwnAlarms]:
    """Of the arms that the serving policy found changed by itself."""
    learner = world.learners[world.serving]
    if not isinstance(learner.policy, policies.Watchful):
        return {}
    return learner.policy.alarms(learner.state)
