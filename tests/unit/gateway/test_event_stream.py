"""Silence of a stream is watched by one timer for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from bandit_service import logs
from bandit_service.gateway.event_stream import EventStream
from bandit_service.gateway.watch import Watch


class _Client:
    """Notes of which request its answer is written."""

    def __init__(self) -> None:
        self.begun_by: list[str] = []
        self.heard = asyncio.Event()

    async def begin(self, headers: Mapping[str, str]) -> None:
        self.begun_by.append(logs.request_id.get())

    async def write(self, data: bytes) -> None:
        self.heard.set()


def _stream(watch: Watch, client: Any, id: str) -> EventStream:
    logs.request_id.set(id)
    stream = EventStream(client, watch, 0.01, b": alive")
    stream.headers = {"x-arm": "a"}
    return stream


async def test_a_sign_of_life_is_sent_in_the_context_of_its_own_request() -> None:
    watch, client = Watch(asyncio.get_running_loop()), _Client()

    async def ended() -> None:
        with _stream(watch, client, "first"):
            pass  # but its timer stays

    async def silent() -> None:
        with _stream(watch, client, "second"):
            async with asyncio.timeout(60):
                await client.heard.wait()

    await asyncio.create_task(ended())
    await asyncio.create_task(silent())
    assert client.begun_by == ["second"]
