"""Each policy alone: what it takes to propose, and to learn one outcome."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

import policies
from bandit_service.core.history import History
from loadtest.bench.world import ARMS, DIM, NEIGHBOURS, Row, percentiles, quiet_gc, specs, vectors
from policies import Arms, Context, Outcome, Rewarded, Vector

_TAUGHT, _TIMED = 2000, 1000
_FEWER = {"directions": 64}


def bench_policies() -> list[Row]:
    """p50 and p99 of `propose` and `learn` after 2,000 outcomes, 11 arms, 384 dimensions."""
    rows: list[Row] = []
    settings: list[tuple[str, dict[str, int]]] = [(name, {}) for name in policies.names()]
    settings.append(("metallm", _FEWER))
    for name, parameters in tqdm(settings, desc="policies", disable=None, leave=False):
        proposed, learned = _timed(name, parameters)
        row: Row = {"policy": _label(name, parameters)}
        for what, seconds in (("propose", proposed), ("learn", learned)):
            row |= {f"{what} {k} us": v for k, v in percentiles(seconds).items()}
        rows.append(row)
    base = next(row for row in rows if row["policy"] == "metallm")
    for row in rows:
        row["propose x metallm"] = row["propose p50 us"] / base["propose p50 us"]
        row["learn x metallm"] = row["learn p50 us"] / base["learn p50 us"]
    return rows


def bench_linear() -> list[Row]:
    """The same medians of the linear policies and the default, by arms and dimensions."""
    rows: list[Row] = []
    sizes = [(arms, DIM) for arms in (2, ARMS, 50)] + [(ARMS, dim) for dim in (64, 768)]
    settings: list[tuple[str, dict[str, int]]] = [
        ("metallm", {}),
        ("metallm", _FEWER),
        ("nested", {}),
    ]
    every = [(one, size) for one in settings for size in sizes]
    for (name, parameters), (arms, dim) in tqdm(every, desc="arms", disable=None, leave=False):
        if parameters.get("directions", 0) > dim:
            continue
        proposed, learned = _timed(name, parameters, arms, dim)
        rows.append(
            {
                "policy": _label(name, parameters),
                "arms": arms,
                "dimensions": dim,
                "propose p50 us": percentiles(proposed)["p50"],
                "us an arm": percentiles(proposed)["p50"] / arms,
                "learn p50 us": percentiles(learned)["p50"],
            }
        )
    return rows


def _label(name: str, parameters: dict[str, int]) -> str:
    return name + "".join(f":{key}={value}" for key, value in parameters.items())


def _timed(
    name: str, parameters: dict[str, int], n: int = ARMS, dim: int = DIM
) -> tuple[Sequence[float], Sequence[float]]:
    """Seconds of each proposal, and of each outcome learned, of a policy that has a past."""
    pool = specs(n)
    ids = tuple(spec.id for spec in pool)
    prices = np.array([spec.usd_per_mtok_in for spec in pool])
    arms = Arms(ids, prices * 500e-6, prices)
    surfaces = np.random.default_rng(5).normal(0.0, 0.2, (_TAUGHT + _TIMED, 19)).astype(np.float32)
    asked, past = vectors(_TAUGHT + _TIMED, seed=2, dim=dim), _past(NEIGHBOURS, dim)
    policy = policies.load(name, **parameters)
    state, rng = policy.init(), np.random.default_rng(4)
    proposed, learned = [], []
    with quiet_gc():
        for i, vector in enumerate(asked):
            context = Context(vector, 25, 0.1, past, surfaces[i])
            t0 = time.perf_counter()
            proposal = policy.propose(state, context, arms)
            t1 = time.perf_counter()
            p = 0.98 * proposal.propensities + 0.02 / n
            arm = int(rng.choice(n, p=p / p.sum()))
            quality = float(rng.random() < 0.4 + 0.4 * arm / n)
            event = Rewarded(
                context,
                ids[arm],
                float(p[arm]),
                1.0,
                float(arms.cost_usd[arm]),
                quality=quality,
                cost_usd=float(arms.cost_usd[arm]),
                reward=quality - 0.01,
            )
            t2 = time.perf_counter()
            state = policy.learn(state, event)
            t3 = time.perf_counter()
            if i >= _TAUGHT:
                proposed.append(t1 - t0)
                learned.append(t3 - t2)
    return proposed, learned


def _past(n: int, dim: int) -> tuple[policies.Neighbour, ...]:
    """So many neighbours with an outcome each, for policies that look at these."""
    history = History(n)
    some: Vector = vectors(n, seed=6, dim=dim)
    for i in range(n):
        history.remember(some[i], Outcome(specs()[i % ARMS].id, float(i % 2), float(i % 2)))
    return history.neighbours(list(history.items), np.linspace(0.9, 0.5, n).tolist())
