"""Bad input gets an error of its own, changes nothing, and the connection survives."""

from __future__ import annotations

import math
import os
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest

from tests.service.running import DIM, Client, a_vector

UNKNOWN = "ffffffff-ffff-7fff-bfff-ffffffffffff"
LONG_AGO = "00000000-0000-7000-8000-000000000000"

BAD_DECIDES: list[tuple[str, Any, int, str, str | None]] = [
    # why, body, status, code, param
    ("not JSON", b"{", 400, "malformed", None),
    ("not UTF-8", b'{"query": "\xff"}', 400, "malformed", None),
    ("nothing", b"", 400, "malformed", None),
    ("NaN is not JSON", b'{"embedding": [NaN]}', 400, "malformed", "embedding"),
    ("a name twice", b'{"query": "a", "query" : "b"}', 400, "invalid_value", "query"),
    ("not an object", [1], 400, "invalid_value", None),
    ("nothing to decide on", {}, 400, "invalid_value", "query"),
    ("two forms at once", {"query": "a", "embedding": [1.0]}, 400, "invalid_value", "query"),
    ("an unknown field", {"query": "a", "qurey": 1}, 400, "invalid_value", "qurey"),
    ("a wrong type", {"query": 7}, 400, "invalid_value", "query"),
    ("an empty query", {"query": "  "}, 400, "invalid_value", "query"),
    ("a huge query", {"query": "x" * 200_001}, 413, "too_large", "query"),
    ("messages without a user", {"messages": [{"role": "system", "content": "a"}]}, 400,
     "invalid_value", "messages"),
    ("messages of another form", {"messages": [{"role": "user", "content": 3}]}, 400,
     "invalid_value", "messages"),
    ("a short embedding", {"embedding": [1.0, 0.0]}, 400, "invalid_value", "embedding"),
    ("a long embedding", {"embedding": [0.0] * DIM + [1.0]}, 400, "invalid_value", "embedding"),
    ("no unit norm", {"embedding": [1.0] * DIM}, 400, "invalid_value", "embedding"),
    ("an infinite embedding", {"embedding": [1e39] + [0.0] * (DIM - 1)}, 400, "invalid_value",
     "embedding"),
    ("a negative limit", {"query": "a", "max_cost_usd": -1}, 400, "invalid_value", "max_cost_usd"),
    ("nothing worth", {"query": "a", "willingness_to_pay": 0}, 400, "invalid_value",
     "willingness_to_pay"),
    ("an unknown arm", {"query": "a", "arms": ["gpt-9"]}, 404, "unknown", "arms"),
    ("an empty allow-list", {"query": "a", "arms": []}, 400, "invalid_value", "arms"),
    ("a unit that is too long", {"query": "a", "unit": "u" * 257}, 400, "invalid_value", "unit"),
]  # fmt: skip

BAD_REWARDS: list[tuple[str, Any, int, str, str | None]] = [
    ("not JSON", b"[", 400, "malformed", None),
    ("an empty list", [], 400, "invalid_value", None),
    ("too long a list", [{}] * 1001, 413, "too_large", None),
    ("a name twice", b'{"decision_id": "x", "quality": 0, "quality": 1}', 400, "invalid_value",
     "quality"),
    ("no signal", {"decision_id": UNKNOWN}, 400, "invalid_value", None),
    ("quality over 1", {"decision_id": UNKNOWN, "quality": 1.1}, 400, "invalid_value", "quality"),
    ("a negative cost", {"decision_id": UNKNOWN, "cost_usd": -1}, 400, "invalid_value", "cost_usd"),
    ("reward out of range", {"decision_id": UNKNOWN, "reward": 2}, 400, "invalid_value", "reward"),
    ("text for a number", {"decision_id": UNKNOWN, "quality": "good"}, 400, "invalid_value",
     "quality"),
    ("an unknown field", {"decision_id": UNKNOWN, "qualty": 1}, 400, "invalid_value", "qualty"),
    ("an unknown decision", {"decision_id": UNKNOWN, "quality": 1}, 404, "unknown", "decision_id"),
    ("a name that is no id", {"decision_id": "x", "quality": 1}, 404, "unknown", "decision_id"),
    ("a decision of long ago", {"decision_id": LONG_AGO, "quality": 1}, 410, "expired",
     "decision_id"),
    ("both forms", {"decision_id": UNKNOWN, "query": "a", "quality": 1}, 400, "invalid_value",
     "query"),
    ("neither form", {"quality": 1}, 400, "invalid_value", "arm"),
    ("self-contained without a query", {"arm": "gemini-2.5-pro", "quality": 1}, 400,
     "invalid_value", "query"),
    ("self-contained, unknown arm", {"query": "a", "arm": "gpt-9", "quality": 1}, 404, "unknown",
     "arm"),
]  # fmt: skip

