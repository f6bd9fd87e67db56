"""One provider that speaks all three dialects as the real APIs do, and one gateway in front of it.

Both run in a thread of their own, so that one pair serves many tests, and clients that block too.
The provider refuses what the real APIs refuse: fields of another type than the official packages
say, tool results without a call, thinking that it did not sign.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aiohttp import web
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import TypeAdapter, ValidationError

from tests.service.running import serving

KEY = "sk-upstream-canary-9313"
SIGNED = "c2lnbmVk"
Json = dict[str, Any]

_CHAT: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsNonStreaming)
_MESSAGES: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsNonStreaming)
_RESPONSES: TypeAdapter[Any] = TypeAdapter(ResponseCreateParamsNonStreaming)
THOUGHT = "The user greets me."
PROMPT, CACHED, ANSWER, REASONED = 1000, 400, 100, 20


def walked(value: Any) -> Any:
    """Everything that is checked only when it is looked at, looked at."""
    if isinstance(value, dict):
        return {name: walked(each) for name, each in value.items()}
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        return value
    return [walked(each) for each in value]


class Bad(Exception):
    """The provider refuses a request."""


class Provider:
    """What it was asked, by path, newest last."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Json, dict[str, str]]] = []
        self.how = ""  # "overloaded", or "cut"
        self.overloaded: set[str] = set()  # models that always are
        self.redirects: dict[str, str] = {}  # the model that answers in the place of another
        self.go = asyncio.Event()  # what "slow" waits for

    def last(self) -> tuple[str, Json, dict[str, str]]:
        return self.seen[-1]

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._asked),
                web.post("/v1/messages", self._asked),
                web.post("/v1/messages/count_tokens", self._asked),
                web.post("/v1/responses", self._asked),
                web.post("/v1/responses/input_tokens", self._asked),
            ]
        )
        return app

    async def _asked(self, request: web.Request) -> web.StreamResponse:
        body, path = await request.json(), request.path.removeprefix("/v1")
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((path, body, headers))
        messages = path.startswith("/messages")
        if self.how == "slow":
            await self.go.wait()
        if self.how == "overloaded" or body["model"] in self.overloaded:
            error = {"type": "overloaded_error", "message": "Overloaded"}
            told = {"type": "error", "error": error} if messages else {"error": error}
            return web.json_response(told, status=529)
        try:
            {"/chat": _check_chat, "/messages": _check_messages, "/responses": _check_responses}[
                f"/{path.split('/')[1]}"
            ](body, headers)
        except (Bad, ValidationError) as wrong:
            error = {"type": "invalid_request_error", "message": f"refused: {wrong}"[:600]}
            told = {"type": "error", "error": error} if messages else {"error": error}
            return web.json_response(told, status=400)
        if path == "/messages/count_tokens":
            return web.json_response({"input_tokens": 321})
        if path == "/responses/input_tokens":
            return web.json_response({"object": "response.input_tokens", "input_tokens": 654})
        body = body | {"model": self.redirects.get(body["model"], body["model"])}
        whole, events = {
            "/chat/completions": _chat, "/messages": _message, "/responses": _response,
        }[path](body)  # fmt: skip
        if not body.get("stream"):
            return web.json_response(whole)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for i, event in enumerate(events):
            if self.how == "cut" and i == len(events) // 2:
                break
            if self.how.startswith("cut early") and i == (1 if path.startswith("/chat") else 3):
                self.how = "" if self.how.endswith("once") else self.how
                return response
            name = b"" if path.startswith("/chat") else f"event: {event['type']}\n".encode()
            await response.write(name + b"data: " + json.dumps(event).encode() + b"\n\n")
        if path.startswith("/chat") and self.how != "cut":
            await response.write(b"data: [DONE]\n\n")
        return response


# --- what it refuses


def _known(adapter: TypeAdapter[Any], kind: Any, body: Json) -> None:
    asked = {name: value for name, value in body.items() if name != "stream"}
    walked(adapter.validate_python(asked))
    unknown = set(asked) - set(kind.__annotations__)
    if unknown:
        raise Bad(f"Unrecognized request argument: {min(unknown)}")


def _check_chat(body: Json, headers: dict[str, str]) -> None:
    if headers.get("authorization") != f"Bearer {KEY}":
        raise Bad("no key")
    _known(_CHAT, CompletionCreateParamsNonStreaming, body)
    if "max_tokens" in body and "max_completion_tokens" in body:
        raise Bad("max_tokens and max_completion_tokens at once")
    open_calls: set[str] = set()
    for message in body["messages"]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                raise Bad("a tool message without its call")
            if not isinstance(message["content"], str | list):
                raise Bad("a tool message holds text alone")
            open_calls.discard(message["tool_call_id"])
            continue
        if open_calls:
            raise Bad(f"no answer to {open_calls}")
        open_calls = {call["id"] for call in message.get("tool_calls") or ()}
        for call in message.get("tool_calls") or ():
            json.loads(call["function"]["arguments"])


