"""Up to where replicas delete the records of their log."""

from __future__ import annotations

from dataclasses import dataclass

from bandit_service.core import events as ev
from bandit_service.core.feature import takes
from bandit_service.core.resolved import Resolved


@dataclass
class Retention:
    """upto: the records up to this offset are deleted or to be deleted; 0 for none."""

    upto: int = 0

    def __bool__(self) -> bool:
        """Whether anything was ordered."""
        return self.upto > 0

    @takes(ev.TrimOrdered)
    def _order(self, event: ev.TrimOrdered, _: Resolved) -> None:
        self.upto = max(self.upto, event.upto)
