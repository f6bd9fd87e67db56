"""The OpenAPI document, made from the table of paths and the structs of requests and answers.

It cannot differ from the code, since both use the same types.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec

from bandit_service.core import errors
from bandit_service.core.errors import ServiceError
from bandit_service.core.events import ArmSpec
from bandit_service.core.experiments.public import PublicAudience, PublicExperiment, PublicGuardrail
from bandit_service.http import parameters as given
from bandit_service.http.responses.experiments import ExperimentStanding
from bandit_service.http.responses.outcomes import Error, MessageError
from bandit_service.http.responses.provider_bodies import (
    Chat,
    Completion,
    Counted,
    Embeddings,
    Message,
    Responses,
)
from bandit_service.http.route import Parameter, Route
from bandit_service.http.routes import ROUTES, checks_query

_REF = "#/components/schemas/"
_NAMES: dict[type[msgspec.Struct], str] = {
    PublicExperiment: "ExperimentSpec",
    PublicAudience: "Audience",
    PublicGuardrail: "Guardrail",
    ExperimentStanding: "Experiment",
}
"""Structs that are published under another name than their class."""
_WHY = {
    "type": ["string", "null"],
    "description": "The reason, recorded in the log; at most 1,000 characters.",
    "examples": ["reviewed by the team"],
}
_AUTHORIZED = (errors.Denied, errors.Forbidden, errors.Busy)


def document(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of this service."""
    return _document(version)


@cache
def _document(version: str) -> dict[str, Any]:
    rows = [row for row in ROUTES if not row.unlisted]
    schemas = _schemas(rows)
    paths: dict[str, Any] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "bandit-service", "version": version, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key from `bandit-service keys new`, if keys are configured.",
                },
                "x-api-key": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "x-api-key",
                    "description": "The same key, as clients of Anthropic's send it.",
                },
            },
            "schemas": schemas,
            "responses": {kind.__name__: _refusal(kind, schemas) for kind in (Error, MessageError)},
        },
    }


def _refusal(kind: type[msgspec.Struct], schemas: dict[str, Any]) -> dict[str, Any]:
    """The answer for an error."""
    return {
        "description": "What was wrong and what is allowed; codes: " + ", ".join(codes()),
        "headers": {
            "Retry-After": {
                "description": "Seconds after which to try again.",
                "schema": {"type": "integer"},
            }
        },
        "content": _json(_ref(kind), example_of(kind.__name__, schemas)),
    }


def codes() -> list[str]:
    """Every error code that an answer may carry."""
    found, kinds = set(), [ServiceError]
    while kinds:
        kind = kinds.pop()
        found.add(kind.code)
        kinds += kind.__subclasses__()
    return sorted(found)


