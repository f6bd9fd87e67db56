"""Every mistake of a table at once, where the decoder and the checks each tell one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from bandit_service.core.errors import field_of, in_words
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

_DECIDING = ("kind", "name")
"""Fields that say which others there may be: where one is wrong, nothing is said of those."""


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
        return None, [f"must be a table, got {type(item).__name__}"]
    # A name in MessagePack may be a number.
    mistakes = [f"{name}: {unknown(str(name), kind)}" for name in item if name not in fields]
    given = {name: value for name, value in item.items() if name in fields and value is not None}
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
                inner, what = field_of(error)
                place = "" if inner is None else inner if inner.startswith("[") else f".{inner}"
                mistakes.append(f"{name}{place}: {what}")
                mend(name)
        elif each.required:
            mistakes.append(f"{name}: Object missing required field `{name}`")
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


def unknown(name: str, kind: type[msgspec.Struct]) -> str:
    """What is said of a field that there is not."""
    known = [each.encode_name for each in msgspec.structs.fields(kind)]
    return f"unknown field{did_you_mean(name, known)}; allowed are {', '.join(known)}"
