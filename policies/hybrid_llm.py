"""Hybrid LLM: the cheapest arm that answers as well as the large one, as far as is believed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from policies._checks import LEAST, finite, one_of, two_arms, within
from policies._logistic import Heads, Label, Prior, Step, features, sigmoid, sigmoids
from policies._types import (
    ArmId,
    Arms,
    Compared,
    Context,
    Floats,
    Neighbour,
    Outcome,
    Proposal,
    Rewarded,
)

__all__ = ["HybridLLM"]

Mask = NDArray[np.bool_]
_LABELS = ("probabilistic", "deterministic", "transformed")
_SAME = 1.0 - 1e-6
_MANY = 1e9
# the logistic distribution of unit variance has the scale √3/π
_PER_DEVIATION = math.pi / math.sqrt(3.0)


@dataclass
class _Gaps:
    """heads: large arm → one head for each small arm. features: d + 1, 0 before the first label.

    total, count: per arm, the sum of what its outcomes were worth, and how many those were.
    """

    heads: dict[ArmId, Heads] = field(default_factory=dict)
    features: int = 0
    total: dict[ArmId, float] = field(default_factory=dict)
    count: dict[ArmId, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HybridLLM:
    r"""The cheapest arm that is likely no worse than the large arm on this query; else the large.

    p_i(x) = P[q_i − q_L >= −t | x] = σ(m_i),   m_i = logit(q₀) + θ_iLᵀ[x, 1]
    deterministic:  y = 1 if q_i >= q_L else 0
    probabilistic:  y = σ((q_i − q_L) / τ)
    transformed:    y = σ((q_i − q_L + t) / τ)
    choice: the cheapest arm i with p_i >= threshold; if there is none, L

    L is the dearest eligible arm by list price; of several, that of the best mean (Σ v + 1)/(n + 1)
    so far. With two arms and α = 0 this is the paper's rule. The paper estimates y in
    `probabilistic` from ten answers of each model; here there is one answer each, and σ(gap/τ)
    stands for it. Heads are learned by sequential Laplace steps (`policies/_logistic.py`).

    Bandit feedback shows one arm's answer. The gap is made of that reward and the other arms'
    rewards on the same query (weight 1) or else the mean label over those on near queries
    (weight w), for each ordered pair of arms; and of comparisons, which count as a gap of ±1 or 0.

    With α > 0 the choice is drawn: let one uniform u serve all arms, and arm i be good enough if
    g_i >= u, where g_i = P[m_i + α·√s_i·ε >= logit(threshold)], ε logistic of unit variance, s_i
    what is unsure of m_i. So where nothing is known the cheapest and L share, and both get
    outcomes that can be compared.

    large: the id of L; "" (default), or one not eligible, is the dearest.
    threshold: in [0, 1]; 1 is always L, 0 never. The paper calibrates it on 500
        queries for the largest saving within 1 % of L's quality.
    label: "probabilistic" (default), "deterministic" or "transformed", what y is, as above.
    t: in [0, 2], the gap that is forgiven, of `transformed` only; `choose_t` finds the paper's.
    temperature: τ > 0, not of `deterministic`.
    compare_on: what the gap is made of: "reward" (default: what the answer was worth, cost
        included), "quality" (the paper's), or "off": comparisons only. Cut to [−1, 1].
    neighbours: N >= 0, of the `history.neighbours` that the service recalls the N nearest serve.
    similarity: in [−1, 1], the least cosine at which a near query's outcome is compared with.
    conversion_weight: w in [0, 1], of a label from near queries; 0 leaves the same query only.
    comparison_weight: in [0, 1], of a pairwise outcome; 0 ignores them.
    alpha: α >= 0, standard deviations of the logit that the draw spreads; 0 is the paper's rule.
        Below 1, since in hundreds of dimensions a few thousand labels leave √s_i near 1, though
        queries of one kind differ in few of them.
    prior: q₀ in [0.001, 0.999], p before the first label.
    ridge: λ > 0, one over the variance that each coefficient has before the first label.

    Faithful but for the predictor, and for the gap where only one answer is seen:
    `HybridLLM(compare_on="quality", alpha=0, comparison_weight=0)`, with `label` as wanted.

    State: 2·d + 3 numbers for each ordered pair of arms that met: 6 kB a pair at d = 384. learn
    O(N + K·d), propose O(K·d + K²), flat in history.

    Source: arXiv 2404.14618, sections 3 and 4; learning online is ours.

    >>> policy, a, b = HybridLLM(alpha=0.0), ArmId("a"), ArmId("b")
    >>> context = Context(np.array([0.6, 0.8], np.float32), 0, 0.1)
    >>> arms = Arms((a, b), np.array([0.01, 0.02]), np.array([0.5, 1.0]))
    >>> state = policy.learn(policy.init(), Compared(context, winner=b, loser=a))
    >>> policy.propose(state, context, arms).propensities.tolist()
    [0.0, 1.0]
    >>> state = policy.learn(policy.init(), Compared(context, winner=a, loser=b))
    >>> policy.propose(state, context, arms).propensities.tolist()
    [1.0, 0.0]
    """

    large: str = ""
    threshold: float = 0.5
    label: str = "probabilistic"
    t: float = 0.1
    temperature: float = 0.1
    compare_on: str = "reward"
    neighbours: int = 20
    similarity: float = 0.3
    conversion_weight: float = 0.5
    comparison_weight: float = 1.0
    alpha: float = 0.25
    prior: float = 0.5
    ridge: float = 1.0

    def __post_init__(self) -> None:
        within("threshold", self.threshold, 0.0, 1.0)
        one_of("label", self.label, _LABELS)
        within("t", self.t, 0.0, 2.0)
        within("temperature", self.temperature, LEAST)
        one_of("compare_on", self.compare_on, ("reward", "quality", "off"))
        within("neighbours", self.neighbours, 0)
        within("similarity", self.similarity, -1.0, 1.0)
        within("conversion_weight", self.conversion_weight, 0.0, 1.0)
        within("comparison_weight", self.comparison_weight, 0.0, 1.0)
        within("alpha", self.alpha, 0.0, _MANY)
        within("prior", self.prior, 0.001, 0.999)
        within("ridge", self.ridge, LEAST, _MANY)

    @staticmethod
    def examples() -> list[HybridLLM]:
        """Settings that the laws test, too: two of the paper's own, and votes only."""
        return [
            HybridLLM(
                compare_on="quality", label="deterministic", alpha=0.0, comparison_weight=0.0
            ),
            HybridLLM(compare_on="quality", label="transformed", alpha=0.0),
            HybridLLM(compare_on="off"),
        ]

    def init(self) -> _Gaps:
        """No arm seen."""
        return _Gaps()

    def propose(self, state: _Gaps, context: Context, arms: Arms) -> Proposal:
        """The mass of each arm by what is unsure; with α = 0 all of it on the arm chosen."""
        if not len(arms):
            raise ValueError("arms: no eligible arm to propose from")
        large = self._large(state, arms)
        # of arms alike in price and record any one may be the reference: none has been seen
        reference = min(
            arm for arm, is_large in zip(arms.ids, large.tolist(), strict=True) if is_large
        )
        heads = state.heads.get(reference, Heads())
        x = features(context.embedding)
        if state.features:
            _same_length(state, x)
        mean, deviation = heads.estimate(arms.ids, x, self._prior())
        p = self._shares(mean, deviation, arms.cost_usd, large)
        return Proposal(p, p.copy())

    def learn(self, state: _Gaps, event: Rewarded | Compared) -> _Gaps:
        """Labels for every ordered pair of arms that the event sets side by side."""
        worth: list[tuple[ArmId, float, float]] = []
        labels: dict[tuple[ArmId, ArmId], Label] = {}
        if isinstance(event, Compared):
            two_arms(event)
            if self.comparison_weight > 0.0:
                gap, won = (0.0, 0.5) if event.tie else (1.0, 1.0)
                labels = self._pair(event.winner, event.loser, [gap], self.comparison_weight)
                worth = [
                    (event.winner, won, self.comparison_weight),
                    (event.loser, 1.0 - won, self.comparison_weight),
                ]
        else:
            value = self._value(event.quality, event.reward)
            if event.reward is not None and value is not None:
                finite("reward", event.reward)
                finite(self.compare_on, value)
                labels = self._met(event, value)
                worth = [(event.arm, _cut(value), 1.0)]
        if worth:
            self._write(state, features(event.context.embedding), labels, worth)
        return state

    def forget(self, state: _Gaps, arm: ArmId, keep: float) -> _Gaps:
        """As `forc`, of every head that sets the arm beside another; sum and count times `keep`.

        A gap is of two arms: what others are known to be beside each other stays.
        """
        within("keep", keep, 0.0, 1.0)
        for large, heads in state.heads.items():
            for small in list(heads.rows) if large == arm else [arm]:
                heads.fade(small, keep, self._prior())
        if arm in state.count:
            state.total[arm] *= keep
            state.count[arm] *= keep
        return state

    def _prior(self) -> Prior:
        return Prior(self.prior, self.ridge)

    def _value(self, quality: float | None, reward: float | None) -> float | None:
        """What gaps are made of, where it is known."""
        return {"quality": quality, "reward": reward, "off": None}[self.compare_on]

    def _label(self, gap: float) -> float:
        if self.label == "deterministic":
            return float(gap >= 0.0)
        forgiven = self.t if self.label == "transformed" else 0.0
        return sigmoid((gap + forgiven) / self.temperature)

    def _pair(
        self, one: ArmId, other: ArmId, gaps: list[float], weight: float
    ) -> dict[tuple[ArmId, ArmId], Label]:
        """(large, small) → label, both ways, of the mean label over gaps of `one` to `other`."""
        ahead = sum(self._label(gap) for gap in gaps) / len(gaps)
        behind = sum(self._label(-gap) for gap in gaps) / len(gaps)
        return {(other, one): Label(ahead, weight), (one, other): Label(behind, weight)}

    def _met(self, event: Rewarded, value: float) -> dict[tuple[ArmId, ArmId], Label]:
        """Labels from the other arms' outcomes on the same query, or else on near ones."""
        same: dict[ArmId, list[float]] = {}
        near: dict[ArmId, list[float]] = {}
        for neighbour, outcome in self._outcomes(event):
            theirs = self._value(outcome.quality, outcome.reward)
            if outcome.arm != event.arm and theirs is not None:
                kept = same if neighbour.similarity >= _SAME else near
                kept.setdefault(outcome.arm, []).append(_cut(value) - _cut(theirs))
        labels: dict[tuple[ArmId, ArmId], Label] = {}
        if self.conversion_weight > 0.0:
            for other, gaps in near.items():
                labels |= self._pair(event.arm, other, gaps, self.conversion_weight)
        for other, gaps in same.items():
            labels |= self._pair(event.arm, other, gaps, 1.0)
        return labels

    def _outcomes(self, event: Rewarded) -> Iterator[tuple[Neighbour, Outcome]]:
        ordered = sorted(event.context.neighbours, key=lambda n: (-n.similarity, -n.id))
        for neighbour in ordered[: self.neighbours]:
            if neighbour.similarity >= self.similarity:
                for outcome in neighbour.outcomes:
                    yield neighbour, outcome

    def _write(
        self,
        state: _Gaps,
        x: Floats,
        labels: Mapping[tuple[ArmId, ArmId], Label],
        worth: list[tuple[ArmId, float, float]],
    ) -> None:
        _same_length(state, x)
        found: list[tuple[ArmId, dict[ArmId, Step]]] = []
        for (large, small), label in labels.items():
            heads = state.heads.get(large, Heads())
            found.append((large, heads.steps(x, {small: label}, self._prior())))
        state.features = x.size
        for large, steps in found:
            state.heads.setdefault(large, Heads()).take(steps)
        for arm, value, weight in worth:
            state.total[arm] = state.total.get(arm, 0.0) + weight * value
            state.count[arm] = state.count.get(arm, 0.0) + weight

    def _large(self, state: _Gaps, arms: Arms) -> Mask:
        """Which arms are L, (K,) of bool; several only where their records are the same."""
        if self.large in arms.ids:
            return np.array([arm == self.large for arm in arms.ids])
        dearest = arms.price == arms.price.max()
        means = np.array(
            [
                (state.total.get(arm, 0.0) + 1.0) / (state.count.get(arm, 0.0) + 1.0)
                for arm in arms.ids
            ]
        )
        large: Mask = dearest & (means == means[dearest].max())
        return large

    def _shares(self, mean: Floats, deviation: Floats, cost_usd: Floats, large: Mask) -> Floats:
        """(K,) probabilities: from the cheapest up, an arm gets what its g exceeds those below."""
        ahead = mean - _logit(self.threshold)
        alpha = self.alpha if self.alpha >= LEAST else 0.0
        if alpha > 0.0:
            good = sigmoids(_PER_DEVIATION * ahead / (alpha * deviation))
        else:
            good = (ahead >= 0.0).astype(np.float64)
        shares, given = np.zeros(mean.size), 0.0
        for cost in np.unique(cost_usd[~large]).tolist():
            alike = np.flatnonzero((cost_usd == cost) & ~large)
            most = float(good[alike].max())
            if most > given:
                best = good[alike] * _likeliest(mean[alike], alpha * deviation[alike])
                shares[alike] = (most - given) * best / best.sum()
                given = most
        shares[large] = (1.0 - given) / float(large.sum())
        found: Floats = shares / shares.sum()
        return found


def choose_t(gaps: Floats, grid: Floats | None = None) -> float:
    """The paper's t*: the gap to forgive so that labels differ most from query to query.

    t* = argmax_t (1/n²) Σ_{i,j} |y_i(t) − y_j(t)|,  y_i(t) = the share of query i's gaps >= −t

    gaps: q_S − q_L, (n,) of one answer each, or (n, m) of m pairs of answers. grid: the t that are
    tried; by default 101 even steps from 0 to the largest −gap. The least t wins ties. With one
    answer each the sum is 2·y(1 − y), y the mean label, so that t* balances the labels. For the
    parameter `t`, from queries on which both answers are known. ValueError on what is not finite.

    >>> choose_t(np.array([-0.4, -0.3, -0.2, -0.1]), np.array([0.0, 0.1, 0.2, 0.3]))
    0.2
    """
    if gaps.ndim not in (1, 2) or not gaps.size or not np.isfinite(gaps).all():
        raise ValueError(f"gaps: must be finite, (n,) or (n, m), not empty, got {gaps.shape}")
    rows = gaps.reshape(len(gaps), -1)
    if grid is None:
        grid = np.linspace(0.0, max(0.0, -float(rows.min())), 101)
    if grid.ndim != 1 or not grid.size or not np.isfinite(grid).all():
        raise ValueError(f"grid: must be finite, (g,), not empty, got {grid.shape}")
    n = len(rows)
    # Σ_{i,j} |y_i − y_j| = 2·Σ_k (2k − n − 1)·y_(k) over the sorted y
    ranks = 2.0 * np.arange(1, n + 1) - n - 1.0
    # a grid value that is meant to be a gap must not miss it by rounding
    spread = [float(np.sort((rows >= -t - 1e-12).mean(axis=1)) @ ranks) for t in grid.tolist()]
    most = max(spread)
    return float(next(t for t, s in zip(grid.tolist(), spread, strict=True) if s >= most - 1e-9))


def _likeliest(mean: Floats, deviation: Floats) -> Floats:
    """Of several arms, about how likely each is the best, up to a factor, (K,); > 0 somewhere."""
    gaps = mean[:, None] - mean[None, :]
    unsure = np.hypot(deviation[:, None], deviation[None, :])
    if not unsure.any():
        highest: Floats = (mean == mean.max()).astype(np.float64)
        return highest
    logs = -np.logaddexp(0.0, -np.clip(_PER_DEVIATION * gaps / unsure, -1e6, 1e6)).sum(axis=1)
    likely: Floats = np.exp(logs - logs.max())
    return likely


def _same_length(state: _Gaps, x: Floats) -> None:
    if not np.isfinite(x).all():
        raise ValueError("embedding: must be finite numbers")
    if state.features and x.size != state.features:
        raise ValueError(f"embedding: must have {state.features - 1} features, got {x.size - 1}")


def _cut(value: float) -> float:
    return min(1.0, max(-1.0, value))


def _logit(p: float) -> float:
    if p <= 0.0 or p >= 1.0:
        return math.copysign(math.inf, p - 0.5)
    return math.log(p / (1.0 - p))
