"""Every mistake of a table at once, where the decoder and the checks each tell one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from bandit_service.core.errors import field_of
from bandit_service.parsing.suggestions import did_you_mean

Table = TypeVar("Table", bound=msgspec.Struct)

_SOUND = {
    "id": "sound", "base_url": "http://localhost", "scope": "service", "per": "day", "usd": 1.0,
    "hash": "0" * 64, "scopes": ["read"], "usd_per_mtok_in": 0.0, "usd_per_mtok_out": 0.0,
}  # fmt: skip
"""What stands in for a needed field that is wrong, so that the others are checked all the same."""

_DECIDING = ("kind", "name")
"""Fields that say which others there may be: where one is wrong, nothing is said of those."""


class Mistakes(ValueError):
    """Several of one table, each "field: what was wrong, what is allowed"."""

    def __init__(self, each: list[str]) -> None:
        super().__init__("; ".join(each))
        self.each = each


def every_mistake(
    item: Any, kind: type[Table], check: Callable[[Table], None]
) -> tuple[Table | None, list[str]]:
    """The record of a table, or its mistakes: "field: what was wrong, what is allowed".

    check: raises ValueError for one mistake, whose text begins with the field, or `Mistakes`.
    """
    fields = {each.encode_name: each for each in msgspec.structs.fields(kind)}
    if not isinstance(item, dict):
        return None, [f"must be a table, got {type(item).__name__}"]
    mistakes = [f"{name}: {unknown(name, kind)}" for name in item if name not in fields]
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
