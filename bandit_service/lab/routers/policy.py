"""An online policy as an offline router: it learns the training part, then only proposes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

import policies
from bandit_service.core.arm_record import relative_price
from bandit_service.core.events import surface_of
from bandit_service.data.recordings import surface_once
from bandit_service.lab.data import Labelled
from bandit_service.lab.routers._pairs import drawn_pairs
from bandit_service.lab.routers._protocol import Axis
from bandit_service.lab.routers._sweep import (
    Indices,
    best,
    by_budget,
    by_dominance,
    by_price,
    levels_of,
)
from bandit_service.lab.routers.neighbours import nearest
from bandit_service.lab.targets import mean_cost
from policies import (
    ArmId,
    Arms,
    Compared,
    Comparison,
    Context,
    Floats,
    LearnsMany,
    Neighbour,
    Outcome,
    Policy,
    Rewarded,
    Vector,
    above,
    one_of,
    within,
)

_FREE = 1e12  # willingness to pay at which no cost counts
_PROBES = 8
_TOGETHER = 256
Event: TypeAlias = Rewarded | Compared
_LOGITS = math.log(10.0) / 400.0  # in a point of Elo's scale
# How scores depend on willingness to pay.
_Form: TypeAlias = Literal["merit", "flat", "other"]
_COARSE: Floats = np.concatenate([[0.0], np.logspace(-1.0, 7.0, 33)])


def _no_parameters() -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class PolicyRouter:
    """The policy `name`, warm-started on the training part in an order shuffled by the seed.

    parameters: of the policy.
    feedback: "rewards", one Rewarded event for every answer, whose reward is quality less cost
        over `willingness_to_pay`; or "comparisons", `pairs_per_query` Compared events for every
        query, by quality, those within `tie_margin` ties. None for all pairs.
    neighbours: how many of the nearest training queries, with what was learned of them, a
        proposal is shown; the policy's own parameter of that name where it has one.

    After that it learns nothing, and the arm with the highest score is chosen; on ties the cheaper.
    Where the scores are merit − cost/WTP, as eight probes tell, merit is asked once and swept by
    λ = 1/WTP; where they do not depend on WTP, `without_price` says what is swept; in any other
    case the policy is asked again at 34 values of λ.

    without_price: "budget", Eagle's rule (`by_budget`), which for K arms has at most K settings;
        or "dominance", for ratings on Elo's scale: the cheapest arm that no dearer one beats
        with probability α or more, α swept, as for RouteLLM (`by_dominance`).
    """

    name: str
    parameters: Mapping[str, Any] = field(default_factory=_no_parameters)
    feedback: str = "rewards"
    pairs_per_query: int | None = 1
    tie_margin: float = 0.0
    willingness_to_pay: float = 0.1
    neighbours: int = 20
    without_price: str = "budget"

    def __post_init__(self) -> None:
        one_of("feedback", self.feedback, ("rewards", "comparisons"))
        if self.pairs_per_query is not None:
            within("pairs_per_query", self.pairs_per_query, 1)
        within("tie_margin", self.tie_margin, 0.0)
        above("willingness_to_pay", self.willingness_to_pay, 0.0)
        within("neighbours", self.neighbours, 0)
        one_of("without_price", self.without_price, ("budget", "dominance"))
        self.policy()

    def policy(self) -> Policy[Any]:
        """The policy itself; ValueError names a bad parameter."""
        return policies.load(self.name, **self.parameters)

    def fit(self, train: Labelled, seed: int, /) -> _Warm:
        """Fold every event of the training part."""
        policy = self.policy()
        k = len(train.arms)
        vectors = np.zeros((0, train.embeddings.shape[1]), np.float32)
        empty = _Warm(self, policy, policy.init(), vectors, (), np.zeros(k), np.zeros(k), 0)
        return empty.update(train, seed).probed(train)


@dataclass(frozen=True, slots=True)
class _Warm:
    """A policy with its state, and what it was taught as neighbours of later queries.

    vectors: (n, d) and rows: n neighbours, in the order of their events. usd, answers: (K,) sums.
    """

    router: PolicyRouter
    policy: Policy[Any]
    state: Any
    vectors: Vector
    rows: tuple[Neighbour, ...]
    usd: Floats
    answers: Floats
    seen: int
    form: _Form = "merit"

    @property
    def axis(self) -> Axis:
        if self.form != "flat":
            return "price"
        return "budget" if self.router.without_price == "budget" else "threshold"

    @property
    def cost(self) -> Floats:
        """(K,) mean USD; the dearest arm's for an arm that was never seen."""
        mean = self.usd / np.maximum(self.answers, 1.0)
        return np.where(self.answers > 0.0, mean, mean.max())

    def update(self, more: Labelled, seed: int, /) -> _Warm:
        """Fold the events of `more` alone. The state is written into."""
        order = np.random.default_rng(seed).permutation(len(more))
        shuffled = more.take(order)
        fold = _by_rewards if self.router.feedback == "rewards" else _by_comparisons
        state, rows, taught = fold(self, shuffled, seed)
        return replace(
            self,
            state=state,
            vectors=np.concatenate([self.vectors, shuffled.embeddings]),
            rows=self.rows + tuple(rows),
            usd=self.usd + np.nansum(more.cost, axis=0),
            answers=self.answers + more.answered.sum(axis=0),
            seen=self.seen + taught,
        )

    def probed(self, queries: Labelled) -> _Warm:
        """With the form of its scores found out on the first few queries."""
        some = queries.take(np.arange(min(_PROBES, len(queries))))
        free = self._scores(some, _FREE)
        flat = merit = True
        for worth in (1.0, 0.01):
            got = self._scores(some, worth)
            answered = some.answered
            flat &= bool((got == free)[answered].all())
            merit &= bool(np.allclose((free - self.cost / worth)[answered], got[answered]))
        return replace(self, form="flat" if flat else "merit" if merit else "other")

    def choices(self, queries: Labelled) -> Iterator[tuple[float, Indices]]:
        cost, answered = self.cost, queries.answered
        if self.axis == "threshold":
            strength = self._scores(queries, _FREE) * _LOGITS
            levels = levels_of(strength, cost, answered)
            yield from by_dominance(strength, cost, levels, answered)
        elif self.axis == "budget":
            yield from by_budget(self._scores(queries, _FREE), cost, answered)
        elif self.form == "merit":
            yield from by_price(self._scores(queries, _FREE), cost, answered)
        else:
            for price in _COARSE.tolist():
                worth = 1.0 / price if price else _FREE
                yield price, best(self._scores(queries, worth), cost, answered)

    def _scores(self, queries: Labelled, worth: float) -> Floats:
        """(n, K) scores at one willingness to pay, −∞ for arms without an answer."""
        wanted = min(getattr(self.policy, "neighbours", self.router.neighbours), len(self.rows))
        ids, near = nearest(queries.embeddings, self.vectors, wanted) if wanted else (None, None)
        cost, price = self.cost, _prices(queries)
        everyone = _arms(queries, cost, price, np.arange(len(cost)))
        scores = np.full(queries.quality.shape, -np.inf)
        tokens = queries.recorded.tokens.tolist()
        for i, answered in enumerate(queries.answered):
            neighbours: tuple[Neighbour, ...] = ()
            if ids is not None and near is not None:
                found = zip(ids[i].tolist(), near[i].tolist(), strict=True)
                neighbours = tuple(replace(self.rows[id], similarity=s) for id, s in found)
            context = Context(
                queries.embeddings[i],
                tokens[i],
                worth,
                neighbours,
                surface_of(surface_once(queries.recorded.texts[i])),
            )
            which = np.flatnonzero(answered)
            arms = everyone if answered.all() else _arms(queries, cost, price, which)
            scores[i, which] = self.policy.propose(self.state, context, arms).scores
        return scores


