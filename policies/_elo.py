"""Elo: ratings from pairwise outcomes. arXiv 2409.15518v2, section 2 (Eagle)."""

from __future__ import annotations

from policies._types import ArmId


def elo_expected(rating: float, opponent: float) -> float:
    """E = 1 / (1 + 10^((R_opp − R)/400)).

    >>> elo_expected(1400.0, 1000.0)
    0.9090909090909091
    """
    # cut where E is 0 or 1 in double precision anyway, since a larger power overflows
    behind = min(300.0, max(-300.0, (opponent - rating) / 400.0))
    return float(1.0 / (1.0 + 10.0**behind))


def elo_match(
    ratings: dict[ArmId, float], first: ArmId, second: ArmId, score: float, k: float, initial: float
) -> None:
    """R' = R + K·(S − E) for both arms; S is the first one's score: 1 won, 0.5 tie, 0 lost.

    What the first gains the second loses, so the mean rating stays where it began.
    """
    a, b = ratings.get(first, initial), ratings.get(second, initial)
    gain = k * (score - elo_expected(a, b))
    ratings[first], ratings[second] = a + gain, b - gain
