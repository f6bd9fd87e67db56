"""Worlds that change half-way: an arm joins, gets worse, gets dearer (by little or much), or
leaves.

The change always concerns the best single arm of the whole recording (by mean reward at the
willingness to pay of the run), since a policy should have come to rely on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import msgspec
import numpy as np

from bandit_service.core import events as ev
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import Recorded
from bandit_service.offline.baselines import rewards
from bandit_service.offline.simulate import Phase, added

WORSE = 0.5
DEARER_BY = 0.3
TIMES = 60.0
SILENT = ("degrades",)
"""The changes that the service is not told of."""

_Build = Callable[[Recorded, RewardRule, int], tuple[Phase, ...]]


def phases_of(scenario: str, recorded: Recorded, rule: RewardRule) -> tuple[Phase, ...]:
    """The phases of one of `SCENARIOS`; the change is at step n // 2."""
    return SCENARIOS[scenario](recorded, rule, _best(recorded, rule))


def _steady(recorded: Recorded, rule: RewardRule, best: int) -> tuple[Phase, ...]:  # noqa: ARG001
    return (Phase(0, recorded, added(recorded)),)


def _joins(recorded: Recorded, rule: RewardRule, best: int) -> tuple[Phase, ...]:  # noqa: ARG001
    others = tuple(event for k, event in enumerate(added(recorded)) if k != best)
    newcomer = ev.ArmAdded(ts=0.0, arm=recorded.arms[best], source="api")
    return (
        Phase(0, _without(recorded, best), others),
        Phase(len(recorded) // 2, recorded, (newcomer,)),
    )


def _degrades(recorded: Recorded, rule: RewardRule, best: int) -> tuple[Phase, ...]:  # noqa: ARG001
    """The service is not told: its quality is `WORSE` times the earlier one."""
    factor = np.where(np.arange(len(recorded.arms)) == best, WORSE, 1.0)
    worse = replace(recorded, quality=recorded.quality * factor)
    return (Phase(0, recorded, added(recorded)), Phase(len(recorded) // 2, worse))


def _rises(recorded: Recorded, rule: RewardRule, best: int) -> tuple[Phase, ...]:
    """The catalogue has it: its mean bill rises by `DEARER_BY` of quality."""
    mean = float(np.nanmean(recorded.cost[:, best]))
    return _dearer(recorded, best, 1.0 + DEARER_BY * rule.willingness_to_pay / max(mean, 1e-12))


def _soars(recorded: Recorded, rule: RewardRule, best: int) -> tuple[Phase, ...]:  # noqa: ARG001
    """The catalogue has it: its price is multiplied by `TIMES`."""
    return _dearer(recorded, best, TIMES)


def _dearer(recorded: Recorded, best: int, factor: float) -> tuple[Phase, ...]:
    scale = np.where(np.arange(len(recorded.arms)) == best, factor, 1.0)
    dearer = replace(recorded, cost=recorded.cost * scale)
    old = recorded.arms[best]
    new = msgspec.structs.replace(
        old,
        usd_per_mtok_in=old.usd_per_mtok_in * factor,
        usd_per_mtok_out=old.usd_per_mtok_out * factor,
    )
    told = ev.ArmUpdated(ts=0.0, arm=new, source="api")
    return (Phase(0, recorded, added(recorded)), Phase(len(recorded) // 2, dearer, (told,)))


def _retires(recorded: Recorded, rule: RewardRule, best: int) -> tuple[Phase, ...]:  # noqa: ARG001
    gone = ev.ArmRetired(ts=0.0, id=recorded.arms[best].id, source="api")
    return (
        Phase(0, recorded, added(recorded)),
        Phase(len(recorded) // 2, _without(recorded, best), (gone,)),
    )


SCENARIOS: Mapping[str, _Build] = MappingProxyType(
    {
        "steady": _steady,
        "joins": _joins,
        "degrades": _degrades,
        "dearer": _rises,
        "price x60": _soars,
        "retires": _retires,
    }
)


def _best(recorded: Recorded, rule: RewardRule) -> int:
    """The arm of the highest mean reward among those that answered most queries."""
    table = rewards(recorded, rule)
    answered = (~np.isnan(table)).sum(axis=0)
    means = np.nansum(table, axis=0) / np.maximum(answered, 1)
    means = np.where(answered >= 0.5 * answered.max(), means, -np.inf)
    return int(np.argmax(means))


def _without(recorded: Recorded, k: int) -> Recorded:
    """The same without the answers of arm k."""
    gone = np.arange(len(recorded.arms)) == k
    return replace(
        recorded,
        quality=np.where(gone, np.nan, recorded.quality),
        cost=np.where(gone, np.nan, recorded.cost),
    )
