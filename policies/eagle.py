"""Eagle: Elo ratings, global over all outcomes and local over the nearest past queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from policies._checks import finite, one_of, two_arms, within
from policies._elo import elo_match
from policies._explore import greedy
from policies._types import ArmId, Arms, Compared, Context, Neighbour, Outcome, Proposal, Rewarded

__all__ = ["Eagle"]

_SAME = 1.0 - 1e-6
_AHEAD = 3


@dataclass
class _Ratings:
    """Global ratings, and of how many outcomes each arm was part."""

    ratings: dict[ArmId, float] = field(default_factory=dict)
    outcomes: dict[ArmId, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Eagle:
    r"""The arm with the best blend of global and local Elo rating.

    R' = R + K·(S − E),  E = 1 / (1 + 10^((R_opp − R)/400)),  S ∈ {1, ½, 0}
    score_i = P·global_i + (1 − P)·local_i

    local_i starts at global_i and replays the outcomes of the N nearest past queries. Pairwise
    outcomes are matches as they are. Rewards are made into matches by `compare_on`: a rewarded
    arm meets the other arms' rewards on the same query, and with reduced K those on near
    queries; among the neighbours of a query each reward meets the next three of other arms.

    blend: P in [0, 1]; the paper's 0.5.
    neighbours: N >= 0; the paper's 20. The service recalls `history.neighbours`, of which the
        nearest N are used.
    k_factor: K in [0, 400]; the paper's 32. One match at 400 is a whole scale of the ratings.
    initial: rating of an arm never matched; only differences matter. The paper is silent.
    order: "farthest_first" (default, the nearest has the last word) or "oldest_first"; the
        paper is silent on the order of replay.
    compare_on: "reward" (default: what the answer was worth, cost included), "quality", or
        "off": pairwise outcomes only, as in the paper.
    similarity: τ in [−1, 1], the least cosine at which a near query's reward makes a match.
    tie_margin: >= 0, two values nearer than this are a tie.
    conversion_weight: w in [0, 1], matches made of rewards on near queries weigh w·K, shared
        among all that one reward makes, so that one reward moves ratings by at most K.
    trial: an arm with fewer outcomes than this is scored like the best one, so that it is tried
        and not starved at the initial rating. The paper leaves exploration open; 0 switches it
        off.

    Faithful: `Eagle(compare_on="off", trial=0)`. There is no cost in the score; the budget is
    the service's `max_cost_usd`, which masks.

    State: two numbers per arm. learn and propose O(N + K) for neighbours of one outcome each,
    flat in history. Prefer `metallm` where rewards are plenty and quality varies smoothly; prefer
    this with pairwise votes.

    Source: arXiv 2409.15518v2, section 2 and appendix A. "Average ELO rating" there is read as
    the running rating, the only reading under which an update is O(1).

    >>> policy = Eagle()
    >>> a, b = ArmId("a"), ArmId("b")
    >>> context = Context(np.ones(1, np.float32), 0, 0.1)
    >>> policy.learn(policy.init(), Compared(context, winner=a, loser=b)).ratings
    {'a': 1016.0, 'b': 984.0}
    """

    blend: float = 0.5
    neighbours: int = 20
    k_factor: float = 32.0
    initial: float = 1000.0
    order: str = "farthest_first"
    compare_on: str = "reward"
    similarity: float = 0.3
    tie_margin: float = 0.05
    conversion_weight: float = 0.5
    trial: int = 3

    def __post_init__(self) -> None:
        within("blend", self.blend, 0.0, 1.0)
        within("neighbours", self.neighbours, 0)
        within("k_factor", self.k_factor, 0.0, 400.0)
        within("initial", self.initial, -1e6, 1e6)
        one_of("order", self.order, ("farthest_first", "oldest_first"))
        one_of("compare_on", self.compare_on, ("reward", "quality", "off"))
        within("similarity", self.similarity, -1.0, 1.0)
        within("tie_margin", self.tie_margin, 0.0)
        within("conversion_weight", self.conversion_weight, 0.0, 1.0)
        within("trial", self.trial, 0)

    @staticmethod
    def examples() -> list[Eagle]:
        """Settings that the laws test, too: the paper's own."""
        return [Eagle(compare_on="off", trial=0)]

    def init(self) -> _Ratings:
        """Every arm at the initial rating."""
        return _Ratings()

    def propose(self, state: _Ratings, context: Context, arms: Arms) -> Proposal:
        """All mass on the best blended rating; ties share."""
        if not len(arms):
            raise ValueError("arms: no eligible arm to propose from")
        whole = np.array([state.ratings.get(arm, self.initial) for arm in arms.ids])
        local = self._local(state, context)
        near = np.array([local.get(arm, self.initial) for arm in arms.ids])
        scores = self.blend * whole + (1.0 - self.blend) * near
        count = np.array([float(state.outcomes.get(arm, 0)) for arm in arms.ids])
        scores = np.where(count < self.trial, scores.max(), scores)
        return Proposal(scores, greedy(scores), count=count)

    def learn(self, state: _Ratings, event: Rewarded | Compared) -> _Ratings:
        """One match, or those that a reward makes with the rewards of other arms nearby."""
        changed: dict[ArmId, float] = {}
        for first, second, score, weight in self._matches(event):
            for arm in (first, second):
                changed.setdefault(arm, state.ratings.get(arm, self.initial))
            elo_match(changed, first, second, score, weight * self.k_factor, self.initial)
        state.ratings.update(changed)
        for arm in self._tried(event):
            state.outcomes[arm] = state.outcomes.get(arm, 0) + 1
        return state

    def forget(self, state: _Ratings, arm: ArmId, keep: float) -> _Ratings:
        """The arm's rating nearer to the initial one, which is the mean of all; fewer outcomes."""
        within("keep", keep, 0.0, 1.0)
        if arm in state.ratings:
            state.ratings[arm] = keep * state.ratings[arm] + (1.0 - keep) * self.initial
        if arm in state.outcomes:
            state.outcomes[arm] = int(keep * state.outcomes[arm])
        return state

    def _tried(self, event: Rewarded | Compared) -> tuple[ArmId, ...]:
        """The arms of which this event is an outcome."""
        if isinstance(event, Compared):
            return event.winner, event.loser
        return () if self.compare_on == "off" or event.reward is None else (event.arm,)

    def _matches(self, event: Rewarded | Compared) -> Iterator[tuple[ArmId, ArmId, float, float]]:
        if isinstance(event, Compared):
            two_arms(event)
            yield event.winner, event.loser, 0.5 if event.tie else 1.0, 1.0
            return
        mine = event.quality if self.compare_on == "quality" else event.reward
        if self.compare_on == "off" or event.reward is None or mine is None:
            return
        finite("reward", mine)
        met = [
            (outcome.arm, value, neighbour.similarity >= _SAME)
            for neighbour in self._ordered(event.context)
            if neighbour.similarity >= self.similarity
            for outcome in neighbour.outcomes
            if outcome.arm != event.arm and (value := self._value(outcome)) is not None
        ]
        for other, value, same in met:
            weight = (1.0 if same else self.conversion_weight) / len(met)
            yield event.arm, other, self._score(mine, value), weight

    def _local(self, state: _Ratings, context: Context) -> dict[ArmId, float]:
        """Ratings after the neighbours' outcomes, begun at the global ones."""
        ratings = dict(state.ratings)
        nearest = self._ordered(context)
        for neighbour in nearest:
            for past in neighbour.comparisons:
                score = 0.5 if past.tie else 1.0
                elo_match(ratings, past.winner, past.loser, score, self.k_factor, self.initial)
        if self.compare_on == "off":
            return ratings
        rewarded = [
            (outcome.arm, value)
            for neighbour in nearest
            for outcome in neighbour.outcomes
            if (value := self._value(outcome)) is not None
        ]
        k = self.k_factor * self.conversion_weight
        for i, (arm, value) in enumerate(rewarded):
            met = 0
            for other, its in rewarded[i + 1 :]:
                if other != arm:
                    elo_match(ratings, arm, other, self._score(value, its), k, self.initial)
                    met += 1
                    if met == _AHEAD:
                        break
        return ratings

    def _ordered(self, context: Context) -> list[Neighbour]:
        """The N nearest in the order of replay, whatever order they came in."""
        nearest = sorted(context.neighbours, key=lambda n: (-n.similarity, -n.id))
        nearest = nearest[: self.neighbours]
        if self.order == "oldest_first":
            return sorted(nearest, key=lambda n: n.id)
        return nearest[::-1]

    def _value(self, outcome: Outcome) -> float | None:
        return outcome.quality if self.compare_on == "quality" else outcome.reward

    def _score(self, mine: float, other: float) -> float:
        if abs(mine - other) <= self.tie_margin:
            return 0.5
        return 1.0 if mine > other else 0.0
