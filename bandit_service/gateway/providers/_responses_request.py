"""A chat completion as a request of OpenAI's Responses API. Pure; docs/responses.md is the table.

The same rule as for Anthropic: a field that would change the shape of the answer and has no
counterpart is refused by its name; one that only steers and has none is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bandit_service.core.errors import type_in_words
from bandit_service.gateway.fields import FLAG, NUMBER, TEXT
from bandit_service.gateway.providers._base import Json, objects, refused
from bandit_service.gateway.providers._chat_fields import check

_PASSED = (
    "temperature", "top_p", "parallel_tool_calls", "user", "safety_identifier", "service_tier",
    "prompt_cache_key", "metadata", "stream",
)  # fmt: skip
_TYPES = {
    "temperature": NUMBER,
    "top_p": NUMBER,
    "parallel_tool_calls": FLAG,
    "user": TEXT,
    "safety_identifier": TEXT,
    "service_tier": TEXT,
    "prompt_cache_key": TEXT,
    "reasoning_effort": TEXT,
    "verbosity": TEXT,
}
_ABSENT = ("stop", "functions", "function_call", "audio", "web_search_options", "logprobs",
           "top_logprobs")  # fmt: skip


def request(path: str, body: Mapping[str, Any]) -> Json:
    """The body of POST /v1/responses.

    Raises Refused, naming a field that this API does not have.
    """
    if path != "/chat/completions":
        raise refused("model", f"its provider answers /v1/chat/completions, not /v1{path}")
    if body.get("n") not in (None, 1):
        raise refused("n", "must be 1, this provider returns one answer")
    for name in _ABSENT:
        if body.get(name):
            raise refused(name, "this provider does not support it")
    if "audio" in (body.get("modalities") or ()):
        raise refused("modalities", "this provider answers text only")
    check(body, _TYPES)
    _check_metadata(body.get("metadata"))
    sent: Json = {"model": body.get("model"), "input": [*_items(body.get("messages") or [])]}
    sent |= {name: body[name] for name in _PASSED if body.get(name) is not None}
    sent["store"] = bool(body.get("store"))
    for name in ("max_completion_tokens", "max_tokens"):
        if (limit := body.get(name)) is not None:
            if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
                raise refused(name, "must be a whole number of at least 1")
            sent["max_output_tokens"] = limit
            break
    if body.get("tools"):
        sent["tools"] = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(body["tools"])]
        if (choice := body.get("tool_choice")) is not None:
            sent["tool_choice"] = _tool_choice(choice)
    if body.get("reasoning_effort") is not None:
        sent["reasoning"] = {"effort": body["reasoning_effort"]}
    text: Json = {}
    if body.get("verbosity") is not None:
        text["verbosity"] = body["verbosity"]
    if form := body.get("response_format"):
        text["format"] = _format(form)
    if text:
        sent["text"] = text
    return sent


def _check_metadata(metadata: object) -> None:
    for name, value in metadata.items() if isinstance(metadata, Mapping) else ():
        if not isinstance(value, str):
            raise refused(f"metadata.{name}", f"must be a text, got {type_in_words(value)}")


def _items(messages: list[Any]) -> Iterator[Json]:
    for i, message in enumerate(messages):
        at = f"messages[{i}]"
        match message.get("role"):
            case "system" | "developer" | "user" as role:
                yield {"role": role, "content": _parts(message.get("content"), f"{at}.content")}
            case "assistant":
                yield from _answer(message, at)
            case "tool":
                if not isinstance(message.get("tool_call_id"), str):
                    raise refused(f"{at}.tool_call_id", "must be the id of a tool's call")
                output = _parts(message.get("content") or "", f"{at}.content")
                yield {
                    "type": "function_call_output",
                    "call_id": message["tool_call_id"],
                    "output": output,
                }
            case _:
                allowed = "system, developer, user, assistant or tool"
                raise refused(f"{at}.role", f"must be {allowed}")


def _answer(message: Mapping[str, Any], at: str) -> Iterator[Json]:
    content = message.get("content")
    if isinstance(content, list):
        parts = objects(content, f"{at}.content")
        texts = [part.get("text") or part.get("refusal") or "" for part in parts]
        if not all(isinstance(text, str) for text in texts):
            raise refused(f"{at}.content", "must be text")
        content = "".join(texts)
    if content:
        yield {"role": "assistant", "content": content}
    for i, call in enumerate(message.get("tool_calls") or ()):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            raise refused(f"{at}.tool_calls[{i}].function", "must have a name and arguments")
        yield {
            "type": "function_call",
            "call_id": call.get("id"),
            "name": function.get("name"),
            "arguments": function.get("arguments") or "{}",
        }


def _parts(content: Any, at: str) -> str | list[Json]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise refused(at, "must be a text or a list of parts")
    return [_part(part, f"{at}[{i}]") for i, part in enumerate(content)]


def _part(part: Any, at: str) -> Json:
    match part:
        case {"type": "text", "text": str(text)}:
            return {"type": "input_text", "text": text}
        case {"type": "image_url", "image_url": {"url": str(url)} as image}:
            return {
                "type": "input_image",
                "image_url": url,
                "detail": image.get("detail") or "auto",
            }
        case {"type": "file", "file": {"file_data": str(data)} as file}:
            name = file.get("filename") or "file"
            return {"type": "input_file", "filename": name, "file_data": data}
        case {"type": "file", "file": {"file_id": str(id)}}:
            return {"type": "input_file", "file_id": id}
    raise refused(f"{at}.type", "must be text, image_url or file")


def _tool(tool: Any, at: str) -> Json:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or tool.get("type") != "function":
        raise refused(f"{at}.type", "must be function")
    told: Json = {
        "type": "function",
        "name": function.get("name"),
        "parameters": function.get("parameters") or {"type": "object", "properties": {}},
        "strict": bool(function.get("strict")),
    }
    return told | ({"description": d} if (d := function.get("description")) else {})


def _tool_choice(choice: Any) -> Any:
    match choice:
        case "auto" | "none" | "required":
            return choice
        case {"type": "function", "function": {"name": str(name)}}:
            return {"type": "function", "name": name}
    raise refused("tool_choice", "must be auto, none, required or a function by its name")


def _format(form: Any) -> Json:
    match form:
        case {"type": "text" | "json_object" as kind}:
            return {"type": kind}
        case {"type": "json_schema", "json_schema": {"schema": dict()} as asked}:
            return {"type": "json_schema", **asked, "name": asked.get("name") or "answer"}
    allowed = "text, json_object, or json_schema with a schema"
    raise refused("response_format", f"must be of type {allowed}")
