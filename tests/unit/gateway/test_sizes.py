"""What a request may cost at most, and what it has probably cost, by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bandit_service.core.events import ArmSpec
from bandit_service.gateway.sizes import (
    IMAGE_TOKENS,
    Size,
    likely_usd,
    most_usd,
    said_in,
    size_of,
)
from tests.unit.gateway.test_usage import PLAIN, PRICED


def _most(spec: ArmSpec, body: Mapping[str, Any]) -> float:
    return most_usd(spec, size_of(body))


def test_the_most_is_at_the_dearest_price_of_the_prompt() -> None:
    body = {"messages": [{"role": "user", "content": "x" * 4000}], "max_tokens": 10}
    prompt = (_most(PLAIN, body) - 10 * 8 / 1e6) / 2.0
    assert _most(PRICED, body) == pytest.approx(prompt * 2.5 + 10 * 8 / 1e6)


def test_the_most_counts_every_answer_that_is_asked_for() -> None:
    answer = 10 * 8 / 1e6
    chat: dict[str, object] = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 10}
    assert _most(PLAIN, chat | {"n": 3}) - _most(PLAIN, chat) == pytest.approx(2 * answer)
    one: dict[str, object] = {"prompt": ["x"], "max_tokens": 10}
    assert _most(PLAIN, one | {"best_of": 4, "n": 2}) - _most(PLAIN, one) == pytest.approx(
        3 * answer
    )
    two, tokens = one | {"prompt": ["x", "y"]}, one | {"prompt": [1, 2]}
    assert _most(PLAIN, two) > 2 * answer > _most(PLAIN, tokens) > answer


def test_what_is_embedded_has_no_answer() -> None:
    assert _most(PLAIN, {"input": "ten chars."}) == pytest.approx(3 * 2.0 / 1e6)


def test_an_image_counts_by_itself_and_not_by_its_bytes() -> None:
    text = {"type": "text", "text": "what is this?"}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4_000_000}}
    plain = size_of({"messages": [{"role": "user", "content": [text]}]})
    seen = size_of({"messages": [{"role": "user", "content": [text, image, image]}]})
    assert seen.prompt == plain.prompt + 2 * IMAGE_TOKENS


def test_the_declarations_of_tools_are_of_the_prompt() -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}
    tools = [{"type": "function", "function": {"name": "look", "description": "y" * 4000}}]
    assert size_of(body | {"tools": tools}).prompt > size_of(body).prompt + 1000


def test_what_a_call_has_probably_cost() -> None:
    size = Size(prompt=100, limit=None, answers=1)
    usual = PLAIN.expected_output_tokens
    assert likely_usd(PLAIN, size, 40) == pytest.approx((100 * 2 + 10 * 8) / 1e6)
    assert likely_usd(PLAIN, size) == pytest.approx((100 * 2 + usual * 8) / 1e6)
    assert likely_usd(PLAIN, Size(100, 5, 2)) == pytest.approx((100 * 2 + 2 * 5 * 8) / 1e6)
    assert likely_usd(PLAIN, Size(100, None, 0)) == pytest.approx(100 * 2 / 1e6)


def test_what_is_said_is_counted_wherever_it_stands() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "ab", "arguments": "{}"}}
    delta = {"role": "assistant", "content": "ä", "reasoning_content": "so", "tool_calls": [call]}
    assert said_in([{"delta": delta}, {"message": {"content": None}}, {"text": "one"}]) == 11
    none: tuple[object, ...] = (
        None,
        [],
        ["x"],
        {},
        [{"delta": {"tool_calls": [1, {"function": 2}]}}],
    )
    for nothing in none:
        assert said_in(nothing) == 0


def test_no_number_is_too_large_to_be_reckoned_with() -> None:
    body = {"messages": [], "max_tokens": 10**400, "n": 10**400}
    assert 1e9 < most_usd(PLAIN, size_of(body)) < float("inf")
    assert size_of({"messages": [], "max_tokens": -1, "n": "2 or 3"}) == Size(0, None, 1)
