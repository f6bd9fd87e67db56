"""Servers of the tests: one that answers by a script, and a relay whose connections can be cut."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from bandit_client import Retries
from bandit_client._thread import LoopThread

SOON = Retries(first_s=0.005, max_s=0.02)
"""The defaults, but for the waits."""


def an_error(code: str, message: str = "not now", param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "x", "param": param, "code": code}}


@dataclass
class Said:
    """One answer of a script: a status with a body, or none where the connection is cut."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    after_s: float = 0.0


CUT = Said(cut=True)
DECIDED = Said(
    body={
        "decision_id": "d1",
        "arm": "a",
        "propensity": 1.0,
        "policy": "p",
        "expected": {"cost_usd": 0.1},
        "newer_than_the_client": 1,
    }
)


@dataclass
class Unruly:
    """What was asked so far; the script, and what is said when it is at its end."""

    url: str = ""
    script: list[Said] = field(default_factory=list)
    always: Said | None = None
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        raw = await request.read()
        body = json.loads(raw) if raw else None
        self.asked.append(
            (request.path, {name.lower(): text for name, text in request.headers.items()}, body)
        )
        said = self.script.pop(0) if self.script else self.always
        if said is None:  # every reward is taken
            items: list[Any] = body if isinstance(body, list) else [body]
            results = [
                {"decision_id": each.get("decision_id"), "status": "accepted"} for each in items
            ]
            said = Said(body={"results": results})
        if said.after_s:
            await asyncio.sleep(said.after_s)
        if said.cut:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        text = said.body if isinstance(said.body, str) else json.dumps(said.body)
        return web.Response(status=said.status, text=text, headers=said.headers)

    @property
    def rewards(self) -> list[dict[str, Any]]:
        """Every reward that was sent, in order, resends too."""
        return [each for _, _, body in self.asked for each in body]


@contextmanager
def unruly() -> Iterator[Unruly]:
    thread, server = LoopThread("unruly"), Unruly()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start() -> str:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    server.url = thread.run(start())
    try:
        yield server
    finally:
        thread.run(runner.cleanup())
        thread.end()


class Relay:
    """A port that stays, before a service that comes and goes."""

    def __init__(self, thread: LoopThread) -> None:
        self._thread = thread
        self.url = ""
        self._to: tuple[str, int] | None = None
        self._wires: set[asyncio.StreamWriter] = set()
        self._passes = asyncio.Event()
        self._passes.set()
        self.held = threading.Event()
        """Whether an answer came since they are held back."""

    def to(self, url: str | None) -> None:
        """Where new connections go; None refuses them."""
        self._to = None
        if url is not None:
            host, port = url.removeprefix("http://").split(":")
            self._to = (host, int(port))

    def hold(self) -> None:
        """Keep answers back until the connections are cut."""
        self.held.clear()
        self._passes.clear()

    def cut(self) -> None:
        """Reset all connections."""

        async def abort() -> None:
            for wire in self._wires:
                wire.transport.abort()
            self._passes.set()

        self._thread.run(abort())

    async def serve(self, reader: asyncio.StreamReader, wire: asyncio.StreamWriter) -> None:
        self._wires.add(wire)
        try:
            if self._to is None:
                return
            inner_reader, inner = await asyncio.open_connection(*self._to)
            try:
                await asyncio.gather(_pour(reader, inner), self._answers(inner_reader, wire))
            finally:
                inner.close()
        except OSError:
            pass
        finally:
            wire.close()
            self._wires.discard(wire)

    async def _answers(self, source: asyncio.StreamReader, wire: asyncio.StreamWriter) -> None:
        async def passed() -> None:
            if not self._passes.is_set():
                self.held.set()
                await self._passes.wait()

        await _pour(source, wire, passed)


async def _at_once() -> None:
    """What goes to the service is never held back."""


async def _pour(
    source: asyncio.StreamReader,
    target: asyncio.StreamWriter,
    passed: Callable[[], Awaitable[None]] = _at_once,
) -> None:
    try:
        while data := await source.read(65536):
            await passed()
            target.write(data)
            await target.drain()
    except OSError:
        pass
    target.close()


@contextmanager
def relay() -> Iterator[Relay]:
    thread = LoopThread("relay")
    made = Relay(thread)

    async def start() -> asyncio.Server:
        return await asyncio.start_server(made.serve, "127.0.0.1", 0)

    server = thread.run(start())
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        made.cut()

        async def stop() -> None:
            server.close()
            await asyncio.sleep(0.05)

        thread.run(stop())
        thread.end()
