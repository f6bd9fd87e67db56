"""What policies learn from: the context as it was decided on, and who may see what of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np

import policies
from bandit_service.core import events as ev
from bandit_service.core.history import View
from bandit_service.core.learner import Correction, Fading, Learner, Lesson, Recompared
from bandit_service.core.resolve import Resolved, Subject
from bandit_service.core.world import World
from policies import ArmId, Context

Outcome: TypeAlias = policies.Rewarded | policies.Compared | Correction | Recompared


def context_of(world: World, of: Subject, learner: Learner | None = None) -> Context:
    """The context as it was decided on, with its neighbours as they are known now.

    learner: the one that is to see it, where it may not see all.
    """
    return Context(
        embedding=ev.unpack(of.embedding),
        tokens=of.tokens,
        willingness_to_pay=of.willingness_to_pay,
        neighbours=world.history.neighbours(of.neighbours, of.similarities, view_of(learner)),
        surface=ev.surface_of(of.surface),
    )


def view_of(learner: Learner | None) -> View | None:
    """What of the history a policy may see; None for all of it."""
    return View(learner.own, learner.seeded) if learner is not None and learner.own else None


def learn(world: World, lesson: Outcome, what: Resolved, prior: bool = False) -> None:
    """Teach every policy; an isolated variant learns only from its own decisions.

    prior: it was taught beforehand, by a warm start.
    """
    _count(world, lesson, prior)
    variant = what.variant
    for learner in world.learners.values():
        if not learner.own:
            teach(learner, lesson)
        elif learner.own == variant and what.subject is not None:
            teach(learner, _seen(lesson, context_of(world, what.subject, learner)))


def _count(world: World, lesson: Outcome, prior: bool) -> None:
    """One outcome more of its arms; a correction is none, nor are signals without a reward."""
    arms: tuple[ArmId, ...] = ()
    if isinstance(lesson, policies.Compared):
        arms = lesson.winner, lesson.loser
    elif isinstance(lesson, policies.Rewarded) and lesson.reward is not None:
        arms = (lesson.arm,)
    for arm in arms:
        record = world.arms.get(arm)
        if record is not None:
            record.weight += 1.0
            record.live += not prior


def _seen(lesson: Outcome, context: Context) -> Lesson:
    """The same lesson with what of the history may be seen."""
    if isinstance(lesson, Correction):
        return Correction(
            replace(lesson.before, context=context), replace(lesson.after, context=context)
        )
    if isinstance(lesson, Recompared):
        return Recompared(replace(lesson.after, context=context))
    return replace(lesson, context=context)


def own_alarms(world: World) -> Mapping[ArmId, policies.OwnAlarms]:
    """Of the arms that the serving policy found changed by itself."""
    learner = world.learners[world.serving]
    if not isinstance(learner.policy, policies.Watchful):
        return {}
    return learner.policy.alarms(learner.state)


OF_THE_MACHINE = (MemoryError, OSError)
"""What another machine, or this one tomorrow, would not meet with the same event."""


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
                # one that watches its arms itself has reacted to drift, or sees no change
                noticed = lesson.drift and policies.watches_arms(policy)
                if isinstance(policy, policies.Forgetful) and not noticed:
                    learner.state = policy.forget(learner.state, lesson.arm, lesson.keep)
            elif isinstance(lesson, Recompared):
                learner.state = policy.learn(learner.state, lesson.after)
                learner.uncorrected += 1
            elif not isinstance(lesson, Correction):
                learner.state = policy.learn(learner.state, lesson)
            elif isinstance(policy, policies.Correctable):
                learner.state = policy.correct(learner.state, lesson.before, lesson.after)
            else:
                learner.uncorrected += 1
    except OF_THE_MACHINE:
        raise
    except Exception:  # noqa: BLE001 - a policy may be anybody's, and fail in any way
        learner.failures += 1