def _check_messages(body: Json, headers: dict[str, str]) -> None:
    if headers.get("x-api-key") != KEY or "anthropic-version" not in headers:
        raise Bad("no key or no version")
    _known(_MESSAGES, MessageCreateParamsNonStreaming, {"max_tokens": 1, **body})
    calls: set[str] = set()
    for message in body["messages"]:
        blocks = message["content"]
        blocks = blocks if isinstance(blocks, list) else [{"type": "text", "text": blocks}]
        results = {each["tool_use_id"] for each in blocks if each["type"] == "tool_result"}
        if message["role"] == "user" and results != calls:
            raise Bad(f"tool_use ids {calls} without tool_result, got {results}")
        calls = {each["id"] for each in blocks if each["type"] == "tool_use"}
        if not all(re.fullmatch("[a-zA-Z0-9_-]+", id) for id in calls):
            raise Bad("String should match pattern '^[a-zA-Z0-9_-]+$'")
        for each in blocks:
            if each["type"] == "thinking" and each.get("signature") != SIGNED:
                raise Bad("Invalid `signature` in `thinking` block")


def _check_responses(body: Json, headers: dict[str, str]) -> None:
    if headers.get("authorization") != f"Bearer {KEY}":
        raise Bad("no key")
    _known(_RESPONSES, ResponseCreateParamsNonStreaming, body)
    items = body["input"] if isinstance(body["input"], list) else []
    called = {each["call_id"] for each in items if each.get("type") == "function_call"}
    given = {each["call_id"] for each in items if each.get("type") == "function_call_output"}
    if called != given:
        raise Bad(f"No tool output found for function call {called ^ given}")
    for each in items:
        if each.get("type") == "reasoning" and each.get("encrypted_content") != SIGNED:
            raise Bad(f"Item '{each.get('id')}' not found")


# --- what it says: two calls of the first tool, then what they gave; else a greeting

_numbers = itertools.count()
"""Of calls, whose ids are never the same."""


def _said(body: Json, results: list[str], tools: list[str]) -> tuple[str, list[Json]]:
    if tools and not results and body.get("tool_choice") not in ("none", {"type": "none"}):
        return "", [{"id": f"call_{city}_{next(_numbers)}", "name": tools[0], "city": city}
                    for city in ("Oslo", "Rome")]  # fmt: skip
    if results:
        return f"Seen: {'; '.join(results)}", []
    form = body.get("response_format") or body.get("output_config") or body.get("text")
    if isinstance(form, dict) and "schema" in json.dumps(form):
        return '{"capital": "Paris"}', []
    return f"Hello from {body['model']}, ☃", []


def _thinks(body: Json) -> bool:
    return "think" in json.dumps(body)


