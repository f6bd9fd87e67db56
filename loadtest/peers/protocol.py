"""One pass of a peer over a recording: a query comes, the peer chooses, one outcome comes back."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bandit_service.core import chance
from bandit_service.core.events import ArmSpec
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import Recorded
from bandit_service.offline.baselines import Track
from bandit_service.offline.simulate import order_of
from policies import Floats


class Missing(Exception):
    """A package that is not installed; the message has the command that installs it."""


class Illegal(ValueError):
    """A peer chose what is not there."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a peer is told before the first query.

    arms: K arms with their list prices, in the order of the indices. dim: d of `Asked.x`.
    seed: of all chance that the peer uses. target_usd: mean cost per query that a paced peer is
    to keep, None for no budget.
    """

    arms: tuple[ArmSpec, ...]
    dim: int
    seed: int
    target_usd: float | None = None

    @property
    def ids(self) -> list[str]:
        """K ids."""
        return [str(arm.id) for arm in self.arms]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a peer is shown of a query.

    x: (d,) features, without a constant. costs_usd: (K,) expected cost by list price, for
    `ArmSpec.expected_output_tokens` of output. tokens: of the query. text: the query itself.
    """

    x: Floats
    costs_usd: Floats
    tokens: int
    text: str

    @property
    def with_constant(self) -> Floats:
        """(d + 1,) the features and a constant 1, for peers that fit no intercept."""
        x: Floats = np.append(self.x, 1.0)
        return x


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back of the chosen arm; `reward` is the scalar that all are judged by."""

    reward: float
    quality: float
    cost_usd: float


class Peer(Protocol):
    """A bandit of another library, one object for one pass."""

    def choose(self, asked: Asked, /) -> tuple[int, float | None]:
        """Index of the chosen arm, and the probability that it had where the peer says."""
        ...

    def learn(self, asked: Asked, arm: int, propensity: float | None, outcome: Outcome, /) -> None:
        """The outcome of the arm that was just drawn for `asked`: the peer's, or the floor's."""
        ...


@dataclass(frozen=True, slots=True)
class Passed:
    """One pass.

    arm: (n,) indices drawn. decide_s, learn_s: (n,) seconds in each call.
    """

    arm: NDArray[np.int64]
    track: Track
    decide_s: Floats
    learn_s: Floats


@runtime_checkable
class Telling(Protocol):
    """A peer that says how likely any arm was for the query that it was asked last."""

    def probability(self, arm: int, /) -> float:
        """Of the arm, by the peer's own distribution."""
        ...


class Floored:
    """A peer at a floor: a share of the queries goes to all arms alike, as the service does it.

    The peer learns from these as from its own; one that takes propensities gets those of both.
    """

    def __init__(self, peer: Peer, problem: Problem, share: float) -> None:
        self._peer, self._share = peer, share
        self._seed, self._step, self._arms = problem.seed, 0, len(problem.arms)

    def choose(self, asked: Asked) -> tuple[int, float | None]:
        """The peer's choice, or an arm drawn evenly in its place."""
        arm, propensity = self._peer.choose(asked)
        self._step += 1
        u = chance.uniform(self._seed, f"floor:{self._step}")
        if u < self._share:
            arm = min(int(u / self._share * self._arms), self._arms - 1)
            propensity = self._peer.probability(arm) if isinstance(self._peer, Telling) else None
        if propensity is None:
            return arm, None
        return arm, (1.0 - self._share) * propensity + self._share / self._arms

    def learn(self, asked: Asked, arm: int, propensity: float | None, outcome: Outcome) -> None:
        """The outcome of what was drawn, whoever drew it."""
        self._peer.learn(asked, arm, propensity, outcome)


@dataclass(frozen=True, slots=True)
class Shifted:
    """A peer that is taught reward − 1, so that an arm it knows nothing of, at 0, looks perfect.

    That changes what no arm is worth beside another, but it is the optimism that a library which
    begins at 0 has not when rewards are mostly positive.
    """

    peer: Peer

    def choose(self, asked: Asked) -> tuple[int, float | None]:
        """The peer's choice."""
        return self.peer.choose(asked)

    def learn(self, asked: Asked, arm: int, propensity: float | None, outcome: Outcome) -> None:
        """The same outcome, one lower."""
        lower = Outcome(outcome.reward - 1.0, outcome.quality, outcome.cost_usd)
        self.peer.learn(asked, arm, propensity, lower)


def need(module: str, install: str) -> Any:
    """The module, or Missing with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Missing(f"{module.partition('.')[0]} is not installed: {install} ({error})") from None


def pass_through(
    recorded: Recorded, features: Floats, peer: Peer, rule: RewardRule, seed: int
) -> Passed:
    """Stream the queries in the order of `seed`; every arm must have an answer to every query.

    features: (n, d), row by row of the recording. The order and the reward are those of
    `bandit_service.offline.simulate`.
    """
    order = order_of(recorded, seed)
    n, k = recorded.quality.shape
    listed = list_costs(recorded.arms, recorded.tokens)
    drawn = np.zeros(n, np.int64)
    reward, decide_s, learn_s = np.zeros(n), np.zeros(n), np.zeros(n)
    for step, row in enumerate(order.tolist()):
        asked = Asked(features[row], listed[row], int(recorded.tokens[row]), recorded.texts[row])
        begun = time.perf_counter()
        arm, propensity = peer.choose(asked)
        decided = time.perf_counter()
        if not 0 <= arm < k:
            raise Illegal(f"choose: must be an arm from 0 to {k - 1}, got {arm!r}")
        if propensity is not None and not 0.0 < propensity <= 1.0 + 1e-6:
            raise Illegal(f"choose: propensity must be in (0, 1], got {propensity!r}")
        quality, cost_usd = float(recorded.quality[row, arm]), float(recorded.cost[row, arm])
        earned = rule.scalar(quality, cost_usd, 0.0, rule.willingness_to_pay)
        known = time.perf_counter()
        peer.learn(asked, arm, propensity, Outcome(earned, quality, cost_usd))
        learn_s[step] = time.perf_counter() - known
        decide_s[step] = decided - begun
        drawn[step], reward[step] = arm, earned
    track = Track(reward, recorded.quality[order, drawn], recorded.cost[order, drawn])
    return Passed(drawn, track, decide_s, learn_s)


def list_costs(arms: Sequence[ArmSpec], tokens: NDArray[np.int64]) -> Floats:
    """(n, K) USD by list price, each arm with its expected number of output tokens."""
    price_in = np.array([arm.usd_per_mtok_in for arm in arms])
    out = np.array([arm.usd_per_mtok_out * arm.expected_output_tokens for arm in arms])
    costs: Floats = (tokens[:, None] * price_in[None, :] + out[None, :]) / 1e6
    return costs
