"""Anthropic's Messages API: docs/anthropic.md is the table of what is translated to what.

A client's own request of this API is passed through, except for thinking that the API did not sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandit_service.core.arm_request import ArmRequest
from bandit_service.gateway.providers import (
    _anthropic_answer,
    _anthropic_heard,
    _anthropic_request,
    _anthropic_told,
)
from bandit_service.gateway.providers._asking import Asks, limited, merged, plain_fields
from bandit_service.gateway.providers._base import (
    Heard,
    HttpRequest,
    Json,
    event,
    headers_of,
    refused,
)
from bandit_service.settings.upstreams import Upstream, UpstreamSpec

VERSION = "2023-06-01"
OWN_PATH = "/messages"
COUNT_PATH = "/messages/count_tokens"
OWN_HEADERS = ("anthropic-version", "anthropic-beta")
KEEP_ALIVE = event({"type": "ping"})


def output_limit() -> int | None:
    """The limit that is sent if the client sets none, since the API requires one."""
    return _anthropic_request.MAX_TOKENS


def check(path: str, body: Mapping[str, Any]) -> None:
    """Raise Refused, naming the field, for what the Messages API has no counterpart of."""
    if path not in (OWN_PATH, COUNT_PATH):
        _anthropic_request.request(path, body)


def request(upstream: Upstream, path: str, body: Mapping[str, Any]) -> HttpRequest:
    """POST /v1/messages; the configured address may end with the version or without."""
    own = path in (OWN_PATH, COUNT_PATH)
    base = upstream.spec.base_url.rstrip("/").removesuffix("/v1") + "/v1"
    headers = headers_of(upstream, "x-api-key", {"anthropic-version": VERSION})
    if own:
        return HttpRequest(base + path, headers, _anthropic_heard.unsigned(dict(body)))
    return HttpRequest(base + OWN_PATH, headers, _anthropic_request.request(path, body))


def configured(
    _upstream: UpstreamSpec, path: str, body: Mapping[str, Any], request: ArmRequest
) -> Json:
    """A request with the arm's own parameters.

    Thinking is added to the answer's limit, since the API counts it as a part. Fields that the API
    does not accept together with thinking are left out if they only steer, and otherwise refused.
    """
    if path == COUNT_PATH:
        return dict(body)
    said = dict(body) | plain_fields(request)
    effort, budget = request.reasoning_effort, request.thinking_budget
    if effort == "none" or budget == 0:
        said["thinking"] = {"type": "disabled"}
    if effort is not None and effort != "none":
        said = merged(said, {"output_config": {"effort": effort}})
    if budget:
        choice = said.get("tool_choice")
        if isinstance(choice, Mapping) and choice.get("type") in ("any", "tool"):
            raise refused(
                "tool_choice", "the arm turns thinking on, and then a tool call cannot be forced"
            )
        said["thinking"] = {"type": "enabled", "budget_tokens": budget}
        for name in ("temperature", "top_p", "top_k"):
            said.pop(name, None)
    limit = limited(said.get("max_tokens"), request)
    if budget and isinstance(limit, int) and limit <= budget:
        limit += budget
    said["max_tokens"] = limit
    return merged(said, request.extra_body)


def asks(body: Mapping[str, Any]) -> Asks:
    """The values in a request that an arm may set."""
    thinking, config = body.get("thinking"), body.get("output_config")
    budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
    if isinstance(thinking, Mapping) and thinking.get("type") == "disabled":
        budget = 0
    return Asks(
        config.get("effort") if isinstance(config, Mapping) else None,
        budget,
        body.get("max_tokens"),
        body.get("temperature"),
        body.get("service_tier"),
    )


def answer(answer: Json, created: int) -> Json:
    """A message as a chat completion. Raises Failed if it is none, or reports an error."""
    return _anthropic_answer.answer(answer, created)


def decoder(created: int) -> _anthropic_answer.Decoder:
    """A decoder of the API's events."""
    return _anthropic_answer.Decoder(created)


def heard(own: Json) -> Heard:
    """A client's message request as a chat completion. Raises Refused if it is invalid."""
    return _anthropic_heard.heard(own)


def told(answer: Json, asked: Json, id: str) -> Json:
    """A chat completion as a message. Raises Failed."""
    return _anthropic_told.message(answer, asked, id)


def teller(asked: Json, id: str, _created: int) -> _anthropic_told.Teller:
    """The translator of chunks into the API's events."""
    return _anthropic_told.Teller(asked, id)


def error(status: int, error: Mapping[str, Any]) -> Json:
    """The API's body of an error."""
    return _anthropic_told.error(status, error)


def counted(tokens: int) -> Json:
    """The API's answer to a request that only counts."""
    return {"input_tokens": tokens}
