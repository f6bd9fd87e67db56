"""The propensities of each policy compared with its draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from bandit_service.core import events as ev
from bandit_service.core.feature import takes, takes_many
from bandit_service.core.resolved import Resolved
from bandit_service.statistics.calibration import Calibrating, Calibration


@dataclass
class Calibrations:
    """policies: by name."""

    policies: dict[str, Calibrating] = field(default_factory=dict)

    @takes(ev.Decided)
    def _decided(self, event: ev.Decided, _: Resolved) -> None:
        """A decision without a choice says nothing."""
        arms = event.arms
        if len(arms) < 2:
            return
        of = self.policies.get(event.policy)
        if of is None:
            of = self.policies[event.policy] = Calibrating()
        of.add(arms, event.propensities, event.drawn)

    @takes_many
    def _decided_many(self, decisions: Sequence[ev.Decided], _: Sequence[Resolved]) -> None:
        for (policy, arms), run in groupby(decisions, attrgetter("policy", "arms")):
            if len(arms) < 2:
                continue
            alike = list(run)
            of = self.policies.get(policy)
            if of is None:
                of = self.policies[policy] = Calibrating()
            of.add_many(arms, [one.propensities for one in alike], [one.drawn for one in alike])

    def known(self) -> dict[str, Calibration]:
        """By name of the policy, of all decisions up to now."""
        return {name: one.known() for name, one in self.policies.items()}
