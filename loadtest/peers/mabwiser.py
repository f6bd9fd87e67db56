"""MABWiser: its linear policies through `MAB`, taught one outcome at a time by `partial_fit`.

It cannot predict before it was fitted, so the first query's arm is drawn evenly.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from loadtest.peers.protocol import Asked, Outcome, Problem, need

INSTALL = "pip install mabwiser==2.7.4"


class MABWiser:
    """A learning policy of MABWiser with these parameters, None leaving its defaults."""

    def __init__(
        self,
        problem: Problem,
        *,
        policy: Literal["LinUCB", "LinTS", "LinGreedy"],
        alpha: float | None = None,
        ridge: float | None = None,
    ) -> None:
        mab = need("mabwiser.mab", INSTALL)
        given = {"alpha": alpha, "l2_lambda": ridge}
        options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        self._mab = mab.MAB(
            arms=list(range(len(problem.arms))),
            learning_policy=getattr(mab.LearningPolicy, policy)(**options),
            seed=problem.seed,
        )
        self._first = int(np.random.default_rng(problem.seed).integers(len(problem.arms)))
        self._fitted = False

    def choose(self, asked: Asked) -> tuple[int, None]:
        """`predict` of one context."""
        if not self._fitted:
            return self._first, None
        return int(self._mab.predict(asked.with_constant[None, :])), None

    def learn(self, asked: Asked, arm: int, _propensity: float | None, outcome: Outcome) -> None:
        """`fit` the first time, `partial_fit` ever after."""
        teach = self._mab.partial_fit if self._fitted else self._mab.fit
        teach(np.array([arm]), np.array([outcome.reward]), asked.with_constant[None, :])
        self._fitted = True
