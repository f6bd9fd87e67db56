"""river: `river.bandit`, contextual and context-free."""

from __future__ import annotations

from typing import Any

from loadtest.peers.protocol import Asked, Outcome, Problem, need

INSTALL = "pip install river==0.26.1"


class RiverLinUCB:
    """`LinUCBDisjoint`: a Bayesian linear regression per arm, chosen by mean + deviation.

    alpha, beta: precision of the prior and of the noise; None leaves the defaults. beta = 1/α² and
    alpha = λ/α² give it the ridge λ and the width α of LinUCB(α, λ), but its deviation is that of
    an answer, noise included: α√(1 + v) where LinUCB has α√v, v = xᵀ(A + λI)⁻¹x. That is flatter
    in v, so that it explores less.
    """

    def __init__(
        self, problem: Problem, *, alpha: float | None = None, beta: float | None = None
    ) -> None:
        bandit = need("river.bandit", INSTALL)
        given = {"alpha": alpha, "beta": beta}
        options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        self._policy = bandit.LinUCBDisjoint(seed=problem.seed, **options)
        self._arms = list(range(len(problem.arms)))
        self._context: dict[int, float] = {}

    def choose(self, asked: Asked) -> tuple[int, None]:
        """`pull` with the features as a dict, which is the library's form of a context."""
        self._context = dict(enumerate(asked.with_constant.tolist()))
        return int(self._policy.pull(self._arms, context=self._context)), None

    def learn(self, _asked: Asked, arm: int, _propensity: float | None, outcome: Outcome) -> None:
        """`update` with the same context."""
        self._policy.update(arm, self._context, outcome.reward)


class RiverContextFree:
    """`EpsilonGreedy` or `UCB`, which read no query: what is learned of the arms as a whole."""

    def __init__(self, problem: Problem, *, policy: str, **options: float) -> None:
        bandit = need("river.bandit", INSTALL)
        self._policy = getattr(bandit, policy)(seed=problem.seed, **options)
        self._arms = list(range(len(problem.arms)))

    def choose(self, _asked: Asked) -> tuple[int, None]:
        """`pull`."""
        return int(self._policy.pull(self._arms)), None

    def learn(self, _asked: Asked, arm: int, _propensity: float | None, outcome: Outcome) -> None:
        """`update`."""
        self._policy.update(arm, outcome.reward)
