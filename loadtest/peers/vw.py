"""Vowpal Wabbit: `--cb_explore_adf`, the query shared and crossed with the arm's id."""

from __future__ import annotations

import math

from bandit_service.core import chance
from loadtest.peers.protocol import Asked, Outcome, Problem, need
from policies import Floats

INSTALL = "pip install vowpalwabbit==9.11.9"
# Costs are negated rewards, which lie in ±1, or in [−2, 0] when they are shifted.
_ALWAYS = "--cb_explore_adf -q sa --cb_min_cost -1 --cb_max_cost 2 --quiet"


class VowpalWabbit:
    """One workspace; the arm is drawn from the distribution that it gives, by our chance.

    explore: the option that says how it explores, such as "--epsilon 0.1".
    """

    def __init__(self, problem: Problem, *, explore: str) -> None:
        vw = need("vowpalwabbit", INSTALL)
        self._vw = vw.Workspace(f"{_ALWAYS} --random_seed {problem.seed} {explore}")
        self._actions = [f"|a arm{k}" for k in range(len(problem.arms))]
        self._seed, self._step, self._shared = problem.seed, 0, ""
        self._given: list[float] = []

    def choose(self, asked: Asked) -> tuple[int, float]:
        """`predict` and a draw."""
        self._shared = _shared(asked.x)
        probabilities = self._given = self._vw.predict([self._shared, *self._actions])
        self._step += 1
        at = chance.uniform(self._seed, f"vw:{self._step}") * math.fsum(probabilities)
        for k, probability in enumerate(probabilities):
            at -= probability
            if at < 0.0:
                return k, probability
        k = max(range(len(probabilities)), key=probabilities.__getitem__)
        return k, probabilities[k]

    def probability(self, arm: int) -> float:
        """What the last `predict` gave the arm."""
        return self._given[arm]

    def learn(self, _asked: Asked, arm: int, propensity: float | None, outcome: Outcome) -> None:
        """`learn` from arm:cost:probability."""
        actions = list(self._actions)
        actions[arm] = f"0:{-outcome.reward:.6f}:{propensity:.6f} {actions[arm]}"
        self._vw.learn([self._shared, *actions])


def _shared(x: Floats) -> str:
    return "shared |s " + " ".join(f"{i}:{value:.6g}" for i, value in enumerate(x.tolist()))
