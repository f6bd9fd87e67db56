"""world = apply(world, event): the one line that live, recovery, replay and audit run.

`apply` consumes the world: it writes into it and returns it. It is total: every event that
`decode` yields can be applied, in any order, so a log never becomes unreadable. That holds for
errors of ours, too (docs/adr/0011): an event that one of them stops is counted, and what it did
before that stays, live as at every replay. Only what is wrong with the machine, and not with the
event, is raised: then the process is to end, since its world is not the log's any more.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import assert_never

from bandit_service.core import events as ev
from bandit_service.core import learners, prior, rewards
from bandit_service.core.experiments import participation, trial
from bandit_service.core.learner import Fading, beside
from bandit_service.core.lessons import OF_THE_MACHINE, teach
from bandit_service.core.resolve import Resolved, expiring, resolve
from bandit_service.core.world import ArmRecord, World
from bandit_service.statistics.calibration import Calibration

ITEMS_PER_EVENT = 1024
"""No event may remember more queries than this; only `expired` remembers more than one."""


def apply(world: World, event: ev.AnyEvent) -> World:
    """The world after `event`. O(1) in the number of past events."""
    return fold(world, resolve(world, event))


def fold(world: World, what: Resolved) -> World:
    """The same for an event that was resolved, in the world as it is now."""
    event = what.event
    skip(world)
    world.ts = max(world.ts, event.ts)
    try:
        _fold(world, event, what)
    except OF_THE_MACHINE:
        raise
    except Exception as error:  # noqa: BLE001 - a bug may not make the log unreadable
        world.stopped(f"{ev.kind(event)}: {_place(error)}")
    return world


def _place(error: Exception) -> str:
    """The kind of an error and where it was raised; its message may hold what is nobody's."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"


def _fold(world: World, event: ev.AnyEvent, what: Resolved) -> None:
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
            world.learners.switch(event.policy, event.key)
        case ev.PolicyJoined():
            learners.join(world, event)
        case ev.PolicyLeft():
            world.learners.pop(beside(event.policy), None)
        case ev.Decided():
            world.decisions += 1
            if what.pending is not None:
                world.pending[event.id] = what.pending
            _calibrate(world, event)
            world.drift.decided(event, what.number)
            participation.takes_part(world, event)
        case ev.Rewarded():
            rewards.rewarded(world, event, what)
        case ev.Compared():
            rewards.compared(world, event, what)
        case ev.DecisionsExpired():
            for i, id in enumerate(event.ids):
                world.history.next_id = world.events * ITEMS_PER_EVENT + i
                pending = world.pending.pop(id, None)
                if pending is not None:
                    rewards.expired(world, event, expiring(event, what.number, pending))
        case ev.Spent():
            rewards.spent(world, event, what)
        case ev.ExperimentChanged():
            _set_experiment(world, event)
        case ev.ExperimentDeleted():
            _delete_experiment(world, event.id)
        case ev.VariantSeeded():
            learners.seed(world, event)
        case ev.RulesChanged():
            participation.set_rules(world, event)
        case ev.DriftDetected():
            _drift(world, event)
        case ev.PriorWeighed():
            prior.weighed(world, event)
        case ev.Forgotten():
            _forget(world, event.owner)
        case ev.Erased():
            world.erasing.pop(event.owner, None)
        case _:
            assert_never(event)


def skip(world: World) -> World:
    """The world after an event whose record was erased: it only counts.

    A remembered query has a number made of the event's, so that the neighbours that decisions name
    are the same queries whether or not what was between them can still be read.
    """
    world.events += 1
    world.history.next_id = world.events * ITEMS_PER_EVENT
    return world


def _set_arm(world: World, spec: ev.ArmSpec, source: str) -> None:
    if source == "config":
        world.configured[spec.id] = spec
    record = world.arms.get(spec.id)
    if record is None:
        record = world.arms[spec.id] = ArmRecord(spec, source)
    else:
        record.spec, record.source, record.retired = spec, source, False
    if record.first_price == 0.0:
        record.first_price = (spec.usd_per_mtok_in + 2.0 * spec.usd_per_mtok_out) / 3.0


def _calibrate(world: World, event: ev.Decided) -> None:
    """Hold what was drawn against its propensities; where there was no choice, nothing is said."""
    if len(event.arms) > 1:
        told = world.calibration.setdefault(event.policy, Calibration())
        told.add(zip(event.arms, event.propensities, strict=True), event.arm)


def _set_experiment(world: World, event: ev.ExperimentChanged) -> None:
    spec = event.experiment
    state = world.trials.setdefault(spec.id, trial.Trial())
    before = world.experiments.get(spec.id)
    world.experiments[spec.id] = spec
    if event.source == "config":
        world.configured_experiments[spec.id] = event.configured or spec
    trial.changed(state, before, event)
    if event.status == "stopped":
        learners.unseed(world, spec.id)


def _delete_experiment(world: World, id: str) -> None:
    learners.unseed(world, id)
    world.experiments.pop(id, None)
    world.trials.pop(id, None)
    world.configured_experiments.pop(id, None)


def _drift(world: World, event: ev.DriftDetected) -> None:
    """What was learned of the arm fades everywhere; what is near a query is cut at the change."""
    world.drift.detected(event)
    if event.keep >= 1.0 or event.arm not in world.arms:
        return
    world.history.faded[event.arm] = max(world.history.faded.get(event.arm, 0), event.begun)
    for learner in world.learners.values():
        teach(learner, Fading(event.arm, event.keep))


def _forget(world: World, owner: str) -> None:
    """O(pending + history); rare. Sums keep what they learned, where no one is told apart."""
    for id, pending in list(world.pending.items()):
        if ev.owner_of(pending.decided.tenant, pending.decided.unit) == owner:
            del world.pending[id]
    world.history.forget(owner)
    for each in world.trials.values():
        trial.forget(each, owner)
    world.erasing[owner] = None
