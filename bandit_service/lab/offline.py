"""The offline split: routers fitted on a part of the recording, evaluated on the rest.

Every router sees every outcome of the training part (`seen` counts them), so it is an upper
reference for a bandit, which sees one outcome of each query.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np

from bandit_service.lab.bench import Bench, CurvePoint, OfflineRow
from bandit_service.lab.data import Labelled, split
from bandit_service.lab.routers import OfflineRouter, trace

__all__ = [
    "NUMBERS",
    "CurvePoint",
    "OfflineRow",
    "OfflineSummary",
    "Spread",
    "UpdateRow",
    "curve_points",
    "evaluate_offline",
    "parts",
    "salt_of",
    "spread",
    "summarise",
    "update_times",
]

SALT = "dev-eval"
# Called before each fit with the number of fits done, their total, and what is fitted next.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation over n seeds, those without a value left out.

    sd: with n − 1, NaN for n < 2. mean: NaN for n = 0.
    """

    mean: float
    sd: float
    n: int


@dataclass(frozen=True, slots=True)
class OfflineSummary:
    """A router over all seeds: every number of `OfflineRow` by its name."""

    router: str
    seeds: tuple[int, ...]
    numbers: Mapping[str, Spread]


@dataclass(frozen=True, slots=True)
class UpdateRow:
    """The cost and the effect of learning more of the training part.

    share: of the training part that is known so far. added: new queries. incremental: whether only
    they were learned, or everything was fitted again. seconds: wall time of that.
    """

    router: str
    seed: int
    share: float
    added: int
    incremental: bool
    seconds: float
    auc_linear: float
    log_wtp_auc: float


def salt_of(seed: int) -> str:
    """The salt of the split: "dev-eval" for seed 0, else "dev-eval-{seed}"."""
    return SALT if seed == 0 else f"{SALT}-{seed}"


def evaluate_offline(
    data: Labelled,
    routers: Mapping[str, OfflineRouter],
    *,
    share: float = 0.7,
    seeds: Sequence[int] = (0,),
    bootstrap: int = 200,
    progress: Progress | None = None,
) -> list[OfflineRow]:
    """Every router on every split, in the order of `seeds` and then of `routers`.

    share: of the queries that train, in (0, 1), by hash (see `split`). seeds: of the split and of
    whatever a router draws. bootstrap: resamples of the test queries, 0 for no intervals; all
    routers of a split are resampled alike. Deterministic but for the wall seconds.

    ValueError for no seed, a bad share, or a part without a query.
    """
    _check(data, share, seeds)
    rows, done = [], 0
    for seed in seeds:
        train, test = parts(data, share, seed)
        bench = Bench.of(train, test, seed, bootstrap)
        for name, router in routers.items():
            if progress is not None:
                progress(done, len(seeds) * len(routers), f"{name}, seed {seed}")
            began = time.perf_counter()
            fitted = router.fit(train, seed)
            ready = time.perf_counter()
            traced = trace(fitted, test)
            ended = time.perf_counter()
            rows.append(bench.row(name, traced, fitted.seen, ready - began, ended - ready))
            done += 1
    return rows


def parts(data: Labelled, share: float, seed: int) -> tuple[Labelled, Labelled]:
    """The training and the test part; ValueError if one of them has no query."""
    train, test = split(data, share, salt_of(seed))
    if not len(train) or not len(test):
        raise ValueError(
            f"data: {len(data)} queries at share {share:g} and seed {seed} leave "
            f"{len(train)} to train and {len(test)} to test"
        )
    return train, test


def curve_points(rows: Iterable[OfflineRow]) -> list[CurvePoint]:
    """The points of all rows, in order."""
    return [point for row in rows for point in row.points]


_LABELS = ("router", "seed", "axis", "points")
NUMBERS = tuple(f.name for f in fields(OfflineRow) if f.name not in _LABELS)


def summarise(rows: Sequence[OfflineRow]) -> list[OfflineSummary]:
    """Mean and standard deviation over seeds of every number, by router in order of appearance."""
    found: dict[str, list[OfflineRow]] = {}
    for row in rows:
        found.setdefault(row.router, []).append(row)
    return [
        OfflineSummary(
            router,
            tuple(row.seed for row in its),
            {name: spread(getattr(row, name) for row in its) for name in NUMBERS},
        )
        for router, its in found.items()
    ]


def spread(values: Iterable[float]) -> Spread:
    """Mean and standard deviation, NaN values left out.

    >>> spread([1.0, 3.0, float("nan")])
    Spread(mean=2.0, sd=1.414..., n=2)
    """
    known = [value for value in values if not math.isnan(value)]
    n = len(known)
    mean = float(np.mean(known)) if n else math.nan
    return Spread(mean, float(np.std(known, ddof=1)) if n > 1 else math.nan, n)


def update_times(
    data: Labelled,
    routers: Mapping[str, OfflineRouter],
    shares: Sequence[float] = (0.70, 0.85, 1.00),
    *,
    share: float = 0.7,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[UpdateRow]:
    """Eagle's table 3: the fit on the first share of the training part, then updates with the rest.

    shares: rising, in (0, 1], of the training part in the order of a hash; the test part is that
    of `evaluate_offline`. A router whose predictor has `update` is given the new queries alone,
    any other is fitted again on all so far, as in the paper. arXiv 2409.15518v2, section 3.
    """
    _check(data, share, (seed,))
    if not shares or list(shares) != sorted(set(shares)) or not 0 < shares[0] <= shares[-1] <= 1:
        raise ValueError(f"shares: must rise within (0, 1], got {tuple(shares)!r}")
    train, test = parts(data, share, seed)
    stages = [split(train, part, f"update-{seed}")[0] for part in shares]
    news = [stages[0], *(_less(new, old) for old, new in pairwise(stages))]
    if not all(len(new) for new in news):
        raise ValueError(f"shares: {tuple(shares)!r} of {len(train)} queries add none at one step")
    bench = Bench.of(train, test, seed, 0)
    rows = []
    for done, (name, router) in enumerate(routers.items()):
        if progress is not None:
            progress(done, len(routers), name)
        fitted: Any = None
        for part, known, new in zip(shares, stages, news, strict=True):
            incremental = fitted is not None and hasattr(fitted, "update")
            began = time.perf_counter()
            fitted = fitted.update(new, seed) if incremental else router.fit(known, seed)
            seconds = time.perf_counter() - began
            row = bench.row(name, trace(fitted, test), fitted.seen, seconds, 0.0)
            rows.append(
                UpdateRow(
                    name,
                    seed,
                    part,
                    len(new),
                    incremental,
                    seconds,
                    row.auc_linear,
                    row.log_wtp_auc,
                )
            )
    return rows


def _less(new: Labelled, old: Labelled) -> Labelled:
    known = set(old.recorded.ids)
    return new.take(np.array([i for i, id in enumerate(new.recorded.ids) if id not in known], int))


def _check(data: Labelled, share: float, seeds: Sequence[int]) -> None:
    if not seeds:
        raise ValueError("seeds: must name at least one")
    if not 0.0 < share < 1.0:
        raise ValueError(f"share: must be between 0 and 1, got {share!r}")
    if not len(data):
        raise ValueError("data: has no query")
