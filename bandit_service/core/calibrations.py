"""The propensities of each policy compared with its draws."""

from __future__ import annotations

from dataclasses import dataclass, field

from bandit_service.core import events as ev
from bandit_service.core.feature import takes
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

    def known(self) -> dict[str, Calibration]:
        """By name of the policy, of all decisions up to now."""
        return {name: one.known() for name, one in self.policies.items()}
