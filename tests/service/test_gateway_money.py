"""What was told is in the log: costs before their answers, through kills, and within budgets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bandit_service import logs, settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from bandit_service.core.errors import Unavailable
from bandit_service.gateway import exchange
from bandit_service.runtime.writer import Writer
from tests.full_disk import full_disk
from tests.service.provider import HELLO, a_gateway, a_provider, until
from tests.service.running import Client, Process, serving

_USAGE = {"prompt_tokens": 1000, "completion_tokens": 100}
_COST = (1000 * 2.0 + 100 * 8.0) / 1e6


class Replaying:
    """A provider that gives the same answer to whatever it is asked, and counts."""

    def __init__(self, answer: dict[str, Any] | list[dict[str, Any]]) -> None:
        self.answer = answer
        self.seen: list[dict[str, Any]] = []
        self.go = asyncio.Event()
        self.go.set()

    async def reply(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(await request.json())
        await self.go.wait()
        if isinstance(self.answer, dict):
            return web.json_response(self.answer)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in self.answer:
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response


def whole(usage: Any, **more: Any) -> dict[str, Any]:
    """A whole answer with this usage."""
    message = {"role": "assistant", "content": "hello"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage, **more}


@asynccontextmanager
async def replaying(
    tmp_path: Path, models: Path, answer: Any, kind: str = "openai", **environ: str
) -> AsyncIterator[tuple[Client, Replaying]]:
    """A gateway with one arm, `a`, at 2, 8 and 0.2 USD per million tokens in, out and cached."""
    provider = Replaying(answer)
    app = web.Application()
    app.router.add_post("/{path:.*}", provider.reply)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    arm = {"id": "a", "usd_per_mtok_in": 2.0, "usd_per_mtok_out": 8.0,
           "usd_per_mtok_cached_in": 0.2, "upstream": "p"}  # fmt: skip
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    given = {
        "BANDIT_ARMS": json.dumps([arm]),
        "BANDIT_UPSTREAMS": json.dumps([{"id": "p", "kind": kind, "base_url": url}]),
        "BANDIT_POLICY_NAME": "uniform",
    }
    try:
        async with serving(tmp_path / "var", models, **given, **environ) as client:
            yield client, provider
    finally:
        provider.go.set()
        await runner.cleanup()


async def ask(client: Client, path: str = "chat/completions", **more: Any) -> Any:
    """One request: its status, its headers and its text."""
    body = {"model": "auto", "messages": HELLO, "max_tokens": 50} | more
    url = f"{client.url}/v1/{path}"
    async with client.session.post(url, json=body, headers=client.headers) as answer:
        return answer.status, answer.headers, await answer.text()


async def _metric(client: Client, name: str) -> float:
    async with client.session.get(f"{client.url}/metrics", headers=client.headers) as answer:
        lines = (await answer.text()).splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


async def cost_of(client: Client, id: str) -> float | None:
    _, body = await client.get(f"/v1/decisions/{id}")
    cost: float | None = body["signals"].get("cost_usd")
    return cost


async def test_a_cost_is_known_when_its_answer_is_there(tmp_path: Path, models: Path) -> None:
    """On 5a5a85b it was learned after the answer had left. Asked at once, without waiting."""
    cached = {"prompt_tokens": 500, "completion_tokens": 10, "total_tokens": 8510,
              "cache_read_input_tokens": 8000}  # fmt: skip
    async with replaying(tmp_path, models, whole(cached)) as (client, _):
        for model in ("auto", "a"):
            _, headers, _ = await ask(client, model=model)
            by_hand = (500 * 2 + 8000 * 0.2 + 10 * 8) / 1e6
            assert float(headers["x-cost-usd"]) == pytest.approx(by_hand)
            assert await cost_of(client, headers["x-decision-id"]) == pytest.approx(by_hand)


async def test_a_bill_and_whole_floats_are_read(tmp_path: Path, models: Path) -> None:
    """On 5a5a85b the list prices were told for the one, and no cost for the other."""
    async with replaying(tmp_path, models, whole(_USAGE | {"cost": 0.5})) as (client, provider):
        assert float((await ask(client))[1]["x-cost-usd"]) == 0.5
        provider.answer = whole({"prompt_tokens": 1000.0, "completion_tokens": 100.0})
        assert float((await ask(client))[1]["x-cost-usd"]) == pytest.approx(_COST)


async def test_of_a_stream_the_last_words_come_after_its_cost(tmp_path: Path, models: Path) -> None:
    """On 5a5a85b a later zero took the count back, and the cost came after the end.

    What is read up to the event that tells of the usage, and not beyond, is followed by asking."""
    choice = {"index": 0, "delta": {"content": "hello"}, "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    events = [
        {"choices": [choice]}, {"choices": [end]},
        {"choices": [], "usage": _USAGE}, {"choices": [], "usage": {"prompt_tokens": 0}},
    ]  # fmt: skip
    options = {"stream": True, "stream_options": {"include_usage": True}}
    async with replaying(tmp_path, models, events) as (client, _):
        for _ in range(10):
            body = {"model": "auto", "messages": HELLO} | options
            url = f"{client.url}/v1/chat/completions"
            async with client.session.post(url, json=body) as answer:
                async for line in answer.content:
                    if b"prompt_tokens" in line:
                        break
                id = answer.headers["x-decision-id"]
                assert await cost_of(client, id) == pytest.approx(_COST)


async def test_an_answer_that_fails_costs_what_it_says(tmp_path: Path, models: Path) -> None:
    """On 5a5a85b the usage of an answer without choices was dropped."""
    async with replaying(tmp_path, models, {"choices": [], "usage": _USAGE}) as (client, _):
        status, headers, _ = await ask(client, model="a")
        assert status >= 500
        assert await cost_of(client, headers["x-decision-id"]) == pytest.approx(_COST)


async def test_a_cost_is_booked_though_its_decision_is_forgotten(
    tmp_path: Path, models: Path
) -> None:
    """On 5a5a85b "outcome not learned" was all that was said of it, and budgets missed it."""
    budget = {"scope": "service", "per": "month", "usd": 100.0}
    environ = {"BANDIT_REWARD_MAX_PENDING": "1", "BANDIT_BUDGETS": json.dumps([budget])}
    async with replaying(tmp_path, models, whole(_USAGE), **environ) as (client, provider):
        provider.go.clear()
        asked = [asyncio.create_task(ask(client)) for _ in range(5)]

        async def all_there() -> bool:
            return len(provider.seen) == 5

        await until(all_there)
        provider.go.set()
        assert {status for status, _, _ in await asyncio.gather(*asked)} == {200}
        _, state = await client.get("/v1/budgets")
        row = state["budgets"][0]
        assert (row["spent_usd"], row["held_usd"]) == (pytest.approx(5 * _COST), 0.0)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_completion_tokens": None, "max_tokens": 8000},
        {"max_completion_tokens": 10, "max_tokens": 8000},
        {"max_tokens": 4000, "n": 2},
        {"max_tokens": 10, "max_completion_tokens": -1},
        {"max_tokens": 100, "thinking": {"type": "enabled", "budget_tokens": 7900}},
        {"max_tokens": 100, "extra_body": {"max_new_tokens": 8000}},
    ],
)
async def test_a_hard_budget_is_hard_whatever_limits_are_named(
    tmp_path: Path, models: Path, fields: dict[str, Any]
) -> None:
    """On 5a5a85b ten of twenty at once went through a budget that had room for one."""
    budget = {"scope": "tenant", "per": "month", "usd": 0.1, "pace": False}
    environ = {"BANDIT_BUDGETS": json.dumps([budget])}
    usage = {"prompt_tokens": 10, "completion_tokens": 8000}
    async with replaying(tmp_path, models, whole(usage), **environ) as (client, provider):
        given = fields | {"model": "auto?tenant=t"}
        statuses = [
            status
            for status, _, _ in await asyncio.gather(*(ask(client, **given) for _ in range(20)))
        ]
        assert (statuses.count(200), statuses.count(429)) == (1, 19)
        assert len(provider.seen) == 1
        _, state = await client.get("/v1/budgets")
        assert 0.06 < state["budgets"][0]["spent_usd"] <= 0.1


@pytest.mark.parametrize("path", ["chat/completions", "embeddings"])
async def test_what_costs_nothing_goes_on_when_a_budget_is_overspent(
    tmp_path: Path, models: Path, path: str
) -> None:
    """On 164cc0c0 it was refused with 429 until the window ended."""
    budget = {"scope": "service", "per": "month", "usd": 0.5 * _COST, "pace": False}
    environ = {"BANDIT_BUDGETS": json.dumps([budget])}
    answer = whole(_USAGE) | {"data": [{"embedding": [0.5]}]}
    async with replaying(tmp_path, models, answer, **environ) as (client, provider):
        free = {"usd_per_mtok_in": 0.0, "usd_per_mtok_out": 0.0, "upstream": "p"}
        assert (await client.call("PUT", "/v1/arms/free", free))[0] == 201
        assert (await ask(client, model="a", max_tokens=1))[0] == 200  # and bills more than that
        row = (await client.get("/v1/budgets"))[1]["budgets"][0]
        assert row["spent_usd"] > row["usd"]
        given = {"input": "hello"} if path == "embeddings" else {}
        assert (await ask(client, path, model="a", **given))[0] == 429
        for more in ({"max_tokens": 50}, {"max_tokens": None}, {"n": 3}):
            assert (await ask(client, path, model="free", **given, **more))[0] == 200
        if path == "chat/completions":
            statuses = {(await ask(client))[0] for _ in range(5)}
            assert (statuses, provider.seen[-1]["model"]) == ({200}, "free")


async def test_without_a_limit_a_call_holds_what_the_arm_can_answer_or_all_that_is_left(
    tmp_path: Path, models: Path
) -> None:
    """On 5a5a85b it held four times the usual answer, and ten of twenty went through."""
    budget = {"scope": "service", "per": "month", "usd": 0.1, "pace": False}
    environ = {"BANDIT_BUDGETS": json.dumps([budget])}
    usage = {"prompt_tokens": 10, "completion_tokens": 8000}
    async with replaying(tmp_path, models, whole(usage), **environ) as (client, provider):
        asked = (ask(client, max_tokens=None) for _ in range(20))
        answers = await asyncio.gather(*asked)
        refused = [each for each in answers if each[0] == 429]
        assert (len(refused), len(provider.seen)) == (19, 1)
        assert all("max_output_tokens" in text for _, _, text in refused)
        assert {int(headers["Retry-After"]) for _, headers, _ in refused} <= set(range(1, 6))
        # what is left is less than answers usually cost by now
        status, headers, _ = await ask(client, max_tokens=None)
        assert (status, int(headers["Retry-After"]) > 60) == (429, True)
    limited = {"BANDIT_BUDGETS": json.dumps([budget | {"usd": 0.3}])}
    async with replaying(tmp_path, models, whole(usage), **limited) as (client, provider):
        arm = {"usd_per_mtok_in": 2.0, "usd_per_mtok_out": 8.0, "upstream": "p"}
        assert (await client.call("PUT", "/v1/arms/a", arm | {"max_output_tokens": 8000}))[0] == 200
        await asyncio.gather(*(ask(client, max_tokens=None) for _ in range(20)))
        assert len(provider.seen) == 3  # beside the 0.064 that were spent before


async def test_embeddings_that_tell_only_a_total_cost_their_prompt(
    tmp_path: Path, models: Path
) -> None:
    answer = {"data": [{"embedding": [0.5]}], "usage": {"total_tokens": 500}}
    async with replaying(tmp_path, models, answer) as (client, _):
        _, headers, _ = await ask(client, "embeddings", model="a", input="hello")
        assert float(headers["x-cost-usd"]) == pytest.approx(500 * 2 / 1e6)


def _costs(data: Path) -> tuple[dict[str, float], list[float]]:
    """What the log holds: each decision's cost, and what was spent without one."""
    log = assembly.open_log(settings.read(None, {"BANDIT_DATA_DIR": str(data)}))
    try:
        events = [ev.decode(body) for _, body in log.replay()]
    finally:
        log.close()
    of = {
        event.decision_id: event.cost_usd
        for event in events
        if isinstance(event, ev.Rewarded) and event.cost_usd is not None
    }
    return of, [event.usd for event in events if isinstance(event, ev.Spent)]


