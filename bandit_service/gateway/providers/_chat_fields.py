"""Types of the fields of a chat completion that are translated for a provider of another API. Pure.

A server of chat completions may accept more than OpenAI's does, so nothing of this is checked where
the request passes as it is. A translation that took such a value over would be refused by its
provider, in the names of fields that the client never sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bandit_service.core.errors import type_in_words
from bandit_service.gateway.fields import FLAG, OBJECT, TEXT, Kind, check_kinds
from bandit_service.gateway.providers._base import refused

_FUNCTION = {"description": TEXT, "parameters": OBJECT, "strict": FLAG}
_SCHEMA = {"name": TEXT, "strict": FLAG, "description": TEXT}


def check(body: Mapping[str, Any], fields: Mapping[str, Kind]) -> None:
    """Raise Refused for the first field of another type, or a call or a function without a name.

    fields: of the body, by name, that the dialect takes over; null counts as absent.
    """
    check_kinds(body, fields)
    for at, tool in _objects(body.get("tools"), "tools"):
        function = tool.get("function")
        if isinstance(function, Mapping):
            _check_word(function, "name", f"{at}.function")
            check_kinds(function, _FUNCTION, f"{at}.function.")
    for at, message in _objects(body.get("messages"), "messages"):
        for where, call in _objects(message.get("tool_calls"), f"{at}.tool_calls"):
            _check_word(call, "id", where)
            if isinstance(function := call.get("function"), Mapping):
                _check_word(function, "name", f"{where}.function")
                check_kinds(function, {"arguments": TEXT}, f"{where}.function.")
        for where, part in _objects(message.get("content"), f"{at}.content"):
            for name, field in (("image_url", "detail"), ("file", "filename")):
                if isinstance(inner := part.get(name), Mapping):
                    check_kinds(inner, {field: TEXT}, f"{where}.{name}.")
    match body.get("response_format"):
        case {"json_schema": dict(schema)}:
            check_kinds(schema, _SCHEMA, "response_format.json_schema.")


def _objects(values: object, at: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where each object of a list is, and the object."""
    for i, value in enumerate(values if isinstance(values, list) else ()):
        if isinstance(value, Mapping):
            yield f"{at}[{i}]", value


def _check_word(of: Mapping[str, Any], name: str, at: str) -> None:
    value = of.get(name)
    if not isinstance(value, str) or not value:
        got = "an empty one" if value == "" else type_in_words(value)
        raise refused(f"{at}.{name}", f"must be a text, got {got}")
