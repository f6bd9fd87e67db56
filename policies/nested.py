"""Nested: an arm's value over all queries, for kinds of queries, and for queries like this one."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from policies import _native
from policies._borrowed import borrowed, of_others
from policies._cells import EXACT, Cells, Int64s, Told, on_grid
from policies._checks import above, finite, one_of, settled, two_arms, within
from policies._explore import best_probability, greedy
from policies._families import KinOf, with_kin
from policies._grid import TARGET, rounded, weight_of
from policies._protocol import OwnAlarms
from policies._spreads import (
    WIDER,
    evidence,
    evidence_of_cells,
    moments,
    probability,
    shifted,
    variance,
)
from policies._types import (
    ArmId,
    Arms,
    Compared,
    Context,
    Contexts,
    Floats,
    Proposal,
    Proposals,
    Rewarded,
    Vector,
)
from policies._watch import COIN, LEAST_COIN, Watch

__all__ = ["Nested"]

_FIRST, _GROWTH = 20, 1.5
_MOST_NOISE = 1.2
_NOISE_PRIOR = (7.2, 8.0)
"""The noise before any outcome: 7.2 observed where 8 were expected."""
_LINE = 4.0
"""How many arms the prior of the price line's level counts as."""
_MAX_COMPARED = 128
"""How many cells, the first ones, tell whether the arms are specialists: each is compared with all
others of them."""
_LENT = 20.0
"""How many outcomes of the nearest cells predict those of a cell there."""
_AT_ONCE = 128
"""How many outcomes are learned together at most: each is compared with those before it."""


