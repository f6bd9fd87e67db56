"""The fields of OpenAI's wire format that the gateway reads, and their types. Pure.

A field of another type than OpenAI's, or a count below 1, is refused by its name. If it were passed
on, it would look like the failure of an arm. null counts as absent. Any other field is passed on as
it is; a translation for another provider checks more of them (`providers/_chat_fields.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from bandit_service.core.errors import Refused, type_in_words


class Kind(NamedTuple):
    """Which values a field may have, and these in words."""

    right: Callable[[Any], bool]
    allowed: str


def _of(*types: type) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, types) and not (isinstance(value, bool) and bool not in types)
    )


def _list_of(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(each, kind) for each in value)


def _count(value: Any) -> bool:
    return NUMBER.right(value) and value >= 1 and value % 1 == 0


def _text_or_texts(value: Any) -> bool:
    return isinstance(value, str) or _texts(value)


_texts = _list_of(str)
TEXT = Kind(_of(str), "a text")
NUMBER = Kind(_of(int, float), "a number")
FLAG = Kind(_of(bool), "true or false")
OBJECT = Kind(_of(dict), "an object")
_OBJECTS = Kind(_list_of(dict), "a list of objects")
_WORD_OR_OBJECT = Kind(_of(str, dict), "a text or an object")
_COUNT = Kind(_count, "a whole number from 1")
_MOST = 1e15
"""A larger number is not told in a message, since it may have any number of digits."""

_OF_BODY: dict[str, Kind] = {
    "stream": FLAG,
    "stream_options": OBJECT,
    "tools": _OBJECTS,
    "functions": _OBJECTS,
    "tool_choice": _WORD_OR_OBJECT,
    "function_call": _WORD_OR_OBJECT,
    "response_format": OBJECT,
    "modalities": Kind(_texts, "a list of texts"),
    "stop": Kind(_text_or_texts, "a text or a list of texts"),
    "thinking": OBJECT,
    "metadata": OBJECT,
    "n": _COUNT,
    "best_of": _COUNT,
    "max_tokens": NUMBER,
    "max_completion_tokens": NUMBER,
    "temperature": NUMBER,
}
_OF_MESSAGE: dict[str, Kind] = {
    "role": TEXT,
    "content": Kind(_of(str, list), "a text or a list of parts"),
    "tool_calls": _OBJECTS,
}


def check(body: Mapping[str, Any]) -> None:
    """Raise Refused for the first field that is wrong."""
    check_kinds(body, _OF_BODY)
    messages = body.get("messages")
    for i, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict):
            check_kinds(message, _OF_MESSAGE, f"messages[{i}].")


def check_kinds(of: Mapping[str, Any], kinds: Mapping[str, Kind], at: str = "") -> None:
    """Raise Refused for the first field that is not of its kind. at: where `of` is, with a dot."""
    for name, value in of.items():  # most requests have few of the fields
        if value is not None and name in kinds and not kinds[name][0](value):
            raise _first_wrong(of, kinds, at)


def _first_wrong(of: Mapping[str, Any], kinds: Mapping[str, Kind], at: str) -> Refused:
    """The error for the first wrong field, in the order of the kinds."""
    name = next(
        name
        for name, (right, _) in kinds.items()
        if of.get(name) is not None and not right(of[name])
    )
    value, (_, allowed) = of[name], kinds[name]
    shown = NUMBER.right(value) and abs(value) < _MOST
    got = f"{value:g}" if shown else type_in_words(value)
    return Refused(f"{at}{name}: must be {allowed}, got {got}", param=f"{at}{name}")
