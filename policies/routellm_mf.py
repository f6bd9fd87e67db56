"""RouteLLM's matrix factorization, learned online, one comparison at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from policies._checks import above, within
from policies._duels import Conversion, Duel, proposed
from policies._factorization import Factorization, Moments, drawn, gradients
from policies._types import ArmId, Arms, Compared, Context, Floats, Proposal, Rewarded, Vector

__all__ = ["RouteLLMMF"]

_WIDEST = 4096


def _none(*shape: int) -> Floats:
    return np.zeros(shape)


def _empty() -> Factorization:
    return Factorization(_none(0, 0), _none(0, 0), _none(0))


@dataclass
class _Learned:
    """K arms seen so far, d features, h factors; empty before the first comparison.

    rows: arm → its row. outcomes: of how many outcomes each arm was part.
    mean: (d,) of the embeddings learned from, and how many those were.
    """

    rows: dict[ArmId, int] = field(default_factory=dict)
    outcomes: dict[ArmId, int] = field(default_factory=dict)
    model: Factorization = field(default_factory=_empty)
    moments: Moments = field(default_factory=Moments)
    mean: Floats = field(default_factory=lambda: _none(0))
    queries: int = 0


@dataclass(frozen=True, slots=True)
class RouteLLMMF:
    r"""How strong an arm is on a query, by a factorization; the cheapest arm that is good enough.

    δ(M, q) = w2ᵀ(u_M ⊙ (W1ᵀ q + b)),  u_M = v_M / ‖v_M‖
    loss = BCE(score, σ(δ(winner, q) − δ(loser, q))), one step of Adam for each event
    choice: the cheapest arm that no dearer arm j beats with σ(δ_j − δ_i) >= α

    W1 (d, h) and w2 (h,) begin at random, from `seed`, and so does one vector at which every arm
    begins, so that arms of which nothing is known are equals. A query without an embedding gets
    the strengths of the mean query, which are the mean strengths, since δ is linear in q.

    Rewards are made into comparisons by `compare_on`: a rewarded arm meets the other arms'
    rewards on the same query, and with a reduced weight those on near queries.

    threshold: α in [0, 1]. 0.5 is the strongest arm; above it a cheaper arm may be somewhat
        weaker. RouteLLM calibrates its own on a sample of queries for a wanted share of strong
        calls. With compare_on="reward" cost is in the comparisons, and 0.5 is consistent.
    dim: h in [1, 4096]; the released code's 128.
    learning_rate: of Adam, in (0, 1]. The paper's 3e-4 is for batches of 64 and ten epochs.
    weight_decay: in [0, 1], added to the slope; the paper's 1e-5.
    bias: whether there is b, as in the paper's formula; the released code has none.
    seed: >= 0, of the first values.
    tie_weight: in [0, 1], of a tie, whose score is 1/2; RouteLLM drops ties, which is 0.
    neighbours: N >= 0, of the `history.neighbours` that the service recalls a reward meets those
        on the nearest N.
    compare_on: "reward" (default: what the answer was worth, cost included), "quality", or
        "off": pairwise outcomes only, as in the paper.
    similarity: τ in [−1, 1], the least cosine at which a near query's reward makes a comparison.
    tie_margin: >= 0, two values nearer than this are a tie.
    conversion_weight: w in [0, 1], comparisons made of rewards on two queries weigh w, shared
        among all that one reward makes, so that one reward weighs at most 1.
    trial: an arm with fewer outcomes than this shares with the chosen one, so that it is tried;
        0 switches it off.

    Faithful but for the epochs: `RouteLLMMF(compare_on="off", trial=0, tie_weight=0,
    learning_rate=3e-4)`. The noise that the code adds to embeddings is left out, since learning
    reads nothing but the event.

    State: 3·(d·h + K·h + h) numbers, Adam's two means of each included: 1.2 MB at d = 384,
    h = 128. learn O((d + N)·h), propose O(d·h + K·h + K²), flat in history.

    Source: arXiv 2406.18665v4, section 4.2, and lm-sys/RouteLLM; Adam is arXiv 1412.6980.

    >>> policy, a, b = RouteLLMMF(trial=0), ArmId("a"), ArmId("b")
    >>> context = Context(np.array([0.6, 0.8], np.float32), 0, 0.1)
    >>> state = policy.learn(policy.init(), Compared(context, winner=a, loser=b))
    >>> arms = Arms((a, b), np.array([0.01, 0.02]), np.array([0.5, 1.0]))
    >>> policy.propose(state, context, arms).propensities.tolist()
    [1.0, 0.0]
    """

    threshold: float = 0.5
    dim: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    bias: bool = False
    seed: int = 0
    tie_weight: float = 1.0
    neighbours: int = 20
    compare_on: str = "reward"
    similarity: float = 0.3
    tie_margin: float = 0.05
    conversion_weight: float = 0.5
    trial: int = 5

    def __post_init__(self) -> None:
        within("threshold", self.threshold, 0.0, 1.0)
        within("dim", self.dim, 1, _WIDEST)
        above("learning_rate", self.learning_rate, 0.0, 1.0)
        within("weight_decay", self.weight_decay, 0.0, 1.0)
        within("seed", self.seed, 0, 2**53)
        within("tie_weight", self.tie_weight, 0.0, 1.0)
        within("trial", self.trial, 0)
        self._conversion()

    @staticmethod
    def examples() -> list[RouteLLMMF]:
        """Settings that the laws test, too: the paper's own, at its learning rate."""
        return [RouteLLMMF(compare_on="off", trial=0, tie_weight=0.0, learning_rate=3e-4)]

    def init(self) -> _Learned:
        """Nothing; the arrays are made when the first embedding shows how many features it has."""
        return _Learned()

    def propose(self, state: _Learned, context: Context, arms: Arms) -> Proposal:
        """All mass on the cheapest arm that stands; arms on trial share."""
        if not len(arms):
            raise ValueError("arms: no eligible arm to propose from")
        strengths = self._strengths(state, context.embedding, arms.ids)
        count = np.array([float(state.outcomes.get(arm, 0)) for arm in arms.ids])
        return proposed(strengths, arms, self.threshold, count, self.trial)

    def learn(self, state: _Learned, event: Rewarded | Compared) -> _Learned:
        """One step on one comparison, or on those that a reward makes, all at once."""
        duels, tried = self._conversion().learned(event)
        duels = [
            duel._replace(weight=self.tie_weight * duel.weight) if duel.score == 0.5 else duel
            for duel in duels
        ]
        duels = [duel for duel in duels if duel.weight > 0.0]
        x = self._features(state, event.context.embedding)
        if duels and event.context.embedding.any():
            self._step(state, x, duels)
        for arm in tried:
            state.outcomes[arm] = state.outcomes.get(arm, 0) + 1
        return state

    def forget(self, state: _Learned, arm: ArmId, keep: float) -> _Learned:
        """v_M ← keep·v_M + (1 − keep)·v₀, where arms begin; Adam's means of it, and its outcomes,
        times `keep`. W1 and w2 are every arm's, and stay.
        """
        within("keep", keep, 0.0, 1.0)
        row = state.rows.get(arm)
        if row is not None:
            vectors = state.model.arms
            vectors[row] = keep * vectors[row] + (1.0 - keep) * vectors[-1]
            for means in (state.moments.first[0], state.moments.second[0]):
                means[row] *= keep
        if arm in state.outcomes:
            state.outcomes[arm] = int(keep * state.outcomes[arm])
        return state

    def _conversion(self) -> Conversion:
        return Conversion(
            self.compare_on,
            self.similarity,
            self.tie_margin,
            self.conversion_weight,
            self.neighbours,
        )

    def _features(self, state: _Learned, embedding: Vector) -> Floats:
        x = embedding.astype(np.float64)
        if self.bias:
            x = np.append(x, 1.0)
        if not np.isfinite(x).all():
            raise ValueError("embedding: must be finite numbers")
        if state.queries and x.size != state.mean.size:
            raise ValueError(f"embedding: must have {state.mean.size} features, got {x.size}")
        return x

    def _strengths(self, state: _Learned, embedding: Vector, ids: tuple[ArmId, ...]) -> Floats:
        """δ of each arm, (K,)."""
        if not state.queries:
            return np.zeros(len(ids))
        x = self._features(state, embedding) if embedding.any() else state.mean
        every = state.model.strengths(x[None])[0]
        # the last row belongs to all arms never seen
        its: Floats = every[[state.rows.get(arm, -1) for arm in ids]]
        return its

    def _step(self, state: _Learned, x: Floats, duels: list[Duel]) -> None:
        if not state.queries:
            # one arm, the last row, which stays where it begins: it stands for all never seen
            model = drawn(1, x.size, self.dim, np.random.default_rng(self.seed))
            state.model, state.mean = model, np.zeros(x.size)
            state.moments = Moments.of(model.parameters())
        at = {arm: self._row(state, arm) for duel in duels for arm in (duel.first, duel.second)}
        met = list(at.values())
        local = {arm: i for i, arm in enumerate(at)}
        model = state.model
        # only the arms that met move: a step of Adam would let the others drift
        few = Factorization(model.arms[met], model.projection, model.head)
        _, slopes = gradients(
            few,
            x[None],
            np.array([local[duel.first] for duel in duels]),
            np.array([local[duel.second] for duel in duels]),
            np.array([duel.score for duel in duels]),
            np.array([duel.weight for duel in duels]) * len(duels),
        )
        first, second = state.moments.first, state.moments.second
        moments = Moments(
            state.moments.steps,
            [first[0][met], *first[1:]],
            [second[0][met], *second[1:]],
        )
        moments.step(few.parameters(), slopes, self.learning_rate, self.weight_decay)
        model.arms[met] = few.arms
        first[0][met], second[0][met] = moments.first[0], moments.second[0]
        state.moments.steps = moments.steps
        state.queries += 1
        state.mean += (x - state.mean) / state.queries

    def _row(self, state: _Learned, arm: ArmId) -> int:
        """The arm's row; a new one begins where arms never seen are, just before the last."""
        row = state.rows.get(arm)
        if row is None:
            row = len(state.rows)
            arrays = (state.model.arms, state.moments.first[0], state.moments.second[0])
            grown = [np.concatenate([array, array[-1:]]) for array in arrays]
            state.model.arms, state.moments.first[0], state.moments.second[0] = grown
            state.rows[arm] = row
        return row
