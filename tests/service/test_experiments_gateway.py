"""Experiments behind OpenAI's wire format: conversations keep their variant, failures count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.service.provider import a_gateway
from tests.service.running import Client

_TWO = {
    "unit": "conversation",
    "variants": [
        {"key": "a", "arm": "alpha", "weight": 0.5},
        {"key": "r", "policy": "uniform", "weight": 0.5},
    ],
}


async def _said(client: Client, *turns: str) -> dict[str, Any]:
    """The decision behind the answer to the last turn."""
    messages = []
    for turn in turns:
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": "yes"}]
    asked = {"model": "auto", "messages": messages[:-1]}
    async with client.session.post(f"{client.url}/v1/chat/completions", json=asked) as answer:
        assert answer.status == 200, await answer.text()
        id = answer.headers["x-decision-id"]
    status, decision = await client.get(f"/v1/decisions/{id}")
    assert status == 200, decision
    found: dict[str, Any] = decision
    return found


async def test_a_conversation_keeps_its_variant_and_inside_it_its_arm(
    tmp_path: Path, models: Path
) -> None:
    async with a_gateway(tmp_path, models) as (client, _):
        await client.call("PUT", "/v1/experiments/e", _TWO)
        await client.begin("e")
        seen = set()
        for i in range(12):
            first = await _said(client, f"question {i}")
            second = await _said(client, f"question {i}", "and then?")
            assert second["variant"] == first["variant"]
            assert second["steps"] == ["split"]
            if first["variant"] == "a":
                assert first["arm"] == second["arm"] == "alpha"
                assert first["propensity"] == second["propensity"] == 1.0
            else:
                assert second["propensity"] > 0.9 or second["arm"] != first["arm"]
            seen.add(first["variant"])
        assert seen == {"a", "r"}
        _, results = await client.get("/v1/experiments/e/results")
        assert sum(one["units"] for one in results["variants"]) == 12
        assert sum(one["decisions"] for one in results["variants"]) == 24
        assert results["mixed_units"] == 0


async def test_an_arm_that_fails_counts_for_its_variant_and_so_does_what_takes_its_place(
    tmp_path: Path, models: Path
) -> None:
    async with a_gateway(tmp_path, models, BANDIT_GATEWAY_BREAKER_FAILURES="1000") as (
        client,
        provider,
    ):
        await client.call("PUT", "/v1/experiments/e", _TWO)
        await client.begin("e")
        provider.behaviour = {"alpha": "500"}
        of_a = 0
        for i in range(12):
            decision = await _said(client, f"question {i}")
            if decision["variant"] == "a":
                of_a += 1
                assert decision["steps"] == ["split", "no arm"]
                assert decision["arm"] != "alpha"
        _, results = await client.get("/v1/experiments/e/results")
        by_key = {one["key"]: one for one in results["variants"]}
        assert by_key["a"]["units"] == of_a
        assert by_key["a"]["decisions"] > of_a, "a failure counts beside what was answered"
