"""[gateway] and [duels]: how requests go to providers."""

from __future__ import annotations

from dataclasses import dataclass

from bandit_service.settings.rule import setting


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """How requests of OpenAI's wire format are carried out; `[[upstreams]]` are the providers."""

    attempts: int = setting(3, "maximum number of arms tried for one request", low=1, high=20)
    max_calls: int = setting(
        20,
        "maximum number of provider calls for one request, over all arms and deployments",
        low=1,
        high=1000,
    )
    request_s: float = setting(
        600.0,
        "time limit for all provider calls of one request together; a call that still runs then is "
        "cut off",
        low=0.1,
        high=86_400,
    )
    failure_quality: float = setting(
        0.0, "quality that an arm gets for a failed answer", low=0, high=1
    )
    latency_signal: str = setting(
        "total",
        "what latency_s measures: the whole answer, its first token, or the whole divided by "
        "its tokens",
        choices=("total", "first_token", "per_token"),
    )
    sticky: bool = setting(
        True, "include the cost of a switch, so that a conversation keeps its arm while that pays"
    )
    sticky_s: float = setting(
        3600.0, "a conversation without a request for this long starts over", low=1, high=86_400
    )
    max_body_bytes: int = setting(
        33_554_432, "largest request body on the gateway's paths, images included", low=1024
    )
    max_body_parts: int = setting(
        100_000,
        "maximum number of lists and objects in such a body; ten other values count as one",
        low=100,
    )
    max_answer_bytes: int = setting(
        33_554_432, "largest answer of a provider, and largest event of a stream", low=1024
    )
    max_header_bytes: int = setting(
        65_536, "longest line in the head of a provider's answer", low=1024, high=1_048_576
    )
    keep_alive_s: float = setting(
        15.0,
        "send the client of a stream a comment after this long without data; 0: none",
        low=0,
        high=3600,
    )
    verdict_s: float = setting(
        1.0,
        "maximum CPU seconds of a judge's pattern or schema for one answer",
        low=0.01,
        high=60,
    )
    breaker_failures: int = setting(3, "failures in a row after which an arm is masked", low=1)
    breaker_cool_s: float = setting(
        5.0, "how long an arm is masked at first; doubles with each failed probe", low=0.01
    )


@dataclass(frozen=True, slots=True)
class DuelSettings:
    """A second arm answers too, and the two answers are compared; the user gets the first."""

    share: float = setting(
        0.0, "share of the routed answers that a second arm answers too", low=0, high=1
    )
    judge: str = setting(
        "", "id of the judge that compares the answers; empty leaves it to the user"
    )
    keep_s: float = setting(
        600.0, "how long GET /v1/duels can return both answers", low=0, high=86_400
    )
