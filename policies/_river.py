"""Any policy of `river.bandit` by the name `river:NAME`, behind the protocol of this package.

river's objects are no plain data, so the state holds the numbers that they hold, arm by arm, and
the objects are a cache that is made of these numbers. So nothing is pickled, and a state can be
dumped, restored and carried into another process. docs/policies/river.md says how, and what is
wrong with river's policies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b, shake_256
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from policies._checks import finite, one_of, two_arms, within
from policies._explore import mix
from policies._types import ArmId, Arms, Compared, Context, Floats, Proposal, Rewarded, Vector

__all__ = [
    "UCB",
    "BayesUCB",
    "EpsilonGreedy",
    "Exp3",
    "LinUCBDisjoint",
    "RandomPolicy",
    "ThompsonSampling",
]

Tables = dict[str, tuple[str, ...]]
"""river's dicts by arm, and which attributes of their values are kept; none: the value itself."""

_MEAN: Tables = {"_rewards": ("n", "_mean")}
_BETA = ("alpha", "beta")
_GAUSSIAN = ("_var.mean.n", "_var.mean._mean", "_var._S")
_LARGEST = 1e9  # of a reward: river squares and sums without a look
_HEAVY = 1e100  # of Exp3's weights: above it they are divided by the largest


@dataclass
class _Arm:
    """Outcomes of one arm, and what river's objects hold of it, in the order of the tables."""

    count: int
    numbers: list[float]
    arrays: list[Floats]


@dataclass
class _Learned:
    """n: outcomes of all arms. dim: of an embedding; 0 until one was learned from."""

    n: int = 0
    dim: int = 0
    arms: dict[ArmId, _Arm] = field(default_factory=dict)
    _river: Any = None


@dataclass(frozen=True)
class _River:
    """What all have in common; a subclass is named as river's class is."""

    epsilon: float = 0.02
    burn_in: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        within("epsilon", self.epsilon, 0.0, 1.0)
        within("burn_in", self.burn_in, 0, 1000)
        within("seed", self.seed, 0, 2**53)

    def init(self) -> _Learned:
        """No outcome yet. Imports river, which takes a second or two where nothing has yet."""
        state = _Learned()
        self._object(state)
        return state

    def propose(self, state: _Learned, context: Context, arms: Arms) -> Proposal:
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

    def learn(self, state: _Learned, event: Rewarded | Compared) -> _Learned:
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
        return _MEAN

    def _explored(self, state: _Learned) -> float:
        """The part of the proposal that is uniform."""
        return self.epsilon

    def _given(self, state: _Learned, event: Rewarded, reward: float) -> tuple[Any, ...]:
        """What river's `update` gets after the arm; refuses before anything is written."""
        return (reward,)

    def _shares(
        self, river: Any, state: _Learned, context: Context, ids: list[ArmId]
    ) -> dict[ArmId, float]:
        """One pull gets all. Its draw, if there is one, is keyed by the state and the query."""
        return dict.fromkeys(ids, 0.0) | {river.pull(ids): 1.0}

    # river's objects, and the numbers in them

    def _object(self, state: _Learned) -> Any:
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

    def _fill(self, river: Any, state: _Learned, arm: ArmId, kept: _Arm) -> None:
        numbers = iter(kept.numbers)
        for table, names in self._tables().items():
            if not names:
                getattr(river, table)[arm] = next(numbers)
            for name in names:
                owner, last = _owner(getattr(river, table)[arm], name)
                setattr(owner, last, next(numbers))

    def _kept(self, river: Any, arm: ArmId) -> _Arm:
        numbers = []
        for table, names in self._tables().items():
            value = getattr(river, table)[arm]
            numbers += [float(getattr(*_owner(value, name))) for name in names] or [float(value)]
        return _Arm(river._counts[arm], numbers, [])

    def _drop(self, river: Any, arm: ArmId) -> None:
        for table in self._tables():
            getattr(river, table).pop(arm, None)


@dataclass(frozen=True)
class _Scaled(_River):
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

    def _success(self, state: _Learned, reward: float) -> int:
        """1 with the probability that the reward is, by a coin that the state throws.

        river takes every reward but 0 for a success. Agrawal & Goyal, "Analysis of Thompson
        sampling for the multi-armed bandit problem" (2012), algorithm 2.
        """
        return int(_dice(self.seed, state.n, b"coin") < self._unit(reward) * 2.0**64)


@dataclass(frozen=True)
class RandomPolicy(_River):
    """river's RandomPolicy: any arm, each as often as another.

    epsilon, seed: as in every policy of river's; they change nothing here.
    burn_in: 0 to 1000, outcomes of each arm before any arm with as many is proposed.
    """

    exempt: ClassVar[dict[str, str]] = {
        "the_best_arm_of_an_easy_problem_is_found": "it learns nothing, by design",
    }

    def _shares(
        self, river: Any, state: _Learned, context: Context, ids: list[ArmId]
    ) -> dict[ArmId, float]:
        burning = [arm for arm in ids if river._counts[arm] < self.burn_in] or ids
        return dict.fromkeys(ids, 0.0) | dict.fromkeys(burning, 1.0 / len(burning))


