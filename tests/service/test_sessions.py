"""Rewards of a session over HTTP, the stream and the gateway, and through a restart."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from bandit_service.runtime import session_rewards
from tests.service.keyring import Keyring
from tests.service.provider import HELLO, a_gateway
from tests.service.running import Client, a_vector, opened, serving

METRICS = json.dumps([{"name": "csat", "low": 1, "high": 5, "scope": "session"}])


async def _talk(client: Client, n: int = 3, **fields: Any) -> list[str]:
    fields = {"session": "s1"} | fields
    made = [await client.decide(embedding=a_vector(i), **fields) for i in range(n)]
    return [one["decision_id"] for one in made]


async def _qualities(client: Client, ids: list[str]) -> list[float | None]:
    found = [(await client.get(f"/v1/decisions/{id}"))[1]["signals"] for id in ids]
    return [each.get("quality") for each in found]


async def _reward(client: Client, **fields: Any) -> tuple[int, Any]:
    status, body = await client.post("/v1/rewards", fields)
    return status, body["results"][0] if status == 200 else body["error"]


async def test_a_session_is_rewarded_once_corrected_and_kept_through_a_restart(
    tmp_path: Path, models: Path
) -> None:
    async with serving(tmp_path / "data", models, BANDIT_METRICS=METRICS) as client:
        ids = await _talk(client)
        other = await _talk(client, 1, session="s2")
        done = {"decision_id": None, "credited": 3}
        said = {"session": "s1", "metrics": {"csat": 4}}
        assert await _reward(client, **said) == (200, done | {"status": "accepted"})
        assert await _reward(client, **said) == (200, done | {"status": "duplicate"})
        assert await _qualities(client, ids + other) == [0.75, 0.75, 0.75, None]
        status, error = await _reward(client, session="s1", metrics={"csat": 2})
        assert (status, error["code"]) == (409, "conflict")
        async with client.session.get(f"{client.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        values = [float(one.split()[-1]) for one in lines if "bandit_metric_values{" in one]
        assert sum(values) == 1.0
    async with opened(tmp_path / "data", models, BANDIT_METRICS=METRICS) as (client, world):
        before = world.digest()
        assert await _reward(client, **said) == (200, done | {"status": "duplicate"})
        assert world.digest() == before
        again = said | {"metrics": {"csat": 2}, "correction": True}
        assert await _reward(client, **again) == (200, done | {"status": "accepted"})
        assert await _qualities(client, ids) == [0.25] * 3


async def test_what_a_crash_left_is_finished_by_the_next_start(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path / "data", models) as client:
        ids = await _talk(client)
        whole = session_rewards.Crediting._one
        left = [ids[0]]

        async def one(self: session_rewards.Crediting, group: str, id: str) -> None:
            if id in left:
                await whole(self, group, id)
            else:
                raise OSError("gone")

        monkeypatch.setattr(session_rewards.Crediting, "_one", one)
        status, _ = await _reward(client, session="s1", quality=1.0)
        assert status == 500
        monkeypatch.undo()
        assert await _qualities(client, ids) == [1.0, None, None]
    async with opened(tmp_path / "data", models) as (client, world):
        while world.sessions.unfinished():
            await asyncio.sleep(0.01)
        assert await _qualities(client, ids) == [1.0] * 3
        before = world.digest()
        status, result = await _reward(client, session="s1", quality=1.0)
        assert (status, result["status"]) == (200, "duplicate")
        assert world.digest() == before


@pytest.mark.parametrize(
    ("fields", "param", "why"),
    [
        ({"session": "s1", "cost_usd": 1.0}, "cost_usd", "cost_usd: is of one answer"),
        ({"session": "s1", "reward": 1.0}, "reward", "reward: is of one answer"),
        ({"session": "s1", "conversation": "c", "quality": 1.0}, "session", "session: send one of"),
        ({"session": "s1", "arm": "a", "quality": 1.0}, "arm", "arm: belongs to a self-contained"),
        ({"session": "s1"}, None, "nothing to learn"),
        ({"session": "s1", "quality": "1"}, "quality", "quality: must be a number or null, got a"),
        ({"session": "s1", "metrics": {"csat": 1, "x": "5"}}, "metrics", "metrics.x: must be true"),
        ({"session": "s1", "quality": 2.0}, "quality", "quality: must be a number from 0 to 1"),
        ({"session": "s1", "metrics": {"csta": 1}}, "metrics", "metrics.csta: no such metric; did"),
        ({"session": "s1" * 200, "quality": 1.0}, "session", "session: at most 256 characters"),
    ],
)
async def test_what_is_wrong_is_told_and_nothing_changes(
    tmp_path: Path, models: Path, fields: dict[str, Any], param: str | None, why: str
) -> None:
    async with opened(tmp_path / "data", models, BANDIT_METRICS=METRICS) as (client, world):
        await _talk(client)
        before = world.digest()
        status, error = await _reward(client, **fields)
        assert (status, error["param"]) == (400, param)
        assert error["message"].startswith(why)
        assert world.digest() == before


async def test_a_vote_and_a_session_stand_beside_each_other(client: Client) -> None:
    """In either order, and at once: what is said of a decision stands, and nothing is lost."""
    made = [
        await client.decide(embedding=a_vector(i), session="both", willingness_to_pay=1.0)
        for i in range(12)
    ]
    ids = [one["decision_id"] for one in made]
    await _reward(client, decision_id=ids[0], quality=0.25)
    answers = await asyncio.gather(
        _reward(client, session="both", quality=0.75),
        *(_reward(client, decision_id=id, quality=0.5) for id in ids[1:9]),
    )
    assert {status for status, _ in answers} == {200}
    path = f"/v1/feedback/{made[9]['feedback_token']}"
    assert (await client.post(path, {"vote": "down"}))[0] == 200
    assert await _qualities(client, ids) == [0.25] + [0.5] * 8 + [0.0, 0.75, 0.75]
    assert (await client.post(path, {"vote": "neutral"}))[0] == 200
    assert await _qualities(client, ids) == [0.25] + [0.5] * 8 + [0.75] * 3
    again = await _reward(client, session="both", quality=1.0, correction=True)
    assert again[1]["status"] == "accepted"
    assert await _qualities(client, ids) == [0.25] + [0.5] * 8 + [1.0] * 3


async def test_a_session_that_is_not_there_is_unknown(client: Client) -> None:
    status, error = await _reward(client, session="nobody", quality=1.0)
    assert (status, error["code"], error["param"]) == (404, "unknown", "session")
    ids = await _talk(client, 1, session="a talk")
    status, error = await _reward(client, conversation="a talk", quality=1.0)
    assert (status, error["param"]) == (404, "conversation")
    assert await _qualities(client, ids) == [None]


async def test_a_tenants_key_rewards_its_own_sessions_alone(tmp_path: Path, models: Path) -> None:
    keys = Keyring(acme={"tenant": "acme"}, other={"tenant": "other"})
    async with serving(tmp_path / "data", models, **keys.environ) as client:
        mine, theirs = client.by(keys["acme"]), client.by(keys["other"])
        ids = await _talk(mine)
        status, _ = await _reward(theirs, session="s1", quality=0.0)
        assert status == 404
        status, _ = await _reward(theirs, session="s1", quality=0.0, tenant="acme")
        assert status == 403
        status, result = await _reward(mine, session="s1", quality=1.0)
        assert (status, result["credited"]) == (200, 3)
        assert await _qualities(mine, ids) == [1.0] * 3


async def test_the_gateways_sessions_and_conversations(tmp_path: Path, models: Path) -> None:
    async with a_gateway(tmp_path, models) as (client, _):
        ids = []
        for talk in ("c1", "c1", "c2"):
            async with client.session.post(
                f"{client.url}/v1/chat/completions",
                json={"model": "auto", "messages": HELLO},
                headers={"x-session": "s1", "x-conversation": talk},
            ) as answer:
                assert answer.status == 200
                ids.append(answer.headers["x-decision-id"])
        assert (await _reward(client, conversation="c1", quality=0.25))[1]["credited"] == 2
        assert await _qualities(client, ids) == [0.25, 0.25, None]
        assert (await _reward(client, session="s1", quality=1.0))[1]["credited"] == 3
        assert await _qualities(client, ids) == [0.25, 0.25, 1.0]
