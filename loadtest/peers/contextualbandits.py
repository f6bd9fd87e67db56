"""contextualbandits: its LinUCB, taught one outcome at a time by `partial_fit`.

PyPI has its source only, so that a C++ compiler must be there when it is installed. It asks for
rewards of 0 and 1; its LinUCB is a least-squares fit, which takes any number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from loadtest.peers.protocol import Asked, Outcome, Problem, need
from policies import Floats

INSTALL = "pip install contextualbandits==0.3.30 (its source is compiled: a C++ compiler is needed)"


class ContextualBandits:
    """`LinUCB` with these parameters, None leaving its defaults.

    intercept: let it fit one, its default. It then leaves the intercept out of the bonus of an arm
        that was never played; without, a constant among the features does the same, and all is
        LinUCB by the book.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        alpha: float | None = None,
        ridge: float | None = None,
        intercept: bool = True,
    ) -> None:
        online = need("contextualbandits.online", INSTALL)
        given = {"alpha": alpha, "lambda_": ridge}
        options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        self._intercept = intercept
        self._policy = online.LinUCB(
            nchoices=len(problem.arms),
            random_state=problem.seed + 1,  # 0 is refused
            fit_intercept=intercept,
            **options,
        )

    def choose(self, asked: Asked) -> tuple[int, None]:
        """`predict` of one row."""
        return int(self._policy.predict(self._row(asked))[0]), None

    def learn(self, asked: Asked, arm: int, _propensity: float | None, outcome: Outcome) -> None:
        """`partial_fit` of one row."""
        self._policy.partial_fit(self._row(asked), np.array([arm]), np.array([outcome.reward]))

    def _row(self, asked: Asked) -> Floats:
        return (asked.x if self._intercept else asked.with_constant)[None, :]
