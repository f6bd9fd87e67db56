"""Anthropic's Messages API: docs/anthropic.md is the table of what is translated to what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandit_service.gateway.providers import _anthropic_answer, _anthropic_request
from bandit_service.gateway.providers._base import HttpRequest, Json, headers_of
from bandit_service.settings.upstreams import Upstream

VERSION = "2023-06-01"


def output_limit() -> int | None:
    """The limit that is sent if the client sets none, since the API requires one."""
    return _anthropic_request.MAX_TOKENS


def check(path: str, body: Mapping[str, Any]) -> None:
    """Raise Refused, naming the field, for what the Messages API has no counterpart of."""
    _anthropic_request.request(path, body)


def request(upstream: Upstream, path: str, body: Mapping[str, Any]) -> HttpRequest:
    """POST /v1/messages; the configured address may end with the version or without."""
    url = upstream.spec.base_url.rstrip("/").removesuffix("/v1") + "/v1/messages"
    headers = headers_of(upstream, "x-api-key", {"anthropic-version": VERSION})
    return HttpRequest(url, headers, _anthropic_request.request(path, body))


def answer(answer: Json, created: int) -> Json:
    """A message as a chat completion. Raises Failed if it is none, or reports an error."""
    return _anthropic_answer.answer(answer, created)


def decoder(created: int) -> _anthropic_answer.Decoder:
    """A decoder of the API's events."""
    return _anthropic_answer.Decoder(created)
