"""What an answer costs, by hand."""

from __future__ import annotations

import pytest

from bandit_service.core.events import ArmSpec
from bandit_service.gateway.money import cost_usd
from policies import ArmId

PLAIN = ArmSpec(id=ArmId("a"), usd_per_mtok_in=2.0, usd_per_mtok_out=8.0)
PRICED = ArmSpec(
    id=ArmId("a"),
    usd_per_mtok_in=2.0,
    usd_per_mtok_out=8.0,
    usd_per_mtok_cached_in=0.5,
    usd_per_mtok_cache_write=2.5,
)
USAGE = {
    "prompt_tokens": 1000, "completion_tokens": 100,
    "prompt_tokens_details": {"cached_tokens": 400, "cache_creation_tokens": 200},
}  # fmt: skip


def test_each_kind_of_token_has_its_price() -> None:
    assert cost_usd(USAGE, PLAIN) == pytest.approx((1000 * 2 + 100 * 8) / 1e6)
    by_hand = (400 * 2 + 400 * 0.5 + 200 * 2.5 + 100 * 8) / 1e6
    assert cost_usd(USAGE, PRICED) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("completion", "reasoning", "total", "billed"),
    [
        (100, 60, 1100, 100),  # OpenAI, Anthropic: of the 100 tokens 60 are reasoning
        (40, 60, 1100, 100),  # xAI: 40 of the answer and 60 beside it
        (40, 60, 1070, 70),  # as far as the total has room for it
        (40, None, 1100, 40),  # what nothing explains is nobody's
        (100, 60, None, 100),  # no total: what is told
        (40, 60, None, 100),  # more than it could be a part of
        (100, None, 0, 100),
    ],
)
def test_reasoning_costs_what_an_answer_does_by_each_convention(
    completion: int, reasoning: int | None, total: int | None, billed: int
) -> None:
    usage: dict[str, object] = {"prompt_tokens": 1000, "completion_tokens": completion}
    if reasoning is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    if total is not None:
        usage["total_tokens"] = total
    assert cost_usd(usage, PLAIN) == pytest.approx((1000 * 2 + billed * 8) / 1e6)


def test_written_tokens_are_known_by_either_name() -> None:
    usage = USAGE | {"prompt_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 200}}
    assert cost_usd(usage, PRICED) == cost_usd(USAGE, PRICED)


def test_more_cached_than_prompted_is_no_credit() -> None:
    details = {"cached_tokens": 5000, "cache_creation_tokens": 5000}
    usage = USAGE | {"prompt_tokens_details": details}
    assert cost_usd(usage, PRICED) == pytest.approx((1000 * 0.5 + 100 * 8) / 1e6)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": "many"},
        {"completion_tokens": -1},
        3,
        {"prompt_tokens": 10**12},
        {"prompt_tokens": 10**400},
    ],
)
def test_no_usage_is_no_cost(usage: object) -> None:
    assert cost_usd(usage, PRICED) is None
