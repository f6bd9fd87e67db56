"""Outcomes of decisions that this replica does not have yet, until those come or can no longer
come.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable, Iterator

from bandit_service import clock
from bandit_service.core.errors import NotYet
from bandit_service.runtime.command_batches import Command
from bandit_service.runtime.group_commit import fail
from store import LogState

_AHEAD_S = 5.0
"""No replica's clock is this far ahead, so an id from beyond it is invented."""


class Parking:
    """Outcomes by decision.

    again: gets those that must be prepared again. applied: the newest offset.
    """

    def __init__(
        self,
        park_s: float,
        most: int,
        again: Callable[[Command], None],
        applied: Callable[[], int],
    ) -> None:
        self._park_s = park_s
        self._most = most
        self._again = again
        self._applied = applied
        self._waiting: dict[str, list[tuple[float, Command]]] = {}
        self._count = 0
        self._absent_before = 0.0
        self._state: LogState | None = None
        self.parked = asyncio.Event()

    def __len__(self) -> int:
        """How many wait."""
        return self._count

    def may_come(self, decision_id: str) -> bool:
        """Whether an unknown decision may be another replica's that is not applied yet."""
        made = clock.time_of(decision_id)
        return made is not None and self._absent_before <= made < clock.now() + _AHEAD_S

    def holds(self, decision_id: str) -> bool:
        """Whether something waits for this decision."""
        return decision_id in self._waiting

    def put(
        self, decision_id: str, command: Command, refusal: NotYet, *, patient: bool = False
    ) -> None:
        """Keep it until the decision comes; returns the refusal if too many wait.

        patient: it waits as long as the decision takes.
        """
        if self._count >= self._most:
            fail(command.done, refusal)
            return
        until = math.inf if patient else time.monotonic() + self._park_s
        self._waiting.setdefault(decision_id, []).append((until, command))
        self._count += 1
        self.parked.set()

    def came(self, decision_id: str) -> None:
        """The decision is applied: prepare the waiting outcomes again."""
        for _, command in self._taken(decision_id):
            self._again(command)

    def learned(self, state: LogState) -> None:
        """Everything answered before `state.settled` is in the log up to `state.horizon`."""
        if self._state is None:
            self._state = state

    def look(self) -> None:
        """Refuse outcomes that waited too long, or whose decision cannot come."""
        if self._state is not None and self._applied() >= self._state.horizon:
            self._absent_before = max(self._absent_before, self._state.settled)
            self._state = None
            for id in [each for each in self._waiting if not self.may_come(each)]:
                self.came(id)
        self._let_go(time.monotonic(), NotYet.of)
        if not self._waiting:
            self.parked.clear()

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """No decision can come now: refuse all but the patient ones."""
        self._let_go(sys.float_info.max, lambda _: error())

    def _let_go(self, now: float, error: Callable[[str], Exception]) -> None:
        late = [
            id for id, waiting in self._waiting.items() if any(each[0] <= now for each in waiting)
        ]
        for id in late:
            waiting = list(self._taken(id))
            kept = [each for each in waiting if each[0] > now]
            if kept:
                self._waiting[id] = kept
                self._count += len(kept)
            for until, command in waiting:
                if until <= now:
                    fail(command.done, error(id))

    def _taken(self, id: str) -> Iterator[tuple[float, Command]]:
        taken = self._waiting.pop(id, [])
        self._count -= len(taken)
        return iter(taken)
