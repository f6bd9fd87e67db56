"""Estimates what another policy would have earned, from n logged decisions with their propensities.

With w = π(a|x) / μ(a|x), the candidate's probability of the arm that was drawn divided by the
logged one, r what came back, q a model of the reward and V(x) = Σ_a π(a|x) q(x, a):

    IPS         mean(w r)                               Horvitz & Thompson 1952
    clipped IPS mean(min(w, M) r)                       biased low for r >= 0
    SNIPS       Σ w r / Σ w                             Swaminathan & Joachims 2015
    DM          mean(V)                                 as biased as the model
    DR          mean(V + w (r − q))                     Dudík et al., arXiv 1103.4601
    SNDR        mean(V) + Σ w (r − q) / Σ w
    Switch-DR   mean(V + w 1{w <= τ} (r − q))           Wang et al., arXiv 1612.01205
    DRos        mean(V + λw / (λ + w²) (r − q))         Su et al., arXiv 1907.09623

Each is mean(plain) + Σ weighted / Σ weight, so one function gives the value of all, one their
standard errors and one their bootstrap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

MIN_ESS = 100.0
MIN_EXPLORED = 100.0
MAX_SHARE = 0.1
MEAN_WEIGHT = (0.9, 1.1)
NEGLIGIBLE = 1e-9
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Overlap:
    """How far the log can speak for the candidate: Σw, Σw² and max w over n outcomes.

    impossible: the mean probability that the candidate gives to arms which the log never could
    take.
    """

    n: int
    w: float
    ww: float
    most: float
    impossible: float = 0.0

    @property
    def ess(self) -> float:
        """(Σw)² / Σw²: worth this many decisions by the candidate itself (Kish)."""
        return self.w * self.w / self.ww if self.ww > 0.0 else 0.0

    @property
    def mean(self) -> float:
        """Σw / n, which is 1 but for chance where all is as it should be."""
        return self.w / self.n if self.n else 0.0

    @property
    def share(self) -> float:
        """The part of the weight that one outcome carries."""
        return self.most / self.w if self.w > 0.0 else 0.0

    def refusal(self) -> str:
        """Why there is no estimate; empty if there may be one."""
        low, high = MEAN_WEIGHT
        if self.impossible > NEGLIGIBLE:
            return (
                f"the policy gives {self.impossible:.2%} of its probability to arms that the "
                "log never could take"
            )
        if self.share > MAX_SHARE:
            return f"one outcome carries {self.share:.0%} of the weight, more than {MAX_SHARE:.0%}"
        if self.ess < MIN_ESS:
            return f"the effective sample size is {self.ess:.0f}, below {MIN_ESS:.0f}"
        if not low <= self.mean <= high:
            return f"the mean weight is {self.mean:.3f}, outside of {low:g} to {high:g}"
        return ""


@dataclass(frozen=True, slots=True)
class Explored:
    """How much a log explores every arm, whatever policy decided: n outcomes, ε of them explored, K
    arms.

    share: ε, the mean of K times the least probability of an eligible arm. per_arm: nε/K, the sum
    of the least probabilities; about the effective size of "always this arm" for the worst arm.
    """

    n: int
    share: float
    per_arm: float

    def refusal(self) -> str:
        """Why there is no doubly robust estimate; empty if there may be one.

        With little exploration the weighted errors that should correct the model add more error
        than they remove.
        """
        if self.per_arm >= MIN_EXPLORED - NEGLIGIBLE:
            return ""
        why = (
            f"exploration brought n·ε/K = {self.per_arm:.0f} outcomes of each arm, fewer than "
            f"{MIN_EXPLORED:.0f}; the model alone (DM) mostly errs less then"
        )
        if self.needed is None:
            return f"{why}; the log does not explore, so more decisions like these do not help"
        return f"{why}; it takes {self.needed} more decisions with an outcome, explored as these"

    @property
    def needed(self) -> int | None:
        """How many more outcomes are needed for one; None if the log does not explore."""
        if self.per_arm >= MIN_EXPLORED - NEGLIGIBLE:
            return 0
        if self.per_arm <= self.n * NEGLIGIBLE:
            return None
        return math.ceil(self.n * (MIN_EXPLORED / self.per_arm - 1.0) - NEGLIGIBLE)


def explored(least: Floats, arms: Whole) -> Explored:
    """Of the least probability (n,) of an eligible arm, and the numbers (n,) of these."""
    if not least.size:
        return Explored(0, 0.0, 0.0)
    return Explored(len(least), float((least * arms).mean()), math.fsum(least.tolist()))


def overlap(w: Floats, impossible: float = 0.0) -> Overlap:
    """Of weights (n,)."""
    if not w.size:
        return Overlap(0, 0.0, 0.0, 0.0, impossible)
    return Overlap(len(w), float(w.sum()), float(w @ w), float(w.max()), impossible)


@dataclass(frozen=True, slots=True)
class Modelled:
    """What a model says of n decisions: (n,) V(x), and (n,) q of the arm that was drawn."""

    value: Floats
    drawn: Floats


@dataclass(frozen=True, slots=True)
class Terms:
    """An estimator's parts, (n,) each: the estimate is mean(plain) + Σ weighted / Σ weight."""

    plain: Floats
    weighted: Floats
    weight: Floats

    @property
    def value(self) -> float:
        """The estimate."""
        return float(self.plain.mean() + self.weighted.sum() / self.weight.sum())

    def influence(self) -> Floats:
        """(n,) what each decision adds to the estimate beyond its part of the mean; sums to 0."""
        ratio = self.weighted.sum() / self.weight.sum()
        moved = (self.weighted - ratio * self.weight) / self.weight.mean()
        each: Floats = self.plain - self.plain.mean() + moved
        return each


