"""The fields of OpenAI's wire format that the gateway reads, and their types. Pure.

A field of another type than OpenAI's, or a count below 1, is refused by its name. If it were passed
on, it would look like the failure of an arm, or break the translation for another provider. null
counts as absent, and a field that the gateway does not read is passed on whatever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bandit_service.core.errors import Refused

Check = Callable[[Any], bool]
_MOST = 1e15
"""A larger number is not told in a message, since it may have any number of digits."""


def _of(*kinds: type) -> Check:
    return lambda value: (
        isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)
    )


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _either(*checks: Check) -> Check:
    return lambda value: any(check(value) for check in checks)


_number, _TEXT, _OBJECT = _of(int, float), _of(str), _of(dict)


def _count(value: Any) -> bool:
    return _number(value) and value >= 1 and value % 1 == 0


_WORD_OR_OBJECT = (_either(_TEXT, _OBJECT), "a text or an object")
_A_NUMBER = (_number, "a number")
_A_COUNT = (_count, "a whole number from 1")
_OF_BODY: dict[str, tuple[Check, str]] = {
    "stream": (_of(bool), "true or false"),
    "stream_options": (_OBJECT, "an object"),
    "tools": (_objects, "a list of objects"),
    "functions": (_objects, "a list of objects"),
    "tool_choice": _WORD_OR_OBJECT,
    "function_call": _WORD_OR_OBJECT,
    "response_format": (_OBJECT, "an object"),
    "modalities": (_texts, "a list of texts"),
    "stop": (_either(_TEXT, _texts), "a text or a list of texts"),
    "thinking": (_OBJECT, "an object"),
    "metadata": (_OBJECT, "an object"),
    "n": _A_COUNT,
    "best_of": _A_COUNT,
    "max_tokens": _A_NUMBER,
    "max_completion_tokens": _A_NUMBER,
    "temperature": _A_NUMBER,
}
_OF_MESSAGE: dict[str, tuple[Check, str]] = {
    "role": (_TEXT, "a text"),
    "content": (_of(str, list), "a text or a list of parts"),
    "tool_calls": (_objects, "a list of objects"),
}


def check(body: Mapping[str, Any]) -> None:
    """Raise Refused for the first field that is wrong."""
    _checked(body, _OF_BODY, "")
    messages = body.get("messages")
    for i, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict):
            _checked(message, _OF_MESSAGE, f"messages[{i}].")


def _checked(of: Mapping[str, Any], checks: Mapping[str, tuple[Check, str]], at: str) -> None:
    for name, value in of.items():  # most requests have few of the fields
        if value is not None and name in checks and not checks[name][0](value):
            raise _first_wrong(of, checks, at)


def _first_wrong(
    of: Mapping[str, Any], checks: Mapping[str, tuple[Check, str]], at: str
) -> Refused:
    """The error for the first wrong field, in the order of the checks."""
    name = next(
        name
        for name, (right, _) in checks.items()
        if of.get(name) is not None and not right(of[name])
    )
    value, (_, allowed) = of[name], checks[name]
    what = f"{value:g}" if _number(value) and abs(value) < _MOST else type(value).__name__
    return Refused(f"{at}{name}: must be {allowed}, got {what}", param=f"{at}{name}")
