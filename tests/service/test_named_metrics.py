"""Named metrics over HTTP, the stream and tokens, and through changes of the configuration."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.service.running import Client, opened

METRICS: list[dict[str, Any]] = [
    {"name": "resolved", "kind": "boolean", "weight": 3.0},
    {"name": "stars", "low": 1, "high": 5, "feedback": True},
    {"name": "csat", "scope": "session"},
]


def _env(*metrics: dict[str, Any]) -> dict[str, str]:
    return {"BANDIT_METRICS": json.dumps(metrics)}


async def _record(client: Client, id: str) -> dict[str, Any]:
    status, body = await client.get(f"/v1/decisions/{id}")
    assert status == 200, body
    found: dict[str, Any] = body
    return found


async def test_metrics_of_a_reward_are_the_quality(tmp_path: Path, models: Path) -> None:
    async with opened(tmp_path / "data", models, **_env(*METRICS)) as (client, _):
        id = (await client.decide())["decision_id"]
        assert await client.reward(id, metrics={"resolved": True}) == "accepted"
        assert await client.reward(id, metrics={"resolved": True}) == "duplicate"
        assert await client.reward(id, metrics={"stars": 3}) == "accepted"
        body = await _record(client, id)
        assert body["signals"] == {"quality": 0.875, "resolved": 1.0, "stars": 3.0}
        assert body["weighed"] is True
        assert body["metrics"] == [
            {"name": "resolved", "value": 1.0, "goodness": 1.0, "weight": 3.0},
            {"name": "stars", "value": 3.0, "goodness": 0.5, "weight": 1.0},
        ]
        async with client.session.get(f"{client.url}/metrics") as answer:
            text = await answer.text()
        arm = body["arm"]
        assert f'bandit_metric_mean{{arm="{arm}",metric="stars"}} 3.0' in text
        assert f'bandit_metric_values{{arm="{arm}",metric="resolved"}} 1.0' in text


@pytest.mark.parametrize(
    ("metrics", "why"),
    [
        ({"resolvd": True}, "metrics.resolvd: no such metric; did you mean resolved?"),
        ({"resolved": 0.5}, "metrics.resolved: must be true or false, got 0.5"),
        ({"stars": 6}, "metrics.stars: must be a number from 1 to 5, got 6"),
        ({"csat": 1}, "metrics.csat: is of a session; send session and not that of a decision"),
    ],
)
async def test_what_is_wrong_with_a_metric_is_told_and_nothing_changes(
    tmp_path: Path, models: Path, metrics: dict[str, Any], why: str
) -> None:
    async with opened(tmp_path / "data", models, **_env(*METRICS)) as (client, world):
        id = (await client.decide())["decision_id"]
        before = world.digest()
        status, body = await client.post(
            "/v1/rewards", {"decision_id": id, "quality": 0.5, "metrics": metrics}
        )
        assert (status, body["error"]["param"]) == (400, "metrics")
        assert body["error"]["message"].startswith(why)
        assert world.digest() == before


async def test_a_token_reports_the_metrics_that_users_may(tmp_path: Path, models: Path) -> None:
    async with opened(tmp_path / "data", models, **_env(*METRICS)) as (client, _):
        decided = await client.decide()
        path = f"/v1/feedback/{decided['feedback_token']}"
        for stars, quality in ((5, 1.0), (2, 0.25), (2, 0.25)):
            status, body = await client.post(path, {"metrics": {"stars": stars}})
            assert (status, body["vote"]) == (200, "neutral")
            record = await _record(client, decided["decision_id"])
            assert record["signals"] == {"stars": stars, "quality": quality}
        for body, why in (
            ({"metrics": {"resolved": True}}, "metrics.resolved: may not be reported"),
            ({}, "vote: send it or metrics, and not both"),
            ({"vote": "up", "metrics": {"stars": 1}}, "vote: send it or metrics, and not both"),
        ):
            status, answer = await client.post(path, body)
            assert status == 400
            assert answer["error"]["message"].startswith(why)


async def _calm(world: Any) -> None:
    while world.named.stale:
        await asyncio.sleep(0.01)


async def test_other_weights_teach_what_was_reported_anew_and_back(
    tmp_path: Path, models: Path
) -> None:
    other = [METRICS[0] | {"weight": 1.0}, METRICS[1] | {"weight": 4.0}]
    ids = []
    async with opened(tmp_path / "data", models, **_env(*METRICS)) as (client, world):
        for i in range(5):
            ids.append((await client.decide())["decision_id"])
            await client.reward(ids[-1], metrics={"resolved": True, "stars": 1 + i % 3})
        await _calm(world)
        taught = [(await _record(client, id))["signals"]["quality"] for id in ids]
        learned = world.learners[world.serving].kept().state
    async with opened(tmp_path / "data", models, **_env(*other)) as (client, world):
        await _calm(world)
        now = [(await _record(client, id))["signals"]["quality"] for id in ids]
        assert now == [(1.0 + 4.0 * (i % 3) / 4) / 5 for i in range(5)]
        assert world.learners[world.serving].kept().state != learned
    async with opened(tmp_path / "data", models, **_env(*METRICS)) as (client, world):
        await _calm(world)
        assert [(await _record(client, id))["signals"]["quality"] for id in ids] == taught
        assert world.learners[world.serving].kept().state == learned
        events = world.events
    async with opened(tmp_path / "data", models, **_env(*METRICS)) as (_, world):
        await _calm(world)
        assert world.events == events
        assert world.learners[world.serving].kept().state == learned
