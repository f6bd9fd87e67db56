"""Bounds of hyper-parameters, refused by name."""

from __future__ import annotations

import math
from collections.abc import Sequence

from policies._types import Compared, Rewarded


def within(name: str, value: float, low: float, high: float = math.inf) -> None:
    """ValueError unless low <= value <= high and value is finite."""
    if not (low <= value <= high and value < math.inf):  # compares whole numbers of any length
        top = "" if high == math.inf else f" and <= {high:g}"
        raise ValueError(f"{name}: must be a number >= {low:g}{top}, got {value!r}")


def above(name: str, value: float, low: float) -> None:
    """ValueError unless value > low and value is finite."""
    if not low < value < math.inf:
        raise ValueError(f"{name}: must be a number > {low:g}, got {value!r}")


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """ValueError unless value is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name}: must be one of {', '.join(allowed)}, got {value!r}")


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
