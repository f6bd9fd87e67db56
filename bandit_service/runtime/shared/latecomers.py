"""What this replica wrote of a unit before it read that the unit is forgotten.

It comes into the log after that event, at worst when a replica that was cut off is back. So the
unit is forgotten again, once all of it is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass

from bandit_service.core import events as ev


@dataclass
class _Late:
    forgotten: float
    ids: set[str]
    is_told: bool = False


class Latecomers:
    """written: the ids of an owner's entries of up to a moment that are not applied yet. forget:
    appends that the owner is forgotten as of the same moment, or this would not end for a unit that
    goes on to write. drop: called for what is forgotten. skew_s: by how much the
    clocks of two replicas may differ.
    """

    def __init__(
        self,
        written: Callable[[str, float], Set[str]],
        forget: Callable[[str, float], None],
        drop: Callable[[str], None],
        skew_s: float,
    ) -> None:
        self._written, self._forget, self._drop = written, forget, drop
        self._skew_s = skew_s
        self._late: dict[str, _Late] = {}

    def holds(self, owner: str, id: str) -> bool:
        """Whether the spool needs this decision until the owner is forgotten again."""
        return owner in self._late and id in self._late[owner].ids

    def add(self, owner: str, forgotten: float, id: str, ts: float) -> bool:
        """Whether this, which the log may have, was written before its owner was forgotten."""
        if ts > forgotten + self._skew_s:
            return False
        self._late.setdefault(owner, _Late(forgotten, set())).ids.add(id)
        return True

    def heard(self, event: ev.Forgotten) -> None:
        """The owner is forgotten, with all that was applied before."""
        ids = set(self._written(event.owner, event.ts + self._skew_s))
        before = self._late.pop(event.owner, None)
        for id in before.ids - ids if before else ():
            self._drop(id)
        if ids:
            self._late[event.owner] = _Late(event.ts, ids)

    def look(self, waiting: Set[str]) -> None:
        """Forget again whom nothing waits of any more. waiting: what is not applied yet."""
        for owner, late in self._late.items():
            if not late.is_told and not late.ids & waiting:
                late.is_told = True
                self._forget(owner, late.forgotten)