def ips(w: Floats, r: Floats) -> Terms:
    """Inverse propensity scoring: unbiased, with heavy tails."""
    return Terms(np.zeros_like(r), w * r, np.ones_like(r))


def clipped_ips(w: Floats, r: Floats, most: float) -> Terms:
    """IPS with no weight above `most`."""
    return ips(np.minimum(w, most), r)


def snips(w: Floats, r: Floats) -> Terms:
    """Self-normalised: adding a constant to every reward adds just that. ValueError for Σw = 0."""
    if not w.sum() > 0.0:
        raise ValueError("w: no decision has any weight")
    return Terms(np.zeros_like(r), w * r, w)


def direct(q: Modelled) -> Terms:
    """The direct method: the model alone."""
    return Terms(q.value, np.zeros_like(q.value), np.ones_like(q.value))


def doubly_robust(w: Floats, r: Floats, q: Modelled) -> Terms:
    """The model, corrected by its weighted errors: right if either propensities or model are."""
    return Terms(q.value, w * (r - q.drawn), np.ones_like(r))


def self_normalised_dr(w: Floats, r: Floats, q: Modelled) -> Terms:
    """DR with the mean error self-normalised. ValueError for Σw = 0."""
    return Terms(q.value, snips(w, r - q.drawn).weighted, w)


def switch_dr(w: Floats, r: Floats, q: Modelled, most: float) -> Terms:
    """DR where w <= most, and the model alone elsewhere."""
    return doubly_robust(np.where(w <= most, w, 0.0), r, q)


def shrunk_dr(w: Floats, r: Floats, q: Modelled, strength: float) -> Terms:
    """DR with optimistic shrinkage λw / (λ + w²): λ = 0 is DM, λ = ∞ is DR."""
    return doubly_robust(strength * w / (strength + w * w), r, q)


def standard_error(terms: Terms, units: Whole | None = None) -> float:
    """By the central limit theorem. units: (n,) 0…m−1, whose answers may depend on each other."""
    each = terms.influence()
    n = len(each)
    sums = each if units is None else np.bincount(units, weights=each)
    m = len(sums)
    if m < 2:
        return math.inf
    return float(math.sqrt(float(sums @ sums) * m / (m - 1)) / n)


def bootstrap(
    terms: Terms, alpha: float, units: Whole | None = None, rounds: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval over resampled units; for reports, not for acting on it."""
    n = len(terms.plain)
    unit = np.arange(n) if units is None else units
    sums = np.stack(
        [
            np.bincount(unit, weights=part)
            for part in (terms.plain, terms.weighted, terms.weight, np.ones(n))
        ]
    )
    m = sums.shape[1]
    rng = np.random.default_rng(seed)
    values = np.empty(rounds)
    for start in range(0, rounds, _BLOCK):
        size = min(_BLOCK, rounds - start)
        drawn = rng.integers(0, m, size=(size, m))
        plain, weighted, weight, count = (row[drawn].sum(axis=1) for row in sums)
        with np.errstate(divide="ignore", invalid="ignore"):
            values[start : start + size] = plain / count + weighted / weight
    low, high = np.nanquantile(values, (alpha / 2, 1.0 - alpha / 2))
    return float(low), float(high)
