"""Deployments of an arm: failover among real providers, which teaches the arm nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from bandit_service import cli
from bandit_service.core.world import World
from policies import ArmId
from tests.service import dialects
from tests.service.provider import COST, HELLO, Provider, a_provider, signals_of, until
from tests.service.running import Client, opened, serving

SAID: Any = {"role": "assistant", "content": "Hi"}
MORE: Any = {"role": "user", "content": "And then?"}
_ARM: dict[str, Any] = {
    "id": "model",
    "usd_per_mtok_in": 1.0,
    "usd_per_mtok_out": 4.0,
    "usd_per_mtok_cached_in": 0.5,
}
_ONE_THEN_TWO = ({"upstream": "one"}, {"upstream": "two", "priority": 1})
_HASTY, _SLOW = (1, 0.2), (1, 60.0)


@dataclass
class Deployed:
    """A gateway in front of one arm that two providers serve."""

    client: Client
    one: Provider
    two: Provider
    world: World

    def calls(self) -> tuple[int, int]:
        return len(self.one.seen), len(self.two.seen)

    async def ask(self, **more: Any) -> tuple[int, dict[str, str], bytes]:
        async with self.asking(**more) as answer:
            return answer.status, dict(answer.headers), await answer.read()

    def asking(self, **more: Any) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        body = {"model": "auto", "messages": HELLO, **more}
        return self.client.session.post(f"{self.client.url}/v1/chat/completions", json=body)

    async def health(self) -> dict[str, Any]:
        _, arms = await self.client.get("/v1/arms")
        (found,) = [each for each in arms["arms"] if each["id"] == "model"]
        states = {each["id"]: each for each in found["health"]["deployments"]}
        return {"arm": found["health"]["state"], **states}

    async def metric(self, line: str) -> float:
        async with self.client.session.get(f"{self.client.url}/metrics") as answer:
            text = await answer.text()
        found = [each for each in text.splitlines() if each.startswith(f"{line} ")]
        return float(found[0].rsplit(" ", 1)[1]) if found else 0.0


@asynccontextmanager
async def deployed(
    tmp_path: Path,
    models: Path,
    deployments: Sequence[dict[str, Any]] = _ONE_THEN_TWO,
    more: Sequence[dict[str, Any]] = (),
    refuses: bool = False,
    breaker: tuple[int, float] = (3, 5.0),
    first_byte_s: float = 1.0,
    total_s: float = 600.0,
    **environ: str,
) -> AsyncIterator[Deployed]:
    """more: arms beside it. refuses: nobody listens where `one` should be. breaker: failures in a
    row, and seconds. first_byte_s: of `one`. total_s: of both.
    """
    async with a_provider() as one, a_provider() as two:
        urls = {"one": one.url, "two": two.url}
        if refuses:
            urls["one"] = "http://127.0.0.1:1/v1"
        upstreams = [
            {
                "id": id,
                "base_url": url,
                "first_byte_s": first_byte_s if id == "one" else 600.0,
                "total_s": total_s,
            }
            for id, url in urls.items()
        ]
        arms = [_ARM | {"deployments": list(deployments)}, *more]
        environ = {
            "BANDIT_ARMS": json.dumps(arms),
            "BANDIT_UPSTREAMS": json.dumps(upstreams),
            "BANDIT_POLICY_NAME": "epsilon_greedy",
            "BANDIT_GATEWAY_BREAKER_FAILURES": str(breaker[0]),
            "BANDIT_GATEWAY_BREAKER_COOL_S": str(breaker[1]),
            **environ,
        }
        async with opened(tmp_path / "var", models, **environ) as (client, world):
            yield Deployed(client, one, two, world)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["500", "429", "never", "reset", "refuses", "error event"])
async def test_the_other_deployment_answers_and_the_arm_is_taught_no_failure(
    tmp_path: Path, models: Path, how: str, stream: bool
) -> None:
    if how == "error event" and not stream:
        how = "no choices"
    async with deployed(tmp_path, models, refuses=how == "refuses") as it:
        it.one.behaviour["model"] = how
        status, headers, body = await it.ask(stream=stream)
        assert status == 200, body
        assert b"model" in body
        assert (headers["x-arm"], headers["x-deployment"]) == ("model", "two")
        assert headers["x-bandit-reason"] == "only_one", "it is one decision, and no fallback"
        signals = await signals_of(it.client, headers["x-decision-id"])
        assert set(signals) == {"cost_usd", "latency_s"}
        if how == "never":
            assert signals["latency_s"] < 1.0, "of the deployment that answered"
        health = await it.health()
        assert (health["arm"], health["one"]["failures"], health["two"]["failures"]) == (
            "closed",
            1,
            0,
        )
        assert it.world.arms[ArmId("model")].weight == 0.0, "as many outcomes were learned"
        kind = "timeout" if how == "never" else "failed"
        labels = f'arm="model",deployment="one",kind="{kind}"'
        assert await it.metric(f"bandit_deployment_failures_total{{{labels}}}") == 1.0
        failures = f'bandit_upstream_failures_total{{arm="model",kind="{kind}"}}'
        assert await it.metric(failures) == 0.0


async def test_an_arm_fails_only_where_all_of_its_deployments_do(
    tmp_path: Path, models: Path
) -> None:
    spare = _ARM | {"id": "spare", "upstream": "two"}
    async with deployed(tmp_path, models, more=[spare]) as it:
        it.one.behaviour["model"] = it.two.behaviour["model"] = "500"
        seen = False
        while not seen:
            status, headers, _ = await it.ask()
            assert (status, headers["x-arm"]) == (200, "spare")
            seen = bool(it.one.seen)
        assert len(it.one.seen) == len([e for e in it.two.seen if e["model"] == "model"]) == 1
        _, listed = await it.client.get("/v1/decisions")
        failed = [each for each in listed["decisions"] if each["arm"] == "model"]
        assert len(failed) == 1
        signals = await signals_of(it.client, failed[0]["decision_id"])
        assert signals["quality"] == 0.0
        assert it.world.arms[ArmId("model")].weight == 1.0
        status, _, body = await it.ask(model="model")
        assert (status, json.loads(body)["error"]["code"]) == (500, "upstream_failed")


async def test_a_decision_names_the_deployment_that_answered_also_after_a_restart(
    tmp_path: Path, models: Path
) -> None:
    async with deployed(tmp_path, models) as it:
        it.one.behaviour["model"] = "500"
        _, headers, _ = await it.ask()
        id = headers["x-decision-id"]
        await signals_of(it.client, id)
        assert (await it.client.get(f"/v1/decisions/{id}"))[1]["deployment"] == "two"
        it.one.behaviour["model"] = it.two.behaviour["model"] = "500"
        _, headers, _ = await it.ask()
        await signals_of(it.client, headers["x-decision-id"])
        _, failed = await it.client.get(f"/v1/decisions/{headers['x-decision-id']}")
        assert "deployment" not in failed
        assert (await it.client.post("/v1/snapshots", {}))[0] == 200
        digest = it.world.digest()
    async with deployed(tmp_path, models) as it:
        assert it.world.digest() == digest
        assert (await it.client.get(f"/v1/decisions/{id}"))[1]["deployment"] == "two"


@pytest.mark.parametrize("stream", [False, True])
async def test_one_request_causes_no_more_calls_than_it_may(
    tmp_path: Path, models: Path, stream: bool
) -> None:
    spare = _ARM | {"id": "spare", "upstream": "two"}
    async with deployed(
        tmp_path, models, more=[spare], first_byte_s=0.2, BANDIT_GATEWAY_MAX_CALLS="1"
    ) as it:
        it.one.behaviour["model"] = "never"
        for model in ("model", "auto?arms=model"):
            status, _, body = await it.ask(model=model, stream=stream)
            assert status == 504, body
            assert json.loads(body)["error"]["message"] == (
                "arm 'model' failed: no answer within 0.2 s; "
                "no other is called after 1 calls (gateway.max_calls)"
            )
        assert it.two.seen == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deployment_that_gets_only_the_rest_of_a_requests_time_has_not_failed(
    tmp_path: Path, models: Path, stream: bool
) -> None:
    async with deployed(tmp_path, models, first_byte_s=0.2, BANDIT_GATEWAY_REQUEST_S="0.5") as it:
        it.one.behaviour["model"] = "never"
        it.two.behaviour["model"] = "endless" if stream else "never"
        status, headers, body = await it.ask(stream=stream)
        assert status == (200 if stream else 504), body
        assert b"the request has taken 0.5 s (gateway.request_s)" in body
        assert (b"am " in body) is stream, "what came was passed on"
        health = await it.health()
        failures = [health[each]["failures"] for each in ("one", "two")]
        assert (health["arm"], failures) == ("closed", [1, 0])
        signals = await signals_of(it.client, headers["x-decision-id"], most=1)
        assert "quality" not in signals
        assert await it.metric("bandit_clients_left_total") == 0.0
        assert await it.metric('bandit_estimated_cost_usd_total{arm="model"}') > 0.0


async def test_the_calls_of_all_arms_count_for_one_request(tmp_path: Path, models: Path) -> None:
    spare = [_ARM | {"id": f"spare{i}", "upstream": "two"} for i in range(3)]
    async with deployed(
        tmp_path, models, more=spare, BANDIT_GATEWAY_MAX_CALLS="2", BANDIT_GATEWAY_ATTEMPTS="20"
    ) as it:
        for id in ("model", *(each["id"] for each in spare)):
            it.one.behaviour[id] = it.two.behaviour[id] = "unsuited"
        status, _, body = await it.ask()
        assert (status, sum(it.calls())) == (400, 2)
        message = json.loads(body)["error"]["message"]
        assert message == "too long; no other is called after 2 calls (gateway.max_calls)"


@pytest.mark.parametrize("how", ["500", "rejected"])
async def test_the_calls_of_all_embedders_count_for_one_request(
    tmp_path: Path, models: Path, how: str
) -> None:
    arms = [
        _ARM | {"id": f"e{i}", "upstream": "two", "kind": "embedding", "dimensions": 3}
        for i in range(3)
    ]
    async with deployed(tmp_path, models, more=arms, BANDIT_GATEWAY_MAX_CALLS="2") as it:
        it.two.behaviour |= {each["id"]: how for each in arms}
        body = {"model": "auto", "input": "Hello"}
        _, told = await it.client.post("/v1/embeddings", body)
        assert it.calls() == (0, 2)
        says = "; no other is called after 2 calls (gateway.max_calls)"
        assert told["error"]["message"].endswith(says), told


async def test_retry_after_keeps_a_deployment_out(tmp_path: Path, models: Path) -> None:
    async with deployed(tmp_path, models) as it:
        it.one.behaviour["model"] = "429"  # which asks for seven seconds
        for _ in range(5):
            status, headers, _ = await it.ask()
            assert (status, headers["x-deployment"]) == (200, "two")
        assert it.calls() == (1, 5)
        health = await it.health()
        assert (health["one"]["state"], health["arm"]) == ("open", "closed")
        up = 'bandit_deployment_up{arm="model",deployment="one"}'
        assert await it.metric(up) == 0.0
        assert await it.metric('bandit_upstream_up{arm="model"}') == 1.0


async def test_a_deployment_comes_back_after_its_pause(tmp_path: Path, models: Path) -> None:
    async with deployed(tmp_path, models, breaker=_HASTY) as it:
        it.one.behaviour["model"] = "500"
        assert (await it.ask())[1]["x-deployment"] == "two"
        it.one.behaviour.clear()

        async def due() -> bool:
            return bool((await it.health())["one"]["state"] == "half open")

        await until(due)
        assert (await it.ask())[1]["x-deployment"] == "one"
        assert (await it.health())["one"] == {
            "id": "one",
            "upstream": "one",
            "state": "closed",
            "running": 0,
            "failures": 0,
        }


async def test_a_masked_arm_that_is_named_is_asked_all_the_same(
    tmp_path: Path, models: Path
) -> None:
    async with deployed(tmp_path, models, breaker=_SLOW) as it:
        it.one.behaviour["model"] = it.two.behaviour["model"] = "500"
        assert (await it.ask())[0] == 500
        assert (await it.health())["arm"] == "open"
        it.one.behaviour.clear()
        status, headers, _ = await it.ask(model="model")
        assert (status, headers["x-deployment"]) == (200, "one")
        assert (await it.health())["arm"] == "closed"


async def test_a_conversation_stays_where_its_prompt_is_cached(
    tmp_path: Path, models: Path
) -> None:
    """By chance twelve conversations would do so for three turns once in 10^7 times."""
    both = ({"upstream": "one"}, {"upstream": "two"})
    homes: dict[str, str] = {}
    turns: Any = {"messages": [*HELLO, SAID, MORE]}

    async def turn(it: Deployed, name: str, **more: Any) -> str:
        status, headers, _ = await it.ask(model=f"auto?conversation={name}", **more)
        assert status == 200
        await signals_of(it.client, headers["x-decision-id"])
        return headers["x-deployment"]

    names = [f"talk-{i}" for i in range(12)]
    async with deployed(tmp_path, models, both, breaker=_HASTY) as it:
        for name in names:
            homes[name] = await turn(it, name)
        assert set(homes.values()) == {"one", "two"}
        for name in names:
            assert await turn(it, name, **turns) == homes[name]
    async with deployed(tmp_path, models, both, breaker=_HASTY) as it:  # the log knows
        for name in names:
            assert await turn(it, name, **turns) == homes[name]
        name = next(each for each in names if homes[each] == "one")
        it.one.behaviour["model"] = "500"
        assert await turn(it, name, **turns) == "two"
        it.one.behaviour.clear()

        async def due() -> bool:
            return bool((await it.health())["one"]["state"] != "open")

        await until(due)
        assert await turn(it, name, **turns) == "two", "which has the prompt now"


async def test_a_stream_that_breaks_off_is_the_deployments_failure(
    tmp_path: Path, models: Path
) -> None:
    async with deployed(tmp_path, models) as it:
        it.one.behaviour["model"] = "half"
        status, headers, body = await it.ask(stream=True)
        assert status == 200
        assert b'"error"' in body
        assert headers["x-deployment"] == "one"
        signals = await signals_of(it.client, headers["x-decision-id"], 0)
        assert "quality" not in signals
        health = await it.health()
        assert (health["arm"], health["one"]["failures"]) == ("closed", 1)
        assert await it.client.reward(headers["x-decision-id"], quality=0.5) == "accepted"


async def test_each_deployment_has_its_price_and_its_name_of_the_model(
    tmp_path: Path, models: Path
) -> None:
    dear = {"upstream": "one", "id": "dear", "model": "model-eu", "usd_per_mtok_out": 40.0}
    async with deployed(tmp_path, models, (dear, *_ONE_THEN_TWO[1:])) as it:
        _, headers, body = await it.ask()
        assert (headers["x-deployment"], it.one.seen[0]["model"]) == ("dear", "model-eu")
        told = {"model": "auto", "messages": HELLO}
        keyless = {"x-keep-model": "off"}
        url = f"{it.client.url}/v1/chat/completions"
        async with it.client.session.post(url, json=told, headers=keyless) as answer:
            assert answer.headers["x-deployment"] == "dear"
        assert "x-answered-model" not in headers
        assert float(headers["x-cost-usd"]) == pytest.approx(COST + 100 * 36.0 / 1e6)
        assert json.loads(body)["model"] == "model-eu"
        it.one.behaviour["model-eu"] = "500"
        _, headers, _ = await it.ask()
        assert (headers["x-deployment"], it.two.seen[0]["model"]) == ("two", "model")
        assert float(headers["x-cost-usd"]) == pytest.approx(COST)


@pytest.mark.parametrize("says", ["model-2026-01-01", "openai/Model", "model-us"])
async def test_a_deployment_that_calls_the_model_as_others_do_has_its_own_price(
    tmp_path: Path, models: Path, says: str
) -> None:
    """It is the arm's model under another name, and no other arm's."""
    dear = {"upstream": "one", "model": "model-eu", "usd_per_mtok_out": 40.0}
    cheap = {"upstream": "two", "model": "model-us", "priority": 1}
    async with deployed(tmp_path, models, (dear, cheap)) as it:
        it.one.calls_it = says
        _, headers, _ = await it.ask()
        assert headers["x-deployment"] == "one"
        assert "x-answered-model" not in headers
        assert float(headers["x-cost-usd"]) == pytest.approx(COST + 100 * 36.0 / 1e6)
        _, decided = await it.client.get(f"/v1/decisions/{headers['x-decision-id']}")
        assert "answered_by" not in decided
        assert await it.metric("bandit_answered_by_other_model_total") == 0.0


async def test_a_full_deployment_is_passed_by(tmp_path: Path, models: Path) -> None:
    narrow = ({"upstream": "two", "max_running": 1}, {"upstream": "one", "priority": 1})
    async with deployed(tmp_path, models, narrow) as it:
        it.two.behaviour["model"] = "endless"
        async with it.asking(stream=True) as first:
            assert first.headers["x-deployment"] == "two"
            assert (await it.ask())[1]["x-deployment"] == "one"
            it.two.finish.set()
            await first.read()


async def test_what_happens_while_a_deployment_is_waited_for_counts_for_the_next(
    tmp_path: Path, models: Path
) -> None:
    """The second fills up and the third is masked while the first does not answer."""
    four: list[dict[str, Any]] = [
        {"upstream": "one", "id": "first"},
        {"upstream": "two", "id": "narrow", "model": "narrow", "max_running": 1, "priority": 1},
        {"upstream": "two", "id": "masked", "model": "masked", "priority": 2},
        {"upstream": "two", "id": "last", "model": "last", "priority": 3},
    ]
    async with deployed(tmp_path, models, four, first_byte_s=600.0) as it:
        it.one.behaviour["model"] = "500 at the end"
        it.two.behaviour |= {"narrow": "endless", "masked": "429"}
        waiting = asyncio.create_task(it.ask())

        async def asked() -> bool:
            return bool(it.one.seen)

        await until(asked)
        it.one.behaviour["model"] = "500"
        async with it.asking(stream=True) as first:
            assert first.headers["x-deployment"] == "narrow"
            assert (await it.ask())[1]["x-deployment"] == "last"
            it.one.finish.set()
            assert (await waiting)[1]["x-deployment"] == "last"
            it.two.finish.set()
            await first.read()
        assert [each["model"] for each in it.two.seen] == ["narrow", "masked", "last", "last"]


async def test_no_third_is_asked_once_a_whole_call_s_time_has_passed(
    tmp_path: Path, models: Path
) -> None:
    three = [{"upstream": "one", "id": f"d{i}", "priority": i} for i in range(3)]
    async with deployed(tmp_path, models, three, total_s=0.2) as it:
        it.one.behaviour["model"] = "never"
        assert (await it.ask())[0] == 504
        assert len(it.one.seen) == 2
        it.one.behaviour["model"] = "500"
        assert (await it.ask())[0] == 500
        assert len(it.one.seen) == 5, "those that fail at once are all asked"


async def test_an_arm_is_full_where_each_deployment_is(tmp_path: Path, models: Path) -> None:
    async with deployed(tmp_path, models, [{"upstream": "two", "max_running": 1}]) as it:
        it.two.behaviour["model"] = "endless"
        async with it.asking(stream=True):
            assert (await it.ask())[0] == 429
            it.two.finish.set()


async def test_weights_share_the_calls_and_the_decision_alone_says_which(
    tmp_path: Path, models: Path
) -> None:
    """Of 40 calls at 9 to 1 fewer than 24 at the heavier one come once in 10^8 times."""
    both = ({"upstream": "one", "weight": 9}, {"upstream": "two", "weight": 1})
    async with deployed(tmp_path, models, both) as it:
        for _ in range(40):
            assert (await it.ask())[0] == 200
        heavy, light = it.calls()
        assert heavy + light == 40
        assert heavy >= 24


async def test_a_refusal_that_is_about_the_request_asks_no_other(
    tmp_path: Path, models: Path
) -> None:
    async with deployed(tmp_path, models) as it:
        it.one.behaviour["model"] = "rejected"
        status, headers, body = await it.ask()
        assert (status, json.loads(body)["error"]["message"]) == (400, "bad tool")
        assert it.calls() == (1, 0)
        assert headers["x-deployment"] == "one"
        assert (await it.health())["one"]["failures"] == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_place_that_refuses_what_another_answers_has_failed(
    tmp_path: Path, models: Path, stream: bool
) -> None:
    async with deployed(tmp_path, models, breaker=_SLOW) as it:
        it.one.behaviour["model"] = "403"
        status, headers, _ = await it.ask(stream=stream)
        assert (status, headers["x-deployment"]) == (200, "two")
        assert set(await signals_of(it.client, headers["x-decision-id"])) == {
            "cost_usd",
            "latency_s",
        }
        health = await it.health()
        assert (health["arm"], health["one"]["state"], health["one"]["running"]) == (
            "closed",
            "open",
            0,
        )
        assert it.world.arms[ArmId("model")].weight == 0.0


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [("403", "403", 403), ("unsuited", "500", 400), ("403", "500", 403), ("403", "rejected", 400)],
)
async def test_a_refusal_is_told_if_no_deployment_answers(
    tmp_path: Path, models: Path, first: str, second: str, status: int
) -> None:
    async with deployed(tmp_path, models, breaker=_SLOW) as it:
        it.one.behaviour["model"], it.two.behaviour["model"] = first, second
        assert (await it.ask())[0] == status
        assert it.calls() == (1, 1)
        health = await it.health()
        assert (health["arm"], health["one"]["state"]) == ("closed", "closed")
        assert health["two"]["state"] == ("open" if second == "500" else "closed")
        assert health["one"]["running"] == health["two"]["running"] == 0
        assert it.world.arms[ArmId("model")].weight == 0.0, "nothing is learned"


async def test_embeddings_and_judges_have_deployments_too(tmp_path: Path, models: Path) -> None:
    embedder = _ARM | {"id": "e", "kind": "embedding", "deployments": list(_ONE_THEN_TWO)}
    critic = _ARM | {"id": "critic", "kind": "judge", "deployments": list(_ONE_THEN_TWO)}
    judges = json.dumps([{"id": "grader", "kind": "llm", "arm": "critic"}])
    async with deployed(tmp_path, models, more=[embedder, critic], BANDIT_JUDGES=judges) as it:
        it.one.behaviour |= {"e": "500", "critic": "500"}
        it.two.judge = lambda _: '{"score": 8}'
        url = f"{it.client.url}/v1/embeddings"
        async with it.client.session.post(url, json={"model": "auto", "input": "x"}) as answer:
            assert (answer.status, answer.headers["x-deployment"]) == (200, "two")
        _, headers, _ = await it.ask()
        signals = await signals_of(it.client, headers["x-decision-id"], 3)
        assert signals["quality"] == 0.8
        assert [each["model"] for each in it.one.seen] == ["e", "model", "critic"]


@asynccontextmanager
async def _two_dialects(
    tmp_path: Path, models: Path, kind: str
) -> AsyncIterator[tuple[str, dialects.Provider, dialects.Provider]]:
    """One arm behind two providers of this dialect."""
    (tmp_path / "key").write_text(dialects.KEY)
    async with dialects.speaking() as (one, first), dialects.speaking() as (two, second):
        key = str(tmp_path / "key")
        upstreams = [
            {"id": id, "kind": kind, "base_url": url, "key_file": key, "provider": "same"}
            for id, url in (("one", first), ("two", second))
        ]
        arm = _ARM | {"deployments": list(_ONE_THEN_TWO), "max_output_tokens": 64_000}
        environ = {
            "BANDIT_ARMS": json.dumps([arm]),
            "BANDIT_UPSTREAMS": json.dumps(upstreams),
            "BANDIT_POLICY_NAME": "uniform",
        }
        async with serving(tmp_path / "var", models, **environ) as client:
            yield client.url, one, two


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["openai", "anthropic", "responses"])
async def test_every_front_reaches_the_other_deployment_of_every_dialect(
    tmp_path: Path, models: Path, kind: str, stream: bool
) -> None:
    async with (
        _two_dialects(tmp_path, models, kind) as (url, one, two),
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as chat,
        anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as claude,
        aiohttp.ClientSession() as session,
    ):
        one.how = "overloaded"
        for front in ("chat", "responses", "messages"):
            if front == "chat":
                raw: Any = await chat.chat.completions.with_raw_response.create(
                    model="auto", messages=HELLO, stream=stream
                )
            elif front == "responses":
                raw = await chat.responses.with_raw_response.create(
                    model="auto", input="Hello there", stream=stream
                )
            else:
                raw = await claude.messages.with_raw_response.create(
                    model="auto", max_tokens=500, messages=HELLO, stream=stream
                )
            assert raw.headers["x-deployment"] == "two"
            if stream:
                parsed = raw.parse()
                parsed = await parsed if asyncio.iscoroutine(parsed) else parsed
                assert [event async for event in parsed]
        assert len(two.seen) == 3
        if kind == "anthropic":
            counted = await claude.messages.count_tokens(model="model", messages=HELLO)
            assert counted.input_tokens == 321
        async with session.get(f"{url}/v1/arms") as answer:
            health = (await answer.json())["arms"][0]["health"]
        assert [each["state"] for each in health["deployments"]] == ["open", "closed"]


def _of_anthropic(place: Path, **urls: str) -> list[dict[str, str]]:
    """Upstreams of Anthropic's kind by id, with a key in a file."""
    (place / "key").write_text(dialects.KEY)
    more = {"kind": "anthropic", "key_file": str(place / "key")}
    return [{"id": id, "base_url": url} | more for id, url in urls.items()]


