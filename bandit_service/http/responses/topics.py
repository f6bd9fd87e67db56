"""Topics of the questions that are kept."""

from __future__ import annotations

from typing import Annotated

import msgspec

from bandit_service.core.fields import doc


class TopicArm(msgspec.Struct, kw_only=True, frozen=True):
    """One arm's decisions of one topic, of the newest 5,000 that may still be rewarded."""

    arm: Annotated[str, doc("Its id.", "gpt-5-mini")]
    decisions: Annotated[int, doc("Its decisions.", 140)]
    rewarded: Annotated[int, doc("Those that have a reward.", 90)]
    reward: Annotated[float | None, doc("Mean of these; null without one.", 0.71)]
    billed: Annotated[int, doc("Decisions whose cost was reported.", 140)]
    cost_usd: Annotated[float | None, doc("Mean of these in USD; null without one.", 0.0021)]


class TopicRow(msgspec.Struct, kw_only=True, frozen=True):
    """One cluster of questions."""

    topic: Annotated[int, doc("Its number, from 0.", 3)]
    words: Annotated[
        list[str],
        doc(
            "The most characteristic ones first; none if no word was used by enough people.",
            ["invoice", "refund"],
        ),
    ]
    questions: Annotated[int, doc("Questions that it was made of.", 210)]
    units: Annotated[int, doc("Units that asked them, as far as a unit was named.", 66)]
    arms: Annotated[list[TopicArm], doc("The requested ones, by number of decisions.")]


class TopicOf(msgspec.Struct, kw_only=True, frozen=True):
    """The topic of a decision."""

    decision_id: Annotated[
        str, doc("Its id.", "019ad8a2-2f3c-7000-9c52-2f5e0c6b1a77", format="uuid")
    ]
    topic: Annotated[int, doc("Number of the topic.", 3)]


class Topics(msgspec.Struct, kw_only=True, frozen=True):
    """The topics; none while there are too few questions."""

    ts: Annotated[float, doc("When they were computed, UTC seconds.", 1764940800.0)]
    questions: Annotated[int, doc("Questions that they were made of.", 900)]
    needed: Annotated[int, doc("How many there must be.", 40)]
    people: Annotated[int, doc("How many must have used a word before it is shown.", 5)]
    topics: Annotated[list[TopicRow], doc("By number; at first the largest has 0.")]
    decisions: Annotated[list[TopicOf], doc("The newest decisions, newest first.")]
