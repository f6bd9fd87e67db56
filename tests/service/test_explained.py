"""What a decision says of itself: its score in parts, what is expected, and what is not known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.service.running import Client, a_vector, opened, serving


@pytest_asyncio.fixture
async def linear(tmp_path: Path, models: Path) -> AsyncIterator[Client]:
    """A service that decides by metallm, whose scores have all parts."""
    async with serving(tmp_path / "var", models, BANDIT_POLICY_NAME="metallm") as client:
        yield client


async def _explain(client: Client, **asked: Any) -> dict[str, Any]:
    status, body = await client.post("/v1/explain", asked)
    assert status == 200, body
    return {arm["id"]: arm for arm in body["arms"]}


async def test_the_parts_of_a_score_add_up(linear: Client) -> None:
    for i in range(4):
        decided = await linear.decide(explain=True)
        for arm in decided["arms"]:
            assert arm["value"] + arm["bonus"] - arm["cost"] == pytest.approx(arm["score"])
            assert arm["score"] == decided["scores"][arm["id"]]
            assert arm["propensity"] == decided["propensities"][arm["id"]]
            assert arm["cost"] == pytest.approx(arm["cost_usd"] / 0.1), "of the default worth"
        await linear.reward(decided["decision_id"], quality=i / 4)
    assert "arms" not in await linear.decide()


async def test_an_arm_without_an_outcome_is_untried_and_has_no_quality(linear: Client) -> None:
    decided = await linear.decide(explain=True)
    ids = {arm["id"] for arm in decided["arms"]}
    for arm in decided["arms"]:
        assert arm["quality"] is None
        assert arm["expected"] == {
            "value": None,
            "n": 0.0,
            "untried": True,
            "prior": 1.0,
            "high": 1.0,
            "low": pytest.approx(0.615, abs=0.01),  # 1 − 1.96 · ½ · √(2 / 12.94)
        }
    assert set(decided["untried"]) == ids
    plain = await linear.decide()
    for expected in (decided["expected"], plain["expected"]):
        assert (expected["untried"], expected["n"]) == (True, 0.0)
        assert "quality" not in expected
    assert await linear.reward(decided["decision_id"], quality=0.5) == "accepted"
    its = (await _explain(linear, embedding=a_vector(0)))[decided["arm"]]
    assert its["quality"] == its["expected"]["value"]
    assert its["expected"]["n"] == 1.0
    assert 0.0 <= its["expected"]["low"] < its["quality"] < its["expected"]["high"] <= 1.0
    assert "untried" not in its["expected"]
    only = await linear.decide(arms=[decided["arm"]])
    assert only["expected"]["n"] == 1.0
    assert only["expected"]["quality"] == pytest.approx(its["quality"])
    # the record says what was known then, also after a reward
    _, then = await linear.get(f"/v1/decisions/{decided['decision_id']}")
    assert set(then["untried"]) == ids
    assert then["expected"]["prior"] == 1.0
    _, later = await linear.get(f"/v1/decisions/{only['decision_id']}")
    assert later["untried"] == []
    assert later["expected"]["low"] == pytest.approx(its["expected"]["low"])


async def test_scores_without_parts_have_none(tmp_path: Path, models: Path) -> None:
    async with serving(tmp_path / "var", models, BANDIT_POLICY_NAME="uniform") as client:
        decided = await client.decide(explain=True)
        for arm in decided["arms"]:
            assert arm["expected"] == {"value": None, "n": None}
            assert not {"value", "bonus", "cost"} & set(arm)
        assert decided["untried"] == []
        assert "n" not in decided["expected"]


async def test_the_query_of_a_decision_is_weighed_again(linear: Client) -> None:
    two = ["llama-3.1-8b-instruct", "gemini-2.5-pro"]
    decided = await linear.decide(embedding=a_vector(3), arms=two, explain=True)
    _, ready = await linear.get("/readyz")
    again = await _explain(linear, decision_id=decided["decision_id"])
    assert again == {arm["id"]: arm for arm in decided["arms"]}
    await linear.reward(decided["decision_id"], quality=0.0)
    taught = await _explain(linear, decision_id=decided["decision_id"])
    assert taught == await _explain(linear, embedding=a_vector(3), arms=two)
    assert taught[decided["arm"]]["value"] < again[decided["arm"]]["value"]
    _, after = await linear.get("/readyz")
    assert after["events"] == ready["events"] + 1, "only the reward was written"


async def test_a_decision_that_is_weighed_again_stands_alone(linear: Client) -> None:
    id = (await linear.decide())["decision_id"]
    for more in ({"query": "x"}, {"arms": ["gemini-2.5-pro"]}, {"max_cost_usd": 1.0}):
        status, body = await linear.post("/v1/explain", {"decision_id": id, **more})
        assert (status, body["error"]["param"]) == (400, next(iter(more)))
    unknown = "00000000-0000-7000-8000-000000000000"
    status, body = await linear.post("/v1/explain", {"decision_id": unknown})
    assert status in (404, 410), body
    status, body = await linear.post("/v1/decide", {"decision_id": id})
    assert (status, body["error"]["param"]) == (400, "decision_id")


async def test_answers_round_money_and_rewards_and_the_world_does_not(
    tmp_path: Path, models: Path
) -> None:
    """They ended in digits such as 0.29000000000000004, which only adding floats made."""
    async with opened(tmp_path / "var", models) as (client, world):
        exact: list[float] = []
        answered: list[float] = []
        for i in range(8):
            decided = await client.decide(query="a word " * (7 * i + 1), explain=True)
            id, cost_usd = decided["decision_id"], 0.0001 * (3 * i + 1)
            await client.reward(id, quality=0.1 * i, cost_usd=cost_usd)
            pending = world.pending.decisions[id]
            assert pending.reward is not None
            assert pending.reward == pytest.approx(0.1 * i - cost_usd / 0.1)
            exact += [
                pending.decided.expected_cost_usd,
                pending.reward,
                pending.signals["cost_usd"],
            ]
            _, record = await client.get(f"/v1/decisions/{id}")
            answered += [decided["expected"]["cost_usd"], record["expected"]["cost_usd"]]
            answered += [record["cost_usd"], record["signals"]["cost_usd"]]
            answered += [one["cost_usd"] for one in decided["arms"]]
            answered += [each["reward"] for one in record["neighbours"] for each in one["outcomes"]]
        _, listed = await client.get("/v1/decisions")
        answered += [row["reward"] for row in listed["decisions"]]
        answered += [row["signals"]["cost_usd"] for row in listed["decisions"]]
        _, arms = await client.get("/v1/arms")
        answered += [arm["observed"].get("mean_cost_usd", 0.0) for arm in arms["arms"]]
    assert answered == [round(each, 12) for each in answered]
    for kind in range(3):
        assert exact[kind::3] != [round(each, 12) for each in exact[kind::3]]
    assert set(answered) >= {round(each, 12) for each in exact}
