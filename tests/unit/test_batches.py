"""What is counted in batches reads as if it had been counted one by one."""

from __future__ import annotations

import numpy as np
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from bandit_service.core import events as ev
from bandit_service.telemetry import telemetry
from bandit_service.telemetry.batches import observe_many, observe_times
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId


def _histogram() -> tuple[Histogram, CollectorRegistry]:
    registry = CollectorRegistry()
    return Histogram("h", "h", buckets=(0.1, 1.0, 5.0), registry=registry), registry


def _samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    (family,) = registry.collect()
    return {(one.name, one.labels.get("le", "")): one.value for one in family.samples}


def test_a_batch_of_observations_is_each_of_them() -> None:
    values = [*np.random.default_rng(1).exponential(1.0, 500).tolist(), 0.1, 1.0, 5.0, -1.0, 99.0]
    one, its = _histogram()
    for value in values:
        one.observe(value)
    for value in (0.7, 0.7, 0.7, 2.0):
        one.observe(value)
    other, others = _histogram()
    observe_many(other, values)
    observe_times(other, [(0.7, 2), (0.7, 0), (2.0, 1), (0.7, 1)])
    observe_times(other, [])
    observe_many(other, [])
    expected, found = _samples(its), _samples(others)
    total = ("h_sum", "")
    assert abs(expected.pop(total) - found.pop(total)) < 1e-9
    assert expected == found
    assert found["h_count", ""] == 509.0


def test_the_slowest_of_each_bucket_is_its_exemplar() -> None:
    histogram, registry = _histogram()
    observe_many(histogram, [0.5, 0.9, 0.7, 0.01, 3.0], ["a", "b", "c", "d", "e"])
    (family,) = registry.collect()
    found = {
        one.labels["le"]: (one.exemplar.labels["decision_id"], one.exemplar.value)
        for one in family.samples
        if one.exemplar is not None
    }
    assert found == {"0.1": ("d", 0.01), "1.0": ("b", 0.9), "5.0": ("e", 3.0)}


def _decided(i: int) -> ev.Decided:
    return ev.Decided(
        ts=1.0,
        id=f"d{i}",
        embedding=b"",
        tokens=1,
        willingness_to_pay=0.1,
        arms=(ArmId("a"), ArmId("b")),
        propensities=(0.75, 0.25),
        scores=(0.0, 0.0),
        drawn=i % 2,
        policy="uniform",
        key="key",
        list_cost_usd=0.1,
        expected_cost_usd=0.1,
        price=0.1,
        fallback="propose: ValueError" if i % 5 == 0 else "",
    )


def test_a_scrape_has_every_decision_however_few_wait_to_be_counted() -> None:
    told = Telemetry(pending=lambda: 0, remembered=lambda: 0)
    n = telemetry.AT_ONCE + 7
    for i in range(n):
        told.decided([(_decided(i), 0.002)])
    told.stage("recall", 0.001, 3)
    told.stage("recall", 0.002)
    told.appended(4, 0.001)
    told.applied(0.002)
    told.embedded(2, 0.004)
    expected = {
        ("bandit_decision_stage_seconds_count", "total"): n,
        ("bandit_decision_stage_seconds_count", "recall"): 4,
        ("bandit_log_batch_events_sum",): 4,
        ("bandit_log_append_seconds_count",): 1,
        ("bandit_learn_seconds_count",): 1,
        ("bandit_embedding_batch_texts_sum",): 2,
        ("bandit_embedding_model_seconds_count",): 1,
        ("bandit_decision_propensity_count",): n,
        ("bandit_fallbacks_total", "propose"): len(range(0, n, 5)),
        ("bandit_decisions_total", "fallback", "uniform"): len(range(0, n, 5)),
        ("bandit_decisions_total", "explore", "uniform"): sum(
            i % 2 == 1 and i % 5 != 0 for i in range(n)
        ),
        ("bandit_arm_decisions_total", "a"): (n + 1) // 2,
    }
    for _ in range(2):  # the second time, none is counted again
        told.look()
        found = _scraped(told)
        assert {key: found[key] for key in expected} == expected


def _scraped(told: Telemetry) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(told.render()[0].decode())
    samples = (one for each in families for one in each.samples)
    return {(one.name, *sorted(one.labels.values())): one.value for one in samples}
