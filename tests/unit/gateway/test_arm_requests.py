"""What an arm asks beside the question, in each dialect, beside what its client asks."""

from __future__ import annotations

from typing import Any

import pytest

from bandit_service.core.arm_request import ArmRequest
from bandit_service.core.errors import Refused
from bandit_service.core.events import ArmSpec
from bandit_service.gateway import translation
from bandit_service.gateway.arm_fit import ArmFit, fit_of, pinned
from bandit_service.gateway.money import likely_usd, max_usd
from bandit_service.gateway.providers import provider_of
from bandit_service.gateway.request import Asked
from bandit_service.gateway.request_size import size_of
from bandit_service.settings.upstreams import Upstream, UpstreamSpec
from policies import ArmId

Json = dict[str, Any]
CHAT = "/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
UPSTREAMS = {
    kind: Upstream(UpstreamSpec(id=kind, base_url="http://localhost/v1", kind=kind))
    for kind in ("openai", "responses", "anthropic")
}


def sent(kind: str, request: ArmRequest, /, **body: Any) -> Json:
    """What a chat completion becomes at an upstream of this kind."""
    upstream = UPSTREAMS[kind]
    asked = {"model": "m", "messages": HELLO, **body}
    path = "/completions" if "prompt" in body else CHAT
    made = translation.request_of(provider_of(kind), upstream, path, asked)
    return dict(translation.configured(upstream.spec, path, made.body, request))


def test_an_arm_that_sets_nothing_changes_nothing() -> None:
    body = {"model": "m", "messages": HELLO, "reasoning_effort": "low", "x": {"y": 1}}
    assert sent("openai", ArmRequest(), **body) == body


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("openai", {"reasoning_effort": "high", "max_completion_tokens": 900}),
        ("responses", {"reasoning": {"effort": "high"}, "max_output_tokens": 900}),
        ("anthropic", {"output_config": {"effort": "high"}, "max_tokens": 900}),
    ],
)
def test_each_dialect_says_it_in_its_own_words(kind: str, said: Json) -> None:
    request = ArmRequest(
        reasoning_effort="high",
        output_limit=900,
        temperature=0.25,
        service_tier="flex",
        extra_body={"top_k": 3, "deep": {"a": 1}},
    )
    found = sent(kind, request, reasoning_effort="low", temperature=1.0, deep={"a": 0, "b": 2})
    assert said.items() <= found.items()
    assert (found["temperature"], found["service_tier"], found["top_k"]) == (0.25, "flex", 3)
    kept = {"b": 2} if kind == "openai" else {}
    assert found["deep"] == {"a": 1, **kept}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, {"max_completion_tokens": 500}),
        ({"max_tokens": 20}, {"max_tokens": 20}),
        ({"max_tokens": 2000}, {"max_tokens": 500}),
    ],
)
def test_the_smaller_limit_is_sent(limits: Json, expected: Json) -> None:
    found = sent("openai", ArmRequest(output_limit=500), **limits)
    assert {name: found[name] for name in found if name.startswith("max_")} == expected


