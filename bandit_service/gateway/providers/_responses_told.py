"""A chat completion, whole or as a stream, as an answer of OpenAI's Responses API. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bandit_service.gateway.providers._base import Json, event, passed_event
from bandit_service.gateway.providers._blocks import Block, Blocks, Step
from bandit_service.gateway.providers._namespaces import Spaces, spaces_of
from bandit_service.gateway.providers._responses_heard import OURS
from bandit_service.gateway.usage import count, counts_of
from bandit_service.parsing.inputs import said_json

_ECHOED: Json = {
    "instructions": None, "max_output_tokens": None, "max_tool_calls": None, "metadata": {},
    "parallel_tool_calls": True, "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None, "temperature": 1.0, "text": {"format": {"type": "text"}},
    "tool_choice": "auto", "tools": [], "top_p": 1.0, "truncation": "disabled", "user": None,
}  # fmt: skip
"""The fields of a request that its answer repeats, with their defaults."""
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_BEGUN = frozenset(
    {
        "response.created", "response.in_progress", "response.queued",
        "response.content_part.added", "response.reasoning_summary_part.added", "keepalive",
    }
)  # fmt: skip
"""Events without content."""
_EMPTY = frozenset({"message", "reasoning", "function_call"})
"""Items whose beginning has no content yet, or is read as a chunk."""


def response(answer: Json, asked: Json, id: str) -> Json:
    """A whole response."""
    blocks = Blocks(id)
    blocks.feed(answer)
    blocks.end()
    return _whole(blocks, asked, id, count(answer.get("created")) or 0)


def usage(reported: Any) -> Json | None:
    """The API's usage.

    >>> usage({"prompt_tokens": 9, "completion_tokens": 2})["input_tokens"]
    9
    """
    counts = counts_of(reported)
    if counts is None:
        return None
    details = reported.get("completion_tokens_details")
    thought = count(details.get("reasoning_tokens")) if isinstance(details, Mapping) else 0
    return {
        "input_tokens": counts.prompt,
        "input_tokens_details": {
            "cached_tokens": counts.cached,
            "cache_write_tokens": counts.written,
        },
        "output_tokens": counts.answer,
        "output_tokens_details": {"reasoning_tokens": thought or 0},
        "total_tokens": counts.prompt + counts.answer,
    }


class Teller:
    """Translates a stream's chunks into the API's numbered events."""

    def __init__(self, asked: Json, id: str, created: int) -> None:
        self._asked = asked
        self._spaces = spaces_of(asked)
        self._id = id
        self._created = created
        self._blocks = Blocks(id)
        self._next = 0
        self._started = False
        self._ended = False
        self._passes = False  # events as they came

    def feed(self, chunk: Json) -> bytes:
        """The events of one chunk. Raises Failed."""
        steps = self._blocks.feed(chunk)
        return self._start() + self._said(steps)

    def end(self, *, done: bool) -> bytes:  # noqa: ARG002 - it is one end, whoever said so
        """The events that end the response, once."""
        if self._ended or self._passes:
            return b""
        self._ended = True
        said = self._start() + self._said(self._blocks.end())
        whole = _whole(self._blocks, self._asked, self._id, self._created)
        return said + self._event(f"response.{whole['status']}", response=whole)

    def own(self, data: bytes) -> tuple[bytes, bool]:
        """An event of the API as it came, under the decision's id."""
        self._passes = True
        if not data:
            return b"", True
        said = said_json(data, halves=True)
        kind, number = said.get("type"), count(said.get("sequence_number"))
        self._next = self._next + 1 if number is None else number + 1
        if isinstance(said.get("response"), dict):
            self._started = True
            told = event(said | {"response": said["response"] | {"id": self._id}})
        else:
            told = passed_event(kind, data)
        item = said.get("item")
        empty = kind == "response.output_item.added" and (
            isinstance(item, dict) and item.get("type") in _EMPTY
        )
        speaks = str(kind).startswith("response.") and kind not in _BEGUN and not empty
        return told, speaks

    def fail(self, status: int, error: Mapping[str, Any]) -> bytes:
        """The event of an error, and of the response that it ends."""
        code, message = error.get("code"), error.get("message") or ""
        told = self._event(
            "error", code=code, message=message, param=error.get("param"), error=dict(error)
        )
        if not self._started:
            return told
        known = "rate_limit_exceeded" if status == 429 else "server_error"  # a closed list there
        failed = {"error": {"code": known, "message": message}}
        made = _response(self._blocks, self._asked, self._id, self._created, "failed") | failed
        return told + self._event("response.failed", response=made)

    def _start(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        begun = _response(self._blocks, self._asked, self._id, self._created, "in_progress")
        return self._event("response.created", response=begun) + self._event(
            "response.in_progress", response=begun
        )

    def _said(self, steps: list[Step]) -> bytes:
        return b"".join(each for step in steps for each in self._step(*step))

    def _step(self, kind: str, block: Block, text: str) -> Iterator[bytes]:
        index, id = block.index, _item_id(block, self._id)
        at: Json = {"output_index": index, "item_id": id}
        if block.kind != "tool":
            at["content_index"] = 0
        name, field = _NAMES[block.kind]
        more: Json = {"logprobs": []} if block.kind == "text" else {}
        if kind == "open":  # its first piece may be there already, and gets an event of its own
            empty = Block(block.kind, index, block.id, block.name)
            item = _empty(_item(empty, self._id, "in_progress", self._spaces))
            yield self._event("response.output_item.added", output_index=index, item=item)
            if block.kind != "tool":
                yield self._event("response.content_part.added", **at, part=_part(empty))
        elif kind == "add":
            yield self._event(f"response.{name}.delta", **at, delta=text, **more)
        else:
            if block.kind == "tool":
                more["name"] = _called(block.name, self._spaces)["name"]
            yield self._event(f"response.{name}.done", **at, **{field: block.text()}, **more)
            if block.kind != "tool":
                yield self._event("response.content_part.done", **at, part=_part(block))
            item = _item(block, self._id, self._status(block), self._spaces)
            yield self._event("response.output_item.done", output_index=index, item=item)

    def _status(self, block: Block) -> str:
        last = block is self._blocks.all[-1]
        return "incomplete" if last and self._blocks.finish in _INCOMPLETE else "completed"

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._next += 1
        return event({"type": kind, "sequence_number": self._next - 1, **fields})


_NAMES = {
    "text": ("output_text", "text"),
    "refusal": ("refusal", "refusal"),
    "thinking": ("reasoning_text", "text"),
    "tool": ("function_call_arguments", "arguments"),
}
"""The names of a block's events, and the field with its whole text at the end."""


def _whole(blocks: Blocks, asked: Json, id: str, created: int) -> Json:
    reason = _INCOMPLETE.get(blocks.finish)
    status = "incomplete" if reason else "completed"
    made = _response(blocks, asked, id, created, status)
    made["usage"] = usage(blocks.usage)
    made["incomplete_details"] = {"reason": reason} if reason else None
    last, spaces = blocks.all[-1] if blocks.all else None, spaces_of(asked)
    made["output"] = [
        _item(block, id, status if block is last else "completed", spaces) for block in blocks.all
    ]
    return made


def _response(blocks: Blocks, asked: Json, id: str, created: int, status: str) -> Json:
    """A response without its output. `store` is false, since nothing of it is stored."""
    echoed = {
        name: default if asked.get(name) is None else asked[name]
        for name, default in _ECHOED.items()
    }
    return {
        "id": id,
        "object": "response",
        "created_at": created,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": blocks.model,
        "output": [],
        "previous_response_id": None,
        "store": False,
        "usage": None,
        **echoed,
    }


def _called(name: str, spaces: Spaces) -> Json:
    """A function by its own name, with its namespace if it has one."""
    if name not in spaces:
        return {"name": name}
    namespace, own = spaces[name]
    return {"name": own, "namespace": namespace}


def _item(block: Block, id: str, status: str, spaces: Spaces) -> Json:
    item: Json = {"id": _item_id(block, id), "status": status}
    match block.kind:
        case "tool":
            call = {"call_id": block.id, "arguments": block.text() or "{}"}
            return item | {"type": "function_call", **call, **_called(block.name, spaces)}
        case "thinking":
            return item | {"type": "reasoning", "summary": [], "content": [_part(block)]}
    return item | {"type": "message", "role": "assistant", "content": [_part(block)]}


def _empty(item: Json) -> Json:
    """An item at its beginning."""
    if item["type"] == "function_call":
        return item | {"arguments": ""}
    return item | {"content": []}


def _part(block: Block) -> Json:
    match block.kind:
        case "thinking":
            return {"type": "reasoning_text", "text": block.text()}
        case "refusal":
            return {"type": "refusal", "refusal": block.text()}
    return {"type": "output_text", "text": block.text(), "annotations": [], "logprobs": []}


def _item_id(block: Block, id: str) -> str:
    kind = {"tool": "fc", "thinking": "rs"}.get(block.kind, "msg")
    return f"{kind}{OURS}{id}_{block.index}"
