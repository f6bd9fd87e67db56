"""Every mistake of a table at once, where the decoder and the checks each tell one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from bandit_service.core.errors import field_of, in_words, type_in_words
from bandit_service.parsing.suggestions import did_you_mean

Table = TypeVar("Table", bound=msgspec.Struct)

_SOUND = {
    "id": "sound",
    "base_url": "http://localhost",
    "scope": "service",
    "per": "day",
    "usd": 1.0,
    "hash": "0" * 64,
    "scopes": ["read"],
    "usd_per_mtok_in": 0.0,
    "usd_per_mtok_out": 0.0,
}
"""What stands in for a needed field that is wrong, so that the others are checked all the same."""

_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)

_MAX_UNKNOWN = 50
"""Unknown fields that are told: what was meant by each takes a while to be found."""

_DECIDING = ("kind", "name")
"""Fields that determine which others are allowed: if one is wrong, the others are not reported."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What the type of a field allows: a range of numbers, or a length of text."""

    low: float | None = None
    high: float | None = None
    length: int | None = None

    def wrong(self, value: Any) -> str:
        """What is wrong with a value, and what is allowed; "" if nothing is.

        >>> Bound(low=0.0, high=1.0).wrong(7)
        'must be a number from 0 to 1, got 7'
        >>> Bound(length=3).wrong("four"), Bound(length=4).wrong("four")
        ('at most 3 characters, got 4', '')
        """
        if value is None:
            return ""
        if self.length is not None:
            size = len(value)
            return f"at most {self.length} characters, got {size}" if size > self.length else ""
        assert self.low is not None
        assert self.high is not None
        if self.low <= value <= self.high:  # nor is what is no number
            return ""
        return f"must be a number from {self.low:g} to {self.high:g}, got {in_words(value)}"


@cache
def bounds_of(kind: type[msgspec.Struct]) -> Mapping[str, Bound]:
    """The bounds that the types of a struct's fields state, by field; numbers, then texts."""
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    found = {
        field.encode_name: bound for field in described.fields for bound in _bounds(field.type)
    }
    return dict(sorted(found.items(), key=lambda each: each[1].length is not None))


@cache
def _structs_in(kind: type[msgspec.Struct]) -> Mapping[str, type[msgspec.Struct]]:
    """The struct that a field is, or has a list of, by field; of other fields nothing."""
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    found = {field.encode_name: _struct_of(field.type) for field in described.fields}
    return {name: inner for name, inner in found.items() if inner is not None}


def _struct_of(described: inspect.Type) -> type[msgspec.Struct] | None:
    match described:
        case inspect.StructType(cls=kind):
            return kind
        case inspect.Metadata(type=inner):
            return _struct_of(inner)
        case inspect.VarTupleType(item_type=inner) | inspect.ListType(item_type=inner):
            return _struct_of(inner)
        case inspect.UnionType(types=types):
            return next(filter(None, map(_struct_of, types)), None)
    return None


def without_nulls(value: Any, kind: type[msgspec.Struct]) -> Any:
    """A value of which a struct is to be made, where a field of null is absent, as those mean it
    who write out all of their fields. So is one of the structs within.
    """
    if isinstance(value, list):
        return [without_nulls(each, kind) for each in value]
    if not isinstance(value, dict):
        return value
    if None in value.values():
        known = {each.encode_name for each in msgspec.structs.fields(kind)}
        value = {
            name: each for name, each in value.items() if each is not None or name not in known
        }
    within = _structs_in(kind)
    return value | {
        name: without_nulls(value[name], inner) for name, inner in within.items() if name in value
    }


def first_outside(values: Mapping[str, Any], kind: type[msgspec.Struct]) -> tuple[str, str] | None:
    """The first field whose value is out of its bounds, and what is wrong with it."""
    for name, bound in bounds_of(kind).items():
        value = values.get(name)
        comparable = isinstance(value, str if bound.length is not None else int | float)
        wrong = bound.wrong(value) if comparable else ""
        if wrong:
            return name, wrong
    return None


