"""The parameters that an arm adds to a request, so that (model, effort) is an arm. Pure."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from bandit_service.core.fields import doc

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""From least to most. A provider knows some of them."""
MIN_BUDGET = 1024
"""Tokens of thinking that the Messages API takes at least."""
_OWN = {
    "reasoning_effort": "reasoning_effort",
    "temperature": "temperature",
    "service_tier": "service_tier",
    "max_tokens": "output_limit",
    "max_completion_tokens": "output_limit",
    "max_output_tokens": "output_limit",
}
_OF_THE_REQUEST = frozenset(
    {
        "model", "messages", "input", "prompt", "system", "instructions", "tools", "tool_choice",
        "functions", "function_call", "response_format", "stream", "stream_options", "n", "best_of",
        "user", "metadata", "store", "previous_response_id", "conversation", "background",
    }
)  # fmt: skip
_MAX_BYTES, _DEPTH = 16_384, 16


class ArmRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Parts of every request to an arm; they replace the client's, null keeps the client's."""

    reasoning_effort: Annotated[
        str | None, doc("How much the model should reason.", "high", enum=EFFORTS)
    ] = None
    thinking_budget: Annotated[
        int | None,
        doc(
            "Most tokens of thinking, at an upstream of kind `anthropic`; 0 turns it off.",
            4_096,
            minimum=0,
            maximum=10**6,
        ),
    ] = None
    output_limit: Annotated[
        int | None,
        doc(
            "Most tokens of an answer; a client's smaller limit stays.",
            8_192,
            minimum=1,
            maximum=10**7,
        ),
    ] = None
    temperature: Annotated[
        float | None, doc("Temperature of the answer.", 0.2, minimum=0, maximum=2)
    ] = None
    service_tier: Annotated[
        str | None, doc("How the provider should treat the call.", "flex", maxLength=64)
    ] = None
    extra_body: Annotated[
        dict[str, Any],
        doc("Further fields of the request, under the provider's names.", {"top_k": 20}),
    ] = {}


NOTHING = ArmRequest()


def check_request(request: ArmRequest) -> None:
    """Raise ValueError "field: what was wrong, what is allowed" for a request that no provider
    would accept.
    """
    if request.service_tier == "":
        raise ValueError("service_tier: must not be empty; leave it out to keep the client's")
    for name in request.extra_body:
        if own := _OWN.get(name):
            raise ValueError(f"extra_body.{name}: set `{own}` beside extra_body instead")
        if name in _OF_THE_REQUEST:
            raise ValueError(f"extra_body.{name}: only the client may set it")
    if not _plain(request.extra_body, _DEPTH):
        raise ValueError(
            f"extra_body: must be made of texts, finite numbers, true, false, lists and tables, "
            f"{_DEPTH} deep at most"
        )
    if (size := len(msgspec.json.encode(request.extra_body))) > _MAX_BYTES:
        raise ValueError(f"extra_body: at most {_MAX_BYTES} bytes as JSON, got {size}")


def unsayable(request: ArmRequest, kind: str) -> str:
    """Why no request in this dialect can say it, "field: why"; "" if it can.

    >>> unsayable(ArmRequest(thinking_budget=2000), "openai").partition(":")[0]
    'thinking_budget'
    >>> unsayable(ArmRequest(thinking_budget=2000), "anthropic")
    ''
    """
    budget = request.thinking_budget
    if kind != "anthropic":
        if budget is None:
            return ""
        return (
            f"thinking_budget: an upstream of kind {kind!r} takes none; set reasoning_effort, or "
            "what your server calls it in extra_body"
        )
    if budget is not None and 0 < budget < MIN_BUDGET:
        return (
            f"thinking_budget: must be 0 or at least {MIN_BUDGET} at an upstream of kind "
            f"'anthropic', got {budget}"
        )
    if request.reasoning_effort == "minimal":
        allowed = ", ".join(each for each in EFFORTS if each != "minimal")
        return (
            f"reasoning_effort: must be one of {allowed} at an upstream of kind 'anthropic', "
            "got 'minimal'"
        )
    if request.reasoning_effort == "none" and budget:
        return "thinking_budget: reasoning_effort = 'none' turns thinking off"
    if budget and request.temperature not in (None, 1.0):
        return "temperature: must be 1 where thinking_budget is set, or left out"
    if request.temperature is not None and request.temperature > 1.0:
        return (
            f"temperature: must be from 0 to 1 at an upstream of kind 'anthropic', "
            f"got {request.temperature:g}"
        )
    return ""


def effort_in_words(effort: object, budget: object) -> str:
    """How much a request lets a model reason, for the record; "" if it does not say.

    >>> effort_in_words("high", None), effort_in_words(None, 2048), effort_in_words("low", 0)
    ('high', '2048 tokens', 'low, 0 tokens')
    """
    said = [effort[:_LONGEST]] if isinstance(effort, str) and effort else []
    if isinstance(budget, int) and not isinstance(budget, bool):
        said.append(f"{budget} tokens")
    return ", ".join(said)


_LONGEST = 32


def _plain(value: object, depth: int) -> bool:
    match value:
        case None | bool() | int() | str():
            return True
        case float():
            return abs(value) < float("inf")
        case dict():
            return depth > 0 and all(
                isinstance(name, str) and _plain(each, depth - 1) for name, each in value.items()
            )
        case list():
            return depth > 0 and all(_plain(each, depth - 1) for each in value)
    return False
