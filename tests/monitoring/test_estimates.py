"""How likely arms are, and how well they and the policies are known: few series, right numbers."""

from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry

from bandit_service.core import events as ev
from bandit_service.statistics import means
from bandit_service.telemetry import metrics
from bandit_service.telemetry.estimates import Estimates
from bandit_service.telemetry.probabilities import Probabilities
from policies import ArmId

A, B, C = ArmId("a"), ArmId("b"), ArmId("c")


def _decided(policy: str, arms: tuple[ArmId, ...], propensities: tuple[float, ...]) -> ev.Decided:
    return ev.Decided(
        ts=0.0,
        id="d",
        embedding=b"",
        tokens=1,
        willingness_to_pay=1.0,
        arms=arms,
        propensities=propensities,
        scores=propensities,
        drawn=0,
        policy=policy,
        key="",
        list_cost_usd=0.0,
        expected_cost_usd=0.0,
        price=0.0,
    )


def _shown(registry: CollectorRegistry, metric: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == metric
    }


def test_probabilities_are_means_by_policy_in_which_an_arm_left_out_counts_as_nothing() -> None:
    told = Probabilities()
    assert told.means() == {}
    told.decided([("x", (A, B), (0.9, 0.1))])
    told.decided([("x", (A, B), (0.7, 0.3))])
    told.decided([("x", (B, C), (0.5, 0.5))])
    told.decided([("y", (A,), (1.0,))])
    found = told.means()
    assert found["x"] == pytest.approx({A: 1.6 / 3, B: 0.9 / 3, C: 0.5 / 3})
    assert sum(found["x"].values()) == pytest.approx(1.0)
    assert found["y"] == {A: 1.0}


def test_a_policy_that_decides_no_more_leaves_the_probabilities() -> None:
    told = Probabilities(lately=3)
    told.decided([("before", (A, B), (0.5, 0.5))])
    for _ in range(3):
        told.decided([("now", (A, B), (0.8, 0.2))])
    assert told.means() == {"now": {A: pytest.approx(0.8), B: pytest.approx(0.2)}}


@pytest.mark.parametrize("policies", [1, 2, 5])
def test_probabilities_of_fifty_arms_have_thirty_series_that_add_up_to_one(policies: int) -> None:
    registry = CollectorRegistry()
    estimates = Estimates(metrics.Metrics(registry), str)
    arms = tuple(ArmId(f"arm-{k:02d}") for k in range(50))
    chances = tuple((50 - k) / 1275 for k in range(50))
    for k in range(policies):
        estimates.decided([_decided(f"policy-{k}", arms, chances)])
    estimates.look(set())
    shown = _shown(registry, "bandit_arm_probability")
    assert len(shown) == metrics.MAX_PROBABILITIES
    own = metrics.MAX_PROBABILITIES // policies - 1
    for k in range(policies):
        of = {arm: value for (policy, arm), value in shown.items() if policy == f"policy-{k}"}
        assert sum(of.values()) == pytest.approx(1.0)
        assert set(of) == {*arms[:own], metrics.OTHER}
        assert of[arms[0]] == pytest.approx(50 / 1275)
    estimates.decided([_decided("policy-0", (arms[49],), (1.0,))])
    estimates.look(set())
    assert ("policy-0", arms[49]) in _shown(registry, "bandit_arm_probability")


def test_few_arms_have_probabilities_of_their_own_also_beyond_the_labels() -> None:
    registry = CollectorRegistry()
    estimates = Estimates(metrics.Metrics(registry), lambda arm: arm if arm == A else metrics.OTHER)
    estimates.decided([_decided("x", (A, B, C), (0.5, 0.25, 0.25))])
    estimates.look(set())
    assert _shown(registry, "bandit_arm_probability") == {("x", A): 0.5, ("x", metrics.OTHER): 0.5}


def test_bounds_are_the_confidence_sequence_of_the_arms_and_policies_own_rewards() -> None:
    registry = CollectorRegistry()
    estimates = Estimates(metrics.Metrics(registry), str)
    for k in range(99):
        estimates.settled(A, "x", float(k % 2))
    estimates.look({A})
    assert _shown(registry, "bandit_arm_reward_bound") == {}
    values = _shown(registry, "bandit_policy_value_estimate")
    assert values == {("x", "mean"): pytest.approx(49 / 99)}
    for k in range(99, 200):
        estimates.settled(A, "x", float(k % 2))
        estimates.settled(B, "", 1.0)
    estimates.look({A})
    variance = 50.0 / 199.0
    at = means.interval(0.5, math.sqrt(variance / 200), 200, 0.05)
    assert at.low < 0.5 < at.high
    assert _shown(registry, "bandit_arm_reward_bound") == {
        (A, "low"): pytest.approx(at.low),
        (A, "high"): pytest.approx(at.high),
    }
    assert _shown(registry, "bandit_policy_value_estimate") == {
        ("x", "low"): pytest.approx(at.low),
        ("x", "mean"): pytest.approx(0.5),
        ("x", "high"): pytest.approx(at.high),
    }
    estimates.look({B})
    assert {arm for arm, _ in _shown(registry, "bandit_arm_reward_bound")} == {B}