async def test_signed_thinking_goes_to_no_deployment_of_another_vendor(
    tmp_path: Path, models: Path
) -> None:
    async with dialects.speaking() as (one, first), dialects.speaking() as (two, second):
        upstreams = _of_anthropic(tmp_path, one=first, two=second)
        environ = {
            "BANDIT_ARMS": json.dumps([_ARM | {"deployments": list(_ONE_THEN_TWO)}]),
            "BANDIT_UPSTREAMS": json.dumps(upstreams),
            "BANDIT_POLICY_NAME": "uniform",
            "BANDIT_GATEWAY_BREAKER_FAILURES": "1",  # so that it is masked after the first
            "BANDIT_GATEWAY_BREAKER_COOL_S": "60.0",
        }
        async with (
            serving(tmp_path / "var", models, **environ) as client,
            anthropic.AsyncAnthropic(base_url=client.url, api_key="none", max_retries=0) as claude,
        ):
            turns: list[Any] = [*HELLO]
            await claude.messages.create(model="auto", max_tokens=9, messages=turns)
            thought = {"type": "thinking", "thinking": "Hm.", "signature": dialects.SIGNED}
            said = [thought, {"type": "text", "text": "Hi"}]
            turns += [{"role": "assistant", "content": said}, MORE]
            one.how = "overloaded"
            for model in ("auto", "model"):
                with pytest.raises(anthropic.APIStatusError, match="failed: "):
                    await claude.messages.create(model=model, max_tokens=9, messages=turns)
            assert not two.seen
            raw = await claude.messages.with_raw_response.create(
                model="auto", max_tokens=9, messages=[*HELLO, SAID, MORE]
            )
            assert raw.headers["x-deployment"] == "two", "what is not signed may go anywhere"


