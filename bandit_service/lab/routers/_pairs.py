"""Comparisons made from full information: which of two answers to a query was better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandit_service.lab.data import Labelled
from policies import Floats


@dataclass(frozen=True, slots=True)
class Pairs:
    """m comparisons: rows of the training part, two arms, and who won; a tie has no order.

    row, first, second: (m,). margin: (m,) quality of the first less that of the second, 0 for a
    tie.
    """

    row: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    margin: Floats

    def __len__(self) -> int:
        return len(self.row)


def drawn_pairs(train: Labelled, per_query: int | None, margin: float, seed: int) -> Pairs:
    """All pairs of answers to each query, or `per_query` different ones drawn evenly by `seed`.

    Two qualities that are no further apart than `margin` are a tie. Sorted by row.
    """
    k = len(train.arms)
    first, second = np.triu_indices(k, 1)
    answered = train.answered
    both = answered[:, first] & answered[:, second]
    if per_query is not None:
        rank = np.where(both, np.random.default_rng(seed).random(both.shape), 2.0)
        order = np.argsort(rank, axis=1, kind="stable")[:, :per_query]
        kept = np.zeros_like(both)
        np.put_along_axis(kept, order, True, axis=1)
        both &= kept
    row, which = np.nonzero(both)
    one, other = first[which], second[which]
    ahead = train.quality[row, one] - train.quality[row, other]
    ahead = np.where(np.abs(ahead) <= margin, 0.0, ahead)
    return Pairs(row.astype(np.int64), one.astype(np.int64), other.astype(np.int64), ahead)


def wins_of(pairs: Pairs, n: int, k: int) -> Floats:
    """(n, K, K): entry (i, a, b) is 1 where a beat b on row i; a tie is half a win for each."""
    wins = np.zeros((n, k, k))
    score = np.where(pairs.margin == 0.0, 0.5, (pairs.margin > 0.0).astype(np.float64))
    wins[pairs.row, pairs.first, pairs.second] = score
    wins[pairs.row, pairs.second, pairs.first] = 1.0 - score
    return wins
