"""Counts of tokens in every provider's way of telling them, each cost by hand."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.core.events import ArmSpec
from bandit_service.gateway.failures import Failed
from bandit_service.gateway.money import cost_usd
from bandit_service.gateway.providers import _anthropic_answer, _responses_answer
from bandit_service.gateway.streamed_answer import StreamedAnswer, rewritten
from bandit_service.gateway.usage import Counts, counts_of, merged, usage_in
from policies import ArmId

ARM = ArmSpec(
    id=ArmId("a"),
    usd_per_mtok_in=3.0,
    usd_per_mtok_out=15.0,
    usd_per_mtok_cached_in=0.3,
    usd_per_mtok_cache_write=3.75,
)
WHOLE = Counts(fresh=700, cached=9000, answer=50)
"""Of a prompt of 9,700 tokens 9,000 were cached; 50 were answered."""

_THEIRS = {"upstream_inference_cost": 0.02}
OPENAI = {"prompt_tokens": 9700, "completion_tokens": 50, "total_tokens": 9750}


@pytest.mark.parametrize(
    "usage",
    [
        OPENAI | {"prompt_tokens_details": {"cached_tokens": 9000, "audio_tokens": 0}},
        OPENAI | {"cached_tokens": 9000},
        # as texts, and without the prompt's own count
        {"prompt_tokens": "9700", "completion_tokens": "50", "cached_tokens": "9000"},
        {"inputTextTokens": "9700", "completionTokens": "50", "totalTokens": "9750",
         "cached_tokens": 9000},
        {"prompt_tokens": None, "completion_tokens": 50, "total_tokens": 9750,
         "cached_tokens": 9000},
        OPENAI | {"num_cached_tokens": 9000, "prompt_tokens_details": None},
        OPENAI | {"prompt_cache_hit_tokens": 9000, "prompt_cache_miss_tokens": 700},
        OPENAI | {"cache_read_input_tokens": 9000, "cache_creation_input_tokens": 0},
        OPENAI | {"input_tokens": 0, "input_tokens_details": {"cached_tokens": 9000}},
        {"completion_tokens": 50, "prompt_cache_hit_tokens": 9000, "prompt_cache_miss_tokens": 700},
        # the prompt is told without what was cached, and the total with it
        {"prompt_tokens": 700, "completion_tokens": 50, "total_tokens": 9750,
         "cache_read_input_tokens": 9000},
        {"prompt_tokens": 700, "completion_tokens": 50, "total_tokens": 9750,
         "prompt_tokens_details": {"cached_tokens": 9000}},
        {"prompt_tokens": 700, "completion_tokens": 50, "cache_read_input_tokens": 9000},
        # OpenAI's Responses, Anthropic, Bedrock, Gemini, and some that stand between
        {"input_tokens": 9700, "output_tokens": 50, "total_tokens": 9750,
         "input_tokens_details": {"cached_tokens": 9000}},
        {"input_tokens": 9700, "output_tokens": 50, "total_tokens": 9750,
         "input_token_details": {"cache_read": 9000, "cache_creation": 0}},
        {"input_tokens": 700, "output_tokens": 50, "cache_read_input_tokens": 9000,
         "cache_creation_input_tokens": None},
        {"inputTokens": 700, "outputTokens": 50, "totalTokens": 9750,
         "cacheReadInputTokens": 9000, "cacheWriteInputTokens": 0},
        {"inputTokens": 700, "outputTokens": 50, "cacheReadInputTokens": 9000},
        {"promptTokenCount": 9700, "candidatesTokenCount": 50, "totalTokenCount": 9750,
         "cachedContentTokenCount": 9000},
        {"inputTokens": 9700, "outputTokens": 50, "totalTokens": 9750, "cachedInputTokens": 9000},
        {"prompt_tokens": 9700.0, "completion_tokens": 50.0, "total_tokens": 9.75e3,
         "prompt_tokens_details": {"cached_tokens": 9e3}},
    ],
)  # fmt: skip
def test_what_was_cached_is_seen_wherever_it_is_told(usage: dict[str, Any]) -> None:
    """On 5a5a85b only prompt_tokens_details.cached_tokens was read: 9,000 tokens at ten times their
    price, or, where only the total had them, at fifty times."""
    assert counts_of(usage) == WHOLE
    assert cost_usd(usage, ARM) == pytest.approx((700 * 3 + 9000 * 0.3 + 50 * 15) / 1e6)
    counts = counts_of(usage)
    assert counts is not None
    assert counts.cached == 9000


def test_what_is_unexplained_in_a_total_is_not_billed_as_the_dearest() -> None:
    """On 5a5a85b whatever the total had more was billed as the answer's."""
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 5000}
    assert counts_of(usage) == Counts(fresh=100, answer=10)
    thought = {"completion_tokens_details": {"reasoning_tokens": 300}}
    assert counts_of(usage | thought) == Counts(fresh=100, answer=310)
    both = {"cache_read_input_tokens": 4590} | thought
    assert counts_of(usage | both) == Counts(fresh=100, cached=4590, answer=310)
    rounded = {"cache_read_input_tokens": 4800}
    assert counts_of(usage | rounded) == Counts(fresh=100, cached=4800, answer=10)


