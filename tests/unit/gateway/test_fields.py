"""Whatever a client sends is refused by its field, or can be passed on; nothing else happens."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.core.errors import Refused, ServiceError
from bandit_service.gateway import fields
from bandit_service.gateway.judges import question_text
from bandit_service.gateway.providers import provider_of
from bandit_service.gateway.providers._anthropic_request import MAX_TOKENS, request
from bandit_service.gateway.request import of_chat
from bandit_service.gateway.request_size import size_of
from bandit_service.gateway.translation import refusal
from bandit_service.settings.upstreams import KINDS

_TURN = {"role": "user", "content": "a"}


def _body(**more: Any) -> dict[str, Any]:
    return {"model": "a", "messages": [_TURN], **more}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (_body(tools=True), "tools"),
        (_body(tools=7), "tools"),
        (_body(tools=["search"]), "tools"),
        (_body(functions={"name": "f"}), "functions"),
        (_body(modalities=1), "modalities"),
        (_body(stop=[1]), "stop"),
        (_body(response_format="json"), "response_format"),
        (_body(n="two"), "n"),
        (_body(n=True), "n"),
        (_body(n=-1), "n"),
        (_body(n=0), "n"),
        (_body(n=1.5), "n"),
        (_body(n=-(10**400)), "n"),
        (_body(best_of=0), "best_of"),
        (_body(max_tokens="100"), "max_tokens"),
        (_body(stream="yes"), "stream"),
        (_body(stream_options=[]), "stream_options"),
        (_body(messages=[{"role": "assistant", "tool_calls": 3}]), "messages[0].tool_calls"),
        (_body(messages=[_TURN, {"role": ["user"], "content": "a"}]), "messages[1].role"),
        (_body(messages=[{"role": "user", "content": True}]), "messages[0].content"),
    ],
)
def test_a_field_of_another_type_is_refused_by_its_name(body: dict[str, Any], field: str) -> None:
    """Seen on 5a5a85b: 500 "an error of ours" for `tools: true`, to an arm of any provider."""
    with pytest.raises(Refused) as refused:
        fields.check(body)
    assert refused.value.param == field


def test_a_count_is_a_whole_number_from_1() -> None:
    with pytest.raises(Refused, match=r"^n: must be a whole number from 1, got -1$"):
        fields.check(_body(n=-1))
    fields.check(_body(n=2.0, best_of=10**400))


def test_null_is_absent_and_what_is_not_known_is_passed_on() -> None:
    nothing: dict[str, Any] = dict.fromkeys(("tools", "stop", "n", "stream", "max_tokens", "user"))
    messages = [_TURN | {"tool_calls": None}, {"role": "assistant", "content": None}]
    fields.check({"model": "a", "messages": messages, **nothing, "brand_new": [{"deep": 1}]})


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "type",
                    "text",
                    "image_url",
                    "url",
                    "file",
                    "function",
                    "name",
                    "arguments",
                    "parameters",
                    "tool_calls",
                    "tool_call_id",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
_NAMES = ("tools", "tool_choice", "functions", "modalities", "stop", "response_format", "n", "user",
          "thinking", "max_tokens", "temperature", "metadata", "logprobs", "prompt", "audio",
          "parallel_tool_calls", "stream_options", "best_of")  # fmt: skip
_MESSAGES = st.lists(
    _ANY
    | st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool", "system"]) | _ANY},
        optional={"content": _ANY, "tool_calls": _ANY, "tool_call_id": _ANY},
    ),
    max_size=3,
)


@given(_MESSAGES | _ANY, st.dictionaries(st.sampled_from(_NAMES), _ANY, max_size=4))
def test_no_body_fails_in_what_prepares_the_call(messages: Any, more: dict[str, Any]) -> None:
    body = {"model": "a", **more, "messages": messages}
    with suppress(ServiceError):
        fields.check(body)
        of_chat(body, {}, ["nested"])
        size_of(body)
        question_text(body)
    for kind in KINDS:  # a refusal, and never an exception of another kind
        refusal(provider_of(kind), "/chat/completions", body)


@pytest.mark.parametrize(
    ("more", "most"),
    [
        ({}, MAX_TOKENS),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 8000}},
            8000 + MAX_TOKENS,
        ),
        ({"thinking": {"type": "enabled", "budget_tokens": 8000}, "max_tokens": 9000}, 9000),
        ({"thinking": {"type": "disabled", "budget_tokens": 8000}}, MAX_TOKENS),
        ({"thinking": {"type": "adaptive"}, "max_tokens": None}, MAX_TOKENS),
        ({"thinking": None}, MAX_TOKENS),
    ],
)
def test_the_bound_of_an_answer_leaves_room_for_what_may_be_thought(
    more: dict[str, Any], most: int
) -> None:
    """Seen on 5a5a85b: 4096 with a budget of 8000, which the API refuses."""
    assert request("/chat/completions", _body(**more))["max_tokens"] == most
