"""A chat completion as a request of Anthropic's Messages API. Pure; docs/anthropic.md is the table.

A field that would change the shape of the answer and has no counterpart is refused by its name. A
field that only steers the answer and has no counterpart is dropped, so that one request suits every
provider.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from bandit_service.core.errors import Refused
from bandit_service.gateway.fields import FLAG, NUMBER, OBJECT
from bandit_service.gateway.providers._base import plain_id
from bandit_service.gateway.providers._chat_fields import check
from bandit_service.parsing.inputs import json_of

MAX_TOKENS = 4096
"""The limit that is sent if the client sets none: the API requires one, and every model accepts
this. The thinking budget is added, since the API includes thinking in the limit and refuses a
smaller one.
"""

_KEPT = ("top_p", "top_k", "thinking", "cache_control")
_TYPES = {
    "top_p": NUMBER,
    "top_k": NUMBER,
    "cache_control": OBJECT,
    "parallel_tool_calls": FLAG,
}
_ABSENT = ("functions", "function_call", "audio", "web_search_options")
_MEDIA = ("image/jpeg", "image/png", "image/gif", "image/webp")
_PDF = "application/pdf"
_DATA_URL = re.compile(r"data:([^;,]+);base64,", re.IGNORECASE)
_JSON_ONLY = "Answer with one JSON object and nothing else, neither before nor after it."

Json = dict[str, Any]


def request(path: str, body: Mapping[str, Any]) -> Json:
    """The body of POST /v1/messages. Raises Refused, naming a field that this API does not have."""
    if path != "/chat/completions":
        raise _refused("model", f"its provider answers /v1/chat/completions, not /v1{path}")
    _refuse_absent(body)
    check(body, _TYPES)
    system, messages = _conversation(body.get("messages") or [])
    sent: Json = {
        "model": body.get("model"),
        "max_tokens": _max_tokens(body),
        "messages": messages,
    }
    sent |= {name: body[name] for name in _KEPT if body.get(name) is not None}
    if (temperature := _number(body, "temperature")) is not None:
        sent["temperature"] = min(max(temperature, 0.0), 1.0)
    if stop := _stop(body.get("stop")):
        sent["stop_sequences"] = stop
    if user := _user(body):
        sent["metadata"] = {"user_id": user}
    if body.get("tools"):
        sent["tools"] = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(body["tools"])]
        if choice := _tool_choice(body):
            sent["tool_choice"] = choice
    form, instruction = _format(body.get("response_format"))
    if form:
        sent["output_config"] = {"format": form}
    system += instruction
    if system:
        sent["system"] = system
    if body.get("stream"):
        sent["stream"] = True
    return sent


def _refuse_absent(body: Mapping[str, Any]) -> None:
    if body.get("n") not in (None, 1):
        raise _refused("n", "must be 1, this provider returns one answer")
    if body.get("logprobs") or body.get("top_logprobs"):
        name = "logprobs" if body.get("logprobs") else "top_logprobs"
        raise _refused(name, "this provider does not return them")
    for name in _ABSENT:
        if body.get(name):
            raise _refused(name, "this provider does not support it")
    if "audio" in (body.get("modalities") or ()):
        raise _refused("modalities", "this provider answers text only")


def _conversation(messages: list[Any]) -> tuple[list[Json], list[Json]]:
    """The system's blocks, and the turns: neighbours of one role become one turn."""
    system: list[Json] = []
    turns: list[Json] = []
    for i, message in enumerate(messages):
        at = f"messages[{i}]"
        match message.get("role"):
            case "system" | "developer":
                system += _text_parts(message.get("content"), f"{at}.content")
                continue
            case "user":
                role, blocks = "user", _parts(message.get("content"), f"{at}.content")
            case "assistant":
                role, blocks = "assistant", _assistant_blocks(message, at)
            case "tool":
                role, blocks = "user", [_result(message, at)]
            case _:
                allowed = "system, developer, user, assistant or tool"
                raise _refused(f"{at}.role", f"must be {allowed}")
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise _refused("messages", "must have a message of the user that is not empty")
    return system, turns


def _assistant_blocks(message: Mapping[str, Any], at: str) -> list[Json]:
    blocks = _text_parts(message.get("content"), f"{at}.content")
    for i, call in enumerate(message.get("tool_calls") or ()):
        where = f"{at}.tool_calls[{i}].function"
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            raise _refused(where, "must be an object with name and arguments")
        arguments = function.get("arguments") or "{}"
        try:
            given = json_of(arguments)
        except (ValueError, TypeError, AttributeError):
            given = None
        if not isinstance(given, dict):
            raise _refused(f"{where}.arguments", "must be the text of a JSON object")
        blocks.append(
            {
                "type": "tool_use",
                "id": plain_id(call.get("id")),
                "name": function.get("name"),
                "input": given,
            }
        )
    return blocks


def _result(message: Mapping[str, Any], at: str) -> Json:
    if not isinstance(message.get("tool_call_id"), str):
        raise _refused(f"{at}.tool_call_id", "must be the id of a tool's call")
    result: Json = {"type": "tool_result", "tool_use_id": plain_id(message["tool_call_id"])}
    if content := _parts(message.get("content"), f"{at}.content"):
        result["content"] = content
    return result