BAD_COMPARISONS: list[tuple[str, Any, int, str, str | None]] = [
    ("no loser", {"query": "a", "winner": "gemini-2.5-pro"}, 400, "invalid_value", "loser"),
    ("unknown winner", {"query": "a", "winner": "gpt-9", "loser": "gemini-2.5-pro"}, 404,
     "unknown", "winner"),
    ("with itself", {"query": "a", "winner": "gemini-2.5-pro", "loser": "gemini-2.5-pro"}, 400,
     "invalid_value", "loser"),
    ("unknown decision", {"decision_id": UNKNOWN, "winner": "gemini-2.5-pro",
     "loser": "mistral-large-2512"}, 404, "unknown", "decision_id"),
    ("tie of another type", {"query": "a", "winner": "a", "loser": "b", "tie": "yes"}, 400,
     "invalid_value", "tie"),
]  # fmt: skip

BAD_ARMS: list[tuple[str, Any, int, str, str | None]] = [
    ("no price", {}, 400, "invalid_value", "usd_per_mtok_in"),
    ("a price twice", b'{"usd_per_mtok_in": 1, "usd_per_mtok_in": 9, "usd_per_mtok_out": 1}', 400,
     "invalid_value", "usd_per_mtok_in"),
    ("a negative price", {"usd_per_mtok_in": -1, "usd_per_mtok_out": 1}, 400, "invalid_value",
     "usd_per_mtok_in"),
    ("another id", {"id": "b", "usd_per_mtok_in": 1, "usd_per_mtok_out": 1}, 400, "invalid_value",
     "id"),
    ("unknown field", {"usd_per_mtok_in": 1, "usd_per_mtok_out": 1, "prize": 1}, 400,
     "invalid_value", "prize"),
]  # fmt: skip


async def _state(client: Client) -> tuple[Any, ...]:
    return (await client.get("/v1/policies/nested/state"))[1], (await client.get("/v1/arms"))[1]


@pytest.mark.parametrize(
    ("path", "cases"),
    [
        ("POST /v1/decide", BAD_DECIDES),
        ("POST /v1/rewards", BAD_REWARDS),
        ("POST /v1/comparisons", BAD_COMPARISONS),
        ("PUT /v1/arms/a", BAD_ARMS),
    ],
    ids=["decide", "rewards", "comparisons", "arms"],
)
async def test_each_mistake_is_named_and_changes_nothing(
    client: Client, path: str, cases: list[tuple[str, Any, int, str, str | None]]
) -> None:
    before = await _state(client)
    method, path = path.split()
    for why, body, status, code, param in cases:
        got, answer = await client.call(method, path, body)
        error = answer["error"]
        assert (got, error["code"], error["param"]) == (status, code, param), (why, answer)
        if param is not None:
            assert param in error["message"], (why, error)
    assert await _state(client) == before


_SAID = b'"messages": [{"role": "user", "content": "a"%b}]'
_INNER = b'{"model": "auto", ' + _SAID % b', "content": "b"' + b"}"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", b'{"model": "a", "model": "b", ' + _SAID % b"" + b"}", "model"),
        ("chat/completions", _INNER, "content"),
        ("completions", b'{"model": "auto", "prompt": "a", "prompt" : "b"}', "prompt"),
        ("messages", b'{"max_tokens": 1, ' + _INNER[1:], "content"),
        ("responses", b'{"model": "auto", "input": "a", "input": "b"}', "input"),
        ("embeddings", b'{"model": "auto", "input": "a", "inp\\u0075t": "b"}', "input"),
    ],
)
async def test_the_gateway_refuses_a_name_twice(
    client: Client, path: str, body: bytes, param: str
) -> None:
    """Before, the last value was passed on, and nothing was said of the other one."""
    status, answer = await client.call("POST", f"/v1/{path}", body)
    assert status == 400, answer
    assert answer["error"]["message"] == f"{param}: given twice; give it once"
    if path != "messages":  # an error of Anthropic's form names no field
        assert answer["error"]["param"] == param