@pytest.mark.parametrize(
    ("usage", "answer"),
    [
        ({"candidatesTokenCount": 40, "thoughtsTokenCount": 30}, 70),
        ({"candidatesTokenCount": 40, "thoughtsTokenCount": 30, "totalTokenCount": 1070}, 70),
        ({"completion_tokens": 40, "reasoning_tokens": 90}, 130),
        ({"completion_tokens": 40, "reasoning_tokens": 30}, 40),
        ({"output_tokens": 40, "output_tokens_details": {"reasoning_tokens": 30}}, 40),
        ({"completion_tokens": 40, "total_tokens": 1070, "reasoning_tokens": 30}, 70),
    ],
)
def test_reasoning_is_the_answers_and_counted_once(usage: dict[str, Any], answer: int) -> None:
    counts = counts_of({"prompt_tokens": 1000, "promptTokenCount": 1000} | usage)
    assert counts == Counts(fresh=1000, answer=answer)


def test_what_is_kept_for_an_hour_has_its_price() -> None:
    """On 5a5a85b all that was written to a cache had one price."""
    lengths = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 400}
    theirs = {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 500,
              "cache_creation": lengths}  # fmt: skip
    ours = _anthropic_answer.usage(theirs)
    by_hand = (10 * 3 + 100 * 3.75 + 400 * 6 + 5 * 15) / 1e6
    assert cost_usd(theirs, ARM) == cost_usd(ours, ARM) == pytest.approx(by_hand)
    told = msgspec.structs.replace(ARM, usd_per_mtok_cache_write_1h=5.0)
    assert cost_usd(ours, told) == pytest.approx(by_hand - 400 * 1.0 / 1e6)
    nested = {"prompt_tokens": 510, "completion_tokens": 5, "total_tokens": 515,
              "prompt_tokens_details": {"cached_tokens": 0, "cache_creation": lengths}}  # fmt: skip
    assert cost_usd(nested, ARM) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("told", "usd"),
    [
        ({"cost": 0.5}, 0.5),
        ({"cost": "0.25"}, 0.25),
        ({"cost": {"total_cost": 0.02, "request_cost": 0.01}}, 0.02),
        ({"cost": 0.001, "is_byok": True, "cost_details": _THEIRS}, 0.021),
        ({"cost": 0.02, "is_byok": False, "cost_details": _THEIRS}, 0.02),
        # not this answer's, or not in USD: the list prices stand
        ({"cost": 0}, None), ({"cost": None}, None), ({"cost": -1}, None), ({"cost": 3750}, None),
        ({"cost": 1e-9}, None), ({"cost": True}, None), ({"cost": "5 ct"}, None),
        ({"cost": []}, None),
        ({"cost": "nan"}, None), ({"cost": 10**30}, None), ({"cost": {}}, None),
    ],
)  # fmt: skip
def test_a_plausible_bill_goes_before_the_list(told: dict[str, Any], usd: float | None) -> None:
    """On 5a5a85b the provider's own bill was not read."""
    listed = (1000 * 3 + 50 * 15) / 1e6
    usage = {"prompt_tokens": 1000, "completion_tokens": 50} | told
    assert cost_usd(usage, ARM) == pytest.approx(listed if usd is None else usd)


def test_a_bill_alone_is_a_cost_and_a_bill_of_nothing_is_one_for_what_is_free() -> None:
    free = ArmSpec(id=ArmId("f"), usd_per_mtok_in=0.0, usd_per_mtok_out=0.0)
    assert cost_usd({"cost": 0.01}, ARM) == 0.01
    assert cost_usd({"cost": 0.0}, ARM) is None
    assert cost_usd({"prompt_tokens": 5, "cost": 0.0}, free) == 0.0
    assert cost_usd({"prompt_tokens": 5, "cost": 0.01}, free) == 0.01


def test_a_later_zero_overwrites_no_earlier_count() -> None:
    """On 5a5a85b the last usage of a stream was taken as it was: 1,000 tokens became 0."""
    stream = _anthropic_answer.Decoder(0)
    first = {"input_tokens": 900, "cache_read_input_tokens": 5000, "output_tokens": 1,
             "cache_creation": {"ephemeral_1h_input_tokens": 40}}  # fmt: skip
    message = {"model": "m", "usage": first}
    delta = {"input_tokens": 0, "cache_read_input_tokens": 0, "cache_creation": None,
             "cache_creation_input_tokens": 0, "output_tokens": 20}  # fmt: skip
    for event in (
        {"type": "message_start", "message": message},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": delta},
    ):
        assert not stream.feed(msgspec.json.encode(event))
    usage = msgspec.json.decode(stream.feed(b'{"type": "message_stop"}')[-2])["usage"]
    assert counts_of(usage) == Counts(fresh=900, cached=5000, kept_hour=40, answer=20)


