"""The values that pass between a policy and the rest of the world.

Everything here is immutable data: a policy sees values and returns values.
Shapes: K eligible arms, d embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NewType

import numpy as np
from numpy.typing import NDArray

ArmId = NewType("ArmId", str)
Vector = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Arms:
    """The eligible arms of one query, in the canonical order (sorted by id).

    ids:      K distinct ids.
    cost_usd: (K,) expected cost of this query on each arm, in USD, >= 0.
    price:    (K,) list price of each arm divided by the dearest arm's in the whole
              catalogue, in [0, 1]; MetaLLM's fixed per-model cost c_i.
    first_price: (K,) what a million tokens, one part in and two out, cost when the arm was first
              listed, in USD; 0 where that is not known. What a prior of skill reads: a later
              promotion says nothing of how good a model is.
    family:   K names, "" for an arm of no family; None where no family has two arms. What is
              known of one arm of a family is a prior for the others.
    kin:      the arms of these families that are not eligible, retired ones too.
    """

    ids: tuple[ArmId, ...]
    cost_usd: Floats
    price: Floats
    first_price: Floats | None = None
    family: tuple[str, ...] | None = None
    kin: Arms | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, cost_usd: Sequence[Floats] | Floats) -> Arms:
        """The same arms for `propose_many`, with what each of B queries costs on them."""
        return replace(self, cost_usd=np.asarray(cost_usd))

    def one_row(self) -> Arms:
        """The same for `propose_many` of one query."""
        return self.rows(self.cost_usd[None])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one arm earned on one past query: quality in [0, 1] and the scalar reward."""

    arm: ArmId
    quality: float | None
    reward: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A pairwise outcome on one past query; on a tie the order of the two arms says nothing."""

    winner: ArmId
    loser: ArmId
    tie: bool = False


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A past query near the present one, with every outcome that came back for it.

    id grows with time: of two neighbours, the one with the larger id was remembered later.
    similarity is the cosine in [-1, 1].
    """

    id: int
    similarity: float
    outcomes: tuple[Outcome, ...] = ()
    comparisons: tuple[Comparison, ...] = ()


SURFACE = 19
_NO_SURFACE = np.zeros(SURFACE, np.float32)
_NO_SURFACE.setflags(write=False)


def _no_neighbours() -> tuple[Neighbour, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class Context:
    """The query's features.

    embedding:          (d,) float32 of unit norm; all zeros when it could not be had, so that
                        what a policy proposes then is its context-free proposal.
    tokens:             estimated prompt tokens, >= 0.
    willingness_to_pay: USD that one unit of quality is worth for this query, > 0.
    neighbours:         the nearest past queries, in no promised order.
    surface:            (19,) surface features of the text, all zeros where there is no text.
    """

    embedding: Vector
    tokens: int
    willingness_to_pay: float
    neighbours: tuple[Neighbour, ...] = field(default_factory=_no_neighbours)
    surface: Vector = field(default_factory=lambda: _NO_SURFACE)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A policy's answer: a distribution, never a draw.

    scores:       (K,) what the policy ranks by, finite, larger is better.
    propensities: (K,) finite, >= 0, sums to 1.
    quality:      (K,) expected quality per arm where the policy has it.
    deviation:    (K,) standard deviation of that expectation, >= 0, where the policy has it.
    count:        (K,) outcomes that each arm's expectation rests on, by weight; 0 is untried.
    bonus:        (K,) the part of the score that is there for exploration, where there is one:
                  score = quality + bonus - cost / willingness to pay.
    """

    scores: Floats
    propensities: Floats
    quality: Floats | None = None
    deviation: Floats | None = None
    count: Floats | None = None
    bonus: Floats | None = None


@dataclass(frozen=True, slots=True)
class Contexts:
    """`Context` of B queries, each field with a row for each; `len` is B."""

    embedding: Vector
    tokens: Sequence[int]
    willingness_to_pay: Floats
    neighbours: Sequence[tuple[Neighbour, ...]]
    surface: Vector

    def __len__(self) -> int:
        return len(self.embedding)

    @classmethod
    def of(cls, contexts: Sequence[Context]) -> Contexts:
        """Of embeddings of one length."""
        return cls(
            np.array([one.embedding for one in contexts]),
            [one.tokens for one in contexts],
            np.array([one.willingness_to_pay for one in contexts]),
            [one.neighbours for one in contexts],
            np.array([one.surface for one in contexts]),
        )


@dataclass(frozen=True, slots=True)
class Proposals:
    """`Proposal` of B queries with the same arms: (B, K) each, and `count`, which is (K,)."""

    scores: Floats
    propensities: Floats
    quality: Floats | None = None
    deviation: Floats | None = None
    count: Floats | None = None
    bonus: Floats | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Proposal]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Proposal:
        """Of the i-th query."""
        quality, deviation, bonus = self.quality, self.deviation, self.bonus
        return Proposal(
            self.scores[i],
            self.propensities[i],
            None if quality is None else quality[i],
            None if deviation is None else deviation[i],
            self.count,
            None if bonus is None else bonus[i],
        )


@dataclass(frozen=True, slots=True)
class Rewarded:
    """A pointwise outcome of one decision, with everything that learning from it reads.

    Signals may come alone and late, each in an event of its own. `quality` is set only with the
    event that brought it; `cost_usd` and `latency_s` as far as they are known by then. `reward`
    is the scalar reward and is set exactly once per decision, with the event that settles it.

    propensity: probability with which `arm` was drawn, of this very decision.
    price:      the arm's list price relative to the dearest arm, in [0, 1], when decided.
    expected_cost_usd: the cost that was expected of the arm when decided.
    """

    context: Context
    arm: ArmId
    propensity: float
    price: float
    expected_cost_usd: float
    quality: float | None = None
    cost_usd: float | None = None
    latency_s: float | None = None
    reward: float | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """A pairwise outcome of two arms on one query; on a tie the order says nothing."""

    context: Context
    winner: ArmId
    loser: ArmId
    tie: bool = False
