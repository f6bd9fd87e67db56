"""PickLLM's reward. Quality 0.9 and 0.002 USD at 10 per USD are a gain of 0.88."""

from __future__ import annotations

import pytest

from policies._pickllm import RewardForm
from tests.unit.policies.given import A, query, rewarded


def _form(form: str, cost_weight: float | None = 10.0, latency_weight: float = 1.0) -> RewardForm:
    return RewardForm(form, 1.0, cost_weight, latency_weight, 3.0)


def _of(form: RewardForm, latency_s: float | None, quality: float = 0.9) -> float | None:
    return form.of(rewarded(A, 0.5, quality=quality, cost_usd=0.002, latency_s=latency_s))


@pytest.mark.parametrize(
    ("latency_s", "ratio", "additive"),
    [
        (None, 0.88, 0.88),
        (1.0, 0.88, 0.88),  # log₁₀(1000)/3 = 1
        (10.0, 0.66, 0.88 - 1 / 3),  # 4/3
        (100.0, 0.528, 0.88 - 2 / 3),  # 5/3
    ],
)
def test_latency_divides_or_is_taken_off(
    latency_s: float | None, ratio: float, additive: float
) -> None:
    assert _of(_form("ratio"), latency_s) == pytest.approx(ratio)
    assert _of(_form("additive"), latency_s) == pytest.approx(additive)
    assert _of(_form("service"), latency_s) == 0.5


def test_below_ten_milliseconds_the_fraction_does_not_blow_up() -> None:
    """W = log₁₀(10)/3 = 1/3 at 10 ms and below: 0.3 − 0.02 becomes 0.84, not infinity."""
    for latency_s in (0.01, 0.001, 0.0):
        assert _of(_form("ratio"), latency_s, quality=0.3) == pytest.approx(0.84)


def test_a_reward_is_cut_to_zero_up_to_one() -> None:
    assert _of(_form("ratio"), 0.01) == 1.0 - 1e-9
    assert _of(_form("ratio", cost_weight=1000.0), 1.0) == 0.0
    assert _form("service").of(rewarded(A, -0.4)) == 0.0


def test_weights() -> None:
    """w_l = 2 halves; w_c of None is 1 / willingness to pay: 0.002/0.01 = 0.2 off."""
    assert _of(_form("ratio", latency_weight=2.0), 1.0) == pytest.approx(0.44)
    event = rewarded(A, 0.5, quality=0.9, cost_usd=0.002, context=query(willingness_to_pay=0.01))
    assert _form("ratio", cost_weight=None).of(event) == pytest.approx(0.7)
    assert RewardForm("ratio", 0.5, 10.0, 1.0, 3.0).of(event) == pytest.approx(0.43)


def test_the_expected_cost_stands_in_for_a_cost_not_known() -> None:
    event = rewarded(A, 0.5, quality=0.9, expected_cost_usd=0.002)
    assert _form("ratio").of(event) == pytest.approx(0.88)


def test_only_the_event_that_settles_has_a_reward() -> None:
    assert _form("ratio").of(rewarded(A, None, quality=0.9)) is None
    assert _form("ratio").of(rewarded(A, 0.7)) == 0.7