def _text_parts(content: Any, at: str) -> list[Json]:
    blocks = _parts(content, at)
    if any(block["type"] != "text" for block in blocks):
        raise _refused(at, "must be text")
    return blocks


def _parts(content: Any, at: str) -> list[Json]:
    """The blocks of a content: a text, or a list of parts. Empty texts are left out."""
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    if not isinstance(content, list):
        raise _refused(at, "must be a text or a list of parts")
    return list(_blocks(content, at))


def _blocks(parts: list[Any], at: str) -> Iterator[Json]:
    for i, part in enumerate(parts):
        where = f"{at}[{i}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        match kind:
            case "text" | "refusal":
                text = part.get(kind)
                if not isinstance(text, str):
                    raise _refused(f"{where}.{kind}", "must be a text")
                block: Json = {"type": "text", "text": text}
                if not text.strip():
                    continue
            case "image_url":
                block = {"type": "image", "source": _image(part.get("image_url"), where)}
            case "file":
                block = {"type": "document", "source": _file(part.get("file"), where)}
            case _:
                raise _refused(f"{where}.type", "must be text, image_url or file")
        if part.get("cache_control"):
            block["cache_control"] = part["cache_control"]
        yield block


def _image(image: Any, at: str) -> Json:
    url = image.get("url") if isinstance(image, Mapping) else image
    if isinstance(url, str) and url.startswith(("http://", "https://")):
        return {"type": "url", "url": url}
    media, data = _data_url(url)
    if media not in _MEDIA:
        allowed = f"an http(s) URL, or a data URL in base64 of {', '.join(_MEDIA)}"
        raise _refused(f"{at}.image_url.url", f"must be {allowed}")
    return {"type": "base64", "media_type": media, "data": data}


def _file(file: Any, at: str) -> Json:
    media, data = _data_url(file.get("file_data") if isinstance(file, Mapping) else None)
    if media != _PDF:
        raise _refused(f"{at}.file.file_data", f"must be a data URL in base64 of {_PDF}")
    return {"type": "base64", "media_type": media, "data": data}


def _data_url(url: Any) -> tuple[str, str]:
    """Its media type and its data; both are empty if it is not in base64."""
    match = _DATA_URL.match(url) if isinstance(url, str) else None
    if match is None:
        return "", ""
    media = match[1].lower()
    return "image/jpeg" if media == "image/jpg" else media, url[match.end() :]


def _tool(tool: Any, at: str) -> Json:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or tool.get("type") != "function":
        raise _refused(f"{at}.type", "must be function")
    schema = function.get("parameters") or {}
    if not isinstance(schema, Mapping):
        raise _refused(f"{at}.function.parameters", "must be a JSON schema")
    translated: Json = {"name": function.get("name"), "input_schema": {"type": "object", **schema}}
    if function.get("description"):
        translated["description"] = function["description"]
    if function.get("strict"):
        translated["strict"] = True
    if tool.get("cache_control"):
        translated["cache_control"] = tool["cache_control"]
    return translated


def _tool_choice(body: Mapping[str, Any]) -> Json | None:
    choice = body.get("tool_choice")
    alone = {"disable_parallel_tool_use": True} if body.get("parallel_tool_calls") is False else {}
    match choice:
        case None if not alone:
            return None
        case None | "auto":
            return {"type": "auto", **alone}
        case "none":
            return {"type": "none"}
        case "required":
            return {"type": "any", **alone}
        case {"type": "function", "function": {"name": str(name)}}:
            return {"type": "tool", "name": name, **alone}
    raise _refused("tool_choice", "must be auto, none, required or a function by its name")


def _format(form: Any) -> tuple[Json | None, list[Json]]:
    """The answer's format, and the instruction to the model if the API has no such format."""
    match form:
        case None | {"type": "text"}:
            return None, []
        case {"type": "json_object"}:
            return None, [{"type": "text", "text": _JSON_ONLY}]
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return {"type": "json_schema", "schema": schema}, []
    allowed = "text, json_object, or json_schema with a schema"
    raise _refused("response_format", f"must be of type {allowed}")


def _max_tokens(body: Mapping[str, Any]) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        limit = body.get(name)
        if limit is None:
            continue
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise _refused(name, "must be a whole number of at least 1")
        return limit
    return MAX_TOKENS + _thinking(body)


def _thinking(body: Mapping[str, Any]) -> int:
    """The tokens that the client allows for thinking; 0 if it sets none."""
    match body.get("thinking"):
        case {"type": "disabled"}:
            return 0
        case {"budget_tokens": int(budget)} if not isinstance(budget, bool):
            return max(0, budget)
    return 0


def _number(body: Mapping[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise _refused(name, "must be a number")
    return value


def _stop(stop: Any) -> list[str]:
    texts = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _refused("stop", "must be a text or a list of texts")
    if not all(text.strip() for text in texts):
        raise _refused("stop", "this provider does not stop at white space alone")
    return texts


def _user(body: Mapping[str, Any]) -> str | None:
    metadata = body.get("metadata")
    user_id = metadata.get("user_id") if isinstance(metadata, Mapping) else None
    user = user_id or body.get("safety_identifier") or body.get("user")
    return user if isinstance(user, str) else None


def _refused(field: str, what: str) -> Refused:
    return Refused(f"{field}: {what}", param=field)