async def test_the_stream_refuses_a_name_twice(client: Client) -> None:
    before = await _state(client)
    embedding = [("embedding", np.asarray(a_vector(1), "<f4").tobytes())]
    frames: list[tuple[list[tuple[str, Any]], str]] = [
        ([("op", "decide"), ("id", 0), *embedding, ("arms", ["a"]), ("arms", None)], "arms"),
        ([("op", "decide"), ("id", 1), *embedding, ("explain", True), *embedding], "embedding"),
        ([("op", "reward"), ("id", 2), ("quality", 0.0), ("quality", 1.0)], "quality"),
        ([("op", "decide"), ("id", 3), ("op", "reward")], "op"),
        ([("op", "decide"), ("id", 4), ("id", 5), *embedding], "id"),
    ]
    url = client.url + "/v1/stream"
    async with client.session.ws_connect(url, protocols=("bandit.v1",)) as socket:
        await socket.receive_bytes()
        for i, (pairs, name) in enumerate(frames):
            packed = (msgspec.msgpack.encode(each) for pair in pairs for each in pair)
            await socket.send_bytes(bytes([0x80 | len(pairs)]) + b"".join(packed))
            answer = msgspec.msgpack.decode(await socket.receive_bytes())
            assert answer["id"] == (i if name != "id" else None)
            assert answer["error"]["code"] == "invalid_value"
            assert answer["error"]["message"] == f"{name}: given twice; give it once"
    assert await _state(client) == before


async def test_a_message_of_the_stream_is_refused_with_what_is_allowed(client: Client) -> None:
    ask = {"op": "decide", "id": 1}
    cases: list[tuple[Any, str]] = [
        ({"id": 1}, "op: must be decide, reward or compare, got nothing"),
        ({"id": 1, "op": ["x"] * 999}, "op: must be decide, reward or compare, got ['x', 'x'"),
        ({**ask, "embedding": "abc"}, "embedding: must be base64 if it is a text"),
        ({**ask, "query": msgspec.msgpack.Ext(5, b"")},
         "query: must be a text or null, got an extension of MessagePack"),
        ({**ask, "query": {(1, 2): 3}}, "query: must be a text or null, got an object"),
        ({"id": None, "op": "decide"}, "id: must be a number or a string that names the answer"),
    ]  # fmt: skip
    url = client.url + "/v1/stream"
    async with client.session.ws_connect(url, protocols=("bandit.v1",)) as socket:
        await socket.receive_bytes()
        for message, expected in cases:
            await socket.send_bytes(msgspec.msgpack.encode(message))
            error = msgspec.msgpack.decode(await socket.receive_bytes())["error"]
            assert error["message"][:150].startswith(expected), error
            assert len(error["message"]) < 200
    status, told = await client.post("/v1/decide", {"embedding": "abc"})
    assert (status, told["error"]["message"]) == (
        400,
        "embedding: must be base64 if it is a text",
    )


async def test_a_result_repeats_only_a_decision_that_is_text(client: Client) -> None:
    for path in ("/v1/rewards", "/v1/comparisons"):
        status, answer = await client.post(path, [{"decision_id": True}, {"decision_id": "x"}, 7])
        assert status == 200
        assert [each["decision_id"] for each in answer["results"]] == [None, "x", None]
        assert {each["status"] for each in answer["results"]} == {"error"}


async def test_a_body_over_the_limit_is_refused(client: Client) -> None:
    got, answer = await client.post("/v1/decide", {"query": "x" * 5_000_000})
    assert (got, answer["error"]["code"]) == (413, "too_large")


async def test_paths_and_methods_that_are_not_there(client: Client) -> None:
    assert (await client.get("/v1/nothing"))[0] == 404
    assert (await client.get("/v1/decide"))[0] == 405
    async with client.session.get(f"{client.url}/v1/messages") as answer:
        told = await answer.json()
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        assert (told["type"], told["error"]["type"]) == ("error", "invalid_request_error")
        assert told["error"]["message"] == "method not allowed: GET; use POST"
        assert told["request_id"] == answer.headers["x-request-id"]
    assert (await client.get("/v1/policies/eagle/state"))[0] == 404
    assert (await client.call("DELETE", "/v1/arms/gpt-9"))[0] == 404
    assert (await client.get("/v1/stream"))[0] == 400
    prices = {"usd_per_mtok_in": 1, "usd_per_mtok_out": 1}
    status, told = await client.call("PUT", "/v1/arms/auto", prices)
    assert (status, told["error"]["param"]) == (400, "id")
    assert (await client.call("DELETE", "/v1/arms/auto"))[0] == 404


