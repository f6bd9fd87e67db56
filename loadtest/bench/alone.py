"""Each policy alone: what it takes to propose, and to learn one outcome."""

from __future__ import annotations

import time

import numpy as np
from tqdm import tqdm

import policies
from bandit_service.core.history import History
from loadtest.bench.world import ARMS, NEIGHBOURS, Row, percentiles, quiet_gc, specs, vectors
from policies import Arms, Context, Outcome, Rewarded, Vector

_TAUGHT, _TIMED = 2000, 1000


def bench_policies() -> list[Row]:
    """p50 and p99 of `propose` and `learn` after 2,000 outcomes, 11 arms, 384 dimensions."""
    rows: list[Row] = []
    ids = tuple(spec.id for spec in specs())
    prices = np.array([spec.usd_per_mtok_in for spec in specs()])
    arms = Arms(ids, prices * 500e-6, prices)
    surfaces = np.random.default_rng(5).normal(0.0, 0.2, (_TAUGHT + _TIMED, 19)).astype(np.float32)
    asked, past = vectors(_TAUGHT + _TIMED, seed=2), _past(NEIGHBOURS)
    settings: list[tuple[str, dict[str, int]]] = [(name, {}) for name in policies.names()]
    settings.append(("metallm", {"directions": 64}))
    for name, parameters in tqdm(settings, desc="policies", disable=None, leave=False):
        policy = policies.load(name, **parameters)
        state, rng = policy.init(), np.random.default_rng(4)
        proposed, learned = [], []
        with quiet_gc():
            for i, vector in enumerate(asked):
                context = Context(vector, 25, 0.1, past, surfaces[i])
                t0 = time.perf_counter()
                proposal = policy.propose(state, context, arms)
                t1 = time.perf_counter()
                p = 0.98 * proposal.propensities + 0.02 / ARMS
                arm = int(rng.choice(ARMS, p=p / p.sum()))
                quality = float(rng.random() < 0.4 + 0.04 * arm)
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
        told = "".join(f":{key}={value}" for key, value in parameters.items())
        row: Row = {"policy": f"{name}{told}"}
        for what, seconds in (("propose", proposed), ("learn", learned)):
            row |= {f"{what} {k} us": v for k, v in percentiles(seconds).items()}
        rows.append(row)
    base = next(row for row in rows if row["policy"] == "metallm")
    for row in rows:
        row["propose x metallm"] = row["propose p50 us"] / base["propose p50 us"]
        row["learn x metallm"] = row["learn p50 us"] / base["learn p50 us"]
    return rows


def _past(n: int) -> tuple[policies.Neighbour, ...]:
    """So many neighbours with an outcome each, for policies that look at these."""
    history = History(n)
    some: Vector = vectors(n, seed=6)
    for i in range(n):
        history.remember(some[i], Outcome(specs()[i % ARMS].id, float(i % 2), float(i % 2)))
    return history.neighbours(list(history.items), np.linspace(0.9, 0.5, n).tolist())
