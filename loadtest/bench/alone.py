"""Each policy alone: what it takes to propose, and to learn one outcome."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

import policies
from bandit_service.core.history import History
from loadtest.bench.world import ARMS, DIM, NEIGHBOURS, Row, percentiles, quiet_gc, specs, vectors
from policies import ArmId, Arms, Context, Contexts, Floats, Outcome, Policy, Rewarded, Vector
from policies._linear import RidgeStack
from policies._quadratic import Narrow

_TAUGHT, _TIMED, _TURN = 2000, 1000, 50
_TOGETHER, _TOGETHER_TURN = 32, 4
_FEWER = {"directions": 64}


def bench_policies() -> list[Row]:
    """p50 and p99 of `propose` and `learn` after 2,000 outcomes, 11 arms, 384 dimensions."""
    rows: list[Row] = []
    settings: list[tuple[str, dict[str, int]]] = [(name, {}) for name in policies.names()]
    settings.append(("metallm", _FEWER))
    for name, parameters in tqdm(settings, desc="policies", disable=None, leave=False):
        policy = policies.load(name, **parameters)
        run = _Run(policy, policy.init(), _World())
        _by_turns([run])
        row: Row = {"policy": _label(name, parameters)}
        for what, seconds in (("propose", run.proposed), ("learn", run.learned)):
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
        world, label = _World(arms, dim), _label(name, parameters)
        policy = policies.load(name, **parameters)
        runs = {label: _Run(policy, policy.init(), world)}
        if name == "metallm" and not parameters:
            runs |= {f"{label}, whole inverses (baseline)": _Run(policy, _Whole(), world)}
        _by_turns(list(runs.values()))
        _ask_by_turns(list(runs.values()))
        for told, run in runs.items():
            proposed, row = percentiles(run.proposed)["p50"], dict[str, Any]()
            row |= {"policy": told, "arms": arms, "dimensions": dim, "propose p50 us": proposed}
            row |= {"us an arm": proposed / arms, "learn p50 us": percentiles(run.learned)["p50"]}
            row[f"of {_TOGETHER} together us"] = percentiles(run.together)["p50"] / _TOGETHER
            if len(runs) > 1:
                row["x metallm"] = _times(run.proposed, runs[label].proposed)
                row["together x metallm"] = _times(run.together, runs[label].together)
            rows.append(row)
    return rows


def _times(these: Sequence[float], those: Sequence[float]) -> float:
    """The median of their ratios, one by one."""
    return float(np.median(np.divide(these, those)))


def _label(name: str, parameters: dict[str, int]) -> str:
    return name + "".join(f":{key}={value}" for key, value in parameters.items())


@dataclass
class _Whole(RidgeStack):
    """Deviations from the whole inverses in float32, not from their upper halves."""

    _float32: Narrow | None = None

    def _solved(self, ridge: float) -> tuple[Any, Floats]:
        _, theta = super()._solved(ridge)
        assert self._inverse is not None
        if self._float32 is None:
            self._float32 = self._inverse.astype(np.float32)
        return self, theta

    def of(self, xs: Narrow) -> Narrow:
        """As `Quadratic.of`."""
        assert self._float32 is not None
        k, d, _ = self._float32.shape
        flat = self._float32.reshape(-1, d)
        return np.array([(flat @ x).reshape(k, d) @ x for x in xs])

    def _write(self, row: int, inverse: Floats, theta: Floats) -> None:
        super()._write(row, inverse, theta)
        if self._float32 is not None:
            self._float32[row] = inverse

    def _append(self, arm: ArmId, d: int) -> int:
        self._float32 = None
        return super()._append(arm, d)


class _World:
    """Arms, queries, and the past that each of them finds."""

    def __init__(self, n: int = ARMS, dim: int = DIM) -> None:
        pool = specs(n)
        prices = np.array([spec.usd_per_mtok_in for spec in pool])
        self.arms = Arms(tuple(spec.id for spec in pool), prices * 500e-6, prices)
        size = (_TAUGHT + _TIMED, 19)
        surfaces = np.random.default_rng(5).normal(0.0, 0.2, size).astype(np.float32)
        asked, past = vectors(_TAUGHT + _TIMED, seed=2, dim=dim), _past(NEIGHBOURS, dim)
        self.contexts = [
            Context(vector, 25, 0.1, past, surface)
            for vector, surface in zip(asked, surfaces, strict=True)
        ]


class _Run:
    """One policy: the seconds of each proposal and of each outcome learned, once it has a past."""

    def __init__(self, policy: Policy[Any], state: Any, world: _World) -> None:
        self._policy, self._state, self._world = policy, state, world
        self._rng = np.random.default_rng(4)
        self.proposed: list[float] = []
        self.learned: list[float] = []
        self.together: list[float] = []

    def step(self, i: int) -> None:
        """The i-th query, and its outcome."""
        context, arms = self._world.contexts[i], self._world.arms
        n = len(arms)
        t0 = time.perf_counter()
        proposal = self._policy.propose(self._state, context, arms)
        t1 = time.perf_counter()
        p = 0.98 * proposal.propensities + 0.02 / n
        arm = int(self._rng.choice(n, p=p / p.sum()))
        quality = float(self._rng.random() < 0.4 + 0.4 * arm / n)
        event = Rewarded(
            context,
            arms.ids[arm],
            float(p[arm]),
            1.0,
            float(arms.cost_usd[arm]),
            quality=quality,
            cost_usd=float(arms.cost_usd[arm]),
            reward=quality - 0.01,
        )
        t2 = time.perf_counter()
        self._state = self._policy.learn(self._state, event)
        t3 = time.perf_counter()
        if i >= _TAUGHT:
            self.proposed.append(t1 - t0)
            self.learned.append(t3 - t2)

    def ask(self, i: int) -> None:
        """The i-th query and those after it together; of their outcomes nothing is learned."""
        contexts = Contexts.of(self._world.contexts[i : i + _TOGETHER])
        arms = self._world.arms
        arms = replace(arms, cost_usd=np.tile(arms.cost_usd, (_TOGETHER, 1)))
        t0 = time.perf_counter()
        self._policy.propose_many(self._state, contexts, arms)  # type: ignore[attr-defined]
        self.together.append(time.perf_counter() - t0)


def _by_turns(runs: Sequence[_Run]) -> None:
    with quiet_gc():
        for start in range(0, _TAUGHT + _TIMED, _TURN):
            for run in runs:
                for i in range(start, start + _TURN):
                    run.step(i)


def _ask_by_turns(runs: Sequence[_Run]) -> None:
    with quiet_gc():
        for start in range(0, _TIMED - _TOGETHER, _TOGETHER):
            for run in runs:
                for _ in range(_TOGETHER_TURN):
                    run.ask(_TAUGHT + start)


def _past(n: int, dim: int) -> tuple[policies.Neighbour, ...]:
    """So many neighbours with an outcome each, for policies that look at these."""
    history = History(n)
    some: Vector = vectors(n, seed=6, dim=dim)
    for i in range(n):
        history.remember(some[i], Outcome(specs()[i % ARMS].id, float(i % 2), float(i % 2)))
    return history.neighbours(list(history.items), np.linspace(0.9, 0.5, n).tolist())
