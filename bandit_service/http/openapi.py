"""The OpenAPI document, made from the very structs that parse the requests.

What a request may hold cannot drift from what is parsed; tests hold paths, answers and errors
to what the running service does.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from bandit_service import wire
from bandit_service.core.errors import ServiceError
from bandit_service.core.events import ArmSpec
from bandit_service.core.experiments.spec import HOLDOUT, STATUSES, Experiment, Rules
from bandit_service.core.outcomes import RANGES
from bandit_service.http.auth import ROUTES

_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
_UNIT = {"name": "unit", "in": "path", "required": True, "schema": {"type": "string"}}
_TENANT = {"name": "tenant", "in": "query", "required": False, "schema": {"type": "string"}}
_TIMEOUT = {
    "name": "X-Request-Timeout",
    "in": "header",
    "required": False,
    "description": "Seconds after which the answer is of no use.",
    "schema": {"type": "number", "minimum": 0.001, "maximum": 3600},
}
_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


def _open(required: list[str], **properties: Any) -> dict[str, Any]:
    """An object of OpenAI's, whose other fields are passed on untouched."""
    return _object(required, **properties) | {"additionalProperties": True}


_NUMBER, _STRING, _WHOLE = {"type": "number"}, {"type": "string"}, {"type": "integer"}
_NUMBERS = {"type": "object", "additionalProperties": _NUMBER}
_ARM = {"$ref": "#/components/schemas/Arm"}
_RULES = {"$ref": "#/components/schemas/Rules"}
_NEIGHBOUR = _object(["id", "similarity"], id=_WHOLE, similarity=_NUMBER, outcomes={
    "type": "array", "items": _object(["arm", "reward"], arm=_STRING, reward=_NUMBER)})  # fmt: skip

_STATE = {"enum": ["shown", "not enough data"]}
_OR_NULL = {"type": ["number", "null"]}
_CALIBRATION = _object(["state", "decisions"], state=_STATE, decisions=_WHOLE, p_value=_NUMBER,
                       impossible=_WHOLE)  # fmt: skip
_BOUNDS = _object(["mean", "low", "high"], mean=_NUMBER, low=_NUMBER, high=_NUMBER)
_GAP = _object(["state", "units"], state=_STATE, units=_WHOLE, mean=_NUMBER, low=_NUMBER,
               high=_NUMBER, p=_NUMBER, relative=_BOUNDS)  # fmt: skip
_ESTIMATE = _object(["state", "units"], state=_STATE, units=_WHOLE, mean=_NUMBER, low=_OR_NULL,
                    high=_OR_NULL, difference=_GAP)  # fmt: skip
_QUANTILE = _object(["value", "low", "high"], value=_NUMBER, low=_NUMBER, high=_OR_NULL, p=_NUMBER)
_POINT = _object(
    ["ts", "units", "mean", "low", "high", "difference"], ts=_NUMBER, units=_WHOLE, mean=_NUMBER,
    low=_NUMBER, high=_NUMBER, difference={"anyOf": [_BOUNDS, {"type": "null"}]},
)  # fmt: skip
_VARIANT = _object(
    ["key", "control", "decides", "learning", "weight", "held", "units", "mixed_units", "decisions",
     "rewards", "enough", "metrics", "latency", "calibration", "over_time"],
    key=_STRING, control={"type": "boolean"}, decides=_STRING, learning=_STRING, weight=_NUMBER,
    held={"type": "boolean"}, units=_WHOLE, mixed_units=_WHOLE, decisions=_WHOLE, rewards=_WHOLE,
    enough={"type": "boolean"}, difference=_GAP, calibration=_CALIBRATION,
    metrics={"type": "object", "additionalProperties": _ESTIMATE},
    latency=_object(["state", "answers"], state=_STATE, answers=_WHOLE, p50=_QUANTILE,
                    p95=_QUANTILE),
    over_time={"type": "array", "items": _POINT},
)  # fmt: skip
_SHADOW = _object(
    ["key", "decides", "learning", "decisions", "rewards", "state"], key=_STRING, decides=_STRING,
    learning=_STRING, decisions=_WHOLE, rewards=_WHOLE, agreement=_NUMBER,
    state={"enum": ["shown", "refused", "not enough data"]}, why=_STRING, reward=_NUMBER,
    cost_difference_usd=_NUMBER, effective_units=_NUMBER, mean_weight=_NUMBER, low=_NUMBER,
    high=_NUMBER,
)  # fmt: skip
_GUARDRAIL = _object(
    ["metric", "variant", "state", "why", "held", "low", "high"], metric=_STRING, variant=_STRING,
    state={"enum": ["broken", "kept", "open", "not enough data"]}, why=_STRING, least=_NUMBER,
    most=_NUMBER, worse=_NUMBER, held={"type": "boolean"}, low=_OR_NULL, high=_OR_NULL,
)  # fmt: skip
_SAVED = _object(["state"], state=_STATE, usd_per_decision=_NUMBER, low=_NUMBER, high=_NUMBER,
                 usd_so_far=_NUMBER)  # fmt: skip

