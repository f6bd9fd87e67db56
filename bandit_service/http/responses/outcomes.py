"""Errors, and the results of rewards and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from bandit_service.core.errors import ServiceError
from bandit_service.core.fields import doc


class ErrorDetail(msgspec.Struct, kw_only=True, frozen=True):
    """What was wrong, in the shape that OpenAI's clients read."""

    message: Annotated[
        str,
        doc(
            "What was wrong and what is allowed.",
            "quality: must be a number from 0 to 1, got 7",
        ),
    ]
    type: Annotated[str, doc("The class of the error.", "invalid_request_error")]
    param: Annotated[str | None, doc("The field that caused it, if any.", "quality")]
    code: Annotated[str, doc("A stable code; docs/errors.md lists all.", "invalid_value")]

    @classmethod
    def of(cls, error: ServiceError) -> ErrorDetail:
        """What an answer says of this error."""
        return cls(message=error.message, type=error.type, param=error.param, code=error.code)


class Error(msgspec.Struct, kw_only=True, frozen=True):
    """The answer to a request that failed."""

    error: Annotated[ErrorDetail, doc("What was wrong.")]


class Vote(msgspec.Struct, kw_only=True, frozen=True):
    """A user's vote on one answer."""

    vote: Annotated[str, doc("The present vote.", "up", enum=["up", "down", "neutral"])]
    expires: Annotated[
        str, doc("Until when it can be changed, ISO 8601.", "2026-01-02T12:00:00+00:00")
    ]


class FeedbackTaken(msgspec.Struct, kw_only=True, frozen=True):
    """TensorZero's answer to feedback."""

    feedback_id: Annotated[
        str,
        doc("A new id; no other path accepts it.", "0192f1b6-7c1e-7aaa-9c1e-5f0d6b1a2c3d"),
    ]


class MessageErrorDetail(msgspec.Struct, kw_only=True, frozen=True):
    """What was wrong, in the shape that Anthropic's clients read."""

    type: Annotated[str, doc("The class of the error.", "invalid_request_error")]
    message: Annotated[
        str, doc("What was wrong and what is allowed.", "max_tokens: must be at least 1")
    ]
    param: Annotated[str | None, doc("The field that caused it, if any.", "max_tokens")] = None
    code: Annotated[
        str | None, doc("A stable code; docs/errors.md lists all.", "invalid_value")
    ] = None


class MessageError(msgspec.Struct, kw_only=True, frozen=True):
    """The answer to a request of the Messages API that failed."""

    type: Annotated[str, doc("Always `error`.", "error")]
    error: Annotated[MessageErrorDetail, doc("What was wrong.")]
    request_id: Annotated[
        str | None, doc("As the header x-request-id.", "0192f1b6-7c1e-7aaa-9c1e-5f0d6b1a2c3d")
    ] = None


class Result(msgspec.Struct, kw_only=True, frozen=True):
    """The result of one reward or comparison."""

    decision_id: Annotated[
        str | None,
        doc(
            "The decision it was for; null for an outcome without one.",
            "0192f1b6-7c1e-7aaa-9c1e-5f0d6b1a2c3d",
        ),
    ]
    status: Annotated[
        str,
        doc(
            "`duplicate`: the same was reported before; nothing was changed.",
            "accepted",
            enum=["accepted", "duplicate", "error"],
        ),
    ]
    credited: Annotated[
        int | UnsetType, doc("Of a session: how many of its decisions it is credited to.", 3)
    ] = UNSET
    error: Annotated[ErrorDetail | UnsetType, doc("Why it was not accepted.")] = UNSET


class Results(msgspec.Struct, kw_only=True, frozen=True):
    """The results of what was sent, in its order."""

    results: Annotated[list[Result], doc("One result for each reward or comparison.")]


class Status(msgspec.Struct, kw_only=True, frozen=True):
    """Whether the service runs, and how much it knows."""

    status: Annotated[
        str, doc("`ok` or `ready`; `degraded` if something is not done now.", "ready")
    ]
    events: Annotated[int | UnsetType, doc("Events applied so far.", 12_043)] = UNSET
    arms: Annotated[int | UnsetType, doc("Arms that are offered.", 5)] = UNSET
    first: Annotated[int | UnsetType, doc("Offset of the first event in the log.", 1)] = UNSET
    last: Annotated[int | UnsetType, doc("Offset of the last event in the log.", 12_043)] = UNSET
    why: Annotated[
        str | UnsetType, doc("What is not done now.", "the disk is full: 3 events wait")
    ] = UNSET
    failing: Annotated[
        Mapping[str, str] | UnsetType,
        doc("Background tasks that failed and are retried, with the error.", {"expiry": "OSError"}),
    ] = UNSET
