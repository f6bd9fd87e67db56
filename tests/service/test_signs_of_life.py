"""While a model thinks, the client of a stream hears of it, and loses nothing by that."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest

from bandit_service.gateway import event_stream
from tests.service.provider import HELLO, signals_of
from tests.service.running import Client
from tests.service.wires import STREAM_HEAD, Act, Wire, a_whole, an_event, behind, says

_FIXED = {
    "BANDIT_POLICY_NAME": "fixed",
    "BANDIT_POLICY_PARAMETERS": '{ arm = "alpha" }',
    "BANDIT_EXPLORATION_FLOOR": "0.0",
}
_QUICK = _FIXED | {"BANDIT_GATEWAY_KEEP_ALIVE_S": "0.05"}
_HEAD = STREAM_HEAD + b"\r\n"
_DONE = b"data: [DONE]\n\n"


def held(before: bytes, go_on: asyncio.Event, after: bytes) -> Act:
    """Sends something, and the rest when it may go on."""

    async def act(wire: Wire) -> None:
        wire.write(before)
        await wire.drain()
        await go_on.wait()
        wire.write(after)
        await wire.drain()
        wire.close()

    return act


async def _asked(client: Client, go_on: asyncio.Event) -> tuple[Any, str, str]:
    """The answer's head, what came before the provider went on, and what came after."""
    asked = {"model": "auto", "messages": HELLO, "stream": True}
    async with client.session.post(f"{client.url}/v1/chat/completions", json=asked) as answer:
        before = await answer.content.readany()
        go_on.set()
        return answer.headers, before.decode(), (await answer.content.read()).decode()


async def test_comments_of_the_provider_go_through_before_its_first_event(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen on 5a5a85b: not a byte for 8 s, not even a head, while the provider sent a comment each
    second; the official client gave up after the 4 s it was told to wait.
    """
    monkeypatch.setattr(event_stream, "_QUIET_S", 0.0)
    without = {"BANDIT_GATEWAY_KEEP_ALIVE_S": "0"}
    async with behind(tmp_path, models, **_FIXED, **without) as (_, client, alpha, _beta):
        go_on = asyncio.Event()
        alpha.script = [held(_HEAD + b": busy\n\n", go_on, an_event("fine", "stop") + _DONE)]
        headers, before, after = await _asked(client, go_on)
        assert before == ": keep-alive\n\n"
        assert ("fine" in after, after.endswith("data: [DONE]\n\n")) == (True, True)
        assert headers["x-decision-id"] in after
        signals = await signals_of(client, headers["x-decision-id"], 1)
        assert "quality" not in signals


async def test_a_comment_goes_on_only_where_the_client_got_nothing_for_a_while(
    tmp_path: Path, models: Path
) -> None:
    """So that providers which always begin with comments leave a refusal its status."""
    async with behind(tmp_path, models, **_FIXED) as (_, client, alpha, beta):
        for each in (alpha, beta):
            each.script = [says(_HEAD + b": busy\n\n" + b'data: {"error": {"code": 503}}\n\n')]
        asked = {"model": "auto", "messages": HELLO, "stream": True}
        status, answer = await client.post("/v1/chat/completions", asked)
        assert (status, answer["error"]["code"]) == (503, "upstream_failed")


@pytest.mark.parametrize("before", [b"", _HEAD, _HEAD + an_event("half ")])
async def test_a_client_hears_of_a_silent_provider_wherever_it_stopped(
    tmp_path: Path, models: Path, before: bytes
) -> None:
    async with behind(tmp_path, models, **_QUICK) as (_, client, alpha, _beta):
        go_on = asyncio.Event()
        head = b"" if before else _HEAD
        alpha.script = [held(before, go_on, head + an_event("fine", "stop") + _DONE)]
        asked = {"model": "auto", "messages": HELLO, "stream": True}
        async with client.session.post(f"{client.url}/v1/chat/completions", json=asked) as answer:
            heard = b""
            while heard.count(b": keep-alive\n\n") < 3:
                heard += await answer.content.readany()
            go_on.set()
            rest = await answer.content.read()
        assert b"fine" not in heard
        assert (b"fine" in rest, rest.endswith(_DONE)) == (True, True)
        assert (b"half" in heard) == (b"half" in before)


async def test_an_arm_that_fails_after_signs_of_life_is_still_followed_by_another(
    tmp_path: Path, models: Path
) -> None:
    async with behind(tmp_path, models, **_QUICK) as (_, client, alpha, beta):
        beta.always = says(_HEAD + an_event("fine", "stop") + _DONE)
        for failing in (
            _HEAD + b'data: {"choices": [], "error": {"code": 502}}\n\n',
            a_whole(b"{}", status="503 Service Unavailable"),
            a_whole(b'{"error": {"message": "no"}}', status="400 Bad Request"),
        ):
            go_on = asyncio.Event()
            alpha.script = [held(b"", go_on, failing)]
            headers, before, after = await _asked(client, go_on)
            assert before == ": keep-alive\n\n"
            # the head was gone: a comment and the events name the one that answered
            told = dict(
                each[2:].split(" ")
                for each in after.split("\n")
                if each[:2] == ": " and each != ": keep-alive"
            )
            assert (headers["x-arm"], told["x-arm"]) == ("alpha", "beta")
            chunk = json.loads(next(each for each in after.split("\n") if "fine" in each)[6:])
            assert chunk["id"] == told["x-decision-id"] != headers["x-decision-id"]
            assert (await signals_of(client, headers["x-decision-id"]))["quality"] == 0.0
            assert "quality" not in await signals_of(client, told["x-decision-id"], 1)


async def test_where_none_answers_after_signs_of_life_the_stream_says_so(
    tmp_path: Path, models: Path
) -> None:
    async with behind(tmp_path, models, **_QUICK) as (asking, _, alpha, beta):
        for why, failing in (
            ("failed: status 503", a_whole(b"{}", status="503 Service Unavailable")),
            ("no such tool", a_whole(b'{"error": {"message": "no such tool"}}', status="400 Bad")),
        ):
            go_on = asyncio.Event()
            alpha.script = [held(b"", go_on, failing)]
            beta.script = [says(failing)]
            stream = await asking.chat.completions.create(model="auto", messages=HELLO, stream=True)
            go_on.set()
            with pytest.raises(openai.APIError, match=why):
                await anext(aiter(stream))


async def test_a_client_that_leaves_before_the_first_word_ends_the_call(
    tmp_path: Path, models: Path
) -> None:
    async with behind(tmp_path, models, **_QUICK) as (_, client, alpha, _beta):
        closed = asyncio.Event()

        async def act(wire: Wire) -> None:
            wire.write(_HEAD)
            try:
                while not wire.is_closing():
                    wire.write(b": busy\n\n")
                    await wire.drain()
                    await asyncio.sleep(0.01)
            finally:
                closed.set()

        alpha.script = [act]
        asked = {"model": "auto", "messages": HELLO, "stream": True}
        async with client.session.post(f"{client.url}/v1/chat/completions", json=asked) as answer:
            assert await answer.content.readany() == b": keep-alive\n\n"
        async with asyncio.timeout(60):
            await closed.wait()
        assert "quality" not in await signals_of(client, answer.headers["x-decision-id"], 0)
