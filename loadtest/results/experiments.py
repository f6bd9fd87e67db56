"""The papers' own experiments on one recording, beyond the protocols of `evaluate`."""

from __future__ import annotations

import numpy as np

from bandit_service.core.outcomes import RewardRule
from bandit_service.evaluate import reports
from bandit_service.evaluate.convergence import ConvergedRow, converge
from bandit_service.evaluate.data import Labelled
from bandit_service.evaluate.faithful import FAITHFUL
from bandit_service.evaluate.offline import parts
from bandit_service.evaluate.online import Entrant, Protocol
from bandit_service.recorded import Recorded
from loadtest.results.found import MetaLLMRow, Single

PRICES = (0.0, 0.001, 0.01, 0.1)
RATES = (0.01, 0.05, 0.1, 0.5)
SHARE = 0.7
RULE = RewardRule()


def singles(data: Labelled) -> list[Single]:
    """Every arm alone."""
    _, test = parts(data, SHARE, 0)
    columns = (
        np.nanmean(table, axis=0) for table in (data.quality, data.cost, test.quality, test.cost)
    )
    return [
        Single(arm, *(float(value) for value in values))
        for arm, *values in zip(data.arms, *columns, strict=True)
    ]


def metallm(data: Labelled, protocol: Protocol, jobs: int) -> list[MetaLLMRow]:
    """The paper's policy at each p, with 70 % known beforehand and from nothing; seeds as given."""
    train, test = parts(data, SHARE, 0)
    own = FAITHFUL["metallm"]
    entrants = [
        Entrant(
            f"p = {p:g}, {'warm + online' if warm else 'online only'}",
            "metallm",
            {**own, "cost_weight": p},
            warm=warm,
        )
        for warm in (True, False)
        for p in PRICES
    ]
    what = f"{data.recorded.name} MetaLLM"
    return [
        MetaLLMRow(run.label, run.means["policy"][1], run.means["policy"][2])
        for run in reports.runs(test, entrants, protocol, jobs, what, warm=train)
    ]


def sessions(recorded: Recorded, seeds: int) -> list[ConvergedRow]:
    """PickLLM's two learners, the automaton at several rates; none where answers are missing."""
    if np.isnan(recorded.quality).any():
        return []
    settings = [(f"L_R-I, b = {b:g}", "pickllm_gradient", {"learning_rate": b}) for b in RATES]
    settings.append(("Q, ε = 0.1", "pickllm_q", {}))
    return [
        converge(recorded, label, policy, parameters, seeds=seeds, rule=RULE)
        for label, policy, parameters in settings
    ]
