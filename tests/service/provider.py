"""A provider of OpenAI's wire format whose behaviour tests set, and the gateway in front of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
from aiohttp import web

from tests.service.running import Client, serving

ARMS = ("alpha", "beta", "gamma")
CRITIC = "critic"
"""Judges, where `[[judges]]` name it, and answers nobody."""
KEY = "sk-upstream-canary-7781"


class Provider:
    """An OpenAI-compatible server whose behaviour can be set by model."""

    def __init__(self) -> None:
        self.behaviour: dict[str, str] = {}
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.cancelled = asyncio.Event()
        self.finish = asyncio.Event()  # ends what is endless
        self.says = ""  # in place of its usual answer
        self.calls_it = ""  # the model, in place of the name that it was asked by
        self.judge: Callable[[str], str] | None = None
        self.url = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/completions", self._chat),
                web.post("/v1/embeddings", self._embeddings),
            ]
        )
        return app

    async def _embeddings(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.seen.append(body)
        how = self.behaviour.get(body["model"], "")
        if how == "never":
            await self._never()
        if how == "rejected":
            return web.json_response({"error": {"message": "bad tool", "type": "x"}}, status=400)
        if how.isdigit():
            return web.json_response({}, status=int(how), headers={"Retry-After": "7"})
        vector: dict[str, Any] = {"object": "embedding", "index": 0, "embedding": [0.5, 0.5]}
        if how == "long vector":
            vector["embedding"] = [0.5] * 9
        texts = len(body["input"]) if isinstance(body["input"], list) else 1
        vectors = [vector | {"index": i} for i in range(texts)]
        if how.endswith("vectors"):
            vectors = vectors[: 0 if how.startswith("no") else texts // 2]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return web.json_response({"object": "list", "data": vectors, "model": "e", "usage": usage})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen.append(body)
        self.headers.append(dict(request.headers))
        how = self.behaviour.get(body["model"], "good")
        if self.judge is not None and "Rubric:" in json.dumps(body["messages"]):
            said = {**self._answer({"model": body["model"]})}
            said["choices"][0]["message"]["content"] = self.judge(body["messages"][1]["content"])
            return web.json_response(said)
        match how:
            case "reset":
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            case "never":
                await self._never()
            case "500 at the end":
                await self.finish.wait()
                return web.json_response({}, status=500)
            case "not json":
                return web.Response(text="<html>", content_type="text/html")
            case "billed failure":
                told = {"error": {"message": "overloaded"}, "usage": _USAGE}
                return web.json_response(told)
            case "no choices":
                return web.json_response({"ok": True})
            case "no choices, billed":
                return web.json_response({"object": "chat.completion", "usage": _USAGE})
            case "rejected":
                error = {"message": "bad tool", "type": "invalid_request_error", "param": "tools",
                         "code": "bad"}  # fmt: skip
                return web.json_response({"error": error}, status=400)
            case "unsuited":
                code = {"message": "too long", "code": "context_length_exceeded"}
                return web.json_response({"error": code}, status=400)
            case "403":
                return web.json_response({}, status=403)
            case "500" | "429" | "529" | "401" | "402" | "404":
                return web.json_response({}, status=int(how), headers={"Retry-After": "7"})
        if body.get("stream"):
            return await self._stream(request, body, how)
        answer = self._answer(body)
        if how == "no usage":
            del answer["usage"]
        return web.json_response(answer)

    async def _never(self) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            self.cancelled.set()

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": f"I am {body['model']}"}
        if self.says:
            message["content"] = self.says
        elif body.get("response_format"):
            message["content"] = '{"capital": "Paris"}'
        if body.get("tools"):
            call = {"name": body["tools"][0]["function"]["name"], "arguments": '{"city": "Oslo"}'}
            message = {"role": "assistant", "content": None, "tool_calls": [
                {"id": "call_1", "type": "function", "function": call}]}  # fmt: skip
        choice = {"index": 0, "message": message, "text": "once", "finish_reason": "stop",
                  "logprobs": None}  # fmt: skip
        return {
            "id": "theirs", "object": "chat.completion", "created": 1,
            "model": self.calls_it or body["model"],
            "choices": [choice], "usage": _USAGE, "x_new_field": {"kept": 1.5},
        }  # fmt: skip

    async def _stream(
        self, request: web.Request, body: dict[str, Any], how: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for i, word in enumerate(("I ", "am ", body["model"])):
                if how == "error event":
                    await response.write(b'data: {"error": {"message": "overloaded"}}\n\n')
                    return response
                delta = {"content": word}
                choice = {"index": 0, "delta": delta, "finish_reason": None}
                await response.write(_event(body, [choice]))
                if i == 1 and how == "half":
                    await response.write_eof()
                    return response
                if i == 1 and how == "broken":
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                if i == 1 and how == "endless":
                    while not self.finish.is_set():
                        await asyncio.sleep(0.02)
                        await response.write(b": still there\n\n")
            end = {"index": 0, "delta": {}, "finish_reason": "stop"}
            await response.write(_event(body, [end]))
            if body.get("stream_options", {}).get("include_usage"):
                await response.write(_event(body, [], _USAGE))
            await response.write(b"data: [DONE]\n\n")
        except (ConnectionError, asyncio.CancelledError):
            self.cancelled.set()
        return response


_USAGE = {
    "prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100,
    "prompt_tokens_details": {"cached_tokens": 400},
}  # fmt: skip
COST = (600 * 1.0 + 400 * 0.5 + 100 * 4.0) / 1e6


def _event(body: dict[str, Any], choices: list[Any], usage: Any = None) -> bytes:
    chunk = {"id": "theirs", "object": "chat.completion.chunk", "created": 1,
             "model": body["model"], "choices": choices, "usage": usage}  # fmt: skip
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


@asynccontextmanager
async def a_provider() -> AsyncIterator[Provider]:
    provider = Provider()
    runner = web.AppRunner(provider.app(), handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield provider
    finally:
        await runner.cleanup()


@asynccontextmanager
async def a_gateway(
    tmp_path: Path, models: Path, *, hasty: Collection[str] = (), **environ: str
) -> AsyncIterator[tuple[Client, Provider]]:
    """hasty: the arms whose answer is waited for no longer than a second, the others' long."""
    (tmp_path / "key").write_text(KEY)
    async with a_provider() as provider:
        arms = [
            {
                "id": id,
                "usd_per_mtok_in": 1.0,
                "usd_per_mtok_out": 4.0,
                "upstream": "hasty" if id in hasty else "p",
                "usd_per_mtok_cached_in": 0.5,
                "capabilities": ["tools", "json"],
            }
            for id in ARMS
        ]
        if CRITIC in environ.get("BANDIT_JUDGES", ""):
            arms.append(arms[0] | {"id": CRITIC, "kind": "judge", "upstream": "p"})
        upstreams = [
            {
                "id": id,
                "base_url": provider.url,
                "key_file": str(tmp_path / "key"),
                "first_byte_s": seconds,
                "idle_s": 60.0,
            }
            for id, seconds in (("p", 600.0), ("hasty", 1.0))
        ]
        environ = {
            "BANDIT_ARMS": json.dumps(arms),
            "BANDIT_UPSTREAMS": json.dumps(upstreams),
            "BANDIT_POLICY_NAME": "epsilon_greedy",
            **environ,
        }
        async with serving(tmp_path / "var", models, **environ) as client:
            yield client, provider


@asynccontextmanager
async def official_client(
    tmp_path: Path, models: Path, *, hasty: Collection[str] = (), **environ: str
) -> AsyncIterator[tuple[openai.AsyncOpenAI, Client, Provider]]:
    """The official client in front of the gateway in front of a provider."""
    async with (
        a_gateway(tmp_path, models, hasty=hasty, **environ) as (client, provider),
        openai.AsyncOpenAI(base_url=f"{client.url}/v1", api_key="none", max_retries=0) as asking,
    ):
        yield asking, client, provider


HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.02)


async def signals_of(client: Client, id: str, most: int = 2) -> dict[str, float]:
    """What came back for a decision, once as much is there."""
    found: dict[str, float] = {}

    async def there() -> bool:
        _, body = await client.get(f"/v1/decisions/{id}")
        found.update(body["signals"])
        return len(found) >= most

    await until(there)
    return found
