"""How much an arm's quality differs between groups and between cells, learned from outcomes."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from policies._cells import GroupSums
from policies._types import Floats
from policies._watch import LEAST_COIN

WIDER = 20.0
"""If the arms are specialists, the spreads are this many times as wide as set."""
_EVIDENCE = 20.0
"""A spread's setting counts as the evidence of this many cells."""
_ERRORS = 5.0
"""1/(2s²) at s² = 0.1: what a squared error weighs."""
_STEPS = 1024.0
"""The probability of specialists is on a grid, so that no state has the last digits of exp()."""


_Counts: TypeAlias = tuple[Floats, Floats]
"""Outcomes by cell and arm, and the sums of their qualities."""


def variance(noise: float, mean: Floats) -> Floats:
    """s² of outcomes of these means."""
    found: Floats = noise * np.maximum(mean * (1.0 - mean), LEAST_COIN)
    return found


def shifted(m: Floats, n: Floats, s: Floats, each: Floats, g: float) -> Floats:
    """m + q: the posterior means of all arms, moved by this cell's difficulty.

    each: 1/(h·n + s²).
    """
    lack = np.add.reduce((s - m * n) * each, axis=-1, keepdims=True)
    moved: Floats = m + lack / (1.0 / g + np.add.reduce(n * each, axis=-1, keepdims=True))
    return moved


def moments(
    noise: float, parent: Floats, n: Floats, s: Floats, h: float, start: float, g: float
) -> tuple[Floats, float]:
    """The posterior in each cell, and the spread learned from its deviations from the level above.

    h ← (E·h₀ + Σ ω(r²/lever − s²/n))/(E + Σ ω),  r = s/n − parent − q,  ω = (n·h/(h·n + s²))²
    """
    one = variance(noise, parent)
    each = 1.0 / (h * n + one)
    w = n * each
    below = 1.0 / g + np.add.reduce(w, axis=1)[:, None]
    parent = shifted(parent, n, s, each, g)
    weight, some = (w * h) ** 2, np.maximum(n, 1e-9)
    lever = np.maximum(1.0 - w / below, 0.2)
    excess = np.where(n > 0.0, (s / some - parent) ** 2 / lever - one / some, 0.0)
    found = (_EVIDENCE * start + float(np.add.reduce(weight * excess, axis=None))) / (
        _EVIDENCE + float(np.add.reduce(weight, axis=None))
    )
    share = one * each
    return h * s * each + share * parent, min(max(found, 0.05 * start), 10.0 * start)


def evidence(
    noise: float, arms: Floats, sums: GroupSums, alike: float, start: float, g: float
) -> float:
    """L − L_wide: how much smaller squared errors are with h = `WIDER` · `start` than with `alike`,
    where each outcome is predicted from the others of its group."""
    narrow, wide = (
        _errors(noise, arms, sums.group_n, sums.group_s, h, g) for h in (alike, WIDER * start)
    )
    return narrow - wide


def evidence_of_cells(
    noise: float, arms: Floats, own: _Counts, others: _Counts, start: float, g: float
) -> float:
    """The same with h = `start` for arms that are alike, where each cell's outcomes are predicted
    from those that it would borrow from `others`, without its own."""
    narrow, wide = (
        _errors_of_cells(noise, arms, *own, *others, h, g) for h in (start, WIDER * start)
    )
    return narrow - wide


def probability(evidence: float, before: float) -> float:
    """P(the arms are specialists) = 1/(1 + (1 − P₀)/P₀·exp(−5·evidence)), P₀ = before."""
    against = (1.0 - before) / before * math.exp(min(max(-_ERRORS * evidence, -50.0), 50.0))
    return round(_STEPS / (1.0 + against)) / _STEPS


def _errors(noise: float, parent: Floats, n: Floats, s: Floats, h: float, g: float) -> float:
    """The sum of squared errors where each outcome is predicted from the others of its cell.

    m = (s + κp)/(n + κ) with the outcome, p = parent + q, and
    Σ (y − m₋)² = Σ (n(s/n − m)² + ρs(1 − s/n))·((n + κ)/(n − 1 + κ))² without it
    """
    parent = shifted(parent, n, s, 1.0 / (h * n + variance(noise, parent)), g)
    k, some = variance(noise, parent) / h, np.maximum(n, 1e-9)
    mean, m = s / some, (s + k * parent) / (n + k)
    inside = noise * np.maximum(s * (1.0 - mean), 0.0)
    ratio = (n + k) / (np.maximum(n, 1.0) - 1.0 + k)
    return float(np.add.reduce((n * (mean - m) ** 2 + inside) * ratio * ratio, axis=None))


def _errors_of_cells(
    noise: float,
    parent: Floats,
    n: Floats,
    s: Floats,
    other_n: Floats,
    other_s: Floats,
    h: float,
    g: float,
) -> float:
    """Σ n(s/n − m)², m from the other cells' outcomes: the squared errors, up to those around each
    s/n, which depend on no h."""
    each = 1.0 / (h * other_n + variance(noise, parent))
    parent = shifted(parent, other_n, other_s, each, g)
    k, mean = variance(noise, parent) / h, s / np.maximum(n, 1e-9)
    m = (other_s + k * parent) / (other_n + k)
    return float(np.add.reduce(n * (mean - m) ** 2, axis=None))
