"""The core, by values worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

import policies
from bandit_service.core import chance, codec
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.arm_record import ArmRecord
from bandit_service.core.decide import decide
from bandit_service.core.exploration import Exploration
from bandit_service.core.history import PER_ITEM, History
from bandit_service.core.outcomes import RewardRule
from bandit_service.core.query import Query, Recalled
from bandit_service.core.world import World, new_world
from policies import (
    ArmId,
    Arms,
    Compared,
    Comparison,
    Context,
    Floats,
    Outcome,
    Proposal,
    Rewarded,
    Vector,
)

A, B, C = ArmId("a"), ArmId("b"), ArmId("c")


def _spec(id: str, price: float = 1.0, **fields: float) -> ev.ArmSpec:
    return ev.ArmSpec(
        id=ArmId(id),
        usd_per_mtok_in=price,
        usd_per_mtok_out=price,
        **fields,  # type: ignore[arg-type]
    )


def _unit(i: int, d: int = 4) -> Vector:
    vector = np.zeros(d, np.float32)
    vector[i] = 1.0
    return vector


def _world(name: str = "uniform", *ids: str) -> World:
    world = new_world({name: policies.load(name)}, name, 10)
    for id in ids or ("a", "b"):
        apply(world, ev.ArmAdded(ts=0.0, arm=_spec(id), source="api"))
    return world


def test_an_arms_expected_cost_starts_at_list_price_and_follows_what_is_billed() -> None:
    """List: (100·2 + 300·4)/10⁶ = 0.0014. Five prior decisions at list and five billed at twice
    list: ratio (5·0.0014 + 5·0.0028)/(5·0.0014 + 5·0.0014) = 1.5, so 0.0021."""
    record = ArmRecord(ev.ArmSpec(id=A, usd_per_mtok_in=2.0, usd_per_mtok_out=4.0), "api")
    assert record.expected_cost_usd(100) == pytest.approx(0.0014)
    record.listed_usd, record.observed_usd, record.costs = 5 * 0.0014, 5 * 0.0028, 5
    assert record.expected_cost_usd(100) == pytest.approx(0.0021)


def test_a_free_arm_costs_the_mean_of_what_was_billed() -> None:
    record = ArmRecord(_spec("a", 0.0), "api")
    assert record.expected_cost_usd(100) == 0.0
    record.observed_usd, record.costs = 0.06, 3
    assert record.expected_cost_usd(100) == pytest.approx(0.02)


def test_expected_latency_mixes_what_is_configured_with_what_was_seen() -> None:
    """Configured 1.0 s counts as five; one of 7.0 s: (5·1 + 7)/6 = 2.0."""
    record = ArmRecord(_spec("a", expected_latency_s=1.0), "api", latency_s=7.0, latencies=1)
    assert record.expected_latency_s() == pytest.approx(2.0)
    assert ArmRecord(_spec("a"), "api").expected_latency_s() is None


def test_the_reward_is_quality_less_cost_by_worth_less_waiting() -> None:
    """0.9 − 0.02/0.1 − 0.05·2 = 0.6; and an absurd bill is cut at −1."""
    rule = RewardRule(latency_weight=0.05)
    assert rule.scalar(0.9, 0.02, 2.0, 0.1) == pytest.approx(0.6)
    assert rule.scalar(0.9, 1000.0, 0.0, 0.1) == -1.0


def test_chance_depends_on_seed_and_id_and_is_uniform() -> None:
    draws = np.array([chance.uniform(0, f"id-{i}") for i in range(20_000)])
    assert 0.0 <= draws.min() < draws.max() < 1.0
    # Kolmogorov-Smirnov: the 0.1 % bound at n = 20,000 is 1.95/√n = 0.0138
    assert np.abs(np.sort(draws) - np.arange(20_000) / 20_000).max() < 0.0138
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.03


def test_arms_are_drawn_as_often_as_their_propensity_says() -> None:
    world = _world("uniform", "a", "b", "c", "d")
    query = Query(_unit(0), 10, 0.1)
    explore = Exploration(floor=0.0)
    drawn = [decide(world, query, Recalled(), f"d{i}", 0.0, explore) for i in range(4000)]
    counts = np.array([sum(event.arm == id for event in drawn) for id in "abcd"])
    assert all(event.propensity == 0.25 for event in drawn)
    chi_square = float(((counts - 1000) ** 2 / 1000).sum())
    assert chi_square < 16.27  # 0.1 % point with 3 degrees of freedom


def test_the_floor_is_additive_and_bounded() -> None:
    assert policies.floor(np.array([1.0, 0.0]), 0.01).tolist() == pytest.approx([0.99, 0.01])
    many = policies.floor(np.eye(100)[0], 0.01)
    assert many[1] == pytest.approx(0.001)  # 100 floors of 0.01 would leave nothing to the policy


@dataclass(frozen=True)
class Broken:
    """A policy that raises whenever it is asked or taught."""

    def init(self) -> int:
        return 0

    def propose(self, state: int, context: Context, arms: Arms) -> Proposal:
        raise ZeroDivisionError

    def learn(self, state: int, event: Rewarded | Compared) -> int:
        raise ValueError("no")


def test_a_broken_policy_is_replaced_by_uniform_and_cannot_stop_the_fold() -> None:
    world = new_world({"broken": Broken()}, "broken", 10)
    for id in "ab":
        apply(world, ev.ArmAdded(ts=0.0, arm=_spec(id), source="api"))
    event = decide(world, Query(_unit(0), 10, 0.1), Recalled(), "d", 0.0, Exploration())
    assert event.fallback == "propose: ZeroDivisionError"
    assert event.propensities == pytest.approx((0.5, 0.5))
    apply(world, event)
    apply(world, ev.Rewarded(ts=1.0, decision_id="d", quality=1.0, reward=1.0))
    assert world.learners["broken"].failures == 1
    assert world.rewards == 1


def test_a_corrected_comparison_takes_the_place_of_the_owners_latest_of_the_pair() -> None:
    history = History(5)
    for one, owner in (((A, B), "me"), ((B, A), "you"), ((A, C), "me")):
        history.remember(_unit(0), Comparison(*one), owner)
    assert history.recompare(_unit(0), Comparison(B, A, tie=True), "me")
    (item,) = history.items.values()
    assert item.comparisons == (Comparison(B, A, tie=True), Comparison(B, A), Comparison(A, C))
    assert item.compared_by == ("me", "you", "me")
    assert not history.recompare(_unit(0), Comparison(B, C), "me")
    assert not history.recompare(_unit(1), Comparison(A, B), "me")


def test_the_oldest_query_leaves_the_history_and_its_row_is_used_again() -> None:
    history = History(2)
    for i in range(3):
        history.remember(_unit(i), Outcome(A, 1.0, float(i)))
    assert list(history.items) == [2, 3]
    assert history.take_changes() == ([2, 3], [])  # of 1 the index need not hear
    assert history.neighbours([1, 2, 3], [0.9, 0.8, 0.7])[0].id == 2
    ids, vectors = history.vectors()
    assert ids.tolist() == [2, 3]
    assert vectors.tolist() == [_unit(1).tolist(), _unit(2).tolist()]


def test_outcomes_of_one_query_gather_in_one_item_and_stay_bounded() -> None:
    history = History(5)
    for i in range(PER_ITEM + 3):
        history.remember(_unit(0), Outcome(A, None, float(i)))
    (item,) = history.items.values()
    assert [outcome.reward for outcome in item.outcomes] == [
        float(i) for i in range(3, PER_ITEM + 3)
    ]


def test_a_query_without_embedding_is_not_remembered() -> None:
    history = History(5)
    history.remember(np.zeros(4, np.float32), Outcome(A, 1.0, 1.0))
    assert not history.items


@dataclass
class _Inner:
    x: Floats


@dataclass
class _State:
    n: int
    inner: _Inner
    by_arm: dict[str, list[float]]
    pair: tuple[int, str]
    maybe: float | None
    _cache: dict[str, int] = field(default_factory=dict)


def test_a_state_survives_its_bytes_bit_for_bit_and_leaves_its_cache_behind() -> None:
    state = _State(3, _Inner(np.array([[0.1, -0.0]])), {"a": [1e-300]}, (1, "z"), None, {"c": 1})
    data = codec.dump(state)
    again = codec.load(data, _State)
    assert codec.dump(again) == data
    assert again._cache == {}
    assert again.pair == (1, "z")
    assert np.signbit(again.inner.x[0, 1])
    again.inner.x[0, 0] = 2.0  # restored arrays can be learned into


def test_a_state_may_hold_plain_data_only() -> None:
    with pytest.raises(TypeError, match="may not hold a set"):
        codec.dump({"a": {1}})


def test_the_compiled_catalogue_follows_every_change_of_an_arm() -> None:
    """Prices, room and which arms there are; and what its calls cost, which it does not hold."""
    world = new_world({"uniform": policies.load("uniform")}, "uniform", 10)
    assert world.catalogue.table().ids == ()

    def put(id: str, usd: float, window: int = 1000) -> None:
        spec = ev.ArmSpec(
            id=ArmId(id), usd_per_mtok_in=usd, usd_per_mtok_out=usd, context_window=window
        )
        apply(world, ev.ArmAdded(ts=1.0, arm=spec, source="api"))

    put("b", 1.0)
    put("a", 4.0, window=500)
    for changed in (
        lambda: put("b", 8.0),
        lambda: apply(world, ev.ArmRetired(ts=1.0, id=ArmId("a"), source="api")),
        lambda: put("a", 2.0),
    ):
        before = world.catalogue.table()
        assert world.catalogue.table() is before
        changed()
        pool, records = world.catalogue.table(), world.offered()
        assert pool.records == records
        assert pool.room == min(one.spec.context_window - 300 for one in records)
        for record in records:
            record.observed_usd += 0.01
            record.listed_usd += 0.002
        fresh, compiled = world.catalogue.priced(records, 7), pool.arms(7)
        assert compiled.ids == fresh.ids
        for name in ("cost_usd", "price", "first_price"):
            assert np.array_equal(getattr(compiled, name), getattr(fresh, name)), name
