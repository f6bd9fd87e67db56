"""The input of every protocol: a recording with the embeddings of its queries, and its splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandit_service.data.recordings import Recorded
from policies import Floats, Vector

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Labelled:
    """n queries with the quality and cost of every arm that answered them.

    embeddings: (n, d) float32 of unit norm.
    """

    recorded: Recorded
    embeddings: Vector

    def __len__(self) -> int:
        return len(self.recorded)

    @property
    def quality(self) -> Floats:
        """(n, K) in [0, 1], NaN where the arm has no answer."""
        return self.recorded.quality

    @property
    def cost(self) -> Floats:
        """(n, K) USD, NaN where the arm has no answer."""
        return self.recorded.cost

    @property
    def answered(self) -> NDArray[np.bool_]:
        """(n, K) whether the arm has an answer; a router may know this."""
        return ~np.isnan(self.recorded.quality)

    @property
    def arms(self) -> tuple[str, ...]:
        """K ids, sorted."""
        return tuple(arm.id for arm in self.recorded.arms)

    def take(self, rows: Rows) -> Labelled:
        """These rows, in this order."""
        return Labelled(self.recorded.take(rows), self.embeddings[rows])


def split(data: Labelled, share: float, salt: str = "dev-eval") -> tuple[Labelled, Labelled]:
    """The rows whose salted hash falls below `share`, and the others, whatever their order.

    A row is in the first part if int(sha256(f"{salt}:{query_id}")[:8], 16) / 2³² < share, so that
    a query stays on its side when others join.
    """
    first = np.array([_position(salt, id) < share for id in data.recorded.ids], dtype=bool)
    return data.take(np.flatnonzero(first)), data.take(np.flatnonzero(~first))


def _position(salt: str, id: str) -> float:
    return int(hashlib.sha256(f"{salt}:{id}".encode()).hexdigest()[:8], 16) / 2**32
