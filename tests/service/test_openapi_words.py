"""The OpenAPI document tells people what everything is: no field or path is without words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bandit_service.http.openapi import document
from bandit_service.http.routes import ROUTES
from loadtest.openapi_diff import differences, main

WHOLE = document("x")
SCHEMAS = WHOLE["components"]["schemas"]


def _valid(schema: dict[str, Any], value: Any) -> bool:
    whole = schema | {"components": WHOLE["components"]}
    return Draft202012Validator(whole).is_valid(value)


def _operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in WHOLE["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_has_a_description_and_an_example_that_is_valid(name: str) -> None:
    assert SCHEMAS[name]["description"]
    for field, schema in SCHEMAS[name]["properties"].items():
        assert len(schema["description"]) > 5, field
        assert schema["examples"], field
        for example in schema["examples"]:
            assert _valid(schema, example), (field, example)


@pytest.mark.parametrize(
    ("name", "operation"), list(_operations()), ids=lambda each: str(each)[:40]
)
def test_every_path_has_a_summary_a_description_and_examples(
    name: str, operation: dict[str, Any]
) -> None:
    assert operation["summary"]
    assert operation["description"]
    for parameter in operation.get("parameters", ()):
        assert parameter["description"]
        assert _valid(parameter["schema"], parameter["example"])
    contents = [answer.get("content", {}) for answer in operation["responses"].values()]
    contents.append(operation.get("requestBody", {}).get("content", {}))
    for content in contents:
        told = content.get("application/json", {})
        if "schema" in told:
            assert _valid(told["schema"], told["example"]), (name, told["example"])


def test_every_method_of_every_path_has_one_row() -> None:
    rows = [(row.method, row.path) for row in ROUTES]
    assert len(rows) == len(set(rows))


def test_bounds_that_are_enforced_are_published() -> None:
    def bounds(name: str, field: str) -> tuple[Any, Any]:
        schema = SCHEMAS[name]["properties"][field]
        at = schema if "minimum" in schema else schema["anyOf"][0]
        return at["minimum"], at["maximum"]

    assert bounds("DecideRequest", "willingness_to_pay") == (1e-9, 1e6)
    assert bounds("RewardRequest", "reward") == (-1.0, 1.0)
    assert bounds("ArmSpec", "context_window") == (1, 10**9)
    assert bounds("ExperimentSpec", "min_units") == (2, 10_000_000)
    assert SCHEMAS["DecideRequest"]["properties"]["unit"]["maxLength"] == 256
    arm = SCHEMAS["ArmSpec"]["properties"]
    assert [arm[name]["maxLength"] for name in ("id", "model", "upstream")] == [128, 256, 256]
    assert (arm["tags"]["maxItems"], arm["tags"]["items"]["maxLength"]) == (64, 256)


def test_a_unit_that_a_log_cannot_erase_is_in_the_document() -> None:
    assert "501" in WHOLE["paths"]["/v1/units/{unit}"]["delete"]["responses"]


def test_the_comparison_of_two_documents_sees_what_vanished_and_what_is_the_same() -> None:
    field = {"type": ["string", "null"], "description": "old words"}
    old = {"a": {"properties": {"x": field, "y": {"type": "number"}}, "required": ["x"]}}
    same = {"b": {"type": "string"}, "a": {"required": ["x"], "properties": {
        "y": {"type": "number"}, "x": {"anyOf": [{"$ref": "#/b"}, {"type": "null"}]}}}}  # fmt: skip
    assert differences(old, same) == ([], [], [".b.type[]=string: string"])
    less = {"a": {"properties": {"x": field | {"maxLength": 3}}, "required": ["x"]}}
    assert differences(old, less) == (
        [".a.properties.y.type[]=number: number"],
        [],
        [".a.properties.x.maxLength: 3"],
    )
    assert main([]) == 2
