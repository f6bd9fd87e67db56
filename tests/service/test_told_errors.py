"""Errors that are told with status 200, and what clients read although it is not quite JSON or SSE.

The provider sends bytes; what the official client makes of the gateway's answer is looked at.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.service.provider import HELLO, signals_of
from tests.service.running import Client, serving
from tests.service.wires import (
    STREAM_HEAD,
    Act,
    a_whole,
    behind,
    says,
    says_and_closes,
    text_from,
    wires,
)

_QUICK = {"BANDIT_GATEWAY_BREAKER_FAILURES": "1000"}
_USAGE = {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050}
_COST = (1000 * 1.0 + 50 * 4.0) / 1e6


def _chunk(content: str | None, finish: str | None = None, **beside: Any) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {
        "id": "t",
        "object": "chat.completion.chunk",
        "model": "alpha",
        "choices": [choice],
    } | beside


_ROLE = _chunk(None) | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
_END = [_chunk(None, "stop"), {"choices": [], "usage": _USAGE}]


def _data(*chunks: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks)


def _stream(body: bytes, done: bytes = b"data: [DONE]\n\n") -> Act:
    return says_and_closes(STREAM_HEAD + b"\r\n" + body + done)


_FINE = _stream(_data(_chunk("fine"), *_END))

FIRST = {
    "beside no choices": _data({"choices": [], "error": {"code": 502, "message": "no slot"}}),
    "after the role": _data(_ROLE, {"error": {"message": "CUDA out of memory"}}),
    "beside a choice": _data(_chunk("", error={"code": 429, "message": "later"})),
    "as a reason": _data(_ROLE, _chunk("", "error")),
    "of a choice": _data(_ROLE | {"choices": [{"index": 0, "delta": {}, "error": "lost"}]}),
    "a text": _data({"error": "model is loading"}),
    "of object error": _data({"object": "error", "message": "m", "code": 500}),
    "bare": _data({"code": "InternalError", "message": "m"}),
    "an event of that name": b'event: error\ndata: {"message": "m"}\n\n',
    "a field of that name": b'error: {"code": 500, "message": "m"}\n\n',
    "no event at all": b'[{\n  "error": {\n    "code": 503\n  }\n}]\n',
    "a whole answer": b'{"error": {"message": "m"}}',
    "not JSON": b"data: upstream connect error\n\n",
    "HTML": b"<html><body>502</body></html>\n\n",
    "only the end": b"",
    "nothing said": _data(_ROLE, {"choices": []}),
}


async def test_an_error_before_the_first_word_is_followed_by_another_arm_and_taught(
    tmp_path: Path, models: Path
) -> None:
    """Seen on 5a5a85b: 198 of 200 went to the arm that told its error beside `choices: []`; what
    came after the role ended the client's stream.
    """
    cut = ("no event at all", "a whole answer", "HTML", "nothing said")
    asked = {"model": "alpha", "messages": HELLO, "stream": True}
    async with behind(tmp_path, models, **_QUICK) as (asking, client, alpha, beta):
        beta.always = alpha.always = _FINE
        for i, (why, body) in enumerate(FIRST.items()):
            act = _stream(body, b"") if why in cut else _stream(body)
            alpha.script = [act]
            while alpha.script:
                assert await text_from(asking, "auto", stream=True) == "fine", why
            alpha.script = [act]
            status, answer = await client.post("/v1/chat/completions", asked)
            assert (status >= 400, answer["error"]["type"]) == (True, "upstream_error"), why
            async with client.session.get(f"{client.url}/metrics") as exposed:
                text = await exposed.text()
            failed = f'bandit_upstream_failures_total{{arm="alpha",kind="failed"}} {2 * i + 2}.0'
            assert failed in text, why


LATER = {
    "an error": _data({"choices": [], "error": {"code": 502, "message": "lost"}}),
    "a reason": _data(_chunk("", "error")),
    "an aborted engine": _data(_chunk(None, "abort")),
    "no resources": _data(_chunk("", "insufficient_system_resource")),
    "an event of that name": b'event: error\ndata: {"message": "m"}\n\n',
    "a field of that name": b'error: {"code": 500}\n\n',
    "no event at all": b'{"error": {"code": 503}}\n\n',
    "not JSON": b"data: <html>\n\n",
}


async def test_an_error_after_the_first_word_ends_the_stream_with_an_error_and_is_taught(
    tmp_path: Path, models: Path
) -> None:
    async with behind(tmp_path, models) as (asking, client, alpha, _):
        for why, body in LATER.items():
            alpha.script = [_stream(_data(_ROLE, _chunk("half")) + body)]
            raw = await asking.chat.completions.with_raw_response.create(
                model="alpha", messages=HELLO, stream=True
            )
            words: list[str] = []
            with pytest.raises(openai.APIError, match="alpha"):
                await _read(raw.parse(), words)
            assert "".join(words) == "half", why
            signals = await signals_of(client, raw.headers["x-decision-id"])
            assert signals["quality"] == 0.0, why
        async with client.session.get(f"{client.url}/metrics") as exposed:
            assert 'bandit_upstream_up{arm="alpha"} 0.0' in await exposed.text()  # its breaker


async def _read(stream: Any, into: list[str]) -> None:
    async for chunk in stream:
        into += [each.delta.content or "" for each in chunk.choices]


WHOLE: dict[str, Any] = {
    "beside no choices": {"choices": [], "error": {"code": 502}},
    "beside an answer": {"choices": [{"message": {"content": "x"}}], "error": {"message": "late"}},
    "as a reason": {"choices": [{"message": {"content": "x"}, "finish_reason": "error"}]},
    "in a list": [{"error": {"code": 503}}],
    "of a choice": {"choices": [{"message": {"content": ""}, "error": {"code": 500}}]},
    "a code of its own": {
        "base_resp": {"status_code": 1002, "status_msg": "rate"},
        "choices": None,
    },
}


async def test_an_error_in_a_whole_answer_is_followed_by_another_arm(
    tmp_path: Path, models: Path
) -> None:
    """Seen on 5a5a85b: beside choices it was passed on as an answer."""
    async with behind(tmp_path, models, **_QUICK) as (asking, _, alpha, _beta):
        for why, body in WHOLE.items():
            act = says_and_closes(a_whole(json.dumps(body).encode()))
            alpha.script = [act]
            while alpha.script:
                assert await text_from(asking, "auto") == "fine", why
            alpha.script = [act]
            with pytest.raises(openai.APIStatusError, match="it told of an error"):
                await text_from(asking, "alpha")


async def test_a_length_that_is_refused_with_200_does_not_mask_the_arm(
    tmp_path: Path, models: Path
) -> None:
    told = {"error": {"code": 400, "message": "maximum context length is 8192 tokens"}}
    async with behind(tmp_path, models) as (asking, client, alpha, _):
        alpha.always = says_and_closes(a_whole(json.dumps(told).encode()))
        for _ in range(5):
            assert await text_from(asking, "auto") == "fine"
            with pytest.raises(openai.BadRequestError, match="maximum context length"):
                await text_from(asking, "alpha")
        async with client.session.get(f"{client.url}/metrics") as exposed:
            assert 'bandit_upstream_up{arm="alpha"} 1.0' in await exposed.text()


_NULLS: dict[str, Any] = {"error": None, "errors": [], "service_tier": None, "usage": None}

READ: dict[str, tuple[bytes, str]] = {
    "fields of null": (_data(_chunk("a ", **_NULLS), _chunk("b", **_NULLS), _chunk(None, "stop"),
                             {"usage": _USAGE, "choices": None, "error": None}), "a b"),
    "an error of nothing": (_data(_chunk("a", error={"message": "", "code": 0}), *_END), "a"),
    "data of null": (_data(None) + b"data:\n\n" + b"data:  \n\n" + _data(_chunk("a"), *_END), "a"),
    "a mark": (b"\xef\xbb\xbf" + _data(_chunk("a "), _chunk("b"), *_END), "a b"),
    "a mark before a comment": (b"\xef\xbb\xbf: hi\n\n" + _data(_chunk("a"), *_END), "a"),
    "half an emoji": (_data(_chunk("x \ud83d"), _chunk("\ude00 y"), *_END), "x \ud83d\ude00 y"),
    "not a number": (b'data: {"choices":[{"index":0,"delta":{"content":"a"},"logprobs":'
                     b'{"content":[{"token":"a","logprob":NaN,"top":-Infinity}]}}]}\n\n'
                     + _data(*_END), "a"),
    "bytes of another encoding": (
        b'data: {"choices":[{"index":0,"delta":{"content":"caf\xe9"}}]}\n\n'
                                  + _data(*_END), "caf\ufffd"),
    "text after the end": (_data(_chunk("a"), *_END) + b"data: <bye>\n\nretry: 3\n\nOK\n\n", "a"),
    "an index of null": (_data(_chunk("a") | {"choices": [
        {"index": None, "delta": {"content": "a"}, "finish_reason": None}]}, *_END), "a"),
}  # fmt: skip


async def test_what_the_official_client_reads_goes_through_and_is_a_success(
    tmp_path: Path, models: Path
) -> None:
    """Seen on 5a5a85b: `error: null` ended as a failure, a mark took the first words with it, half
    an emoji ended the stream, and a blank after [DONE] made a whole answer a failure. On e98ba34 a
    byte that is no UTF-8 ended it, where a browser puts a mark.
    """
    ends = (b"data: [DONE]\n\n", b"data: [DONE] \n\n", b"data:\t[DONE]\r\n\r\n", b"")
    async with behind(tmp_path, models, **_QUICK) as (asking, client, alpha, _):
        for why, (body, expected) in READ.items():
            for done in ends:
                alpha.script = [_stream(body, done)]
                raw = await asking.chat.completions.with_raw_response.create(
                    model="alpha", messages=HELLO, stream=True
                )
                words: list[str] = []
                await _read(raw.parse(), words)
                assert "".join(words) == expected, (why, done)
                signals = await signals_of(client, raw.headers["x-decision-id"])
                assert signals.keys() == {"cost_usd", "latency_s"}, (why, done)
                assert signals["cost_usd"] == pytest.approx(_COST), (why, done)


async def test_a_connection_that_breaks_after_the_reason_to_stop_is_no_failure(
    tmp_path: Path, models: Path
) -> None:
    """Seen on 5a5a85b: the whole answer, then an error event, and quality 0."""
    async with behind(tmp_path, models) as (asking, client, alpha, _):
        cut = STREAM_HEAD + b"Content-Length: 99999\r\n\r\n" + _data(_chunk("whole", "stop"))
        alpha.script = [says_and_closes(cut)]
        raw = await asking.chat.completions.with_raw_response.create(
            model="alpha", messages=HELLO, stream=True
        )
        said = [each.choices[0].delta.content async for each in raw.parse()]
        assert said == ["whole"]
        assert set(await signals_of(client, raw.headers["x-decision-id"], 1)) == {"latency_s"}


async def test_a_whole_answer_is_read_as_its_client_would(tmp_path: Path, models: Path) -> None:
    async with behind(tmp_path, models) as (asking, _, alpha, _beta):
        for body in (
            b'\xef\xbb\xbf{"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}',
            b'{"choices": [{"message": {"content": "fine"}}], "error": null, "score": NaN}',
            b'{"choices": [{"message": {"content": "fine", "refusal": null}, "x": "\\ud83d"}]}',
            b'{"choices": [{"message": {"content": "fine"}, "x": "caf\xe9"}]}',
        ):
            alpha.script = [says_and_closes(a_whole(body))]
            assert await text_from(asking, "alpha") == "fine", body


async def test_a_request_of_a_mark_half_a_character_or_nan_is_passed_on(
    tmp_path: Path, models: Path
) -> None:
    """Seen on 5a5a85b: 400 "Input data was truncated" for a whole body."""
    turn = b'{"model": "alpha", "messages": [{"role": "user", "content": "a %b b"}], "top_p": %b}'
    async with behind(tmp_path, models) as (_, client, alpha, _beta):
        for body in (
            turn % (b"\\ud83d", b"1"),
            turn % (b"\\ude00\\ud83d", b"1"),
            turn % (b"x", b"NaN"),
            b"\xef\xbb\xbf" + turn % (b"x", b"null"),
        ):
            status, _ = await client.post("/v1/chat/completions", body)
            assert status == 200, body
        assert alpha.requests == 4
        # what is not passed on is named: a unit of half a character would be another's
        body = b'{"query": "a \\ud83d b"}'
        status, answer = await client.post("/v1/decide", body)
        assert (status, answer["error"]["code"]) == (400, "malformed")
        assert "\\ud83d (byte 13) is half a character" in answer["error"]["message"]
        assert (await client.post("/v1/decide", b'\xef\xbb\xbf{"query": "a"}'))[0] == 200


MESSAGE = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 1000}}}
BLOCK = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}
STOPPED = {"type": "message_delta", "delta": {"stop_reason": "end_turn"},
           "usage": {"output_tokens": 50}}  # fmt: skip
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "m"}}


async def test_the_same_holds_for_anthropics_streams(tmp_path: Path, models: Path) -> None:
    async with wires() as (provider, url):
        upstreams = [{"id": "c", "kind": "anthropic", "base_url": url}]
        arms = [{"id": "alpha", "upstream": "c", "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0}]
        environ = {"BANDIT_UPSTREAMS": json.dumps(upstreams), "BANDIT_ARMS": json.dumps(arms)}
        async with serving(tmp_path / "var", models, **environ, **_QUICK) as client:
            for body, status, said, failed in (
                (_data(MESSAGE, BLOCK, STOPPED) + b"data: <bye>\n\n", 200, "hi", False),
                (b"\xef\xbb\xbf" + _data(MESSAGE, BLOCK, STOPPED), 200, "hi", False),
                (
                    _data(MESSAGE) + b"event: error\ndata: " + json.dumps(OVERLOADED).encode(),
                    503,
                    "",
                    True,
                ),
                (_data(MESSAGE, BLOCK, OVERLOADED, STOPPED), 200, "hi", True),
                (_data(MESSAGE, BLOCK) + b"event: error\ndata: {}\n\n", 200, "hi", True),
            ):
                provider.script = [_stream(body, b"")]
                got = await _events(client)
                assert got[0] == status, body
                assert (said in got[1], '"error"' in got[1]) == (True, failed), got[1]


async def _events(client: Client) -> tuple[int, str]:
    asked = {"model": "alpha", "messages": HELLO, "stream": True}
    async with client.session.post(f"{client.url}/v1/chat/completions", json=asked) as answer:
        return answer.status, await answer.text()


def _named(*events: dict[str, Any]) -> Act:
    """A stream of events that repeat their names."""
    parts = [f"event: {each['type']}\n".encode() + _data(each) for each in events]
    return _stream(b"".join(parts), done=b"")


_STARTED = {"type": "message_start", "message": {
    "id": "m", "type": "message", "role": "assistant", "model": "m", "content": [],
    "stop_reason": None, "usage": {"input_tokens": 10, "output_tokens": 1}}}  # fmt: skip
_MESSAGE = {"id": "m", "type": "message", "role": "assistant", "model": "m",
            "content": [{"type": "text", "text": "fine"}], "stop_reason": "end_turn",
            "usage": {"input_tokens": 10, "output_tokens": 5}}  # fmt: skip
_CREATED = {"type": "response.created",
            "response": {"id": "r", "model": "m", "status": "in_progress"}}  # fmt: skip
_RESPONSE = {"id": "r", "object": "response", "status": "completed", "model": "m", "created_at": 1,
             "output": [{"type": "message", "content": [{"type": "output_text", "text": "fine"}]}],
             "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}}  # fmt: skip
_WHOLE = {
    "anthropic": _named(
        _STARTED,
        {"type": "content_block_start", "index": 0,
         "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0,
         "delta": {"type": "text_delta", "text": "fine"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"},
         "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ),
    "responses": _named(
        _CREATED,
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0,
         "item_id": "i", "delta": "fine"},
        {"type": "response.completed", "response": _RESPONSE},
    ),
}  # fmt: skip
_LOST = {"code": "server_error", "message": "lost"}
OTHER_DIALECTS: dict[str, tuple[str, Act]] = {
    "an exception of the platform's": (
        "anthropic", _stream(_data({"internalServerException": {"message": "m"}}), done=b"")),
    "an error without a type": ("anthropic", _stream(_data({"error": {"message": "m"}}), done=b"")),
    "a message without a type": ("anthropic", _stream(_data({"message": "m"}), done=b"")),
    "a length that is too much": ("anthropic", _named(_STARTED, {"type": "error", "error": {
        "type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8 maximum"}})),
    "a response that was cancelled": ("responses", _named(_CREATED, {
        "type": "response.cancelled", "response": {"id": "r", "status": "cancelled"}})),
    "an error in what is completed": ("responses", _named(_CREATED, {
        "type": "response.completed", "response": _RESPONSE | {"error": _LOST, "output": []}})),
    "a status in what is completed": ("responses", _named(_CREATED, {
        "type": "response.completed", "response": _RESPONSE | {"status": "failed", "output": []}})),
}  # fmt: skip
_ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "anthropic": ("/v1/messages", {"max_tokens": 9, "messages": HELLO}),
    "responses": ("/v1/responses", {"input": "Hello"}),
}


@pytest.mark.parametrize("dialect", sorted(_WHOLE))
async def test_an_error_of_another_dialect_is_followed_by_another_arm_and_taught(
    tmp_path: Path, models: Path, dialect: str
) -> None:
    """Seen on e98ba34: to a client of the provider's own dialect these were answers, or came after
    an answer's head; what ends a response as failed was one in every dialect.
    """
    acts = {why: act for why, (kind, act) in OTHER_DIALECTS.items() if kind == dialect}
    path, body = _ASKED[dialect]
    async with behind(tmp_path, models, 60.0, dialect, **_QUICK) as (asking, client, alpha, beta):
        alpha.always = beta.always = _WHOLE[dialect]
        for why, act in acts.items():
            for own in (True, False):
                alpha.script = [act]
                while alpha.script:  # chance may choose beta first
                    if not own:
                        assert await text_from(asking, "auto", stream=True) == "fine", why
                        continue
                    asked = body | {"model": "auto", "stream": True}
                    url = client.url + path
                    async with client.session.post(url, json=asked) as answer:
                        said = await answer.text()
                    assert "fine" in said, why
                    assert "event: None" not in said
                    assert "lost" not in said


async def test_a_whole_answer_that_ended_badly_or_has_no_message_is_followed_by_another_arm(
    tmp_path: Path, models: Path
) -> None:
    """Seen on e98ba34: a choice without a message was an answer, and so was a message that stopped
    for an error.
    """
    nothing: list[Any] = [{"index": 0, "finish_reason": "stop"},
                          {"index": 0, "message": None, "finish_reason": "stop"}]  # fmt: skip
    for kind, answers, good in (
        ("openai", [{"choices": [each], "usage": _USAGE} for each in nothing], None),
        ("anthropic", [_MESSAGE | {"stop_reason": "error"}], _MESSAGE),
    ):
        where = tmp_path / kind
        where.mkdir()
        async with behind(where, models, 60.0, kind, **_QUICK) as (asking, _, alpha, beta):
            if good is not None:
                beta.always = alpha.always = says(a_whole(json.dumps(good).encode()))
            for answer in answers:
                alpha.script = [says(a_whole(json.dumps(answer).encode()))]
                while alpha.script:
                    assert await text_from(asking, "auto") == "fine"