@dataclass(frozen=True, slots=True)
class Nested:
    r"""A Bayesian tree of the arms' qualities: all queries → groups → cells of like queries.

    m_k, v_k: posterior mean and variance of arm k's quality on this query.
    s²(p) = ρ·max(p(1 − p), 0.03): variance of one outcome of mean p, ρ learned.

    arm:    the prior mean is on a line in the log of the price, p_k = m₀ + a + b·log₁₀ price,
            fitted to the arms seen;  κ = s²(p_k)/t₀;
            m_k = (S_k + κp_k)/(N_k + κ),  v_k = s²(p_k)/(N_k + κ)
    group, then cell, each with its own counts n, s, spread h and shared variance g:
            q = Σ (s_k − n_k·m_k)/(h·n_k + s²) / (1/g + Σ n_k/(h·n_k + s²))
            (how much harder the cell is for all arms),   m_k ← m_k + q;   κ = s²(m_k)/h;
            v_k ← h·κ/(n_k + κ) + (κ/(n_k + κ))²·v_k,   m_k ← (s_k + κm_k)/(n_k + κ)
    specialists: the arms are alike, with h as learned, or specialists, with each h 20 times as wide
            as set; they are specialists if P = 1/(1 + (1 − P₀)/P₀·exp(5·(L_wide − L))) > 1/2, where
            L is the sum of squared errors when the outcomes of each of the first 128 cells,
            including forgotten ones, are predicted from 20 of the nearest other ones, with h as set
    evidence: with "groups", h is the mean of the two by P, and L is that of each outcome when it is
            predicted from the others of its group, with h as learned
    borrow: where Σ n_k < borrow in a cell, n_k = Σ w_c·n_ck and s_k = Σ w_c·s_ck over the nearest
            cells c until they have as many outcomes, w_c = ((D − d²_c)/(D − d²₁))³ by the squared
            distances, D their mean over all cells
    family: its arms share the part f of t₀ and of each h: it is the g of their own q at every
            level, and the rest of t₀ and h is for each arm
    "ucb":      score_k = m_k + kappa·√v_k − cost_k / willingness to pay; ties share
    "thompson": score_k = m_k − cost_k / willingness to pay, and
                p_k = P(k is the best) of independent N(score_k, kappa²·v_k), by quadrature

    It starts as a bandit without context that knows prices, and becomes contextual as cells fill.
    S_k is the sum of qualities minus the difficulty of the groups of arm k's outcomes.

    explore: "thompson" or "ucb".
    kappa: width of exploration, >= 0; none means 1 with "ucb" and 0.35 with "thompson".
    cells: how many cells at most, in [2, 4096].
    groups: how many groups at most, in [1, 512].
    surface: weight of the text's surface features beside the embedding, in [0, 1].
    prior: m₀ in [0, 1].
    prior_variance: t₀ > 0, of an arm around the line.
    slope: b before any outcome, quality per tenfold price, in [−10, 10].
    slope_variance: variance of b, > 0.
    group_spread, cell_spread: h > 0 before any outcome; then learned, within a factor of 20 below
        and 10 above.
    group_shared, cell_shared: g > 0.
    specialists: P₀ in [0, 0.5], that they are before any outcome; 0 for never.
    alarm: when an arm's latest outcomes are, summed up, so many standard deviations above or below
        what was expected, all but `keep` of what is known of it is forgotten; 0 for never.
    allowance: how many of them each outcome may deviate before it counts, >= 0.
    keep: share that an alarm leaves, in [0, 1].
    family: f in [0, 1), how similar the arms of one family are; 0 learns each arm separately.
    comparison_weight: in [0, 1], how much of an outcome a comparison is, the winner's quality
        counting as 1, the loser's as 0, a tie's as 1/2; 0 ignores comparisons.
    borrow: in [0, 1000], the number of outcomes up to which those of the nearest cells count in a
        cell that has fewer, by their distance; 0 counts the cell's own alone.
    evidence: what an outcome is predicted from to find P: "cells", those of the nearest other
        cells; "groups", the others of its group, which finds specialists later.

    State: exact sums, (M + 1)·(K + 1) counts and M centres of d features: half a megabyte,
    whatever the history. propose O(M·d + C·K), learn O(M·d) and now and then a slice of k-means,
    when the number of outcomes has grown by half; between two such times nothing that was learned
    depends on the order. The alarm (CUSUM, Page 1954) sees only arms that are played:

    z = (y − m_a)/√(v_a + s²),  U ← max(0, U + z − allowance),  D ← max(0, D − z − allowance)

    A correction is exact, but where the query's cell has moved since: then for the arm over all.

    Source: our own; hierarchical normal model (Gelman et al. 2013, chapter 5), k-means++ (Arthur
    and Vassilvitskii 2007), UCB on its posterior, errors of predictions that leave one out (PRESS,
    Allen 1974).

    >>> from policies import ArmId
    >>> policy, arms = Nested(), Arms(("a", "b"), np.zeros(2), np.ones(2))
    >>> context = Context(np.array([1, 0], np.float32), tokens=10, willingness_to_pay=0.1)
    >>> event = Rewarded(context, ArmId("a"), 0.5, 1.0, 0.0, quality=0.0, reward=0.0)
    >>> state = policy.learn(policy.init(), event)
    >>> policy.propose(state, context, arms).propensities.round(3).tolist()
    [0.176, 0.824]
    """

    explore: str = "thompson"
    kappa: float | None = None
    cells: int = 128
    groups: int = 24
    surface: float = 0.5
    prior: float = 0.7
    prior_variance: float = 0.04
    slope: float = 0.12
    slope_variance: float = 0.01
    group_spread: float = 0.008
    cell_spread: float = 0.004
    group_shared: float = 0.1
    cell_shared: float = 0.06
    specialists: float = 0.3
    alarm: float = 10.0
    allowance: float = 0.5
    keep: float = 0.1
    comparison_weight: float = 0.5
    family: float = 0.5
    borrow: float = 20.0
    evidence: str = "cells"

    fold: ClassVar[int] = 2
    reads_neighbours: ClassVar[bool] = False
    exempt: ClassVar[dict[str, str]] = {
        "what_fades_is_one_arms_alone": "a group's difficulty and the price line come from all arms"
    }

    def __post_init__(self) -> None:
        one_of("explore", self.explore, ("ucb", "thompson"))
        if self.kappa is not None:
            within("kappa", self.kappa, 0.0, 100.0)
        within("cells", self.cells, 2, 4096)
        within("groups", self.groups, 1, 512)
        within("surface", self.surface, 0.0, 1.0)
        within("prior", self.prior, 0.0, 1.0)
        within("slope", self.slope, -10.0, 10.0)
        for name in (
            "prior_variance",
            "slope_variance",
            "group_spread",
            "cell_spread",
            "group_shared",
            "cell_shared",
        ):
            above(name, getattr(self, name), 1e-8, 100.0)
        within("specialists", self.specialists, 0.0, 0.5)
        within("alarm", self.alarm, 0.0)
        within("allowance", self.allowance, 0.0)
        within("keep", self.keep, 0.0, 1.0)
        within("comparison_weight", self.comparison_weight, 0.0, 1.0)
        within("family", self.family, 0.0, 0.999)
        within("borrow", self.borrow, 0.0, 1000.0)
        one_of("evidence", self.evidence, ("cells", "groups"))

    @staticmethod
    def examples() -> list[Nested]:
        """Settings that the laws test, too."""
        return [
            Nested(explore="ucb"),
            Nested(surface=0.0, cells=8, groups=2, alarm=0.0),
            Nested(borrow=0.0),
            Nested(evidence="groups", specialists=0.02),
        ]

    def init(self) -> Cells:
        """No arm seen."""
        return Cells(
            due=_FIRST,
            spread=[self.group_spread, self.cell_spread],
            noise=_NOISE_PRIOR[0] / _NOISE_PRIOR[1],
        )

    # --- propose ---

    def propose(self, state: Cells, context: Context, arms: Arms) -> Proposal:
        """All mass on the highest index with "ucb"; with "thompson" graded."""
        worth = context.willingness_to_pay
        return Proposal(*self._proposed(state, self._features(context), arms, worth))

    def propose_many(self, state: Cells, contexts: Contexts, arms: Arms) -> Proposals:
        """`propose` of B queries with the same arms: one product with the cells for all."""
        worth = contexts.willingness_to_pay[:, None]
        return Proposals(*self._proposed(state, self._features(contexts), arms, worth))

    def _proposed(
        self, state: Cells, features: Vector, arms: Arms, worth: float | Floats
    ) -> tuple[Floats, ...]:
        """The fields of a proposal, of (…, d) features: of one query or of many.

        One query is not a row of many, since numpy is twice as fast without broadcasting.
        """
        if not len(arms):
            raise ValueError("arms: no eligible arm to propose from")
        compiled = self._compiled(state, features, arms, worth)
        if compiled is not None:
            return compiled
        x = on_grid(features)
        at = state.columns_of(arms.ids)
        mean, variance = self._estimate(state, x, arms)
        net = mean - arms.cost_usd / worth
        deviation = np.sqrt(variance)
        width = self.exploration_width * deviation
        ucb = self.explore == "ucb"
        bonus = width if ucb else np.zeros(width.shape)
        scores = net + bonus
        quality, count = np.minimum(np.maximum(mean, 0.0), 1.0), state.sums.n[at]
        shares = greedy(scores) if ucb else best_probability(scores, width)
        return scores, shares, quality, deviation, count, bonus

    def _compiled(
        self, state: Cells, features: Vector, arms: Arms, worth: float | Floats
    ) -> tuple[Floats, ...] | None:
        """The same bits by the compiled library; None where that is not for them."""
        k, plain = len(arms), not (self.family and arms.family)
        if self.explore != "thompson" or not plain or not state.used:
            return None
        if not _native.usable(k, state.n.shape[1]):
            return None
        library, columns, price = _native.native(), state.columns_of(arms.ids), state.price_of(arms)
        assert library is not None
        if price.shape != columns.shape or price.dtype != np.float64:
            return None  # numpy converts it, or says what is wrong
        asked = state.pinned(self).asked(columns, price)
        one = features.ndim == 1
        rows = np.ascontiguousarray(features[None] if one else features)
        cost = np.asarray(arms.cost_usd, np.float64, "C")
        if one and cost.ndim != 1:
            return None
        found = library.propose(asked, rows, cost, np.array(worth, np.float64).reshape(-1))
        if found is None:
            return None
        scores, shares, quality, deviation = (each[0] for each in found) if one else found
        count = state.sums.n[columns]
        return scores, shares, quality, deviation, count, np.zeros(scores.shape)

    def _alone(
        self, state: Cells, at: Int64s, eased: Floats, price: Floats, kin: KinOf | None = None
    ) -> tuple[Floats, Floats]:
        """(K,) mean and variance of each arm's quality over all queries."""
        n, s = state.sums.n[at], eased[at]
        line = self._line(n, s, price, state.noise)
        noise = variance(state.noise, line)
        unsure: Floats | None = None
        varies: float | Floats = self.prior_variance
        if kin:
            line, unsure, varies = kin.told(noise, line, n, s, self.prior_variance)
        k = noise / varies
        each = 1.0 / (n + k)
        v = noise * each
        return (s + k * line) * each, v if unsure is None else v + (k * each) ** 2 * unsure

    @property
    def exploration_width(self) -> float:
        """That of exploration: `kappa`, or what it means where it is none."""
        if self.kappa is not None:
            return self.kappa
        return 1.0 if self.explore == "ucb" else 0.35

    def _features(self, of: Context | Contexts) -> Vector:
        return self._joined(of.embedding, of.surface)

    def _joined(self, embedding: Vector, surface: Vector) -> Vector:
        if not self.surface:
            return embedding
        return np.concatenate([embedding, np.float32(self.surface) * surface], axis=-1)

    def _estimate(self, state: Cells, x: Vector, arms: Arms) -> tuple[Floats, Floats]:
        """(…, K) mean and variance of each arm's quality on each query."""
        k, every = len(arms), with_kin(arms)
        kin = KinOf(every, self.family) if self.family and every.family else None
        mean, variance = self._estimate_all(state, x, every, kin)
        return (mean, variance) if every is arms else (mean[..., :k], variance[..., :k])

    def _estimate_all(
        self, state: Cells, x: Vector, arms: Arms, kin: KinOf | None
    ) -> tuple[Floats, Floats]:
        at, (wide, narrow), sums = state.columns_of(arms.ids), state.spread, state.sums
        m, v = self._alone(state, at, self._eased(state), state.price_of(arms), kin)
        distances = state.distances(x)
        cell, group = state.located(x, distances)
        of_group = sums.group_n[group].take(at, -1), sums.group_s[group].take(at, -1)
        m, v = _down(state.noise, m, v, *of_group, wide, self.group_shared, kin)
        if self.borrow and state.used:
            n, s = borrowed(state, distances, cell, group, self.borrow)
        else:
            n, s = state.n[cell], state.s[cell]
        return _down(
            state.noise, m, v, n.take(at, -1), s.take(at, -1), narrow, self.cell_shared, kin
        )

    def _line(self, n: Floats, s: Floats, price: Floats, noise: float) -> Floats:
        """(K,) the prior mean of each arm: ridge regression of the arms' means on 1 and price."""
        each = 1.0 / (n + noise * COIN / self.prior_variance)
        w, wm = n * each, (s - self.prior * n) * each
        ridge = self.prior_variance / self.slope_variance
        wp = w * price
        a00, a01 = _LINE + float(np.add.reduce(w)), float(np.add.reduce(wp))
        a11 = ridge + float(np.add.reduce(wp * price))
        b0, b1 = float(np.add.reduce(wm)), self.slope * ridge + float(np.add.reduce(wm * price))
        det = a00 * a11 - a01 * a01
        level, slope = (a11 * b0 - a01 * b1) / det, (a00 * b1 - a01 * b0) / det
        return self.prior + level + slope * price

    def _eased(self, state: Cells) -> Floats:
        """(K + 1,) sums of qualities, minus how much easier an arm's groups were.

        q_g and the arms' means depend on each other; two rounds suffice.
        """
        if state._eased is None:
            sums, coin = state.sums, state.noise * COIN
            k = coin / self.prior_variance
            w = 1.0 / (state.spread[0] * sums.group_n + coin)
            lack = np.add.reduce(sums.group_s * w, axis=1)
            w *= sums.group_n
            below = 1.0 / self.group_shared + np.add.reduce(w, axis=1)
            each, eased = 1.0 / (sums.n + k), sums.s
            for _ in range(2):
                means = (eased + k * self.prior) * each
                shared = (lack - np.add.reduce(w * means, axis=1)) / below
                eased = sums.s - np.add.reduce(shared[:, None] * sums.group_n, axis=0)
            state._eased = eased
        return state._eased

    # --- learn ---

    def learn(self, state: Cells, event: Rewarded | Compared) -> Cells:
        """One outcome of the arm played, or a part of one of each arm compared."""
        outcomes = self._outcomes(event)
        if outcomes:
            self._observe(state, self._features(event.context), outcomes)
        return state

    def learn_many(self, state: Cells, events: Sequence[Rewarded | Compared]) -> Cells:
        """`learn` for each event: together where no cell begins, moves or is regrouped between.

        Sums of numbers on a grid are the same bits in any order, so the state is the same.
        """
        told = [(one.context, found) for one in events if (found := self._outcomes(one))]
        if not told:
            return state
        embeddings = np.array([context.embedding for context, _ in told])
        surfaces = [context.surface for context, _ in told] if self.surface else []
        features = self._joined(embeddings, np.array(surfaces))
        library = _native.native()
        if library is None or not library.exact(features):
            x = on_grid(features)
            if (np.add.reduce(x * x, axis=1) > EXACT).any():
                raise ValueError("embedding: is too long for exact products")
        state.fits(features)
        start = 0
        while start < len(told):
            # the outcome at which a grouping is due, and those that each bring a slice of it
            together = min(state.due - state.outcomes - 1, _AT_ONCE, len(told) - start)
            stop = start + max(together, 1)
            outcomes = [found for _, found in told[start:stop]]
            some = features[start:stop]
            learned = self._observe_many(state, some, outcomes) if together > 0 else 0
            if not learned:
                self._observe(state, features[start], outcomes[0])
                learned = 1
            start += learned
        return state

    def correct(self, state: Cells, before: Rewarded, after: Rewarded) -> Cells:
        """Add the difference to the sums; an alarm raised by the old outcome stays."""
        old = self._quality(before, settled(before))
        new = self._quality(after, settled(after))
        x = on_grid(self._features(after.context))
        state.revise(int(state.find(x)[0]), state.columns[after.arm], old, new)
        return state

    def forget(self, state: Cells, arm: ArmId, keep: float) -> Cells:
        """The arm's counts and sums times `keep`, in every cell."""
        within("keep", keep, 0.0, 1.0)
        state.fade(arm, keep)
        return state

    @property
    def watches_arms(self) -> bool:
        """Whether its alarm is on."""
        return self.alarm > 0.0

    def unwatched(self) -> Nested:
        """Without its alarm."""
        return replace(self, alarm=0.0)

    def alarms(self, state: Cells) -> dict[ArmId, OwnAlarms]:
        """How many alarms each arm had, and how many outcomes since the last one."""
        return {
            arm: OwnAlarms(int(state.alarms[at]), int(state.since[at]))
            for arm, at in state.columns.items()
            if state.alarms[at]
        }

    @staticmethod
    def _quality(event: Rewarded, reward: float) -> float:
        """The quality in [0, 1] on the grid; without one, reward + cost / willingness."""
        quality = event.quality
        if quality is None:
            cost = event.expected_cost_usd if event.cost_usd is None else event.cost_usd
            quality = reward + cost / event.context.willingness_to_pay
        if not 0.0 <= quality <= 1.0:
            quality = 0.0 if finite("quality", quality) < 0.0 else 1.0
        return rounded(quality, TARGET)

    def _outcomes(self, event: Rewarded | Compared) -> list[tuple[ArmId, float, float]]:
        """The arms of an event, each with quality and weight."""
        if isinstance(event, Rewarded):
            if event.reward is None:
                return []
            return [(event.arm, self._quality(event, finite("reward", event.reward)), 1.0)]
        if self.comparison_weight == 0.0:
            return []
        two_arms(event)
        won, weight = 0.5 if event.tie else 1.0, weight_of(self.comparison_weight)
        return [(event.winner, won, weight), (event.loser, 1.0 - won, weight)]

    def _observe(
        self, state: Cells, features: Vector, outcomes: list[tuple[ArmId, float, float]]
    ) -> None:
        """The outcomes of one query, (d,)."""
        if not self._learned(state, features[None], [outcomes]):
            self._observe_plain(state, on_grid(features), outcomes)
        state.outcomes += 1
        if state.outcomes >= state.due and state.used and state.regroup(self.groups):
            state.due = int(state.outcomes * _GROWTH) + 1
            self._learn_spreads(state)

    def _observe_plain(
        self, state: Cells, x: Vector, outcomes: list[tuple[ArmId, float, float]]
    ) -> None:
        """Count the outcomes of one query, (d,) on the grid, by numpy."""
        cell, group = map(int, state.find(x))
        cell = state.place(x, cell, group, self.cells, self.groups)
        watch = self._watch
        for arm, quality, weight in outcomes:
            column = state.column(arm)
            if self.alarm > 0.0 and weight == 1.0 and watch.sees(state, column, group, quality):
                state.fade(arm, self.keep)
                state.alarms[column] += 1.0
                state.up[column] = state.down[column] = state.since[column] = 0.0
            state.add(cell, column, quality, weight)

    def _observe_many(
        self, state: Cells, features: Vector, outcomes: list[list[tuple[ArmId, float, float]]]
    ) -> int:
        """The same for (B, d) queries before the next grouping; returns how many it learned.

        It stops before a query that begins a cell, and before an outcome that raises an alarm.
        """
        stop = self._learned(state, features, outcomes)
        if not stop and _native.native() is None and not state.crowded:
            stop = self._observe_many_plain(state, on_grid(features), outcomes)
        state.outcomes += stop
        return stop

    def _observe_many_plain(
        self, state: Cells, x: Vector, outcomes: list[list[tuple[ArmId, float, float]]]
    ) -> int:
        """Count those of (B, d) queries on the grid by numpy; returns of how many."""
        row, group = state.rows(x)
        stop = len(row)
        while stop:
            told = Told.of(state, row[:stop], group[:stop], outcomes[:stop])
            sound = self._watch.sees_many(state, told) if self.alarm > 0.0 else stop
            if sound == stop:
                state.place_many(row[:stop], x[:stop])
                state.add_many(told)
                break
            stop = sound
        return stop

    def _learned(
        self,
        state: Cells,
        features: Vector,
        outcomes: Sequence[Sequence[tuple[ArmId, float, float]]],
    ) -> int:
        """Count those of (B, d) queries by the compiled library; returns of how many.

        It stops before what changes more than counts: a new arm or cell, or an alarm. It places
        none while a cell is crowded.
        """
        library = _native.native()
        if library is None or not state.used or state.crowded:
            return 0
        told, columns = array("d"), state.columns
        for i, some in enumerate(outcomes):
            for arm, quality, weight in some:
                column = columns.get(arm)
                if column is None:
                    features = features[:i]
                    break
                told.extend((i, column, quality, weight))
            else:
                continue
            break
        learned = library.learn(state.pinned(self), features, told)
        if learned:
            state.changed()
        return learned

    @property
    def _watch(self) -> Watch:
        return Watch(self.prior, self.prior_variance, self.alarm, self.allowance)

    def _learn_spreads(self, state: Cells) -> None:
        """Learn ρ and both h again, by moments, from the counts."""
        sums, used = state.sums, state.used
        p = sums.s / np.maximum(sums.n, 1e-9)
        seen = np.add.reduce(np.maximum(state.squares - sums.s * p, 0.0))
        coins = np.add.reduce(sums.n * np.maximum(p * (1.0 - p), LEAST_COIN))
        state.noise = min(
            _MOST_NOISE, (_NOISE_PRIOR[0] + float(seen)) / (_NOISE_PRIOR[1] + float(coins))
        )
        k = state.noise * COIN / self.prior_variance
        arms = np.broadcast_to((sums.s + k * self.prior) / (sums.n + k), sums.group_n.shape)
        groups, state.spread[0] = moments(
            state.noise,
            arms,
            sums.group_n,
            sums.group_s,
            state.spread[0],
            self.group_spread,
            self.group_shared,
        )
        _, state.spread[1] = moments(
            state.noise,
            groups[state.group[:used]],
            state.n[:used],
            state.s[:used],
            state.spread[1],
            self.cell_spread,
            self.cell_shared,
        )
        if self.specialists:
            starts = self.group_spread, self.cell_spread
            state.special = state.faded + self._special(state, arms)
            wide = probability(state.special, self.specialists)
            if self.evidence == "cells":
                wide = float(wide > 0.5)
            for level, start in enumerate(starts):
                state.spread[level] += wide * (WIDER * start - state.spread[level])
        state.changed()

    def _special(self, state: Cells, arms: Floats) -> float:
        """How much smaller squared errors are if the arms are specialists, of what is counted.

        arms: (C + 1, K + 1) each arm's mean quality, in each row.
        """
        noise, start, shared = state.noise, self.group_spread, self.group_shared
        if self.evidence == "groups":
            return evidence(noise, arms, state.sums, state.spread[0], start, shared)
        first = slice(0, min(state.used, _MAX_COMPARED))
        own, others = (state.n[first], state.s[first]), of_others(state, _LENT, _MAX_COMPARED)
        return evidence_of_cells(noise, arms[:1], own, others, start, shared)


def _down(
    noise: float,
    m: Floats,
    v: Floats,
    n: Floats,
    s: Floats,
    spread: float,
    g: float,
    kin: KinOf | None,
) -> tuple[Floats, Floats]:
    """One level down the tree: the arms' posterior above, and their counts in the cell."""
    one, h = variance(noise, m), np.array(spread)
    each = 1.0 / (h * n + one)
    m = shifted(m, n, s, each, g)
    if kin:
        m, unsure, h = kin.told(one, m, n, s, spread)
        v, each = v + unsure, 1.0 / (h * n + one)
    share = one * each
    return h * s * each + share * m, h * share + share * share * v
