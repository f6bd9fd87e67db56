"""The two paths of the service: decide, and learn; what is learned is seen at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.running import Client, a_vector, serving


async def test_a_decision_names_an_arm_with_its_propensity(client: Client) -> None:
    body = await client.decide(query="What is the capital of France?")
    assert body["arm"] in {"llama-3.1-8b-instruct", "mistral-large-2512", "gemini-2.5-pro"}
    assert 0.0 < body["propensity"] <= 1.0
    assert body["policy"] == "nested"
    assert body["expected"]["cost_usd"] > 0.0


async def test_messages_are_decided_on_by_their_user_turns(client: Client) -> None:
    messages = [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]},
    ]
    by_messages = await client.decide(messages=messages, explain=True)
    by_query = await client.decide(query="What is the capital of France?", explain=True)
    # the same text gives the same embedding, hence the same scores but for the token estimate
    for arm, score in by_query["scores"].items():
        assert by_messages["scores"][arm] == pytest.approx(score, abs=0.05)


async def test_the_very_next_decision_sees_a_reward(client: Client) -> None:
    first = await client.decide(explain=True)
    assert await client.reward(first["decision_id"], quality=1.0, cost_usd=0.0) == "accepted"
    second = await client.decide(explain=True)
    arm = first["arm"]
    assert first["neighbours"] == []
    assert [n["similarity"] for n in second["neighbours"]] == [pytest.approx(1.0, abs=1e-5)]
    assert second["scores"][arm] != first["scores"][arm]


async def test_a_comparison_teaches_eagle_at_once(tmp_path: Path, models: Path) -> None:
    eagle = {"BANDIT_POLICY_NAME": "eagle", "BANDIT_POLICY_PARAMETERS": "{trial = 0}"}
    async with serving(tmp_path / "var", models, **eagle) as client:
        before = (await client.decide(explain=True))["scores"]
        assert len(set(before.values())) == 1
        winner, loser = "mistral-large-2512", "gemini-2.5-pro"
        body = {"embedding": a_vector(0), "winner": winner, "loser": loser}
        status, answer = await client.post("/v1/comparisons", body)
        assert (status, answer["results"][0]["status"]) == (200, "accepted")
        after = (await client.decide(explain=True))["scores"]
        assert after[winner] > after["llama-3.1-8b-instruct"] > after[loser]


async def test_a_list_of_rewards_gets_a_result_each(client: Client) -> None:
    decided = [await client.decide(embedding=a_vector(i)) for i in range(3)]
    items = [{"decision_id": d["decision_id"], "quality": 0.5} for d in decided]
    items.append({"decision_id": "00000000-0000-7000-8000-000000000000", "quality": 0.5})
    items.append({"decision_id": decided[0]["decision_id"], "quality": 7})
    status, body = await client.post("/v1/rewards", items)
    assert status == 200
    assert [r["status"] for r in body["results"]] == ["accepted"] * 3 + ["error"] * 2
    assert body["results"][3]["error"]["code"] == "expired"
    assert body["results"][4]["error"]["param"] == "quality"


async def test_a_reward_sent_twice_is_applied_once_and_answered_alike(client: Client) -> None:
    id = (await client.decide())["decision_id"]
    assert await client.reward(id, quality=0.7) == "accepted"
    state = (await client.get("/v1/policies/nested/state"))[1]
    assert await client.reward(id, quality=0.7) == "duplicate"
    assert (await client.get("/v1/policies/nested/state"))[1] == state
    status, body = await client.post("/v1/rewards", {"decision_id": id, "quality": 0.8})
    assert (status, body["error"]["code"]) == (409, "conflict")
    assert (await client.get("/v1/policies/nested/state"))[1] == state


async def test_signals_may_come_alone_and_late(client: Client) -> None:
    id = (await client.decide())["decision_id"]
    assert await client.reward(id, cost_usd=0.002) == "accepted"
    assert await client.reward(id, latency_s=1.5) == "accepted"
    assert await client.reward(id, quality=0.9) == "accepted"
    body = (await client.get(f"/v1/decisions/{id}"))[1]
    assert body["settled"] is True
    assert body["signals"] == {"cost_usd": 0.002, "latency_s": 1.5, "quality": 0.9}


async def test_a_self_contained_reward_needs_no_decision(client: Client) -> None:
    body = {"query": "hello", "arm": "mistral-large-2512", "quality": 1.0, "idempotency_key": "k1"}
    assert (await client.post("/v1/rewards", body))[1]["results"][0]["status"] == "accepted"
    assert (await client.post("/v1/rewards", body))[1]["results"][0]["status"] == "duplicate"
    status, answer = await client.post("/v1/rewards", body | {"quality": 0.0})
    assert (status, answer["error"]["param"]) == (409, "idempotency_key")


async def test_arms_come_and_go_live(client: Client) -> None:
    status, body = await client.call(
        "PUT", "/v1/arms/newcomer", {"usd_per_mtok_in": 0.01, "usd_per_mtok_out": 0.02}
    )
    assert (status, body["source"]) == (201, "api")
    assert (await client.decide(arms=["newcomer"]))["arm"] == "newcomer"
    status, body = await client.call("DELETE", "/v1/arms/newcomer")
    assert (status, body["retired"]) == (200, True)
    status, body = await client.post("/v1/decide", {"embedding": a_vector(0), "arms": ["newcomer"]})
    assert (status, body["error"]["code"]) == (422, "no_eligible_arm")
    assert "newcomer: retired" in body["error"]["message"]


async def test_constraints_mask_before_the_policy(client: Client) -> None:
    for i in range(20):
        body = await client.decide(embedding=a_vector(i), requires=["vision"])
        assert body["arm"] == "gemini-2.5-pro"
        assert body["propensity"] == 1.0
    cheap = await client.decide(max_cost_usd=0.0001, explain=True)
    assert list(cheap["propensities"]) == ["llama-3.1-8b-instruct"]


async def test_an_impossible_request_says_which_constraint_excluded_which_arm(
    client: Client,
) -> None:
    status, body = await client.post(
        "/v1/decide", {"query": "hi", "max_cost_usd": 0.0005, "requires": ["vision"]}
    )
    assert status == 422
    assert body["error"]["code"] == "no_eligible_arm"
    message = body["error"]["message"]
    assert "llama-3.1-8b-instruct: requires vision" in message
    assert "mistral-large-2512: requires vision" in message
    assert "gemini-2.5-pro: max_cost_usd 0.0005 < expected" in message


async def test_an_explained_decision_can_be_looked_up(client: Client) -> None:
    decided = await client.decide(unit="user-1", tenant="acme")
    status, body = await client.get(f"/v1/decisions/{decided['decision_id']}")
    assert status == 200
    assert body["arm"] == decided["arm"]
    assert sum(body["propensities"].values()) == pytest.approx(1.0)
    assert body["propensities"][body["arm"]] == body["propensity"]
    assert (body["unit"], body["tenant"]) == ("user-1", "acme")


async def test_an_old_decision_is_gone(tmp_path: Path, models: Path) -> None:
    async with serving(tmp_path / "var", models, BANDIT_REWARD_MAX_PENDING="2") as client:
        ids = [(await client.decide(embedding=a_vector(i)))["decision_id"] for i in range(3)]
        status, body = await client.post("/v1/rewards", {"decision_id": ids[0], "quality": 1.0})
        assert (status, body["error"]["code"]) == (410, "expired")
        assert await client.reward(ids[1], quality=1.0) == "accepted"


async def test_a_field_of_null_is_absent(client: Client) -> None:
    """Seen on 5a5a85b: 400 for `unit: null`, which clients that write out all fields send."""
    nothing = dict.fromkeys(("unit", "tenant", "session", "requires", "policy", "explain", "query"))
    status, decided = await client.post("/v1/decide", {**nothing, "embedding": a_vector(0)})
    assert status == 200, decided
    outcome = {"decision_id": decided["decision_id"], "quality": 1.0, "cost_usd": None}
    more = dict.fromkeys(("idempotency_key", "correction", "metrics", "unit", "reward"))
    status, body = await client.post("/v1/rewards", {**outcome, **more})
    assert (status, body["results"][0]["status"]) == (200, "accepted")
    arm = {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 1.0, "context_window": None, "tags": None}
    assert (await client.call("PUT", "/v1/arms/of-null", arm))[0] == 201
    for wrong, field in (({"winner": None, "loser": "a"}, "winner"), ({"qery": None}, "qery")):
        status, body = await client.post("/v1/comparisons", wrong)
        assert (status, body["error"]["param"]) == (400, field)


async def test_a_field_of_null_is_absent_in_what_is_configured(client: Client) -> None:
    """Also `id`, `why`, and fields of the structs within, as the OpenAPI document says."""
    price = {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 1.0}
    arm = price | {"id": None, "request": {"temperature": None, "extra_body": None}}
    assert (await client.call("PUT", "/v1/arms/of-nulls", arm))[0] == 201
    deployed = price | {"deployments": [{"upstream": "u", "weight": None, "model": None}]}
    status, body = await client.call("PUT", "/v1/arms/of-nulls", deployed)
    assert "deployments[0].upstream" in body["error"]["message"]  # there is none; and no null
    nothing = dict.fromkeys(("id", "why", "share", "ramp", "unit", "sticky"))
    variants = [
        {"key": "a", "arm": "mistral-large-2512", "weight": 0.5, "policy": None, "shadow": None},
        {"key": "b", "arm": "gemini-2.5-pro", "weight": 0.5, "parameters": None},
    ]
    spec = nothing | {"variants": variants, "audience": {"tenants": None, "max_tokens": None}}
    status, body = await client.call("PUT", "/v1/experiments/of-nulls", spec | {"share": 0.5})
    assert status == 201, body
    status, body = await client.call("PUT", "/v1/experiments/of-nulls", spec)
    assert (status, body["experiment"]["share"]) == (200, 0.5)  # what is left out stays
    rules = {"stopped": True, "salt": None, "why": None}
    status, body = await client.call("PUT", "/v1/experiment-rules", rules)
    assert (status, body) == (200, {"stopped": True})
    status, body = await client.call("PUT", "/v1/experiment-rules", {"slat": None})
    assert (status, body["error"]["param"]) == (400, "slat")
    candidates = {"policies": [{"name": "uniform", "parameters": None}], "on": None}
    status, body = await client.post("/v1/experiments/of-nulls/whatif", candidates)
    assert "null" not in body.get("error", {}).get("message", ""), body
