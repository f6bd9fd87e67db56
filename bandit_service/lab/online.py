"""The online protocols: policies × seeds × prices of quality, each run a pass over the stream.

A run is one call of `simulate`, in a process of its own pool, with one thread for BLAS. The result
is small: means, and sums at some two hundred steps, from which the curves are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import policies
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.core.prior import STRENGTH
from bandit_service.data.recall import Recall
from bandit_service.lab.change import SCENARIOS, SILENT, phases_of
from bandit_service.lab.data import Labelled
from bandit_service.lab.processes import in_processes
from bandit_service.offline.simulate import Feedback, Run, Warm, simulate, stream
from bandit_service.runtime.detectors import DriftWatch
from policies import Floats

_CHECKPOINTS = 200
UNREACTING = ", no reaction"
_BASELINES = ("uniform", "best", "oracle")


@dataclass(frozen=True, slots=True)
class Entrant:
    """An entrant: a policy with its `label` in the tables, its parameters, and its feedback.

    warm: learn the warm part with full information first. feedback: as in `simulate`. reacts:
    where the world changes, to drift as the service does by default, or by its own alarm.
    """

    label: str
    policy: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    feedback: Feedback = "bandit"
    warm: bool = False
    reacts: bool = True


@dataclass(frozen=True, slots=True)
class Protocol:
    """What all runs have in common.

    worths:     willingness to pay, USD per unit of quality; every entrant runs at each.
    scenarios:  names of `change.SCENARIOS`; "steady" is the world that does not change.
    pairs:     comparisons per query that warm entrants are shown if they learn from duels only;
               the others are shown every outcome.
    warm_strength: as at most how many outcomes of each arm a warm start counts; None for each
               as one.
    """

    seeds: int = 20
    worths: tuple[float, ...] = (0.10,)
    scenarios: tuple[str, ...] = ("steady",)
    explore: Exploration = field(default_factory=Exploration)
    neighbours: int = 20
    capacity: int = 20_000
    pairs: int = 1
    warm_strength: float | None = STRENGTH


@dataclass(frozen=True, slots=True)
class Passed:
    """The summary of one run.

    steps: (m,) numbers of queries at which the sums stand. rewards: (m,) the sum of rewards so
    far; beside: the same of each baseline. means: reward, quality, cost of the policy and of each
    baseline. latency: mean seconds of the drawn arms, NaN where none is recorded. overlap: of the
    policies that always choose one arm, the median effective number of queries that tell of it.
    """

    label: str
    seed: int
    worth: float
    scenario: str
    queries: int
    outcomes: int
    steps: Floats
    rewards: Floats
    beside: dict[str, Floats]
    means: dict[str, tuple[float, float, float]]
    last_third: float
    best_arm: str
    fallbacks: int
    failures: int
    latency: float = math.nan
    reacts: bool = True
    overlap: float = math.nan


def run_online(
    data: Labelled,
    entrants: Sequence[Entrant],
    protocol: Protocol,
    *,
    warm: Labelled | None = None,
    jobs: int = 1,
) -> Iterator[Passed]:
    """Every entrant in every scenario at every worth with every seed, in any order.

    `jobs` processes; 1 runs here. Where an arm joins or leaves, queries that only one arm answered
    are left out of all scenarios.
    """
    for scenario in protocol.scenarios:
        if scenario not in SCENARIOS:
            raise ValueError(
                f"scenario: unknown value {scenario!r}; expected one of {', '.join(SCENARIOS)}"
            )
    if set(protocol.scenarios) - {"steady"}:
        data = data.take(np.flatnonzero((~np.isnan(data.quality)).sum(axis=1) > 1))
    tasks = tasks_of(entrants, protocol)
    # A protocol with more seeds, worths or scenarios finds the stored results of a run again.
    alike = replace(protocol, seeds=0, worths=(), scenarios=())
    yield from in_processes(_begin, (data, warm, alike), _pass, tasks, jobs)


def tasks_of(
    entrants: Sequence[Entrant], protocol: Protocol
) -> list[tuple[Entrant, int, float, str]]:
    """Entrant, seed, worth and scenario of every run.

    Seeds are the outer loop, so that a process can reuse the recall of its last run.
    """
    return [
        (one, seed, worth, scenario)
        for seed in range(protocol.seeds)
        for scenario in protocol.scenarios
        for worth in protocol.worths
        for entrant in entrants
        for one in (both_ways(entrant) if scenario in SILENT else [entrant])
    ]


def both_ways(entrant: Entrant) -> list[Entrant]:
    """The entrant, and, if it reacts to drift, the same entrant without reactions."""
    if not isinstance(policies.load(entrant.policy, **entrant.parameters), policies.Forgetful):
        return [entrant]
    return [entrant, replace(entrant, label=f"{entrant.label}{UNREACTING}", reacts=False)]


@dataclass(frozen=True, slots=True)
class _Here:
    """What the tasks of this process share."""

    data: Labelled
    warm: Labelled | None
    protocol: Protocol


_here: list[_Here] = []


def _begin(data: Labelled, warm: Labelled | None, protocol: Protocol) -> None:
    _here[:] = [_Here(data, warm, protocol)]
    _recall.cache_clear()


@lru_cache(maxsize=4)
def _recall(seed: int, warm: bool) -> Recall:
    here = _here[0]
    return stream(
        here.data.recorded,
        here.data.embeddings,
        seed=seed,
        neighbours=here.protocol.neighbours,
        capacity=here.protocol.capacity,
        warm=_warm(here, 0) if warm else None,
    )


def _warm(here: _Here, pairs: int) -> Warm:
    assert here.warm is not None
    strength = here.protocol.warm_strength
    return Warm(here.warm.recorded, here.warm.embeddings, pairs, strength)


def _pass(entrant: Entrant, seed: int, worth: float, scenario: str) -> Passed:
    here = _here[0]
    recorded, protocol = here.data.recorded, here.protocol
    rule = RewardRule(worth)
    policy, react = policies.load(entrant.policy, **entrant.parameters), None
    if scenario != "steady":
        if entrant.reacts:
            react = DriftWatch().happened
        elif isinstance(policy, policies.Watchful):
            policy = policy.unwatched()
    run = simulate(
        recorded,
        here.data.embeddings,
        policy,
        seed=seed,
        explore=protocol.explore,
        rule=rule,
        neighbours=protocol.neighbours,
        capacity=protocol.capacity,
        feedback=entrant.feedback,
        warm=_warm(here, protocol.pairs if entrant.feedback == "duel" else 0)
        if entrant.warm
        else None,
        phases=phases_of(scenario, recorded, rule),
        recall=_recall(seed, entrant.warm),
        react=react,
    )
    waited = math.nan
    if recorded.latency is not None:
        waited = float(np.nanmean(recorded.latency[run.order, run.arm]))
    return _summed(entrant, worth, scenario, run, waited, len(recorded.arms))


def _summed(
    entrant: Entrant, worth: float, scenario: str, run: Run, latency: float, arms: int
) -> Passed:
    n = len(run.order)
    steps = np.unique(np.linspace(1, n, min(n, _CHECKPOINTS)).round().astype(np.int64))
    tracks = {"policy": run.track} | {name: getattr(run.baselines, name) for name in _BASELINES}
    sums = {name: np.cumsum(track.reward)[steps - 1] for name, track in tracks.items()}
    return Passed(
        label=entrant.label,
        seed=run.seed,
        worth=worth,
        scenario=scenario,
        queries=n,
        outcomes=run.outcomes,
        steps=steps.astype(np.float64),
        rewards=sums["policy"],
        beside={name: sums[name] for name in _BASELINES},
        means={
            name: (
                float(track.reward.mean()),
                float(track.quality.mean()),
                float(track.cost.mean()),
            )
            for name, track in tracks.items()
        },
        last_third=float(run.track.reward[n - max(1, n // 3) :].mean()),
        best_arm=run.baselines.best_arm,
        fallbacks=run.fallbacks,
        failures=run.failures,
        latency=latency,
        reacts=entrant.reacts,
        overlap=overlap(run.arm, run.chance, arms),
    )


def overlap(arm: NDArray[np.int64], chance: Floats, arms: int) -> float:
    """The median over arms of (Σw)²/Σw², w = 1/chance where it was drawn: how many queries an
    importance-weighted estimate of "always this arm" rests on.

    >>> overlap(np.array([0, 0, 1, 1]), np.array([0.5, 0.5, 0.5, 0.1]), 2)
    1.69...
    """
    found = []
    for k in range(arms):
        w = 1.0 / chance[arm == k]
        found.append(float(w.sum() ** 2 / (w @ w)) if w.size else 0.0)
    return float(np.median(found))
