"""Computes the decisions of experiments' shadows after the answer, and writes them.

A decision waits for this at most `PATIENCE_S`, and only until its first outcome comes, since no
shadow may know the outcome. If the process dies, the waiting decisions have no shadows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice

from bandit_service.core import events as ev
from bandit_service.core.resolved import Resolved
from bandit_service.core.shadows import cast, seen
from bandit_service.core.world import World
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.runtime.writer import Writer

PATIENCE_S = 0.05
AT_ONCE = 16
"""Decisions that are processed in one turn of the loop, so that no request waits for long.

If a quarter of the waiting ones is more, that many are, so that the queue cannot grow without end.
"""
MANY = 64
"""At this number they do not wait any longer."""


class Shadows:
    """`heard` listens to the writer; `before` is called for an outcome before it is prepared."""

    def __init__(self, writer: Writer, rules: RouterRules) -> None:
        self._writer = writer
        self._rules = rules
        self._waiting: dict[str, None] = {}
        self._timer: asyncio.Handle | None = None
        writer.before_outcome = self.before

    def heard(self, what: Resolved, world: World) -> None:
        """One event that was applied."""
        event = what.event
        if (
            isinstance(event, ev.Decided)
            and self._writer.made_here(event.id)
            and seen(world, event)
        ):
            self._waiting[event.id] = None
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._look)
            elif len(self._waiting) == MANY:
                self._timer.cancel()
                self._soon()

    def decided(self, some: Sequence[Resolved], world: World) -> None:
        """Decisions that were applied one after another."""
        if world.experiments.trials:  # without any there are no shadows
            for what in some:
                self.heard(what, world)

    def before(self, decision_id: str) -> None:
        """An outcome of this decision will be learned next."""
        if decision_id in self._waiting:
            self._cast([decision_id])

    def close(self) -> None:
        """Process all waiting decisions."""
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting:
            self._cast(list(islice(self._waiting, AT_ONCE)))

    def _soon(self) -> None:
        self._timer = asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._timer = None
        self._cast(list(islice(self._waiting, max(AT_ONCE, len(self._waiting) // 4))))
        if self._waiting:
            self._soon()

    def _cast(self, ids: list[str]) -> None:
        for id in ids:
            del self._waiting[id]
        world = self._writer.world
        pending = world.pending.decisions
        some = [pending[id] for id in ids if id in pending]
        events = [
            ev.Shadowed(ts=self._writer.now(), decision_id=one.decided.id, shadows=shadows)
            for one, shadows in zip(some, cast(world, some, self._rules.explore), strict=True)
            if shadows
        ]
        self._writer.append_own(*events)
