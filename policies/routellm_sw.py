"""RouteLLM's similarity-weighted ranking: Bradley-Terry in which near comparisons weigh more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from policies._bradley_terry import nearly_fit
from policies._checks import within
from policies._duels import Conversion, proposed
from policies._grid import faded, rounded
from policies._types import ArmId, Arms, Compared, Context, Floats, Neighbour, Proposal, Rewarded

__all__ = ["RouteLLMSW"]

_ITERATIONS = 16
_STEPS = 2.0**20


def _none() -> Floats:
    return np.zeros((0, 0))


@dataclass
class _Wins:
    """K arms seen so far.

    rows: arm → its row, sorted. wins: (K, K), with what weight the row's arm beat the column's, in
    2⁻²⁰, so that sums are exact. outcomes: of how many outcomes each arm was part, sorted.
    """

    rows: dict[ArmId, int] = field(default_factory=dict)
    wins: Floats = field(default_factory=_none)
    outcomes: dict[ArmId, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RouteLLMSW:
    r"""Bradley-Terry strengths of the present query, and the cheapest arm that is good enough.

    ξ = argmax Σ_c ω_c·ln σ(ξ_winner − ξ_loser) − ridge/2·Σ_i ξ_i²
    ω_c = γ^S_c,  S_c = cos(q, q_c) / max cos(q, ·) on the nearest queries, 0 on all others
    choice: the cheapest arm that no dearer arm j beats with σ(ξ_j − ξ_i) >= α

    The paper's weight is γ^(1+S); the common factor γ says nothing and is left out, so that a
    far comparison weighs 1 and one on the nearest query γ. Which arm beat which how often over
    all queries is one (K, K) matrix, so no past comparison is read again.

    Rewards are made into comparisons by `compare_on`: a rewarded arm meets the other arms'
    rewards on the same query, and with a reduced weight those on near queries.

    threshold: α in [0, 1]. 0.5 is the strongest arm; above it a cheaper arm may be somewhat
        weaker. RouteLLM calibrates its own on a sample of queries for a wanted share of strong
        calls. With compare_on="reward" cost is in the comparisons, and 0.5 is consistent.
    gamma: γ in [1, 1000]; the released code's 10. 1 makes every query the same.
    ridge: in [1e-6, 1e6], in comparisons. Holds an arm that always won; RouteLLM has none.
    neighbours: N >= 0, of the `history.neighbours` that the service recalls the nearest N weigh
        more. RouteLLM weighs every past query.
    tie_wins: in [0, 1], wins that a tie counts for either arm; 1/2, the code's is 1, 0 drops ties.
    compare_on: "reward" (default: what the answer was worth, cost included), "quality", or
        "off": pairwise outcomes only, as in the paper.
    similarity: τ in [−1, 1], the least cosine at which a near query's reward makes a comparison.
    tie_margin: >= 0, two values nearer than this are a tie.
    conversion_weight: w in [0, 1], comparisons made of rewards on two queries weigh w, shared
        among all that one reward makes, so that one reward weighs at most 1.
    trial: an arm with fewer outcomes than this shares with the chosen one, so that it is tried;
        0 switches it off.

    Faithful: `RouteLLMSW(compare_on="off", trial=0, tie_wins=1, ridge=1e-6)`.

    State: K² numbers, exact sums, which come out the same in any order of the same outcomes with
    the same neighbours. learn O(N), propose O(N² + 16·K³) in numpy, flat in history.

    Source: arXiv 2406.18665v4, section 4.2, and lm-sys/RouteLLM. The paper's S divides by the
    largest cosine of the past query, the code's, taken here, by that of the present one.

    >>> policy, a, b = RouteLLMSW(trial=0), ArmId("a"), ArmId("b")
    >>> context = Context(np.ones(1, np.float32), 0, 0.1)
    >>> state = policy.learn(policy.init(), Compared(context, winner=a, loser=b))
    >>> arms = Arms((a, b), np.array([0.01, 0.02]), np.array([0.5, 1.0]))
    >>> policy.propose(state, context, arms).propensities.tolist()
    [1.0, 0.0]
    """

    threshold: float = 0.5
    gamma: float = 10.0
    ridge: float = 1.0
    neighbours: int = 20
    tie_wins: float = 0.5
    compare_on: str = "reward"
    similarity: float = 0.3
    tie_margin: float = 0.05
    conversion_weight: float = 0.5
    trial: int = 5

    order_free: ClassVar[bool] = True
    exempt: ClassVar[dict[str, str]] = {
        "what_fades_is_one_arms_alone": "strengths are found for all arms at once"
    }

    def __post_init__(self) -> None:
        within("threshold", self.threshold, 0.0, 1.0)
        within("gamma", self.gamma, 1.0, 1000.0)
        within("ridge", self.ridge, 1e-6, 1e6)
        within("tie_wins", self.tie_wins, 0.0, 1.0)
        within("trial", self.trial, 0)
        self._conversion()

    @staticmethod
    def examples() -> list[RouteLLMSW]:
        """Settings that the laws test, too: the paper's own."""
        return [RouteLLMSW(compare_on="off", trial=0, tie_wins=1.0, ridge=1e-6)]

    def init(self) -> _Wins:
        """No arm seen."""
        return _Wins()

    def propose(self, state: _Wins, context: Context, arms: Arms) -> Proposal:
        """All mass on the cheapest arm that stands; arms on trial share."""
        if not len(arms):
            raise ValueError("arms: no eligible arm to propose from")
        nearest = self._conversion().nearest(context)
        rows = dict(state.rows)
        for neighbour in nearest:
            for outcome in neighbour.outcomes:
                rows.setdefault(outcome.arm, len(rows))
            for past in neighbour.comparisons:
                rows.setdefault(past.winner, len(rows))
                rows.setdefault(past.loser, len(rows))
        wins = self._near(nearest, rows)
        known = len(state.rows)
        wins[:known, :known] += state.wins
        strengths = nearly_fit(wins, self.ridge, _ITERATIONS)
        # an arm that nobody met is in the middle, where the ridge would hold it
        its = np.array([strengths[rows[arm]] if arm in rows else 0.0 for arm in arms.ids])
        count = np.array([float(state.outcomes.get(arm, 0)) for arm in arms.ids])
        return proposed(its, arms, self.threshold, count, self.trial)

    def learn(self, state: _Wins, event: Rewarded | Compared) -> _Wins:
        """One comparison, or those that a reward makes with the rewards of other arms nearby."""
        duels, tried = self._conversion().learned(event)
        for duel in duels:
            self._see(state, duel.first)
            self._see(state, duel.second)
            first, second = state.rows[duel.first], state.rows[duel.second]
            ahead, behind = duel.score, 1.0 - duel.score
            if duel.score == 0.5:
                ahead = behind = self.tie_wins
            state.wins[first, second] += rounded(ahead * duel.weight, _STEPS)
            state.wins[second, first] += rounded(behind * duel.weight, _STEPS)
        for arm in tried:
            if arm not in state.outcomes:
                state.outcomes = dict(sorted([*state.outcomes.items(), (arm, 0)]))
            state.outcomes[arm] += 1
        return state

    def forget(self, state: _Wins, arm: ArmId, keep: float) -> _Wins:
        """The arm's row and column of wins, each rounded once, and its outcomes, times `keep`.

        ξ is found for all arms at once, so two others that met only this arm are less sure to
        differ; what they won against each other stays.
        """
        within("keep", keep, 0.0, 1.0)
        row = state.rows.get(arm)
        if row is not None:
            state.wins[row] = faded(state.wins[row], keep, _STEPS)
            state.wins[:, row] = faded(state.wins[:, row], keep, _STEPS)
        if arm in state.outcomes:
            state.outcomes[arm] = int(keep * state.outcomes[arm])
        return state

    def _conversion(self) -> Conversion:
        return Conversion(
            self.compare_on,
            self.similarity,
            self.tie_margin,
            self.conversion_weight,
            self.neighbours,
        )

    def _see(self, state: _Wins, arm: ArmId) -> None:
        """A row of its own for the arm, among the others in their order."""
        if arm in state.rows:
            return
        order = sorted([*state.rows, arm])
        there, old = [order.index(each) for each in state.rows], list(state.rows.values())
        wins = np.zeros((len(order), len(order)))
        wins[np.ix_(there, there)] = state.wins[np.ix_(old, old)]
        state.wins, state.rows = wins, {each: i for i, each in enumerate(order)}

    def _near(self, nearest: list[Neighbour], rows: dict[ArmId, int]) -> Floats:
        """What the nearest queries' comparisons weigh beyond 1. (K, K)"""
        wins = np.zeros((len(rows), len(rows)))
        most = nearest[0].similarity if nearest else 0.0
        if most <= 0.0:
            return wins
        arms: list[int] = []
        about: list[tuple[float, float, float, float]] = []
        for neighbour in nearest:
            extra = self.gamma ** max(0.0, neighbour.similarity / most) - 1.0
            for past in neighbour.comparisons:
                first, second = rows[past.winner], rows[past.loser]
                if past.tie:
                    wins[second, first] += self.tie_wins * extra
                wins[first, second] += (self.tie_wins if past.tie else 1.0) * extra
            for outcome in neighbour.outcomes if self.compare_on != "off" else ():
                value = outcome.quality if self.compare_on == "quality" else outcome.reward
                if value is not None:
                    arms.append(rows[outcome.arm])
                    about.append((value, extra, neighbour.id, neighbour.similarity))
        if len(arms) > 1:
            self._add_pairs(wins, np.array(arms), np.array(about).T)
        return wins

    def _add_pairs(self, wins: Floats, arms: Floats, about: Floats) -> None:
        """Every two rewards of two arms; one reward weighs its extra weight in all at most."""
        value, extra, of, cosine = about
        near = cosine >= self.similarity
        # a query twice is one query, whatever else is as near
        same = of[:, None] == of[None, :]
        share = np.where(same, 1.0, self.conversion_weight * (near[:, None] & near[None, :]))
        share *= arms[:, None] != arms[None, :]
        met = np.maximum((share > 0.0).sum(axis=1), 1)
        by_one = extra / met
        weight = 0.5 * share * (by_one[:, None] + by_one[None, :])
        ahead = value[:, None] - value[None, :]
        tied = np.abs(ahead) <= self.tie_margin
        weight *= np.where(tied, self.tie_wins, ahead > 0.0)
        k = len(wins)
        cells = (arms[:, None] * k + arms[None, :]).ravel()
        wins += np.bincount(cells, weight.ravel(), k * k).reshape(k, k)
