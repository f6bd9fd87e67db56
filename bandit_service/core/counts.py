"""How many decisions, rewards and comparisons there were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bandit_service.core import events as ev
from bandit_service.core.feature import takes, takes_many
from bandit_service.core.resolved import Resolved


@dataclass
class Counts:
    """A correction of a comparison counts as none; an outcome of a decision that left, neither."""

    decisions: int = 0
    rewards: int = 0
    comparisons: int = 0

    @takes(ev.Decided)
    def _decided(self, _: ev.Decided, __: Resolved) -> None:
        self.decisions += 1

    @takes_many
    def _decided_many(self, decisions: Sequence[ev.Decided], _: Sequence[Resolved]) -> None:
        self.decisions += len(decisions)

    @takes(ev.Rewarded)
    def _rewarded(self, _: ev.Rewarded, what: Resolved) -> None:
        self.rewards += what.subject is not None

    @takes(ev.Compared)
    def _compared(self, event: ev.Compared, what: Resolved) -> None:
        self.comparisons += what.subject is not None and not event.correction
