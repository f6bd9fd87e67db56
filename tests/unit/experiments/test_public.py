"""Names of before 0.2 are taken, those of now are told, and the log keeps its own."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bandit_service import settings
from bandit_service.core.experiments.public import (
    PublicExperiment,
    published,
    respelled,
    stored,
)
from bandit_service.core.experiments.spec import Audience, Experiment, Guardrail, Variant

VARIANTS = [{"key": "a", "weight": 0.5}, {"key": "b", "weight": 0.5}]
OLD = {
    "id": "e",
    "variants": VARIANTS,
    "audience": {"least_tokens": 5, "most_tokens": 9},
    "guardrails": [
        {"metric": "quality", "least": 0.5},
        {"metric": "cost_usd", "most": 0.1, "high": 1.0},
        {"metric": "quality", "worse": 0.2},
    ],
}
NEW = {
    "id": "e",
    "variants": VARIANTS,
    "audience": {"min_tokens": 5, "max_tokens": 9},
    "guardrails": [
        {"metric": "quality", "min": 0.5},
        {"metric": "cost_usd", "max": 0.1, "high": 1.0},
        {"metric": "quality", "max_regression": 0.2},
    ],
}
SPEC = Experiment(
    id="e",
    variants=(Variant(key="a", weight=0.5), Variant(key="b", weight=0.5)),
    audience=Audience(min_tokens=5, max_tokens=9),
    guardrails=(
        Guardrail(metric="quality", min=0.5),
        Guardrail(metric="cost_usd", max=0.1, high=1.0),
        Guardrail(metric="quality", max_regression=0.2),
    ),
)


def test_both_spellings_are_the_same_experiment() -> None:
    for body in (OLD, NEW):
        assert stored(msgspec.convert(respelled(body), PublicExperiment)) == SPEC


def test_the_log_keeps_the_old_names_and_people_see_the_new_ones() -> None:
    assert msgspec.json.decode(msgspec.json.encode(SPEC)) == OLD
    assert msgspec.json.decode(msgspec.json.encode(published(SPEC))) == NEW
    assert msgspec.convert(OLD, Experiment) == SPEC


def test_a_table_with_both_spellings_is_refused_by_the_old_name() -> None:
    both = {**NEW, "guardrails": [{"metric": "quality", "min": 0.5, "least": 0.4}]}
    with pytest.raises(msgspec.ValidationError, match="`least`"):
        msgspec.convert(respelled(both), PublicExperiment)


def test_the_configuration_takes_both(tmp_path: Path) -> None:
    for names in (("least_tokens", "least"), ("min_tokens", "min")):
        path = tmp_path / "bandit.toml"
        path.write_text(
            f"""
            [[experiments]]
            id = "e"
            variants = [{{key = "a", weight = 0.5}}, {{key = "b", weight = 0.5}}]
            audience = {{{names[0]} = 5}}
            guardrails = [{{metric = "quality", {names[1]} = 0.5}}]
            """,
            encoding="utf-8",
        )
        (spec,) = settings.read(path, {}).experiments
        assert type(spec) is Experiment
        assert (spec.audience.min_tokens, spec.guardrails[0].min) == (5, 0.5)
