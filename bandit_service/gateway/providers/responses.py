"""OpenAI's Responses API: docs/responses.md is the table of what is translated to what.

A client's own request of this API is passed through, except for items that this service made from
another dialect's answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandit_service.core.arm_request import ArmRequest
from bandit_service.gateway.providers import (
    _responses_answer,
    _responses_heard,
    _responses_request,
    _responses_told,
)
from bandit_service.gateway.providers._asking import Asks, limited, merged, plain_fields
from bandit_service.gateway.providers._base import Heard, HttpRequest, Json, headers_of
from bandit_service.settings.upstreams import Upstream, UpstreamSpec

OWN_PATH = "/responses"
COUNT_PATH = "/responses/input_tokens"
OWN_HEADERS = ()
KEEP_ALIVE = b": keep-alive\n\n"


def output_limit() -> int | None:
    """None: the provider answers as long as its model does."""
    return None


def check(path: str, body: Mapping[str, Any]) -> None:
    """Raise Refused, naming the field, for what the Responses API has no counterpart of."""
    if path not in (OWN_PATH, COUNT_PATH):
        _responses_request.request(path, body)


def request(upstream: Upstream, path: str, body: Mapping[str, Any]) -> HttpRequest:
    """POST /responses under the configured address."""
    base = upstream.spec.base_url.rstrip("/")
    if path in (OWN_PATH, COUNT_PATH):
        own = _responses_heard.without_ours(dict(body))
        return HttpRequest(base + path, headers_of(upstream), own)
    sent = _responses_request.request(path, body)
    return HttpRequest(base + OWN_PATH, headers_of(upstream), sent)


def configured(
    _upstream: UpstreamSpec, path: str, body: Mapping[str, Any], request: ArmRequest
) -> Json:
    """A request with the arm's own parameters."""
    if path == COUNT_PATH:
        return dict(body)
    said = dict(body) | plain_fields(request)
    if request.reasoning_effort is not None:
        said = merged(said, {"reasoning": {"effort": request.reasoning_effort}})
    if request.output_limit is not None:
        said["max_output_tokens"] = limited(said.get("max_output_tokens"), request)
    return merged(said, request.extra_body)


def asks(body: Mapping[str, Any]) -> Asks:
    """The values in a request that an arm may set."""
    reasoning = body.get("reasoning")
    return Asks(
        reasoning.get("effort") if isinstance(reasoning, Mapping) else None,
        None,
        body.get("max_output_tokens"),
        body.get("temperature"),
        body.get("service_tier"),
    )


def answer(answer: Json, created: int) -> Json:
    """A response as a chat completion. Raises Failed if it is none."""
    return _responses_answer.answer(answer, created)


def decoder(created: int) -> _responses_answer.Decoder:
    """A decoder of the API's events."""
    return _responses_answer.Decoder(created)


def heard(own: Json) -> Heard:
    """A client's request as a chat completion. Raises Refused if it is invalid."""
    return _responses_heard.heard(own)


def told(answer: Json, asked: Json, id: str) -> Json:
    """A chat completion as a response."""
    return _responses_told.response(answer, asked, id)


def teller(asked: Json, id: str, created: int) -> _responses_told.Teller:
    """The translator of chunks into the API's events."""
    return _responses_told.Teller(asked, id, created)


def error(_status: int, error: Mapping[str, Any]) -> Json:
    """OpenAI's body of an error."""
    return {"error": dict(error)}


def counted(tokens: int) -> Json:
    """The API's answer to a request that only counts."""
    return {"object": "response.input_tokens", "input_tokens": tokens}
