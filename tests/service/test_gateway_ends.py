"""Ends: one deadline when the service stops; what it cuts is told so; no verdict is waited for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from tests.service.provider import HELLO, Provider, a_gateway, a_provider, signals_of, until
from tests.service.running import Client, Process, a_vector

_ARMS = ("alpha", "beta", "gamma", "delta")


@asynccontextmanager
async def a_process(
    tmp_path: Path, models: Path, **environ: str
) -> AsyncIterator[tuple[Process, Client, Provider]]:
    """The gateway as a process of its own, in front of a provider."""
    async with a_provider() as provider, aiohttp.ClientSession() as session:
        arms = [
            {
                "id": id,
                "usd_per_mtok_in": 1.0,
                "usd_per_mtok_out": 4.0,
                "upstream": "p",
                "capabilities": ["json"],
                "routed": id != "delta",
            }
            for id in _ARMS
        ]
        environ = {
            "BANDIT_ARMS": json.dumps(arms),
            "BANDIT_UPSTREAMS": json.dumps([{"id": "p", "base_url": provider.url}]),
            **environ,
        }
        process = Process(tmp_path / "var", models, **environ)
        try:
            yield process, Client(session, await process.url()), provider
        finally:
            if process.popen.poll() is None:
                process.kill()


def _events(data: Path) -> list[ev.AnyEvent]:
    log = assembly.open_log(settings.read(None, {"BANDIT_DATA_DIR": str(data)}))
    try:
        return [ev.decode(body) for _, body in log.replay()]
    finally:
        log.close()


async def test_what_the_end_cuts_is_told_so_and_paid_for(tmp_path: Path, models: Path) -> None:
    """On 5a5a85b the process ended after twice the grace, streams broke off without a word, whole
    answers were reset, and what they had cost was in no log."""
    grader = {"id": "grader", "kind": "llm", "arm": "delta"}
    grace = 8
    environ = {"BANDIT_SERVER_SHUTDOWN_S": str(grace), "BANDIT_JUDGES": json.dumps([grader])}
    async with a_process(tmp_path, models, **environ) as (process, client, provider):
        provider.behaviour |= {"alpha": "endless", "delta": "never"}
        url = f"{client.url}/v1/chat/completions"
        ask: dict[str, Any] = {"messages": HELLO, "max_tokens": 50}
        assert (await client.post("/v1/chat/completions", ask | {"model": "beta"}))[0] == 200
        streams = [
            await client.session.post(url, json=ask | {"model": "alpha", "stream": True})
            for _ in range(3)
        ]
        answers = [asyncio.create_task(answer.read()) for answer in streams]
        whole = asyncio.create_task(client.post("/v1/chat/completions", ask | {"model": "delta"}))
        given = {"model": "delta", "input": "x"}
        embedded = asyncio.create_task(client.post("/v1/embeddings", given))

        async def all_there() -> bool:  # the judge's question too
            return [each["model"] for each in provider.seen].count("delta") == 3

        await until(all_there)
        begun = time.monotonic()
        assert await asyncio.to_thread(process.stop) == 0
        assert time.monotonic() - begun < 2 * grace
        for body in await asyncio.gather(*answers):  # each comes to its orderly end
            first, *_, last = body.decode().strip().split("\n\n")
            assert '"content"' in first
            error = json.loads(last.removeprefix("data: "))["error"]
            assert (error["code"], "stopping" in error["message"]) == ("unavailable", True)
        for status, answer in await asyncio.gather(whole, embedded):
            assert (status, answer["error"]["code"]) == (503, "unavailable")
    events = _events(tmp_path / "var")
    decided = [event.id for event in events if isinstance(event, ev.Decided)]
    spent = [event for event in events if isinstance(event, ev.Spent)]
    assert len(decided) == 5
    assert {event.decision_id for event in spent if not event.judge} == {*decided[1:], ""}
    assert [event.decision_id for event in spent if event.judge] == decided[:1]
    failed = {
        event.decision_id
        for event in events
        if isinstance(event, ev.Rewarded) and event.quality is not None
    }
    assert not failed  # it was not the arms' doing


async def test_a_stream_of_which_only_signs_of_life_came_is_told_too(
    tmp_path: Path, models: Path
) -> None:
    environ = {"BANDIT_SERVER_SHUTDOWN_S": "1", "BANDIT_GATEWAY_KEEP_ALIVE_S": "0.05"}
    async with a_process(tmp_path, models, **environ) as (process, client, provider):
        provider.behaviour["alpha"] = "never"
        ask = {"messages": HELLO, "model": "alpha", "stream": True}
        async with client.session.post(f"{client.url}/v1/chat/completions", json=ask) as stream:
            assert await stream.content.readany() == b": keep-alive\n\n"
            stopping = asyncio.create_task(asyncio.to_thread(process.stop))
            last = (await stream.content.read()).decode().strip().split("\n\n")[-1]
        assert await stopping == 0
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "unavailable"


async def test_what_ends_in_time_is_whole(tmp_path: Path, models: Path) -> None:
    environ = {"BANDIT_SERVER_SHUTDOWN_S": "60"}
    async with a_process(tmp_path, models, **environ) as (process, client, provider):
        provider.behaviour["alpha"] = "endless"
        url = f"{client.url}/v1/chat/completions"
        ask = {"messages": HELLO, "model": "alpha", "stream": True}
        stream = await client.session.post(url, json=ask)
        assert b"content" in await stream.content.readline()
        stopping = asyncio.create_task(asyncio.to_thread(process.stop))

        async def draining() -> bool:
            try:
                return (await client.get("/readyz"))[0] == 503
            except aiohttp.ClientError:
                return True

        await until(draining)
        provider.finish.set()
        assert (await stream.read()).endswith(b"data: [DONE]\n\n")
        assert await stopping == 0


async def test_an_answer_that_is_read_slowly_is_whole(tmp_path: Path, models: Path) -> None:
    """What is written when the end comes is not cut before its time."""
    environ = {"BANDIT_SERVER_SHUTDOWN_S": "60"}
    async with a_process(tmp_path, models, **environ) as (process, client, provider):
        provider.says = "x" * 20_000_000
        ask = {"messages": HELLO, "model": "alpha"}
        answer = await client.session.post(f"{client.url}/v1/chat/completions", json=ask)
        stopping = asyncio.create_task(asyncio.to_thread(process.stop))

        async def closed() -> bool:
            host, _, port = client.url.removeprefix("http://").partition(":")
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except ConnectionError:
                return True
            writer.close()
            return False

        await until(closed)
        assert len(await answer.read()) > 20_000_000
        assert await stopping == 0


async def test_frames_of_a_stream_of_ours_are_told_too(tmp_path: Path, models: Path) -> None:
    """On 5a5a85b a WebSocket was closed with its requests unanswered. Here one waits for a body of
    the embedding model that is slow, since many came at once."""
    environ = {"BANDIT_SERVER_SHUTDOWN_S": "0", "BANDIT_EMBEDDING_BATCH_SIZE": "1",
               "BANDIT_EMBEDDING_TIMEOUT_S": "60"}  # fmt: skip
    async with a_process(tmp_path, models, **environ) as (process, client, _):
        socket = await client.session.ws_connect(
            client.url + "/v1/stream", protocols=("bandit.v1",)
        )
        await socket.receive_bytes()
        for i in range(200):
            text = f"{i} " + "a long question about many things " * 200
            await socket.send_bytes(
                msgspec.msgpack.encode({"op": "decide", "id": i, "query": text})
            )
        at_once = {"op": "decide", "id": -1, "embedding": a_vector(1)}
        await socket.send_bytes(msgspec.msgpack.encode(at_once))
        answered: dict[Any, Any] = {}
        while -1 not in answered:
            message = msgspec.msgpack.decode(await socket.receive_bytes())
            answered[message["id"]] = message
        stopping = asyncio.create_task(asyncio.to_thread(process.stop))
        async for frame in socket:
            message = msgspec.msgpack.decode(frame.data)
            answered[message["id"]] = message
        assert set(answered) == {-1, *range(200)}
        cut = [each for each in answered.values() if each.get("error")]
        assert {each["error"]["code"] for each in cut} == {"unavailable"}
        assert await stopping == 0


def _asking(schema: Any) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return {"messages": HELLO, "model": "alpha", "response_format": form}


_DISTINCT = {"type": "array", "uniqueItems": True}
_LONG = json.dumps([{"a": i} for i in range(5000)], separators=(",", ":"))
"""Some 50,000 characters that take more than a minute of CPU to be found distinct."""


async def _counted(client: Client, judge: str, result: str) -> float:
    async with client.session.get(client.url + "/metrics") as response:
        text = await response.text()
    line = f'bandit_judged_total{{judge="{judge}",result="{result}"}} '
    found = [each for each in text.splitlines() if each.startswith(line)]
    return float(found[0].rsplit(" ", 1)[1]) if found else 0.0


def _children(pid: int) -> list[Path]:
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [Path(f"/proc/{each}") for each in pids]


@pytest.mark.parametrize(
    "judge",
    [{"kind": "json_schema"}, {"kind": "regex", "pattern": '^(([^"]|"[^"]*")+)+$x'}],
)
async def test_no_verdict_holds_up_others_nor_the_end(
    tmp_path: Path, models: Path, judge: dict[str, Any]
) -> None:
    """On 5a5a85b eight such calls took every thread for minutes: metrics were not answered, decides
    took a hundred times as long, and the process was still there long after SIGTERM."""
    judges = [{"id": "j", **judge}]
    environ = {"BANDIT_JUDGES": json.dumps(judges), "BANDIT_GATEWAY_VERDICT_S": "60"}
    async with a_process(tmp_path, models, **environ) as (process, client, provider):
        provider.says = _LONG
        for _ in range(8):
            assert (await client.post("/v1/chat/completions", _asking(_DISTINCT)))[0] == 200
        for i in range(30):
            await client.decide(embedding=a_vector(i))
        for result in ("judged", "timeout", "failed"):  # all that was answered before the first one
            assert await _counted(client, "j", result) == 0.0
        children = _children(process.popen.pid)
        assert len(children) == 1
        assert await asyncio.to_thread(process.stop) == 0
        assert not children[0].exists()


async def test_work_without_a_bound_ends_as_no_verdict(tmp_path: Path, models: Path) -> None:
    """On 5a5a85b it went on for minutes, and then was a verdict."""
    listed = {"items": {"not": {"enum": [{"b": i} for i in range(3000)]}}}
    too_large = {"enum": ["x" * 70_000]}
    environ = {
        "BANDIT_JUDGES": json.dumps(
            [{"id": "j", "kind": "json_schema"}, {"id": "exact", "kind": "exact"}]
        ),
        "BANDIT_GATEWAY_VERDICT_S": "0.3",
    }
    async with a_gateway(tmp_path, models, **environ) as (client, provider):
        provider.says = _LONG
        for schema, result, least in (
            (_DISTINCT, "timeout", 1),
            (listed, "timeout", 2),
            (too_large, "large", 1),
        ):
            status, answer = await client.post("/v1/chat/completions", _asking(schema))
            assert status == 200

            async def counted(result: str = result, least: int = least) -> bool:
                return await _counted(client, "j", result) >= least

            await until(counted)
            assert "quality" not in await signals_of(client, answer["id"], 2)
        provider.says = "[1, 2]"
        _, answer = await client.post("/v1/chat/completions", _asking(_DISTINCT))
        assert (await signals_of(client, answer["id"], 3))["quality"] == 1.0
        # accents in another order than the standard's, which are sorted one by one
        provider.says = "a" + "\u0315" * 32_000 + "\u0300" * 32_000
        ask = {"messages": HELLO, "model": "alpha"}
        headers = {"x-expected-answer": "a"}
        url = f"{client.url}/v1/chat/completions"
        async with client.session.post(url, json=ask, headers=headers) as answered:
            assert answered.status == 200

        async def given_up() -> bool:
            return await _counted(client, "exact", "timeout") == 1

        await until(given_up)
