"""The interface of an offline router: fitted on labelled queries, it chooses for others at every
setting.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bandit_service.lab.data import Labelled
from policies import Floats

# (n,) the index of each query's arm, or (n, K) the probability of every arm.
Choice: TypeAlias = NDArray[np.int64] | Floats
Choices: TypeAlias = Iterator[tuple[float, Choice]]
# What a setting is. "price": λ, quality lost per USD, the inverse of willingness to pay.
# "budget": USD that one query may cost. "threshold": a number of the router's own.
Axis: TypeAlias = Literal["price", "budget", "threshold"]


class Predictor(Protocol):
    """A fitted router. It must not read the quality or cost of the queries that it routes.

    Only an arm that answered the query is chosen, since an arm without a recorded answer cannot be
    scored. This does not count against a router.
    """

    @property
    def axis(self) -> Axis:
        """What the settings of `choices` are."""
        ...

    @property
    def seen(self) -> int:
        """Outcomes, or comparisons, that it was taught."""
        ...

    def choices(self, queries: Labelled) -> Choices:
        """(setting, choice) for each setting; at the first one cost does not matter.

        A setting that is NaN lies off the axis: it counts for the hull alone.
        """
        ...


class QualityPredictor(Predictor, Protocol):
    """A router that predicts quality."""

    def quality(self, queries: Labelled) -> Floats:
        """(n, K) expected quality, also of arms without an answer."""
        ...


class OfflineRouter(Protocol):
    """A frozen dataclass of hyper-parameters."""

    def fit(self, train: Labelled, seed: int, /) -> Predictor:
        """The router as `train` teaches it; equal arguments give equal routers.

        A missing outcome is left out for its arm. To an arm without any a router that predicts
        quality gives −1, and the dearest arm's cost.
        """
        ...


class Incremental(Predictor, Protocol):
    """A fitted router that learns further labelled queries without a fit from scratch."""

    def update(self, more: Labelled, seed: int, /) -> Predictor:
        """The router as `more` teaches it on top. The old one is not to be used any more."""
        ...
