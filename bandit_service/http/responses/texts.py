"""Questions and answers that are kept."""

from __future__ import annotations

from typing import Annotated

import msgspec

from bandit_service.core.fields import doc


class NeighbourText(msgspec.Struct, kw_only=True, frozen=True):
    """The question of a past query that the decision was based on."""

    id: Annotated[int, doc("Number of the past query in the history.", 4182)]
    question: Annotated[str, doc("What was asked.", "What is 17 * 24?")]
    topic: Annotated[
        int | None, doc("Its topic in the last `GET /v1/topics`; null if there was none.", 3)
    ]


class DecisionText(msgspec.Struct, kw_only=True, frozen=True):
    """What is kept of one decision, redacted."""

    decision_id: Annotated[
        str, doc("Id of the decision.", "019ad8a2-2f3c-7000-9c52-2f5e0c6b1a77", format="uuid")
    ]
    topic: Annotated[
        int | None,
        doc("Its topic of the last `GET /v1/topics`; null without one and to a tenant's key.", 3),
    ]
    question: Annotated[str, doc("What was asked.", "What is 17 * 23?")]
    answer: Annotated[
        str | None, doc("What was answered; null if it is not kept, or not a text.", "391")
    ]
    redacted: Annotated[int, doc("Number of redacted places.", 0)]
    cut: Annotated[bool, doc("Whether the text was longer than what is kept.", False)]
    until: Annotated[float, doc("When it is deleted, UTC seconds.", 1764950400.0)]
    neighbours: Annotated[
        list[NeighbourText],
        doc("Those whose question is kept; none to a key that is limited to a tenant."),
    ]