def _chat(body: Json) -> tuple[Json, list[Json]]:
    last = max(i for i, each in enumerate(body["messages"]) if each["role"] != "tool")
    results = [each["content"] for each in body["messages"][last:] if each["role"] == "tool"]
    tools = [each["function"]["name"] for each in body.get("tools") or ()]
    text, calls = _said(body, results, tools)
    usage = {
        "prompt_tokens": PROMPT, "completion_tokens": ANSWER, "total_tokens": PROMPT + ANSWER,
        "prompt_tokens_details": {"cached_tokens": CACHED},
        "completion_tokens_details": {"reasoning_tokens": REASONED},
    }  # fmt: skip
    head = {"id": "theirs", "created": 1, "model": body["model"]}
    made: list[Json] = [{"id": f"functions.{each['id']}:0", "type": "function", "function":
             {"name": each["name"], "arguments": json.dumps({"city": each["city"]})}}
            for each in calls]  # fmt: skip
    message: Json = {"role": "assistant", "content": text or None}
    if made:
        message["tool_calls"] = made
    if _thinks(body):
        message["reasoning_content"] = THOUGHT
    finish = "tool_calls" if made else "stop"
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    whole = head | {"object": "chat.completion", "choices": [choice], "usage": usage}
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    if _thinks(body):
        deltas += [{"reasoning_content": word} for word in _words(THOUGHT)]
    deltas += [{"content": word} for word in _words(text)]
    for i, call in enumerate(made):
        named = {"name": call["function"]["name"], "arguments": ""}
        deltas.append({"tool_calls": [{**call, "index": i, "function": named}]})
        for piece in _words(call["function"]["arguments"]):
            deltas.append({"tool_calls": [{"index": i, "function": {"arguments": piece}}]})
    head |= {"object": "chat.completion.chunk"}
    events = [head | {"choices": [{"index": 0, "delta": each, "finish_reason": None}]}
              for each in deltas]  # fmt: skip
    events.append(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append(head | {"choices": [], "usage": usage})
    return whole, events


def _message(body: Json) -> tuple[Json, list[Json]]:
    last = body["messages"][-1]["content"]
    blocks = last if isinstance(last, list) else []
    results = [_plain(each["content"]) for each in blocks if each["type"] == "tool_result"]
    tools = [each["name"] for each in body.get("tools") or ()]
    text, calls = _said(body, results, tools)
    content: list[Json] = []
    if body.get("thinking", {}).get("type") == "enabled":
        content.append({"type": "thinking", "thinking": THOUGHT, "signature": SIGNED})
    if text:
        content.append({"type": "text", "text": text})
    content += [{"type": "tool_use", "id": each["id"], "name": each["name"],
                 "input": {"city": each["city"]}} for each in calls]  # fmt: skip
    usage = {
        "input_tokens": PROMPT - CACHED, "cache_read_input_tokens": CACHED,
        "cache_creation_input_tokens": 0, "output_tokens": ANSWER, "service_tier": "standard",
    }  # fmt: skip
    reason = "tool_use" if calls else "end_turn"
    whole: Json = {
        "id": "msg_theirs", "type": "message", "role": "assistant", "model": body["model"],
        "content": content, "stop_reason": reason, "stop_sequence": None, "usage": usage,
        "x_new_field": {"kept": 1.5},
    }  # fmt: skip
    begun = whole | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    events: list[Json] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
    for i, block in enumerate(content):
        empties: dict[str, Json] = {
            "text": {"text": ""},
            "thinking": {"thinking": "", "signature": ""},
            "tool_use": {"input": {}},
        }
        empty = empties[block["type"]]
        start = {"type": "content_block_start", "index": i, "content_block": block | empty}
        events.append(start)
        match block["type"]:
            case "text":
                deltas = [{"type": "text_delta", "text": w} for w in _words(block["text"])]
            case "thinking":
                deltas = [{"type": "thinking_delta", "thinking": w} for w in _words(THOUGHT)]
                deltas.append({"type": "signature_delta", "signature": SIGNED})
            case _:
                words = _words(json.dumps(block["input"]))
                deltas = [{"type": "input_json_delta", "partial_json": word} for word in words]
        for delta in deltas:
            events.append({"type": "content_block_delta", "index": i, "delta": delta})
        events.append({"type": "content_block_stop", "index": i})
    ended: Json = {"stop_reason": reason, "stop_sequence": None}
    events.append({"type": "message_delta", "delta": ended, "usage": {"output_tokens": ANSWER}})
    events.append({"type": "message_stop"})
    return whole, events


def _response(body: Json) -> tuple[Json, list[Json]]:
    items = body["input"] if isinstance(body["input"], list) else []
    turns = [i for i, each in enumerate(items) if each.get("role") == "user"]
    after = items[max(turns, default=0) :]
    results = [_plain(each["output"]) for each in after
               if each.get("type") == "function_call_output"]  # fmt: skip
    tools = [each["name"] for each in body.get("tools") or () if each["type"] == "function"]
    text, calls = _said(body, results, tools)
    output: list[Json] = []
    if body.get("reasoning"):
        output.append({"id": "rs_1", "type": "reasoning", "encrypted_content": SIGNED,
                       "summary": [{"type": "summary_text", "text": THOUGHT}]})  # fmt: skip
    if text:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        output.append({"id": "msg_1", "type": "message", "role": "assistant",
                       "status": "completed", "content": [part]})  # fmt: skip
    output += [{"id": f"fc_{i}", "type": "function_call", "call_id": each["id"],
                "name": each["name"], "arguments": json.dumps({"city": each["city"]}),
                "status": "completed"} for i, each in enumerate(calls)]  # fmt: skip
    usage = {
        "input_tokens": PROMPT, "input_tokens_details": {"cached_tokens": CACHED},
        "output_tokens": ANSWER, "output_tokens_details": {"reasoning_tokens": REASONED},
        "total_tokens": PROMPT + ANSWER,
    }  # fmt: skip
    whole: Json = {
        "id": "resp_theirs", "object": "response", "created_at": 1, "status": "completed",
        "model": body["model"], "output": output, "usage": usage, "error": None,
        "incomplete_details": None, "instructions": body.get("instructions"), "metadata": {},
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": body.get("tools") or [],
        "temperature": 1.0, "top_p": 1.0, "x_new_field": {"kept": 1.5},
    }  # fmt: skip
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    events: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for i, item in enumerate(output):
        at = {"item_id": item["id"], "output_index": i}
        empties: dict[str, Json] = {
            "message": {"content": [], "status": "in_progress"},
            "reasoning": {"summary": []},
            "function_call": {"arguments": "", "status": "in_progress"},
        }
        empty = empties[item["type"]]
        added = {"type": "response.output_item.added", "output_index": i, "item": item | empty}
        events.append(added)
        match item["type"]:
            case "message":
                at |= {"content_index": 0}
                part = item["content"][0]
                events.append({"type": "response.content_part.added", **at,
                               "part": part | {"text": ""}})  # fmt: skip
                for word in _words(text):
                    events.append({"type": "response.output_text.delta", **at, "delta": word,
                                   "logprobs": []})  # fmt: skip
                events.append({"type": "response.output_text.done", **at, "text": text,
                               "logprobs": []})  # fmt: skip
                events.append({"type": "response.content_part.done", **at, "part": part})
            case "reasoning":
                at |= {"summary_index": 0}
                part = item["summary"][0]
                events.append({"type": "response.reasoning_summary_part.added", **at,
                               "part": part | {"text": ""}})  # fmt: skip
                for word in _words(THOUGHT):
                    events.append({"type": "response.reasoning_summary_text.delta", **at,
                                   "delta": word})  # fmt: skip
                events.append({"type": "response.reasoning_summary_text.done", **at,
                               "text": THOUGHT})  # fmt: skip
                events.append({"type": "response.reasoning_summary_part.done", **at, "part": part})
            case _:
                for word in _words(item["arguments"]):
                    events.append({"type": "response.function_call_arguments.delta", **at,
                                   "delta": word})  # fmt: skip
                events.append({"type": "response.function_call_arguments.done", **at,
                               "arguments": item["arguments"], "name": item["name"]})  # fmt: skip
        events.append({"type": "response.output_item.done", "output_index": i, "item": item})
    events.append({"type": "response.completed", "response": whole})
    return whole, [event | {"sequence_number": n} for n, event in enumerate(events)]


def _words(text: str) -> list[str]:
    return [f"{word} " for word in text.split(" ")[:-1]] + text.split(" ")[-1:] if text else []


def _plain(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", part["type"]) for part in content)


# --- both, running

ARMS = {"chat": "openai", "claude": "anthropic", "resp": "responses"}
COST = ((PROMPT - CACHED) * 1.0 + CACHED * 0.5 + ANSWER * 4.0) / 1e6
"""Of every answer."""


@asynccontextmanager
async def speaking() -> AsyncIterator[tuple[Provider, str]]:
    """A provider, and its address."""
    provider = Provider()
    runner = web.AppRunner(provider.app(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield provider, f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def pair(
    tmp_path: Path,
    models: Path,
    arms: Mapping[str, str] = ARMS,
    requests: Mapping[str, Json] | None = None,
    **environ: str,
) -> AsyncIterator[tuple[str, Provider]]:
    """The gateway's address, and the provider; arms: the dialect of each; requests: what each is
    asked, too.
    """
    async with speaking() as (provider, base_url):
        environ = configured(tmp_path, base_url, arms, requests or {}) | environ
        async with serving(tmp_path / "var", models, **environ) as client:
            yield client.url, provider


def configured(
    tmp_path: Path,
    base_url: str,
    arms: Mapping[str, str],
    requests: Mapping[str, Json] = MappingProxyType({}),
) -> dict[str, str]:
    """The settings of a service with these arms, all of them at one address."""
    (tmp_path / "key").write_text(KEY)
    upstreams = [
        {"id": kind, "kind": kind, "base_url": base_url, "key_file": str(tmp_path / "key")}
        for kind in set(arms.values())
    ]
    specs = [
        {"id": id, "upstream": kind, "model": f"{id}-large", "usd_per_mtok_in": 1.0,
         "usd_per_mtok_cached_in": 0.5, "usd_per_mtok_out": 4.0, "context_window": 200_000,
         "max_output_tokens": 64_000, "capabilities": ["tools", "json", "vision"],
         "request": requests.get(id, {})}
        for id, kind in arms.items()
    ]  # fmt: skip
    return {
        "BANDIT_ARMS": json.dumps(specs),
        "BANDIT_UPSTREAMS": json.dumps(upstreams),
        "BANDIT_POLICY_NAME": "uniform",
    }


@contextmanager
def running(tmp_path: Path, models: Path, **environ: str) -> Iterator[tuple[str, Provider]]:
    """The same in a thread of its own."""
    there: list[tuple[str, Provider]] = []
    failed: list[BaseException] = []
    ready, over = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        async with pair(tmp_path, models, ARMS, None, **environ) as made:
            there.append(made)
            ready.set()
            await over.wait()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            failed.append(error)
        ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(60)
    try:
        if failed:
            raise failed[0]
        yield there[0]
    finally:
        if loops and not loops[0].is_closed():
            loops[0].call_soon_threadsafe(over.set)
        thread.join(60)
    if failed:
        raise failed[0]
