"""Policies that learn beside the serving one: asked by name, and the same after every restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import codec
from bandit_service.core.learner import beside
from bandit_service.runtime import recovery
from bandit_service.settings import PolicySettings
from tests.service.provider import ARMS, HELLO, official_client, until
from tests.service.running import Client, a_vector, serving

_SERVING = {"BANDIT_POLICY_NAME": "epsilon_greedy"}
_EAGLE = _SERVING | {"BANDIT_POLICIES": json.dumps([{"name": "eagle"}])}


async def _traffic(client: Client, first: int, last: int, **fields: Any) -> list[dict[str, Any]]:
    made = []
    for i in range(first, last):
        made.append(await client.decide(embedding=a_vector(i % 20), explain=True, **fields))
        await client.reward(made[-1]["decision_id"], quality=(i % 10) / 10, cost_usd=0.001)
        if i % 3 == 0:
            other = next(arm for arm in made[-1]["propensities"] if arm != made[-1]["arm"])
            compared = {"decision_id": made[-1]["decision_id"], "winner": other,
                        "loser": made[-1]["arm"]}  # fmt: skip
            assert (await client.post("/v1/comparisons", compared))[0] == 200
    return made


async def _state(client: Client, name: str) -> str:
    status, body = await client.get(f"/v1/policies/{name}/state")
    assert status == 200, body
    return str(body["sha256"])


async def _joined(client: Client) -> None:
    async def there() -> bool:
        _, body = await client.get("/v1/policies")
        return [one["learning"] for one in body["beside"]] == [True]

    await until(there)


def _folded(data: Path) -> dict[str, str]:
    """Digests of the world recovered and replayed, and of the policy beside and from the first."""
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(data), **_EAGLE})
    log = assembly.open_log(chosen)
    try:
        found = recovery.recover(log, chosen, assembly.open_snapshots(chosen))
        whole = recovery.replayed(log, chosen, found.policy)
        fresh = recovery.replayed(log, chosen, PolicySettings("eagle"))
    finally:
        log.close()
    return {
        "recovered": found.world.digest(),
        "replayed": whole.world.digest(),
        "beside": codec.sha256(codec.dump(found.world.learners[beside("eagle")].state)),
        "from the first": codec.sha256(codec.dump(fresh.world.learners["eagle"].state)),
    }


async def test_a_policy_joins_knowing_all_that_was_and_every_restart_gives_the_same(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    async with serving(data, models, **_SERVING) as client:
        await _traffic(client, 0, 40)
        status, body = await client.post(
            "/v1/decide", {"embedding": a_vector(0), "policy": "eagle"}
        )
        assert (status, body["error"]["param"]) == (404, "policy")
        assert body["error"]["message"].endswith("expected one of epsilon_greedy")
    async with serving(data, models, **_EAGLE) as client:
        # what comes in while the past is folded is learned too
        await _traffic(client, 40, 50)
        status, body = await client.post(
            "/v1/decide", {"embedding": a_vector(0), "policy": "eagle"}
        )
        assert status == 200 or body["error"]["code"] == "unavailable"
        await _joined(client)
        made = await _traffic(client, 50, 60, policy="eagle")
        assert {each["policy"] for each in made} == {"eagle"}
        _, kept = await client.get(f"/v1/decisions/{made[-1]['decision_id']}")
        assert kept["propensities"] == made[-1]["propensities"]
        made = await _traffic(client, 60, 70)
        assert {each["policy"] for each in made} == {"epsilon_greedy"}
        _, told = await client.post("/v1/explain", {"embedding": a_vector(0), "policy": "eagle"})
        assert told["policy"] == "eagle"
        assert (await client.post("/v1/snapshots", {}))[0] == 200
        await _traffic(client, 70, 75)
        states = [await _state(client, name) for name in ("eagle", "epsilon_greedy")]
    found = _folded(data)
    assert found["recovered"] == found["replayed"]
    assert found["beside"] == found["from the first"] == states[0]
    async with serving(data, models, **_EAGLE) as client:
        assert [await _state(client, name) for name in ("eagle", "epsilon_greedy")] == states
        again = await client.decide(embedding=a_vector(3), policy="eagle")
        assert again["policy"] == "eagle"
    other = json.dumps([{"name": "eagle", "parameters": {"blend": 0.9}}])
    async with serving(data, models, **_SERVING, BANDIT_POLICIES=other) as client:
        await _joined(client)  # another parameter is another policy: it learns the past anew
        await client.decide(embedding=a_vector(3), policy="eagle")
    async with serving(data, models, **_SERVING) as client:
        _, body = await client.get("/v1/policies")
        assert body["beside"] == []
        assert (await client.get("/v1/policies/eagle/state"))[0] == 404


async def test_the_gateway_decides_by_the_policy_that_the_model_names(
    tmp_path: Path, models: Path
) -> None:
    async with official_client(tmp_path, models, **_EAGLE) as (asking, client, _):
        raw = await asking.chat.completions.with_raw_response.create(
            model="auto:eagle", messages=HELLO
        )
        assert raw.headers["x-policy"] == "eagle"
        decided = (await client.get(f"/v1/decisions/{raw.headers['x-decision-id']}"))[1]
        assert decided["propensity"] == decided["propensities"][raw.headers["x-arm"]]
        raw = await asking.chat.completions.with_raw_response.create(
            model="auto:epsilon_greedy", messages=HELLO
        )
        assert raw.headers["x-policy"] == "epsilon_greedy"
        assert [model.id async for model in asking.models.list()] == ["auto", "auto:eagle", *ARMS]
        body = {"model": "auto:metallm", "messages": HELLO}
        status, answer = await client.post("/v1/chat/completions", body)
        assert (status, answer["error"]["param"]) == (404, "model")
        assert answer["error"]["message"].endswith("expected one of epsilon_greedy, eagle")


@pytest.mark.parametrize(
    ("items", "mistake"),
    [
        ([{"name": "nested"}], r"policies\[0\]\.name: 'nested' is the policy that serves"),
        ([{"name": "eagle"}, {"name": "eagle"}], r"policies\[1\]\.name: duplicate name 'eagle'"),
        ([{"name": "nobody"}], r"policies\[0\]\.name: .*no policy named 'nobody'"),
        ([{"name": "eagle", "parameters": {"x": 1}}], r"policies\[0\]\.parameters\.x: eagle has"),
        ([{"nam": "eagle"}], r"policies\[0\]\.nam"),
    ],
)
def test_a_policy_that_cannot_learn_beside_is_a_mistake(items: Any, mistake: str) -> None:
    with pytest.raises(settings.BadSettings, match=mistake):
        settings.read(None, {"BANDIT_POLICIES": json.dumps(items)})
