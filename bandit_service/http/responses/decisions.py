"""A decision, its record, and its explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from bandit_service.core.explanation import COUNT, UNTRIED, WeighedArm
from bandit_service.core.fields import doc
from bandit_service.core.switching_cost import REASONS as _WHY
from policies import ArmId

_ID = "0192f1b6-7c1e-7aaa-9c1e-5f0d6b1a2c3d"
_VOTE = "AdO2x3QAaSzfwAGS8bZ8Hnqqnb5fDWsaLD1eXmJcGq8v0pQyB2kQ6VtbXv9qkgqS1bU"


REASONS = tuple(_WHY)


class Expected(msgspec.Struct, kw_only=True, gc=False):
    """What was expected of the arm that was drawn."""

    cost_usd: Annotated[float, doc("Expected cost of the answer, USD.", 0.0008)]
    n: Annotated[float | UnsetType, doc(COUNT, 12.0, minimum=0)] = UNSET
    untried: Annotated[bool | UnsetType, doc(UNTRIED, True, const=True)] = UNSET
    quality: Annotated[
        float | UnsetType,
        doc("Expected quality. Absent if the policy gives none or the arm is untried.", 0.81),
    ] = UNSET
    latency_s: Annotated[
        float | UnsetType, doc("Expected time to answer, seconds. Absent if unknown.", 1.4)
    ] = UNSET
    prior: Annotated[
        float | UnsetType,
        doc("What the policy assumes of any arm that has no outcome yet.", 0.5),
    ] = UNSET
    low: Annotated[
        float | UnsetType, doc("Lower end of the 95 % interval of the quality.", 0.7)
    ] = UNSET
    high: Annotated[
        float | UnsetType, doc("Upper end of the 95 % interval of the quality.", 0.92)
    ] = UNSET


class OutcomeOf(msgspec.Struct, kw_only=True, frozen=True):
    """An outcome of a past query."""

    arm: Annotated[str, doc("The arm that answered.", "gpt-5-mini")]
    reward: Annotated[float, doc("The reward it earned, from −1 to 1.", 0.85)]


class Neighbour(msgspec.Struct, kw_only=True):
    """A past query that the decision was based on."""

    id: Annotated[int, doc("Number of the past query in the history.", 4182)]
    similarity: Annotated[float, doc("Cosine similarity to this query.", 0.93)]
    outcomes: Annotated[
        list[OutcomeOf] | UnsetType,
        doc("What came back for it, by arm; empty once it has left the history."),
    ] = UNSET


class Measured(msgspec.Struct, kw_only=True, frozen=True):
    """A named metric of a decision, and its part in the quality."""

    name: Annotated[str, doc("The metric, of [[metrics]].", "resolved")]
    value: Annotated[float, doc("What was reported; true is 1.", 1.0)]
    goodness: Annotated[float, doc("The same from 0, the worst, to 1, the best.", 1.0)]
    weight: Annotated[float, doc("Its weight now; 0 where it is only recorded.", 3.0)]


class Decision(msgspec.Struct, kw_only=True):
    """Which arm answers a query. Fields from `steps` on come with `explain` or from the record."""

    decision_id: Annotated[
        str, doc("Id of the decision; send it with the reward.", _ID, format="uuid")
    ]
    arm: Annotated[str, doc("The arm that should answer.", "gpt-5-mini")]
    propensity: Annotated[
        float,
        doc(
            "The probability with which this arm was drawn; off-policy estimates need it.",
            0.92,
            exclusiveMinimum=0,
            maximum=1,
        ),
    ]
    policy: Annotated[str, doc("The policy that decided.", "metallm")]
    expected: Annotated[Expected, doc("What was expected of the arm.")]
    experiment: Annotated[
        str | UnsetType, doc("The experiment that the unit takes part in.", "cheaper-models")
    ] = UNSET
    variant: Annotated[
        str | UnsetType, doc("The unit's variant of that experiment.", "treatment")
    ] = UNSET
    route: Annotated[
        str | UnsetType, doc("The route that decided; absent for the default one.", "support-bot")
    ] = UNSET
    feedback_token: Annotated[
        str | UnsetType,
        doc(
            "Its holder may vote on the answer at /v1/feedback/{token}. Only in this answer.", _VOTE
        ),
    ] = UNSET
    fallback: Annotated[
        str | UnsetType,
        doc("Why the decision was made without context or at random.", "no embedding"),
    ] = UNSET
    reason: Annotated[
        str | UnsetType,
        doc("Why this arm; the same as the header x-bandit-reason.", "stayed", enum=REASONS),
    ] = UNSET
    stayed: Annotated[
        bool | UnsetType, doc("True if it is the arm that the conversation had before.", True)
    ] = UNSET
    before: Annotated[
        str | UnsetType, doc("The arm that the conversation had before.", "gpt-5-mini")
    ] = UNSET
    conversation: Annotated[
        str | UnsetType,
        doc("A hash of the conversation's name.", "5b0c1f0e9d3a4c7b8e6f2a1d0c9b8a7f"),
    ] = UNSET
    switch_usd: Annotated[
        Mapping[str, float] | UnsetType,
        doc("What a switch of the conversation to each arm costs, USD.", {"o3": 0.04}),
    ] = UNSET
    steps: Annotated[
        list[str] | UnsetType,
        doc("How the query was assigned to an experiment, or why to none.", ["not stopped"]),
    ] = UNSET
    scores: Annotated[
        Mapping[str, float] | UnsetType,
        doc(
            "The policy's score of each eligible arm. Absent if `log.embeddings` is not `float32`.",
            {"gpt-5-mini": 0.83},
        ),
    ] = UNSET
    propensities: Annotated[
        Mapping[str, float] | UnsetType,
        doc("The probability of each eligible arm; they sum to 1.", {"gpt-5-mini": 0.92}),
    ] = UNSET
    neighbours: Annotated[
        list[Neighbour] | UnsetType,
        doc("Similar past queries. Empty for a key that is limited to one tenant."),
    ] = UNSET
    excluded: Annotated[
        Mapping[ArmId, str] | UnsetType,
        doc("Arms that a constraint excluded, with the reason.", {"o3": "max_cost_usd"}),
    ] = UNSET
    untried: Annotated[
        list[str] | UnsetType, doc("Eligible arms that had no outcome yet.", ["mistral-large"])
    ] = UNSET
    tags: Annotated[
        Sequence[str] | UnsetType, doc("The tags that came with the query.", ["checkout"])
    ] = UNSET
    effort_asked: Annotated[
        str | UnsetType, doc("The reasoning effort that the client requested.", "low")
    ] = UNSET
    effort: Annotated[
        str | UnsetType, doc("The reasoning effort that was sent to the provider.", "high")
    ] = UNSET
    ts: Annotated[float | UnsetType, doc("When it was decided, UTC seconds.", 1764345600.0)] = UNSET
    tokens: Annotated[int | UnsetType, doc("Estimated tokens of the query.", 42)] = UNSET
    willingness_to_pay: Annotated[
        float | UnsetType, doc("USD that one unit of quality was worth.", 0.1)
    ] = UNSET
    signals: Annotated[
        Mapping[str, float] | UnsetType,
        doc("The signals reported so far.", {"quality": 0.9, "cost_usd": 0.0007}),
    ] = UNSET
    cost_usd: Annotated[
        float | UnsetType,
        doc(
            "What its call counts for in budgets, USD: what was reported, also if another model "
            "answered, else an estimate. Absent if there is none.",
            0.0007,
        ),
    ] = UNSET
    metrics: Annotated[
        list[Measured] | UnsetType,
        doc("The named metrics among the signals. Absent if there is none."),
    ] = UNSET
    weighed: Annotated[
        bool | UnsetType,
        doc("True if the quality is the weighted mean of the named metrics.", True),
    ] = UNSET
    deployment: Annotated[
        str | UnsetType,
        doc("The arm's deployment that answered; absent if it has none, or none did.", "azure-eu"),
    ] = UNSET
    answered_by: Annotated[
        str | UnsetType,
        doc("The arm whose model answered instead; empty if no arm has that model.", "o3"),
    ] = UNSET
    settled: Annotated[
        bool | UnsetType, doc("Whether a reward was computed for this decision.", True)
    ] = UNSET
    unit: Annotated[str | UnsetType, doc("The unit of the request, or empty.", "user-17")] = UNSET
    tenant: Annotated[str | UnsetType, doc("The tenant of the request, or empty.", "acme")] = UNSET
    text: Annotated[
        bool | UnsetType,
        doc("True if the texts are kept and this key may read them at the path with /text.", True),
    ] = UNSET
    arms: Annotated[
        list[WeighedArm] | UnsetType, doc("Every arm that could be drawn, with its score.")
    ] = UNSET


class Explanation(msgspec.Struct, kw_only=True, frozen=True):
    """What would be decided now, and why."""

    policy: Annotated[str, doc("The policy that would decide.", "metallm")]
    arms: Annotated[list[WeighedArm], doc("Every arm that could be drawn, with its score.")]
    left_out: Annotated[
        Mapping[ArmId, str],
        doc("Arms that a constraint excludes, with the reason.", {"o3": "max_cost_usd"}),
    ]
    neighbours: Annotated[
        list[Neighbour],
        doc("Similar past queries. Empty for a key that is limited to one tenant."),
    ]
    fallback: Annotated[
        str, doc("Why it would be decided without context or at random, or empty.", "")
    ]


class Duelist(msgspec.Struct, kw_only=True, frozen=True):
    """One answer of a duel."""

    decision_id: Annotated[str, doc("Id of the decision behind this answer.", _ID)]
    arm: Annotated[str, doc("The arm that answered.", "gpt-5-mini")]
    answer: Annotated[str, doc("The text of the answer.", "Paris.")]


class Duel(msgspec.Struct, kw_only=True, frozen=True):
    """Two answers to one query, for a user to compare."""

    decision_id: Annotated[str, doc("Id to send with the comparison.", _ID)]
    answers: Annotated[list[Duelist], doc("Both answers; the first was shown to the client.")]


class DecisionRow(msgspec.Struct, kw_only=True, frozen=True):
    """One decision of a list; `GET /v1/decisions/{id}` has all of it."""

    decision_id: Annotated[str, doc("Id of the decision.", _ID)]
    ts: Annotated[float, doc("When it was decided, UTC seconds.", 1764345600.0)]
    arm: Annotated[str, doc("The arm that was drawn.", "gpt-5-mini")]
    propensity: Annotated[float, doc("The probability with which it was drawn.", 0.92)]
    policy: Annotated[str, doc("The policy that decided.", "metallm")]
    tags: Annotated[Sequence[str], doc("Its tags.", ["checkout"])]
    unit: Annotated[str, doc("The unit of the request, or empty.", "user-17")]
    tenant: Annotated[str, doc("The tenant of the request, or empty.", "acme")]
    experiment: Annotated[
        str, doc("The experiment that the unit takes part in, or empty.", "cheaper-models")
    ]
    variant: Annotated[str, doc("The unit's variant of it, or empty.", "treatment")]
    route: Annotated[str, doc("The route that decided, or empty for the default one.", "")]
    signals: Annotated[
        Mapping[str, float],
        doc("The signals reported so far.", {"quality": 0.9, "cost_usd": 0.0007}),
    ]
    reward: Annotated[float | None, doc("Its reward, or null.", 0.893)]
    baseline_usd: Annotated[
        float | None,
        doc("What `baseline` of the list is expected to cost for this query, USD.", 0.0042),
    ] = None


class DecisionList(msgspec.Struct, kw_only=True, frozen=True):
    """Decisions that may still be rewarded, newest first."""

    decisions: Annotated[list[DecisionRow], doc("At most `limit`; fewer says nothing of the rest.")]
    next: Annotated[
        str | None, doc("Send it as `before` to get older ones; null: there are none.", _ID)
    ]
    baseline: Annotated[
        str, doc("The arm that savings are counted against; empty without one.", "o3")
    ] = ""
