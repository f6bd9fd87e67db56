"""What is wrong with a body that is not JSON. Pure."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from bandit_service.core.errors import Malformed
from bandit_service.parsing.inputs import TOO_LONG

_HALF = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_ODD = re.compile(rb"NaN|Infinity|[eE]\+?\d{2}|\d{19}")
"""Without any of these a body has no number that JSON, or a float, cannot hold."""
_SHOWN, _DIGITS = 24, 19
_LONGEST = 100
"""Characters that are told of a field's name."""


def malformed(body: bytes, error: Exception) -> Malformed:
    """The error for a body that the decoder refused with another error.

    >>> str(malformed(b'{"cost_usd": NaN}', ValueError("malformed")))
    'cost_usd: must be a finite number, got NaN'
    """
    if not body.strip():
        return Malformed("the body is empty; it must be JSON")
    try:
        text = body.decode()
    except UnicodeDecodeError as wrong:
        at = wrong.start
        return Malformed(f"the body is not text: byte 0x{body[at]:02x} (byte {at}) is not UTF-8")
    half = _HALF.search(body)
    if half is not None:
        return Malformed(
            f"the body is not text: {half[0].decode()} (byte {half.start()}) is half a "
            "character, a surrogate without the other one"
        )
    found = _odd_in(text) if _ODD.search(body) else None
    if found is None:
        return Malformed(f"the body is not JSON: {error}")
    field, number = found
    return Malformed(
        f"{field or 'body'}: {number.wrong()}", param=re.split(r"[.\[]", field)[0] or None
    )


class _Odd(str):
    """A number as it is written, which JSON or a float cannot hold."""

    __slots__ = ()

    def wrong(self) -> str:
        if self.lstrip("-").isdigit():
            return TOO_LONG
        return f"must be a finite number, got {self[:_SHOWN]}"


def _odd_in(text: str) -> tuple[str, _Odd] | None:
    """The first such number and its field; None if there is none."""
    try:
        value = json.loads(text, parse_constant=_Odd, parse_float=_float, parse_int=_whole)
    except (ValueError, RecursionError):
        return None
    return _first_odd(value, "")


def _float(word: str) -> float | _Odd:
    value = float(word)
    return value if math.isfinite(value) else _Odd(word)


def _whole(word: str) -> int | _Odd:
    return 0 if len(word) <= _DIGITS else _Odd(word)


def _first_odd(value: Any, at: str) -> tuple[str, _Odd] | None:
    if isinstance(value, _Odd):
        return at, value
    if isinstance(value, dict):
        inside = ((f"{at}.{name}" if at else name, each) for name, each in value.items())
    elif isinstance(value, list):
        inside = ((f"{at}[{i}]", each) for i, each in enumerate(value))
    else:
        return None
    found = (_first_odd(each, where[:_LONGEST]) for where, each in inside)
    return next((each for each in found if each is not None), None)
