"""TensorZero's feedback, as named metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.service.keyring import Keyring
from tests.service.running import Client, opened, serving

METRICS = json.dumps(
    [
        {"name": "resolved", "kind": "boolean"},
        {"name": "stars", "low": 1, "high": 5},
        {"name": "csat", "low": 0, "high": 10, "scope": "session"},
    ]
)


async def _signals(client: Client, id: str) -> dict[str, float]:
    _, body = await client.get(f"/v1/decisions/{id}")
    found: dict[str, float] = body["signals"]
    return found


async def test_metrics_of_inferences_and_episodes(tmp_path: Path, models: Path) -> None:
    async with opened(tmp_path / "data", models, BANDIT_METRICS=METRICS) as (client, world):
        id = (await client.decide(session="episode"))["decision_id"]
        for body, signals in (
            ({"metric_name": "resolved", "value": True, "inference_id": id},
             {"resolved": 1.0, "quality": 1.0}),
            ({"metric_name": "resolved", "value": False, "inference_id": id, "tags": {"by": "a"}},
             {"resolved": 0.0, "quality": 0.0}),
            ({"metric_name": "stars", "value": 5, "inference_id": id, "episode_id": None},
             {"resolved": 0.0, "stars": 5.0, "quality": 0.5}),
            ({"metric_name": "csat", "value": 2.0, "episode_id": "episode"},
             {"resolved": 0.0, "stars": 5.0, "csat": 2.0, "quality": 0.4}),
        ):  # fmt: skip
            status, answer = await client.post("/feedback", body)
            assert status == 200, answer
            assert len(answer["feedback_id"]) == 36
            assert await _signals(client, id) == pytest.approx(signals)
            before = world.digest()
            status, _ = await client.post("/feedback", body)
            assert (status, world.digest()) == (200, before)


@pytest.mark.parametrize(
    ("body", "status", "param", "why"),
    [
        ({"metric_name": "resolvd", "value": True}, 400, "metric_name",
         "no metric 'resolvd' is named; did you mean resolved?; "
          "expected one of resolved, stars, csat"),
        ({"metric_name": "resolved", "value": 1}, 400, "value", "must be true or false"),
        ({"metric_name": "stars", "value": True}, 400, "value", "must be a number from 1 to 5"),
        ({"metric_name": "stars", "value": 9}, 400, "value", "must be a number from 1 to 5"),
        ({"metric_name": "stars", "value": "5"}, 400, "value", "must be a number from 1 to 5"),
        ({"metric_name": "csat", "value": 5}, 400, "metric_name", "'csat' is of a session; send"),
        ({"metric_name": "stars", "value": 5, "episode_id": "e"}, 400, "inference_id",
         "send it or episode_id, and not both"),
        ({"metric_name": "comment", "value": "so so"}, 501, "metric_name", "a comment is a text"),
        ({"metric_name": "demonstration", "value": ["x"]}, 501, "metric_name", "a demonstration"),
        ({"metric_name": "stars"}, 400, "value", "is required"),
        ({"metric_name": "stars", "value": 2, "tag": {}}, 400, "tag", "did you mean tags?"),
        ({"metric_name": "stars", "value": 2, "inference_id": "never"}, 404, "decision_id", "no"),
        ({"metric_name": "stars", "value": 2, "inference_id": "never", "dryrun": True}, 404,
         "decision_id", "no decision"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told_and_nothing_changes(
    tmp_path: Path, models: Path, body: dict[str, Any], status: int, param: str, why: str
) -> None:
    async with opened(tmp_path / "data", models, BANDIT_METRICS=METRICS) as (client, world):
        id = (await client.decide(session="e"))["decision_id"]
        before = world.digest()
        got, answer = await client.post("/feedback", {"inference_id": id} | body)
        assert (got, answer["error"]["param"]) == (status, param), answer
        assert why in answer["error"]["message"]
        assert world.digest() == before


async def test_a_dry_run_changes_nothing(tmp_path: Path, models: Path) -> None:
    async with opened(tmp_path / "data", models, BANDIT_METRICS=METRICS) as (client, world):
        id = (await client.decide(session="e"))["decision_id"]
        before = world.digest()
        for body in ({"metric_name": "stars", "value": 2, "inference_id": id},
                     {"metric_name": "csat", "value": 2, "episode_id": "e"}):  # fmt: skip
            status, _ = await client.post("/feedback", body | {"dryrun": True})
            assert (status, world.digest()) == (200, before)
        status, answer = await client.post(
            "/feedback", {"metric_name": "csat", "value": 2, "episode_id": "f", "dryrun": True}
        )
        assert (status, answer["error"]["param"]) == (404, "episode_id")


async def test_where_no_metric_is_named_it_is_said_how(client: Client) -> None:
    id = (await client.decide())["decision_id"]
    status, answer = await client.post(
        "/feedback", {"metric_name": "stars", "value": 2, "inference_id": id}
    )
    assert status == 400
    assert "none is; name it in [[metrics]]" in answer["error"]["message"]


async def test_it_needs_the_scope_of_rewards(tmp_path: Path, models: Path) -> None:
    keys = Keyring(app={"scopes": ["decide"]}, acme={"tenant": "acme"}, other={"tenant": "other"})
    async with serving(tmp_path / "data", models, BANDIT_METRICS=METRICS, **keys.environ) as any_of:
        id = (await any_of.by(keys["acme"]).decide(session="e"))["decision_id"]
        said = {"metric_name": "stars", "value": 2, "inference_id": id}
        for key, status in (("app", 403), ("other", 404), ("acme", 200)):
            got, _ = await any_of.by(keys[key]).post("/feedback", said)
            assert got == status
        session = {"metric_name": "csat", "value": 2, "episode_id": "e"}
        for key, status in (("other", 404), ("acme", 200)):
            got, _ = await any_of.by(keys[key]).post("/feedback", session)
            assert got == status