_COUNT = _NUMBER | {"minimum": 0, "description": "Outcomes by weight; comparisons are parts."}
_UNTRIED = {"const": True, "description": "No outcome came of the arm: no quality is known."}
_WEIGHED = _object(
    ["id", "propensity", "score", "expected", "quality", "cost_usd", "latency_s"], id=_STRING,
    propensity=_NUMBER, score=_NUMBER | {"description": "value + bonus - cost, where they are."},
    value=_NUMBER, bonus=_NUMBER, cost=_NUMBER, expected=_object(
        ["value", "n"], value=_OR_NULL, n={**_COUNT, "type": ["number", "null"]}, low=_NUMBER,
        high=_NUMBER, untried=_UNTRIED, prior=_NUMBER),
    quality=_OR_NULL, cost_usd=_NUMBER, latency_s=_OR_NULL,
)  # fmt: skip

_NULL = {"type": "null"}
_OBJECTS = {"type": ["array", "null"], "items": {"type": "object"}}
_ASKED: dict[str, Any] = {
    "stream": {"type": ["boolean", "null"]}, "stream_options": {"type": ["object", "null"]},
    "tools": _OBJECTS, "functions": _OBJECTS, "response_format": {"type": ["object", "null"]},
    "tool_choice": {"type": ["string", "object", "null"]}, "n": _OR_NULL, "max_tokens": _OR_NULL,
    "max_completion_tokens": _OR_NULL, "temperature": _OR_NULL,
    "stop": {"anyOf": [_STRING, {"type": "array", "items": _STRING}, _NULL]},
}  # fmt: skip

_WHY = _object(
    ["message", "type", "param", "code"],
    message=_STRING,
    type=_STRING,
    param={"type": ["string", "null"]},
    code=_STRING,
)

