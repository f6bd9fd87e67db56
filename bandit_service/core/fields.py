"""What a field means, an example of it and its bounds, written beside its type and read by all.

`doc` gives the published schema's description of a field. The bounds in the types below are
enforced when a request is decoded. Bounds given to `doc` are only documentation and are checked
elsewhere, since a record in the log must stay readable if the bounds change.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta, inspect

from bandit_service.core.errors import in_words

MAX_NAME = 256
MAX_LIMIT = 1e9
MIN_WORTH, MAX_WORTH = 1e-9, 1e6
MAX_COST_USD = 10_000.0
MAX_LATENCY_S = 86_400.0

Name = Annotated[str, Meta(max_length=MAX_NAME)]
"""A name that a client chooses: of a unit, a tenant, a session."""
Limit = Annotated[float, Meta(ge=0.0, le=MAX_LIMIT)]
"""A bound on an expected cost or latency."""
Worth = Annotated[float, Meta(ge=MIN_WORTH, le=MAX_WORTH)]
"""USD that one unit of quality is worth."""
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
"""A part of a whole; also a quality."""
Usd = Annotated[float, Meta(ge=0.0, le=MAX_COST_USD)]
"""What one answer cost."""
Seconds = Annotated[float, Meta(ge=0.0, le=MAX_LATENCY_S)]
"""How long one answer took."""
Id = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": 64})]
"""What a configured record is called."""
Word = Annotated[str, Meta(extra_json_schema={"maxLength": MAX_NAME})]
"""One of some texts of a configured record."""
Reward = Annotated[float, Meta(ge=-1.0, le=1.0)]
"""The scalar that policies learn from."""


def doc(text: str, *examples: Any, **schema: Any) -> Meta:
    """What the schema says of a field: a description, examples, and more of JSON Schema.

    >>> doc("USD per answer", 0.5, minimum=0).extra_json_schema
    {'minimum': 0}
    """
    return Meta(description=text, examples=list(examples) or None, extra_json_schema=schema or None)


@cache
def stated(kind: type[msgspec.Struct]) -> Mapping[str, Mapping[str, Any]]:
    """What `doc` says of the fields of a struct in JSON Schema's words, by field."""
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return {
        field.name: _schema(field.type)
        for field in described.fields
        if isinstance(field.type, inspect.Metadata) and field.type.extra_json_schema
    }


def _schema(kind: inspect.Metadata) -> Mapping[str, Any]:
    schema, inner = kind.extra_json_schema or {}, kind.type
    if isinstance(inner, inspect.VarTupleType) and isinstance(inner.item_type, inspect.Metadata):
        return schema | {"items": inner.item_type.extra_json_schema}
    return schema


def out_of_range(record: msgspec.Struct, name: str) -> str:
    """What is wrong with a value beyond the bounds that `doc` states, "" if nothing is.

    A text that must not be empty is a name, and so must be printable.
    """
    value, schema = getattr(record, name), stated(type(record))[name]
    if value is None:
        return ""
    if (choices := schema.get("enum")) is not None:
        return "" if value in choices else f"must be one of {', '.join(choices)}, got {value!r}"
    if (most := schema.get("maxItems")) is not None:
        if "items" not in schema:
            return "" if len(value) <= most else f"must have at most {most}, got {len(value)}"
        longest = schema["items"]["maxLength"]
        fits = len(value) <= most and all(len(each) <= longest for each in value)
        return "" if fits else f"must be at most {most} texts of at most {longest} characters each"
    if (most := schema.get("maxLength")) is not None:
        if (least := schema.get("minLength")) is None:
            fits = len(value) <= most
            return "" if fits else f"must have at most {most} characters, got {len(value)}"
        fits = least <= len(value) <= most and value.isprintable()
        return "" if fits else f"must be {least} to {most} printable characters, got {value!r}"
    low, above, high = map(schema.get, ("minimum", "exclusiveMinimum", "maximum"))
    beyond = high is not None and not value <= high  # nor is what is no number
    if (low is None or value >= low) and (above is None or value > above) and not beyond:
        return ""
    return f"must be {_range(low, above, high)}, got {in_words(value)}"


def _range(low: float | None, above: float | None, high: float | None) -> str:
    if high is None:
        return f"above {_plain(above)}" if above is not None else f"at least {_plain(low)}"
    if above is not None:
        return f"above {_plain(above)} and at most {_plain(high)}"
    return f"from {_plain(low)} to {_plain(high)}"


def _plain(bound: float | None) -> str:
    assert bound is not None
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"


def ranged(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields of a struct whose bounds `doc` states."""
    words = {"maximum", "minimum", "exclusiveMinimum", "enum", "maxLength", "maxItems"}
    return tuple(name for name, schema in stated(kind).items() if words & schema.keys())


def check_stated(record: msgspec.Struct) -> None:
    """ValueError "field: what was wrong, what is allowed" for the first value out of its bounds."""
    for name in ranged(type(record)):
        if wrong := out_of_range(record, name):
            raise ValueError(f"{name}: {wrong}")
