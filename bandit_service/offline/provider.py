"""A provider of OpenAI's wire format that answers from recorded traffic, at recorded cost.

It lets a gateway be tried without a key. A query is found by its text; one that was not recorded is
answered as the recorded one with the most words in common, and the header `x-recorded` says which
it was. Recordings hold no answers, so the text says what is known of the answer: its score.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from aiohttp import web

from bandit_service.core import chance
from bandit_service.core.events import ArmSpec
from bandit_service.data.recordings import Recorded
from bandit_service.embedding import text_of_messages

FIRST_TOKEN_S, TOKENS_PER_S = 0.2, 80.0
"""How long an answer takes whose latency was not recorded: first token + tokens / rate."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One recorded answer."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    found: str

    def usage(self) -> dict[str, int]:
        """As OpenAI's API reports it."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


class Answers:
    """What was recorded, found by text."""

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        self.arms = {str(arm.id): (k, arm) for k, arm in enumerate(recorded.arms)}
        self._rows = {_plain(text): i for i, text in enumerate(recorded.texts)}
        self._words = [frozenset(text.split()) for text in self._rows]
        self._order = list(self._rows.values())

    def find(self, text: str) -> tuple[int, str]:
        """The row of a query, and "exact" or "nearest" (most words in common, the first of equals).

        Nearness is by Jaccard: |A ∩ B| / |A ∪ B|.
        """
        row = self._rows.get(_plain(text))
        if row is not None:
            return row, "exact"
        words = frozenset(_plain(text).split())
        near = [len(words & other) / (len(words | other) or 1) for other in self._words]
        return self._order[int(np.argmax(near))], "nearest"

    def answer(self, arm: str, text: str) -> Answer | None:
        """This arm's answer; None if it has none to this query."""
        column, spec = self.arms[arm]
        row, found = self.find(text)
        quality = float(self._recorded.quality[row, column])
        if np.isnan(quality):
            return None
        cost = float(self._recorded.cost[row, column])
        prompt, completion = tokens_of(cost, int(self._recorded.tokens[row]), spec)
        seconds = FIRST_TOKEN_S + completion / TOKENS_PER_S
        if self._recorded.latency is not None:
            known = float(self._recorded.latency[row, column])
            seconds = seconds if np.isnan(known) else known
        told = f"{arm} was recorded on this query with a quality of {quality:g}; its words were not"
        return Answer(told, prompt, completion, seconds, found)


def tokens_of(cost_usd: float, prompt: int, spec: ArmSpec) -> tuple[int, int]:
    """Prompt and completion tokens that come to a cost at the arm's prices, as near as they can.

    >>> arm = ArmSpec(id="a", usd_per_mtok_in=1.0, usd_per_mtok_out=4.0)
    >>> tokens_of(0.0005, 100, arm), tokens_of(0.00005, 100, arm)
    ((100, 100), (50, 0))
    """
    spent = cost_usd * 1e6
    if spec.usd_per_mtok_in > 0.0:
        prompt = min(prompt, round(spent / spec.usd_per_mtok_in))
    left = max(0.0, spent - prompt * spec.usd_per_mtok_in)
    if spec.usd_per_mtok_out <= 0.0:
        return prompt, spec.expected_output_tokens
    return prompt, round(left / spec.usd_per_mtok_out)


