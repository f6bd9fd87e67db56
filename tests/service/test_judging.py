"""Judges and duels behind the gateway: real HTTP, the official client, one answer for the user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.full_disk import full_disk
from tests.service.provider import CRITIC, HELLO, a_gateway, signals_of, until
from tests.service.running import Client

GRADER = {"id": "grader", "kind": "llm", "arm": CRITIC}


class Capital(BaseModel):
    capital: str


def _environ(*judges: dict[str, Any], **more: str) -> dict[str, str]:
    return {"BANDIT_JUDGES": json.dumps(judges), **more}


def _official(client: Client) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{client.url}/v1", api_key="none", max_retries=0)


async def _counted(client: Client, line: str) -> float:
    """The value of one line of the exposition; 0 where it is not there yet."""
    async with client.session.get(client.url + "/metrics", headers=client.headers) as response:
        text = await response.text()
    found = [each for each in text.splitlines() if each.startswith(f"{line} ")]
    return float(found[0].rsplit(" ", 1)[1]) if found else 0.0


async def _until_counted(client: Client, line: str, least: float = 1.0) -> None:
    async def there() -> bool:
        return await _counted(client, line) >= least

    await until(there)


async def test_texts_and_schemas_are_judged_by_themselves(tmp_path: Path, models: Path) -> None:
    environ = _environ(
        {"id": "schema", "kind": "json_schema"},
        {"id": "right", "kind": "exact"},
        {"id": "form", "kind": "regex", "pattern": "^I am"},
    )
    async with a_gateway(tmp_path, models, **environ) as (client, _), _official(client) as asking:
        parsed = await asking.chat.completions.parse(
            model="auto", messages=HELLO, response_format=Capital
        )
        assert (await signals_of(client, parsed.id, 3))["quality"] == 1.0
        for expected, quality in (("I%20am%20alpha.", 1.0), ("I%20am%20b%C3%AAta", 0.0)):
            answer = await asking.chat.completions.create(
                model="alpha", messages=HELLO, extra_headers={"x-expected-answer": expected}
            )
            assert (await signals_of(client, answer.id, 3))["quality"] == quality
        stream = await asking.chat.completions.create(model="beta", messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]
        assert (await signals_of(client, chunks[0].id, 3))["quality"] == 1.0
        await _until_counted(client, 'bandit_judged_total{judge="form",result="judged"}')


async def test_a_model_judges_and_its_money_is_counted(tmp_path: Path, models: Path) -> None:
    budget = [{"scope": "service", "per": "day", "usd": 100.0}]
    environ = _environ(GRADER, BANDIT_BUDGETS=json.dumps(budget))
    async with a_gateway(tmp_path, models, **environ) as (client, provider):
        provider.judge = lambda _: '{"score": 8}'
        async with _official(client) as asking:
            answer = await asking.chat.completions.create(model="alpha", messages=HELLO)
            signals = await signals_of(client, answer.id, 3)
            assert signals["quality"] == 0.8
            asked = next(each for each in provider.seen if each["model"] == CRITIC)
            assert "Hello there" in asked["messages"][1]["content"]
            assert "I am alpha" in asked["messages"][1]["content"]
            paid = 'bandit_judge_cost_usd_total{judge="grader"}'
            _, rows = await client.get("/v1/budgets")
            both = signals["cost_usd"] + await _counted(client, paid)
            assert both > signals["cost_usd"]
            assert rows["budgets"][0]["spent_usd"] == pytest.approx(both)
            # the user knows better, and says so; then it is the user's
            assert await client.reward(answer.id, quality=0.1) == "accepted"
            assert (await signals_of(client, answer.id, 3))["quality"] == 0.1
            assert await client.reward(answer.id, quality=0.1) == "duplicate"
            status, _ = await client.post("/v1/rewards", {"decision_id": answer.id, "quality": 0.2})
            assert status == 409


async def test_a_judge_is_corrected_by_what_people_say_of_the_same_answers(
    tmp_path: Path, models: Path
) -> None:
    environ = _environ(GRADER | {"calibration": "apply", "min_pairs": 10, "max_per_minute": 1000})
    async with a_gateway(tmp_path, models, **environ) as (client, provider):
        provider.judge = lambda _: '{"score": 8}'
        async with _official(client) as asking:
            for _ in range(10):
                answer = await asking.chat.completions.create(model="alpha", messages=HELLO)
                assert (await signals_of(client, answer.id, 3))["quality"] == 0.8
                assert await client.reward(answer.id, quality=0.3) == "accepted"
            _, told = await client.get("/v1/judges")
            (judge,) = told["judges"]
            assert (judge["id"], judge["applied"]) == ("grader", True)
            assert judge["overall"] == judge["routes"]["auto"]
            assert judge["overall"]["pairs"] == 10
            assert judge["overall"]["mean_absolute_difference"] == pytest.approx(0.5)
            assert judge["overall"]["correlation"] is None
            assert judge["overall"]["curve"] == [
                {"score": 0.8, "pairs": 10, "grade": 0.3, "calibrated": 0.3}
            ]
            answer = await asking.chat.completions.create(model="alpha", messages=HELLO)
            assert (await signals_of(client, answer.id, 3))["quality"] == pytest.approx(0.3)
            apart = 'bandit_judge_absolute_difference{judge="grader"}'
            assert await _counted(client, apart) == pytest.approx(0.5)


async def test_what_a_judge_took_while_the_disk_was_full_is_booked_once_it_has_room(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On 164cc0c0 it was lost, for the budgets and for the judge's own limit."""
    budget = [{"scope": "service", "per": "day", "usd": 100.0}]
    environ = _environ(GRADER, BANDIT_BUDGETS=json.dumps(budget))
    async with a_gateway(tmp_path, models, **environ) as (client, provider):
        provider.judge = lambda _: '{"score": 8}'
        make_room = full_disk(monkeypatch)
        async with _official(client) as asking:
            await asking.chat.completions.create(model="alpha", messages=HELLO)
        paid = 'bandit_judge_cost_usd_total{judge="grader"}'
        await _until_counted(client, paid, 1e-9)

        async def spent() -> bool:
            row = (await client.get("/v1/budgets"))[1]["budgets"][0]
            held.append(row["held_usd"])
            return bool(row["spent_usd"] > 0.0 and row["held_usd"] == 0.0)

        held: list[float] = []
        assert not await spent()
        make_room()
        await until(spent)
        row = (await client.get("/v1/budgets"))[1]["budgets"][0]
        assert row["spent_usd"] == pytest.approx(held[0])
        assert row["spent_usd"] > await _counted(client, paid)


