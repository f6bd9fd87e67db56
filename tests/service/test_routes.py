"""Routes by every front and by decide, with real clients; a restart; and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

import policies
from bandit_service import cli, settings
from bandit_service.core import codec
from bandit_service.runtime.folding import fold_elsewhere
from tests.service.provider import ARMS, COST, HELLO, a_gateway, signals_of, until
from tests.service.running import Client, a_vector, opened

BOT: dict[str, Any] = {
    "id": "support-bot",
    "arms": ["beta", "gamma"],
    "willingness_to_pay": 0.5,
    "policy": "epsilon_greedy",
    "parameters": {"epsilon": 0.5},
}
_PLAIN = {"id": "plain"}


def _routes(*routes: dict[str, Any], **more: str) -> dict[str, str]:
    return {"BANDIT_ROUTES": json.dumps(routes or [BOT, _PLAIN]), **more}


async def _decided(client: Client, id: str) -> dict[str, Any]:
    _, body = await client.get(f"/v1/decisions/{id}")
    found: dict[str, Any] = body
    return found


async def _metric(client: Client, line: str) -> float:
    async with client.session.get(f"{client.url}/metrics") as answer:
        text = await answer.text()
    found = [each for each in text.splitlines() if each.startswith(f"{line} ")]
    return float(found[0].rsplit(" ", 1)[1]) if found else 0.0


async def test_a_route_answers_on_every_front_with_its_own_arms_and_worth(
    tmp_path: Path, models: Path
) -> None:
    async with (
        a_gateway(tmp_path, models, **_routes()) as (client, provider),
        openai.AsyncOpenAI(base_url=f"{client.url}/v1", api_key="none", max_retries=0) as chat,
        anthropic.AsyncAnthropic(base_url=client.url, api_key="none", max_retries=0) as claude,
    ):
        message: Any = {"max_tokens": 9, "messages": HELLO}
        for name in ("support-bot", "support-bot?max_cost_usd=1"):
            made: list[Any] = [
                await chat.chat.completions.with_raw_response.create(model=name, messages=HELLO),
                await chat.responses.with_raw_response.create(model=name, input="Hello there"),
                await chat.completions.with_raw_response.create(model=name, prompt="Once"),
                await claude.messages.with_raw_response.create(model=name, **message),
            ]
            for raw in made:
                assert raw.headers["x-route"] == "support-bot"
                assert raw.headers["x-arm"] in ("beta", "gamma")
                body = await _decided(client, raw.headers["x-decision-id"])
                assert (body["route"], body["willingness_to_pay"]) == ("support-bot", 0.5)
                assert set(body["propensities"]) == {"beta", "gamma"}
        stream = await chat.chat.completions.with_raw_response.create(
            model="plain", messages=HELLO, stream=True
        )
        assert stream.headers["x-route"] == "plain"
        assert [each async for each in stream.parse()]
        body = await _decided(client, stream.headers["x-decision-id"])
        assert (set(body["propensities"]), body["willingness_to_pay"]) == (set(ARMS), 0.1)
        raw = await chat.chat.completions.with_raw_response.create(model="auto", messages=HELLO)
        assert "x-route" not in raw.headers
        assert "route" not in await _decided(client, raw.headers["x-decision-id"])
        listed = [each.id async for each in chat.models.list()]
        assert listed == ["auto", "support-bot", "plain", *ARMS]
        with pytest.raises(
            openai.NotFoundError, match="expected one of auto, support-bot, plain, alpha"
        ):
            await chat.chat.completions.create(model="nobody", messages=HELLO)
        with pytest.raises(
            openai.NotFoundError, match="arms: no 'alpha'; expected one of beta, gamma"
        ):
            await chat.chat.completions.create(model="support-bot?arms=alpha", messages=HELLO)
        narrow = await chat.chat.completions.with_raw_response.create(
            model="support-bot?arms=gamma", messages=HELLO
        )
        assert narrow.headers["x-arm"] == "gamma"
        counted = await claude.messages.count_tokens(model="support-bot", messages=HELLO)
        assert counted.input_tokens > 0
        with pytest.raises(openai.NotFoundError, match="no arm 'support-bot'"):
            await chat.embeddings.create(model="support-bot", input="x")
        assert await _metric(client, 'bandit_route_decisions_total{route="support-bot"}') == 9.0
        assert len(provider.seen) == 11


async def test_a_reward_teaches_the_route_that_decided_and_a_restart_keeps_it(
    tmp_path: Path, models: Path
) -> None:
    pool = [{"id": id, "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0} for id in ARMS]
    environ = _routes(
        BOT | {"parameters": {"epsilon": 0.0}},
        BANDIT_ARMS=json.dumps(pool),
        BANDIT_POLICY_NAME="epsilon_greedy",
        BANDIT_EXPLORATION_SHARE="0",
    )
    async with opened(tmp_path / "var", models, **environ) as (client, world):
        before = codec.dump(world.learners["epsilon_greedy"].state)
        for i in range(12):
            made = await client.decide(query=f"question {i}", route="support-bot")
            assert made["arm"] in ("beta", "gamma")
            await client.reward(made["decision_id"], quality=float(made["arm"] == "gamma"))
        assert codec.dump(world.learners["epsilon_greedy"].state) == before
        made = await client.decide(query="one more", route="support-bot")
        assert (made["arm"], made["route"]) == ("gamma", "support-bot")
        knows, digest = codec.dump(world.learners["route:support-bot"].state), world.digest()
        assert await _metric(client, 'bandit_route_rewards_total{route="support-bot"}') == 12.0
        _, state = await client.get("/v1/policies/route:support-bot/state")
        assert (state["sha256"], state["failures"]) == (codec.sha256(knows), 0)
        assert (await client.get("/v1/policies/route:nobody/state"))[0] == 404
        _, explained = await client.post("/v1/explain", {"query": "x", "route": "support-bot"})
        assert {row["id"] for row in explained["arms"]} == {"beta", "gamma"}
        _, again = await client.post("/v1/explain", {"decision_id": made["decision_id"]})
        assert again["policy"] == "epsilon_greedy"
    async with opened(tmp_path / "var", models, **environ) as (client, world):
        assert world.digest() == digest, "from the log"
        assert codec.dump(world.learners["route:support-bot"].state) == knows
        assert (await client.post("/v1/snapshots", {}))[0] == 200
        made = await client.decide(query="one more", route="support-bot")
        await client.reward(made["decision_id"], quality=1.0)
        digest = world.digest()
    async with opened(tmp_path / "var", models, **environ) as (client, world):
        assert world.digest() == digest, "from the snapshot and what came after it"
        wider = [BOT | {"parameters": {"epsilon": 0.0}, "arms": list(ARMS)}]
    changed = environ | {"BANDIT_ROUTES": json.dumps(wider)}
    async with opened(tmp_path / "var", models, **changed) as (client, world):
        made = await client.decide(query="one more", route="support-bot")
        _, body = await client.get(f"/v1/decisions/{made['decision_id']}")
        assert set(body["propensities"]) == set(ARMS)
        assert codec.dump(world.learners["route:support-bot"].state) != before
    async with opened(tmp_path / "var", models, **environ | {"BANDIT_ROUTES": "[]"}) as (client, _):
        asked = {"query": "x", "route": "support-bot"}
        status, body = await client.post("/v1/decide", asked)
        assert (status, body["error"]["param"]) == (404, "route")
        assert "no route 'support-bot'; none is configured" in body["error"]["message"]


async def test_what_came_of_each_route_is_in_the_metrics(tmp_path: Path, models: Path) -> None:
    environ = _routes(BANDIT_ARMS=_pool(), BANDIT_POLICY_NAME="uniform")
    async with opened(tmp_path / "var", models, **environ) as (client, _):
        for route, quality in (("support-bot", 0.25), ("support-bot", 0.75), ("", 1.0)):
            made = await client.decide(embedding=a_vector(1), route=route)
            await client.reward(made["decision_id"], quality=quality, cost_usd=0.01)
        for line, value in (
            ('bandit_route_quality_mean{route="support-bot"}', 0.5),
            ('bandit_route_quality_mean{route="auto"}', 1.0),
            ('bandit_route_reward_mean{route="auto"}', 0.9),
            ('bandit_route_cost_usd_total{route="support-bot"}', 0.02),
            ('bandit_route_rewards_total{route="support-bot"}', 2.0),
        ):
            assert await _metric(client, line) == pytest.approx(value), line
        async with client.session.get(f"{client.url}/metrics") as answer:
            text = await answer.text()
        assert '_mean{route="plain"}' not in text, "nothing came of it"


async def test_decisions_are_listed_by_route(tmp_path: Path, models: Path) -> None:
    async with opened(tmp_path / "var", models, **_routes(BANDIT_ARMS=_pool())) as (client, _):
        for route in ("", "plain", "support-bot", "plain"):
            await client.decide(query="x", route=route)
        for route, count in (("auto", 1), ("plain", 2), ("support-bot", 1)):
            _, listed = await client.get(f"/v1/decisions?route={route}")
            found = {each["route"] or "auto" for each in listed["decisions"]}
            assert (len(listed["decisions"]), found) == (count, {route})
        status, body = await client.get("/v1/decisions?route=plian")
        assert (status, body["error"]["param"]) == (400, "route")
        assert "expected one of auto, support-bot, plain" in body["error"]["message"]


async def test_a_route_weighs_metrics_and_latency_by_rules_of_its_own(
    tmp_path: Path, models: Path
) -> None:
    metrics = json.dumps([{"name": "resolved", "weight": 3.0}, {"name": "polite"}])
    there = {"BANDIT_ARMS": _pool(), "BANDIT_METRICS": metrics}
    said = {"resolved": 1.0, "polite": 0.0}
    bot = BOT | {"latency_weight": 0.125, "weights": {"polite": 9.0}}

    async def quality(client: Client, id: str) -> float:
        return float((await _decided(client, id))["signals"]["quality"])

    async with opened(tmp_path / "var", models, **there, **_routes(bot, _PLAIN)) as (client, world):
        ids = {}
        for route, expected in (("support-bot", 0.25), ("plain", 0.75), ("", 0.75)):
            made = await client.decide(query="x", route=route)
            ids[route] = id = made["decision_id"]
            await client.reward(id, metrics=said, latency_s=2.0, cost_usd=0.0)
            assert await quality(client, id) == expected
            slow = 0.25 if route == "support-bot" else 0.0
            assert world.pending.decisions[id].reward == pytest.approx(expected - slow)
        told = {each["name"]: each["weight"] for each in (await _decided(client, id))["metrics"]}
        assert told == {"resolved": 3.0, "polite": 1.0}
        body = await _decided(client, ids["support-bot"])
        told = {each["name"]: each["weight"] for each in body["metrics"]}
        assert told == {"resolved": 3.0, "polite": 9.0}
        changed = {"routes": [bot | {"weights": {"polite": 0.0}}, _PLAIN]}
        url, newest = f"{client.url}/v1/configuration", {"If-Match": "*"}
        async with client.session.put(url, json=changed, headers=newest) as answer:
            assert answer.status == 200, await answer.text()

        async def taught() -> bool:
            return not world.named.stale

        await until(taught)
        assert await quality(client, ids["support-bot"]) == 1.0
        assert await quality(client, ids["plain"]) == 0.75
        digest = world.digest()
    async with opened(tmp_path / "var", models, **there, **_routes(bot, _PLAIN)) as (_, world):
        assert world.digest() == digest


async def test_an_experiment_of_a_route_from_the_configuration_to_its_end(
    tmp_path: Path, models: Path
) -> None:
    trial = {
        "id": "trial",
        "route": "support-bot",
        "min_units": 2,
        "variants": [
            {"key": "usual", "weight": 0.5},
            {"key": "other", "weight": 0.5, "policy": "uniform"},
        ],
    }
    environ = _routes(BANDIT_ARMS=_pool(), BANDIT_POLICY_NAME="uniform")
    async with opened(tmp_path / "var", models, **environ) as (client, world):
        for i in range(6):
            made = await client.decide(query=f"before {i}", route="support-bot")
            await client.reward(made["decision_id"], quality=1.0)
        knows = codec.dump(world.learners["route:support-bot"].state)
    environ["BANDIT_EXPERIMENTS"] = json.dumps([trial])
    async with opened(tmp_path / "var", models, **environ) as (client, world):

        async def runs() -> bool:
            return world.experiments.trials["trial"].status == "running"

        await until(runs)
        assert codec.dump(world.learners["trial/usual"].state) == knows, "not the route's past"
        for i in range(12):
            made = await client.decide(query=f"q {i}", route="support-bot", unit=f"u{i}")
            assert (made["experiment"], made["route"]) == ("trial", "support-bot")
            assert made["arm"] in ("beta", "gamma")
            await client.reward(made["decision_id"], quality=1.0)
            assert "experiment" not in await client.decide(query=f"q {i}", unit=f"u{i}")
        _, results = await client.get("/v1/experiments/trial/results")
        assert sum(side["decisions"] for side in results["variants"]) == 12
        decides = [side["decides"] for side in results["variants"]]
        assert decides == ["the policy of the route support-bot", "uniform"]
        ask = {"policies": [{"name": "epsilon_greedy"}], "anyway": True}
        for on, decisions in (("experiment", 12), ("service", 18)):
            status, told = await client.post("/v1/experiments/trial/whatif", {**ask, "on": on})
            assert (status, told["route"], told["log"]["used"]) == (
                200,
                "support-bot",
                decisions,
            )
        status, body = await client.post("/v1/experiments/trial/stop", {"ship": True})
        assert (status, body["error"]["param"]) == (400, "ship")
        status, body = await client.call(
            "PUT", "/v1/experiments/x", {**trial, "id": "x", "route": "no"}
        )
        assert (status, body["error"]["param"]) == (404, "route")
        fixed = [{"key": "a", "weight": 0.5}, {"key": "b", "weight": 0.5, "arm": "alpha"}]
        status, body = await client.call(
            "PUT", "/v1/experiments/x", {"route": "support-bot", "variants": fixed}
        )
        assert (status, body["error"]["message"]) == (
            400,
            "variants.b: no arm 'alpha' is offered by the route 'support-bot'; "
            "expected one of beta, gamma",
        )
        digest = world.digest()
    async with opened(tmp_path / "var", models, **environ) as (client, world):
        assert world.digest() == digest
        assert (await client.post("/v1/experiments/trial/stop", {"winner": "other"}))[0] == 200
        made = await client.decide(query="after", route="support-bot", unit="u1")
        assert "experiment" not in made


async def test_a_route_holds_out_a_share_of_its_units(tmp_path: Path, models: Path) -> None:
    environ = _routes(
        BOT | {"holdout_share": 0.5, "holdout_arm": "beta"},
        _PLAIN,
        BANDIT_ARMS=_pool(),
        BANDIT_POLICY_NAME="uniform",
    )
    async with opened(tmp_path / "var", models, **environ) as (client, _):
        arms = Counter[str]()
        for i in range(12):
            asked = {"embedding": a_vector(1), "unit": f"u{i}", "route": "support-bot"}
            _, body = await client.post("/v1/decide", asked)
            if body.get("experiment") == "holdout:support-bot":
                arms[body["arm"]] += 1
        assert set(arms) == {"beta"}
        status, told = await client.get("/v1/experiments/holdout:support-bot/results")
        assert (status, told["route"]) == (200, "support-bot")
        found = {each["key"]: each["decisions"] for each in told["variants"]}
        assert found == {"holdout": arms["beta"], "routed": 12 - arms["beta"]}
        assert (await client.get("/v1/experiments"))[1]["experiments"] == []
        status, refused = await client.call("DELETE", "/v1/experiments/holdout:support-bot")
        message = refused["error"]["message"]
        assert (status, message) == (
            400,
            "id: 'holdout:support-bot' is a hold-out; holdout_share of the route 'support-bot' "
            "changes it",
        )


async def test_an_experiment_whose_route_is_removed_is_not_started(
    tmp_path: Path, models: Path
) -> None:
    variants = [{"key": "a", "weight": 0.5}, {"key": "b", "weight": 0.5, "policy": "uniform"}]
    there = _routes(BANDIT_ARMS=_pool())
    async with opened(tmp_path / "var", models, **there) as (client, _):
        made = {"route": "plain", "variants": variants}
        assert (await client.call("PUT", "/v1/experiments/e", made))[0] == 201
    async with opened(tmp_path / "var", models, **_routes(BOT, BANDIT_ARMS=_pool())) as (
        client,
        world,
    ):
        status, body = await client.post("/v1/experiments/e/start", {})
        assert (status, body["error"]["param"]) == (404, "route")
        assert world.experiments.trials["e"].status == "draft"


def test_an_experiment_of_a_route_that_is_not_there_is_refused() -> None:
    variants = [{"key": "a", "weight": 0.5}, {"key": "b", "weight": 0.5, "arm": "alpha"}]
    for route, says in (
        ("suport-bot", "experiments[0].route: no route 'suport-bot'; did you mean support-bot?"),
        ("support-bot", "experiments[0].variants.b: 'alpha' is no arm of the route 'support-bot'"),
        ("auto", "experiments[0].route: leave it out for the default route, 'auto'"),
    ):
        trial = json.dumps([{"id": "e", "route": route, "variants": variants}])
        with pytest.raises(settings.BadSettings) as refused:
            settings.read(None, _routes(BANDIT_ARMS=_pool(), BANDIT_EXPERIMENTS=trial))
        assert says in str(refused.value)


async def test_a_policy_that_takes_over_learns_nothing_of_a_route(
    tmp_path: Path, models: Path
) -> None:
    pool = json.dumps([{"id": id, "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0} for id in ARMS])
    environ = _routes(BANDIT_ARMS=pool, BANDIT_POLICY_NAME="uniform")
    async with opened(tmp_path / "var", models, **environ) as (client, world):
        for i in range(6):
            made = await client.decide(query=f"question {i}", route="support-bot")
            await client.reward(made["decision_id"], quality=1.0)
        knows = codec.dump(world.learners["route:support-bot"].state)
        status, _ = await client.call("PUT", "/v1/policy", {"name": "epsilon_greedy"})
        assert status == 202

        async def serves() -> bool:
            _, body = await client.get("/v1/policies")
            return bool(body["serving"]["name"] == "epsilon_greedy")

        await until(serves)
        fresh = policies.load("epsilon_greedy").init()
        assert codec.dump(world.learners["epsilon_greedy"].state) == codec.dump(fresh)
        assert codec.dump(world.learners["route:support-bot"].state) == knows
        digest = world.digest()
    async with opened(tmp_path / "var", models, **environ) as (client, world):
        assert world.digest() == digest


async def test_a_policy_that_is_folded_beside_learns_nothing_of_a_route_meanwhile(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = json.dumps([{"id": id, "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0} for id in ARMS])
    environ = _routes(BANDIT_ARMS=pool, BANDIT_POLICY_NAME="uniform")
    async with opened(tmp_path / "var", models, **environ) as (client, world):
        by_route = await client.decide(query="by the route", route="support-bot")
        by_none = await client.decide(query="by none")

        async def slowly(*args: Any) -> Any:
            folded = await fold_elsewhere(*args)
            if args[0].begin == "fresh":
                await client.reward(by_route["decision_id"], quality=1.0)
                await client.reward(by_none["decision_id"], quality=1.0)
            return folded

        monkeypatch.setattr("bandit_service.runtime.snapshot_making.fold_elsewhere", slowly)
        assert (await client.call("PUT", "/v1/policy", {"name": "epsilon_greedy"}))[0] == 202

        async def serves() -> bool:
            _, body = await client.get("/v1/policies")
            return bool(body["serving"]["name"] == "epsilon_greedy")

        await until(serves)
        state, digest = codec.dump(world.learners["epsilon_greedy"].state), world.digest()
        assert state != codec.dump(policies.load("epsilon_greedy").init()), "nothing came meanwhile"
    for file in (tmp_path / "var" / "snapshots").iterdir():
        file.unlink()
    async with opened(tmp_path / "var", models, **environ) as (client, world):
        assert codec.dump(world.learners["epsilon_greedy"].state) == state
        assert world.digest() == digest


async def test_try_asks_by_a_route(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with a_gateway(tmp_path, models, **_routes()) as (client, provider):
        asked = ["try", "Hello there", "--url", client.url, "--json", "--model", "support-bot"]
        assert await asyncio.to_thread(cli.main, asked) == 0
        shown = json.loads(capsys.readouterr().out)
        assert {row["id"] for row in shown["arms"]["arms"]} == {"beta", "gamma"}
        assert provider.seen[-1]["model"] in ("beta", "gamma")


async def test_a_routes_arm_that_fails_is_followed_by_another_of_the_route(
    tmp_path: Path, models: Path
) -> None:
    async with a_gateway(tmp_path, models, **_routes()) as (client, provider):
        provider.behaviour = {"beta": "500"}
        body = {"model": "support-bot", "messages": HELLO}
        url = f"{client.url}/v1/chat/completions"
        while "beta" not in {each["model"] for each in provider.seen}:
            async with client.session.post(url, json=body) as answer:
                assert (answer.status, answer.headers["x-arm"]) == (200, "gamma")
                id = answer.headers["x-decision-id"]
        assert {each["model"] for each in provider.seen} == {"beta", "gamma"}
        assert (await signals_of(client, id))["cost_usd"] == pytest.approx(COST)


@pytest.mark.parametrize(
    ("asked", "param", "says"),
    [
        ({"route": "nobody"}, "route", "no route 'nobody'; expected one of support-bot, plain"),
        ({"route": "support-bot", "arms": ["alpha"]}, "arms", "'alpha' is no arm of the route"),
        ({"route": "plain", "policy": "eagle"}, "policy", "has its own; leave it out"),
        ({"route": 7}, "route", "Expected `str`"),
    ],
)
async def test_what_a_route_cannot_do_is_refused(
    tmp_path: Path, models: Path, asked: dict[str, Any], param: str, says: str
) -> None:
    async with a_gateway(tmp_path, models, **_routes()) as (client, _):
        status, body = await client.post("/v1/decide", {"query": "x", **asked})
        assert status in (400, 404)
        assert body["error"]["param"] == param
        assert says in body["error"]["message"]


_PRICE = {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0}


def _pool() -> str:
    return json.dumps([{"id": id, **_PRICE} for id in ARMS])


async def test_an_arm_cannot_be_put_under_the_id_of_a_route(tmp_path: Path, models: Path) -> None:
    async with opened(tmp_path / "var", models, **_routes(BANDIT_ARMS=_pool())) as (client, world):
        status, body = await client.call("PUT", "/v1/arms/plain", _PRICE)
        assert (status, body["error"]["param"]) == (400, "id")
        assert "there is a route 'plain'; put the arm under another id" in body["error"]["message"]
        assert set(world.arms) == set(ARMS)
        assert (await client.call("PUT", "/v1/arms/plainer", _PRICE))[0] == 201


async def test_a_route_that_gets_the_id_of_an_arm_of_the_api_starts_and_is_told(
    tmp_path: Path, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = "a route has the id of an arm"
    without = _routes(BOT, BANDIT_ARMS=_pool())
    async with opened(tmp_path / "var", models, **without) as (client, _):
        assert (await client.call("PUT", "/v1/arms/plain", _PRICE))[0] == 201
    assert told not in caplog.text
    with_it = _routes(BANDIT_ARMS=_pool())
    async with opened(tmp_path / "var", models, **with_it) as (client, _):
        assert told in caplog.text
        made = await client.decide(query="x", route="plain")
        assert made["route"] == "plain"
        assert (await client.call("DELETE", "/v1/arms/plain"))[0] == 200
    caplog.clear()
    async with opened(tmp_path / "var", models, **with_it):
        assert told not in caplog.text


async def test_the_only_arm_of_a_route_is_drawn_while_it_is_routed(
    tmp_path: Path, models: Path
) -> None:
    only = BOT | {"arms": ["beta"]}
    async with opened(tmp_path / "var", models, **_routes(only, BANDIT_ARMS=_pool())) as (
        client,
        _,
    ):
        asked: dict[str, Any] = {"query": "x", "route": "support-bot"}
        assert (await client.decide(**asked))["arm"] == "beta"
        unrouted = {**_PRICE, "routed": False}
        assert (await client.call("PUT", "/v1/arms/beta", unrouted))[0] == 200
        status, body = await client.post("/v1/decide", asked)
        assert status == 422
        assert "beta: routed = false, so it has to be named alone" in body["error"]["message"]
        assert (await client.decide(**asked, arms=["beta"]))["arm"] == "beta"
        status, body = await client.post("/v1/decide", asked)
        assert status == 422


async def test_a_decision_of_a_route_that_is_no_more_is_not_explained_again(
    tmp_path: Path, models: Path
) -> None:
    there = _routes(BANDIT_ARMS=_pool())
    async with opened(tmp_path / "var", models, **there) as (client, _):
        id = (await client.decide(query="x", route="plain"))["decision_id"]
        assert (await client.post("/v1/explain", {"decision_id": id}))[0] == 200
    async with opened(tmp_path / "var", models, **_routes(BOT, BANDIT_ARMS=_pool())) as (client, _):
        status, body = await client.post("/v1/explain", {"decision_id": id})
        assert (status, body["error"]["param"]) == (404, "decision_id")
        assert (
            "made by the route 'plain', which is no longer configured" in body["error"]["message"]
        )
        assert (await _decided(client, id))["route"] == "plain"
        assert await client.reward(id, quality=1.0) == "accepted"


async def test_a_start_tells_which_routes_begin_anew_since_policy_was_tuned(
    tmp_path: Path, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begins = "begins with nothing learned"
    there = _routes(BANDIT_ARMS=_pool(), BANDIT_POLICY_NAME="epsilon_greedy")
    async with opened(tmp_path / "var", models, **there) as (client, world):
        for route in ("plain", "support-bot"):
            made = await client.decide(query="x", route=route)
            await client.reward(made["decision_id"], quality=1.0)
        knows = codec.dump(world.learners["route:support-bot"].state)
    async with opened(tmp_path / "var", models, **there):
        assert begins not in caplog.text
    tuned = there | {"BANDIT_POLICY_PARAMETERS": "{epsilon = 0.3}"}
    async with opened(tmp_path / "var", models, **tuned) as (_, world):
        told = [vars(one)["route"] for one in caplog.records if begins in one.getMessage()]
        assert told == ["plain"]
        fresh = codec.dump(policies.load("epsilon_greedy").init())
        assert codec.dump(world.learners["route:plain"].state) == fresh
        assert codec.dump(world.learners["route:support-bot"].state) == knows


def test_config_check_notes_the_routes_that_follow_the_policy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in _routes(BANDIT_ARMS=_pool()).items():
        monkeypatch.setenv(name, value)
    assert cli.main(["config", "check"]) == 0
    (note,) = [line for line in capsys.readouterr().err.splitlines() if "routes[" in line]
    assert note.startswith("note: routes[1].policy: 'plain' decides by the policy of [policy]; ")


_WRONG: list[tuple[dict[str, Any], str]] = [
    ({"id": "auto"}, "routes[0].id: must not be 'auto'"),
    ({"id": "a?b"}, "routes[0].id: must not be 'auto', nor have any of ?:/, in it"),
    ({"id": "alpha"}, "routes[0].id: there is an arm 'alpha'; call one of them otherwise"),
    ({"id": "r", "arms": ["alfa"]}, "routes[0].arms: 'alfa' is no configured arm; did you mean"),
    ({"id": "r", "arms": ["alpha", "alpha"]}, "routes[0].arms: must name each arm once"),
    ({"id": "r", "arms": ["shy"]}, "routes[0].arms: 'shy' has routed = false"),
    ({"id": "r", "arms": ["e"]}, "routes[0].arms: 'e' is of kind 'embedding'"),
    ({"id": "r", "policy": "nestd"}, "routes[0].policy: no policy named 'nestd'"),
    ({"id": "r", "parameters": {"a": 1}}, "routes[0].parameters: name the policy"),
    ({"id": "r", "willingness_to_pay": 0}, "routes[0].willingness_to_pay: must be from 1e-09"),
    ({"id": "r", "reward": 1}, "routes[0].reward"),
    ({"id": "r", "latency_weight": -1}, "routes[0].latency_weight: must be from 0 to 100"),
    ({"id": "r", "weights": {"stars": -1}}, "routes[0].weights.stars: must be a number from 0 to"),
    ({"id": "r", "weights": {"star": 1}}, "routes[0].weights.star: no such metric; did you mean"),
    ({"id": "r", "holdout_share": 0.6}, "routes[0].holdout_share: must be from 0 to 0.5"),
    ({"id": "r", "holdout_share": 0.1}, "routes[0].holdout_arm: name the arm that held-out units"),
    (
        {"id": "r", "arms": ["alpha"], "holdout_arm": "alfa"},
        "routes[0].holdout_arm: 'alfa' is no arm of the route; did you mean",
    ),
    ({"arms": []}, "routes[0].id"),
]


@pytest.mark.parametrize(("route", "says"), _WRONG)
def test_a_route_that_cannot_be_is_refused_by_config_check(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    route: dict[str, Any],
    says: str,
) -> None:
    price = {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 1.0}
    arms = [
        {"id": "alpha", **price},
        {"id": "shy", "routed": False, **price},
        {"id": "e", "kind": "embedding", **price},
    ]
    monkeypatch.setenv("BANDIT_ARMS", json.dumps(arms))
    monkeypatch.setenv("BANDIT_METRICS", json.dumps([{"name": "stars"}]))
    monkeypatch.setenv("BANDIT_ROUTES", json.dumps([route]))
    assert cli.main(["config", "check"]) == 2
    assert says in capsys.readouterr().err


async def test_a_judge_sees_the_answers_of_its_routes_alone(tmp_path: Path, models: Path) -> None:
    judges = [
        {"id": "bot's", "kind": "regex", "pattern": "^I am", "routes": ["support-bot"]},
        {"id": "others", "kind": "regex", "pattern": "^never", "routes": ["auto", "plain"]},
    ]
    environ = _routes(BANDIT_JUDGES=json.dumps(judges))
    async with (
        a_gateway(tmp_path, models, **environ) as (client, _),
        openai.AsyncOpenAI(base_url=f"{client.url}/v1", api_key="none", max_retries=0) as chat,
    ):
        for name, quality in (("support-bot", 1.0), ("auto", 0.0), ("plain", 0.0)):
            answer = await chat.chat.completions.create(model=name, messages=HELLO)
            assert (await signals_of(client, answer.id, 3))["quality"] == quality


def test_a_judge_of_a_route_that_is_not_there_is_refused() -> None:
    judges = [{"id": "j", "kind": "exact", "routes": ["auto", "suport-bot"]}]
    with pytest.raises(settings.BadSettings) as refused:
        settings.read(None, _routes(BANDIT_JUDGES=json.dumps(judges)))
    assert (
        "judges[0].routes: no route 'suport-bot'; did you mean support-bot?; expected one of auto, "
        "support-bot, plain" in str(refused.value)
    )


async def test_a_route_has_a_budget_of_its_own(tmp_path: Path, models: Path) -> None:
    budgets = [{"scope": "route", "id": "support-bot", "per": "month", "usd": 1e-9}]
    environ = _routes(BANDIT_BUDGETS=json.dumps(budgets))
    async with (
        a_gateway(tmp_path, models, **environ) as (client, _),
        openai.AsyncOpenAI(base_url=f"{client.url}/v1", api_key="none", max_retries=0) as chat,
    ):
        for name in ("auto", "plain", "beta"):
            await chat.chat.completions.create(model=name, messages=HELLO)
        with pytest.raises(openai.RateLimitError, match=r"USD per month \(route\) is spent"):
            await chat.chat.completions.create(model="support-bot", messages=HELLO)
        _, found = await client.get("/v1/budgets")
        assert [row["account"] for row in found["budgets"]] == []


async def test_what_a_route_spends_is_booked_on_it(tmp_path: Path, models: Path) -> None:
    budgets = [{"scope": "route", "per": "month", "usd": 5.0}]
    environ = _routes(BANDIT_BUDGETS=json.dumps(budgets))
    async with (
        a_gateway(tmp_path, models, **environ) as (client, _),
        openai.AsyncOpenAI(base_url=f"{client.url}/v1", api_key="none", max_retries=0) as chat,
    ):
        for name in ("support-bot", "support-bot", "auto"):
            answer = await chat.chat.completions.create(model=name, messages=HELLO)
            await signals_of(client, answer.id, 2)
        _, found = await client.get("/v1/budgets")
        (row,) = found["budgets"]
        assert (row["account"], row["spent_usd"]) == ("route:support-bot", pytest.approx(2 * COST))


def test_a_budget_of_a_route_that_is_not_there_is_refused() -> None:
    budgets = [{"scope": "route", "id": "suport-bot", "per": "day", "usd": 1.0}]
    with pytest.raises(settings.BadSettings) as refused:
        settings.read(None, _routes(BANDIT_BUDGETS=json.dumps(budgets)))
    assert (
        "budgets[0].id: there is no [[routes]] with id 'suport-bot'; did you mean support-bot?"
        in str(refused.value)
    )
