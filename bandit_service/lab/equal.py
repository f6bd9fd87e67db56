"""Quality at equal cost and cost at equal quality, from runs at several prices of quality.

One entrant at one willingness to pay earned one point (mean cost, mean quality) over its whole
run, learning included. The nondecreasing concave hull of its points, taken as means over the
seeds, is its curve; single arms in hindsight, uniform choice and the oracle are compared with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bandit_service.lab.curves import Hull, auc_linear, auc_log, hull
from bandit_service.lab.data import Labelled
from bandit_service.lab.online import Passed

AGAINST = ("best", "uniform", "oracle")


@dataclass(frozen=True, slots=True)
class EqualRow:
    """One entrant's curve against the baselines at the largest willingness to pay.

    quality_gain: by baseline, Q at its cost less its quality. cost_share: by baseline, the least
    cost at which Q reaches its quality over its cost; NaN where it never does.
    auc, auc_log: mean of Q between the cheapest and the dearest arm, linear and in log cost.
    """

    label: str
    auc: float
    auc_log: float
    quality_gain: dict[str, float]
    cost_share: dict[str, float]


def equal_rows(passed: Sequence[Passed], data: Labelled) -> list[EqualRow]:
    """Entrants by falling AUC, below them the zero router, that mixes single arms in hindsight."""
    steady = [each for each in passed if each.scenario == "steady"]
    largest = max(each.worth for each in steady)
    some = [each for each in steady if each.worth == largest]
    beside = {
        name: tuple(float(np.mean([run.means[name][i] for run in some])) for i in (2, 1))
        for name in AGAINST
    }
    cost, quality = np.nanmean(data.cost, axis=0), np.nanmean(data.quality, axis=0)
    cheapest = int(np.lexsort((-quality, cost))[0])
    low, high, floor = float(cost[cheapest]), float(cost.max()), float(quality[cheapest])
    rows = []
    for label in dict.fromkeys(each.label for each in steady):
        runs = [each for each in steady if each.label == label]
        points = np.array(
            [
                [
                    np.mean([run.means["policy"][i] for run in runs if run.worth == worth])
                    for i in (2, 1)
                ]
                for worth in sorted({run.worth for run in runs})
            ]
        )
        rows.append(_row(label, hull(points[:, 0], points[:, 1], low, floor), low, high, beside))
    rows.sort(key=lambda row: -row.auc)
    return [*rows, _row("(zero router)", hull(cost, quality, low, floor), low, high, beside)]


def _row(
    label: str, curve: Hull, low: float, high: float, beside: dict[str, tuple[float, ...]]
) -> EqualRow:
    return EqualRow(
        label=label,
        auc=auc_linear(curve, low, high),
        auc_log=auc_log(curve, low, high),
        quality_gain={
            name: float(curve.at(usd)) - quality for name, (usd, quality) in beside.items()
        },
        cost_share={
            name: curve.cost_of(quality) / usd if usd > 0.0 else math.nan
            for name, (usd, quality) in beside.items()
        },
    )