@pytest.mark.parametrize(
    ("bound", "result", "says"),
    [
        ({"usd_per_day": 1e-9}, "budget", '{"score": 8}'),
        ({"arm": "nobody"}, "no arm", '{"score": 8}'),
        ({}, "unreadable", "I would rather not"),
    ],
)
async def test_a_judge_that_cannot_judge_is_counted_and_harms_nothing(
    tmp_path: Path, models: Path, bound: dict[str, Any], result: str, says: str
) -> None:
    environ = _environ(GRADER | bound)
    async with a_gateway(tmp_path, models, **environ) as (client, provider):
        provider.judge = lambda _: says
        async with _official(client) as asking:
            answer = await asking.chat.completions.create(model="alpha", messages=HELLO)
            line = f'bandit_judged_total{{judge="grader",result="{result}"}}'
            await _until_counted(client, line)
            assert "quality" not in await signals_of(client, answer.id, 2)


async def test_the_rate_of_a_judge_is_held(tmp_path: Path, models: Path) -> None:
    environ = _environ(GRADER | {"max_per_minute": 2})
    async with a_gateway(tmp_path, models, **environ) as (client, provider):
        provider.judge = lambda _: '{"score": 5}'
        async with _official(client) as asking:
            for _ in range(5):
                await asking.chat.completions.create(model="alpha", messages=HELLO)
        await _until_counted(client, 'bandit_judged_total{judge="grader",result="rate"}', 3)
        await _until_counted(client, 'bandit_judged_total{judge="grader",result="judged"}', 2)


