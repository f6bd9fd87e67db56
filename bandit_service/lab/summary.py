"""Summaries of the runs of the online protocols, with intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bandit_service.lab.online import UNREACTING, Passed
from policies import Floats

BASELINES = ("uniform", "best", "oracle")
NEAR = 0.02
WINDOW = 100


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over n seeds with the half-width of its 95 % t-interval, NaN for one seed."""

    mean: float
    half: float
    n: int


@dataclass(frozen=True, slots=True)
class OnlineRow:
    """One entrant, or one baseline, at one willingness to pay, over all seeds.

    outcomes: mean number of outcomes or comparisons that it was shown. overlap: as in `Passed`.
    """

    label: str
    worth: float
    reward: Interval
    last_third: float
    quality: float
    usd_per_1000: float
    regret_best: Interval | None
    regret_oracle: Interval | None
    outcomes: float
    fallbacks: int = 0
    failures: int = 0
    latency_s: float = math.nan
    overlap: float = math.nan


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """One entrant in one scenario, over all seeds.

    before: mean reward less the best single arm's in the first half. first, rest: the same in the
    first 200 queries after the change and from there on, the best single arm being that of the
    new world. recovered: queries from the change until the mean over a window of 100 first comes
    within `NEAR` of the new best single arm's; None if it never does. after: queries after the
    change; fewer than a window are too few to tell. soon, last: mean reward in the quarter after
    the change and in the last quarter; soon_gain, last_gain: less that of the same entrant without
    reactions to drift, by seed, where it ran without.
    """

    label: str
    scenario: str
    before: Interval
    first: Interval
    rest: Interval
    recovered: int | None
    after: int
    soon: Interval
    last: Interval
    soon_gain: Interval | None = None
    last_gain: Interval | None = None


def interval(values: Iterable[float]) -> Interval:
    """Mean and half-width t·s/√n of the 95 % interval.

    >>> interval([1.0, 2.0, 3.0])
    Interval(mean=2.0, half=2.484..., n=3)
    """
    found = np.array(list(values), np.float64)
    n = found.size
    if n < 2:
        return Interval(float(found.mean()), math.nan, n)
    half = float(stats.t.ppf(0.975, n - 1) * found.std(ddof=1) / math.sqrt(n))
    return Interval(float(found.mean()), half, n)


def online_rows(passed: Sequence[Passed]) -> list[OnlineRow]:
    """Entrants by falling reward, then uniform, best single and oracle; steady world only."""
    rows: list[OnlineRow] = []
    steady = [each for each in passed if each.scenario == "steady"]
    for worth in sorted({each.worth for each in steady}, reverse=True):
        here = [each for each in steady if each.worth == worth]
        found = [_row(label, worth, runs) for label, runs in _grouped(here)]
        found.sort(key=lambda row: -row.reward.mean)
        some = _grouped(here)[0][1]
        rows += [*found, *(_baseline(name, worth, some) for name in BASELINES)]
    return rows


@dataclass(frozen=True, slots=True)
class FloorRow:
    """One entrant at two floors: its mean reward, and the second less the first, seed by seed."""

    label: str
    before: Interval
    after: Interval
    gain: Interval


def floor_rows(before: Sequence[Passed], after: Sequence[Passed]) -> list[FloorRow]:
    """Entrants by falling reward at the second floor; the runs must have the same seeds."""
    first = {label: [run.means["policy"][0] for run in runs] for label, runs in _grouped(before)}
    rows = []
    for label, runs in _grouped(after):
        then, now = first[label], [run.means["policy"][0] for run in runs]
        gain = interval(b - a for a, b in zip(then, now, strict=True))
        rows.append(FloorRow(label, interval(then), interval(now), gain))
    return sorted(rows, key=lambda row: -row.after.mean)


def change_rows(passed: Sequence[Passed]) -> list[ChangeRow]:
    """Every entrant in every scenario that changes, by what it lost after the change."""
    rows = []
    scenarios = dict.fromkeys(each.scenario for each in passed if each.scenario != "steady")
    for scenario in scenarios:
        here = [each for each in passed if each.scenario == scenario]
        grouped = dict(_grouped(here))
        found = [
            _changed(label, scenario, runs, grouped.get(f"{label}{UNREACTING}"))
            for label, runs in grouped.items()
        ]
        rows += sorted(found, key=lambda row: -row.first.mean)
    return rows


