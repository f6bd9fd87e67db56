"""The propensities of each policy compared with its draws."""

from __future__ import annotations

from dataclasses import dataclass, field

from bandit_service.core import events as ev
from bandit_service.core.feature import takes
from bandit_service.core.resolved import Resolved
from bandit_service.statistics.calibration import Calibration

_AT_ONCE = 256


@dataclass
class KeptCalibrations:
    """Calibrations as they are kept."""

    policies: dict[str, Calibration]


@dataclass
class Calibrations:
    """policies: by name, without those that wait. `known` counts these first, to the same bits.

    `_waiting`: the newest decisions of one policy over the same arms, which are counted together.
    """

    policies: dict[str, Calibration] = field(default_factory=dict)
    _of: Calibration | None = field(default=None, compare=False)
    _arms: tuple[str, ...] = field(default=(), compare=False)
    _policy: str = field(default="", compare=False)
    _waiting: list[tuple[float, ...]] = field(default_factory=list, compare=False)
    _drawn: list[int] = field(default_factory=list, compare=False)

    @takes(ev.Decided)
    def _decided(self, event: ev.Decided, _: Resolved) -> None:
        """A decision without a choice says nothing."""
        arms = event.arms
        if len(arms) < 2:
            return
        if len(self._drawn) >= _AT_ONCE or event.policy != self._policy or arms != self._arms:
            self._count()
            self._policy, self._arms = event.policy, arms
            self._of = self.policies.setdefault(event.policy, Calibration())
        # raised here and now: what waits is counted in the fold of another event
        if len(event.propensities) != len(arms):
            raise ValueError(f"{len(event.propensities)} propensities of {len(arms)} arms")
        if not -len(arms) <= event.drawn < len(arms):
            raise IndexError(f"arm {event.drawn} of {len(arms)}")
        self._waiting.append(event.propensities)
        self._drawn.append(event.drawn)

    def known(self) -> dict[str, Calibration]:
        """By name of the policy, of all decisions up to now."""
        self._count()
        return self.policies

    def folded(self) -> KeptCalibrations:
        """All that is no cache."""
        return KeptCalibrations(self.known())

    @classmethod
    def unfolded(cls, kept: KeptCalibrations) -> Calibrations:
        """Those of which `folded` gave this."""
        return cls(kept.policies)

    def _count(self) -> None:
        waiting, drawn = self._waiting, self._drawn
        if self._of is not None and drawn:
            self._waiting, self._drawn = [], []
            self._of.add_many(self._arms, waiting, drawn)
