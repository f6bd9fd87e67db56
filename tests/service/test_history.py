"""GET /v1/history and `bandit-service history`: the same figures of one log."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bandit_service import cli
from tests.service.keyring import Keyring
from tests.service.running import a_vector, serving


async def test_a_running_service_tells_it_and_the_command_the_same(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(tmp_path / "var", models) as client:
        spent, n = 0.0, 12
        for i in range(n):
            made = await client.decide(embedding=a_vector(i), tags=[f"t{i % 2}"])
            await client.reward(made["decision_id"], quality=0.5, cost_usd=0.25 * i)
            spent += 0.25 * i
        status, told = await client.get("/v1/history?by=tag&per=month")
        assert status == 200, told
        assert sum(one["total"]["decisions"] for one in told["periods"]) == n
        assert sum(one["total"]["spent_usd"] for one in told["periods"]) == spent
        assert set(told["periods"][-1]["groups"]) == {"t0", "t1"}
        query = f"--since {told['since']} --until {told['until']} --per month --by tag --json"
        asked = ["history", "--from-log", client.url, *query.split()]
        assert await asyncio.to_thread(cli.main, asked) == 0
        assert json.loads(capsys.readouterr().out) == told
        both = await asyncio.gather(*(client.get("/v1/history") for _ in range(2)))
        assert sorted(status for status, _ in both) == [200, 429]
        status, told = await client.get("/v1/history?by=model")
        assert (status, told["error"]["param"]) == (400, "by")
        status, told = await client.get("/v1/history?sinc=1")
        assert (status, told["error"]["param"]) == (400, "sinc")
        status, told = await client.get("/v1/history?by=arm&by=tag")
        assert (status, told["error"]["message"]) == (400, "by: given twice; give it once")
    # a stopped service's log, as a table
    asked = ["history", "--from-log", str(tmp_path / "var"), "--per", "hour"]
    assert await asyncio.to_thread(cli.main, asked) == 0
    shown = capsys.readouterr().out
    assert "decisions" in shown.splitlines()[0]
    assert f"{spent:.6f}" in shown
    assert await asyncio.to_thread(cli.main, [*asked, "--until", "2001-01-01"]) == 0
    assert "No decisions from" in capsys.readouterr().out
    wrong = ["history", "--from-log", str(tmp_path / "var"), "--since", "0", "--per", "hour"]
    assert await asyncio.to_thread(cli.main, wrong) == 2
    assert "--since: at most 1000 periods" in capsys.readouterr().err
    assert await asyncio.to_thread(cli.main, ["history", "--from-log", str(tmp_path / "no")]) == 1


async def test_a_tenants_key_sees_its_tenant_alone(tmp_path: Path, models: Path) -> None:
    ring = Keyring(all={}, acme={"tenant": "acme"})
    async with serving(tmp_path / "var", models, **ring.environ) as client:
        seen = {}
        for id, n in (("all", 3), ("acme", 2)):
            own = client.by(ring[id])
            for i in range(n):
                await own.decide(embedding=a_vector(i))
        for id in ("all", "acme"):
            own = client.by(ring[id])
            status, seen[id] = await own.get("/v1/history?by=tenant")
            assert status == 200
    count = {
        id: sum(one["total"]["decisions"] for one in told["periods"]) for id, told in seen.items()
    }
    assert count == {"all": 5, "acme": 2}
    assert {name for one in seen["acme"]["periods"] for name in one["groups"]} == {"acme"}
