"""The configuration changes while the service runs: whole, recorded, no stream dropped."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from bandit_service import settings
from bandit_service.app import service
from bandit_service.app.pools import RELOADING
from bandit_service.core import events as ev
from bandit_service.http import middleware
from bandit_service.runtime.live_configuration import LiveConfiguration
from bandit_service.settings import keys
from loadtest.postgres import Postgres
from tests.service.command import command
from tests.service.keyring import Keyring
from tests.service.provider import HELLO, Provider, a_gateway, a_provider, until
from tests.service.running import Client, Process, a_vector, opened, prepare, serving
from tests.service.test_replicas import replicas, same, shared

DAY = {"scope": "service", "per": "day", "usd": 1e-9, "on_exhausted": "refuse"}
EXACT = {"id": "words", "kind": "exact", "routes": ["auto"]}
_ASK: dict[str, Any] = {"model": "auto", "messages": HELLO, "max_tokens": 5}


async def change(
    client: Client, body: dict[str, Any], match: str = "*", path: str = "/v1/configuration"
) -> tuple[int, Any]:
    """PUT of sections, or POST of a rollback, of the revision that matches."""
    method = "POST" if path.endswith("rollback") else "PUT"
    headers = client.headers | ({"If-Match": match} if match else {})
    async with client.session.request(
        method, client.url + path, json=body, headers=headers
    ) as answer:
        return answer.status, await answer.json()


async def _taken(client: Client, **body: Any) -> dict[str, Any]:
    status, found = await change(client, body)
    assert status == 200, found
    state: dict[str, Any] = found
    return state


async def _ask(client: Client, **more: Any) -> int:
    status, _ = await client.post("/v1/chat/completions", _ASK | more)
    return status


async def _in_force(client: Client) -> dict[str, Any]:
    _, found = await client.get("/v1/configuration")
    state: dict[str, Any] = found
    return state


async def _agreed(client: Client) -> dict[str, Any]:
    """What all replicas have in force; `others` is each one's own."""
    return _without(await _in_force(client), "others")


def _without(state: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: each for name, each in state.items() if name not in names}


# --- revisions ----------------------------------------------------------------------------


async def test_a_service_of_its_file_alone_is_at_revision_0_and_writes_nothing(
    client: Client,
) -> None:
    async with client.session.get(client.url + "/v1/configuration") as answer:
        assert answer.headers["ETag"] == '"0"'
        state = await answer.json()
    assert (state["revision"], state["history"]) == (0, [])
    assert state["budgets"] == state["upstreams"] == []


async def test_of_two_that_change_one_revision_one_is_told_to_read_it_again(
    client: Client,
) -> None:
    first, second = await asyncio.gather(
        change(client, {"budgets": [DAY], "why": "one"}, '"0"'),
        change(client, {"judges": [EXACT], "why": "two"}, "0"),
    )
    assert sorted((first[0], second[0])) == [200, 412]
    refused = first[1] if first[0] == 412 else second[1]
    assert refused["error"]["code"] == "stale"
    assert refused["error"]["param"] == "If-Match"
    state = await _in_force(client)
    assert state["revision"] == 1
    assert bool(state["budgets"]) != bool(state["judges"])
    assert (await change(client, {"judges": [EXACT]}, '"1"'))[0] == 200


@pytest.mark.parametrize("match", ["", "seven", '"-1"', '"1", "2"'])
async def test_a_change_says_of_which_revision_it_is(client: Client, match: str) -> None:
    status, body = await change(client, {"budgets": [DAY]}, match)
    assert (status, body["error"]["param"]) == (400, "If-Match")
    assert (await _in_force(client))["revision"] == 0


async def test_nothing_is_changed_by_what_is_wrong_and_every_mistake_is_told(
    tmp_path: Path, models: Path
) -> None:
    async with _administered(tmp_path, models) as (client, _, _):
        before = await _in_force(client)
        wrong = {
            "budgets": [DAY, DAY | {"per": "week"}],
            "judges": [{"id": "j", "kind": "exact", "routes": ["bot"]}],
            "upstreams": [{"id": "p", "base_url": "http://h/v1", "key_env": "NO_SUCH_VARIABLE"}],
        }
        status, body = await change(client, wrong)
        assert status == 400
        for place in ("budgets[1].per", "judges[0].routes", "upstreams[0].key_env"):
            assert f"{place}: " in body["error"]["message"]
        assert await _in_force(client) == before
        unknowns: list[dict[str, Any]] = [
            {"budget": [DAY]},
            {"keys": []},
            {"why": "x" * 1001},
            {"budgets": {}},
        ]
        for unknown in unknowns:
            status, body = await change(client, unknown)
            assert (status, body["error"]["code"]) == (400, "invalid_value")
        assert await _in_force(client) == before


async def test_what_the_log_should_not_hold_is_refused(client: Client) -> None:
    judges = [EXACT | {"id": f"j{i}", "rubric": "x" * 10_000} for i in range(30)]
    status, body = await change(client, {"judges": judges})
    assert (status, body["error"]["code"]) == (413, "too_large")
    await _taken(client, judges=judges[:20])


async def test_the_same_again_is_no_change(client: Client) -> None:
    state = await _taken(client, budgets=[DAY], why="a limit")
    assert await _taken(client, budgets=[DAY], why="the same") == state


