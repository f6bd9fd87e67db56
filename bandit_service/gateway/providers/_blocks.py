"""OpenAI's chunks as consecutive blocks, the form of an answer in other dialects. Pure.

Chunks of several tool calls may alternate. A block begins when the one before it has ended, so
chunks that come too early are kept until then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from bandit_service.gateway.failures import Failed
from bandit_service.gateway.providers._base import Json
from bandit_service.gateway.usage import merged, usage_in
from bandit_service.parsing.inputs import json_of, whole

Kind: TypeAlias = Literal["thinking", "text", "refusal", "tool"]


@dataclass(slots=True, eq=False)
class Block:
    """One block of an answer. id, name: of a tool call. pieces: its text, or its arguments."""

    kind: Kind
    index: int = -1
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    begun: bool = False
    over: bool = False

    def text(self) -> str:
        """All of it that has come."""
        return str(whole("".join(self.pieces)))

    def arguments(self) -> Json | None:
        """The arguments of a call, empty where there is no text; None while they are no object."""
        text = self.text()
        try:
            value = json_of(text) if text.strip() else {}
        except ValueError:
            return None
        return value if isinstance(value, dict) else None


Step: TypeAlias = tuple[Literal["open", "add", "close"], Block, str]


class Blocks:
    """Feed it chunks, or one whole completion; it returns the steps of the blocks.

    decision: id; a call without an id of its provider is named after it. OpenAI accepts 40
    characters. finish, usage, model: from the chunks. stopped_by: the text that ended the answer,
    which some servers report.
    """

    def __init__(self, decision: str) -> None:
        self._decision = decision.replace("-", "")
        self.all: list[Block] = []
        self.finish = ""
        self.usage: Any = None
        self.model = ""
        self.stopped_by: str | None = None
        self._open: Block | None = None
        self._calls: dict[object, Block] = {}
        self._waiting: list[Block] = []

    def feed(self, chunk: Mapping[str, Any]) -> list[Step]:
        """What this chunk adds. Raises Failed for a call that goes on after its end."""
        self.usage = merged(self.usage, usage_in(chunk))
        if not self.model and isinstance(chunk.get("model"), str):
            self.model = chunk["model"]
        choices = chunk.get("choices")
        steps: list[Step] = []
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, Mapping) or choice.get("index") not in (0, None):
                continue
            said, apart = choice.get("delta"), False
            if not said:
                said, apart = choice.get("message"), True
            if isinstance(said, Mapping):
                steps += self._said(said, apart)
            if isinstance(choice.get("finish_reason"), str):
                self.finish = choice["finish_reason"]
            if isinstance(choice.get("stop_reason"), str):
                self.stopped_by = choice["stop_reason"]
        return steps

    def end(self) -> list[Step]:
        """The remaining steps."""
        return [*self._drained(), *self._closed()]

    def _said(self, said: Mapping[str, Any], apart: bool) -> Iterator[Step]:
        """The steps of a delta, or of a whole message. apart: each call in it is a separate one."""
        thought = said.get("reasoning_content") or said.get("reasoning")
        yield from self._text("thinking", thought)
        yield from self._text("text", said.get("content"))
        yield from self._text("refusal", said.get("refusal"))
        calls = said.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, Mapping):
                yield from self._call(call, apart)

    def _text(self, kind: Kind, content: Any) -> Iterator[Step]:
        if isinstance(content, list):
            texts = (part.get("text") for part in content if isinstance(part, Mapping))
            content = "".join(text for text in texts if isinstance(text, str))
        if not isinstance(content, str) or not content:
            return
        block = self._open
        within = block is not None and block.kind == "tool" and block.text().strip() != ""
        if within and self._unfinished():  # it follows when the call is over
            if not self._waiting or self._waiting[-1].kind != kind:
                self._waiting.append(Block(kind))
            self._waiting[-1].pieces.append(content)
            return
        if block is None or block.kind != kind:
            yield from self._drained()
            yield from self._begun(Block(kind))
        assert self._open is not None
        self._open.pieces.append(content)
        yield "add", self._open, content

    def _call(self, call: Mapping[str, Any], apart: bool) -> Iterator[Step]:
        block = self._block_of(call, apart)
        function = call.get("function")
        function = function if isinstance(function, Mapping) else {}
        if not block.begun:
            block.id = block.id or _word(call.get("id"))
            block.name = block.name or _word(function.get("name"))
        text = function.get("arguments")
        text = text if isinstance(text, str) else ""
        if block.over:
            if text.strip() not in ("", "{}", block.text().strip()):  # some servers repeat a call
                raise Failed("a tool's call went on after its end")
            return
        block.pieces += [text] if text else []
        if block is self._open:
            if text:
                yield "add", block, text
        elif block not in self._waiting:
            self._waiting.append(block)
        while self._waiting and not self._unfinished():
            yield from self._next()

    def _block_of(self, call: Mapping[str, Any], apart: bool) -> Block:
        key: object = object() if apart else call.get("index")
        if key is None:  # some servers send each call whole, without a number
            key = ("id", call.get("id")) if call.get("id") or not self._calls else None
        if key is None:
            return next(reversed(self._calls.values()))
        id, known = _word(call.get("id")), self._calls.get(key)
        # Some servers give every call the number 0; a new id is a new call.
        if known is None or (id and known.id not in ("", id, self._own_id(known))):
            known = self._calls[key] = Block("tool")
        return known

    def _own_id(self, block: Block) -> str:
        """The name of a call without an id of its provider."""
        return f"call_{self._decision}_{block.index}"

    def _unfinished(self) -> bool:
        """Whether the open block is a call whose arguments have not all come."""
        block = self._open
        if block is None or block.kind != "tool":
            return False
        return not block.text().strip() or block.arguments() is None

    def _drained(self) -> Iterator[Step]:
        while self._waiting:
            yield from self._next()

    def _next(self) -> Iterator[Step]:
        block = self._waiting.pop(0)
        yield from self._begun(block)
        if text := "".join(block.pieces):
            yield "add", block, text

    def _begun(self, block: Block) -> Iterator[Step]:
        yield from self._closed()
        block.index, block.begun = len(self.all), True
        block.id = block.id or self._own_id(block)
        self.all.append(block)
        self._open = block
        yield "open", block, ""

    def _closed(self) -> Iterator[Step]:
        block, self._open = self._open, None
        if block is not None:
            block.over = True
            yield "close", block, ""


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""
