"""The world of a running service: applies events, and tells the listeners."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TypeAlias, TypeVar, cast

from bandit_service import logs
from bandit_service.core import events as ev
from bandit_service.core.apply import fold, fold_decisions, foldable
from bandit_service.core.learner import Lesson
from bandit_service.core.resolve import resolve
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World
from bandit_service.runtime.supervisor import Supervisor
from bandit_service.telemetry.telemetry import Telemetry

_log = logging.getLogger("bandit.writer")
T = TypeVar("T")
OURS = "internal error; search the log for this request id"
NOT_APPLIED = "the event is in the log; the service restarts and then applies it"

Heard: TypeAlias = Callable[[Resolved, World], None]
HeardMany: TypeAlias = Callable[[Sequence[Resolved], World], None]
Then: TypeAlias = Callable[[], None]
_Listener: TypeAlias = tuple[Heard, HeardMany | None]


class LiveWorld:
    """Applies events that are in the log, each exactly once and in order.

    ends: called with the kind of an error after which the world no longer matches the log.
    """

    def __init__(
        self, world: World, telemetry: Telemetry, tasks: Supervisor, ends: Callable[[str], None]
    ) -> None:
        self.world = world
        self._telemetry = telemetry
        self._tasks = tasks
        self._ends = ends
        self._listeners: list[tuple[_Listener, tuple[type[ev.AnyEvent], ...]]] = []
        self._by_kind: dict[type[ev.AnyEvent], tuple[_Listener, ...]] = {}
        self._failing = False
        self._lessons: list[list[Lesson]] = []
        self._seldom = logs.Seldom()
        self.before_next: Callable[[], None] | None = None

    def listen(
        self, heard: Heard, *kinds: type[ev.AnyEvent], many: HeardMany | None = None
    ) -> None:
        """Call this listener with every event of these kinds, or of all without any, that is
        applied from now on, in order, with the world after it. A listener changes neither the world
        nor the answer, even if it fails.

        Of decisions that are applied one after another the world is the one after the last. many:
        called once with all of them, in the place of `heard`.
        """
        self._listeners.append(((heard, many), kinds))
        self._by_kind.clear()

    @contextmanager
    def lessons(self) -> Iterator[list[Lesson]]:
        """All lessons from now on, for a policy that is being trained on the past elsewhere."""
        taught = list[Lesson]()
        self._lessons.append(taught)
        learners = self.world.learners
        learners.elsewhere += 1
        try:
            yield taught
        finally:
            learners.elsewhere -= 1
            self._lessons = [one for one in self._lessons if one is not taught]

    def apply(self, event: ev.AnyEvent, then: Then | None = None) -> str:
        """Apply an event, and tell the listeners; returns why it was not fully applied, "" if it
        was. then: changes unfolded state together with a fully applied event.
        """
        self._do_before()
        unapplied = self.world.unapplied
        try:
            what = resolve(self.world, event)
            lessons = fold(self.world, what)
        except Exception as error:  # noqa: BLE001 - the world is not the log's any more
            self._ends(type(error).__name__)
            return NOT_APPLIED
        for taught in self._lessons:
            taught.extend(lessons)
        if then is not None and self.world.unapplied == unapplied:
            then()
        self._tell((what,))
        if self.world.unapplied == unapplied:
            return ""
        self._telemetry.metrics.unapplied.set(self.world.unapplied)
        if (more := self._seldom("unapplied")) is not None:
            why = self.world.why_unapplied
            told = {"event": ev.kind(event), "why": why, "more": more or None}
            _log.critical("an event was not applied whole", extra=told)
        return OURS

    def _do_before(self) -> None:
        do = self.before_next
        if do is not None:
            self.before_next = None
            self._fails(lambda _, __: do(), None)

    def apply_many(self, events: Sequence[ev.AnyEvent]) -> list[str]:
        """`apply` for each; decisions that follow one another are folded, and told, together."""
        whys: list[str] = []
        for kind, run in groupby(events, type):
            some = list(run)
            decisions = cast(Sequence[ev.Decided], some) if kind is ev.Decided else ()
            together = len(decisions) > 1 and foldable(decisions)
            for why in self._apply_decisions(decisions) if together else map(self.apply, some):
                whys.append(why)
                if why == NOT_APPLIED:
                    return whys + [why] * (len(events) - len(whys))
        return whys

    def _apply_decisions(self, decisions: Sequence[ev.Decided]) -> list[str]:
        self._do_before()
        try:
            some = fold_decisions(self.world, decisions)
        except Exception as error:  # noqa: BLE001 - the world is not the log's any more
            self._ends(type(error).__name__)
            return [NOT_APPLIED] * len(decisions)
        self._tell(some)
        return [""] * len(some)

    def _tell(self, some: Sequence[Resolved]) -> None:
        """Tell the listeners of one event, or of decisions that followed one another."""
        failed, kind = False, type(some[0].event)
        for heard, many in self._by_kind.get(kind) or self._listening(kind):
            if many is not None and len(some) > 1:
                failed |= self._fails(many, some)
            else:
                for one in some:
                    failed |= self._fails(heard, one)
        if self._failing and not failed:
            self._failing = False
            self._tasks.well("look on")

    def _fails(self, look: Callable[[T, World], None], on: T) -> bool:
        """Let a listener look; whether it failed."""
        try:
            look(on, self.world)
        except Exception as error:  # noqa: BLE001 - it is applied, whoever looks on
            self._failing = True
            self._tasks.failed("look on", error)
            return True
        return False

    def _listening(self, kind: type[ev.AnyEvent]) -> tuple[_Listener, ...]:
        """Those that are called with an event of this kind, looked up once for each kind."""
        found = tuple(one for one, kinds in self._listeners if not kinds or kind in kinds)
        self._by_kind[kind] = found
        return found
