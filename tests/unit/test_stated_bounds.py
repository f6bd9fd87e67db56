"""Bounds of configured records stand beside their fields, and a mistake names value and range."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bandit_service.core.events import ArmSpec
from bandit_service.core.fields import check_stated, out_of_range, ranged, stated
from bandit_service.settings.budgets import BudgetSpec
from bandit_service.settings.judges import JudgeSpec
from bandit_service.settings.keys import ApiKey
from bandit_service.settings.upstreams import UpstreamSpec
from policies import ArmId

SOUND: tuple[msgspec.Struct, ...] = (
    BudgetSpec(scope="tenant", per="day", usd=1.0),
    JudgeSpec(id="j", kind="exact"),
    ApiKey(id="k", hash="0" * 64, scopes=("read",)),
    UpstreamSpec(id="u", base_url="https://localhost"),
    ArmSpec(id=ArmId("a"), usd_per_mtok_in=1.0, usd_per_mtok_out=2.0),
)
STATED = [(record, name) for record in SOUND for name in ranged(type(record))]


def _mistake(record: msgspec.Struct, **changed: Any) -> str:
    with pytest.raises(ValueError, match=":") as refused:
        check_stated(msgspec.structs.replace(record, **changed))
    return str(refused.value)


@pytest.mark.parametrize(("record", "name"), STATED, ids=lambda each: str(each)[:12])
def test_a_value_at_each_bound_is_allowed_and_one_beyond_is_not(
    record: msgspec.Struct, name: str
) -> None:
    schema = stated(type(record))[name]
    edges: dict[str, tuple[Any, Any]] = {
        "minimum": (schema.get("minimum"), schema.get("minimum", 0) - 1),
        "maximum": (schema.get("maximum"), schema.get("maximum", 0) + 1),
        "exclusiveMinimum": (1e-9, schema.get("exclusiveMinimum")),
        "enum": (schema.get("enum", ("",))[-1], "other"),
        "minLength": ("x" * schema.get("minLength", 0), ""),
        "maxLength": ("x" * schema.get("maxLength", 0), "x" * (schema.get("maxLength", 0) + 1)),
        "maxItems": (("x",) * schema.get("maxItems", 0), ("x",) * (schema.get("maxItems", 0) + 1)),
    }
    for word, (allowed, beyond) in edges.items():
        if word in schema:
            assert not out_of_range(msgspec.structs.replace(record, **{name: allowed}), name)
            assert _mistake(record, **{name: beyond}).startswith(f"{name}: must ")


def test_a_mistake_names_the_field_the_value_and_what_is_allowed() -> None:
    budget, judge, key, upstream, arm = SOUND
    assert [
        _mistake(budget, usd=0.0),
        _mistake(budget, usd=float("nan")),
        _mistake(budget, per="week"),
        _mistake(judge, max_per_minute=0),
        _mistake(judge, timeout_s=2e6),
        _mistake(key, id=""),
        _mistake(key, id="a\nb"),
        _mistake(key, burst=-1),
        _mistake(upstream, kind="opena"),
        _mistake(upstream, idle_s=0.0),
        _mistake(upstream, resend=9),
        _mistake(arm, id="a\nb"),
        _mistake(arm, tags=("x" * 257,)),
        _mistake(arm, model="x" * 257),
    ] == [
        "usd: must be above 0 and at most 1000000000, got 0",
        "usd: must be above 0 and at most 1000000000, got nan",
        "per: must be one of hour, day, month, got 'week'",
        "max_per_minute: must be at least 1, got 0",
        "timeout_s: must be above 0 and at most 1000000, got 2e+06",
        "id: must be 1 to 64 printable characters, got ''",
        "id: must be 1 to 64 printable characters, got 'a\\nb'",
        "burst: must be from 0 to 1000000, got -1",
        "kind: must be one of openai, anthropic, responses, got 'opena'",
        "idle_s: must be above 0 and at most 86400, got 0",
        "resend: must be from 0 to 5, got 9",
        "id: must be 1 to 128 printable characters, got 'a\\nb'",
        "tags: must be at most 64 texts of at most 256 characters each",
        "model: must have at most 256 characters, got 257",
    ]
