"""Are the logged propensities the ones that were drawn with? A check that only a bandit has.

For each arm, s = Σ(1{drawn} − p) is a martingale when they are, with variance v = Σp(1 − p). So is
Σ(p of the drawn arm − Σp²) over all arms, with variance Σ(Σp³ − (Σp²)²): it finds a floor that was
not logged, or a temperature, which is the same for every arm. Steps are within ±1, therefore
exp(λs − v(e^λ − λ − 1)) is a supermartingale for every λ > 0, and the same for −s (Bennett); their
average over a grid of λ, and over arms with weights 1/(i (i + 1)) in the order in which they came,
is one too, whatever arms come later. 1 over it is a p-value at any time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.001
_GRID = tuple((2.0**-i, math.expm1(2.0**-i) - 2.0**-i) for i in range(12))
_MOST = 700.0
_AT_ONCE = 256
_second = itemgetter(1)
Floats: TypeAlias = NDArray[np.float64]


@dataclass
class Calibration:
    """By arm: Σ(1{drawn} − p) and Σp(1 − p). sharpness: both of the drawn arm's own propensity.

    decisions: those that chance had a part in. impossible: draws of an arm whose propensity was 0.
    """

    decisions: int = 0
    impossible: int = 0
    sharpness: list[float] = field(default_factory=lambda: [0.0, 0.0])
    sums: dict[str, list[float]] = field(default_factory=dict)

    def add(self, arms: Iterable[tuple[str, float]], drawn: str) -> None:
        """One decision: every eligible arm with its propensity, and the one that was drawn.

        O(arms). What could only go to one arm (a fixed one, one that was named) says nothing.
        """
        told = tuple(arms)
        least, most = min(map(_second, told), default=0.0), max(map(_second, told), default=0.0)
        if least <= 0.0 or most >= 1.0:
            told = tuple(self._chances(told, drawn))
            if not told:
                return
        sums, own, squares, cubes = self.sums, 0.0, 0.0, 0.0
        for arm, p in told:
            both = sums.get(arm)
            if both is None:
                both = sums[arm] = [0.0, 0.0]
            if arm == drawn:
                own = p
                both[0] += 1.0 - p
            else:
                both[0] -= p
            both[1] += p * (1.0 - p)
            square = p * p
            squares += square
            cubes += square * p
        self.sharpness[0] += own - squares
        self.sharpness[1] += max(0.0, cubes - squares * squares)
        self.decisions += squares > 0.0

    def add_many(
        self, arms: Sequence[str], propensities: Sequence[Sequence[float]], drawn: Sequence[int]
    ) -> None:
        """`add` of many decisions over the same arms, one after the other, to the same bits.

        propensities: (n, K). drawn: (n,) positions in `arms`. A running sum adds one after the
        other, as `add` does; numpy's own sum would not.
        """
        # of one shape, as `Calibrating` has checked; numpy takes thrice as long to find that out
        flat = np.fromiter(
            chain.from_iterable(propensities), np.float64, len(propensities) * len(arms)
        )
        p = flat.reshape(len(propensities), len(arms))
        by_chance = p.min() > 0.0 and p.max() < 1.0  # neither with a NaN
        if len(p) == 1 or not by_chance or len(set(arms)) < len(arms):
            for row, at in zip(propensities, drawn, strict=True):
                self.add(zip(arms, row, strict=True), arms[at])
            return
        rows, columns = np.arange(len(p)), np.array(drawn)
        before = [self.sums.setdefault(arm, [0.0, 0.0]) for arm in arms]
        steps = np.concatenate([[[one[0] for one in before]], -p])
        steps[rows + 1, columns] = 1.0 - p[rows, columns]
        spread = np.concatenate([[[one[1] for one in before]], p * (1.0 - p)])
        ends = zip(before, _running(steps)[-1], _running(spread)[-1], strict=True)
        for both, s, v in ends:
            both[0], both[1] = float(s), float(v)
        square = p * p
        squares, cubes = _running(square.T)[-1], _running((square * p).T)[-1]
        own = p[rows, columns] - squares
        wide = np.maximum(0.0, cubes - squares * squares)
        sums = np.concatenate([[self.sharpness], np.stack([own, wide], axis=1)])
        self.sharpness[:] = _running(sums)[-1].tolist()
        self.decisions += len(p)

    def _chances(
        self, told: Iterable[tuple[str, float]], drawn: str
    ) -> Iterator[tuple[str, float]]:
        """Those in which chance had a part; a draw that could not be is counted."""
        for arm, p in told:
            if p <= 0.0:
                self.impossible += arm == drawn
            elif p < 1.0 or arm != drawn:
                yield arm, p

    def p_value(self) -> float:
        """Of all arms together, valid at any time; 1 before anything was drawn by chance."""
        if self.impossible:
            return 0.0
        evidence, weight = 0.0, 1.0
        for i, (s, v) in enumerate((self.sharpness, *self.sums.values()), 1):
            evidence += _against(s, v) / (i * (i + 1))
            weight -= 1.0 / (i * (i + 1))
        return min(1.0, 1.0 / (evidence + weight))


@dataclass(eq=False, slots=True)
class Calibrating:
    """A calibration whose newest decisions wait, to be counted together, to the same bits.

    counted: without those that wait; `known` counts them first.
    """

    counted: Calibration = field(default_factory=Calibration)
    _arms: tuple[str, ...] = ()
    _waiting: list[tuple[float, ...]] = field(default_factory=list, repr=False)
    _drawn: list[int] = field(default_factory=list, repr=False)

    def add(self, arms: tuple[str, ...], propensities: tuple[float, ...], drawn: int) -> None:
        """One decision; drawn: the position of its arm. ValueError or IndexError where they do not
        fit, here and now: what waits is counted with another decision.
        """
        if arms != self._arms or len(self._drawn) >= _AT_ONCE:
            self.known()
            self._arms = arms
        if len(propensities) != len(arms):
            raise ValueError(f"{len(propensities)} propensities of {len(arms)} arms")
        if not -len(arms) <= drawn < len(arms):
            raise IndexError(f"arm {drawn} of {len(arms)}")
        self._waiting.append(propensities)
        self._drawn.append(drawn)

    def add_many(
        self,
        arms: tuple[str, ...],
        propensities: Iterable[tuple[float, ...]],
        drawn: Iterable[int],
    ) -> None:
        """`add` of decisions over the same arms, all of which fit."""
        if arms != self._arms or len(self._drawn) >= _AT_ONCE:
            self.known()
            self._arms = arms
        self._waiting.extend(propensities)
        self._drawn.extend(drawn)

    def known(self) -> Calibration:
        """Of all decisions up to now."""
        waiting, drawn = self._waiting, self._drawn
        if drawn:
            self._waiting, self._drawn = [], []
            self.counted.add_many(self._arms, waiting, drawn)
        return self.counted

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Calibrating) and self.known() == other.known()

    def folded(self) -> Calibration:
        """As it is kept."""
        return self.known()

    @classmethod
    def unfolded(cls, kept: Calibration) -> Calibrating:
        """That of which `folded` gave this."""
        return cls(kept)


def _running(steps: Floats) -> Floats:
    """Sums along the first axis, each one the one before and a step."""
    found: Floats = np.add.accumulate(steps, axis=0)
    return found


def _against(s: float, v: float) -> float:
    """The average of the supermartingales of one arm, 1 at the beginning."""
    terms = (
        math.exp(min(_MOST, sign * scale * s - cost * v))
        for scale, cost in _GRID
        for sign in (1.0, -1.0)
    )
    return sum(terms) / (2 * len(_GRID))
