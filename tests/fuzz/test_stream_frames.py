"""Any frame on the stream gets one answer, and the stream and the service live on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.http.openapi import codes
from tests.fuzz.effort import effort
from tests.fuzz.requests import anything, bodies
from tests.service.running import Process

_ids = st.integers(0, 2) | st.integers(0, 2**32) | st.text(max_size=8) | anything
_ops = st.sampled_from(("decide", "reward", "compare", "decide", "reward", "compare", "x", None))


@st.composite
def _messages(draw: st.DrawFn) -> Any:
    return draw(bodies()) | {"op": draw(_ops), "id": draw(_ids)}


def _cut(draw: st.DrawFn, frame: bytes) -> bytes:
    return frame[: draw(st.integers(0, len(frame)))]


@st.composite
def _frames(draw: st.DrawFn) -> bytes:
    match draw(st.integers(0, 5)):
        case 0:
            return draw(st.binary(max_size=100))
        case 1:
            return _cut(draw, msgspec.msgpack.encode(draw(_messages())))
        case 2:
            return msgspec.msgpack.encode(draw(anything))
        case 3:
            return bytes(draw(st.sampled_from((0, 1, 65_536, 65_537, 200_000))))
        case _:
            return msgspec.msgpack.encode(draw(_messages()))


class _Line:
    """One stream to the service, from code that is not asynchronous."""

    def __init__(self, process: Process) -> None:
        self._runner = asyncio.Runner()
        self._runner.run(self._open(process))

    async def _open(self, process: Process) -> None:
        self._url = str(await process.url())
        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(
            f"{self._url}/v1/stream", protocols=("bandit.v1",)
        )
        await self._socket.receive_bytes()

    def exchange(self, frames: list[bytes]) -> list[dict[str, Any]]:
        """As many answers as frames, and one to a frame that is right."""
        return self._runner.run(self._exchange(frames))

    async def _exchange(self, frames: list[bytes]) -> list[dict[str, Any]]:
        last = msgspec.msgpack.encode({"op": "decide", "id": "last", "query": "is it alive"})
        async with asyncio.timeout(60):
            for frame in [*frames, last]:
                await self._socket.send_bytes(frame)
            return [
                msgspec.msgpack.decode(await self._socket.receive_bytes())
                for _ in range(len(frames) + 1)
            ]

    def events(self) -> int:
        """How many events the world is made of."""

        async def asked() -> int:
            async with self._session.get(f"{self._url}/v1/policies/nested/state") as response:
                return int((await response.json())["events"])

        return self._runner.run(asked())

    def close(self) -> None:
        async def closed() -> None:
            await self._socket.close()
            await self._session.close()

        self._runner.run(closed())
        self._runner.close()


@pytest.fixture(scope="module")
def line(process: Process) -> Iterator[_Line]:
    opened = _Line(process)
    yield opened
    opened.close()


@effort(150)
@given(frames=st.lists(_frames(), min_size=1, max_size=8))
def test_each_frame_has_one_answer(line: _Line, frames: list[bytes]) -> None:
    before = line.events()
    answers = line.exchange(frames)
    taken = [one for one in answers if "error" not in one and one.get("status") != "duplicate"]
    assert line.events() == before + len(taken)  # what was refused has changed nothing
    assert any(answer["id"] == "last" and "decision_id" in answer for answer in answers)
    known = set(codes()) - {"internal"}
    for answer in answers:
        if "error" in answer:
            assert set(answer["error"]) == {"message", "type", "param", "code"}
            assert answer["error"]["code"] in known, answer
            json.dumps(answer)
        else:
            assert {"decision_id", "id"} <= set(answer)
