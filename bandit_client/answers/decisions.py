"""Decisions, their explanations, and what became of outcomes.

A field that the service left out is None; one that is newer than this client is passed over.
"""

from __future__ import annotations

import msgspec


class Expected(msgspec.Struct, kw_only=True, frozen=True):
    """What was expected of the arm that was drawn.

    cost_usd: Expected cost of the answer, USD.
    n: Outcomes behind it, by weight; a comparison counts as a part of one.
    untried: True if no outcome of the arm has come, so that no quality is known.
    quality: Expected quality. Absent if the policy gives none or the arm is untried.
    latency_s: Expected time to answer, seconds. Absent if unknown.
    prior: What the policy assumes of any arm that has no outcome yet.
    low: Lower end of the 95 % interval of the quality.
    high: Upper end of the 95 % interval of the quality.
    """

    cost_usd: float
    n: float | None = None
    untried: bool | None = None
    quality: float | None = None
    latency_s: float | None = None
    prior: float | None = None
    low: float | None = None
    high: float | None = None


class OutcomeOf(msgspec.Struct, kw_only=True, frozen=True):
    """An outcome of a past query.

    arm: The arm that answered.
    reward: The reward it earned, from −1 to 1.
    """

    arm: str
    reward: float


class Neighbour(msgspec.Struct, kw_only=True, frozen=True):
    """A past query that the decision was based on.

    id: Number of the past query in the history.
    similarity: Cosine similarity to this query.
    outcomes: What came back for it, by arm; empty once it has left the history.
    """

    id: int
    similarity: float
    outcomes: list[OutcomeOf] | None = None


class Belief(msgspec.Struct, kw_only=True, frozen=True):
    """The quality that is expected of an arm.

    value: Expected quality; null for an untried arm or if there is none.
    n: Outcomes behind it, by weight; a comparison counts as a part of one. Null if the policy
        keeps none.
    untried: True if no outcome of the arm has come, so that no quality is known.
    prior: What the policy assumes of any arm that has no outcome yet.
    low: Lower end of the 95 % interval, cut to [0, 1].
    high: Upper end of the 95 % interval, cut to [0, 1].
    """

    value: float | None
    n: float | None
    untried: bool | None = None
    prior: float | None = None
    low: float | None = None
    high: float | None = None


class WeighedArm(msgspec.Struct, kw_only=True, frozen=True):
    """An arm that could be drawn: its probability, its score, and what is expected of it.

    id: The arm.
    propensity: Its probability.
    score: value + bonus − cost, where those are given.
    value: The quality that the policy assumes.
    bonus: What is added to explore the arm, in quality.
    cost: Cost / willingness_to_pay, in quality; a switch is spread over the later turns.
    switch_usd: Part of cost_usd: what a switch of the conversation to this arm costs.
    expected: The quality that is expected of it.
    quality: The same as `expected.value`.
    cost_usd: Expected cost of the answer, USD.
    latency_s: Expected time to answer, seconds; null if unknown.
    """

    id: str
    propensity: float
    score: float
    value: float | None = None
    bonus: float | None = None
    cost: float | None = None
    switch_usd: float | None = None
    expected: Belief
    quality: float | None
    cost_usd: float
    latency_s: float | None


class Measured(msgspec.Struct, kw_only=True, frozen=True):
    """A named metric of a decision, and its part in the quality.

    name: The metric, of [[metrics]].
    value: What was reported; true is 1.
    goodness: The same from 0, the worst, to 1, the best.
    weight: Its weight now; 0 where it is only recorded.
    """

    name: str
    value: float
    goodness: float
    weight: float