class RecordedUpstream:
    """The server's handlers.

    speed: times faster than recorded. fail_rate: share of 503. redirect_rate: share that the next
    recorded model answers in the place of the one asked for, and says so, as providers do that
    fall back.
    """

    def __init__(
        self,
        recorded: Recorded,
        speed: float = 1.0,
        fail_rate: float = 0.0,
        redirect_rate: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._answers = Answers(recorded)
        self._speed, self._seed = speed, seed
        self._fail_rate, self._redirect_rate = fail_rate, redirect_rate
        self._numbers = itertools.count()

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=16_777_216)
        app.add_routes(
            [
                web.get("/v1/models", self._models),
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/completions", self._completion),
            ]
        )
        return app

    async def _models(self, _: web.Request) -> web.Response:
        data = [
            {"id": id, "object": "model", "created": 0, "owned_by": "recorded"}
            for id in self._answers.arms
        ]
        return web.json_response({"object": "list", "data": data})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        try:
            text = text_of_messages(body["messages"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _refused(400, "messages: must have the text of a user", "messages") from None
        return await self._answered(request, body, text, "chat.completion")

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        if not isinstance(body.get("prompt"), str):
            raise _refused(400, "prompt: must be text", "prompt")
        return await self._answered(request, body, body["prompt"], "text_completion")

    async def _answered(
        self, request: web.Request, body: dict[str, Any], text: str, kind: str
    ) -> web.StreamResponse:
        arm = body.get("model")
        if arm not in self._answers.arms:
            there_are = ", ".join(self._answers.arms)
            raise _refused(
                404, f"model: no {arm!r} was recorded; expected one of {there_are}", "model"
            )
        number = next(self._numbers)
        if chance.uniform(self._seed, str(number)) < self._fail_rate:
            raise _refused(503, "this failure was asked for", None)
        if chance.uniform(self._seed, f"redirect {number}") < self._redirect_rate:
            names = list(self._answers.arms)
            arm = names[(names.index(arm) + 1) % len(names)]
        answer = await asyncio.to_thread(self._answers.answer, arm, text)
        if answer is None:
            raise _refused(503, f"{arm!r} has no recorded answer to this query", None)
        head = {"id": f"recorded-{number}", "created": 0, "model": arm}
        headers = {"x-recorded": answer.found}
        if body.get("stream"):
            return await self._streamed(request, body, answer, kind, head, headers)
        await asyncio.sleep(answer.seconds / self._speed)
        choice = _choice(kind, answer.text, "stop", delta=False)
        whole = {**head, "object": kind, "choices": [choice], "usage": answer.usage()}
        return web.json_response(whole, headers=headers)

    async def _streamed(
        self,
        request: web.Request,
        body: Mapping[str, Any],
        answer: Answer,
        kind: str,
        head: Mapping[str, Any],
        headers: Mapping[str, str],
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={**headers, "Content-Type": "text/event-stream"})
        first = min(FIRST_TOKEN_S, answer.seconds)
        await asyncio.sleep(first / self._speed)
        await response.prepare(request)
        words = answer.text.split(" ")
        pause = (answer.seconds - first) / self._speed / len(words)
        named = {**head, "object": "chat.completion.chunk" if kind == "chat.completion" else kind}
        with suppress(ConnectionError):  # the client has left, as it may
            for i, word in enumerate(words):
                piece = word if i == 0 else f" {word}"
                said = _choice(kind, piece, None, delta=True)
                await _send(response, {**named, "choices": [said]})
                await asyncio.sleep(pause)
            end = _choice(kind, "", "stop", delta=True)
            await _send(response, {**named, "choices": [end]})
            options = body.get("stream_options")
            if isinstance(options, Mapping) and options.get("include_usage"):
                await _send(response, {**named, "choices": [], "usage": answer.usage()})
            await response.write(b"data: [DONE]\n\n")
        return response


def config_toml(recorded: Recorded, base_url: str) -> str:
    """A configuration of the service whose arms are the recorded ones, behind this server."""
    lines = ["[[upstreams]]", 'id = "recorded"', f"base_url = {json.dumps(base_url)}"]
    for arm in recorded.arms:
        lines += [
            "",
            "[[arms]]",
            f"id = {json.dumps(arm.id)}",
            f"usd_per_mtok_in = {arm.usd_per_mtok_in!r}",
            f"usd_per_mtok_out = {arm.usd_per_mtok_out!r}",
            f"context_window = {arm.context_window}",
            f"expected_output_tokens = {arm.expected_output_tokens}",
            'upstream = "recorded"',
        ]
    return "\n".join(lines) + "\n"


async def _send(response: web.StreamResponse, chunk: Mapping[str, Any]) -> None:
    await response.write(b"data: " + msgspec.json.encode(chunk) + b"\n\n")


def _choice(kind: str, text: str, finish: str | None, *, delta: bool) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
    if kind != "chat.completion":
        return choice | {"text": text}
    return choice | {"delta" if delta else "message": {"role": "assistant", "content": text}}


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (ValueError, UnicodeDecodeError):
        body = None
    if not isinstance(body, dict):
        raise _refused(400, "the body must be a JSON object", None)
    return body


def _refused(status: int, message: str, param: str | None) -> web.HTTPException:
    kinds = {400: web.HTTPBadRequest, 404: web.HTTPNotFound, 503: web.HTTPServiceUnavailable}
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    return kinds[status](text=json.dumps({"error": error}), content_type="application/json")


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
