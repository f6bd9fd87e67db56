"""A request of Anthropic's Messages API as a chat completion. Pure; docs/anthropic.md is the table.

A part that a chat completion cannot express is recorded as lost: then only a provider of the
Messages API may answer. Fields that only steer (`top_k`, `thinking`, `cache_control`) are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from bandit_service.core.errors import Refused
from bandit_service.gateway.providers._base import Heard, Json, objects, refused, typed
from bandit_service.gateway.providers._schemas import is_strict

_MAX_USER = 64
"""Characters that OpenAI takes as `user`."""
_STEERS = frozenset(
    {
        "model", "messages", "system", "max_tokens", "stop_sequences", "metadata", "tools",
        "tool_choice", "stream", "temperature", "top_p", "top_k", "thinking", "cache_control",
        "output_config", "output_format", "service_tier", "inference_geo", "user_profile_id",
    }
)  # fmt: skip
"""Fields that are translated, or that only steer."""
_AS_IT_IS = ("temperature", "top_p")


def heard(own: Json) -> Heard:
    """The same request as a chat completion. Raises Refused if it is not a request of this API."""
    request = _Request()
    messages = request.system(own.get("system"))
    turns = own.get("messages")
    if not isinstance(turns, list) or not turns:
        raise refused("messages", "must be a list with at least one message")
    for i, turn in enumerate(turns):
        messages += request.turn(turn, f"messages[{i}]")
    if isinstance(turns[-1], Mapping) and turns[-1].get("role") == "assistant":
        request.lose(
            f"messages[{len(turns) - 1}]", "only the same model continues a started answer"
        )
    body: Json = {"model": own.get("model"), "messages": messages}
    body["max_completion_tokens"] = _limit(own)
    body |= {name: _number(own, name) for name in _AS_IT_IS if own.get(name) is not None}
    if (stream := own.get("stream")) is not None:
        body["stream"] = typed(stream, bool, "stream", "true or false")
    if stop := own.get("stop_sequences"):
        if not isinstance(stop, list) or not all(isinstance(each, str) for each in stop):
            raise refused("stop_sequences", "must be a list of texts")
        body["stop"] = stop
    unit = ""
    if (metadata := own.get("metadata")) is not None:
        user = typed(metadata, dict, "metadata", "an object").get("user_id")
        unit = user if isinstance(user, str) else ""
        if 0 < len(unit) <= _MAX_USER:
            body["user"] = unit
    request.declare(own, body)
    _format(own, body)
    for name in own.keys() - _STEERS:
        if own[name] and not (name == "context_management" and _clears(own[name])):
            request.lose(name, "only the Messages API has it")
    return Heard(body, request.lost, unit)


_BILLING = "x-anthropic-billing-header:"
"""A line that Claude Code puts first. It differs in each request, so no prompt would be cached."""


def _clears(management: Any) -> bool:
    """Whether it only asks to leave old parts of the history out, which others may ignore."""
    edits = management.get("edits") if isinstance(management, Mapping) else None
    return isinstance(edits, list) and all(
        isinstance(edit, Mapping) and str(edit.get("type")).startswith("clear_") for edit in edits
    )


class _Request:
    """Translates the parts of one request. lost: the first part that cannot be translated."""

    def __init__(self) -> None:
        self.lost: Refused | None = None

    def lose(self, field: str, why: str) -> None:
        """Record a part that a chat completion cannot express."""
        self.lost = self.lost or refused(field, why)

    def system(self, system: Any) -> list[Json]:
        """The message of the system."""
        if system is None:
            return []
        texts = [block["text"] for block in _blocks(system, "system") if _is_text(block, "system")]
        texts = [text for text in texts if not text.startswith(_BILLING)]
        return [{"role": "system", "content": "\n\n".join(texts)}] if texts else []

    def turn(self, turn: Any, at: str) -> list[Json]:
        """The messages of one turn."""
        if not isinstance(turn, Mapping):
            raise refused(at, "must be an object with role and content")
        role, where = turn.get("role"), f"{at}.content"
        if role not in ("user", "assistant", "system"):
            raise refused(f"{at}.role", f"must be user, assistant or system, got {role!r}")
        blocks = list(_blocks(turn.get("content"), where))
        if role == "assistant":
            return self._assistant(blocks, where)
        results: list[Json] = []
        parts: list[Json] = []
        for i, block in enumerate(blocks):
            if block.get("type") == "tool_result":
                result, pictures = self._result(block, f"{where}[{i}]")
                results.append(result)
                parts += pictures
            else:
                parts += self._parts(block, f"{where}[{i}]")
        if not parts and (results or not blocks):
            return results
        # If a whole turn is lost, an arm that gets the request as it came can still answer.
        return [*results, {"role": role, "content": _plainest(parts) or ""}]

    def _assistant(self, blocks: list[Json], at: str) -> list[Json]:
        message: Json = {"role": "assistant", "content": None}
        texts, thoughts, calls = [], [], []
        for i, block in enumerate(blocks):
            where = f"{at}[{i}]"
            match block.get("type"):
                case "text":
                    _is_text(block, where)
                    texts.append(block["text"])
                case "tool_use":
                    calls.append(_call(block, where))
                case "thinking" if not block.get("signature"):
                    if isinstance(block.get("thinking"), str):
                        thoughts.append(block["thinking"])
                case "thinking" | "redacted_thinking":
                    self.lose(where, "the thinking is signed; only its own provider can read it")
                case kind:
                    self.lose(f"{where}.type", f"a chat completion has no {kind!r}")
        if texts or not calls:
            message["content"] = "".join(texts)
        if thoughts:
            message["reasoning_content"] = "".join(thoughts)
        if calls:
            message["tool_calls"] = calls
        return [message]

    def _result(self, block: Json, at: str) -> tuple[Json, list[Json]]:
        """The message of a tool, which has only text, and the images that follow it."""
        id = block.get("tool_use_id")
        if not isinstance(id, str):
            raise refused(f"{at}.tool_use_id", "must be the id of a tool's call")
        parts: list[Json] = []
        content = block.get("content")
        for i, each in enumerate(_blocks(content, f"{at}.content") if content is not None else ()):
            parts += self._parts(each, f"{at}.content[{i}]")
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        pictures = [part for part in parts if part["type"] != "text"]
        if pictures:
            text = text or "It is in the next message of the user."
            pictures.insert(0, {"type": "text", "text": f"What the call {id} gave:"})
        if block.get("is_error"):
            text = f"Error: {text}"
        return {"role": "tool", "tool_call_id": id, "content": text}, pictures

    def _parts(self, block: Json, at: str) -> Iterator[Json]:
        """A block as parts of a message."""
        match block:
            case {"type": "text"}:
                _is_text(block, at)
                yield {"type": "text", "text": block["text"]}
            case {"type": "image", "source": Mapping() as source} if url := _url(source):
                yield {"type": "image_url", "image_url": {"url": url}}
            case {"type": "document", "source": Mapping()}:
                yield from self._document(block, at)
            case _:
                self.lose(f"{at}.type", f"a chat completion has no such {block.get('type')!r}")

    def _document(self, block: Json, at: str) -> Iterator[Json]:
        source = block["source"]
        cited = block.get("citations")
        if isinstance(cited, Mapping) and cited.get("enabled"):
            self.lose(f"{at}.citations", "a chat completion has none")
        title = block.get("title") or "document"
        match source:
            case {"type": "text", "data": str(text)}:
                yield {"type": "text", "text": f"{title}:\n{text}"}
            case {"type": "base64", "media_type": "application/pdf"} if url := _url(source):
                file = {"filename": f"{title}.pdf", "file_data": url}
                yield {"type": "file", "file": file}
            case {"type": "content", "content": str() | list() as content}:
                for i, each in enumerate(_blocks(content, f"{at}.source.content")):
                    yield from self._parts(each, f"{at}.source.content[{i}]")
            case _:
                self.lose(f"{at}.source", "a chat completion has no document of this kind")

    def declare(self, own: Json, body: Json) -> None:
        """The tools, and which of them are to be called."""
        tools = own.get("tools")
        if tools is not None and (functions := [*self._functions(objects(tools, "tools"))]):
            body["tools"] = functions
        choice = own.get("tool_choice")
        if choice is None:
            return
        match typed(choice, dict, "tool_choice", "an object"):
            case {"type": "auto" | "none" as word}:
                told: Any = word
            case {"type": "any"}:
                told = "required"
            case {"type": "tool", "name": str(name)}:
                told = {"type": "function", "function": {"name": name}}
            case _:
                raise refused("tool_choice.type", "must be auto, any, none, or tool with a name")
        if not body.get("tools"):  # a choice without tools is refused elsewhere
            return
        body["tool_choice"] = told
        if choice.get("disable_parallel_tool_use"):
            body["parallel_tool_calls"] = False

    def _functions(self, tools: list[Json]) -> Iterator[Json]:
        for i, tool in enumerate(tools):
            if tool.get("type") not in (None, "custom"):
                self.lose(f"tools[{i}].type", f"only the Messages API has {tool['type']!r}")
                continue
            if not isinstance(tool.get("name"), str):
                raise refused(f"tools[{i}].name", "must be a text")
            schema = tool.get("input_schema")
            schema = {} if schema is None else schema
            parameters = typed(schema, dict, f"tools[{i}].input_schema", "a JSON schema")
            function: Json = {"name": tool["name"], "parameters": parameters}
            if tool.get("description"):
                function["description"] = tool["description"]
            if tool.get("strict"):
                function["strict"] = True
            yield {"type": "function", "function": function}


def unsigned(own: Json) -> Json:
    """The request without thinking that no provider of the API has signed, since the API refuses
    it.
    """
    turns = own.get("messages")
    if not isinstance(turns, list) or not any(map(_has_unsigned, turns)):
        return own
    kept = []
    for turn in turns:
        if _has_unsigned(turn):
            left = [block for block in turn["content"] if not _is_unsigned(block)]
            turn = turn | {"content": left}
            if not left:
                continue
        kept.append(turn)
    return own | {"messages": kept}


def _has_unsigned(turn: Any) -> bool:
    content = turn.get("content") if isinstance(turn, dict) else None
    return isinstance(content, list) and any(map(_is_unsigned, content))


def _is_unsigned(block: Any) -> bool:
    return (
        isinstance(block, dict) and block.get("type") == "thinking" and not block.get("signature")
    )


def _blocks(content: Any, at: str) -> Iterator[Json]:
    """The blocks of a content, of which a text is one."""
    if isinstance(content, str):
        yield {"type": "text", "text": content}
        return
    if not isinstance(content, list):
        raise refused(at, "must be a text or a list of blocks")
    for i, block in enumerate(content):
        yield typed(block, dict, f"{at}[{i}]", "an object")


def _is_text(block: Json, at: str) -> bool:
    if block.get("type") != "text" or not isinstance(block.get("text"), str):
        raise refused(f"{at}.text", "must be a text")
    return True


def _plainest(parts: list[Json]) -> str | list[Json]:
    """A single text as a plain text, which every server reads."""
    return parts[0]["text"] if [part["type"] for part in parts] == ["text"] else parts


def _url(source: Mapping[str, Any]) -> str:
    match source:
        case {"type": "url", "url": str(url)}:
            return url
        case {"type": "base64", "media_type": str(media), "data": str(data)}:
            return f"data:{media};base64,{data}"
    return ""


def _call(block: Json, at: str) -> Json:
    given = block.get("input")
    given = typed({} if given is None else given, dict, f"{at}.input", "an object")
    if not isinstance(block.get("id"), str) or not isinstance(block.get("name"), str):
        raise refused(at, "must have an id and a name")
    arguments = msgspec.json.encode(given).decode()
    function = {"name": block["name"], "arguments": arguments}
    return {"id": block["id"], "type": "function", "function": function}


def _format(own: Json, body: Json) -> None:
    config = own.get("output_config")
    form = config.get("format") if isinstance(config, Mapping) else own.get("output_format")
    match form:
        case None:
            return
        case {"type": "json_schema", "schema": dict(schema)}:
            asked: Json = {"name": "answer", "schema": schema}
            if is_strict(schema):
                asked["strict"] = True
            body["response_format"] = {"type": "json_schema", "json_schema": asked}
        case _:
            raise refused("output_config.format", "must be of type json_schema with a schema")


def _limit(own: Json) -> int:
    limit = own.get("max_tokens")
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise refused("max_tokens", "must be a whole number of at least 1")
    return limit


def _number(own: Json, name: str) -> float:
    value = own[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refused(name, "must be a number")
    return value
