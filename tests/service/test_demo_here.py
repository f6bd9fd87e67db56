"""`/v1/demo`: recorded traffic through an empty service, and no other."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from bandit_service.http import demo
from tests.service.keyring import Keyring
from tests.service.provider import until
from tests.service.running import Client, serving

pytestmark = pytest.mark.skipif(find_spec("pareto_bandit") is None, reason="no paretobandit")


async def _ended(client: Client) -> bool:
    return not (await client.get("/v1/demo"))[1]["running"]


async def test_an_empty_service_learns_from_it_and_it_runs_once(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "QUERIES", 12)
    monkeypatch.setattr(demo, "PAUSE_S", 0.0)
    async with serving(tmp_path / "var", models) as client:
        status, told = await client.get("/v1/demo")
        assert (status, told["available"], told["why"]) == (200, True, "")
        status, told = await client.post("/v1/demo", {})
        assert (status, told["running"]) == (202, True)
        assert (await client.post("/v1/demo", {}))[0] == 409
        await until(lambda: _ended(client))
        _, told = await client.get("/v1/decisions?tag=demo")
        assert len(told["decisions"]) == 12
        assert {one["unit"] for one in told["decisions"]} == {"demo"}
        assert any(one["reward"] is not None for one in told["decisions"])
        status, told = await client.post("/v1/demo", {})
        assert (status, "mixed with" in told["error"]["message"]) == (409, True)


ARM = {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 1.0}
ARMS = [{"id": "mine", **ARM}]


@pytest.mark.parametrize("configures", [False, True])
async def test_it_ends_where_somebody_else_decides_or_configures(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, configures: bool
) -> None:
    monkeypatch.setattr(demo, "QUERIES", 100_000)
    async with serving(tmp_path / "var", models) as client:
        assert (await client.post("/v1/demo", {}))[0] == 202
        if configures:
            assert (await client.call("PUT", "/v1/arms/mine", ARM))[0] == 201
        else:
            await client.decide()
        await until(lambda: _ended(client))
        assert (await client.get("/v1/demo"))[1]["decisions"] < 100


@pytest.mark.parametrize("keyed", [True, False])
async def test_it_runs_nowhere_else(tmp_path: Path, models: Path, keyed: bool) -> None:
    ring = Keyring(ops={"scopes": ["read", "admin"]})
    environ = ring.environ if keyed else {"BANDIT_ARMS": json.dumps(ARMS)}
    why = "without API keys" if keyed else "nothing is configured"
    async with serving(tmp_path / "var", models, **environ) as anybody:
        client = anybody.by(ring["ops"]) if keyed else anybody
        status, told = await client.get("/v1/demo")
        assert (status, told["available"], why in told["why"]) == (200, False, True)
        status, told = await client.post("/v1/demo", {})
        assert (status, why in told["error"]["message"]) == (409, True)
        assert (await client.get("/v1/decisions"))[1]["decisions"] == []
