"""What of an experiment is refused, with the field's name and what to do."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from bandit_service.core.errors import Conflict, ServiceError
from bandit_service.core.experiments import checks
from bandit_service.core.experiments.spec import (
    Audience,
    Experiment,
    Guardrail,
    Metric,
    Rules,
    Step,
    Variant,
)
from tests.unit.experiments.given import two_arms

A, B = two_arms().variants
BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"id": ""}, "id", "use 1 to 64 letters"),
    ({"id": "a b"}, "id", "use 1 to 64 letters"),
    ({"id": "holdout"}, "id", "is the global hold-out's"),
    ({"variants": (A,)}, "variants", "from 2 to 20"),
    ({"variants": (A, A)}, "variants", "only once"),
    ({"variants": (msgspec.structs.replace(A, weight=0.4), B)}, "variants",
     "the weights must sum to 1, they sum to 0.9"),
    ({"variants": (msgspec.structs.replace(A, weight=-0.5), B)}, "variants.a",
     "0 or at least 1e-06"),
    ({"variants": (msgspec.structs.replace(A, weight=math.nan), B)}, "variants.a",
     "0 or at least 1e-06"),
    ({"weights": (1.0, 1e-300)}, "variants.b", "0 or at least 1e-06, got 1e-300"),
    ({"variants": (Variant(key="s", policy="eagle", shadow=True), A, B)}, "variants",
     "cannot be a shadow"),
    ({"variants": (A, B, Variant(key="s", arm="cheap", shadow=True))}, "variants.s",
     "a shadow is a policy"),
    ({"variants": (A, B, Variant(key="s", policy="eagle", weight=0.1, shadow=True))},
     "variants.s", "leave its weight out"),
    ({"variants": (A, msgspec.structs.replace(B, policy="eagle"))}, "variants.b", "not both"),
    ({"variants": (A, Variant(key="b", weight=0.5, parameters={"k": 3}))}, "variants.b",
     "name it"),
    ({"variants": (A, msgspec.structs.replace(B, learning="alone"))}, "variants.b",
     "expected one of isolated, shared"),
    ({"variants": (A, msgspec.structs.replace(B, begin="now"))}, "variants.b",
     "expected snapshot or nothing"),
    ({"unit": "device"}, "unit", "expected one of user, session, conversation, tenant"),
    ({"scheme": "statsig"}, "scheme", "expected one of native, growthbook_v2"),
    ({"primary": "clicks"}, "primary", "no 'clicks'; expected one of reward, quality, cost_usd"),
    ({"metrics": (Metric(name="reward"),)}, "metrics", "a name of its own"),
    ({"metrics": (Metric(name="a b"),)}, "metrics", "use a name of letters"),
    ({"metrics": (Metric(name="m", low=1.0, high=1.0),)}, "metrics", "low must be below high"),
    ({"share": 1.5}, "share", "from 0 to 1"),
    ({"share": math.nan}, "share", "from 0 to 1"),
    ({"slots": (0.5, 0.2)}, "slots", "must be [from, to) within [0, 1)"),
    ({"metrics": (Metric(name="m", low=-1e308, high=1e308),)}, "metrics", "both within ±1e+09"),
    ({"metrics": (Metric(name="m", low=math.nan),)}, "metrics", "low must be below high"),
    ({"audience": Audience(min_tokens=-1)}, "audience", "at least 0"),
    ({"audience": Audience(min_tokens=9, max_tokens=8)}, "audience", "not below it"),
    ({"alpha": 0.0}, "alpha", "from 1e-06 to 0.5"),
    ({"alpha": 5e-324}, "alpha", "from 1e-06 to 0.5"),
    ({"guardrails": (Guardrail(metric="quality", min=0.1),) * 21}, "guardrails",
     "at most 20, got 21"),
    ({"min_units": 1}, "min_units", "from 2"),
    ({"cool_down_s": -1.0}, "cool_down_s", "from 0"),
    ({"mode": "champion", "floor": 0.5}, "floor", "must be at least 1e-06 and below 0.5"),
    ({"mode": "champion", "floor": 0.0}, "floor", "must be at least 1e-06"),
    ({"mode": "champion", "floor": 1e-9}, "floor", "must be at least 1e-06"),
    ({"mode": "champion", "scheme": "eppo"}, "mode", "use scheme native"),
    ({"scheme": "unleash", "share": 0.004}, "share", "0.004: scheme unleash has parts of 0.01"),
    ({"scheme": "unleash", "ramp": (Step(share=0.005, units=9), Step(share=0.5))}, "share",
     "0.005: scheme unleash"),
    ({"scheme": "eppo", "share": 1e-5}, "share", "scheme eppo has parts of 0.0001"),
    ({"scheme": "unleash", "weights": (1 / 3, 2 / 3)}, "variants", "0.333, and one of them as"),
    ({"ramp": (Step(share=0.5, units=1), Step(share=0.2))}, "ramp", "the shares must grow"),
    ({"ramp": (Step(share=0.1), Step(share=0.2))}, "ramp", "needs units or hours"),
    ({"ramp": (Step(share=0.1, units=-1), Step(share=0.2))}, "ramp", "at least 0"),
    ({"ramp": (Step(share=0.1, hours=math.inf), Step(share=0.2))}, "ramp", "from 0 to 100000"),
    ({"overrides": {"qa": "c"}}, "overrides", "no variant 'c'; expected one of"),
    ({"guardrails": (Guardrail(metric="errors", min=0.0),)}, "guardrails[0].metric",
     "no 'errors'; expected one of reward"),
    ({"guardrails": (Guardrail(metric="quality"),)}, "guardrails[0]", "exactly one"),
    ({"guardrails": (Guardrail(metric="quality", min=0.1, max=0.9),)}, "guardrails[0]",
     "exactly one"),
    ({"guardrails": (Guardrail(metric="cost_usd", max=1.0),)}, "guardrails[0].high",
     "set high"),
    ({"guardrails": (Guardrail(metric="cost_usd", max=1.0, high=-1.0),)}, "guardrails[0].high",
     "above 0"),
    ({"guardrails": (Guardrail(metric="quality", min=math.nan),)}, "guardrails[0].min",
     "must be a number"),
    ({"guardrails": (Guardrail(metric="quality", max_regression=-0.1),)},
     "guardrails[0].max_regression",
     "at least 0"),
    ({"guardrails": (Guardrail(metric="quality", min=0.5, high=2.0),)}, "guardrails[0].high",
     "leave high out"),
    ({"guardrails": (Guardrail(metric="quality", min=0.0),)}, "guardrails[0].min",
     "0 can never be broken"),
    ({"guardrails": (Guardrail(metric="quality", min=80.0),)}, "guardrails[0].min",
     "values are taken from 0 to 1"),
    ({"guardrails": (Guardrail(metric="reward", max=1.0),)}, "guardrails[0].max",
     "values are taken from -1 to 1"),
    ({"guardrails": (Guardrail(metric="cost_usd", max=5.0, high=1.0),)}, "guardrails[0].max",
     "values are taken from 0 to 1"),
    ({"guardrails": (Guardrail(metric="latency_s", max_regression=2.0, high=2.0),)},
     "guardrails[0].max_regression",
     "2 can never be broken"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param", "says"), BAD)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(ServiceError) as caught:
        checks.check(two_arms(**fields))
    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: ")
    assert says in caught.value.message


def test_what_is_right_is_let_through() -> None:
    checks.check(two_arms())
    checks.check(
        two_arms(
            share=0.05,
            unit="conversation",
            metrics=(Metric(name="thumbs"),),
            primary="thumbs",
            guardrails=(
                Guardrail(metric="thumbs", min=0.2),
                Guardrail(metric="latency_s", max_regression=1.0, high=60.0),
            ),
            ramp=(Step(share=0.05, units=100), Step(share=0.25, hours=24.0), Step(share=1.0)),
            overrides={"qa": "b"},
            mode="champion",
        )
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"unit": "session"}, "unit"),
        ({"scheme": "eppo"}, "scheme"),
        ({"salt": "other"}, "salt"),
        ({"split_salt": "other"}, "split_salt"),
        ({"primary": "quality"}, "primary"),
        ({"metrics": (Metric(name="m"),)}, "metrics"),
        ({"alpha": 0.1}, "alpha"),
        ({"mode": "champion"}, "mode"),
        ({"namespace": "n"}, "namespace"),
        ({"variants": (B, A)}, "variants"),
        ({"variants": (A, B, Variant(key="c", arm="cheap"))}, "variants"),
        ({"variants": (A, msgspec.structs.replace(B, arm="cheap"))}, "variants"),
    ],
)
def test_what_units_or_numbers_rest_on_changes_in_a_draft_alone(
    fields: dict[str, Any], param: str
) -> None:
    after = two_arms(**fields)
    checks.check_change(two_arms(), after, "draft", {})
    for status in ("starting", "running", "paused"):
        with pytest.raises(ServiceError) as caught:
            checks.check_change(two_arms(), after, status, {"a": 1})
        assert caught.value.param == param


def test_what_may_change_while_it_runs() -> None:
    after = two_arms(
        share=0.3,
        weights=(0.1, 0.9),
        min_units=50,
        sticky=True,
        overrides={"qa": "a"},
        guardrails=(Guardrail(metric="quality", min=0.1),),
        slots=(0.0, 0.5),
    )
    checks.check_change(two_arms(), after, "running", {"a": 7})


def test_a_variant_cannot_be_deleted_once_it_has_begun() -> None:
    three = Experiment(
        id="e",
        variants=(
            msgspec.structs.replace(A, weight=0.5),
            msgspec.structs.replace(B, weight=0.5),
            Variant(key="c", arm="cheap"),
        ),
    )
    with pytest.raises(ServiceError, match=r"'c' had 9 decisions.*set its weight to 0"):
        checks.check_change(three, two_arms(), "running", {"c": 9})
    checks.check_change(three, two_arms(), "draft", {})


def test_what_is_finished_stays_as_it_was() -> None:
    with pytest.raises(Conflict, match="'e' is finished; start a new one under another id"):
        checks.check_change(two_arms(), two_arms(), "stopped", {})


def test_a_champion_takes_no_weight_that_it_would_undo() -> None:
    fields: dict[str, Any] = {"mode": "champion", "floor": 0.1}
    low = two_arms(weights=(0.95, 0.05), **fields)
    with pytest.raises(ServiceError, match=r"b: weight 0\.05 is below the floor, 0\.1"):
        checks.check_floor(low, None)
    with pytest.raises(ServiceError, match="below the floor"):
        checks.check_floor(two_arms(weights=(1.0, 0.0), **fields), two_arms(**fields))
    checks.check_floor(low, msgspec.structs.replace(low, share=0.5))  # as it was
    checks.check_floor(two_arms(weights=(0.1, 0.9), **fields), None)
    checks.check_floor(two_arms(weights=(1.0, 0.0)), None)


@pytest.mark.parametrize("fields", [{"scheme": "growthbook_v2"}, {"scheme": "optimizely"},
                                    {"unit": "session"}])  # fmt: skip
def test_a_namespace_places_its_units_in_one_way(fields: dict[str, Any]) -> None:
    """By two hashes half of the one's units were the other's too, whatever the slots."""
    first = two_arms("one", namespace="n", slots=(0.0, 0.5))
    other = two_arms("two", namespace="n", slots=(0.5, 1.0), **fields)
    for spec, beside in ((other, first), (first, other)):
        with pytest.raises(ServiceError, match="use another namespace") as caught:
            checks.check_beside(spec, {beside.id: beside})
        assert caught.value.param == "namespace"
    checks.check_beside(two_arms("two", **fields), {"one": first})
    eppo = two_arms("two", namespace="n", slots=(0.5, 1.0), scheme="eppo")
    checks.check_beside(eppo, {"one": first})


def test_slots_of_one_namespace_must_not_overlap() -> None:
    first = two_arms("one", namespace="n", slots=(0.0, 0.5))
    checks.check_beside(two_arms("two", namespace="n", slots=(0.5, 1.0)), {"one": first})
    checks.check_beside(two_arms("two", namespace="m", slots=(0.0, 1.0)), {"one": first})
    checks.check_beside(two_arms("one", namespace="n", slots=(0.0, 0.7)), {"one": first})
    with pytest.raises(ServiceError) as caught:
        checks.check_beside(two_arms("two", namespace="n", slots=(0.4, 1.0)), {"one": first})
    assert caught.value.message == (
        "slots: [0.4, 1) overlaps experiment 'one', which has [0, 0.5) of namespace 'n'"
    )


@pytest.mark.parametrize(
    ("rules", "param"),
    [
        (Rules(holdout_share=0.6, holdout_arm="a"), "holdout_share"),
        (Rules(holdout_share=0.1), "holdout_arm"),
        (Rules(unit="session"), "unit"),
    ],
)
def test_rules_that_are_wrong_are_named(rules: Rules, param: str) -> None:
    with pytest.raises(ServiceError) as caught:
        checks.check_rules(rules)
    assert caught.value.param == param
