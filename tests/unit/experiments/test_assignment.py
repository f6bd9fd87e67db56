"""How a query meets experiments: every step, in its order, and what the record says of it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.conversations import Turn
from bandit_service.core.experiments import bucketing
from bandit_service.core.experiments.hashing import sha256_fraction
from bandit_service.core.experiments.spec import SCHEMES, Audience, Experiment, Variant
from bandit_service.core.world import World
from policies import ArmId
from tests.unit.experiments.given import (
    a_world,
    asked,
    decided,
    put,
    rules,
    run,
    two_arms,
    variants,
)

UNITS = [f"u{i}" for i in range(300)]


def _shared(world: World, spec: Experiment, share: float, ts: float = 5.0) -> Experiment:
    spec = msgspec.structs.replace(spec, share=share)
    put(world, spec, ts=ts)
    return spec


def _weighted(spec: Experiment, a: float) -> Experiment:
    one, other = spec.variants
    return msgspec.structs.replace(
        spec,
        variants=(
            msgspec.structs.replace(one, weight=a),
            msgspec.structs.replace(other, weight=1.0 - a),
        ),
    )


def _first(world: World, variant: str) -> str:
    return next(unit for unit, found in variants(world, UNITS).items() if found == variant)


def test_a_decision_outside_of_every_experiment_has_no_step() -> None:
    world = a_world()
    event = decided(world, asked())
    assert (event.experiment, event.variant, event.split, event.steps) == ("", "", 1.0, ())


def test_the_split_is_the_hash_of_salt_and_unit_worked_out_by_hand() -> None:
    """Below the share by the first fraction; the second against the weights 0.3 and 0.7."""
    world = a_world()
    run(world, two_arms(weights=(0.3, 0.7), share=0.5))
    for unit, found in variants(world, UNITS).items():
        if sha256_fraction("share:e", unit) >= 0.5:
            assert found == ""
        else:
            assert found == ("a" if sha256_fraction("split:e", unit) < 0.3 else "b")


def test_a_fixed_arm_is_drawn_surely_and_the_split_is_a_field_of_its_own() -> None:
    world = a_world()
    run(world, two_arms(weights=(0.3, 0.7), share=0.9))
    event = decided(world, asked(_first(world, "b")))
    assert (event.arm, event.propensity, event.policy) == ("dear", 1.0, "fixed")
    assert (event.experiment, event.variant, event.split) == ("e", "b", 0.7)
    assert event.steps == ("share", "split")


def test_the_kill_switch_goes_before_everything() -> None:
    world = a_world()
    run(world, two_arms())
    rules(world, holdout_share=0.5, holdout_arm="dear")
    rules(world, stopped=True, holdout_share=0.5, holdout_arm="dear")
    for unit in UNITS[:30]:
        event = decided(world, asked(unit))
        assert (event.experiment, event.steps) == ("", ("stopped",))
        assert event.policy == "uniform"
    assert world.experiments.trials["holdout"].members == {}, (
        "nobody is compared while nobody is held out"
    )
    assert decided(world, asked("u0", outside=True)).steps == ("outside",)


def test_the_hold_out_goes_before_experiments_and_is_measured_against_all_others() -> None:
    world = a_world()
    run(world, two_arms(overrides={"u1": "a"}))
    rules(world, holdout_share=0.3, holdout_arm="dear")
    held = {unit for unit in UNITS if sha256_fraction("holdout:holdout", unit) < 0.3}
    for unit in UNITS:
        event = decided(world, asked(unit))
        assert (event.experiment == "holdout") is (unit in held)
        if unit in held:
            assert (event.arm, event.propensity) == ("dear", 1.0)
            assert event.steps == ("holdout",)
    sides = world.experiments.trials["holdout"].sides
    assert sides["holdout"].units == len(held)
    assert sides["routed"].units == len(UNITS) - len(held)
    assert sum(side.units for side in world.experiments.trials["e"].sides.values()) == sum(
        unit not in held and unit != "u1" for unit in UNITS
    )


def test_where_there_is_no_choice_the_hold_out_compares_nothing() -> None:
    world = a_world()
    rules(world, holdout_share=0.5, holdout_arm="dear")
    held = next(u for u in UNITS if sha256_fraction("holdout:holdout", u) < 0.5)
    event = decided(world, asked(held, max_cost_usd=1e-9 + 0.00031))
    assert event.arms == ("cheap",)
    assert (event.arm, event.steps) == ("cheap", ("holdout", "no arm"))
    assert world.experiments.trials["holdout"].sides["holdout"].decisions == 0


def test_another_arm_or_salt_begins_the_hold_out_anew() -> None:
    world = a_world()
    rules(world, holdout_share=0.3, holdout_arm="dear")
    for unit in UNITS:
        decided(world, asked(unit))
    rules(world, holdout_share=0.2, holdout_arm="dear")
    assert world.experiments.trials["holdout"].sides["routed"].units > 0
    rules(world, holdout_share=0.2, holdout_arm="cheap")
    assert world.experiments.trials["holdout"].sides["routed"].units == 0


def test_an_audience_lets_in_by_tenant_caller_and_length() -> None:
    world = a_world()
    audience = Audience(tenants=("acme",), callers=("k1",), min_tokens=5, max_tokens=20)
    run(world, two_arms(audience=audience))
    inside = decided(world, asked(tenant="acme", caller="k1"))
    assert inside.steps == ("audience", "split")
    for wrong in (
        {"tenant": "other", "caller": "k1"},
        {"tenant": "acme", "caller": "k2"},
        {"tenant": "acme", "caller": "k1", "tokens": 4},
        {"tenant": "acme", "caller": "k1", "tokens": 21},
    ):
        assert decided(world, asked(**wrong)).experiment == ""


def test_a_query_without_the_unit_takes_no_part() -> None:
    world = a_world()
    run(world, two_arms(unit="session"))
    assert decided(world, asked("u")).experiment == ""
    assert decided(world, asked("u", session="s")).experiment == "e"


@pytest.mark.parametrize("kind", ["session", "conversation", "tenant"])
def test_every_kind_of_unit_keeps_its_variant_whoever_the_user_is(kind: str) -> None:
    world = a_world()
    run(world, two_arms(unit=kind))
    found = {decided(world, asked(unit, 0, **{kind: "same"})).variant for unit in UNITS[:20]}
    assert len(found) == 1
    assert len(world.experiments.trials["e"].members) == 1


def test_an_override_names_the_variant_before_the_namespace_and_counts_nowhere() -> None:
    world = a_world()
    run(world, two_arms(namespace="n", slots=(0.0, 0.001), share=0.0, overrides={"qa": "b"}))
    event = decided(world, asked("qa"))
    assert (event.variant, event.split, event.steps) == ("b", 0.0, ("override",))
    assert world.experiments.trials["e"].sides["b"].decisions == 0
    assert [one.out for one in world.experiments.trials["e"].members.values()] == [True]


def test_experiments_of_one_namespace_share_no_unit() -> None:
    world = a_world()
    run(world, two_arms("one", namespace="n", slots=(0.0, 0.4)))
    run(world, two_arms("two", namespace="n", slots=(0.4, 1.0)))
    for unit in UNITS:
        event = decided(world, asked(unit))
        low = sha256_fraction("namespace:n", unit) < 0.4
        assert event.experiment == ("one" if low else "two")
        assert event.steps == ("namespace", "split")


def test_the_oldest_experiment_takes_first_and_leaves_the_others_the_rest() -> None:
    world = a_world()
    run(world, two_arms("old", share=0.5))
    run(world, two_arms("young"))
    for unit in UNITS[:50]:
        found = decided(world, asked(unit)).experiment
        assert found == ("old" if sha256_fraction("share:old", unit) < 0.5 else "young")


@pytest.mark.parametrize("status", ["draft", "starting", "paused", "stopped"])
def test_only_what_runs_assigns_and_a_pause_forgets_no_one(status: str) -> None:
    world = a_world()
    run(world, two_arms())
    before = variants(world, UNITS[:20])
    put(world, two_arms(), status)
    assert set(variants(world, UNITS[:20]).values()) == {""}
    put(world, two_arms(), "running")
    assert variants(world, UNITS[:20]) == before


def test_a_query_whose_arm_is_named_or_that_is_a_duel_takes_no_part() -> None:
    world = a_world()
    run(world, two_arms())
    assert decided(world, asked(outside=True)).experiment == ""
    assert decided(world, asked(duel_of="d1")).experiment == ""


def test_an_arm_that_cannot_serve_leaves_the_policy_to_decide_and_the_record_says_so() -> None:
    world = a_world("cheap", "dear", "third")
    run(world, two_arms())
    query = asked(_first(world, "b"), max_cost_usd=0.0004)
    event = decided(world, query)
    assert (event.arm, event.variant, event.policy) == ("cheap", "b", "uniform")
    assert event.steps == ("split", "no arm")
    assert world.experiments.trials["e"].sides["b"].decisions == 1, "it counts as it was assigned"


def test_a_conversations_arm_holds_inside_a_policys_variant_and_not_against_a_fixed_arm() -> None:
    world = a_world()
    routed = Variant(key="r", weight=0.5)
    fixed = Variant(key="f", arm="cheap", weight=0.5)
    run(world, Experiment(id="e", variants=(fixed, routed)))
    found = variants(world, UNITS)
    fixed_unit = next(u for u, v in found.items() if v == "f")
    routed_unit = next(u for u, v in found.items() if v == "r")
    for unit, stayed in ((fixed_unit, False), (routed_unit, True)):
        query = asked(unit, prompt=1000, turn=Turn("talk", ArmId("dear")))
        event = decided(world, query)
        assert event.stayed is stayed
    assert event.propensities[event.arms.index("dear")] > 0.9


# --- stickiness ---------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    scheme=st.sampled_from(SCHEMES),
    shares=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6),
    a=st.floats(0.05, 0.95),
    salt=st.text(max_size=6),
)
def test_no_ramp_up_or_down_moves_a_unit_between_variants(
    scheme: str, shares: list[float], a: float, salt: str
) -> None:
    world = a_world()
    spec = _weighted(two_arms(scheme=scheme, salt=salt, split_salt=f"{salt}2"), a)
    run(world, spec)
    seen: dict[str, str] = {}
    for share in shares:
        spec = _shared(world, spec, share)
        for unit, variant in variants(world, UNITS[:60]).items():
            if variant:
                assert seen.setdefault(unit, variant) == variant


def test_weights_that_change_move_units_unless_they_are_kept() -> None:
    """Without stickiness a moved unit is mixed, and measures neither; with it none moves."""
    for sticky in (False, True):
        world = a_world()
        spec = two_arms(sticky=sticky)
        run(world, spec)
        before = {unit: decided(world, asked(unit)).variant for unit in UNITS}
        put(world, _weighted(spec, 0.2), ts=5.0)
        events = {unit: decided(world, asked(unit)) for unit in UNITS}
        moved = {u for u, event in events.items() if event.variant != before[u]}
        kept = {u for u, event in events.items() if "kept" in event.steps}
        at = {u: sha256_fraction("split:e", u) for u in UNITS}
        between = {u for u in UNITS if 0.2 <= at[u] < 0.5}
        assert (moved, kept) == ((set(), between) if sticky else (between, set()))
        assert world.experiments.trials["e"].mixed == len(moved)
        if sticky:  # with the probability that they had when they came
            assert {events[u].split for u in between} == {0.5}


def test_a_kept_unit_still_counts_where_its_variant_gets_no_new_units() -> None:
    world = a_world()
    spec = two_arms(sticky=True)
    run(world, spec)
    unit = _first(world, "b")
    decided(world, asked(unit))
    put(world, _weighted(spec, 1.0), ts=5.0)
    event = decided(world, asked(unit))
    assert (event.variant, event.split) == ("b", 0.5)
    assert world.experiments.trials["e"].sides["b"].decisions == 2


def test_a_held_variant_gives_its_units_the_control_and_has_them_back_when_released() -> None:
    world = a_world()
    spec = two_arms()
    run(world, spec)
    unit = _first(world, "b")
    decided(world, asked(unit))
    put(world, spec, held="b", held_until=100.0, ts=5.0)
    event = decided(world, asked(unit))
    assert (event.variant, event.arm, event.split) == ("a", "cheap", 0.0)
    assert event.steps == ("split", "held")
    put(world, spec, held="b", held_until=0.0, ts=6.0)
    assert decided(world, asked(unit)).variant == "b"
    trial = world.experiments.trials["e"]
    assert (trial.mixed, trial.sides["b"].decisions, trial.sides["a"].decisions) == (0, 2, 0)


def test_a_unit_that_was_erased_is_no_more_a_member_whatever_the_unit_is() -> None:
    for kind in ("user", "session"):
        world = a_world()
        run(world, two_arms(unit=kind))
        decided(world, asked("u", session="s1"))
        decided(world, asked("w", session="s2"))
        apply(world, ev.Forgotten(ts=9.0, owner=ev.owner_of("", "u")))
        assert len(world.experiments.trials["e"].members) == 1
        assert sum(side.units for side in world.experiments.trials["e"].sides.values()) == 2


def test_every_scheme_of_the_configuration_is_one_that_assigns() -> None:
    assert set(SCHEMES) == set(bucketing.SCHEMES)