async def _told(url: str, i: int, told: list[tuple[str, float]], seen: asyncio.Event) -> None:
    """Ask until the service is gone; note each cost as soon as it is told."""
    body: dict[str, Any] = {
        "messages": HELLO, "model": ("auto", "alpha", "auto")[i % 3], "max_tokens": 400,
    }  # fmt: skip
    stream = i % 3 == 2
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                path = "/v1/embeddings" if i == 0 else "/v1/chat/completions"
                more = {"model": "alpha", "input": "x"} if i == 0 else body
                async with session.post(url + path, json=more) as answer:
                    id = answer.headers.get("x-decision-id", "")
                    if not stream:
                        told.append((id, float(answer.headers["x-cost-usd"])))
                    async for line in answer.content:
                        if stream and b'"usage":{' in line:
                            told.append((id, 0.0))
            except aiohttp.ClientError:
                return
            if len(told) >= 20:
                seen.set()


async def test_what_was_told_of_costs_is_in_the_log_after_a_kill(
    tmp_path: Path, models: Path
) -> None:
    """Killed the moment that an answer arrives, with a dozen clients. On 5a5a85b nine of ten costs
    that clients had been told of were in no log."""
    data = tmp_path / "var"
    async with a_provider() as provider:
        arms = [
            {"id": id, "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0, "upstream": "p"}
            for id in ("alpha", "beta")
        ]
        environ = {
            "BANDIT_ARMS": json.dumps(arms),
            "BANDIT_UPSTREAMS": json.dumps([{"id": "p", "base_url": provider.url}]),
            "BANDIT_POLICY_NAME": "epsilon_greedy", "BANDIT_LOG_LEVEL": "error",
        }  # fmt: skip
        all_told: list[tuple[str, float]] = []
        for _ in range(3):
            process = Process(data, models, **environ)
            url, seen, told = await process.url(), asyncio.Event(), list[tuple[str, float]]()
            clients = [asyncio.create_task(_told(url, i, told, seen)) for i in range(12)]
            await seen.wait()
            process.kill()
            await asyncio.gather(*clients)
            all_told += told
    costs, spent = _costs(data)
    assert len(all_told) >= 60
    lost = [id for id, _ in all_told if id and id not in costs]
    assert not lost
    assert len([id for id, _ in all_told if not id]) <= len(spent)
    assert all(usd in (0.0, pytest.approx(costs[id])) for id, usd in all_told if id)


async def test_where_nothing_can_be_written_no_cost_is_told(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On 5a5a85b a cost was told that no log held."""
    async with replaying(tmp_path, models, whole(_USAGE)) as (client, _):
        make_room = full_disk(monkeypatch)
        status, headers, text = await ask(client)
        assert (status, "hello" in text, "x-cost-usd" in headers) == (200, True, False)
        make_room()
        assert "x-cost-usd" in (await ask(client))[1]


async def test_what_was_spent_while_the_disk_was_full_is_booked_once_it_has_room(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts for budgets meanwhile, and is told. On 164cc0c0 it was lost ("not booked")."""
    budget = [{"scope": "service", "per": "day", "usd": 2.5 * _COST, "pace": False}]
    environ = {"BANDIT_BUDGETS": json.dumps(budget)}
    async with replaying(tmp_path, models, whole(_USAGE), **environ) as (client, provider):
        limit: dict[str, Any] = {"max_tokens": 10}
        make_room = full_disk(monkeypatch)
        decided = json.loads((await ask(client, **limit))[2])["id"]
        choice = {"index": 0, "delta": {"content": "hello"}, "finish_reason": "stop"}
        provider.answer = [{"choices": [choice]}, {"choices": [], "usage": _USAGE}]
        assert "hello" in (await ask(client, stream=True, **limit))[2]
        row = (await client.get("/v1/budgets"))[1]["budgets"][0]
        assert (row["spent_usd"], row["held_usd"]) == (0.0, pytest.approx(2 * _COST))
        assert (await ask(client, max_tokens=400))[0] == 429  # what is left is less than its most
        told = (await client.get("/readyz"))[1]
        assert f"{2 * _COST:.6g} USD of costs wait" in told["why"]
        assert await _metric(client, "bandit_cost_waiting_usd") == pytest.approx(2 * _COST)
        make_room()

        async def written() -> bool:
            return bool((await client.get("/readyz"))[1]["status"] == "ready")

        await until(written)
        row = (await client.get("/v1/budgets"))[1]["budgets"][0]
        assert (row["spent_usd"], row["held_usd"]) == (pytest.approx(2 * _COST), 0.0)
        assert await _metric(client, "bandit_cost_waiting_usd") == 0.0
        assert await _metric(client, "bandit_cost_lost_usd_total") == 0.0
        # a cost that is reported later takes the place of what was booked
        assert await client.reward(decided, quality=1.0, cost_usd=0.5 * _COST) == "accepted"
        row = (await client.get("/v1/budgets"))[1]["budgets"][0]
        assert row["spent_usd"] == pytest.approx(1.5 * _COST)
    of, spent = _costs(tmp_path / "var")
    assert of == {decided: 0.5 * _COST}
    assert spent == [pytest.approx(_COST)] * 2


async def test_a_redirect_that_is_not_written_is_paid_and_nobody_learns_of_it(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exchange, "_seldom", logs.Seldom(60.0))
    submit = Writer.submit

    def full(self: Writer, prepare: Any, **more: Any) -> Any:
        if "_redirected" in getattr(prepare, "__qualname__", ""):
            raise Unavailable("no space")
        return submit(self, prepare, **more)

    monkeypatch.setattr(Writer, "submit", full)
    async with a_gateway(tmp_path, models) as (client, provider):
        own = provider._answer
        monkeypatch.setattr(provider, "_answer", lambda body: own(body) | {"model": "beta"})
        before = (await client.get("/v1/arms"))[1]["arms"]
        for _ in range(3):
            asked = {"model": "alpha", "messages": HELLO}
            _, answer = await client.post("/v1/chat/completions", asked)
            _, decided = await client.get(f"/v1/decisions/{answer['id']}")
            assert decided["signals"] == {}
        after = (await client.get("/v1/arms"))[1]["arms"]
        assert [each["observed"] for each in after] == [each["observed"] for each in before]
    told = [each for each in caplog.records if each.message == "another model answered"]
    assert len(told) == 1, "a provider may do so each time"