async def test_a_rollback_is_a_change_of_its_own(client: Client) -> None:
    begun = await _in_force(client)
    await _taken(client, budgets=[DAY], why="a limit")
    second = await _taken(client, judges=[EXACT], budgets=[DAY | {"usd": 5.0}], why="more")
    path = "/v1/configuration/rollback"
    status, state = await change(client, {"to": 0, "why": "too early"}, '"2"', path)
    assert status == 200
    assert _without(state, "revision", "history") == _without(begun, "revision", "history")
    assert [(each["revision"], each["source"], each["why"]) for each in state["history"]] == [
        (3, "rollback", "too early"),
        (2, "api", "more"),
        (1, "api", "a limit"),
        (0, "file", ""),
    ]
    status, state = await change(client, {"to": 2}, '"3"', path)
    assert _without(state, "revision", "history") == _without(second, "revision", "history")
    status, body = await change(client, {"to": 99}, "*", path)
    assert (status, body["error"]["param"]) == (404, "to")
    assert (await change(client, {"to": 1}, '"3"', path))[0] == 412


# --- what follows -------------------------------------------------------------------------


async def test_a_budget_holds_at_once_through_a_kill_until_it_is_taken_back(
    tmp_path: Path, models: Path
) -> None:
    async with a_provider() as provider, aiohttp.ClientSession() as session:
        environ = _gateway_of(provider)
        begun = Process(tmp_path / "var", models, **environ)
        client = Client(session, await begun.url())
        assert await _ask(client) == 200
        await _taken(client, budgets=[DAY], why="stop spending")
        assert await _ask(client) == 429
        await asyncio.to_thread(begun.kill)
        again = Process(tmp_path / "var", models, **environ)
        client = Client(session, await again.url())
        state = await _in_force(client)
        assert (state["revision"], state["budgets"]) == (1, [DAY])
        assert state["history"][0]["why"] == "stop spending"
        assert "changed at run time" in again.log_path.read_text()
        assert await _ask(client) == 429
        await _taken(client, budgets=[])
        assert await _ask(client) == 200
        assert await asyncio.to_thread(again.stop) == 0