async def test_every_answer_carries_a_request_id(client: Client) -> None:
    async with client.session.get(client.url + "/healthz") as response:
        assert response.headers["x-request-id"]
    headers = {"x-request-id": "mine-1"}
    async with client.session.get(client.url + "/v1/nothing", headers=headers) as response:
        assert response.headers["x-request-id"] == "mine-1"


BAD_FRAMES: list[tuple[str, bytes, str, str | None]] = [
    ("not MessagePack", b"\xc1", "malformed", None),
    ("cut off", msgspec.msgpack.encode({"op": "decide", "id": 1})[:-1], "malformed", None),
    ("not a map", msgspec.msgpack.encode([1]), "invalid_value", None),
    ("a name that is no text", msgspec.msgpack.encode({"op": "decide", "id": 1, 2: "a"}),
     "invalid_value", None),
    ("no id", msgspec.msgpack.encode({"op": "decide", "query": "a"}), "invalid_value", "id"),
    ("unknown op", msgspec.msgpack.encode({"op": "train", "id": 1}), "invalid_value", "op"),
    ("unknown field", msgspec.msgpack.encode({"op": "decide", "id": 1, "query": "a", "x": 1}),
     "invalid_value", "x"),
    ("NaN", msgspec.msgpack.encode(
        {"op": "reward", "id": 1, "decision_id": UNKNOWN, "quality": math.nan}),
     "invalid_value", "quality"),
    ("NaN in an embedding", msgspec.msgpack.encode(
        {"op": "decide", "id": 1, "embedding": [math.nan] * DIM}), "invalid_value", "embedding"),
    ("embedding bytes of a wrong length", msgspec.msgpack.encode(
        {"op": "decide", "id": 1, "embedding": b"1234"}), "invalid_value", "embedding"),
    ("too large a frame", msgspec.msgpack.encode(
        {"op": "decide", "id": 1, "query": "x" * 1_100_000}), "too_large", None),
]  # fmt: skip


async def test_the_stream_survives_each_bad_frame(client: Client) -> None:
    before = await _state(client)
    url = client.url + "/v1/stream"
    async with client.session.ws_connect(url, protocols=("bandit.v1",)) as socket:
        hello = msgspec.msgpack.decode(await socket.receive_bytes())
        assert hello == {"op": "hello", "credits": 256}
        for why, frame, code, param in BAD_FRAMES:
            await socket.send_bytes(frame)
            error = msgspec.msgpack.decode(await socket.receive_bytes())["error"]
            assert (error["code"], error["param"]) == (code, param), (why, error)
            assert "`" not in error["message"], why  # which would be the decoder's own words
        await socket.send_str("{}")
        error = msgspec.msgpack.decode(await socket.receive_bytes())["error"]
        assert "binary" in error["message"]
        assert await _state(client) == before
        await socket.send_bytes(
            msgspec.msgpack.encode({"op": "decide", "id": 2, "embedding": a_vector(1)})
        )
        answer = msgspec.msgpack.decode(await socket.receive_bytes())
        assert answer["id"] == 2
        assert answer["arm"]


async def test_an_error_names_its_frame_wherever_the_id_can_be_read(client: Client) -> None:
    """A client that matches answers by id waited for ever for that of too large a frame."""
    deep = b"\x83\xa2op\xa6decide\xa2id\xa4mine\xa5query" + b"\x91" * 100 + b"\x01"
    large = {"op": "decide", "query": "x" * 1_100_000, "id": "mine"}
    url = client.url + "/v1/stream"
    async with client.session.ws_connect(url, protocols=("bandit.v1",)) as socket:
        await socket.receive_bytes()
        for frame, id, code in (
            (msgspec.msgpack.encode(large), "mine", "too_large"),
            (deep, "mine", "malformed"),
            (bytes(1_100_000), None, "too_large"),
        ):
            await socket.send_bytes(frame)
            answer = msgspec.msgpack.decode(await socket.receive_bytes())
            assert (answer["id"], answer["error"]["code"]) == (id, code)


async def test_a_monstrous_frame_ends_the_stream_with_its_own_code(client: Client) -> None:
    url = client.url + "/v1/stream"
    async with client.session.ws_connect(url, protocols=("bandit.v1",)) as socket:
        await socket.receive_bytes()
        # the header alone announces too much, so the payload need not be sent to be refused
        announced = (4 * 1_048_576 + 1).to_bytes(8, "big")
        transport = socket.get_extra_info("socket")
        assert transport is not None
        os.write(transport.fileno(), b"\x82\xff" + announced + b"\0\0\0\0")
        message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
    assert (await client.decide())["arm"]