def test_of_a_stream_the_larger_counts_are_kept_wherever_they_stand() -> None:
    """On 5a5a85b: the last one, and only beside the choices."""
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop",
                        "usage": {"prompt_tokens": 700, "completion_tokens": 8}}]}  # fmt: skip
    events = [
        {"choices": [], "usage": {"prompt_tokens": 700, "prompt_tokens_details":
                                  {"cached_tokens": 600}, "completion_tokens": 1}},
        end,
        {"choices": [], "x_groq": {"usage": {"prompt_tokens": 0, "completion_tokens": 9}}},
        {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0,
                                  "prompt_tokens_details": {"cached_tokens": 0}}},
        {"choices": [], "usage": None},
    ]  # fmt: skip
    passed = StreamedAnswer()
    rewritten([msgspec.json.encode(each) for each in events], "id", passed)
    assert counts_of(passed.usage) == Counts(fresh=100, cached=600, answer=9)
    assert usage_in(end) == {"prompt_tokens": 700, "completion_tokens": 8}


@pytest.mark.parametrize(
    "usage",
    [None, 7, {}, [], {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
     {"prompt_tokens": None}, {"prompt_tokens": True}, {"prompt_tokens": 0.5},
     {"prompt_tokens": float("inf")}, {"total_tokens": 9}, {"cached_cost_usd": 3}],
)  # fmt: skip
def test_what_counts_nothing_is_no_usage(usage: object) -> None:
    assert counts_of(usage) is None
    assert cost_usd(usage, ARM) is None


_NAMES = st.sampled_from(
    [
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "input_tokens",
        "output_tokens",
        "cost",
        "cached_tokens",
        "prompt_tokens_details",
        "cache_creation",
        "ephemeral_1h_input_tokens",
        "cache_read_input_tokens",
        "reasoning_tokens",
        "thoughtsTokenCount",
        "x",
    ]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=5),
    max_leaves=20,
)


@given(_VALUES, _VALUES)
def test_whatever_a_usage_is_a_cost_is_none_or_at_least_nothing(one: Any, other: Any) -> None:
    for usage in (one, merged(one, other)):
        cost = cost_usd(usage, ARM)
        assert cost is None or 0.0 <= cost <= 10_000.0
        counts = counts_of(usage)
        assert (
            counts is None or min(counts.fresh, counts.cached, counts.kept, counts.kept_hour) >= 0
        )


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 700, "output_tokens": 50, "cache_read_input_tokens": 9000},
        {"input_tokens": 9700, "output_tokens": 50, "cached_tokens": 9000},
        {"input_tokens": 9700, "output_tokens": 50, "total_tokens": 9750,
         "prompt_tokens_details": {"cached_tokens": 9000}},
        {"input_tokens": 0, "output_tokens": 50, "prompt_tokens": 9700, "completion_tokens": 50,
         "cached_tokens": 9000},
        {"prompt_tokens": 9700, "completion_tokens": 50, "prompt_cache_hit_tokens": 9000},
        {"input_tokens": "9700", "output_tokens": "50", "cached_tokens": "9000"},
        {"input_tokens": 9700, "output_tokens": 50,
         "input_tokens_details": {"cached_tokens": 9000}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("dialect", [_anthropic_answer, _responses_answer])
def test_what_other_dialects_report_is_read_by_the_one_reader(dialect: Any, usage: Any) -> None:
    """Seen on e98ba34: the translations had readers of their own, which saw their own names alone;
    cached tokens of other names cost the full price, a prompt of another name nothing.
    """
    assert counts_of(dialect.usage(usage)) == WHOLE
    kept = {"input_tokens": 0, "output_tokens": 1, "cache_creation": {
        "ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3}}  # fmt: skip
    assert counts_of(dialect.usage(kept)) == Counts(kept=2, kept_hour=3, answer=1)
    bill = {"cost": 0.1, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.2}}
    assert cost_usd(dialect.usage(usage | bill), ARM) == pytest.approx(0.3)


def test_a_response_that_failed_costs_what_it_says() -> None:
    """Seen on e98ba34: what `response.failed` reports of its cost was lost."""
    told = {"status": "failed", "usage": {"input_tokens": 700, "output_tokens": 50}}
    with pytest.raises(Failed) as failed:
        _responses_answer.Decoder(0).feed(
            msgspec.json.encode({"type": "response.failed", "response": told})
        )
    assert counts_of(failed.value.usage) == Counts(fresh=700, answer=50)


def test_a_usage_in_the_last_event_of_a_message_counts() -> None:
    """Seen on e98ba34: a server that counts in `message_stop` alone reported no cost."""
    decoder = _anthropic_answer.Decoder(0)
    for event in (
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": None},
        {"type": "message_stop", "usage": {"input_tokens": 700, "output_tokens": 50}},
    ):
        chunks = decoder.feed(msgspec.json.encode(event))
    told = [msgspec.json.decode(each) for each in chunks if each != b"[DONE]"]
    assert counts_of(usage_in(told[-1])) == Counts(fresh=700, answer=50)


@given(st.integers(-1, 9), st.integers(-1, 9), st.integers(-1, 19) | st.none())
def test_the_usual_three_counts_are_read_as_among_others(
    prompt: int, answer: int, total: int | None
) -> None:
    usage = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": total}
    assert counts_of(usage) == counts_of(usage | {"other": None})
