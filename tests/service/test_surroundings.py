"""Metrics, logs, the OpenAPI document: what the service shows of itself is the truth."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from bandit_service.http.openapi import codes, document
from bandit_service.http.routes import ROUTES
from tests.service.running import Client, Process, a_vector, serving

CANARY = "canary-text-that-must-not-be-seen"


async def _metrics(client: Client) -> str:
    async with client.session.get(client.url + "/metrics") as response:
        assert response.status == 200
        return await response.text()


def _value(metrics: str, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", metrics, re.MULTILINE)
    assert found is not None, f"{series} is not in\n{metrics}"
    return float(found.group(1))


async def test_metrics_count_what_happened(client: Client) -> None:
    first = await client.decide(query="one", arms=["mistral-large-2512"])
    await client.decide(query="one", arms=["mistral-large-2512"])
    await client.reward(first["decision_id"], quality=1.0)
    await client.reward(first["decision_id"], quality=1.0)
    await client.post("/v1/rewards", {"decision_id": first["decision_id"], "quality": 0.1})
    metrics = await _metrics(client)
    arm = 'arm="mistral-large-2512"'
    assert _value(metrics, f"bandit_arm_decisions_total{{{arm}}}") == 2
    assert _value(metrics, 'bandit_decisions_total{mode="fixed",policy="nested"}') == 2
    assert _value(metrics, 'bandit_requests_rejected_total{reason="conflict"}') == 1
    for outcome in ("accepted", "duplicate", "conflict"):
        series = f'bandit_rewards_total{{outcome="{outcome}",policy="nested"}}'
        assert _value(metrics, series) == 1
    assert _value(metrics, "bandit_pending_decisions") == 2
    assert _value(metrics, "bandit_history_queries") == 1
    for stage in ("embed", "recall", "propose", "draw", "record", "total"):
        series = f'bandit_decision_stage_seconds_count{{stage="{stage}"}}'
        assert _value(metrics, series) == 2
    assert _value(metrics, 'bandit_embedding_cache_total{result="hit"}') == 1
    series = 'bandit_http_requests_total{code="409",endpoint="/v1/rewards"}'
    assert _value(metrics, series) == 1


async def test_series_stay_bounded_by_configuration(client: Client) -> None:
    for i in range(30):
        await client.decide(embedding=a_vector(i), unit=f"user-{i}", tenant=f"tenant-{i}")
        await client.get(f"/v1/decisions/unknown-{i}")
        await client.get(f"/nothing/{i}")
    metrics = await _metrics(client)
    series = [line for line in metrics.splitlines() if line and not line.startswith("#")]
    assert len(series) < 400
    assert "user-" not in metrics
    assert "tenant-" not in metrics
    assert "unknown-" not in metrics


async def test_no_text_of_a_prompt_is_logged_and_every_line_is_json(
    tmp_path: Path, models: Path
) -> None:
    process = Process(tmp_path / "var", models, BANDIT_LOG_LEVEL="debug")
    async with aiohttp.ClientSession() as session:
        client = Client(session, await process.url())
        await client.decide(query=CANARY)
        await client.post("/v1/decide", {"query": CANARY, "wrong": CANARY})
        await client.post("/v1/decide", {"messages": [{"role": CANARY, "content": CANARY}]})
        await client.post("/v1/rewards", {"query": CANARY, "arm": CANARY, "quality": 1})
        await client.post("/v1/comparisons", {"query": CANARY, "winner": "x", "loser": "y"})
        await client.get(f"/v1/{CANARY}")
        assert CANARY not in await _metrics(client)
    assert await asyncio.to_thread(process.stop) == 0
    lines = process.log_path.read_text().splitlines()
    assert not any(CANARY in line for line in lines)
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    requests = [entry for entry in entries if entry["message"] == "request"]
    assert len(requests) >= 7
    assert all(entry["request_id"] for entry in requests)
    # nothing of what was decided on lies in the log file either, but for its embedding
    stored = b"".join(path.read_bytes() for path in (tmp_path / "var").glob("events.sqlite3*"))
    assert CANARY.encode() not in stored


async def test_health_and_readiness(client: Client) -> None:
    assert (await client.get("/healthz"))[1] == {"status": "ok"}
    status, body = await client.get("/readyz")
    assert (status, body["status"], body["arms"]) == (200, "ready", 3)


def _schema(name: str, whole: dict[str, Any]) -> Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": whole["components"]}
    return Draft202012Validator(schema)


async def test_the_openapi_document_is_valid_and_true(client: Client) -> None:
    status, whole = await client.get("/openapi.json")
    assert status == 200
    validate(whole)
    served = {(row.method.lower(), row.path) for row in ROUTES if not row.unlisted}
    described = {(method, path) for path, methods in whole["paths"].items() for method in methods}
    assert described == served
    decided = await client.decide(query="hello", explain=True)
    assert await client.reward(decided["decision_id"], quality=1.0, latency_s=0.5) == "accepted"
    answers: dict[str, tuple[str, str, Any]] = {
        "Index": ("GET", "/", None),
        "Status": ("GET", "/readyz", None),
        "Decision": ("GET", f"/v1/decisions/{decided['decision_id']}", None),
        "Results": ("POST", "/v1/rewards", [{"decision_id": "x", "quality": 1}]),
        "Arms": ("GET", "/v1/arms", None),
        "Arm": ("PUT", "/v1/arms/n", {"usd_per_mtok_in": 1, "usd_per_mtok_out": 1}),
        "Policies": ("GET", "/v1/policies", None),
        "PolicyState": ("GET", "/v1/policies/nested/state", None),
        "Error": ("POST", "/v1/decide", {}),
    }
    assert set(answers) <= set(whole["components"]["schemas"])
    for name, (method, path, body) in answers.items():
        _, answer = await client.call(method, path, body)
        _schema(name, whole).validate(answer)
    _schema("Decision", whole).validate(decided)
    _schema("DecideRequest", whole).validate({"query": "a", "requires": ["vision"]})
    assert not _schema("DecideRequest", whole).is_valid({"qurey": "a"})
    assert not _schema("RewardRequest", whole).is_valid({"quality": "good"})


def test_every_error_code_is_in_the_documents() -> None:
    text = document("x")["components"]["responses"]["Error"]["description"]
    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
    for code in codes():
        assert code in text
        assert f"`{code}`" in page, f"docs/errors.md does not explain {code}"


async def test_every_metric_has_a_row_in_the_docs(client: Client) -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    names = set(re.findall(r"^# TYPE (bandit_\w+)", await _metrics(client), re.MULTILINE))
    names = {name for name in names if not name.endswith("_created")}
    assert len(names) >= 15
    documented = set(re.findall(r"^\| `(bandit_\w+)`", page, re.MULTILINE))
    assert documented == names


async def test_a_restart_with_other_arms_makes_the_catalogue_agree(
    tmp_path: Path, models: Path
) -> None:
    def arms(**prices: float) -> dict[str, str]:
        pool = [
            {"id": id, "usd_per_mtok_in": price, "usd_per_mtok_out": price}
            for id, price in prices.items()
        ]
        return {"BANDIT_ARMS": json.dumps(pool)}

    data = tmp_path / "var"
    async with serving(data, models, **arms(a=1.0, b=2.0)) as client:
        body = {"usd_per_mtok_in": 9.0, "usd_per_mtok_out": 9.0}
        assert (await client.call("PUT", "/v1/arms/b", body))[0] == 200
        assert (await client.call("PUT", "/v1/arms/mine", body))[0] == 201
    async with serving(data, models, **arms(a=1.0, b=2.0)) as client:
        found = {arm["id"]: arm for arm in (await client.get("/v1/arms"))[1]["arms"]}
        assert found["b"]["usd_per_mtok_in"] == 9.0  # what the API said since stays
    async with serving(data, models, **arms(b=3.0, c=4.0)) as client:
        found = {arm["id"]: arm for arm in (await client.get("/v1/arms"))[1]["arms"]}
        assert found["a"]["retired"]  # no longer configured
        assert found["b"]["usd_per_mtok_in"] == 3.0  # its own entry changed
        assert not found["c"]["retired"]
        assert not found["mine"]["retired"]  # came from the API, so the file has no say
