"""Questions and answers that are kept, and their topics."""

from __future__ import annotations

import msgspec


class NeighbourText(msgspec.Struct, kw_only=True, frozen=True):
    """The question of a past query that the decision was based on.

    id: Number of the past query in the history.
    question: What was asked.
    topic: Its topic of the last `topics()`; None if there was none.
    """

    id: int
    question: str
    topic: int | None


class DecisionText(msgspec.Struct, kw_only=True, frozen=True):
    """What is kept of one decision, redacted.

    decision_id: Id of the decision.
    topic: Its topic of the last `topics()`; None without one, and to a tenant's key.
    question: What was asked.
    answer: What was answered; None if it is not kept, or not a text.
    redacted: Number of redacted places.
    cut: Whether the text was longer than what is kept.
    until: When it is deleted, UTC seconds.
    neighbours: Those whose question is kept; none to a key that is limited to a tenant.
    """

    decision_id: str
    topic: int | None
    question: str
    answer: str | None
    redacted: int
    cut: bool
    until: float
    neighbours: list[NeighbourText]


class TopicArm(msgspec.Struct, kw_only=True, frozen=True):
    """One arm's decisions of one topic, of the newest 5,000 that may still be rewarded.

    arm: Its id.
    decisions: Its decisions.
    rewarded: Those that have a reward.
    reward: Mean of these; None without one.
    billed: Decisions whose cost was reported.
    cost_usd: Mean of these in USD; None without one.
    """

    arm: str
    decisions: int
    rewarded: int
    reward: float | None
    billed: int
    cost_usd: float | None


class TopicRow(msgspec.Struct, kw_only=True, frozen=True):
    """One cluster of questions.

    topic: Its number, from 0.
    words: The most characteristic ones first; none if no word was used by enough people.
    questions: Questions that it was made of.
    units: Units that asked them, as far as a unit was named.
    arms: The requested ones, by number of decisions.
    """

    topic: int
    words: list[str]
    questions: int
    units: int
    arms: list[TopicArm]


class TopicOf(msgspec.Struct, kw_only=True, frozen=True):
    """The topic of a decision.

    decision_id: Its id.
    topic: Number of the topic.
    """

    decision_id: str
    topic: int


class Topics(msgspec.Struct, kw_only=True, frozen=True):
    """The topics; none while there are too few questions.

    ts: When they were computed, UTC seconds.
    questions: Questions that they were made of.
    needed: How many there must be.
    people: How many must have used a word before it is shown.
    topics: By number; at first the largest has 0.
    decisions: The newest decisions, newest first.
    """

    ts: float
    questions: int
    needed: int
    people: int
    topics: list[TopicRow]
    decisions: list[TopicOf]