def test_thinking_comes_on_top_of_the_limit_and_without_what_it_excludes() -> None:
    found = sent(
        "anthropic", ArmRequest(thinking_budget=2000), max_tokens=100, temperature=0.3, top_k=4
    )
    assert found["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert found["max_tokens"] == 2100
    assert not {"temperature", "top_k"} & found.keys()
    off = sent("anthropic", ArmRequest(thinking_budget=0), thinking={"type": "adaptive"})
    assert off["thinking"] == {"type": "disabled"}
    assert sent("anthropic", ArmRequest(reasoning_effort="none"))["thinking"] == off["thinking"]


def test_what_cannot_be_said_is_refused_by_its_field() -> None:
    forced = {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"}
    for kind, request, body, field in (
        ("openai", ArmRequest(thinking_budget=2000), {}, "thinking_budget"),
        ("anthropic", ArmRequest(thinking_budget=9), {}, "thinking_budget"),
        ("anthropic", ArmRequest(reasoning_effort="minimal"), {}, "reasoning_effort"),
        ("anthropic", ArmRequest(thinking_budget=2000), forced, "tool_choice"),
    ):
        with pytest.raises(Refused) as refused:
            sent(kind, request, **body)
        assert refused.value.param == field
    with pytest.raises(Refused, match="a text completion has none"):
        sent("openai", ArmRequest(reasoning_effort="low"), prompt="a")


def _arm(id: str, kind: str = "openai", **request: Any) -> ArmSpec:
    asking = ArmRequest(**request)
    return ArmSpec(
        id=ArmId(id), upstream=kind, usd_per_mtok_in=1.0, usd_per_mtok_out=2.0, request=asking
    )


def _fit(asked: Asked, *arms: ArmSpec, pins: bool = False) -> ArmFit:
    return fit_of(asked, {arm.id: arm for arm in arms}, UPSTREAMS, pins)


def _chat(**body: Any) -> Asked:
    return Asked(CHAT, {"model": "auto", "messages": HELLO, **body})


def test_requested_and_used_effort_of_each_arm() -> None:
    arms = (_arm("plain"), _arm("high", reasoning_effort="high"), _arm("claude", "anthropic"))
    fit = _fit(
        _chat(reasoning_effort="low"), *arms, _arm("deep", "anthropic", thinking_budget=4096)
    )
    assert fit.effort_asked == "low"
    assert fit.efforts == {"plain": "low", "high": "high", "deep": "4096 tokens"}  # claude: dropped
    nothing = _fit(_chat(), *arms)
    assert (nothing.effort_asked, nothing.efforts) == ("", {"high": "high"})


def test_a_client_that_pins_gets_only_arms_that_are_asked_just_so() -> None:
    arms = (
        _arm("plain"),
        _arm("low", reasoning_effort="low"),
        _arm("high", reasoning_effort="high"),
        _arm("claude", "anthropic"),
        _arm("warm", temperature=1.0),
        _arm("short", output_limit=10),
    )
    asked = _chat(reasoning_effort="low", temperature=0.0, max_tokens=100)
    fit = _fit(asked, *arms, pins=True)
    assert set(fit.unsuited) == {"high", "claude", "warm", "short"}
    assert str(fit.unsuited["high"]).startswith("reasoning_effort: the client pins 'low'")
    assert fit.efforts == {"plain": "low", "low": "low"}
    assert not _fit(asked, *arms).unsuited
    extra = _fit(_chat(top_k=1), _arm("k", extra_body={"top_k": 2}), pins=True)
    assert "top_k" in str(extra.unsuited["k"])


def test_pinning_is_on_or_off() -> None:
    assert pinned({"x-pin-parameters": " ON "})
    assert not pinned({})
    with pytest.raises(Refused, match="must be on or off, got 'yes'"):
        pinned({"x-pin-parameters": "yes"})


def test_what_is_held_for_a_call_is_of_what_is_sent() -> None:
    size = size_of({"messages": HELLO, "max_tokens": 1000})
    prompt = size.prompt * 1.0 / 1e6
    assert max_usd(_arm("a", output_limit=300), size) == pytest.approx(prompt + 300 * 2.0 / 1e6)
    assert max_usd(_arm("a", output_limit=3000), size) == pytest.approx(prompt + 1000 * 2.0 / 1e6)
    deep = _arm("a", "anthropic", thinking_budget=2000)
    assert max_usd(deep, size) == pytest.approx(prompt + 3000 * 2.0 / 1e6)
    loose = _arm("a", extra_body={"max_new_tokens": 5000})
    assert max_usd(loose, size) == pytest.approx(prompt + 5000 * 2.0 / 1e6)
    assert likely_usd(_arm("a", output_limit=7), size) == pytest.approx(prompt + 7 * 2.0 / 1e6)
