"""Every policy of `river.bandit` by its name: `river:NAME` is the class NAME here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from hashlib import shake_256
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from policies._checks import finite, one_of, within
from policies._river import MEAN, Learned, Numbers, River, Scaled, Tables
from policies._types import ArmId, Compared, Context, Floats, Rewarded, Vector

__all__ = [
    "UCB",
    "BayesUCB",
    "EpsilonGreedy",
    "Exp3",
    "LinUCBDisjoint",
    "RandomPolicy",
    "ThompsonSampling",
]

_BETA = ("alpha", "beta")
_GAUSSIAN = ("_var.mean.n", "_var.mean._mean", "_var._S")
_HEAVY = 1e100  # of Exp3's weights: above it they are divided by the largest


@dataclass(frozen=True)
class RandomPolicy(River):
    """river's RandomPolicy: any arm, each as often as another.

    epsilon, seed: as in every policy of river's; they change nothing here.
    burn_in: 0 to 1000, outcomes of each arm before any arm with as many is proposed.
    """

    exempt: ClassVar[dict[str, str]] = {
        "the_best_arm_of_an_easy_problem_is_found": "it learns nothing, by design",
    }

    def _shares(
        self, river: Any, state: Learned, context: Context, ids: list[ArmId]
    ) -> dict[ArmId, float]:
        burning = [arm for arm in ids if river._counts[arm] < self.burn_in] or ids
        return dict.fromkeys(ids, 0.0) | dict.fromkeys(burning, 1.0 / len(burning))


@dataclass(frozen=True)
class EpsilonGreedy(River):
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

    def _explored(self, state: Learned) -> float:
        return self.epsilon * math.exp(-self.decay * state.n)


@dataclass(frozen=True)
class UCB(River):
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
class BayesUCB(Scaled):
    """river's BayesUCB: the highest quantile 1 − 1/(n + 1) of a beta distribution of each arm.

    epsilon: in [0, 1], the part of the proposal that is uniform.
    burn_in: 0 to 1000, outcomes of each arm before any arm with as many is proposed.
    seed: of the draw between equal quantiles, and of the coin that makes a reward a success.
    low, high: rewards that are a failure and a success for certain.
    """

    def _tables(self) -> Tables:
        return {**MEAN, "_posteriors": _BETA}

    def _given(self, state: Learned, event: Rewarded, reward: float) -> tuple[Any, ...]:
        return (self._success(state, reward),)


@dataclass(frozen=True)
class ThompsonSampling(Scaled):
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

    def _given(self, state: Learned, event: Rewarded, reward: float) -> tuple[Any, ...]:
        return (self._success(state, reward) if self.reward_obj == "Beta" else reward,)

    def _shares(
        self, river: Any, state: Learned, context: Context, ids: list[ArmId]
    ) -> dict[ArmId, float]:
        for arm in ids:  # one generator for all, which does not depend on when an arm came
            river._rewards[arm]._rng = river._rng
        pulls = [river.pull(ids) for _ in range(self.pulls)]
        return {arm: pulls.count(arm) / len(pulls) for arm in ids}


@dataclass(frozen=True)
class Exp3(Scaled):
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
        return {**MEAN, "_weights": ()}

    def _given(self, state: Learned, event: Rewarded, reward: float) -> tuple[Any, ...]:
        """The propensity of this very decision, where river takes that of its last pull.

        Exp3's own are never below gamma/K, which keeps the step below e.
        """
        finite("propensity", event.propensity)
        least = self.gamma / len(state.arms | {event.arm: None})
        p = max(event.propensity, least, 1e-9)
        self._object(state)._probabilities = {event.arm: p}
        return (self._unit(reward),)

    def _shares(
        self, river: Any, state: Learned, context: Context, ids: list[ArmId]
    ) -> dict[ArmId, float]:
        river._probabilities = {}
        pulled = river.pull(ids)
        return dict(river._probabilities) or dict.fromkeys(ids, 0.0) | {pulled: 1.0}

    def learn(self, state: Learned, event: Rewarded | Compared) -> Learned:
        """As river does; but its weights would overflow, and so are divided by the largest."""
        state = super().learn(state, event)
        if any(kept.numbers[-1] > _HEAVY for kept in state.arms.values()):
            largest = max(kept.numbers[-1] for kept in state.arms.values())
            for kept in state.arms.values():
                kept.numbers[-1] /= largest
            state._river = None
        return state


@dataclass(frozen=True)
class LinUCBDisjoint(River):
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
        return {**MEAN, "_bayes_lin_regs": ()}

    def _given(self, state: Learned, event: Rewarded, reward: float) -> tuple[Any, ...]:
        return (self._features(state, event.context.embedding), reward)

    def _shares(
        self, river: Any, state: Learned, context: Context, ids: list[ArmId]
    ) -> dict[ArmId, float]:
        pulled = river.pull(ids, self._features(state, context.embedding))
        return dict.fromkeys(ids, 0.0) | {pulled: 1.0}

    def _fill(self, river: Any, state: Learned, arm: ArmId, kept: Numbers) -> None:
        mean, model = river._rewards[arm], river._bayes_lin_regs[arm]
        mean.n, mean._mean = kept.numbers
        precision, covariance, sums = kept.arrays
        model._ss_arr, model._ss_inv_arr = precision.copy(), np.asfortranarray(covariance.copy())
        model._eta_arr, model._m_dirty, model._cap = sums.copy(), True, sums.size
        model._idx = {i: i for i in range(min(state.dim, self.dimensions) + 1)}

    def _kept(self, river: Any, arm: ArmId) -> Numbers:
        mean, model = river._rewards[arm], river._bayes_lin_regs[arm]
        arrays = [model._ss_arr, model._ss_inv_arr, model._eta_arr]
        return Numbers(river._counts[arm], [mean.n, mean._mean], arrays)

    def _features(self, state: Learned, embedding: Vector) -> dict[int, float]:
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
    return np.asarray(padded.reshape(-1, dimensions).sum(axis=0), np.float64)


@cache
def _signs(size: int) -> Floats:
    bits = np.frombuffer(shake_256(b"signs").digest(-(-size // 8)), np.uint8)
    signs: Floats = np.where(np.unpackbits(bits)[:size], 1.0, -1.0)
    return signs
