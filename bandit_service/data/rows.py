"""Rows of recorded traffic: what is read of them, and which may be left out.

A row may be skipped for a random reason, such as a line that was cut. It must not be skipped
because of its outcome: the remaining rows would be a selection by outcome, and everything learned
from them would be wrong. So a file is refused if a value of an outcome cannot be read, or if too
many rows are skipped for any reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bandit_service.parsing.inputs import is_truth, plain

MAX_LEFT_OUT = 0.1
"""The largest share of rows that is left out without being asked for."""

_NEAR = 1e-6  # beyond a bound is rounding
_LAST_BITS = 1e-15
_USUAL = ((-1.0, 1.0), (1.0, 5.0), (0.0, 5.0), (1.0, 10.0), (0.0, 10.0), (0.0, 100.0))


class BadRecording(ValueError):
    """The recording as a whole cannot be used; the message names the file and says why."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """One line that was left out, and why."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


class Malformed(Exception):
    """Why a row is left out."""


class Repeated(Malformed):
    """A row that repeats another one: nothing is lost without it."""


class Outcome(Malformed):
    """An invalid value of an outcome: the row may not be skipped."""

    def __init__(self, name: str, value: Any, allowed: str) -> None:
        super().__init__(f"{name}: must be {allowed}, got {value!r:.80}")
        self.name, self.value, self.allowed = name, value, allowed


@dataclass(frozen=True, slots=True)
class Scale:
    """The values of the worst and the best answer; quality is the position between them."""

    worst: float = 0.0
    best: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.worst) and math.isfinite(self.best)) or self.worst == self.best:
            raise ValueError("must be two different numbers, the worst and the best")

    def quality(self, name: str, value: Any) -> float:
        """In [0, 1], or NaN for a missing one. Raises `Outcome` for a value off the scale."""
        if is_truth(value):
            if (self.worst, self.best) != (0.0, 1.0):
                raise Outcome(name, value, self._allowed())
            return plain(value)  # type: ignore[no-any-return]
        low, high = sorted((self.worst, self.best))
        if isinstance(value, str) and value.rstrip().endswith("%"):
            if (low, high) not in ((0.0, 1.0), (0.0, 100.0)):
                raise Outcome(name, value, self._allowed())
            share = plain(value.rstrip().removesuffix("%"))
            if isinstance(share, int | float) and not is_truth(share):
                value = share * high / 100.0
        found = bounded_number(name, value, low, high, self._allowed())
        return (found - self.worst) / (self.best - self.worst) if self != Scale() else found

    def _allowed(self) -> str:
        low, high = sorted((self.worst, self.best))
        return f"a number from {low:g} to {high:g}"


def number_within(name: str, value: Any, high: float) -> float:
    """A float in [0, high], or NaN for a missing one. Raises `Outcome` for anything else.

    Measured values may be far below the maximum, so only a value below 0 by the last bits of a sum
    counts as rounding.
    """
    return bounded_number(name, value, 0.0, high, f"a number from 0 to {high:g}", _LAST_BITS)


def bounded_number(
    name: str, value: Any, low: float, high: float, allowed: str, near: float = _NEAR
) -> float:
    """A float from low to high, or NaN for a missing one. Raises `Outcome` for anything else."""
    found = plain(value)
    if found is None:
        return math.nan
    slack = near * (high - low)
    if not isinstance(found, int | float) or not low - slack <= found <= high + slack:
        raise Outcome(name, value, allowed)
    return min(max(float(found), low), high)


@dataclass
class LeftOut:
    """The rows of a file that are left out.

    most: the largest share that may be. way_out: what to do where values are on another scale, with
    {scale} for the likely one, {low} and {range} for its beginning and length.
    """

    path: Path
    most: float = MAX_LEFT_OUT
    way_out: str = "bring them to 0 to 1: (quality − {low}) / {range}"
    rows: list[BadRow] = field(default_factory=list)
    _counted: int = 0
    _outcomes: dict[str, list[tuple[int, Outcome]]] = field(default_factory=dict)

    def add(self, file: str, line: int, why: Malformed) -> None:
        """One row that is skipped."""
        self.rows.append(BadRow(file, line, str(why)))
        self._counted += not isinstance(why, Repeated)
        if isinstance(why, Outcome):
            self._outcomes.setdefault(why.name.partition("[")[0], []).append((line, why))

    def checked(self, taken: int) -> tuple[BadRow, ...]:
        """All skipped rows, given how many were used.

        Raises BadRecording if too many were skipped.
        """
        for found in self._outcomes.values():
            raise BadRecording(self._by_outcome(found, taken))
        if not taken:
            why = f"; {self.rows[0]}" if self.rows else ""
            raise BadRecording(f"{self.path}: no usable row{why}")
        share = self._counted / (taken + self._counted)
        few = 1 if self.most else 0  # one line, such as the last of a log that was cut
        if share > self.most and self._counted > few:
            raise BadRecording(
                f"{self.path}: {self._counted} of {taken + self._counted} rows ({share:.1%}) "
                f"cannot be used; at most {self.most:.0%} may be skipped. The first one is "
                f"{self.rows[0]}"
            )
        return tuple(self.rows)

    def _by_outcome(self, found: Sequence[tuple[int, Outcome]], taken: int) -> str:
        line, first = found[0]
        values = [plain(each.value) for _, each in found]
        numbers = [
            value for value in values if isinstance(value, int | float) and math.isfinite(value)
        ]
        span = f", from {min(numbers):g} to {max(numbers):g}" if numbers else ""
        return (
            f"{self.path}:{line}: {first}; "
            f"{len(found)} of {taken + self._counted} rows have such values{span}. Without them "
            f"the rest would be a biased selection: {self._hint(first, numbers)}"
        )

    def _hint(self, first: Outcome, numbers: Sequence[float]) -> str:
        if not numbers or not first.allowed.endswith("from 0 to 1"):
            return "fix them, or leave them empty if unknown"
        fits = [(low, high) for low, high in _USUAL if low <= min(numbers) and max(numbers) <= high]
        low, high = fits[0] if fits else (min(numbers), max(numbers))
        likely = f"{low:g} {high:g}"
        told = self.way_out.format(scale=likely, low=f"{low:g}", range=f"{high - low:g}")
        return f"{told} if {low:g} is the worst and {high:g} the best"
