"""The span of each call of a provider, by OpenTelemetry's semantic conventions for GenAI.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import msgspec

from bandit_service.core import events as ev
from bandit_service.gateway.failures import Failed, Rejected
from bandit_service.gateway.streamed_answer import StreamedAnswer
from bandit_service.settings.upstreams import UpstreamSpec
from bandit_service.telemetry import tracing
from bandit_service.telemetry.tracing import Span, Value

OPERATIONS = {
    "/chat/completions": "chat",
    "/messages": "chat",
    "/responses": "chat",
    "/completions": "text_completion",
    "/embeddings": "embeddings",
}
"""`gen_ai.operation.name` of each path."""

ASKED = {
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "top_k": "gen_ai.request.top_k",
    "n": "gen_ai.request.choice.count",
    "seed": "gen_ai.request.seed",
}
"""Numbers of a request, and the attribute of each."""

USED = {
    ("prompt_tokens",): "gen_ai.usage.input_tokens",
    ("completion_tokens",): "gen_ai.usage.output_tokens",
    ("prompt_tokens_details", "cached_tokens"): "gen_ai.usage.cache_read.input_tokens",
    ("prompt_tokens_details", "cache_creation_tokens"): "gen_ai.usage.cache_creation.input_tokens",
    ("completion_tokens_details", "reasoning_tokens"): "gen_ai.usage.reasoning.output_tokens",
}
"""Counts of a usage, and the attribute of each."""


class CallSpan:
    """The span of one call; does nothing if tracing is off."""

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def onward(self, given: Mapping[str, str]) -> dict[str, str]:
        """The headers that name the parent of the provider's own spans: this span, or its parent if
        there is none.
        """
        return dict(given) if self._span is None else self._span.headers()

    def answered(self, answer: Mapping[str, Any]) -> None:
        """A whole answer came."""
        if self._span is None:
            return
        choices = answer.get("choices")
        reasons = [
            str(each["finish_reason"])
            for each in choices or ()
            if isinstance(each, dict) and each.get("finish_reason")
        ]
        self._span.set(
            _response(answer.get("model"), reasons, answer.get("usage"), answer.get("id"))
        )

    def streamed(self, answer: StreamedAnswer, first_chunk_s: float | None) -> None:
        """A stream ended, broke off, or its client left."""
        if self._span is None:
            return
        reasons = [answer.finish_reason] if answer.finish_reason else []
        self._span.set(_response(answer.model, reasons, answer.usage, answer.theirs))
        if first_chunk_s is not None:
            self._span.set({"gen_ai.response.time_to_first_chunk": first_chunk_s})
        if answer.broken is not None:
            self._span.failed(_kind(answer.broken))
        elif not answer.complete:
            self._span.failed("client_left")


@contextmanager
def calling(
    path: str,
    spec: ev.ArmSpec,
    upstream: UpstreamSpec,
    body: Mapping[str, Any],
    decision_id: str = "",
    purpose: str = "",
    conversation: str = "",
    deployment: str = "",
) -> Iterator[CallSpan]:
    """Around one call of a provider. purpose: "judge" or "duel" if it is not the user's answer.

    conversation: the hash of its name. deployment: the one of the arm's that is called.
    """
    within = tracing.current()
    if within is None:
        yield CallSpan(None)
        return
    operation, model = OPERATIONS[path], spec.model or spec.id
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": upstream.provider or upstream.kind,
        "gen_ai.request.model": model,
        "bandit.arm": spec.id,
    }
    if body.get("stream"):
        attributes["gen_ai.request.stream"] = True
    asked = {**body, **msgspec.to_builtins(spec.request)}
    for name, attribute in ASKED.items():
        if type(asked.get(name)) in (int, float):
            attributes[attribute] = asked[name]
    if decision_id:
        attributes["bandit.decision_id"] = decision_id
    if conversation:
        attributes["gen_ai.conversation.id"] = conversation
    if deployment:
        attributes["bandit.deployment"] = deployment
    if purpose:
        attributes["bandit.purpose"] = purpose
    span = within.call(f"{operation} {model}", attributes | _server(upstream.base_url))
    try:
        yield CallSpan(span)
    except Exception as error:
        span.failed(_kind(error))
        raise
    except BaseException:
        span.failed("cancelled")
        raise
    finally:
        span.end()


def _response(model: object, reasons: list[str], usage: object, id: object) -> dict[str, Value]:
    attributes: dict[str, Value] = {}
    if isinstance(id, str) and id:
        attributes["gen_ai.response.id"] = id
    if isinstance(model, str) and model:
        attributes["gen_ai.response.model"] = model
    if reasons:
        attributes["gen_ai.response.finish_reasons"] = reasons
    for path, attribute in USED.items():
        count: Any = usage
        for name in path:
            count = count.get(name) if isinstance(count, Mapping) else None
        if isinstance(count, int):
            attributes[attribute] = count
    return attributes


def _kind(error: Exception) -> str:
    """`error.type`: the status if there is one, otherwise one of few values."""
    if isinstance(error, Rejected):
        return str(error.status)
    if isinstance(error, Failed):
        return "timeout" if error.timeout else str(error.status) if error.status else "broken"
    return type(error).__name__


@lru_cache(maxsize=256)
def _server(base_url: str) -> dict[str, Value]:
    parts = urlsplit(base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": parts.hostname or "", "server.port": port}