_ANSWERS: dict[str, dict[str, Any]] = {
    "Error": _object(["error"], error=_WHY),
    "Decision": _object(
        ["decision_id", "arm", "propensity", "policy", "expected"],
        decision_id={"type": "string", "format": "uuid"},
        arm=_STRING,
        propensity={"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        policy=_STRING,
        experiment=_STRING,
        variant=_STRING,
        steps={"type": "array", "items": _STRING},
        expected=_object(
            ["cost_usd"], quality=_NUMBER, low=_NUMBER, high=_NUMBER, n=_COUNT, untried=_UNTRIED,
            prior=_NUMBER, cost_usd=_NUMBER, latency_s=_NUMBER,
        ),
        arms={"type": "array", "items": _WEIGHED},
        untried={"type": "array", "items": _STRING},
        fallback=_STRING,
        scores=_NUMBERS,
        propensities=_NUMBERS,
        neighbours={"type": "array", "items": _NEIGHBOUR},
        excluded={"type": "object", "additionalProperties": _STRING},
        ts=_NUMBER,
        tokens=_WHOLE,
        willingness_to_pay=_NUMBER,
        signals=_NUMBERS,
        settled={"type": "boolean"},
        unit=_STRING,
        tenant=_STRING,
    ),
    "Results": _object(
        ["results"],
        results={
            "type": "array",
            "items": _object(
                ["decision_id", "status"],
                decision_id={"type": ["string", "null"]},
                status={"enum": ["accepted", "duplicate", "error"]},
                error=_WHY,
            ),
        },
    ),
    "Arms": _object(["arms"], arms={"type": "array", "items": _ARM}),
    "Arm": _object(
        ["id", "usd_per_mtok_in", "usd_per_mtok_out", "retired", "source", "observed"],
        id=_STRING,
        usd_per_mtok_in=_NUMBER,
        usd_per_mtok_out=_NUMBER,
        context_window=_WHOLE,
        expected_output_tokens=_WHOLE,
        max_output_tokens={"type": ["integer", "null"]},
        expected_latency_s={"type": ["number", "null"]},
        usd_per_mtok_cached_in={"type": ["number", "null"]},
        usd_per_mtok_cache_write={"type": ["number", "null"]},
        usd_per_mtok_cache_write_1h={"type": ["number", "null"]},
        capabilities={"type": "array", "items": _STRING},
        tags={"type": "array", "items": _STRING},
        upstream=_STRING,
        retired={"type": "boolean"},
        source={"enum": ["config", "api"]},
        observed=_NUMBERS,
    ),
    "Policies": _object(
        ["policies", "serving", "calibration"],
        calibration={"type": "object", "additionalProperties": _CALIBRATION},
        policies={"type": "array", "items": _STRING},
        serving=_object(
            ["name", "key", "parameters"], name=_STRING, key=_STRING, parameters={"type": "object"}
        ),
        beside={
            "type": "array",
            "items": _object(
                ["name", "key", "learning"], name=_STRING, key=_STRING, learning={"type": "boolean"}
            ),
        },
        folding=_object(["name", "events", "of"], name=_STRING, events=_WHOLE, of=_WHOLE),
    ),
    "Anything": {"type": "object"},
    "Map": _object(
        ["state", "n"], state={"enum": ["shown", "all alike", "not enough data"]}, n=_WHOLE,
        needed=_WHOLE, share=_NUMBER, points={"type": "array", "items": _object(
            ["id", "x", "y", "arm", "reward"], id=_STRING, x=_NUMBER, y=_NUMBER, arm=_STRING,
            reward={"type": ["number", "null"]})}),
    "Explanation": _object(
        ["policy", "arms", "left_out", "neighbours", "fallback"], policy=_STRING,
        arms={"type": "array", "items": _WEIGHED}, left_out={"type": "object"},
        neighbours={"type": "array"}, fallback=_STRING),
    "Models": _object(["object", "data"], object=_STRING, data={"type": "array"}),
    "Model": _object(["id", "object"], id=_STRING, object=_STRING),
    "Chat": _open(["model", "messages"], model=_STRING,
                  messages={"type": "array", "minItems": 1, "items": {"type": "object"}},
                  **_ASKED),
    "Completion": _open(["model", "prompt"], model=_STRING, **_ASKED),
    "Embeddings": _open(["model", "input"], model=_STRING),
    "Budgets": _object(["budgets"], budgets={"type": "array", "items": _object(
        ["account", "per", "usd", "spent_usd", "held_usd", "ends_in_s", "shadow_price"],
        account=_STRING, per=_STRING, usd=_NUMBER, spent_usd=_NUMBER, held_usd=_NUMBER,
        ends_in_s=_NUMBER, shadow_price=_NUMBER)}),
    "Duel": _object(["decision_id", "answers"], decision_id=_STRING, answers={
        "type": "array", "items": _object(["decision_id", "arm", "answer"], decision_id=_STRING,
                                          arm=_STRING, answer=_STRING)}),
    "Experiment": _object(
        ["id", "status", "experiment", "decisions", "units", "held", "conclusion"], id=_STRING,
        status={"enum": [*STATUSES, HOLDOUT]},
        experiment={"$ref": "#/components/schemas/ExperimentSpec"},
        begun={"type": ["number", "null"]}, ended={"type": ["number", "null"]},
        winner={"type": ["string", "null"]}, decisions=_WHOLE, units=_WHOLE, held=_NUMBERS,
        conclusion=_STRING),
    "Experiments": _object(["experiments", "rules"], rules=_RULES, experiments={
        "type": "array", "items": {"$ref": "#/components/schemas/Experiment"}}),
    "ExperimentResults": _object(
        ["id", "status", "state", "conclusion", "caveats", "variants", "shadows", "split",
         "guardrails", "cost", "changes"],
        id=_STRING, status=_STRING, conclusion=_STRING, caveats={"type": "array", "items": _STRING},
        state={"enum": ["not begun", "wrong split", "not enough data", "shown", "not shown"]},
        begun=_OR_NULL, ended=_OR_NULL, winner={"type": ["string", "null"]}, primary=_STRING,
        unit=_STRING, share=_NUMBER, mode=_STRING, alpha=_NUMBER, min_units=_WHOLE,
        estimator=_STRING, seeded_at_event=_WHOLE, mixed_units=_WHOLE, uncounted_decisions=_WHOLE,
        variants={"type": "array", "items": _VARIANT},
        shadows={"type": "array", "items": _SHADOW},
        split=_object(["state", "sequential_p", "chi_square_p"],
                      state={"enum": ["as configured", "wrong", "not enough data"]},
                      sequential_p=_OR_NULL, chi_square_p=_OR_NULL),
        guardrails={"type": "array", "items": _GUARDRAIL},
        ramp=_object(["step", "steps"], step={"type": ["integer", "null"]}, steps=_WHOLE),
        cost=_object(["kind", "against", "saved"], kind={"enum": ["measured", "estimate"]},
                     against=_STRING,
                     saved={"type": "object", "additionalProperties": _SAVED}),
        changes={"type": "array", "items": _object(
            ["ts", "status", "by", "why"], ts=_NUMBER, status=_STRING, by=_STRING, why=_STRING)}),
    "WhatIf": _object(
        ["metric", "learning", "alpha", "clip", "log", "policies"], metric=_STRING,
        learning=_STRING, alpha=_NUMBER, clip=_NUMBER, log={"type": "object"}, policies={
            "type": "array", "items": _object(
                ["policy", "parameters", "state", "why", "overlap"], policy=_STRING,
                parameters={"type": "object"}, why={"type": ["string", "null"]},
                state={"enum": ["shown", "refused", "not enough data"]},
                overlap={"type": "object"})}),
    "Drift": _object(
        ["watched", "forgets", "watches_arms", "arms", "queries", "allowances", "alarms"],
        watched={"type": "boolean"}, forgets={"type": "boolean"},
        watches_arms={"type": "boolean"},
        arms={"type": "object", "additionalProperties": _object(
            ["outcomes", "residual"], outcomes=_WHOLE, residual={"type": ["number", "null"]})},
        queries=_object(["seen", "distance"], seen=_WHOLE,
                        distance={"type": ["number", "null"]}),
        allowances={"type": "array", "items": _object(
            ["arm", "floor", "decisions_left"], arm={"type": ["string", "null"]}, floor=_NUMBER,
            decisions_left=_WHOLE)},
        alarms={"type": "array", "items": _object(
            ["ts", "arm", "detector", "direction", "before", "after", "seen", "begun", "keep",
             "explore", "decisions"], ts=_NUMBER, arm={"type": ["string", "null"]},
            detector=_STRING, direction={"enum": ["up", "down"]}, before=_NUMBER, after=_NUMBER,
            seen=_WHOLE, begun=_WHOLE, keep=_NUMBER, explore=_NUMBER, decisions=_WHOLE)}),
    "Erased": _object(["erased"], erased=_WHOLE),
    "Snapshot": _object(["offset", "bytes"], offset=_WHOLE, bytes=_WHOLE),
    "PolicyState": _object(
        ["name", "key", "bytes", "sha256", "events", "rewards", "comparisons", "failures"],
        name=_STRING, key=_STRING, bytes=_WHOLE, sha256=_STRING, events=_WHOLE, rewards=_WHOLE,
        comparisons=_WHOLE, failures=_WHOLE,
    ),
    "Status": _object(
        ["status"], status=_STRING, why=_STRING, events=_WHOLE, arms=_WHOLE, first=_WHOLE,
        last=_WHOLE,
    ),
    "Index": _object(
        ["service", "version", "see"], service=_STRING, version=_STRING, see={"type": "array"}
    ),
}  # fmt: skip

_GET, _PUT, _POST, _DELETE, _PATCH = "get", "put", "post", "delete", "patch"
_PATHS: list[tuple[str, str, str, str | None, dict[int, str], list[int]]] = [
    # path, method, summary, request schema, answers by status, errors
    ("/", _GET, "Where to look", None, {200: "Index"}, []),
    ("/healthz", _GET, "Alive", None, {200: "Status"}, []),
    ("/readyz", _GET, "Recovered and taking traffic", None, {200: "Status"}, [503]),
    ("/v1/decide", _POST, "Which arm should answer this query", "DecideRequest",
     {200: "Decision"}, [400, 404, 408, 413, 422, 429, 503, 504]),
    ("/v1/explain", _POST, "What would be decided and why, of a query or of a decision's again; "
     "nothing is drawn or written", "ExplainRequest",
     {200: "Explanation"}, [400, 404, 408, 410, 413, 422, 429, 503]),
    ("/v1/rewards", _POST, "What an answer was worth: one, or a list", "RewardRequest",
     {200: "Results"}, [400, 404, 408, 409, 410, 413, 429, 503]),
    ("/v1/comparisons", _POST, "Which of two arms did better: one, or a list", "CompareRequest",
     {200: "Results"}, [400, 404, 408, 409, 410, 413, 429, 503]),
    ("/v1/chat/completions", _POST, "OpenAI's chat completions, routed: model auto, or an arm",
     "Chat", {200: "Anything"}, [400, 404, 408, 413, 422, 502, 503, 504]),
    ("/v1/completions", _POST, "OpenAI's completions, routed", "Completion",
     {200: "Anything"}, [400, 404, 408, 413, 422, 502, 503, 504]),
    ("/v1/embeddings", _POST, "OpenAI's embeddings, passed through to the arm that is named",
     "Embeddings", {200: "Anything"}, [400, 404, 408, 413, 502, 503, 504]),
    ("/v1/budgets", _GET, "Every budget with what was spent of it", None, {200: "Budgets"}, [503]),
    ("/v1/duels/{id}", _GET, "Both answers of a duel, for a user who is to compare them",
     None, {200: "Duel"}, [404, 503]),
    ("/v1/models", _GET, "auto, and every arm that can be called", None, {200: "Models"}, [503]),
    ("/v1/models/{id}", _GET, "One of them", None, {200: "Model"}, [404, 503]),
    ("/v1/decisions/{id}", _GET, "Why this arm, and what came back", None,
     {200: "Decision"}, [404, 410, 503]),
    ("/v1/live/map", _GET, "The newest queries by their two principal directions", None,
     {200: "Map"}, [503]),
    ("/v1/experiments", _GET, "Every experiment, and the rules over all", None,
     {200: "Experiments"}, [503]),
    ("/v1/experiments/{id}", _GET, "One experiment", None, {200: "Experiment"}, [404, 503]),
    ("/v1/experiments/{id}", _PUT, "Make a draft, or change an experiment", "ExperimentSpec",
     {200: "Experiment", 201: "Experiment"}, [400, 404, 408, 409, 413, 503]),
    ("/v1/experiments/{id}", _PATCH, "Ramp, weigh anew, or release a held variant",
     "ExperimentPatch", {200: "Experiment"}, [400, 404, 408, 409, 413, 503]),
    ("/v1/experiments/{id}", _DELETE, "Delete a draft, or what is finished", None,
     {200: "Experiment"}, [400, 404, 409, 503]),
    ("/v1/experiments/{id}/results", _GET, "What may be concluded now", None,
     {200: "ExperimentResults"}, [404, 503]),
    ("/v1/experiments/{id}/whatif", _POST, "What other policies would have earned, or why none "
     "can say; one at a time", "WhatIfRequest", {200: "WhatIf"},
     [400, 404, 408, 413, 429, 503, 504]),
    ("/v1/experiments/{id}/start", _POST, "Start, or go on; 202 while policies are folded",
     "ExperimentMove", {200: "Experiment", 202: "Experiment"}, [400, 404, 408, 409, 413, 503]),
    ("/v1/experiments/{id}/pause", _POST, "Assign no unit for now", "ExperimentMove",
     {200: "Experiment"}, [400, 404, 408, 409, 413, 503]),
    ("/v1/experiments/{id}/stop", _POST, "End it, with a winner", "ExperimentStop",
     {200: "Experiment"}, [400, 404, 408, 409, 413, 503]),
    ("/v1/experiment-rules", _GET, "The kill switch and the hold-out", None, {200: "Rules"}, [503]),
    ("/v1/experiment-rules", _PUT, "Set the kill switch and the hold-out", "Rules",
     {200: "Rules"}, [400, 404, 408, 413, 503]),
    ("/v1/drift", _GET, "What is watched for drift, and the newest alarms", None,
     {200: "Drift"}, [503]),
    ("/v1/arms", _GET, "The catalogue", None, {200: "Arms"}, [503]),
    ("/v1/arms/{id}", _PUT, "Add or replace an arm", "ArmSpec",
     {200: "Arm", 201: "Arm"}, [400, 408, 413, 503]),
    ("/v1/arms/{id}", _DELETE, "Offer an arm no more", None, {200: "Arm"}, [404, 503]),
    ("/v1/policies", _GET, "All policies, and the one that decides", None,
     {200: "Policies"}, [503]),
    ("/v1/policy", _PUT, "Fold the past for another policy, which serves when that is done",
     "PolicyRequest", {202: "Policies"}, [400, 408, 409, 413, 503]),
    ("/v1/units/{unit}", _DELETE, "Erase all that is kept of a unit", None,
     {200: "Erased"}, [400, 503]),
    ("/v1/snapshots", _POST, "Make a snapshot now", None, {200: "Snapshot"}, [503]),
    ("/v1/policies/{name}/state", _GET, "Size and hash of the state", None,
     {200: "PolicyState"}, [404, 503]),
]  # fmt: skip


def _or_null(schema: dict[str, Any]) -> None:
    """What may be left out may be null."""
    for name, each in schema["properties"].items():
        if name not in schema.get("required", ()) and isinstance(each.get("type"), str):
            each["type"] = [each["type"], "null"]


@cache
def document(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of this service."""
    kinds = (
        wire.DecideRequest,
        wire.ExplainRequest,
        wire.RewardRequest,
        wire.CompareRequest,
        wire.PolicyRequest,
        wire.ExperimentPatch,
        wire.ExperimentMove,
        wire.ExperimentStop,
        wire.WhatIfRequest,
        Experiment,
        Rules,
        ArmSpec,
    )
    _, requests = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    for kind in {*kinds} - {Experiment, Rules}:
        _or_null(requests[kind.__name__])
    for name, (low, high) in RANGES.items():
        requests["RewardRequest"]["properties"][name] |= {"minimum": low, "maximum": high}
    # what answers hold under the same name is something else
    requests["ExperimentSpec"] = requests.pop("Experiment")
    requests["ExperimentSpec"]["properties"]["why"] = _STRING
    requests["Rules"]["properties"]["why"] = _STRING
    requests["ExperimentSpec"]["required"] = ["variants"]
    # The id of an arm is in the path.
    requests["ArmSpec"]["required"] = [f for f in requests["ArmSpec"]["required"] if f != "id"]
    paths: dict[str, Any] = {
        "/metrics": {
            "get": {
                "operationId": "get_metrics",
                "summary": "Prometheus metrics",
                "responses": {"200": {"description": "text format", "content": {"text/plain": {}}}},
            }
        },
        "/openapi.json": {
            "get": {
                "operationId": "get_openapi",
                "summary": "This document",
                "responses": {
                    "200": {"description": "OpenAPI 3.1", "content": {"application/json": {}}}
                },
            }
        },
        "/v1/events": {"get": _events()},
        "/v1/live": {"get": _live()},
        "/v1/stream": {
            "get": {
                "operationId": "get_v1_stream",
                "summary": "WebSocket, subprotocol bandit.v1, MessagePack maps; see docs/api.md",
                "responses": {
                    "101": {"description": "switching protocols"},
                    "400": {"$ref": "#/components/responses/Error"},
                },
            }
        },
    }
    for path, method, summary, request, answers, errors in _PATHS:
        paths.setdefault(path, {})[method] = _operation(
            path, method, summary, request, answers, errors
        )
    paths["/"][_GET]["responses"]["200"]["content"]["text/html"] = {}  # to a browser
    return {
        "openapi": "3.1.0",
        "info": {"title": "bandit-service", "version": version, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key of `bandit-service keys new`, where keys are configured.",
                }
            },
            "schemas": {**requests, **_ANSWERS},
            "responses": {
                "Error": {
                    "description": "What was wrong and what is allowed; codes: "
                    + ", ".join(codes()),
                    "headers": {"Retry-After": {"schema": {"type": "integer"}}},
                    "content": _json("Error"),
                }
            },
        },
    }


def _live() -> dict[str, Any]:
    operation = _operation("/v1/live", _GET, "What the page shows, second by second", None, {},
                           [503])  # fmt: skip
    operation["responses"]["200"] = {
        "description": "server-sent events of JSON, `begin` and then a `tick` every second, for "
        "ten minutes; see docs/web-page.md",
        "content": {"text/event-stream": {}},
    }
    return operation


def _events() -> dict[str, Any]:
    operation = _operation(
        "/v1/events", _GET, "The stored events in order", None, {}, [400, 410, 503]
    )
    operation["parameters"] = [
        {"name": name, "in": "query", "required": False, "schema": _WHOLE | {"minimum": low}}
        for name, low in (("after", 0), ("limit", 1))
    ]
    operation["responses"]["200"] = {
        "description": "frames: the length in 4 bytes, big-endian, and MessagePack of "
        "[offset, event], nil in the place of an erased event; see docs/api.md",
        "headers": {
            name: {"schema": _WHOLE} for name in ("x-log-first", "x-log-last", "x-last-offset")
        },
        "content": {"application/octet-stream": {}},
    }
    return operation


def codes() -> list[str]:
    """Every error code that an answer may carry."""
    found, kinds = set(), [ServiceError]
    while kinds:
        kind = kinds.pop()
        found.add(kind.code)
        kinds += kind.__subclasses__()
    return sorted(found)


def _operation(
    path: str,
    method: str,
    summary: str,
    request: str | None,
    answers: dict[int, str],
    errors: list[int],
) -> dict[str, Any]:
    plain = path.strip("/").replace("/", "_").replace("{", "").replace("}", "")
    operation: dict[str, Any] = {
        "operationId": f"{method}_{plain or 'index'}",
        "summary": summary,
        "responses": {
            str(status): {"description": "done", "content": _json(name)}
            for status, name in answers.items()
        }
        | {str(status): {"$ref": "#/components/responses/Error"} for status in errors},
    }
    if ROUTES.get((method.upper(), path), "admin"):
        operation["security"] = [{}, {"key": []}]
        for status in (401, 403, 429):
            operation["responses"][str(status)] = {"$ref": "#/components/responses/Error"}
    parameters = [each for each in (_ID, _NAME, _UNIT) if f"{{{each['name']}}}" in path]
    if _UNIT in parameters:
        parameters.append(_TENANT)
    if path == "/v1/decide":
        parameters.append(_TIMEOUT)
    if parameters:
        operation["parameters"] = parameters
    if request is not None:
        schema: dict[str, Any] = {"$ref": f"#/components/schemas/{request}"}
        if answers == {200: "Results"}:
            # each item has a result of its own, so a wrong one is no reason to refuse the list
            items = {"anyOf": [schema, {"description": "answered with an error in its result"}]}
            schema = {"oneOf": [schema, {"type": "array", "items": items, "minItems": 1}]}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return operation


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
