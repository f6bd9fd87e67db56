"""Bounds of hyper-parameters, refused by name."""

from __future__ import annotations

import math
from collections.abc import Sequence

from policies._types import Compared, Rewarded

LEAST, MOST = 1e-12, 1e12
"""Of a number that must be above 0, and of any: beyond these, floats soon overflow or are lost."""


def within(name: str, value: float, low: float, high: float = MOST) -> None:
    """ValueError unless low <= value <= high."""
    if not low <= value <= high:  # compares whole numbers of any length
        raise ValueError(f"{name}: must be a number >= {low:g} and <= {high:g}, got {value!r:.40}")


def above(name: str, value: float, low: float, high: float = MOST) -> None:
    """ValueError unless low < value <= high."""
    if not low < value <= high:
        raise ValueError(f"{name}: must be a number > {low:g} and <= {high:g}, got {value!r:.40}")


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """ValueError unless value is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name}: must be one of {', '.join(allowed)}, got {value!r:.40}")


def finite(name: str, value: float) -> float:
    """The value itself; ValueError when it is not a finite number."""
    if not math.isfinite(value):
        raise ValueError(f"{name}: must be a finite number, got {value!r}")
    return value


def settled(event: Rewarded) -> float:
    """The scalar reward of an outcome; ValueError if it has none."""
    if event.reward is None:
        raise ValueError("reward: must be known, got none")
    return finite("reward", event.reward)


def two_arms(event: Compared) -> None:
    """ValueError when an arm is compared with itself."""
    if event.winner == event.loser:
        raise ValueError(f"loser: must be another arm than the winner, got {event.loser!r} twice")
