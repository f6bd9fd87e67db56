"""JSON schemas that a model must follow, as OpenAI accepts them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_strict(schema: Any) -> bool:
    """Whether OpenAI can follow it strictly: every object requires all properties that it names,
    and allows no others.

    >>> city = {"properties": {"city": {"type": "string"}}}
    >>> is_strict(city), is_strict(city | {"required": ["city"], "additionalProperties": False})
    (False, True)
    """
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, Mapping):
        return True
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        required = schema.get("required")
        listed = required if isinstance(required, list) else []
        closed = schema.get("additionalProperties") is False
        if not closed or any(name not in listed for name in properties):
            return False
    return all(map(is_strict, schema.values()))