def _bounds(described: inspect.Type) -> Iterator[Bound]:
    match described:
        case inspect.Metadata(type=inner):
            yield from _bounds(inner)
        case inspect.UnionType(types=types):
            for each in types:
                yield from _bounds(each)
        case inspect.FloatType(ge=low, le=high) if low is not None and high is not None:
            yield Bound(low, high)
        case inspect.StrType(max_length=length) if length is not None:
            yield Bound(length=length)


class Mistakes(ValueError):
    """Several of one table, each "field: what was wrong, what is allowed"."""

    def __init__(self, each: list[str]) -> None:
        super().__init__("; ".join(each))
        self.each = each


@cache
def _fields(kind: type[msgspec.Struct]) -> Mapping[str, msgspec.structs.FieldInfo]:
    """Those of a struct by name; to ask takes as long as to check a record."""
    return {each.encode_name: each for each in msgspec.structs.fields(kind)}


def every_mistake(
    item: Any, kind: type[Table], check: Callable[[Table], None]
) -> tuple[Table | None, list[str]]:
    """The record of a table, or its mistakes: "field: what was wrong, what is allowed".

    check: raises ValueError for one mistake, whose text begins with the field, or `Mistakes`.
    """
    fields = _fields(kind)
    if not isinstance(item, dict):
        return None, [f"must be a table, got {type_in_words(item)}"]
    item = without_nulls(item, kind)
    others = [str(name) for name in item if name not in fields]  # in MessagePack it may be a number
    mistakes = [f"{name}: {unknown(name, kind)}" for name in others[:_MAX_UNKNOWN]]
    if len(others) > _MAX_UNKNOWN:
        mistakes.append(f"{others[_MAX_UNKNOWN]}: unknown field, as {len(others)} in all")
    given = {name: value for name, value in item.items() if name in fields}
    mended: set[str] = set()

    def mend(name: str) -> None:
        mended.add(name)
        given.pop(name, None)
        if name in _SOUND and fields[name].required:
            given[name] = _SOUND[name]

    for name, each in fields.items():
        if name in given:
            try:
                msgspec.convert(given[name], each.type)
            except msgspec.ValidationError as error:
                within = _structs_in(kind).get(name)
                inner, what = field_of(error) if within is None else refused_for(error, within)
                place = "" if inner is None else inner if inner.startswith("[") else f".{inner}"
                mistakes.append(f"{name}{place}: {what}")
                mend(name)
        elif each.required:
            mistakes.append(f"{name}: is required")
            mend(name)
    while not mended.intersection(_DECIDING):
        try:
            found = msgspec.convert(given, kind)
        except msgspec.ValidationError:
            break  # a needed field for which nothing stands in
        try:
            check(found)
            return (None, mistakes) if mistakes else (found, [])
        except ValueError as error:
            texts = error.each if isinstance(error, Mistakes) else [str(error)]
            name = re.split(r"[.\[:]", texts[0])[0]
            if name in mended:
                break  # of what stands in, which nobody wrote
            mistakes += texts
            if name not in fields:
                break
            mend(name)
    return None, mistakes


def refused_for(
    error: msgspec.ValidationError, kind: type[msgspec.Struct]
) -> tuple[str | None, str]:
    """The field of a struct, or of one within, that a value was refused for, and what is wrong.

    Of a field that there is not, the one that may be meant is named.
    """
    place, what = field_of(error)
    found = _UNKNOWN.fullmatch(what)
    if place is None or found is None:
        return place, what
    name, at = found[1], "" if place == found[1] else place
    for step in re.findall(r"[^.\[\]]+(?![^\[]*\])", at):
        inner = _structs_in(kind).get(step)
        if inner is None:
            return place, what
        kind = inner
    return f"{at}.{name}" if at else name, unknown(name, kind)


def unknown(name: str, kind: type[msgspec.Struct]) -> str:
    """What is said of a field that there is not."""
    known = [each.encode_name for each in msgspec.structs.fields(kind)]
    return f"unknown field{did_you_mean(name, known)}; allowed are {', '.join(known)}"