class Decision(msgspec.Struct, kw_only=True, frozen=True):
    """Which arm answers a query.

    decision_id: Id of the decision; send it with the reward.
    arm: The arm that should answer.
    propensity: The probability with which this arm was drawn; off-policy estimates need it.
    policy: The policy that decided.
    expected: What was expected of the arm.
    experiment: The experiment that the unit takes part in.
    variant: The unit's variant of that experiment.
    route: The route that decided; None for the default one.
    feedback_token: Its holder may vote on the answer at /v1/feedback/{token}. Only in this answer.
    fallback: Why the decision was made without context or at random.
    reason: Why this arm; the same as the header x-bandit-reason.
    stayed: True if it is the arm that the conversation had before.
    before: The arm that the conversation had before.
    conversation: A hash of the conversation's name.
    switch_usd: What a switch of the conversation to each arm costs, USD.
    steps: How the query was assigned to an experiment, or why to none.
    scores: The policy's score of each eligible arm.
    propensities: The probability of each eligible arm; they sum to 1.
    neighbours: Similar past queries. Empty for a key that is limited to one tenant.
    excluded: Arms that a constraint excluded, with the reason.
    untried: Eligible arms that had no outcome yet.
    tags: The tags that came with the query.
    effort_asked: The reasoning effort that the client requested.
    effort: The reasoning effort that was sent to the provider.
    ts: When it was decided, UTC seconds.
    tokens: Estimated tokens of the query.
    willingness_to_pay: USD that one unit of quality was worth.
    signals: The signals reported so far.
    cost_usd: What its call counts for in budgets, USD: what was reported, also if another model
        answered, else an estimate. None if there is none.
    metrics: The named metrics among the signals. None if there is none.
    weighed: True if the quality is the weighted mean of the named metrics.
    deployment: The arm's deployment that answered; None if it has none, or none did.
    answered_by: The arm whose model answered instead; empty if no arm has that model.
    settled: Whether a reward was computed for this decision.
    unit: The unit of the request, or empty.
    tenant: The tenant of the request, or empty.
    text: True if what was said is kept, and this key may read it.
    arms: Every arm that could be drawn, with its score.
    """

    decision_id: str
    arm: str
    propensity: float
    policy: str
    expected: Expected
    experiment: str | None = None
    variant: str | None = None
    route: str | None = None
    feedback_token: str | None = None
    fallback: str | None = None
    reason: str | None = None
    stayed: bool | None = None
    before: str | None = None
    conversation: str | None = None
    switch_usd: dict[str, float] | None = None
    steps: list[str] | None = None
    scores: dict[str, float] | None = None
    propensities: dict[str, float] | None = None
    neighbours: list[Neighbour] | None = None
    excluded: dict[str, str] | None = None
    untried: list[str] | None = None
    tags: list[str] | None = None
    effort_asked: str | None = None
    effort: str | None = None
    ts: float | None = None
    tokens: int | None = None
    willingness_to_pay: float | None = None
    signals: dict[str, float] | None = None
    cost_usd: float | None = None
    metrics: list[Measured] | None = None
    weighed: bool | None = None
    deployment: str | None = None
    answered_by: str | None = None
    settled: bool | None = None
    unit: str | None = None
    tenant: str | None = None
    text: bool | None = None
    arms: list[WeighedArm] | None = None


class Explanation(msgspec.Struct, kw_only=True, frozen=True):
    """What would be decided now, and why.

    policy: The policy that would decide.
    arms: Every arm that could be drawn, with its score.
    left_out: Arms that a constraint excludes, with the reason.
    neighbours: Similar past queries. Empty for a key that is limited to one tenant.
    fallback: Why it would be decided without context or at random, or empty.
    """

    policy: str
    arms: list[WeighedArm]
    left_out: dict[str, str]
    neighbours: list[Neighbour]
    fallback: str


class ErrorDetail(msgspec.Struct, kw_only=True, frozen=True):
    """What was wrong, in the shape that OpenAI's clients read.

    message: What was wrong and what is allowed.
    type: The class of the error.
    param: The field that caused it, if any.
    code: A stable code; docs/errors.md lists all.
    """

    message: str
    type: str
    param: str | None
    code: str


class Result(msgspec.Struct, kw_only=True, frozen=True):
    """The result of one reward or comparison.

    decision_id: The decision it was for; null for an outcome without one.
    status: `duplicate`: the same was reported before; nothing was changed.
    credited: Of a session: how many of its decisions it is credited to.
    error: Why it was not accepted.
    """

    decision_id: str | None
    status: str
    credited: int | None = None
    error: ErrorDetail | None = None


class Results(msgspec.Struct, kw_only=True, frozen=True):
    """The results of what was sent, in its order.

    results: One result for each reward or comparison.
    """

    results: list[Result]


class Vote(msgspec.Struct, kw_only=True, frozen=True):
    """A user's vote on one answer.

    vote: The present vote.
    expires: Until when it can be changed, ISO 8601.
    """

    vote: str
    expires: str


class DecisionRow(msgspec.Struct, kw_only=True, frozen=True):
    """One decision of a list; `decision` has all of it.

    decision_id: Id of the decision.
    ts: When it was decided, UTC seconds.
    arm: The arm that was drawn.
    propensity: The probability with which it was drawn.
    policy: The policy that decided.
    tags: Its tags.
    unit: The unit of the request, or empty.
    tenant: The tenant of the request, or empty.
    experiment: The experiment that the unit takes part in, or empty.
    variant: The unit's variant of it, or empty.
    route: The route that decided, or empty for the default one.
    signals: The signals reported so far.
    reward: Its reward, or null.
    baseline_usd: What `baseline` of the list is expected to cost for this query, USD.
    """

    decision_id: str
    ts: float
    arm: str
    propensity: float
    policy: str
    tags: list[str]
    unit: str
    tenant: str
    experiment: str
    variant: str
    route: str
    signals: dict[str, float]
    reward: float | None
    baseline_usd: float | None = None


class DecisionList(msgspec.Struct, kw_only=True, frozen=True):
    """Decisions that may still be rewarded, newest first.

    decisions: At most `limit`; fewer says nothing of the rest.
    next: Send it as `before` to get older ones; null: there are none.
    baseline: The arm that savings are counted against; empty without one.
    """

    decisions: list[DecisionRow]
    next: str | None
    baseline: str = ""
