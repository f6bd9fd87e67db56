"""What counting an experiment's outcomes and asking for its results cost, in CPU time."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import msgspec
import numpy as np

from bandit_service.core.experiments.results import results
from bandit_service.core.experiments.spec import Experiment, Guardrail, Metric, Variant
from loadtest.coverage.played import Played

_SIZES = ((2, 0, 1_000), (2, 0, 20_000), (20, 8, 1_000), (20, 8, 20_000))


def bench_results() -> list[dict[str, Any]]:
    """Rows by variants and metrics; each twice: only points and buckets grow, with log(units)."""
    return [_row(*size) for size in _SIZES]


def _row(variants: int, metrics: int, units: int) -> dict[str, Any]:
    spec = Experiment(
        id="e",
        variants=tuple(
            Variant(key=f"v{i}", arm="small", weight=1.0 / variants) for i in range(variants)
        ),
        metrics=tuple(Metric(name=f"m{i}") for i in range(metrics)),
        guardrails=(Guardrail(metric="quality", max_regression=0.5),),
    )
    played, rng = Played(spec), np.random.default_rng(1)
    names, values = spec.names(), 0
    begun = time.process_time()
    for i in range(units):
        event = played.decide(f"u{i}", f"v{int(rng.integers(variants))}")
        for name in names:
            played.value(event, float(rng.random()), name)
            values += 1
    counted = time.process_time() - begun
    asked = []
    for _ in range(9):
        begun = time.process_time()
        body = msgspec.json.encode(results(played.spec, played.trial))
        asked.append(time.process_time() - begun)
    return {
        "variants": variants,
        "metrics": len(names),
        "units": units,
        "us to count one value": 1e6 * counted / values,
        "ms for results": 1e3 * median(asked),
        "kB": len(body) / 1e3,
    }