def _grouped(passed: Sequence[Passed]) -> list[tuple[str, list[Passed]]]:
    labels = dict.fromkeys(each.label for each in passed)
    return [
        (label, sorted((p for p in passed if p.label == label), key=lambda p: p.seed))
        for label in labels
    ]


def _row(label: str, worth: float, runs: Sequence[Passed]) -> OnlineRow:
    return OnlineRow(
        label=label,
        worth=worth,
        reward=interval(run.means["policy"][0] for run in runs),
        last_third=_mean(run.last_third for run in runs),
        quality=_mean(run.means["policy"][1] for run in runs),
        usd_per_1000=1000.0 * _mean(run.means["policy"][2] for run in runs),
        regret_best=interval(float(run.beside["best"][-1] - run.rewards[-1]) for run in runs),
        regret_oracle=interval(float(run.beside["oracle"][-1] - run.rewards[-1]) for run in runs),
        outcomes=_mean(run.outcomes for run in runs),
        fallbacks=sum(run.fallbacks for run in runs),
        failures=sum(run.failures for run in runs),
        latency_s=_mean(run.latency for run in runs),
        overlap=_mean(run.overlap for run in runs),
    )


def _baseline(name: str, worth: float, runs: Sequence[Passed]) -> OnlineRow:
    label = f"(best single: {runs[0].best_arm})" if name == "best" else f"({name})"
    reward, quality, cost = (_mean(run.means[name][i] for run in runs) for i in range(3))
    return OnlineRow(
        label=label,
        worth=worth,
        reward=Interval(reward, math.nan, len(runs)),
        last_third=_mean(_per_query(run, run.beside[name], 2 / 3, 1.0) for run in runs),
        quality=quality,
        usd_per_1000=1000.0 * cost,
        regret_best=None,
        regret_oracle=None,
        outcomes=math.nan,
    )


def _changed(
    label: str, scenario: str, runs: Sequence[Passed], without: Sequence[Passed] | None
) -> ChangeRow:
    n = runs[0].queries
    each = max(
        1, n
    )  # without any query, for example if the only model is missing, there is no mean
    at, soon = (n // 2) / each, min(1.0, (n // 2 + 200) / each)

    def gap(low: float, high: float) -> Callable[[Passed], float]:
        return lambda run: _per_query(run, run.rewards - run.beside["best"], low, high)

    def earned(low: float, high: float) -> tuple[Interval, Interval | None]:
        values = [_per_query(run, run.rewards, low, high) for run in runs]
        if without is None:
            return interval(values), None
        others = [_per_query(run, run.rewards, low, high) for run in without]
        return interval(values), interval(a - b for a, b in zip(values, others, strict=True))

    soon_earned, soon_gain = earned(at, 0.75)
    last_earned, last_gain = earned(0.75, 1.0)
    return ChangeRow(
        label=label,
        scenario=scenario,
        before=interval(map(gap(0.0, at), runs)),
        first=interval(map(gap(at, soon), runs)),
        rest=interval(map(gap(soon, 1.0), runs)),
        recovered=_recovered(runs, n),
        after=n - n // 2,
        soon=soon_earned,
        last=last_earned,
        soon_gain=soon_gain,
        last_gain=last_gain,
    )


def _recovered(runs: Sequence[Passed], n: int) -> int | None:
    start = n // 2
    ahead = np.mean([run.rewards - run.beside["best"] for run in runs], axis=0)
    for end in range(start + WINDOW, n + 1, 10):
        before, after = np.interp([end - WINDOW, end], runs[0].steps, ahead)
        if (after - before) / WINDOW >= -NEAR:
            return end - start - WINDOW
    return None


def _per_query(run: Passed, sums: Floats, low: float, high: float) -> float:
    """The mean between two shares of the run, from sums at its checkpoints; NaN for none."""
    if high <= low or not run.queries:
        return math.nan
    ends = np.array([low, high]) * run.queries
    steps, values = np.append(0.0, run.steps), np.append(0.0, sums)
    first, last = np.interp(ends, steps, values)
    return float((last - first) / (ends[1] - ends[0]))


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
