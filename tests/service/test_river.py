"""Policies of river through the service: switched to, kept, restarted, as a variant, and beside."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.offline.candidates import parsed
from bandit_service.runtime import recovery
from tests.service.folding_here import fold_here
from tests.service.running import Client, a_vector, serving

LINUCB = "river:LinUCBDisjoint"
DATA = "BANDIT_DATA_DIR"


async def _traffic(client: Client, first: int, last: int, **fields: Any) -> list[dict[str, Any]]:
    made = []
    for i in range(first, last):
        made.append(await client.decide(embedding=a_vector(i % 20), **fields))
        await client.reward(made[-1]["decision_id"], quality=(i % 10) / 10, cost_usd=0.001)
    return made


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    """To import river takes 1.6 s of a processor, here and in the child that folds."""
    async with asyncio.timeout(240):
        while not await holds():
            await asyncio.sleep(0.02)


async def _serves(client: Client, name: str) -> bool:
    _, now = await client.get("/v1/policies")
    return bool(now["serving"]["name"] == name and "folding" not in now)


async def _state(client: Client, name: str) -> str:
    status, body = await client.get(f"/v1/policies/{name}/state")
    assert status == 200, body
    return str(body["sha256"])


async def test_switched_to_snapshotted_and_restarted_it_is_the_fold_of_the_log(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    async with serving(data, models) as client:
        _, told = await client.get("/v1/policies")
        assert LINUCB in told["policies"]
        await _traffic(client, 0, 40)
        asked = {"name": LINUCB, "parameters": {"epsilon": 0.3, "dimensions": 8}}
        status, body = await client.call("PUT", "/v1/policy", asked)
        assert status == 202, body
        await _until(lambda: _serves(client, LINUCB))
        made = await _traffic(client, 40, 60, explain=True)
        assert {each["policy"] for each in made} == {LINUCB}
        for each in made:  # river's share of 1, ε mixed in, and the service's floor on top
            low, middle, high = sorted(each["propensities"].values())
            assert middle == pytest.approx(low)
            assert 0.1 <= low < 0.13 < high
            assert each["propensity"] in each["propensities"].values()
        assert (await client.post("/v1/snapshots", {}))[0] == 200
        await _traffic(client, 60, 70)
        before = await _state(client, LINUCB)
        _, explained = await client.post("/v1/explain", {"embedding": a_vector(3)})
    async with serving(data, models) as client:
        assert await _state(client, LINUCB) == before
        _, again = await client.post("/v1/explain", {"embedding": a_vector(3)})
        assert again["arms"] == explained["arms"]
    chosen = settings.read(None, {DATA: str(data)})
    log = assembly.open_log(chosen)
    short = recovery.recover(log, chosen, assembly.open_snapshots(chosen))
    whole = recovery.replayed(log, chosen, short.policy)
    log.close()
    assert short.after > 0
    assert short.policy.name == LINUCB
    assert short.world.digest() == whole.world.digest()


async def test_it_learns_beside_and_as_a_variant(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold_here(monkeypatch)
    beside = json.dumps([{"name": "river:UCB", "parameters": {"delta": 0.5}}])
    async with serving(tmp_path / "var", models, BANDIT_POLICIES=beside) as client:
        (made,) = await _traffic(client, 0, 1, policy="river:UCB")
        assert made["policy"] == "river:UCB"
        variants = [
            {"key": "now", "weight": 0.5},
            {"key": "exp3", "policy": "river:Exp3", "parameters": {"gamma": 0.2}, "weight": 0.5},
        ]
        status, body = await client.call("PUT", "/v1/experiments/e", {"variants": variants})
        assert status == 201, body
        await client.begin("e")
        found = {(await client.decide(unit=f"u{i}"))["variant"] for i in range(20)}
        assert found == {"now", "exp3"}


@pytest.mark.parametrize(
    ("asked", "param", "said"),
    [
        ({"name": "river:Nobody"}, "name", "river:NAME, NAME one of BayesUCB"),
        ({"name": "river:UCB", "parameters": {"delta": -1}}, "parameters", "delta: must be"),
        (
            {"name": "river:UCB", "parameters": {"gamma": 1}},
            "parameters",
            "gamma: river:UCB has no",
        ),
    ],
)
async def test_what_is_wrong_is_named(
    client: Client, asked: dict[str, Any], param: str, said: str
) -> None:
    status, body = await client.call("PUT", "/v1/policy", asked)
    assert (status, body["error"]["param"]) == (400, param)
    assert said in body["error"]["message"]


def test_a_candidate_of_river_is_told_from_its_parameters() -> None:
    candidate = parsed("river:ThompsonSampling:pulls=5:reward_obj=Gaussian")
    assert candidate.name == "river:ThompsonSampling"
    assert candidate.parameters == {"pulls": 5, "reward_obj": "Gaussian"}
    with pytest.raises(ValueError, match="no policy named 'river:pulls=5'"):
        parsed("river:pulls=5")
