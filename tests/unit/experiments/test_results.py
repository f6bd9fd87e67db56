"""What is said of an experiment: every sentence, and numbers worked out by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jsonschema
import msgspec
import pytest
from msgspec import UNSET

from bandit_service import __version__
from bandit_service.cli.experiments_tables import listed, shown
from bandit_service.core.experiments.conclusions import (
    best_of,
    caveats,
    conclusion,
    state_of,
)
from bandit_service.core.experiments.results import results
from bandit_service.core.experiments.spec import (
    HOLDOUT,
    ROUTED,
    Experiment,
    Guardrail,
    Metric,
    Variant,
)
from bandit_service.core.experiments.trial import Trial
from bandit_service.http.openapi import document
from bandit_service.statistics import means
from loadtest.coverage.played import Played, limit, two


def _given(
    played: Played, variant: str, good: int, bad: int, metric: str = "quality", begin: int = 0
) -> None:
    """So many units with 1, and so many with 0."""
    for i in range(good + bad):
        event = played.decide(f"{variant}{begin + i}", variant)
        played.value(event, float(i < good), metric)


def _clear(effect: bool = True) -> Played:
    """60 units of each; b is right in 57, a in 20 or 57."""
    played = Played(two(min_units=10))
    _given(played, "a", 20 if effect else 57, 40 if effect else 3)
    _given(played, "b", 57, 3)
    return played


def _ended(played: Played, winner: str = "") -> Played:
    played.trial.status, played.trial.winner = "stopped", winner
    return played


def _checked(played: Played, holdout: Trial | None = None) -> dict[str, Any]:
    """The results, as JSON and held to the OpenAPI document."""
    body: dict[str, Any] = msgspec.json.decode(
        msgspec.json.encode(results(played.spec, played.trial, holdout))
    )
    whole = document(__version__)
    schema = {"$ref": "#/components/schemas/ExperimentResults", "components": whole["components"]}
    jsonschema.Draft202012Validator(schema).validate(body)
    return body


def _said(played: Played) -> tuple[str, str]:
    return state_of(played.spec, played.trial), conclusion(played.spec, played.trial)


# --- sentences ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["draft", "starting"])
def test_before_it_begins_it_says_so(status: str) -> None:
    spec, trial = two(), Trial(status=status)
    assert state_of(spec, trial) == "not begun"
    assert conclusion(spec, trial) == f"It is {status}: no unit was assigned yet."


def test_too_few_units_are_named_with_how_many_there_must_be() -> None:
    played = Played(two(min_units=10))
    _given(played, "a", 12, 0)
    _given(played, "b", 3, 1)
    assert _said(played) == (
        "not enough data",
        "Not enough data: b has 4 of 10 units with an outcome.",
    )


def test_a_better_variant_is_called_better_with_its_interval() -> None:
    played = _clear()
    state, said = _said(played)
    a = means.Sample(60, 1 / 3, 60 / 59 * 2 / 9 + 0.25 / 60)
    b = means.Sample(60, 0.95, 60 / 59 * 0.0475 + 0.25 / 60)
    gap = means.difference(a, b, 0.05)
    assert state == "shown"
    assert said == (
        f"b is better than a in quality: by +0.6167 (interval {gap.low:+.4g} to {gap.high:+.4g})."
    )


def test_less_is_better_where_less_is_wanted() -> None:
    played = Played(msgspec.structs.replace(two(min_units=10), primary="latency_s"))
    for variant, seconds in (("a", 1.0), ("b", 3.0)):
        for i in range(300):
            played.value(
                played.decide(f"{variant}{i}", variant), seconds + 0.1 * (i % 3), "latency_s"
            )
    assert _said(played)[1].startswith("b is worse than a in latency_s: by +2 (interval ")
    assert best_of(played.spec, played.trial) == "a"


def test_no_difference_is_said_with_where_it_lies_and_is_no_proof_of_sameness() -> None:
    state, said = _said(_clear(effect=False))
    assert state == "not shown"
    assert said.startswith("No significant difference in quality between b and a (interval -0.")


def test_a_wrong_split_forbids_every_conclusion() -> None:
    played = _clear()
    _given(played, "b", 4_000, 0, begin=1_000)
    state, said = _said(played)
    assert state == "wrong split"
    assert said.startswith("Sample-ratio mismatch: the observed split does not match the weights.")
    assert "better" not in said
    assert best_of(played.spec, played.trial) == "a"


def test_a_held_variant_is_named_and_the_others_are_still_compared() -> None:
    three = Experiment(
        id="e",
        primary="quality",
        min_units=10,
        variants=tuple(Variant(key=key, arm="small", weight=1 / 3) for key in "abc"),
    )
    played = Played(three)
    _given(played, "a", 20, 40)
    _given(played, "b", 10, 50)
    _given(played, "c", 57, 3)
    played.change(three, held="b", held_until=1e9)
    state, said = _said(played)
    assert state == "shown"
    assert said.startswith(
        "b broke a guardrail and no longer receives traffic. c is better than a in "
    )
    assert "b is" not in said
    assert best_of(three, played.trial) == "c"


def test_the_only_variant_held_leaves_nothing_to_compare() -> None:
    played = _clear()
    played.change(played.spec, held="b", held_until=1e9)
    assert _said(played) == ("not shown", "b broke a guardrail and no longer receives traffic.")


def test_an_end_says_what_was_kept() -> None:
    assert _said(_ended(_clear(), "b"))[1].startswith(
        "Stopped; b was kept. b is better than a in quality: by +0.6167 (interval "
    )
    assert _said(_ended(_clear()))[1].startswith("Stopped; a was kept. ")


def test_an_experiment_of_shadows_alone_has_nothing_to_compare() -> None:
    variants = (
        Variant(key="a", arm="small", weight=1.0),
        Variant(key="s", policy="uniform", shadow=True),
    )
    played = Played(Experiment(id="e", variants=variants, min_units=10))
    assert _said(played) == ("not shown", "There is no variant to compare with the control.")


def test_what_an_end_keeps() -> None:
    assert best_of(_clear().spec, _clear().trial) == "b"
    same = _clear(effect=False)
    _given(same, "b", 5, 0, begin=500)
    assert best_of(same.spec, same.trial) == "a"
    best = msgspec.structs.replace(same.spec, inconclusive="best")
    assert best_of(best, same.trial) == "b"


# --- notes under the results --------------------------------------------------------------


def test_shared_learning_is_named() -> None:
    variants = (
        Variant(key="a", policy="uniform", weight=0.5),
        Variant(key="b", policy="metallm", weight=0.5, learning="shared"),
    )
    played = Played(Experiment(id="e", variants=variants))
    assert caveats(played.spec, played.trial) == [
        "b learns from all traffic, also of other variants, so the difference is not that of "
        "policies that learn alone."
    ]
    assert [one["learning"] for one in _checked(played)["variants"]] == ["isolated", "shared"]


def test_units_that_met_two_variants_are_named_above_one_percent() -> None:
    played = _clear()
    played.decide("a1", "b")
    assert caveats(played.spec, played.trial) == []
    played.decide("a2", "b")
    assert caveats(played.spec, played.trial) == [
        "2 of 120 units got two variants and are left out: if weights change, set sticky."
    ]


def test_weights_that_moved_are_named() -> None:
    played = _clear()
    a, b = played.spec.variants
    moved = (msgspec.structs.replace(a, weight=0.4), msgspec.structs.replace(b, weight=0.6))
    played.change(msgspec.structs.replace(played.spec, variants=moved))
    _given(played, "a", 1, 0, begin=900)
    assert caveats(played.spec, played.trial) == [
        "The weights changed during the experiment: the means are doubly robust estimates from "
        "each unit's first outcome."
    ]
    body = _checked(played)
    assert body["estimator"] == "doubly robust (AIPW) means of each unit's first outcome"
    assert "relative" not in body["variants"][1]["difference"]


def test_outcomes_that_fail_to_come_from_one_variant_are_named() -> None:
    played = Played(two(min_units=10))
    for i in range(400):
        event = played.decide(f"u{i}", "ab"[i % 2])
        if i % 2 == 0 or i % 4 == 1:
            played.value(event, 1.0)
    assert caveats(played.spec, played.trial) == [
        "Outcomes are not equally often reported for all variants: the missing ones "
        "may bias the result."
    ]


def test_uncounted_decisions_and_wrong_propensities_are_named() -> None:
    played = _clear()
    played.trial.uncounted = 3
    for _ in range(400):
        played.trial.sides["b"].calibration.add(("small", "large"), (0.5, 0.5), 0)
    assert caveats(played.spec, played.trial) == [
        "3 decisions came from units beyond the limit and are not counted.",
        "The logged propensities of b do not match the draws: estimates from them are wrong.",
    ]
    told = _checked(played)["variants"][1]["calibration"]
    assert told["p_value"] < 0.001


# --- numbers ------------------------------------------------------------------------------


def test_not_enough_data_is_a_state_and_no_zero() -> None:
    body = _checked(Played(two()))
    assert body["state"] == "not enough data"
    assert body["split"] == {"state": "not enough data", "sequential_p": None, "chi_square_p": None}
    for one in body["variants"]:
        assert one["metrics"]["quality"] == {"state": "not enough data", "units": 0}
        assert one["latency"] == {"state": "not enough data", "answers": 0}
        assert one["calibration"] == {"state": "not enough data", "decisions": 0}
        assert one["over_time"] == []
    assert body["cost"]["saved"] == {"b": {"state": "not enough data"}}
    assert "-" in shown(body)


def test_means_differences_and_points_have_the_values_of_their_formulas() -> None:
    played = _clear()
    body = _checked(played)
    a, b = (
        means.Sample(60, mean, 60 / 59 * mean * (1 - mean) + 0.25 / 60) for mean in (1 / 3, 0.95)
    )
    control, other = body["variants"]
    at = means.mean(a, 0.05)
    assert control["metrics"]["quality"] == pytest.approx(
        {
            "state": "shown",
            "units": 60,
            "mean": at.estimate,
            "low": max(at.low, 0.0),
            "high": min(at.high, 1.0),
        }
    )
    gap, part = means.difference(a, b, 0.05), means.relative(a, b, 0.05)
    told = other["difference"]
    assert (told["mean"], told["low"], told["high"], told["p"]) == pytest.approx(
        (gap.estimate, gap.low, gap.high, gap.p)
    )
    assert told["relative"] == pytest.approx(
        {"mean": part.estimate, "low": part.low, "high": part.high}
    )
    assert other["metrics"]["quality"]["difference"] == told
    assert "difference" not in control
    last = other["over_time"][-1]
    sizes = [point["units"] for point in other["over_time"]]
    assert all(b >= 1.08 * a + 1 for a, b in itertools.pairwise(sizes))
    assert 1.08 * sizes[-1] + 1 > 60
    assert last["difference"]["low"] < last["difference"]["mean"] < last["difference"]["high"]
    assert all(point["difference"] is None for point in control["over_time"])


def test_no_interval_of_a_mean_leaves_the_range_of_its_values() -> None:
    """On 5a5a85b a quality was said to lie from 0.85 to 1.15."""
    other = _checked(_clear())["variants"][1]["metrics"]["quality"]
    assert other["low"] < other["mean"] < other["high"] == 1.0


def test_a_line_over_time_ends_where_the_table_does() -> None:
    """On 5a5a85b it ended with the last point that was kept, 34 s before the table."""
    played = _clear()
    kept = results(played.spec, played.trial).variants[1].over_time
    at = results(played.spec, played.trial, now=kept[-1].ts + 34.0).variants[1]
    assert at.over_time[:-1] == kept
    last, table = at.over_time[-1], at.metrics["quality"]
    assert last.ts == kept[-1].ts + 34.0
    assert last.units == table.units
    assert last.mean == pytest.approx(table.mean)
    assert last.difference is not None
    assert at.difference is not UNSET
    assert last.difference.mean == pytest.approx(at.difference.mean)


@pytest.mark.parametrize("each", [1e-3, 1e-90, 1e-160, 5e-324])
@pytest.mark.parametrize("metric", ["cost_usd", "thumbs"])
def test_however_small_the_numbers_are_there_is_a_result(each: float, metric: str) -> None:
    """A client may send them, and must not take the page from everybody."""
    played = Played(two(primary=metric, metrics=(Metric(name="thumbs"),), min_units=10))
    for i in range(40):
        variant = "ab"[i % 2]
        played.value(played.decide(f"u{i}", variant), each * (1.0 + (variant == "b")), metric)
    told = _checked(played)["variants"][1]["difference"]
    assert told["mean"] == pytest.approx(each, rel=1e-6)
    if metric == "cost_usd" and each >= 1e-90:
        assert told["relative"]["mean"] == pytest.approx(1.0, rel=1e-6)


def test_alpha_is_divided_over_the_comparisons_with_the_control() -> None:
    three = Experiment(
        id="e",
        primary="quality",
        min_units=10,
        alpha=0.06,
        variants=tuple(Variant(key=key, arm="small", weight=1 / 3) for key in "abc"),
    )
    played = Played(three)
    for key in "abc":
        _given(played, key, 30, 30)
    body = _checked(played)
    each = means.Sample(60, 0.5, 60 / 59 * 0.25 + 0.25 / 60)
    gap = means.difference(each, each, 0.03)
    for one in body["variants"][1:]:
        assert (one["difference"]["low"], one["difference"]["high"]) == pytest.approx(
            (gap.low, gap.high)
        )


def test_the_split_shows_both_tests() -> None:
    played = Played(two())
    for i in range(1_000):
        played.decide(f"u{i}", "a" if i % 5 < 3 else "b")
    told = _checked(played)["split"]
    assert told["chi_square_p"] == pytest.approx(math.erfc(math.sqrt(40.0 / 2.0)))
    assert told["chi_square_p"] < 0.001 < told["sequential_p"]
    assert told["state"] == "as configured", "one look at a chi-square is not many looks"


def test_guardrails_say_how_they_stand_and_who_is_held() -> None:
    guards = (limit(0.7), Guardrail(metric="quality", max_regression=0.05))
    played = Played(two(guardrails=guards, min_units=10))
    _given(played, "a", 300, 0)
    _given(played, "b", 0, 300)
    rows = _checked(played)["guardrails"]
    assert [(row["variant"], row["state"], row["held"]) for row in rows] == [
        ("a", "kept", False),
        ("b", "broken", False),
        ("b", "broken", False),
    ]
    assert rows[1]["why"].startswith("is at most 0.")
    assert rows[1]["why"].endswith("and must be at least 0.7")
    assert rows[0]["min"] == 0.7
    assert rows[2]["max_regression"] == 0.05


def test_saved_cost_is_measured_against_the_hold_out_and_else_an_estimate() -> None:
    played = Played(two(min_units=10))
    for variant, usd in (("a", 0.004), ("b", 0.001)):
        for i in range(200):
            event = played.decide(f"{variant}{i}", variant)
            played.value(event, usd * (1.0 + 0.1 * (i % 2)), "cost_usd")
    told = _checked(played)["cost"]
    assert (told["kind"], set(told["saved"])) == ("estimate", {"b"})
    assert "no hold-out" in told["against"]
    saved = told["saved"]["b"]
    assert saved["usd_per_decision"] == pytest.approx(0.003 * 1.05)
    assert saved["low"] < saved["usd_per_decision"] < saved["high"]
    assert saved["usd_so_far"] == pytest.approx(0.003 * 1.05 * 200)
    control = Variant(key=HOLDOUT, arm="small", weight=0.05)
    held = Experiment(id=HOLDOUT, variants=(control, Variant(key=ROUTED, weight=0.95)))
    out = Played(held)
    for i in range(50):
        out.value(out.decide(f"h{i}", HOLDOUT), 0.01, "cost_usd")
    told = _checked(played, out.trial)["cost"]
    assert (told["kind"], told["against"]) == ("measured", "the hold-out")
    assert told["saved"]["a"]["usd_per_decision"] == pytest.approx(0.01 - 0.004 * 1.05)
    few = Played(held)
    few.value(few.decide("h", HOLDOUT), 0.01, "cost_usd")
    assert _checked(played, few.trial)["cost"]["kind"] == "estimate"


def test_latencies_have_quantiles_and_a_comparison() -> None:
    played = Played(two(min_units=10))
    for i in range(600):
        for variant, by in (("a", 1.0), ("b", 2.0)):
            event = played.decide(f"{variant}{i}", variant)
            played.value(event, by * (1.0 + i % 10), "latency_s")
    a, b = (one["latency"] for one in _checked(played)["variants"])
    assert a["answers"] == 600
    assert a["p50"]["value"] == pytest.approx(5.0, rel=0.05)
    assert b["p95"]["value"] == pytest.approx(20.0, rel=0.05)
    assert a["p50"]["low"] < 5.0 < a["p50"]["high"]
    assert b["p50"]["p"] < 1e-6
    assert "p" not in a["p50"]


def test_the_table_says_it_all() -> None:
    played = Played(two(guardrails=(limit(0.5),), min_units=10))
    _given(played, "a", 20, 40)
    _given(played, "b", 57, 3)
    for i in range(60):
        for variant in "ab":
            event = played.decide(f"{variant}{i}", variant)
            played.value(event, 1.0 + i % 4, "latency_s")
            played.value(event, 0.002 if variant == "a" else 0.001, "cost_usd")
    text = shown(_checked(played))
    lines = text.splitlines()
    assert lines[0] == (
        "e: running, 100.0% of users, by quality, learning: a nothing (one arm), "
        "b nothing (one arm)"
    )
    assert lines[3].split()[:5] == ["a", "small", "50.0%", "60", "120"]
    assert lines[4].split("  ")[-1].startswith("+0.6167 (")
    assert lines[4].endswith("), +185.0%")
    assert "split as configured (sequential p 0." in text
    assert "chi-square p 1, which is for one look)" in text
    assert "guardrail quality of a: open" in text
    assert any(line.startswith("latency of b: p50 ") for line in lines)
    assert "b saves +0.001000 USD a decision" in text
    assert lines[-1].startswith("b is better than a in quality: by +0.6167")
    played.trial.uncounted = 1
    assert shown(_checked(played)).splitlines()[-1].startswith("Note: 1 decisions came from")


def test_the_list_has_a_conclusion_for_each() -> None:
    text = listed(
        {
            "experiments": [
                {
                    "id": "e",
                    "status": "draft",
                    "experiment": {},
                    "units": 0,
                    "decisions": 0,
                    "conclusion": "It is draft: no unit was assigned yet.",
                }
            ],
            "rules": {"stopped": True, "holdout_share": 0.05, "holdout_arm": "small"},
        }
    )
    assert "It is draft" in text
    assert "The kill switch is on" in text
    assert "5.0% of the units are held out on small." in text


def test_results_of_the_largest_experiment_do_no_work_by_unit() -> None:
    """20 variants and 8 metrics; the members are taken away, and the results are the same."""
    variants = tuple(Variant(key=f"v{i}", arm="small", weight=0.05) for i in range(20))
    metrics = tuple(Metric(name=f"m{i}") for i in range(8))
    played = Played(Experiment(id="e", variants=variants, metrics=metrics, min_units=10))
    for i in range(400):
        event = played.decide(f"u{i}", f"v{i % 20}")
        for j in range(8):
            played.value(event, (i * 7 + j) % 10 / 10.0, f"m{j}")
        played.value(event, i % 3 / 2.0, "reward")
    before = _checked(played)
    played.trial.members.clear()
    assert _checked(played) == before
    assert len(before["variants"]) == 20
    assert len(before["variants"][3]["metrics"]) == 12
