"""The client's fields are the API's: every answer, every request, every path, both clients."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import msgspec
import pytest

import bandit_client
from bandit_client import AsyncClient, Client, _calls, answers, fields
from bandit_client.answers import catalogue, decisions, experiments, operating, results, texts
from bandit_service.http import openapi
from bandit_service.http.routes import ROUTES

DOCUMENT = openapi.document("0")
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
STRUCTS = {
    name: kind
    for module in (catalogue, decisions, experiments, operating, results, texts)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
}
LEFT_OUT = {
    "/", "/docs", "/metrics", "/openapi.json",  # for people and Prometheus
    "/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens", "/v1/responses",
    "/v1/responses/input_tokens",
    "/v1/completions", "/v1/embeddings", "/v1/models", "/v1/models/{id}",
    "/v1/budgets", "/v1/duels/{id}",  # the gateway's, which OpenAI's clients ask
    "/v1/live", "/v1/live/map", "/v1/drift", "/v1/demo",  # the page's
    "/v1/replicas", "/v1/pools", "/v1/pools/{name}/move",  # who operates them
    "/v1/events",  # `bandit-service export`
    "/feedback",  # TensorZero's clients
    "/v1/experiments/{id}/whatif",  # `bandit-service experiments whatif`
}  # fmt: skip
REQUESTS = [
    (fields.DecideFields, "DecideRequest", {"query"}),
    (fields.RewardItem, "RewardRequest", set()),
    (fields.CompareItem, "CompareRequest", set()),
    (fields.ArmFields, "ArmSpec", {"id"}),
    (fields.RulesFields, "Rules", {"why"}),
    (fields.ConfigurationFields, "ConfigurationRequest", {"why"}),
    (fields.KeyFields, "KeyRequest", {"id", "why"}),
]


@pytest.mark.parametrize("name", sorted(STRUCTS))
def test_an_answer_has_the_fields_of_the_api(name: str) -> None:
    schema = SCHEMAS[name]
    mine = {each.name: each for each in msgspec.structs.fields(STRUCTS[name])}
    assert set(mine) == set(schema["properties"])
    required = {field for field, each in mine.items() if each.required}
    assert required == set(schema.get("required", []))
    text = STRUCTS[name].__doc__ or ""
    assert [field for field in mine if f"\n    {field}: " not in text] == []


@pytest.mark.parametrize("name", ["Decision", "Explanation", "Policies", "ExperimentResults"])
def test_the_example_of_the_document_is_read(name: str) -> None:
    whole = next(
        media["example"]
        for path in DOCUMENT["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict)
        for answer in operation.get("responses", {}).values()
        for media in answer.get("content", {}).values()
        if media.get("schema", {}).get("$ref", "").endswith(f"/{name}") and "example" in media
    )
    read = msgspec.convert(whole, STRUCTS[name])
    known = set(msgspec.to_builtins(read))
    assert known == set(STRUCTS[name].__struct_fields__)


@pytest.mark.parametrize(("kind", "name", "without"), REQUESTS)
def test_a_request_has_the_fields_of_the_api(kind: Any, name: str, without: set[str]) -> None:
    assert set(kind.__annotations__) | without == set(SCHEMAS[name]["properties"])


def test_every_path_is_there() -> None:
    called = {
        node.value
        for node in ast.walk(ast.parse(Path(_calls.__file__).read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    called |= {"/v1/stream"}  # by a WebSocket
    moves = {"/start", "/pause", "/stop", "/results"}  # of an experiment, by its path
    for row in ROUTES:
        if row.unlisted or row.path in LEFT_OUT:
            continue
        parts = [part for part in row.path.replace("}", "{").split("{")[::2] if part]
        assert all(
            part in called or part in moves or part.startswith("/v1/experiments") for part in parts
        ), row.path


def test_both_clients_have_the_same_methods() -> None:
    def of(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in vars(kind).items()
            if not name.startswith("_") and inspect.isfunction(method)
        }

    assert of(Client) == of(AsyncClient)
    assert set(answers.__all__) <= set(bandit_client.__all__)
    for name in bandit_client.__all__:
        assert name == "__version__" or (getattr(bandit_client, name).__doc__ or "").strip(), name
