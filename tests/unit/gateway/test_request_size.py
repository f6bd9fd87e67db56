"""What a request may cost at most, and what it has probably cost, by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from bandit_service.core.events import ArmSpec
from bandit_service.gateway.money import likely_usd, max_usd
from bandit_service.gateway.request_size import IMAGE_TOKENS, Size, size_of
from bandit_service.gateway.usage import answer_bytes
from tests.unit.gateway.test_money import PLAIN, PRICED


def _most(spec: ArmSpec, body: Mapping[str, Any]) -> float:
    return max_usd(spec, size_of(body))


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
    assert answer_bytes([{"delta": delta}, {"message": {"content": None}}, {"text": "one"}]) == 11
    none: tuple[object, ...] = (
        None,
        [],
        ["x"],
        {},
        [{"delta": {"tool_calls": [1, {"function": 2}]}}],
    )
    for nothing in none:
        assert answer_bytes(nothing) == 0


def test_no_number_is_too_large_to_be_reckoned_with() -> None:
    body = {"messages": [], "max_tokens": 10**400, "n": 10**400}
    assert 1e9 < max_usd(PLAIN, size_of(body)) < float("inf")
    assert size_of({"messages": [], "max_tokens": -1, "n": "2 or 3"}) == Size(0, None, 1)


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"max_completion_tokens": None, "max_tokens": 8000}, 8000),
        ({"max_completion_tokens": 100, "max_tokens": 8000}, 8000),
        ({"max_completion_tokens": 8000, "max_tokens": 0}, 8000),
        ({"max_tokens": 8000.0}, 8000),
        ({"max_tokens": "8000"}, 8000),
        ({"max_tokens": 100, "max_output_tokens": 8000}, 8000),
        ({"max_tokens": 100, "max_new_tokens": 8000}, 8000),
        ({"max_tokens": 100, "maxOutputTokens": 8000}, 8000),
        ({"max_tokens": 100, "min_tokens": 8000}, 8000),
        ({"max_tokens": 100, "n_predict": 8000}, 8000),
        ({"max_tokens": 100, "options": {"num_predict": 8000}}, 8000),
        ({"max_tokens": 100, "extra_body": {"generation": {"max_gen_len": 8000}}}, 8000),
        ({"max_tokens": 4000, "n": 2}, 8000),
        ({"max_tokens": 4000, "n": None, "best_of": 2.0}, 8000),
        ({"max_tokens": 4000, "num_return_sequences": 2}, 8000),
        ({"max_tokens": 8000, "thinking": {"type": "enabled", "budget_tokens": 5000}}, 8000),
        ({"max_tokens": 3000, "thinking": {"type": "enabled", "budget_tokens": 5000}}, 8000),
        ({"max_tokens": 3000, "reasoning": {"max_tokens": 5000}}, 8000),
        ({"max_tokens": 3000, "thinking_budget": 5000}, 8000),
        ({"max_tokens": 3000, "extra_body": {"chat_template_kwargs": {"thinking_budget": 5000}}},
         8000),
        # none of these bounds an answer
        ({"max_tokens": 8000, "max_prompt_tokens": 10**6, "truncate_prompt_tokens": 10**6}, 8000),
        ({"max_tokens": 8000, "max_tool_calls": 10**6, "top_logprobs": 20, "seed": 10**6}, 8000),
        ({"max_tokens": 8000, "metadata": {"max_tokens": 10**6}, "max_retries": 10**6}, 8000),
    ],
)  # fmt: skip
def test_what_is_held_is_the_largest_number_that_may_be_meant(
    fields: dict[str, Any], tokens: int
) -> None:
    """On 5a5a85b a null hid the limit beside it, one of two was taken, and other names of limits
    and thinking counted for nothing: ten calls went through a budget that had room for one."""
    free = {"messages": [{"role": "user", "content": "x"}]}
    prompt = _most(PLAIN, free | {"max_tokens": 1}) - 8 / 1e6
    assert _most(PLAIN, free | fields) - prompt == pytest.approx(tokens * 8 / 1e6)


def test_where_no_limit_is_set_what_the_arm_can_answer_is_held() -> None:
    """On 5a5a85b it was four times the usual answer, which no provider keeps to.

    On e98ba34 a negative limit was none, and what stood beside it was held: eight calls of 0.066
    USD went through a budget of 0.10.
    """
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}
    size = size_of(body)
    known = msgspec.structs.replace(PLAIN, max_output_tokens=9000)
    window = PLAIN.context_window - size.prompt
    prompt = size.prompt * 2 / 1e6
    none: list[dict[str, Any]] = [
        {}, {"max_tokens": None}, {"max_tokens": -1}, {"max_tokens": 0}, {"max_tokens": {}},
        {"max_new_tokens": 5},
        # which llama.cpp, Ollama and LM Studio take for no limit, whatever stands beside it
        {"max_tokens": 10, "max_completion_tokens": -1}, {"max_tokens": 10, "n_predict": -1},
        {"max_tokens": 10, "options": {"num_predict": -2}},
        {"max_tokens": 10, "max_new_tokens": "-1"},
    ]  # fmt: skip
    for fields in none:
        assert _most(PLAIN, body | fields) == pytest.approx(prompt + window * 8 / 1e6)
        assert _most(known, body | fields) == pytest.approx(prompt + 9000 * 8 / 1e6)
    assert max_usd(PLAIN, size, 4096) == pytest.approx(prompt + 4096 * 8 / 1e6)
    thinks = size_of(body | {"thinking": {"budget_tokens": 8000}})
    assert max_usd(PLAIN, thinks, 4096) == pytest.approx(prompt + 12_096 * 8 / 1e6)
    more = size_of(body | {"max_new_tokens": 20_000})
    assert max_usd(known, more) == pytest.approx(prompt + 20_000 * 8 / 1e6)


def test_a_prompt_that_is_kept_for_an_hour_is_held_at_that_price() -> None:
    part = {"type": "text", "text": "x" * 4000, "cache_control": {"type": "ephemeral"}}
    body = {"messages": [{"role": "user", "content": [part]}], "max_tokens": 10}
    short = _most(PRICED, body)
    part["cache_control"] = {"type": "ephemeral", "ttl": "1h"}
    size = size_of(body)
    assert max_usd(PRICED, size) == pytest.approx((size.prompt * 4.0 + 10 * 8) / 1e6)
    assert max_usd(PRICED, size) > 1.5 * short


def test_what_is_given_as_tokens_counts_at_least_their_number() -> None:
    assert size_of({"input": [7] * 1000}).prompt == 1000
    assert size_of({"prompt": [7] * 1000, "max_tokens": 1}).prompt == 1000
    assert size_of({"input": [[7] * 500, [7] * 500]}).prompt == 1000


def test_what_may_be_billed_of_a_prediction_is_held() -> None:
    body = {"messages": [], "max_tokens": 10}
    more = body | {"prediction": {"type": "content", "content": "x" * 4000}}
    assert _most(PLAIN, more) - _most(PLAIN, body) > 1000 * 8 / 1e6
