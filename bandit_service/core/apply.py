"""world = apply(world, event): the one line that live, recovery, replay and audit run.

`apply` consumes the world: it writes into it and returns it. It is total: every event that
`decode` yields can be applied, in any order, so a log never becomes unreadable. That also holds for
bugs of the service (docs/adr/0011): an event that a bug stops is counted, and its changes before
that stay, live and at every replay. Only errors of the machine are raised, not those of an event:
the process must then end, since its world no longer matches the log.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from bandit_service.core import events as ev
from bandit_service.core import usual_outcomes
from bandit_service.core.learner import OF_THE_MACHINE, Lesson
from bandit_service.core.lessons import parts
from bandit_service.core.resolve import resolve
from bandit_service.core.resolved import Pending, Resolved
from bandit_service.core.world import TAKE_IN, TAKERS_OF_MANY, World

Of = TypeVar("Of")


def apply(world: World, event: ev.AnyEvent) -> World:
    """The world after `event`. O(1) in the number of past events."""
    settled = usual_outcomes.settled_by(world, event) if type(event) is ev.Rewarded else None
    if type(event) is ev.Decided:  # it teaches nothing, and so has no parts
        _fold(world, event, TAKE_IN[ev.Decided], resolve(world, event))
    elif settled is None:
        _fold(world, event, _take_in, (resolve(world, event), None))
    else:
        _fold(world, event, usual_outcomes.take_in, settled)
    return world


def fold(world: World, what: Resolved) -> Sequence[Lesson]:
    """The same for an event that was resolved in the present world.

    Returns its lessons for policies without a route, for a policy that is being trained elsewhere.
    """
    lessons: list[Lesson] = []
    _fold(world, what.event, _take_in, (what, lessons))
    return lessons


def foldable(decisions: Sequence[ev.Decided]) -> bool:
    """Whether each of these decisions is whole: at another, which takes a bug, features stop."""
    return all(one.whole for one in decisions)


def fold_decisions(world: World, decisions: Sequence[ev.Decided]) -> list[Resolved]:
    """`fold` of each of these, which are `foldable`, one after another, to the same bits: every
    feature takes in all of them at once.

    After an error the world no longer matches the log.
    """
    some = [
        Resolved(event, number, Pending(event), event)
        for number, event in enumerate(decisions, world.events + 1)
    ]
    world.events += len(some)
    world.history.number(world.events)
    world.ts = max(world.ts, *(event.ts for event in decisions))
    for feature, take_in in TAKERS_OF_MANY:
        take_in(getattr(world, feature), decisions, some)
    return some


def _fold(world: World, event: Any, take_in: Callable[[World, Any, Of], None], of: Of) -> None:
    """Count an event, and take it in with what it refers to."""
    skip(world)
    if event.ts > world.ts:
        world.ts = event.ts
    try:
        take_in(world, event, of)
    except OF_THE_MACHINE:
        raise
    except Exception as error:  # noqa: BLE001 - a bug may not make the log unreadable
        world.stopped(f"{ev.kind(event)}: {_place(error)}")


def _take_in(world: World, event: ev.AnyEvent, of: tuple[Resolved, list[Lesson] | None]) -> None:
    """Every feature takes it in. of: what it refers to, and where its lessons are to be added."""
    what, lessons = of
    take_in = TAKE_IN[type(event)]
    for part in parts(world, what):
        take_in(world, event, part)
        if lessons is not None and part.lessons and not ev.is_of_route(part.variant):
            lessons.extend(part.lessons)  # as `Learners` teaches it


def skip(world: World) -> World:
    """The world after an event whose record was erased: it only counts."""
    world.events += 1
    world.history.number(world.events)
    return world


@contextmanager
def uncollected() -> Iterator[None]:
    """While many events are applied the garbage collector rests.

    It would look at all that is folded again and again, of which nothing is garbage.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _place(error: Exception) -> str:
    """The kind of an error and where it was raised; its message may contain private data."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