def example_of(name: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """An example of a struct, made from the examples of its fields."""
    properties: dict[str, Any] = schemas[name]["properties"]
    return {field: each["examples"][0] for field, each in properties.items()}


def _ref(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$ref": _REF + _NAMES.get(kind, kind.__name__)}


def _schemas(rows: list[Route]) -> dict[str, Any]:
    """Every struct of requests and answers, and those in them."""
    sent = {row.body for row in rows if row.body is not None}
    answers = {row.answer for row in rows if row.answer is not None}
    kinds = [*sent, *sorted(answers, key=lambda kind: kind.__name__), Error, MessageError]
    _, found = msgspec.json.schema_components(kinds, ref_template=_REF + "{name}")
    published = {kind.__name__: name for kind, name in _NAMES.items()}
    schemas = {published.get(name, name): _renamed(each, published) for name, each in found.items()}
    for name, each in schemas.items():
        each["title"] = name
        each["description"] = " ".join(each.get("description", "").split())
    schemas["ExperimentSpec"]["required"] = ["variants"]  # its id is in the path
    schemas[ArmSpec.__name__]["required"].remove("id")
    for name in _reached({_NAMES.get(kind, kind.__name__) for kind in sent}, schemas):
        _or_null(schemas[name])
    for kind in (Chat, Completion, Counted, Embeddings, Message, Responses):
        schemas[kind.__name__]["additionalProperties"] = True
    for name in ("ExperimentSpec", "Rules"):  # taken out before the rest is decoded
        schemas[name]["properties"]["why"] = _WHY
    _complete(schemas)
    return dict(sorted(schemas.items()))


def _renamed(value: Any, published: dict[str, str]) -> Any:
    """A schema whose references use the published names, and whose words allow null with it."""
    if isinstance(value, dict):
        found = {
            key: _REF + published.get(each.removeprefix(_REF), each.removeprefix(_REF))
            if key == "$ref" and isinstance(each, str)
            else _renamed(each, published)
            for key, each in value.items()
        }
        nullable = {"type": "null"} in found.get("anyOf", ())
        if nullable and None not in found.get("enum", [None]):
            found["enum"] = [*found["enum"], None]
        return found
    return [_renamed(each, published) for each in value] if isinstance(value, list) else value


def _reached(names: set[str], schemas: dict[str, Any]) -> set[str]:
    """Schemas of these names, and those that they refer to."""
    found: set[str] = set()
    while names:
        found |= names
        names = {ref for name in names for ref in _refs(schemas[name])} - found
    return found


def _refs(value: Any) -> Iterator[str]:
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        if key == "$ref":
            yield each.removeprefix(_REF)
        elif isinstance(each, dict | list):
            yield from _refs(each)


def _or_null(schema: dict[str, Any]) -> None:
    """Optional fields may be null."""
    for name, each in schema["properties"].items():
        if name in schema.get("required", ()):
            continue
        if isinstance(each.get("type"), str):
            each["type"] = [each["type"], "null"]
        elif "$ref" in each:
            each["anyOf"] = [{"$ref": each.pop("$ref")}, {"type": "null"}]
        elif "anyOf" in each and {"type": "null"} not in each["anyOf"]:
            each["anyOf"].append({"type": "null"})
        if None not in each.get("enum", [None]):
            each["enum"] = [*each["enum"], None]


def _complete(schemas: dict[str, Any]) -> None:
    """An example for each field that is made of other structs, of theirs."""
    for schema in schemas.values():
        for each in schema["properties"].values():
            if "examples" not in each:
                each["examples"] = [_put_together(each, schemas)]


def _put_together(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    if "$ref" in schema:
        inner: dict[str, Any] = schemas[schema["$ref"].removeprefix(_REF)]["properties"]
        return {
            name: each["examples"][0] if "examples" in each else _put_together(each, schemas)
            for name, each in inner.items()
        }
    if "anyOf" in schema:
        return _put_together(schema["anyOf"][0], schemas)
    if "items" in schema:
        return [_put_together(schema["items"], schemas)]
    return {"name": _put_together(schema["additionalProperties"], schemas)}


def _operation(row: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    plain = row.path.strip("/").replace("/", "_").replace("{", "").replace("}", "")
    plain = plain.removesuffix(".json")
    told = (row.refusal or Error).__name__
    operation: dict[str, Any] = {
        "operationId": f"{row.method.lower()}_{plain or 'index'}",
        "summary": row.summary,
        "description": row.description,
        "responses": {str(status): _answer(row, schemas) for status in row.statuses}
        | {str(status): {"$ref": f"#/components/responses/{told}"} for status in _statuses(row)},
        "x-scope": row.scope,
    }
    if row.scope not in ("", "stream", "metrics"):
        operation["security"] = [{}, {"key": []}, {"x-api-key": []}]
    pool = (given.POOL,) if _is_of_pool(row) else ()
    if parameters := (*row.parameters, *pool):
        operation["parameters"] = [_parameter(each) for each in parameters]
    if row.body is not None:
        schema = _ref(row.body)
        if row.many:
            # each item has its own result, so one wrong item does not refuse the list
            items = {"anyOf": [schema, {"description": "answered with an error in its result"}]}
            schema = {"oneOf": [schema, {"type": "array", "items": items, "minItems": 1}]}
        operation["requestBody"] = {"required": True, "content": _json(schema, row.sent)}
    return operation


def _is_of_pool(row: Route) -> bool:
    """Whether a request of this row is answered by one pool, which it may name."""
    return row.scope not in ("", "metrics") and not row.path.startswith("/v1/pools")


def _statuses(row: Route) -> Iterator[int]:
    """The statuses of a row's errors, in their order."""
    authorized = () if row.scope in ("", "stream", "metrics") else _AUTHORIZED
    query = (errors.Refused,) if checks_query(row) else ()
    pool = (errors.Refused, errors.Misdirected) if _is_of_pool(row) else ()
    yield from sorted({kind.status for kind in (*row.errors, *authorized, *query, *pool)})


def _answer(row: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": row.says}
    content: dict[str, Any] = {kind: {} for kind in row.content}
    if row.answer is not None:
        name = _NAMES.get(row.answer, row.answer.__name__)
        example = row.answered or example_of(name, schemas)
        content = _json(_ref(row.answer), example) | content
    if content:
        answer["content"] = content
    if row.headers:
        answer["headers"] = {
            name: {"description": what, "schema": {"type": "integer"}}
            for name, what in row.headers.items()
        }
    return answer


def _parameter(each: Parameter) -> dict[str, Any]:
    return {
        "name": each.name,
        "in": each.place,
        "required": each.place == "path",
        "description": each.description,
        "schema": dict(each.schema),
        "example": each.example,
    }


def _json(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema, "example": example}}