async def test_an_arm_is_masked_for_signed_thinking_where_the_signers_deployment_is(
    tmp_path: Path, models: Path
) -> None:
    """Its other deployment answers, and cannot read it; another arm of the vendor can."""
    async with dialects.speaking() as (one, first), dialects.speaking() as (two, second):
        upstreams = _of_anthropic(tmp_path, one=first, two=second)
        spare = _ARM | {"id": "spare", "upstream": "one"}
        environ = {
            "BANDIT_ARMS": json.dumps([_ARM | {"deployments": list(_ONE_THEN_TWO)}, spare]),
            "BANDIT_UPSTREAMS": json.dumps(upstreams),
            "BANDIT_POLICY_NAME": "uniform",
            "BANDIT_GATEWAY_BREAKER_FAILURES": "1",
            "BANDIT_GATEWAY_BREAKER_COOL_S": "60.0",
        }
        async with (
            serving(tmp_path / "var", models, **environ) as client,
            anthropic.AsyncAnthropic(base_url=client.url, api_key="none", max_retries=0) as claude,
        ):
            await claude.messages.create(model="model", max_tokens=9, messages=HELLO)
            thought = {"type": "thinking", "thinking": "Hm.", "signature": dialects.SIGNED}
            said = [thought, {"type": "text", "text": "Hi"}]
            turns: list[Any] = [*HELLO, {"role": "assistant", "content": said}, MORE]
            one.overloaded.add("model")
            with pytest.raises(anthropic.APIStatusError, match="failed: "):
                await claude.messages.create(model="model", max_tokens=9, messages=turns)
            asked = len(one.seen)
            raw = await claude.messages.with_raw_response.create(
                model="auto", max_tokens=9, messages=turns
            )
            assert raw.headers["x-arm"] == "spare"
            assert len(one.seen) == asked + 1, "the masked deployment was not asked"
            assert not two.seen