def _gateway_of(provider: Provider, **more: Any) -> dict[str, str]:
    arm = {"id": "m", "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0, "upstream": "p"}
    upstream = {"id": "p", "base_url": provider.url}
    return {
        "BANDIT_ARMS": json.dumps([arm]),
        "BANDIT_UPSTREAMS": json.dumps([upstream]),
        **more,
    }


async def test_a_stream_goes_on_where_it_began_while_its_provider_is_changed(
    tmp_path: Path, models: Path
) -> None:
    async with (
        a_provider() as old,
        a_provider() as new,
        _administered(tmp_path, models, **_gateway_of(old)) as (client, _, _),
    ):
        old.behaviour["m"] = "endless"
        url = f"{client.url}/v1/chat/completions"
        body = _ASK | {"stream": True}
        async with client.session.post(url, json=body, headers=client.headers) as answer:
            first = await answer.content.readline()
            assert first.startswith(b"data: ")
            await _taken(client, upstreams=[{"id": "p", "base_url": new.url}], why="moved")
            assert await _ask(client) == 200
            assert (len(old.seen), len(new.seen)) == (1, 1)
            # the dialect of what is under way stays, too
            anthropic = {"id": "p", "base_url": new.url, "kind": "anthropic"}
            await _taken(client, upstreams=[anthropic])
            # and so it does where its upstream is gone
            both = [{"id": "p", "base_url": new.url}, {"id": "q", "base_url": new.url}]
            await _taken(client, upstreams=both)
            spec = {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0, "upstream": "q"}
            assert (await client.call("PUT", "/v1/arms/m", spec))[0] == 200
            await _taken(client, upstreams=both[1:])
            assert await _ask(client) == 200
            old.finish.set()
            rest = (await answer.content.read()).decode()
        assert "[DONE]" in rest
        assert "error" not in rest
        id = answer.headers["x-decision-id"]

        async def booked() -> bool:
            _, decision = await client.get(f"/v1/decisions/{id}")
            return "cost_usd" in decision["signals"]

        await until(booked)


async def test_an_upstream_comes_with_its_arm_and_goes_after_it(
    tmp_path: Path, models: Path
) -> None:
    async with (
        a_provider() as old,
        a_provider() as new,
        _administered(tmp_path, models, **_gateway_of(old)) as (client, _, _),
    ):
        spec = {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0, "upstream": "q"}
        assert (await client.call("PUT", "/v1/arms/n", spec))[0] == 400
        both = [{"id": "p", "base_url": old.url}, {"id": "q", "base_url": new.url}]
        await _taken(client, upstreams=both)
        assert (await client.call("PUT", "/v1/arms/n", spec))[0] == 201
        assert await _ask(client, model="n") == 200
        assert len(new.seen) == 1
        status, body = await change(client, {"upstreams": both[:1]})
        assert (status, body["error"]["param"]) == (400, "arms.n.upstream")
        await client.call("DELETE", "/v1/arms/n")
        await _taken(client, upstreams=both[:1])
        assert await _ask(client, model="n") == 404


async def test_a_judge_grades_from_the_change_on(tmp_path: Path, models: Path) -> None:
    async with a_gateway(tmp_path, models) as (client, _):
        judge = {"id": "says", "kind": "regex", "pattern": "I am"}

        async def graded() -> bool:
            url = f"{client.url}/v1/chat/completions"
            async with client.session.post(url, json=_ASK) as answer:
                id = answer.headers["x-decision-id"]
            _, metrics = await _text(client, "/metrics")
            _, decision = await client.get(f"/v1/decisions/{id}")
            return "quality" in decision["signals"] or 'judge="says"' in metrics

        assert not await graded()
        await _taken(client, judges=[judge])
        await until(graded)


async def _text(client: Client, path: str) -> tuple[int, str]:
    async with client.session.get(client.url + path, headers=client.headers) as answer:
        return answer.status, await answer.text()


async def test_routes_and_metrics_follow_and_what_a_route_learned_is_lost_only_on_purpose(
    client: Client,
) -> None:
    bot = {"id": "bot", "policy": "knn"}
    metric = {"name": "solved", "kind": "boolean"}
    await _taken(client, routes=[bot], metrics=[metric], why="a bot")
    decided = await client.decide(route="bot")
    assert decided["policy"] == "knn"
    assert await client.reward(decided["decision_id"], metrics={"solved": True}) == "accepted"
    _, found = await client.get("/v1/policies/route:bot/state")
    assert found["rewards"] == 1
    status, body = await change(client, {"routes": []})
    assert (status, body["error"]["param"]) == (400, "forget")
    status, body = await change(client, {"to": 0}, "*", "/v1/configuration/rollback")
    assert (status, body["error"]["param"]) == (400, "forget")
    # another willingness to pay keeps what it learned
    await _taken(client, routes=[bot | {"willingness_to_pay": 0.5}])
    _, after = await client.get("/v1/policies/route:bot/state")
    assert after["sha256"] == found["sha256"]
    await _taken(client, routes=[], forget=["bot"])
    status, _ = await client.post("/v1/decide", {"embedding": a_vector(0), "route": "bot"})
    assert status == 404


async def test_other_weights_teach_what_was_rewarded_before(tmp_path: Path, models: Path) -> None:
    async with opened(tmp_path / "var", models) as (client, world):
        stars = {"name": "stars", "low": 1.0, "high": 5.0}
        solved = {"name": "solved", "kind": "boolean"}
        await _taken(client, metrics=[stars, solved])
        id = (await client.decide())["decision_id"]
        await client.reward(id, metrics={"stars": 5, "solved": False})
        assert world.pending.decisions[id].signals["quality"] == pytest.approx(0.5)
        await _taken(client, metrics=[stars, solved | {"weight": 3.0}])

        async def weighed() -> bool:
            return world.pending.decisions[id].signals["quality"] == pytest.approx(0.25)

        await until(weighed)


async def test_a_start_makes_whole_what_a_kill_left_behind_the_event(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event is written; the route's own, which follows from it, is not."""

    async def killed(_: LiveConfiguration) -> None:
        return

    with monkeypatch.context() as patched:
        patched.setattr(LiveConfiguration, "settle", killed)
        async with opened(tmp_path / "var", models) as (client, world):
            await _taken(client, routes=[{"id": "bot", "policy": "knn"}])
            assert not world.routes.specs
    async with opened(tmp_path / "var", models) as (client, world):
        assert list(world.routes.specs) == ["bot"]
        assert (await client.decide(route="bot"))["policy"] == "knn"


# --- keys ---------------------------------------------------------------------------------


async def test_nobody_takes_over_a_service_that_asks_for_no_key(client: Client) -> None:
    admin = {"id": "ops", "scopes": ["admin"]}
    named = {"id": "p", "base_url": "http://h/v1", "key_file": "/no/such/file"}
    for status, body, name in (
        (*await client.post("/v1/keys", admin), "keys"),
        (
            *await change(client, {"upstreams": [{"id": "p", "base_url": "http://h/v1"}]}),
            "upstreams",
        ),
        # and nobody learns which files there are
        (*await change(client, {"upstreams": [named]}), "upstreams"),
    ):
        assert (status, body["error"]["param"]) == (403, name)
    assert (await _in_force(client))["revision"] == 0
    await _taken(client, budgets=[DAY])


async def test_there_is_always_a_key_that_can_change_things(tmp_path: Path, models: Path) -> None:
    async with _administered(tmp_path, models) as (ops, _, _):
        status, body = await ops.call("DELETE", "/v1/keys/ops")
        assert (status, body["error"]["param"]) == (400, "scopes")
        _, made = await ops.post("/v1/keys", {"id": "second", "scopes": ["admin", "read"]})
        second = ops.by(made["key"])
        assert (await second.call("DELETE", "/v1/keys/ops"))[0] == 200
        assert (await ops.get("/v1/arms"))[0] == 401
        assert (await second.get("/v1/arms"))[0] == 200


async def test_an_upstream_gets_no_secret_that_is_not_for_it(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("keys", "elsewhere"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "one").write_text("sk-1")
        (tmp_path / place / "two").write_text("sk-2")
    monkeypatch.setenv("VOTES", "0" * 40)
    environ = {"VOTES": "0" * 40, "BANDIT_FEEDBACK_SECRET_ENV": "VOTES"}
    of = {"id": "p", "base_url": "http://127.0.0.1:9/v1"}
    first = of | {"key_file": str(tmp_path / "keys" / "one")}
    environ["BANDIT_UPSTREAMS"] = json.dumps([first])
    (tmp_path / "keys" / "own").write_text("keys = []")  # a keys file, which has none itself
    environ["BANDIT_SECURITY_KEYS_FILE"] = str(tmp_path / "keys" / "own")
    async with _administered(tmp_path, models, **environ) as (ops, _, _):
        await _taken(ops, upstreams=[of | {"key_file": str(tmp_path / "keys" / "two")}])
        (tmp_path / "var" / "feedback.secret").write_text("as the service would write it")
        for more, param in (
            ({"key_file": str(tmp_path / "elsewhere" / "one")}, "upstreams.p.key_file"),
            ({"key_file": f"{tmp_path}/keys/../elsewhere/one"}, "upstreams.p.key_file"),
            ({"key_file": str(tmp_path / "keys" / "own")}, "upstreams.p.key_file"),
            ({"key_file": str(tmp_path / "var" / "feedback.secret")}, "upstreams.p.key_file"),
            ({"key_file": "/no/such/file"}, "upstreams.p.key_file"),
            ({"key_file": "keys/\0one"}, "upstreams.p.key_file"),
            ({"key_env": "VOTES"}, "upstreams.p.key_env"),
        ):
            status, body = await change(ops, {"upstreams": [of | more]})
            assert (status, body["error"]["param"]) == (400, param)


@asynccontextmanager
async def _administered(
    tmp_path: Path, models: Path, **environ: str
) -> AsyncIterator[tuple[Client, Client, Keyring]]:
    """The service as its administrator asks it, and as the application does."""
    ring = Keyring(ops={"scopes": ["admin", "read", "decide", "reward"]}, app={})
    async with serving(tmp_path / "var", models, **(ring.environ | environ)) as client:
        yield client.by(ring["ops"]), client.by(ring["app"]), ring


async def test_a_revoked_key_is_good_no_more_on_an_open_stream_either(
    tmp_path: Path, models: Path
) -> None:
    async with _administered(tmp_path, models) as (ops, app, _):
        async with ops.session.ws_connect(
            ops.url + "/v1/stream", protocols=("bandit.v1",), headers=app.headers
        ) as socket:

            async def said(number: int) -> dict[str, Any]:
                message = {"op": "decide", "id": number, "embedding": a_vector(0)}
                await socket.send_bytes(msgspec.msgpack.encode(message))
                answer: dict[str, Any] = msgspec.msgpack.decode(await socket.receive_bytes())
                return answer

            assert b"hello" in await socket.receive_bytes()
            assert "decision_id" in json.dumps(await said(1))
            status, left = await ops.call("DELETE", "/v1/keys/app?why=leaked")
            assert (status, [each["id"] for each in left["keys"]]) == (200, ["ops"])
            assert "unauthorized" in json.dumps(await said(2))
        assert (await app.get("/v1/arms"))[0] == 401
        history = (await _in_force(ops))["history"]
        assert (history[0]["by"], history[0]["why"]) == ("ops", "leaked")
        # and a rollback does not bring it back
        await _taken(ops, budgets=[DAY])
        await change(ops, {"to": 0}, "*", "/v1/configuration/rollback")
        assert (await app.get("/v1/arms"))[0] == 401


async def test_a_revoked_key_stays_so_though_the_file_has_it(tmp_path: Path, models: Path) -> None:
    ring = Keyring(ops={"scopes": ["admin", "read"]}, app={})
    async with serving(tmp_path / "var", models, **ring.environ) as client:
        await client.by(ring["ops"]).call("DELETE", "/v1/keys/app")
    ring.tables[1]["rate_per_s"] = 5.0
    async with serving(tmp_path / "var", models, **ring.environ) as client:
        assert (await client.by(ring["app"]).get("/v1/arms"))[0] == 401
        assert (await client.by(ring["ops"]).get("/v1/arms"))[0] == 200


async def test_a_key_is_revoked_whatever_else_is_not_right_any_more(
    tmp_path: Path, models: Path
) -> None:
    secret = tmp_path / "key"
    secret.write_text("sk-1")
    upstream = {"id": "p", "base_url": "http://127.0.0.1:9/v1", "key_file": str(secret)}
    route = {"id": "bot", "policy": "knn", "arms": ["mistral-large-2512"]}
    async with _administered(
        tmp_path,
        models,
        BANDIT_UPSTREAMS=json.dumps([upstream]),
        BANDIT_ROUTES=json.dumps([route]),
        BANDIT_ARMS=json.dumps(
            [
                {"id": id, "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 1.0}
                for id in ("mistral-large-2512", "other")
            ]
        ),
    ) as (ops, app, _):
        secret.unlink()
        assert (await ops.call("DELETE", "/v1/arms/mistral-large-2512"))[0] == 200
        assert (await ops.call("DELETE", "/v1/keys/app"))[0] == 200
        assert (await app.get("/v1/arms"))[0] == 401
        status, body = await change(ops, {"upstreams": [upstream, upstream | {"id": "q"}]})
        assert (status, body["error"]["param"]) == (400, "upstreams[0].key_file")


async def test_what_the_log_has_starts_again_though_a_key_or_an_arm_left_it(
    tmp_path: Path, models: Path
) -> None:
    """A budget names a key that is revoked, a route an arm that is retired, both at run time."""
    spec = {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0}
    route = {"id": "bot", "policy": "knn", "arms": ["n", "mistral-large-2512"]}
    ring = Keyring(ops={"scopes": ["admin", "read", "decide"]}, app={})
    budget = DAY | {"scope": "key", "id": "app"}
    async with serving(tmp_path / "var", models, **ring.environ) as client:
        ops = client.by(ring["ops"])
        assert (await ops.call("PUT", "/v1/arms/n", spec))[0] == 201
        await _taken(ops, routes=[route], budgets=[budget])
        assert (await ops.call("DELETE", "/v1/arms/n"))[0] == 200
        assert (await ops.call("DELETE", "/v1/keys/app"))[0] == 200
        await _taken(ops, judges=[EXACT])
        status, body = await change(ops, {"budgets": [budget, budget | {"per": "hour"}]})
        assert (status, body["error"]["param"]) == (400, "budgets[1].id")
    async with serving(tmp_path / "var", models, **ring.environ) as client:
        state = await _in_force(client.by(ring["ops"]))
        assert (state["routes"], state["budgets"], state["judges"]) == ([route], [budget], [EXACT])
        assert (await client.by(ring["ops"]).decide(route="bot"))["arm"] == "mistral-large-2512"


async def test_the_page_of_a_revoked_key_ends(tmp_path: Path, models: Path) -> None:
    async with (
        _administered(tmp_path, models) as (ops, app, _),
        ops.session.get(ops.url + "/v1/live", headers=app.headers) as live,
    ):
        assert (await live.content.readline()).startswith(b"event: begin")
        await ops.call("DELETE", "/v1/keys/app")
        async with asyncio.timeout(60):
            await live.content.read()


async def test_a_rotated_key_has_a_successor_and_maybe_some_grace(
    tmp_path: Path, models: Path
) -> None:
    async with _administered(tmp_path, models) as (ops, app, _):
        status, made = await ops.post("/v1/keys/app/rotate", {"grace_s": 3600})
        assert status == 200
        assert made["old_expires"]
        second = ops.by(made["key"])
        assert [(await one.get("/v1/arms"))[0] for one in (app, second)] == [200, 200]
        status, made = await ops.post("/v1/keys/app/rotate", {"why": "leaked"})
        third = ops.by(made["key"])
        found = [(await one.get("/v1/arms"))[0] for one in (app, second, third)]
        assert found == [401, 401, 200]
        status, body = await ops.post("/v1/keys/appp/rotate", {})
        assert (status, body["error"]["message"][:37]) == (
            404,
            "id: no key 'appp'; did you mean app?;",
        )
        status, body = await ops.post("/v1/keys/app/rotate", {"grace_s": -1})
        assert (status, body["error"]["param"]) == (400, "grace_s")


async def test_keys_that_are_made_at_once_are_all_there(tmp_path: Path, models: Path) -> None:
    async with _administered(tmp_path, models) as (ops, _, _):
        bodies = [{"id": f"k{i}", "scopes": ["read"]} for i in range(8)]
        made = await asyncio.gather(*(ops.post("/v1/keys", body) for body in bodies))
        assert [status for status, _ in made] == [201] * 8
        found = [(await ops.by(one["key"]).get("/v1/arms"))[0] for _, one in made]
        assert found == [200] * 8
        assert (await _in_force(ops))["revision"] == 8


async def test_no_secret_is_written_anywhere_and_a_new_key_lives_through_a_kill(
    tmp_path: Path, models: Path
) -> None:
    ring = Keyring(ops={"scopes": ["admin", "read"]})
    async with aiohttp.ClientSession() as session:
        begun = Process(tmp_path / "var", models, **ring.environ)
        client = Client(session, await begun.url(), ring["ops"])
        fields = {"id": "app", "scopes": ["decide"], "tenant": "acme", "rate_per_s": 100}
        status, made = await client.post("/v1/keys", fields | {"why": "a new team"})
        assert status == 201
        await asyncio.to_thread(begun.kill)
        again = Process(tmp_path / "var", models, **ring.environ)
        client = Client(session, await again.url(), ring["ops"])
        await client.by(made["key"]).decide()
        _, found = await client.get("/v1/keys")
        assert [(each["id"], each["source"]) for each in found["keys"]] == [
            ("ops", "file"),
            ("app", "api"),
        ]
        assert "hash" not in json.dumps(found)
        status, body = await client.post("/v1/keys", fields)
        assert (status, body["error"]["code"]) == (409, "conflict")
        await client.post("/v1/snapshots", {})
        assert await asyncio.to_thread(again.stop) == 0
    files = [each for each in (tmp_path / "var").rglob("*") if each.is_file()]
    written = [each for each in files if "models" not in each.parts]
    assert len(written) > 2
    for each in written:
        assert made["key"].encode() not in each.read_bytes(), each


async def test_what_is_wrong_with_a_key_is_told_by_its_field(tmp_path: Path, models: Path) -> None:
    async with _administered(tmp_path, models) as (ops, _, _):
        for body, param in (
            ({"id": "x", "scopes": ["decid"]}, "scopes"),
            ({"id": "", "scopes": ["admin"]}, "id"),
            ({"id": "config", "scopes": ["admin"]}, "id"),
            ({"id": "x", "scopes": ["admin"], "expires": "soon"}, "expires"),
            ({"id": "x", "scopes": ["admin"], "hash": "ab" * 32}, "hash"),
        ):
            status, found = await ops.post("/v1/keys", body)
            assert (status, found["error"]["param"]) == (400, param), found
        assert (await _in_force(ops))["revision"] == 0


# --- the file -----------------------------------------------------------------------------


def _toml(provider: Provider, budget: float, more: str = "") -> str:
    return f"""
[policy]
name = "fixed"
parameters = {{ arm = "m" }}

[[upstreams]]
id = "p"
base_url = "{provider.url}"

[[arms]]
id = "m"
usd_per_mtok_in = 1.0
usd_per_mtok_out = 4.0
upstream = "p"

[[budgets]]
scope = "service"
per = "day"
usd = {budget}
on_exhausted = "refuse"
{more}
"""


class _Signalled:
    """A process that is told to read its file again."""

    def __init__(self, process: Process, client: Client) -> None:
        self._process, self._client = process, client

    async def reload(self, result: str) -> None:
        """SIGHUP; over when it was taken or refused."""
        before = await self._count(result)
        self._process.popen.send_signal(signal.SIGHUP)

        async def done() -> bool:
            return await self._count(result) > before

        await until(done)

    async def _count(self, result: str) -> float:
        _, text = await _text(self._client, "/metrics")
        name = f'bandit_configuration_reloads_total{{result="{result}"}} '
        return sum(
            float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name)
        )


async def test_sighup_takes_a_good_file_and_leaves_all_as_it_is_for_a_bad_one(
    tmp_path: Path, models: Path
) -> None:
    file = tmp_path / "bandit.toml"
    async with a_provider() as provider, a_provider() as other, aiohttp.ClientSession() as session:
        file.write_text(_toml(provider, 5.0))
        begun = Process(tmp_path / "var", models, config=str(file))
        client = Client(session, await begun.url())
        signalled = _Signalled(begun, client)
        assert await _ask(client) == 200

        file.write_text(_toml(provider, -1.0, '[[judges]]\nid = "j"\nkind = "regexp"'))
        await signalled.reload("refused")
        log = begun.log_path.read_text()
        assert "budgets[0].usd: must be above 0" in log
        assert "judges[0].kind: must be one of" in log
        state = await _in_force(client)
        assert (state["revision"], state["budgets"][0]["usd"]) == (0, 5.0)
        assert await _ask(client) == 200

        arm = '[[arms]]\nid = "n"\nusd_per_mtok_in = 1.0\nusd_per_mtok_out = 4.0\nupstream = "q"\n'
        upstream = f'[[upstreams]]\nid = "q"\nbase_url = "{other.url}"\n'
        limit = "[server]\nmax_items = 7\n"
        file.write_text(_toml(provider, 1e-9, arm + upstream + limit))
        await signalled.reload("taken")
        state = await _in_force(client)
        assert (state["revision"], state["history"][0]["source"]) == (1, "file")
        assert state["history"][0]["by"] == "config"
        assert set(state["history"][0]["changed"]) == {"upstreams", "budgets"}
        assert await _ask(client) == 429
        log = begun.log_path.read_text()
        assert "server.max_items" in log, "what takes a restart is told by its name"
        assert "server.port" not in log, "and what the command line said is not"

        # what the API changed stays while the file's own entry does not change
        await _taken(client, budgets=[], why="let them")
        file.write_text(_toml(provider, 1e-9, arm + upstream + "[[metrics]]\nname = 'stars'\n"))
        await signalled.reload("taken")
        state = await _in_force(client)
        assert (state["budgets"], state["metrics"]) == ([], [{"name": "stars"}])
        assert await _ask(client, model="n") == 200
        assert len(other.seen) == 1
        await asyncio.to_thread(begun.kill)

        again = Process(tmp_path / "var", models, config=str(file))
        client = Client(session, await again.url())
        assert await _in_force(client) == state
        assert await asyncio.to_thread(again.stop) == 0


async def test_a_file_that_is_cut_off_opens_the_service_to_nobody(
    tmp_path: Path, models: Path
) -> None:
    prepare(tmp_path / "var", models)
    file, (secret, digest) = tmp_path / "bandit.toml", keys.new_key()
    head = f'data_dir = "{tmp_path / "var"}"\n[server]\nport = 0\n'
    file.write_text(f'{head}[[keys]]\nid = "ops"\nhash = "{digest}"\nscopes = ["admin"]\n')
    async with (
        service.serving(settings.read(file, {})) as (url, running),
        aiohttp.ClientSession() as session,
    ):
        file.write_text(head)
        assert not await running[RELOADING].reload()
        assert (await Client(session, url).get("/v1/keys"))[0] == 401
        assert (await Client(session, url, secret).get("/v1/keys"))[0] == 200
    async with (
        service.serving(settings.read(file, {})) as (url, _),
        aiohttp.ClientSession() as session,
    ):
        assert (await Client(session, url).get("/v1/keys"))[0] == 200, "as a restart says"


_ARMS = """
[[arms]]
id = "m"
usd_per_mtok_in = 1.0
usd_per_mtok_out = 4.0
[[arms]]
id = "n"
usd_per_mtok_in = 1.0
usd_per_mtok_out = 4.0
"""
_TRIAL = """
[[experiments]]
id = "trial"
variants = [{key = "a", arm = "m", weight = 0.5}, {key = "b", arm = "n", weight = 0.5}]
"""


async def test_policies_experiments_and_single_settings_of_the_file_need_no_restart(
    tmp_path: Path, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(tmp_path / "var", models)
    file = tmp_path / "bandit.toml"
    head = f'data_dir = "{tmp_path / "var"}"\n[server]\nport = 0\n'
    file.write_text(head + _ARMS.split('[[arms]]\nid = "n"')[0])
    async with (
        service.serving(settings.read(file, {})) as (url, running),
        aiohttp.ClientSession() as session,
    ):
        client, reloading = Client(session, url), running[RELOADING]
        decided = await client.decide(embedding=a_vector(1))
        await client.reward(decided["decision_id"], quality=1.0)

        # an experiment of an arm that is not there: nothing of the file is taken
        beside = '[[policies]]\nname = "eagle"\n'
        file.write_text(head + _ARMS.split('[[arms]]\nid = "n"')[0] + _TRIAL + beside)
        assert not await reloading.reload()
        (refused,) = caplog.records
        assert "no arm 'n' is offered; expected one of m" in refused.__dict__["why"]
        assert (await _in_force(client))["revision"] == 0
        assert (await client.get("/v1/experiments"))[1]["experiments"] == []

        # the same with the arm
        rules = "[reward]\nwillingness_to_pay = 0.5\n[experiment_rules]\nstopped = true\n"
        file.write_text(head + "max_items = 7\n" + rules + _ARMS + _TRIAL + beside)
        caplog.clear()
        assert await reloading.reload()
        (waiting,) = (each for each in caplog.records if each.msg == "these take a restart")
        assert waiting.__dict__["settings"] == ["server.max_items"]
        state = await _in_force(client)
        assert state["policies"] == [{"name": "eagle"}]
        assert state["settings"] == [{"name": "reward.willingness_to_pay", "value": 0.5}]
        assert set(state["history"][0]["changed"]) == {"policies", "settings"}

        async def joined() -> bool:
            rows = (await client.get("/v1/policies"))[1]["beside"]
            return [(each["name"], each["learning"]) for each in rows] == [("eagle", True)]

        await until(joined)
        assert (await client.decide(embedding=a_vector(2), policy="eagle"))["policy"] == "eagle"
        _, trial = await client.get("/v1/experiments/trial")
        assert trial["status"] == "running"
        assert (await client.get("/v1/experiment-rules"))[1]["stopped"] is True
        costly = await client.decide(embedding=a_vector(3))
        await client.reward(costly["decision_id"], quality=1.0, cost_usd=0.25)
        pending = running[middleware.ROUTER].pending.find(costly["decision_id"], None)
        assert pending.reward == 0.5  # 1 - 0.25 / 0.5

        # by the API, with a reason; and back to how it was
        status, told = await change(client, {"policies": [{"name": "nested"}], "why": "no"})
        assert (status, "is the policy that serves" in told["error"]["message"]) == (400, True)
        await _taken(client, policies=[{"name": "knn"}], settings=[], why="another")

        async def another() -> bool:
            rows = (await client.get("/v1/policies"))[1]["beside"]
            return [(each["name"], each["learning"]) for each in rows] == [("knn", True)]

        await until(another)
        status, told = await change(client, {"to": 1}, path="/v1/configuration/rollback")
        assert (status, told["settings"]) == (200, state["settings"])
        await until(joined)

        # what leaves the file is stopped, and what the API made stays
        file.write_text(head + rules.replace("true", "false") + _ARMS)
        assert await reloading.reload()
        _, trial = await client.get("/v1/experiments/trial")
        assert trial["status"] == "stopped"
        assert (await _in_force(client))["policies"] == []
    async with (
        service.serving(settings.read(file, {})) as (url, _),
        aiohttp.ClientSession() as session,
    ):
        client = Client(session, url)
        assert (await client.get("/v1/policies"))[1]["beside"] == []


async def test_what_is_changed_while_the_file_is_read_stays(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path / "var", models)
    file = tmp_path / "bandit.toml"
    head = f'data_dir = "{tmp_path / "var"}"\n[server]\nport = 0\n'
    arm = '[[arms]]\nid = "m"\nusd_per_mtok_in = 1.0\nusd_per_mtok_out = 4.0\n'
    file.write_text(head + arm)
    async with (
        service.serving(settings.read(file, {})) as (url, running),
        aiohttp.ClientSession() as session,
    ):
        client, router = Client(session, url), running[middleware.ROUTER]
        put = router.catalogue.put_arm

        async def meanwhile(*arguments: Any) -> Any:
            await _taken(client, routes=[{"id": "bot", "policy": "knn"}])
            return await put(*arguments)

        monkeypatch.setattr(router.catalogue, "put_arm", meanwhile)
        file.write_text(head + arm + arm.replace('"m"', '"n"'))
        assert await running[RELOADING].reload()
        assert "bot" in router.world.routes.specs


async def test_a_file_that_changed_while_the_service_was_down_is_a_revision(
    tmp_path: Path, models: Path
) -> None:
    first = {"BANDIT_BUDGETS": json.dumps([DAY])}
    async with serving(tmp_path / "var", models, **first) as client:
        await _taken(client, judges=[EXACT])
    second = {"BANDIT_BUDGETS": json.dumps([DAY | {"usd": 3.0}])}
    async with serving(tmp_path / "var", models, **second) as client:
        state = await _in_force(client)
        assert (state["budgets"][0]["usd"], state["judges"]) == (3.0, [EXACT])
        assert [(each["revision"], each["source"]) for each in state["history"]] == [
            (2, "file"),
            (1, "api"),
            (0, "file"),
        ]
    async with serving(tmp_path / "var", models, **second) as client:
        assert await _in_force(client) == state


# --- the command line ---------------------------------------------------------------------

_FILE = """
[[upstreams]]
id = "p"
base_url = "http://127.0.0.1:9/v1"
key_env = "A_KEY_THAT_ONLY_THE_SERVICE_HAS"

[[budgets]]
scope = "tenant"
id = "acme"
per = "day"
usd = 20

[[judges]]
id = "words"
kind = "exact"
routes = ["bot"]

[[routes]]
id = "bot"
policy = "knn"
arms = ["mistral-large-2512"]
"""


async def test_a_file_is_compared_applied_and_taken_back(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY_THAT_ONLY_THE_SERVICE_HAS", "sk-1")
    file = tmp_path / "bandit.toml"
    arms = """
[[arms]]
id = "mistral-large-2512"
usd_per_mtok_in = 0.5
usd_per_mtok_out = 1.5
"""
    file.write_text(_FILE + arms)
    async with _administered(tmp_path, models) as (client, _, ring):
        none = {"A_KEY_THAT_ONLY_THE_SERVICE_HAS": "", "BANDIT_URL": client.url}
        none["BANDIT_KEY"] = ring["ops"]

        async def config(*words: str) -> tuple[int, str, str]:
            said = await command("config", *words, **none)
            return said.status, said.out.decode(), said.err

        status, out, err = await config("diff", "--config", str(file))
        assert (status, out.splitlines()[:1]) == (1, ["revision 0: no change at run time"]), err
        assert [line.split(":")[0] for line in out.splitlines()[1:]] == [
            "+ upstreams.p",
            "+ budgets.tenant acme day",
            "+ judges.words",
            "+ routes.bot",
            "! arms",
        ]
        apply = ("apply", "--config", str(file), "--why", "a first tenant")
        status, out, err = await config(*apply, "--if-match", "3")
        assert (status, "revision 0 is in force, got 3" in err) == (1, True)
        status, out, _ = await config(*apply)
        assert (status, out.splitlines()[-1]) == (0, "revision 1 by ops: a first tenant")
        status, out, _ = await config("diff", "--config", str(file))
        differ = "! arms: mistral-large-2512, llama-3.1-8b-instruct, gemini-2.5-pro (not applied"
        assert (status, out.splitlines()[1][: len(differ)]) == (1, differ)
        file.write_text(_FILE)
        status, out, _ = await config("diff", "--config", str(file))
        assert (status, out.splitlines()[1]) == (0, "the same")
        more = "[server]\nmax_items = 7\n[policy]\nname = 'knn'\n[reward]\nttl_s = 7200\n"
        file.write_text(_FILE + more)
        status, out, _ = await config("diff", "--config", str(file))
        others = [
            '! policy.name: default -> "knn" '
            "(not applied: SIGHUP or a restart with this file takes it)",
            "! server.max_items: default -> 7 (not applied: takes a restart with this file)",
        ]
        assert (status, out.splitlines()[1:]) == (
            1,
            ['+ settings.reward.ttl_s: {"name": "reward.ttl_s", "value": 7200.0}', *others],
        )
        status, out, _ = await config("apply", "--config", str(file))
        assert (status, out.splitlines()[:2]) == (0, others), "before anything is applied"
        status, out, _ = await config("rollback", "1")
        file.write_text(_FILE + arms)
        other = _FILE.replace("usd = 20", "usd = 30").replace('id = "words"', 'id = "w"')
        file.write_text(other + arms)
        status, out, _ = await config("diff", "--config", str(file))
        assert out.splitlines()[1:4] == [
            "~ budgets.tenant acme day: usd: 20.0 -> 30.0",
            "- judges.words",
            '+ judges.w: {"id": "w", "kind": "exact", "routes": ["bot"]}',
        ]
        status, _, err = await config("rollback", "0", "--why", "no")
        assert (status, "forget" in err) == (1, True)
        status, out, _ = await config("rollback", "0", "--why", "no", "--forget", "bot")
        assert (status, out.splitlines()[-1]) == (0, "revision 4 by ops: no")
        assert "- routes.bot" in out
        status, _, err = await config("apply")
        assert (status, "--config" in err) == (2, True)
        status, out, _ = await config("history")
        assert [line.split()[0] for line in out.splitlines()] == ["4", "3", "2", "1", "0"]
        literal = 'headers = {"X-Token" = "hush"}'
        file.write_text(
            _FILE.replace('key_env = "A_KEY_THAT_ONLY_THE_SERVICE_HAS"', literal) + arms
        )
        status, out, _ = await config("diff", "--config", str(file))
        assert (status, "hush" in out, "(hidden)" in out) == (1, False, True)
        file.write_text(_FILE.replace("usd = 20", "usd = -1") + arms)
        status, _, err = await config("diff", "--config", str(file))
        assert (status, "budgets[0].usd: must be above 0" in err) == (2, True)
        assert (await _in_force(client))["revision"] == 4


# --- several replicas ---------------------------------------------------------------------


async def test_every_replica_follows_what_one_was_told(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    ring = Keyring(ops={"scopes": ["admin", "read", "decide", "reward"]}, app={})
    async with (
        a_provider() as provider,
        replicas(2, tmp_path, models, postgres, **ring.environ, **_gateway_of(provider)) as found,
    ):
        clients, worlds = [one.by(ring["ops"]) for one, _ in found], [world for _, world in found]
        routes = [{"id": "bot", "policy": "knn"}]
        await _taken(clients[0], budgets=[DAY], routes=routes, why="all of you")

        async def followed() -> bool:
            state = await _in_force(clients[1])
            return state["revision"] == 1 and "bot" in worlds[1].routes.specs

        await until(followed)
        assert [await _ask(one) for one in clients] == [429, 429]
        taken = await asyncio.gather(
            *(change(one, {"budgets": []}, '"1"') for one in clients),
        )
        assert sorted(status for status, _ in taken) == [200, 412]
        status, _ = await clients[1].call("DELETE", "/v1/keys/app")
        assert status == 200

        async def revoked() -> bool:
            return (await clients[0].by(ring["app"]).get("/v1/arms"))[0] == 401

        await until(revoked)
        assert [await _ask(one) for one in clients] == [200, 200]
        environ = shared(tmp_path, postgres) | ring.environ | _gateway_of(provider)
        async with opened(tmp_path / "late", models, **environ) as (late, world):
            assert await _agreed(late.by(ring["ops"])) == await _agreed(clients[0])
            assert (await late.by(ring["app"]).get("/v1/arms"))[0] == 401
            await same([*worlds, world])


async def test_a_replica_that_cannot_follow_says_so_and_goes_on_with_what_it_had(
    tmp_path: Path, models: Path
) -> None:
    prepare(tmp_path / "var", models)
    environ = {"BANDIT_DATA_DIR": str(tmp_path / "var"), "BANDIT_SERVER_PORT": "0"}
    async with (
        service.serving(settings.read(None, environ)) as (url, running),
        aiohttp.ClientSession() as session,
    ):
        client, writer = Client(session, url), running[middleware.ROUTER].writer
        await _taken(client, budgets=[DAY])
        upstream = {"id": "q", "base_url": "http://127.0.0.1:9/v1"}

        def anothers(revision: int, **more: str) -> ev.ConfigurationChanged:
            sections: dict[str, tuple[dict[str, Any], ...]] = {"upstreams": (upstream | more,)}
            return ev.ConfigurationChanged(ts=writer.now(), revision=revision, sections=sections)

        assert writer.append_now(anothers(2, key_env="NOT_SET_HERE"))
        _, ready = await client.get("/readyz")
        assert "NOT_SET_HERE" in ready["failing"]["follow configuration"]
        state = await _in_force(client)  # of the log, so that nobody undoes it who changes it
        assert state["revision"] == 2
        assert state["upstreams"] == [upstream | {"key_env": "NOT_SET_HERE"}]
        configuration = running[middleware.CONFIGURATION]
        assert not configuration.settings.upstreams
        assert [each.usd for each in configuration.settings.budgets] == [DAY["usd"]]
        assert not await running[RELOADING].reload()
        assert await _in_force(client) == state, "its own file undoes nothing"
        assert writer.append_now(anothers(3))
        assert [each.spec.id for each in configuration.settings.upstreams] == ["q"]
        assert (await client.get("/readyz"))[1]["status"] == "ready"

        secret = tmp_path / "secret"
        assert writer.append_now(anothers(4, key_file=str(secret)))
        assert (await client.get("/readyz"))[1]["status"] != "ready"
        secret.write_text("sk-1")
        assert await running[RELOADING].reload()
        assert [each.key for each in configuration.settings.upstreams] == ["sk-1"]
        assert (await client.get("/readyz"))[1]["status"] == "ready"
        assert (await _in_force(client))["revision"] == 4
