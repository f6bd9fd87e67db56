"""OpenAI's chat completions, which most providers speak: everything goes through unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandit_service.core.arm_request import ArmRequest
from bandit_service.gateway.providers._asking import Asks, limited, merged, plain_fields
from bandit_service.gateway.providers._base import (
    Heard,
    HttpRequest,
    Json,
    encoded,
    headers_of,
    refused,
)
from bandit_service.settings.upstreams import Upstream, UpstreamSpec

OWN_PATH = "/chat/completions"
COUNT_PATH = ""
OWN_HEADERS = ()
LIMITS = ("max_completion_tokens", "max_tokens")
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which every reader of event streams skips."""


class Decoder:
    """Gives each event back as it came."""

    def feed(self, data: bytes) -> list[bytes]:
        """The same data."""
        return [data]

    def end(self) -> list[bytes]:
        """Nothing: the provider ends its stream itself."""
        return []


def output_limit() -> int | None:
    """None: the provider answers as long as its model does."""
    return None


def check(path: str, body: Mapping[str, Any]) -> None:
    """Nothing is refused here; the provider may refuse it."""


def request(upstream: Upstream, path: str, body: Mapping[str, Any]) -> HttpRequest:
    """The client's body at the same path under the configured address."""
    return HttpRequest(upstream.spec.base_url.rstrip("/") + path, headers_of(upstream), body)


def configured(
    upstream: UpstreamSpec, path: str, body: Mapping[str, Any], request: ArmRequest
) -> Json:
    """A request with the arm's own parameters."""
    if path == "/embeddings":
        return merged(body, request.extra_body)
    said = dict(body) | plain_fields(request)
    if request.reasoning_effort is not None:
        if path != OWN_PATH:
            raise refused("reasoning_effort", "the arm sets it, and a text completion has none")
        said["reasoning_effort"] = request.reasoning_effort
    if request.output_limit is not None:
        there = [name for name in LIMITS if said.get(name) is not None]
        usual = upstream.limit_field if path == OWN_PATH else "max_tokens"
        said |= {name: limited(said.get(name), request) for name in there or [usual]}
    return merged(said, request.extra_body)


def asks(body: Mapping[str, Any]) -> Asks:
    """The values in a request that an arm may set."""
    thinking = body.get("thinking")  # of Anthropic's, which some servers take
    return Asks(
        body.get("reasoning_effort"),
        thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None,
        next((body[name] for name in LIMITS if body.get(name) is not None), None),
        body.get("temperature"),
        body.get("service_tier"),
    )


def answer(answer: Json, _created: int) -> Json:
    """The same answer."""
    return answer


def decoder(_created: int) -> Decoder:
    """A decoder that changes nothing."""
    return Decoder()


class Teller:
    """Passes each chunk on as it is."""

    def feed(self, chunk: Json) -> bytes:
        """The same chunk."""
        return b"data: " + encoded(chunk) + b"\n\n"

    def end(self, *, done: bool) -> bytes:
        """The same end."""
        return b"data: [DONE]\n\n" if done else b""

    def own(self, data: bytes) -> tuple[bytes, bool]:
        """The same data."""
        return b"data: " + data + b"\n\n", False

    def fail(self, status: int, error: Mapping[str, Any]) -> bytes:  # noqa: ARG002 - the protocol's
        """An event as the whole answer would be."""
        return b"data: " + encoded({"error": dict(error)}) + b"\n\n"


def heard(own: Json) -> Heard:
    """The same request."""
    return Heard(own)


def told(answer: Json, _asked: Json, id: str) -> Json:
    """The same answer under the decision's id."""
    return answer | {"id": id}


def teller(_asked: Json, _id: str, _created: int) -> Teller:
    """What passes chunks on."""
    return Teller()


def error(_status: int, error: Mapping[str, Any]) -> Json:
    """OpenAI's body of an error."""
    return {"error": dict(error)}
