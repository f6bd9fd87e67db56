"""SIGTERM: readiness fails, nothing new is taken, what is under way is answered; then it ends."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from bandit_service.embedding.backends import Backend
from loadtest.openloop import Pool, Traffic, open_loop
from tests.service.running import DIM, Client, Process, a_vector, serving


class _Stopped:
    """An embedding model that does not answer until it is let go."""

    name, dim = "stopped", DIM

    def __init__(self) -> None:
        self.go, self.asked = threading.Event(), threading.Event()

    def encode(self, texts: Any) -> Any:
        self.asked.set()
        assert self.go.wait(60)
        return np.eye(DIM, dtype=np.float32)[: len(texts)]


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Stopped]:
    backend = _Stopped()

    def opened(*_: Any) -> Backend:
        return backend

    monkeypatch.setattr(assembly, "open_backend", opened)
    yield backend
    backend.go.set()


async def _until_refused(client: Client) -> None:
    async with asyncio.timeout(30):
        while True:
            status, _ = await client.get("/readyz")
            if status == 503:
                return
            await asyncio.sleep(0.01)


async def test_while_stopping_nothing_new_is_taken_and_what_is_under_way_is_answered(
    tmp_path: Path, models: Path, stopped: _Stopped
) -> None:
    environ = {
        "BANDIT_SERVER_DRAIN_S": "5",
        "BANDIT_SERVER_SHUTDOWN_S": "60",
        "BANDIT_EMBEDDING_TIMEOUT_S": "100",
    }
    running = serving(tmp_path / "var", models, **environ)
    client = await running.__aenter__()
    async with aiohttp.ClientSession() as session, aiohttp.ClientSession() as other:
        outside = Client(session, client.url)
        url = client.url + "/v1/stream"
        socket = await other.ws_connect(url, protocols=("bandit.v1",))
        await socket.receive_bytes()
        ask = asyncio.create_task(outside.post("/v1/decide", {"query": "under way by HTTP"}))
        assert await asyncio.to_thread(stopped.asked.wait, 30)
        message = {"op": "decide", "id": 1, "query": "under way on a stream"}
        await socket.send_bytes(msgspec.msgpack.encode(message))
        at_once = {"op": "decide", "id": 0, "embedding": a_vector(1)}
        await socket.send_bytes(msgspec.msgpack.encode(at_once))
        # what is read later is answered, so that the one before is under way
        assert msgspec.msgpack.decode(await socket.receive_bytes())["id"] == 0
        stopping = asyncio.create_task(running.__aexit__(None, None, None))
        await _until_refused(outside)
        for path in ("/v1/decide", "/v1/rewards"):
            async with session.post(client.url + path, json={"embedding": a_vector(1)}) as answer:
                assert answer.status == 503
                assert int(answer.headers["Retry-After"]) >= 1
        await socket.send_bytes(msgspec.msgpack.encode(message | {"id": 2}))
        refused = msgspec.msgpack.decode(await socket.receive_bytes())
        assert (refused["id"], refused["error"]["code"]) == (2, "unavailable")
        stopped.go.set()
        status, _ = await ask
        assert status == 200
        answered = msgspec.msgpack.decode(await socket.receive_bytes())
        assert (answered["id"], "decision_id" in answered) == (1, True)
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        await stopping
        with pytest.raises(aiohttp.ClientError):
            await outside.get("/readyz")


async def test_stopped_under_load_it_ends_with_0_a_snapshot_and_every_acknowledged_reward(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    process = Process(data, models, BANDIT_LOG_LEVEL="warning")
    host, _, port = (await process.url()).removeprefix("http://").partition(":")
    traffic, pool = Traffic(host, int(port)), Pool(host, int(port), most=100)
    enough = asyncio.Event()

    def watch(_: Any) -> None:
        if len(traffic.ledger.acknowledged) >= 10:
            enough.set()

    load = asyncio.create_task(open_loop(traffic, pool, rate=300.0, seconds=3.0, watch=watch))
    async with asyncio.timeout(60):
        await enough.wait()
    process.popen.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.popen.wait, 60) == 0
    statuses = {sample.status for sample in await load}
    # 0: the port was closed; 429: a slow machine has more to do than it can
    assert statuses <= {200, 429, 503, 0}
    pool.close()
    log = assembly.open_log(settings.read(None, {"BANDIT_DATA_DIR": str(data)}))
    try:
        last = log.last
        events = [ev.decode(body) for _, body in log.replay()]
    finally:
        log.close()
    rewarded = [each.decision_id for each in events if isinstance(each, ev.Rewarded)]
    assert len(rewarded) == len(set(rewarded))
    assert set(traffic.ledger.acknowledged) <= set(rewarded)
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(data)})
    assert max(each.offset for each in assembly.open_snapshots(chosen).found()) == last


async def _hanging(process: Process) -> asyncio.StreamWriter:
    """A request whose body does not come, so that it is under way for as long as it may."""
    host, _, port = (await process.url()).removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/decide HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
    await writer.drain()
    async with aiohttp.ClientSession() as session:  # by its answer the other one has been read
        assert (await Client(session, await process.url()).decide())["arm"]
    return writer


async def test_a_second_sigterm_ends_it_at_once(tmp_path: Path, models: Path) -> None:
    environ = {"BANDIT_SERVER_SHUTDOWN_S": "1000", "BANDIT_SERVER_BODY_S": "1000"}
    process = Process(tmp_path / "var", models, **environ)
    writer = await _hanging(process)
    host, _, port = (await process.url()).removeprefix("http://").partition(":")
    process.popen.send_signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        while True:  # until the port is closed, so that the first one has been seen
            try:
                _, other = await asyncio.open_connection(host, int(port))
            except ConnectionRefusedError:
                break
            other.close()
            await asyncio.sleep(0.01)
    assert process.popen.poll() is None
    process.popen.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.popen.wait, 30) == 128 + signal.SIGTERM
    writer.transport.abort()


async def test_what_does_not_end_is_not_waited_for_longer_than_is_set(
    tmp_path: Path, models: Path
) -> None:
    process = Process(tmp_path / "var", models, BANDIT_SERVER_SHUTDOWN_S="0.5")
    writer = await _hanging(process)
    process.popen.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.popen.wait, 60) == 0
    writer.transport.abort()
