"""The stream: many in flight, answers matched by id, bounded by credits."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest

from bandit_service.http.gathering import Gathering
from tests.service.running import Client, a_vector, serving


async def _receive(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    answer: dict[str, Any] = msgspec.msgpack.decode(await socket.receive_bytes())
    return answer


async def _send(socket: aiohttp.ClientWebSocketResponse, **message: Any) -> None:
    await socket.send_bytes(msgspec.msgpack.encode(message))


async def test_decide_reward_and_compare_with_many_in_flight(client: Client) -> None:
    url = client.url + "/v1/stream"
    async with client.session.ws_connect(url, protocols=("bandit.v1",)) as socket:
        assert socket._response.headers["x-request-id"]
        credits_given = (await _receive(socket))["credits"]
        many = 100
        assert many <= credits_given
        for i in range(many):
            vector = np.asarray(a_vector(i), "<f4").tobytes()
            await _send(socket, op="decide", id=i, embedding=vector)
        decided, arms = {}, {}
        for _ in range(many):
            answer = await _receive(socket)
            decided[answer["id"]], arms[answer["id"]] = answer["decision_id"], answer["arm"]
        assert set(decided) == set(range(many))
        assert len(set(decided.values())) == many
        for i, decision_id in decided.items():
            await _send(socket, op="reward", id=f"r{i}", decision_id=decision_id, quality=0.5)
        names = ("mistral-large-2512", "gemini-2.5-pro")
        other = next(name for name in names if name != arms[0])
        await _send(
            socket, op="compare", id="c", decision_id=decided[0], winner=arms[0], loser=other
        )
        answers = [await _receive(socket) for _ in range(many + 1)]
        assert {a["id"] for a in answers} == {f"r{i}" for i in decided} | {"c"}
        assert {a["status"] for a in answers} == {"accepted"}


async def test_answers_of_one_turn_are_written_together(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes in one packet is decided together and answered in one packet; compressed, too."""
    written: list[int] = []
    flush = Gathering._flush

    def counted(self: Gathering) -> None:
        written.append(len(self._kept))
        flush(self)

    monkeypatch.setattr(Gathering, "_flush", counted)
    url = client.url + "/v1/stream"
    for compress in (0, 15):
        async with client.session.ws_connect(
            url, protocols=("bandit.v1",), compress=compress
        ) as socket:
            await _receive(socket)
            written.clear()
            for i in range(20):
                vector = np.asarray(a_vector(i), "<f4").tobytes()
                await _send(socket, op="decide", id=i, embedding=vector)
            answers = [await _receive(socket) for _ in range(20)]
            assert {answer["id"] for answer in answers} == set(range(20))
            assert sum(written) >= 20
            assert max(written) > 1, written


async def test_beyond_the_credits_is_refused_and_the_rest_is_answered(
    tmp_path: Path, models: Path
) -> None:
    environ = {"BANDIT_SERVER_STREAM_CREDITS": "2"}
    async with serving(tmp_path / "var", models, **environ) as client:
        url = client.url + "/v1/stream"
        async with client.session.ws_connect(url, protocols=("bandit.v1",)) as socket:
            assert (await _receive(socket))["credits"] == 2
            for i in range(6):
                await _send(socket, op="decide", id=i, query=f"a question of its own, number {i}")
            answers = [await _receive(socket) for _ in range(6)]
            assert sorted(a["id"] for a in answers) == list(range(6))
            refused = [a for a in answers if "error" in a]
            assert {a["error"]["code"] for a in refused} == {"no_credit"}
            assert 2 <= 6 - len(refused) <= 5


async def test_another_subprotocol_is_turned_away(client: Client) -> None:
    async with client.session.ws_connect(client.url + "/v1/stream") as socket:
        message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.extra == "subprotocol must be bandit.v1"


async def test_a_client_that_leaves_harms_nobody(client: Client) -> None:
    url = client.url + "/v1/stream"
    async with client.session.ws_connect(url, protocols=("bandit.v1",)) as socket:
        await _receive(socket)
        for i in range(50):
            await _send(socket, op="decide", id=i, query=f"abandoned question {i}")
    async with asyncio.timeout(30):
        assert (await client.decide(query="still here?"))["arm"]