@dataclass(frozen=True)
class EpsilonGreedy(_River):
    """river's EpsilonGreedy: the arm with the best mean reward, and with probability ε any arm.

    epsilon: in [0, 1], ε; river's own, which is told to it as 0 and mixed in here.
    burn_in: 0 to 1000, outcomes of each arm before any arm with as many is proposed.
    seed: of its draws, of which there are none here.
    decay: in [0, 1]: ε·exp(−decay·n) after n outcomes.
    """

    decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        within("decay", self.decay, 0.0, 1.0)

    def _arguments(self) -> dict[str, Any]:
        return {"epsilon": 0.0}

    def _explored(self, state: _Learned) -> float:
        return self.epsilon * math.exp(-self.decay * state.n)


@dataclass(frozen=True)
class UCB(_River):
    """river's UCB: the highest mean + delta·√(2 ln n / n_i); arms without an outcome first.

    epsilon: in [0, 1], the part of the proposal that is uniform.
    burn_in: 0 to 1000, outcomes of each arm before any arm with as many is proposed.
    seed: of the draw between equal bounds.
    delta: in [0, 1000], how much the bound counts.
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        within("delta", self.delta, 0.0, 1000.0)

    def _arguments(self) -> dict[str, Any]:
        return {"delta": self.delta}


@dataclass(frozen=True)
class BayesUCB(_Scaled):
    """river's BayesUCB: the highest quantile 1 − 1/(n + 1) of a beta distribution of each arm.

    epsilon: in [0, 1], the part of the proposal that is uniform.
    burn_in: 0 to 1000, outcomes of each arm before any arm with as many is proposed.
    seed: of the draw between equal quantiles, and of the coin that makes a reward a success.
    low, high: rewards that are a failure and a success for certain.
    """

    def _tables(self) -> Tables:
        return {**_MEAN, "_posteriors": _BETA}

    def _given(self, state: _Learned, event: Rewarded, reward: float) -> tuple[Any, ...]:
        return (self._success(state, reward),)


@dataclass(frozen=True)
class ThompsonSampling(_Scaled):
    """river's ThompsonSampling: an arm is as likely as it is to have the best sample.

    epsilon: in [0, 1], the part of the proposal that is uniform.
    burn_in: 0 to 1000, outcomes of each arm before any arm with as many is proposed.
    seed: of the samples, and of the coin that makes a reward a success.
    low, high: rewards that are a failure and a success for certain; Gaussian takes rewards as they
        are.
    reward_obj: "Beta", or "Gaussian", which samples an outcome of the arm and not its mean.
    pulls: 1 to 1000, how often river pulls for one proposal; shares are multiples of 1/pulls.
    """

    reward_obj: str = "Beta"
    pulls: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("reward_obj", self.reward_obj, ("Beta", "Gaussian"))
        within("pulls", self.pulls, 1, 1000)

    def _arguments(self) -> dict[str, Any]:
        return {"reward_obj": getattr(import_module("river.proba"), self.reward_obj)()}

    def _tables(self) -> Tables:
        return {"_rewards": _BETA if self.reward_obj == "Beta" else _GAUSSIAN}

    def _given(self, state: _Learned, event: Rewarded, reward: float) -> tuple[Any, ...]:
        return (self._success(state, reward) if self.reward_obj == "Beta" else reward,)

    def _shares(
        self, river: Any, state: _Learned, context: Context, ids: list[ArmId]
    ) -> dict[ArmId, float]:
        for arm in ids:  # one generator for all, which does not depend on when an arm came
            river._rewards[arm]._rng = river._rng
        pulls = [river.pull(ids) for _ in range(self.pulls)]
        return {arm: pulls.count(arm) / len(pulls) for arm in ids}


@dataclass(frozen=True)
class Exp3(_Scaled):
    """river's Exp3: weights that grow by exp(gamma·r / (p·K)), with gamma uniform.

    epsilon: in [0, 1], the part of the proposal that is uniform, besides gamma.
    burn_in: 0 to 1000, outcomes of each arm before any arm with as many is proposed.
    seed: of its draws, of which there are none here: its probabilities are what is proposed.
    low, high: rewards that count as 0 and as 1.
    gamma: in [0, 1].
    """

    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        within("gamma", self.gamma, 0.0, 1.0)

    def _arguments(self) -> dict[str, Any]:
        return {"gamma": self.gamma}

    def _tables(self) -> Tables:
        return {**_MEAN, "_weights": ()}

    def _given(self, state: _Learned, event: Rewarded, reward: float) -> tuple[Any, ...]:
        """The propensity of this very decision, where river takes that of its last pull.

        Exp3's own are never below gamma/K, which keeps the step below e.
        """
        finite("propensity", event.propensity)
        least = self.gamma / len(state.arms | {event.arm: None})
        p = max(event.propensity, least, 1e-9)
        self._object(state)._probabilities = {event.arm: p}
        return (self._unit(reward),)

    def _shares(
        self, river: Any, state: _Learned, context: Context, ids: list[ArmId]
    ) -> dict[ArmId, float]:
        river._probabilities = {}
        pulled = river.pull(ids)
        return dict(river._probabilities) or dict.fromkeys(ids, 0.0) | {pulled: 1.0}

    def learn(self, state: _Learned, event: Rewarded | Compared) -> _Learned:
        """As river does; but its weights would overflow, and so are divided by the largest."""
        state = super().learn(state, event)
        if any(kept.numbers[-1] > _HEAVY for kept in state.arms.values()):
            largest = max(kept.numbers[-1] for kept in state.arms.values())
            for kept in state.arms.values():
                kept.numbers[-1] /= largest
            state._river = None
        return state


@dataclass(frozen=True)
class LinUCBDisjoint(_River):
    """river's LinUCBDisjoint: the highest mean + deviation of an answer, by a regression per arm.

    epsilon: in [0, 1], the part of the proposal that is uniform.
    burn_in: 0 to 1000, outcomes of each arm before any arm with as many is proposed.
    seed: of the draw between equal bounds.
    alpha: in [0.001, 1000], the precision of a weight before any outcome: a ridge.
    beta: in [0.001, 1000], the precision of an answer.
    dimensions: 1 to 4096, features to which a longer embedding is folded; a constant comes beside.
    """

    alpha: float = 1.0
    beta: float = 1.0
    dimensions: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        within("alpha", self.alpha, 1e-3, 1e3)
        within("beta", self.beta, 1e-3, 1e3)
        within("dimensions", self.dimensions, 1, 4096)

    def _arguments(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "beta": self.beta}

    def _tables(self) -> Tables:
        return {**_MEAN, "_bayes_lin_regs": ()}

    def _given(self, state: _Learned, event: Rewarded, reward: float) -> tuple[Any, ...]:
        return (self._features(state, event.context.embedding), reward)

    def _shares(
        self, river: Any, state: _Learned, context: Context, ids: list[ArmId]
    ) -> dict[ArmId, float]:
        pulled = river.pull(ids, self._features(state, context.embedding))
        return dict.fromkeys(ids, 0.0) | {pulled: 1.0}

    def _fill(self, river: Any, state: _Learned, arm: ArmId, kept: _Arm) -> None:
        mean, model = river._rewards[arm], river._bayes_lin_regs[arm]
        mean.n, mean._mean = kept.numbers
        precision, covariance, sums = kept.arrays
        model._ss_arr, model._ss_inv_arr = precision.copy(), np.asfortranarray(covariance.copy())
        model._eta_arr, model._m_dirty, model._cap = sums.copy(), True, sums.size
        model._idx = {i: i for i in range(min(state.dim, self.dimensions) + 1)}

    def _kept(self, river: Any, arm: ArmId) -> _Arm:
        mean, model = river._rewards[arm], river._bayes_lin_regs[arm]
        arrays = [model._ss_arr, model._ss_inv_arr, model._eta_arr]
        return _Arm(river._counts[arm], [mean.n, mean._mean], arrays)

    def _features(self, state: _Learned, embedding: Vector) -> dict[int, float]:
        """The embedding, folded where it is longer, and a constant."""
        if state.dim not in (0, embedding.size):
            raise ValueError(f"embedding: must have {state.dim} features, got {embedding.size}")
        if not np.isfinite(embedding).all():
            raise ValueError("embedding: must be finite numbers")
        return dict(enumerate([*_folded(embedding, self.dimensions).tolist(), 1.0]))


def _folded(x: Vector, dimensions: int) -> Floats:
    """Every `dimensions`-th number added up, each under a sign of its own.

    A fixed projection that keeps inner products in the mean over signs.
    Source: Weinberger et al., "Feature hashing for large scale multitask learning" (2009).
    """
    if x.size <= dimensions:
        return x.astype(np.float64)
    padded = np.zeros(-(-x.size // dimensions) * dimensions)
    padded[: x.size] = x * _signs(x.size)
    folded: Floats = padded.reshape(-1, dimensions).sum(axis=0)
    return folded


@cache
def _signs(size: int) -> Floats:
    bits = np.frombuffer(shake_256(b"signs").digest(-(-size // 8)), np.uint8)
    return np.unpackbits(bits)[:size] * 2.0 - 1.0


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
