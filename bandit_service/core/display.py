"""Money and rewards as answers show them. What is recorded, folded or weighed stays exact."""

from __future__ import annotations

_PLACES = 12
"""Decimal places; further ones are what adding floats leaves."""


def rounded(value: float) -> float:
    """The value without what adding floats leaves.

    >>> rounded(0.1 + 0.2), rounded(-1e-17), rounded(4.5e-7)
    (0.3, 0.0, 4.5e-07)
    """
    return round(value, _PLACES) + 0.0  # so that none is -0.0
