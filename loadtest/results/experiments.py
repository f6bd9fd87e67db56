"""The papers' own experiments on one recording, beyond the protocols of `evaluate`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import Recorded
from bandit_service.lab import assign, reports
from bandit_service.lab.convergence import ConvergedRow, converge
from bandit_service.lab.data import Labelled
from bandit_service.lab.faithful import FAITHFUL
from bandit_service.lab.offline import parts
from bandit_service.lab.online import Entrant, Protocol
from bandit_service.lab.pairs import PairRow, Pairs, evaluate_pairs
from bandit_service.lab.routers import FORC
from bandit_service.lab.routers._sweep import Priced
from bandit_service.lab.routers.forc import estimated_cost
from loadtest.results.found import AssignedRow, MetaLLMRow, Single
from policies import Floats, Vector

PRICES = (0.0, 0.001, 0.01, 0.1)
RATES = (0.01, 0.05, 0.1, 0.5)
BUDGETS = (0.1, 0.25, 0.5)
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


def votes(pairs: Pairs, embeddings: Vector, seeds: int) -> list[PairRow]:
    """Every vote predicted before it is learned, in several orders."""
    return [row for seed in range(seeds) for row in evaluate_pairs(pairs, embeddings, seed)]


def assigned(data: Labelled) -> list[AssignedRow]:
    """FORC's strategies for the test part as one batch, under budgets of the best single's bill.

    Predictions are those of FORC's per-arm head fitted on the training part.
    """
    train, test = parts(data, SHARE, 0)
    answered = ~np.isnan(test.quality)
    predictor = FORC().fit(train, 0)
    assert isinstance(predictor, Priced)
    quality = np.where(answered, predictor.quality(test), np.nan)
    cost = estimated_cost(train, test)
    best = int(np.argmax(np.nanmean(train.quality, axis=0)))
    bill = float(np.nansum(test.cost[:, best]))
    rows = []
    for share in BUDGETS:
        budget = share * bill
        strategies: dict[str, Callable[[float], assign.Choice]] = {
            "best single until spent": partial(_single, quality, cost, best),
            "greedy": partial(assign.greedy, quality, cost),
            "integer program": lambda usd: assign.milp(quality, cost, budget=usd, gap=1e-4),
            "price of money": lambda usd: assign.lagrangian(quality, cost, usd).choice,
        }
        for name, strategy in strategies.items():
            began = time.perf_counter()
            choice = strategy(budget)
            seconds = time.perf_counter() - began
            rows.append(_row(name, share, choice, quality, test, bill, seconds))
    threshold = assign.threshold(quality, cost, fallback="biggest")
    rows.append(_row("threshold ½, no budget", math.nan, threshold, quality, test, bill, math.nan))
    return rows


def _single(quality: Floats, cost: Floats, arm: int, budget: float) -> assign.Choice:
    choice = assign.single(quality, cost, arm)
    paid = np.where(choice == assign.UNANSWERED, 0.0, cost[:, arm])
    return np.where(np.cumsum(paid) <= budget, choice, assign.UNANSWERED)


def _row(
    name: str,
    share: float,
    choice: assign.Choice,
    expected: Floats,
    test: Labelled,
    bill: float,
    seconds: float,
) -> AssignedRow:
    n = len(test)
    there = np.flatnonzero(choice != assign.UNANSWERED)
    at = there, choice[there]
    return AssignedRow(
        strategy=name,
        budget=share,
        spent=float(test.cost[at].sum()) / bill,
        expected=float(expected[at].sum()) / n,
        quality=float(test.quality[at].sum()) / n,
        answered=len(there) / n,
        seconds=seconds,
    )
