"""Whose records are still to be erased from the log."""

from __future__ import annotations

from dataclasses import dataclass, field

from bandit_service.core import events as ev
from bandit_service.core.feature import takes
from bandit_service.core.resolved import Resolved


@dataclass
class Erasures:
    """owners: those that the world has forgotten, and the log has not yet; oldest first."""

    owners: dict[str, None] = field(default_factory=dict)

    @takes(ev.Forgotten)
    def _begin(self, event: ev.Forgotten, _: Resolved) -> None:
        self.owners[event.owner] = None

    @takes(ev.ErasureOrdered)
    def _order(self, event: ev.ErasureOrdered, _: Resolved) -> None:
        """It is to be ended by whoever is the keeper then."""
        self.owners.setdefault(event.owner)

    @takes(ev.Erased)
    def _end(self, event: ev.Erased, _: Resolved) -> None:
        self.owners.pop(event.owner, None)