def _arms(queries: Labelled, cost: Floats, price: Floats, which: Indices) -> Arms:
    return Arms(tuple(ArmId(queries.arms[k]) for k in which), cost[which], price[which])


def _prices(queries: Labelled) -> Floats:
    """(K,) list price over the dearest one's, as the service has it."""
    specs = queries.recorded.arms
    dearest = max(spec.usd_per_mtok_in + spec.usd_per_mtok_out for spec in specs)
    return np.array([relative_price(spec, dearest) for spec in specs])


def _context(warm: _Warm, more: Labelled, i: int, neighbours: tuple[Neighbour, ...]) -> Context:
    worth = warm.router.willingness_to_pay
    form = surface_of(surface_once(more.recorded.texts[i]))
    return Context(more.embeddings[i], int(more.recorded.tokens[i]), worth, neighbours, form)


def _by_rewards(warm: _Warm, more: Labelled, _seed: int) -> tuple[Any, list[Neighbour], int]:
    """One event for each answer; the query's earlier answers are its neighbour, at cosine 1."""
    state, rows, taught = warm.state, [], 0
    waiting: list[Event] = []
    ids, price, expected = more.arms, _prices(more).tolist(), mean_cost(more).tolist()
    for i, answered in enumerate(more.answered):
        number = len(warm.rows) + i
        outcomes: tuple[Outcome, ...] = ()
        for k in np.flatnonzero(answered).tolist():
            quality, cost_usd = float(more.quality[i, k]), float(more.cost[i, k])
            reward = min(1.0, max(-1.0, quality - cost_usd / warm.router.willingness_to_pay))
            before = (Neighbour(number, 1.0, outcomes),) if outcomes else ()
            event = Rewarded(
                _context(warm, more, i, before),
                ArmId(ids[k]),
                1.0,
                price[k],
                expected[k],
                quality=quality,
                cost_usd=cost_usd,
                reward=reward,
            )
            waiting.append(event)
            outcomes = (*outcomes, Outcome(ArmId(ids[k]), quality, reward))
            taught += 1
        rows.append(Neighbour(number, 0.0, outcomes))
        if len(waiting) >= _TOGETHER:
            state, waiting = _learned(warm, state, waiting), []
    return _learned(warm, state, waiting), rows, taught


def _learned(warm: _Warm, state: Any, events: list[Event]) -> Any:
    """The state after these, all together where the policy can."""
    policy: Any = warm.policy
    if isinstance(policy, LearnsMany):
        return policy.learn_many(state, events)
    for event in events:
        state = policy.learn(state, event)
    return state


def _by_comparisons(warm: _Warm, more: Labelled, seed: int) -> tuple[Any, list[Neighbour], int]:
    """Compared events, drawn as `drawn_pairs` says."""
    pairs = drawn_pairs(more, warm.router.pairs_per_query, warm.router.tie_margin, seed)
    made: list[list[Comparison]] = [[] for _ in range(len(more))]
    state = warm.state
    arms = [ArmId(id) for id in more.arms]
    columns = (pairs.row, pairs.first, pairs.second, pairs.margin)
    for i, first, second, margin in zip(*(c.tolist() for c in columns), strict=True):
        winner, loser = (first, second) if margin >= 0.0 else (second, first)
        past = Comparison(arms[winner], arms[loser], tie=margin == 0.0)
        made[i].append(past)
        context = _context(warm, more, i, ())
        state = warm.policy.learn(state, Compared(context, past.winner, past.loser, past.tie))
    start = len(warm.rows)
    rows = [Neighbour(start + i, 0.0, (), tuple(each)) for i, each in enumerate(made)]
    return state, rows, len(pairs)
