"""Entrants × seeds in a pool of processes, and what comes of them."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

import policies
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recall import Recall
from bandit_service.data.recordings import Recorded
from bandit_service.offline.simulate import simulate, stream
from bandit_service.settings import Settings
from loadtest.peers.entrants import EMBEDDING, OURS, Entrant
from loadtest.peers.protocol import Passed, Problem, pass_through
from policies import Arms, Compared, Context, Floats, Policy, Proposal, Rewarded, Vector

_DEFAULTS = Settings()


@dataclass(frozen=True, slots=True)
class Stream:
    """What all rows have in common: queries that every arm answered, and their features.

    features: by name, (n, d); `embedding` must be among them.
    """

    recorded: Recorded
    features: Mapping[str, Floats]
    rule: RewardRule


@dataclass(frozen=True, slots=True)
class Result:
    """One entrant with one seed. arms: (K,) how often each was drawn; µs are medians."""

    entrant: Entrant
    seed: int
    reward: float
    last_third: float
    quality: float
    cost_usd: float
    arms: tuple[int, ...]
    decide_us: float
    learn_us: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A run that ended with an error, which is told and not hidden."""

    entrant: Entrant
    seed: int
    error: str


def compare(
    data: Stream, rows: Sequence[Entrant], *, seeds: int, slow_seeds: int, jobs: int
) -> Iterator[Result | Failed]:
    """Every row with every seed, the first row before all others: its cost is the paced rows'.

    A slow row has the seeds below `slow_seeds` only.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _begin, (data,)) as pool:
        spent: dict[int, float] = {}
        for done in as_completed([pool.submit(run, rows[0], seed) for seed in range(seeds)]):
            found = done.result()
            if isinstance(found, Result):
                spent[found.seed] = found.cost_usd
            yield found
        # Seeds outside, so that a process finds the recall of its last run again.
        tasks = [
            pool.submit(run, row, seed, spent.get(seed) if row.paced else None)
            for seed in range(seeds)
            for row in rows[1:]
            if not row.slow or seed < slow_seeds
        ]
        for done in as_completed(tasks):
            yield done.result()


def count(rows: Sequence[Entrant], seeds: int, slow_seeds: int) -> int:
    """How many runs `compare` makes."""
    return sum(min(seeds, slow_seeds) if row.slow else seeds for row in rows)


_here: list[Stream] = []


def _begin(data: Stream) -> None:
    import threadpoolctl  # of the evaluate extra, as scipy is

    threadpoolctl.threadpool_limits(1)
    _here[:] = [data]
    _recall.cache_clear()


def run(entrant: Entrant, seed: int, target_usd: float | None = None) -> Result | Failed:
    """One run in this process, which `_begin` has given its stream."""
    data = _here[0]
    if entrant.paced and target_usd is None:
        return Failed(entrant, seed, "there is no cost of ours to keep")
    try:
        if entrant.package == OURS:
            passed = _ours(data, entrant, seed)
        else:
            x = data.features[entrant.features]
            problem = Problem(data.recorded.arms, x.shape[1], seed, target_usd)
            passed = pass_through(data.recorded, x, entrant.peer(problem), data.rule, seed)
    except Exception as error:  # noqa: BLE001 - another library's failure is a result as well
        return Failed(entrant, seed, f"{type(error).__name__}: {error}")
    n = len(passed.arm)
    return Result(
        entrant,
        seed,
        reward=float(passed.track.reward.mean()),
        last_third=float(passed.track.reward[n - max(1, n // 3) :].mean()),
        quality=float(passed.track.quality.mean()),
        cost_usd=float(passed.track.cost.mean()),
        arms=tuple(np.bincount(passed.arm, minlength=len(data.recorded.arms)).tolist()),
        decide_us=float(np.median(passed.decide_s)) * 1e6,
        learn_us=float(np.median(passed.learn_s)) * 1e6,
    )


def _ours(data: Stream, entrant: Entrant, seed: int) -> Passed:
    timed = _Timed(policies.load(entrant.make))
    done = simulate(
        data.recorded,
        data.features[entrant.features].astype(np.float32),
        timed,
        seed=seed,
        explore=Exploration(share=entrant.share),
        rule=data.rule,
        neighbours=_DEFAULTS.history.neighbours,
        capacity=_DEFAULTS.history.capacity,
        recall=_recall(seed),
    )
    if done.fallbacks or done.failures:
        raise RuntimeError(f"{done.fallbacks} fallbacks, {done.failures} rewards refused")
    return Passed(done.arm, done.track, np.array(timed.decide_s), np.array(timed.learn_s))


@lru_cache(maxsize=4)
def _recall(seed: int) -> Recall:
    """By the embeddings, whatever features the policy reads: neighbours are the history's."""
    return stream(
        _here[0].recorded,
        _vectors(_here[0]),
        seed=seed,
        neighbours=_DEFAULTS.history.neighbours,
        capacity=_DEFAULTS.history.capacity,
    )


def _vectors(data: Stream) -> Vector:
    return data.features[EMBEDDING].astype(np.float32)


class _Timed:
    """A policy, and the seconds that each call of it took."""

    def __init__(self, policy: Policy[Any]) -> None:
        self._policy = policy
        self.decide_s: list[float] = []
        self.learn_s: list[float] = []

    def init(self) -> Any:
        """The policy's."""
        return self._policy.init()

    def propose(self, state: Any, context: Context, arms: Arms) -> Proposal:
        """The policy's, timed."""
        begun = time.perf_counter()
        proposal = self._policy.propose(state, context, arms)
        self.decide_s.append(time.perf_counter() - begun)
        return proposal

    def learn(self, state: Any, event: Rewarded | Compared) -> Any:
        """The policy's, timed."""
        begun = time.perf_counter()
        state = self._policy.learn(state, event)
        self.learn_s.append(time.perf_counter() - begun)
        return state
