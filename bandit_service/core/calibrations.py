"""The propensities of each policy against what was drawn."""

from __future__ import annotations

from dataclasses import dataclass, field

from bandit_service.core import events as ev
from bandit_service.core.feature import takes
from bandit_service.core.resolved import Resolved
from bandit_service.statistics.calibration import Calibration


@dataclass
class Calibrations:
    """policies: by name."""

    policies: dict[str, Calibration] = field(default_factory=dict)

    @takes(ev.Decided)
    def _decided(self, event: ev.Decided, _: Resolved) -> None:
        """A decision without a choice says nothing."""
        if len(event.arms) > 1:
            one = self.policies.setdefault(event.policy, Calibration())
            one.add(zip(event.arms, event.propensities, strict=True), event.arm)
