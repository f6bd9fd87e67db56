"""A policy of `river.bandit` behind the protocol of this package; `_river_policies` has them all.

river's objects are no plain data, so the state holds the numbers that they hold, arm by arm, and
the objects are a cache that is made of these numbers. So nothing is pickled, and a state can be
dumped, restored and carried into another process. docs/policies/river.md says how, and what is
wrong with river's policies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from policies._checks import finite, two_arms, within
from policies._explore import mix
from policies._types import ArmId, Arms, Compared, Context, Floats, Proposal, Rewarded

Tables = dict[str, tuple[str, ...]]
"""river's dicts by arm, and which attributes of their values are kept; none: the value itself."""

MEAN: Tables = {"_rewards": ("n", "_mean")}
_LARGEST = 1e9  # of a reward: river squares and sums without a look


@dataclass
class Numbers:
    """Outcomes of one arm, and what river's objects hold of it, in the order of the tables."""

    count: int
    numbers: list[float]
    arrays: list[Floats]


@dataclass
class Learned:
    """n: outcomes of all arms. dim: of an embedding; 0 until one was learned from."""

    n: int = 0
    dim: int = 0
    arms: dict[ArmId, Numbers] = field(default_factory=dict)
    _river: Any = None


@dataclass(frozen=True)
class River:
    """What all have in common; a subclass is named as river's class is."""

    epsilon: float = 0.02
    burn_in: int = 0
    seed: int = 0

    reads_neighbours: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if find_spec("river") is None:
            raise ValueError("river is not installed; run: pip install river==0.26.1")
        within("epsilon", self.epsilon, 0.0, 1.0)
        within("burn_in", self.burn_in, 0, 1000)
        within("seed", self.seed, 0, 2**53)

    def init(self) -> Learned:
        """No outcome yet. Imports river, which takes a second or two where nothing has yet."""
        state = Learned()
        self._object(state)
        return state

    def propose(self, state: Learned, context: Context, arms: Arms) -> Proposal:
        """The share of river's pulls that each arm gets, mixed with uniform by ε.

        To river, arms that wait for their first outcome or for the end of their burn-in differ in
        nothing but their place in the list, so they get what they get in equal parts.
        """
        if not len(arms):
            raise ValueError("arms: no eligible arm to propose from")
        ids = sorted(arms.ids)
        river = self._object(state)
        river._rng.seed(_dice(self.seed, state.n, context.embedding.tobytes()))
        try:
            share = self._shares(river, state, context, ids)
        finally:  # a pull makes an entry of every arm that it looks at
            for arm in ids:
                if arm not in state.arms:
                    self._drop(river, arm)
        least = max(1, self.burn_in)
        waiting = [arm for arm in ids if river._counts[arm] < least]
        if waiting:
            share |= dict.fromkeys(waiting, sum(share[arm] for arm in waiting) / len(waiting))
        shares = np.array([share[arm] for arm in arms.ids])
        count = np.array([float(river._counts[arm]) for arm in arms.ids])
        return Proposal(shares, mix(shares, self._explored(state)), count=count)

    def learn(self, state: Learned, event: Rewarded | Compared) -> Learned:
        """One reward into river's objects, and what they hold then into the state.

        river knows no comparisons: they teach nothing.
        """
        if isinstance(event, Compared):
            two_arms(event)
            return state
        if event.reward is None:
            return state
        if abs(finite("reward", event.reward)) > _LARGEST:
            raise ValueError(f"reward: must be within ±{_LARGEST:g}, got {event.reward!r}")
        given = self._given(state, event, event.reward)
        river = self._object(state)
        river.update(event.arm, *given)
        state.n += 1
        state.dim = event.context.embedding.size
        state.arms[event.arm] = self._kept(river, event.arm)
        return state

    # What differs from one class of river's to another

    def _arguments(self) -> dict[str, Any]:
        """What river's class is made with."""
        return {}

    def _tables(self) -> Tables:
        return MEAN

    def _explored(self, state: Learned) -> float:
        """The part of the proposal that is uniform."""
        return self.epsilon

    def _given(self, state: Learned, event: Rewarded, reward: float) -> tuple[Any, ...]:
        """What river's `update` gets after the arm; refuses before anything is written."""
        return (reward,)

    def _shares(
        self, river: Any, state: Learned, context: Context, ids: list[ArmId]
    ) -> dict[ArmId, float]:
        """One pull gets all. Its draw, if there is one, is keyed by the state and the query."""
        return dict.fromkeys(ids, 0.0) | {river.pull(ids): 1.0}

    # river's objects, and the numbers in them

    def _object(self, state: Learned) -> Any:
        """river's policy as it is when it holds these numbers."""
        if state._river is None:
            river = getattr(import_module("river.bandit"), type(self).__name__)(**self._arguments())
            river.burn_in = self.burn_in  # three of its classes take it for their reward scaler
            river._n = state.n
            for arm, kept in state.arms.items():
                river._counts[arm] = kept.count
                self._fill(river, state, arm, kept)
            state._river = river
        return state._river

    def _fill(self, river: Any, state: Learned, arm: ArmId, kept: Numbers) -> None:
        numbers = iter(kept.numbers)
        for table, names in self._tables().items():
            if not names:
                getattr(river, table)[arm] = next(numbers)
            for name in names:
                owner, last = _owner(getattr(river, table)[arm], name)
                setattr(owner, last, next(numbers))

    def _kept(self, river: Any, arm: ArmId) -> Numbers:
        numbers = []
        for table, names in self._tables().items():
            value = getattr(river, table)[arm]
            numbers += [float(getattr(*_owner(value, name))) for name in names] or [float(value)]
        return Numbers(river._counts[arm], numbers, [])

    def _drop(self, river: Any, arm: ArmId) -> None:
        for table in self._tables():
            getattr(river, table).pop(arm, None)


@dataclass(frozen=True)
class Scaled(River):
    """Those that are made for rewards from 0 to 1, or for success and failure."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        within("low", self.low, -1e6, 1e6)
        within("high", self.high, -1e6, 1e6)
        if self.low >= self.high:
            raise ValueError(f"low: must be below high, got {self.low!r} and {self.high!r}")

    def _unit(self, reward: float) -> float:
        return min(1.0, max(0.0, (reward - self.low) / (self.high - self.low)))

    def _success(self, state: Learned, reward: float) -> int:
        """1 with the probability that the reward is, by a coin that the state throws.

        river takes every reward but 0 for a success. Agrawal & Goyal, "Analysis of Thompson
        sampling for the multi-armed bandit problem" (2012), algorithm 2.
        """
        return int(_dice(self.seed, state.n, b"coin") < self._unit(reward) * 2.0**64)


def _dice(seed: int, n: int, key: bytes) -> int:
    """64 bits that the seed, the outcomes so far and the key decide."""
    hashed = blake2b(f"{seed}/{n}/".encode() + key, digest_size=8)
    return int.from_bytes(hashed.digest(), "big")


def _owner(value: Any, path: str) -> tuple[Any, str]:
    """What holds the attribute at the end of the path, and its name there."""
    *way, last = path.split(".")
    for name in way:
        value = getattr(value, name)
    return value, last