async def test_what_a_failed_call_cost_is_booked_and_is_not_the_arms(
    tmp_path: Path, models: Path
) -> None:
    budgets = json.dumps([{"scope": "service", "per": "day", "usd": 100.0}])
    async with deployed(tmp_path, models, BANDIT_BUDGETS=budgets) as it:
        it.one.behaviour["model"] = "billed failure"
        _, headers, _ = await it.ask()
        signals = await signals_of(it.client, headers["x-decision-id"])
        assert signals["cost_usd"] == pytest.approx(COST)
        _, rows = await it.client.get("/v1/budgets")
        assert rows["budgets"][0]["spent_usd"] == pytest.approx(2 * COST)
        assert rows["budgets"][0]["held_usd"] == 0.0


async def test_a_deployment_without_an_upstream_does_not_stand_in_for_one_that_fails(
    tmp_path: Path, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The configuration has changed since the API put the arm."""
    async with a_provider() as two:
        at = {id: {"id": id, "base_url": two.url} for id in ("one", "two")}
        environ = {"BANDIT_ARMS": "[]", "BANDIT_POLICY_NAME": "epsilon_greedy"}
        before = environ | {"BANDIT_UPSTREAMS": json.dumps(list(at.values()))}
        async with serving(tmp_path / "var", models, **before) as client:
            arm = _ARM | {"deployments": list(_ONE_THEN_TWO)}
            assert (await client.call("PUT", "/v1/arms/model", arm))[0] in (200, 201)
        after = environ | {"BANDIT_UPSTREAMS": json.dumps([at["two"]])}
        async with opened(tmp_path / "var", models, **after) as (client, world):
            assert "a deployment is never called: its upstream is not configured" in caplog.text
            it = Deployed(client, two, two, world)
            health = await it.health()
            assert [health[id]["state"] for id in ("one", "two")] == ["open", "closed"]
            two.behaviour["model"] = "half"
            _, headers, _ = await it.ask(stream=True)
            signals = await signals_of(client, headers["x-decision-id"], 1)
            assert signals["quality"] == 0.0, "no other deployment answers"


async def test_vectors_that_cannot_be_used_are_paid_at_every_deployment(
    tmp_path: Path, models: Path
) -> None:
    budgets = json.dumps([{"scope": "service", "per": "day", "usd": 100.0}])
    embedder = {"id": "e", "kind": "embedding", "dimensions": 2, "deployments": _ONE_THEN_TWO}
    async with deployed(tmp_path, models, more=[_ARM | embedder], BANDIT_BUDGETS=budgets) as it:
        it.one.behaviour["e"] = it.two.behaviour["e"] = "long vector"
        url, asked = f"{it.client.url}/v1/embeddings", {"model": "e", "input": "x"}
        async with it.client.session.post(url, json=asked) as answer:
            assert answer.status == 502
        assert it.calls() == (1, 1)
        _, rows = await it.client.get("/v1/budgets")
        assert rows["budgets"][0]["spent_usd"] == pytest.approx(2 * 1.0 / 1e6)
        assert rows["budgets"][0]["held_usd"] == 0.0


async def test_a_judge_goes_on_from_a_deployment_that_hangs(tmp_path: Path, models: Path) -> None:
    critic = _ARM | {"id": "critic", "kind": "judge", "deployments": list(_ONE_THEN_TWO)}
    judge = {"id": "grader", "kind": "llm", "arm": "critic", "timeout_s": 0.5}
    async with deployed(
        tmp_path,
        models,
        more=[critic],
        breaker=_SLOW,
        first_byte_s=600.0,
        BANDIT_JUDGES=json.dumps([judge]),
    ) as it:
        it.one.behaviour["critic"] = "never"
        it.two.judge = lambda _: '{"score": 8}'
        _, headers, _ = await it.ask()
        signals = await signals_of(it.client, headers["x-decision-id"], 3)
        assert signals["quality"] == 0.8
        labels = 'arm="critic",deployment="one",kind="timeout"'
        assert await it.metric(f"bandit_deployment_failures_total{{{labels}}}") == 1.0
        up = 'bandit_deployment_up{arm="critic",deployment="one"}'
        assert await it.metric(up) == 0.0


async def test_a_judgement_that_cannot_be_used_is_paid(tmp_path: Path, models: Path) -> None:
    budgets = json.dumps([{"scope": "service", "per": "day", "usd": 100.0}])
    critic = _ARM | {"id": "critic", "kind": "judge", "deployments": list(_ONE_THEN_TWO)}
    judges = json.dumps([{"id": "grader", "kind": "llm", "arm": "critic"}])
    async with deployed(
        tmp_path, models, more=[critic], BANDIT_JUDGES=judges, BANDIT_BUDGETS=budgets
    ) as it:
        it.one.behaviour["critic"] = it.two.behaviour["critic"] = "no choices, billed"
        assert (await it.ask())[0] == 200

        async def paid() -> bool:
            _, rows = await it.client.get("/v1/budgets")
            return bool(rows["budgets"][0]["spent_usd"] > 2.5 * COST)

        await until(paid)
        _, rows = await it.client.get("/v1/budgets")
        assert rows["budgets"][0]["spent_usd"] == pytest.approx(3 * COST)


_WRONG: list[tuple[dict[str, Any], str]] = [
    ({"upstream": "p"}, "arms[0].upstream: leave it out, since each of the deployments names"),
    ({"deployments": [{"upstream": "q"}]}, "deployments[0].upstream: there is no [[upstreams]]"),
    (
        {"deployments": [{"upstream": "p"}, {"upstream": "p"}]},
        "arms[0].deployments[1].id: another one is called 'p'; give each its own id",
    ),
    (
        {"deployments": [{"upstream": "p"}, {"upstream": "claude"}]},
        "deployments[1].upstream: is of kind 'anthropic', and that of deployments[0] of kind",
    ),
    (
        {"deployments": [{"upstream": "p", "weight": 0}]},
        "arms[0].deployments[0].weight: must be above 0",
    ),
    (
        {"deployments": [{"upstream": "p", "priority": -1}]},
        "arms[0].deployments[0].priority: must be from 0 to 1000",
    ),
    ({"deployments": [{"upstream": "p", "wait": 1}]}, "arms[0].deployments[0]"),
    ({"deployments": [{"model": "m"}]}, "arms[0].deployments[0]"),
    (
        {"deployments": [{"upstream": "p", "id": str(i)} for i in range(17)]},
        "arms[0].deployments: must have at most 16, got 17",
    ),
]


@pytest.mark.parametrize(("arm", "says"), _WRONG)
async def test_what_cannot_be_deployed_is_refused_and_changes_nothing(
    tmp_path: Path,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arm: dict[str, Any],
    says: str,
) -> None:
    upstreams = [
        {"id": "p", "base_url": "http://127.0.0.1:9"},
        {"id": "claude", "base_url": "http://127.0.0.1:9", "kind": "anthropic"},
    ]
    wrong = _ARM | {"deployments": [{"upstream": "p"}]} | arm
    monkeypatch.setenv("BANDIT_UPSTREAMS", json.dumps(upstreams))
    monkeypatch.setenv("BANDIT_ARMS", json.dumps([wrong]))
    assert cli.main(["config", "check"]) == 2
    assert says in capsys.readouterr().err
    environ = {"BANDIT_UPSTREAMS": json.dumps(upstreams), "BANDIT_ARMS": "[]"}
    async with serving(tmp_path / "var", models, **environ) as client:
        status, body = await client.call("PUT", "/v1/arms/model", wrong)
        assert status == 400
        assert says.removeprefix("arms[0].") in body["error"]["message"]
        assert (await client.get("/v1/arms"))[1]["arms"] == []


def test_a_judge_may_be_no_deployment_of_an_arm_that_it_grades(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = [
        _ARM | {"deployments": [{"upstream": "p", "model": "same"}]},
        _ARM | {"id": "critic", "kind": "judge", "upstream": "p", "model": "same"},
    ]
    monkeypatch.setenv("BANDIT_ARMS", json.dumps(arms))
    monkeypatch.setenv("BANDIT_UPSTREAMS", '[{"id": "p", "base_url": "http://127.0.0.1:9"}]')
    monkeypatch.setenv("BANDIT_JUDGES", '[{"id": "g", "kind": "llm", "arm": "critic"}]')
    assert cli.main(["config", "check"]) == 2
    assert "'critic' is the model 'same' of 'p'" in capsys.readouterr().err