async def test_a_duel_is_judged_and_the_user_gets_one_answer(tmp_path: Path, models: Path) -> None:
    environ = _environ(
        GRADER | {"max_per_minute": 1000},
        BANDIT_POLICY_NAME="eagle",
        BANDIT_DUELS_SHARE="1.0",
        BANDIT_DUELS_JUDGE="grader",
    )

    def prefers_alpha(asked: str) -> str:
        if "answer A" not in asked:
            return '{"score": 5}'
        a, b = ("I am alpha" in part for part in asked.split("<<<answer B>>>"))
        return json.dumps({"better": "A" if a else "B" if b else "tie"})

    async with a_gateway(tmp_path, models, **environ) as (client, provider):
        provider.judge = prefers_alpha
        async with _official(client) as asking:
            raw = await asking.chat.completions.with_raw_response.create(
                model="auto", messages=HELLO
            )
            answer = raw.parse()
            assert len(answer.choices) == 1
            assert raw.headers["x-duel"] == answer.id
            for _ in range(20):
                await asking.chat.completions.create(model="auto", messages=HELLO)

            async def compared() -> bool:
                _, state = await client.get("/v1/policies/eagle/state")
                return bool(state["comparisons"] == 21)

            await until(compared)
            _, kept = await client.get(f"/v1/duels/{answer.id}")
            arms = [each["arm"] for each in kept["answers"]]
            assert len(set(arms)) == 2
            assert [each["answer"] for each in kept["answers"]] == [f"I am {arm}" for arm in arms]
            # the second answer's decision has its own outcome
            second = await signals_of(client, kept["answers"][1]["decision_id"], 3)
            assert second["cost_usd"] > 0.0
            _, decided = await client.get(f"/v1/decisions/{kept['answers'][1]['decision_id']}")
            assert decided["reason"] == "drawn", "no arm failed before it"
            assert second["quality"] == 0.5
            _, explained = await client.post("/v1/explain", {"query": "Hello there"})
            scores = {row["id"]: row["score"] for row in explained["arms"]}
            assert max(scores, key=lambda arm: scores[arm]) == "alpha"


async def test_a_direct_call_is_never_challenged_and_an_unknown_duel_is_404(
    tmp_path: Path, models: Path
) -> None:
    environ = {"BANDIT_DUELS_SHARE": "1.0"}
    async with a_gateway(tmp_path, models, **environ) as (client, _), _official(client) as asking:
        raw = await asking.chat.completions.with_raw_response.create(model="alpha", messages=HELLO)
        assert "x-duel" not in raw.headers
        status, body = await client.get(f"/v1/duels/{raw.headers['x-decision-id']}")
        assert (status, body["error"]["param"]) == (404, "decision_id")


async def test_users_compare_a_duel_that_no_judge_does(tmp_path: Path, models: Path) -> None:
    environ = {"BANDIT_DUELS_SHARE": "1.0", "BANDIT_POLICY_NAME": "eagle"}
    async with a_gateway(tmp_path, models, **environ) as (client, _), _official(client) as asking:
        answer = await asking.chat.completions.create(model="auto", messages=HELLO)
        await _until_counted(client, 'bandit_duels_total{result="open"}')
        _, kept = await client.get(f"/v1/duels/{answer.id}")
        first, second = (each["arm"] for each in kept["answers"])
        status, _ = await client.post(
            "/v1/comparisons", {"decision_id": answer.id, "winner": second, "loser": first}
        )
        assert status == 200
        _, state = await client.get("/v1/policies/eagle/state")
        assert state["comparisons"] == 1


@pytest.mark.parametrize("both", [True, False])
async def test_a_duel_with_an_answer_of_another_model_is_none(
    both: bool, tmp_path: Path, models: Path
) -> None:
    environ = {"BANDIT_DUELS_SHARE": "1.0", "BANDIT_POLICY_NAME": "eagle"}
    async with a_gateway(tmp_path, models, **environ) as (client, provider):
        first = ""
        own = provider._answer

        def redirected(body: dict[str, Any]) -> dict[str, Any]:
            nonlocal first
            other = both or bool(first)
            first = first or body["model"]
            return own(body) | ({"model": "quite-another"} if other else {})

        provider._answer = redirected  # type: ignore[method-assign]
        async with _official(client) as asking:
            raw = await asking.chat.completions.with_raw_response.create(
                model="auto", messages=HELLO
            )
            if both:
                assert "x-duel" not in raw.headers
            else:
                await _until_counted(client, 'bandit_duels_total{result="none"}')
        status, _ = await client.get(f"/v1/duels/{raw.headers['x-decision-id']}")
        assert status == 404
        assert len(provider.seen) == (1 if both else 2)
