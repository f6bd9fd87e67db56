"""The table of docs/gateway.md, of what passes from which client to which provider, is true."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from bandit_service.gateway.providers import front_of, provider_of
from bandit_service.gateway.translation import heard_of, refusal, request_of
from bandit_service.settings.upstreams import Upstream, UpstreamSpec
from tests.unit.gateway.test_answer_types import SAYS

ROOT = Path(__file__).parents[3]
COLUMNS = (
    (("anthropic", "openai"), ("anthropic", "responses")),
    (("responses", "openai"), ("responses", "anthropic")),
    (("openai", "anthropic"),),
    (("openai", "responses"),),
)
"""Client and provider of each column but the first."""
API = {"openai": "chat", "anthropic": "Messages", "responses": "Responses"}
HOW = {"openai": ("messages",), "anthropic": ("messages",), "responses": ("input",)}
PIXEL, PDF = "iVBORw0KGgo=", "JVBERi0="
SCHEMA = {"type": "object", "properties": {"mark": {"type": "string"}}}
Body: TypeAlias = Mapping[str, Any]


def _said(kind: str, *parts: Body, **more: Any) -> Body:
    """A request whose user says these parts."""
    turn = {"role": "user", "content": list(parts)}
    limit = {"max_tokens": 9} if kind == "anthropic" else {}
    return {"model": "m", HOW[kind][0]: [turn], **limit, **more}


def _text(kind: str) -> Body:
    return {"type": "input_text" if kind == "responses" else "text", "text": "Hi"}


def _all(**more: Any) -> dict[str, Body]:
    """The same fields beside a text, in each API."""
    return {kind: _said(kind, _text(kind), **more) for kind in API}


def _calls(result: Mapping[str, Any]) -> dict[str, Body]:
    """A tool's call and its result, in each API."""
    chat = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": result["openai"]},
    ]  # fmt: skip
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "c", "content": result["anthropic"]}]},
    ]  # fmt: skip
    items = [
        {"role": "user", "content": "Hi"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": result["responses"]},
    ]
    return {
        "openai": {"model": "m", "messages": chat},
        "anthropic": {"model": "m", "messages": messages, "max_tokens": 9},
        "responses": {"model": "m", "input": items},
    }


IMAGES: dict[str, Body] = {
    "openai": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    "anthropic": {"type": "image",
                  "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
    "responses": {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"},
}  # fmt: skip
FILES: dict[str, Body] = {
    "openai": {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}"}},
    "anthropic": {"type": "document",
                  "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}},
    "responses": {"type": "input_file", "file_data": f"data:application/pdf;base64,{PDF}"},
}  # fmt: skip
BY_ID: dict[str, Body] = {
    "openai": {"type": "file", "file": {"file_id": "mark"}},
    "anthropic": {"type": "document", "source": {"type": "file", "file_id": "mark"}},
    "responses": {"type": "input_file", "file_id": "mark"},
}


def _parts(parts: Mapping[str, Body]) -> dict[str, Body]:
    return {kind: _said(kind, _text(kind), part) for kind, part in parts.items()}


ASKED: dict[str, tuple[str, Mapping[str, Body]]] = {
    "text, system and developer messages": ("mark", {
        "openai": dict(_said("openai", _text("openai"))) | {"messages": [
            {"role": "developer", "content": "mark"}, {"role": "user", "content": "Hi"}]},
        "anthropic": _said("anthropic", _text("anthropic"), system="mark"),
        "responses": _said("responses", _text("responses"), instructions="mark"),
    }),
    "functions, parallel calls, their results": ("mark", _calls(dict.fromkeys(API, "mark"))),
    "images; PDF files with their data": (PIXEL, _parts(IMAGES)),
    "images that a tool returns": (PIXEL, _calls(
        {kind: [IMAGES[kind]] if kind != "openai" else "x" for kind in API})),
    "files by id or address, citations, search results": ("mark", _parts(BY_ID)),
    "JSON by schema": ("mark", {
        "openai": _said("openai", _text("openai"), response_format={
            "type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}),
        "anthropic": _said("anthropic", _text("anthropic"), output_config={
            "format": {"type": "json_schema", "schema": SCHEMA}}),
        "responses": _said("responses", _text("responses"), text={
            "format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}),
    }),
    "`stop`": ("mark", {
        "openai": _all(stop=["mark"])["openai"],
        "anthropic": _all(stop_sequences=["mark"])["anthropic"],
    }),
    "how much to reason": ("low", {
        "anthropic": _all(output_config={"effort": "low"})["anthropic"],
        "responses": _all(reasoning={"effort": "low"})["responses"],
        "openai": _all(reasoning_effort="low", thinking={"type": "enabled", "budget_tokens": 2048})[
            "openai"],
    }),
    "reasoning of earlier turns that is signed or encrypted": ("mark", {
        "anthropic": {"model": "m", "max_tokens": 9, "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "mark"},
                {"type": "text", "text": "x"}]},
            {"role": "user", "content": "Hi"}]},
        "responses": {"model": "m", "input": [
            {"role": "user", "content": "Hi"},
            {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "mark"},
            {"role": "user", "content": "Hi"}]},
    }),
    "an answer that the client has begun": ("mark", {
        "openai": {"model": "m", "messages": [
            {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "mark"}]},
        "anthropic": {"model": "m", "max_tokens": 9, "messages": [
            {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "mark"}]},
        "responses": {"model": "m", "input": [
            {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "mark"}]},
    }),
    "tools that the provider runs: web search and fetch, file search, code, images, MCP, "
    "computer use, tool search, containers": ("mark", {
        "openai": _all(web_search_options={"search_context_size": "mark"})["openai"],
        "anthropic": _all(tools=[{"type": "web_search_20250305", "name": "mark"}])["anthropic"],
        "responses": _all(tools=[{"type": "web_search"}])["responses"],
    }),
    "tools that an API defines and the client runs: shell, editor, memory, `apply_patch`, "
    "`custom`": ("mark", {
        "openai": _all(tools=[{"type": "custom", "custom": {"name": "mark"}}])["openai"],
        "anthropic": _all(tools=[{"type": "bash_20250124", "name": "bash"}])["anthropic"],
        "responses": _all(tools=[{"type": "custom", "name": "mark"}])["responses"],
    }),
    "`cache_control`": ("ephemeral", {
        "openai": _said("openai", {**_text("openai"), "cache_control": {"type": "ephemeral"}}),
        "anthropic": _said(
            "anthropic", {**_text("anthropic"), "cache_control": {"type": "ephemeral"}}),
    }),
    "`n` above 1, log probabilities": ("top_logprobs", {
        "openai": _all(logprobs=True, top_logprobs=2)["openai"],
        "responses": _all(top_logprobs=2)["responses"],
    }),
    "`seed`, penalties, `logit_bias`": ("777", {
        "openai": _all(seed=777)["openai"],
    }),
}  # fmt: skip
ELSEWHERE = {
    "functions of a namespace (of Responses)",
    "the model's reasoning, to the client",
    "reasoning of earlier turns in plain words",
    "cached and reasoning tokens in the usage",
}
"""Rows that are about answers, or about who answered before; test_fronts has them."""


def _table() -> dict[str, list[str]]:
    page = (ROOT / "docs" / "gateway.md").read_text(encoding="utf-8")
    at = page.index("What passes, from the client's API to the provider's:")
    rows = re.findall(r"^\| (.+) \|$", page[at : page.index('"Dropped" fields', at)], re.MULTILINE)
    split = [[cell.strip() for cell in row.split(" | ")] for row in rows]
    return {row[0]: row[1:] for row in split if len(row) == 6}


def _outcome(client: str, provider: str, body: Body, mark: str) -> str:
    """What becomes of a request's mark at a provider: passed, dropped or masked."""
    heard = heard_of(front_of(client), dict(body))
    if heard.lost is not None or refusal(provider_of(provider), CHAT, heard.body):
        return "masked"
    at = Upstream(UpstreamSpec(id="p", base_url="http://127.0.0.1:1/v1", kind=provider))
    sent = request_of(provider_of(provider), at, CHAT, heard.body).body
    return "passed" if mark in json.dumps(sent) else "dropped"


CHAT = "/chat/completions"


def _cells() -> Iterator[tuple[str, str, str, str]]:
    """Row, client, provider and what the table says of them."""
    for row, (_, *cells) in _table().items():
        for pairs, cell in zip(COLUMNS, cells, strict=True):
            for client, provider in pairs:
                if not cell.startswith(("(", "if ")):
                    yield row, client, provider, cell


def _claimed(cell: str, provider: str) -> set[str]:
    """The outcomes that a cell allows for a provider."""
    api = API[provider]
    for part in cell.split("; "):  # as in "to chat; masked for Responses"
        for outcome in ("masked", "dropped"):
            if part == f"{outcome} for {api}":
                return {outcome}
        if part == f"to {api}":
            return {"passed"}
    if cell == "to chat, Messages":
        return {"passed"}
    if cell.endswith("masked"):
        return {"masked"}
    return {"dropped"} if cell == "dropped" else {"passed"}


def test_every_row_is_tried_here_or_elsewhere() -> None:
    assert set(_table()) == set(ASKED) | ELSEWHERE
    assert set(SAYS) == set(API)


@pytest.mark.parametrize(
    ("row", "client", "provider", "cell"),
    [each for each in _cells() if each[0] not in ELSEWHERE],
)
def test_what_a_cell_says_is_what_happens(row: str, client: str, provider: str, cell: str) -> None:
    mark, bodies = ASKED[row]
    if cell.startswith("`thinking`"):
        mark = "2048"
    assert _outcome(client, provider, bodies[client], mark) in _claimed(cell, provider)
