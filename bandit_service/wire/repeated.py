"""Names that an object of JSON, or a map of MessagePack, has twice. Pure.

The decoders keep the last of the values, and say nothing of the others.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from bandit_service.core.errors import Refused

_LONGEST = 100
"""Characters that are told of a field's name."""
_LONG_BODY, _BLOCK = 4_000, 1 << 17
"""From so many bytes on numpy finds quotes faster, in blocks that stay in the processor's cache."""
_NAME_ENDS = re.compile(rb'"[ \t\r\n]*:')
_DEEPEST = 16
"""Backslashes before a quote: three where JSON is a text within a text of JSON, fifteen two texts
deeper."""
_QUOTE, _BACKSLASH, _COLON, _SPACE = b'"\\: '

_MAP16, _MAP32, _LIST32 = 0xDE, 0xDF, 0xDD
_MAP = msgspec.msgpack.Decoder(dict[Any, msgspec.Raw])
_LIST = msgspec.msgpack.Decoder(list[msgspec.Raw])


def refuse_repeated(body: bytes, value: Any) -> None:
    """Raise Refused for a name that an object of a body of JSON has twice. value: of the body."""
    if _names_at_most(body) != _entries(value):
        text = body.removeprefix(BOM_UTF8).decode()
        json.loads(text, object_pairs_hook=_object, parse_int=len, parse_float=len)


def may_repeat(body: bytes) -> bool:
    """Whether an object of a body of JSON may have a name twice; False only where none has.

    For a body that is not decoded to objects and lists.

    >>> may_repeat(b'{"a": 1, "b": [2]}'), may_repeat(b'{"a": 1, "a" : 2}')
    (False, True)
    """
    if body.count(b":") < 2:
        return False
    if b"\\" in body:  # so that a quote may be within a text, and a name written in two ways
        return True
    parts = body.split(b'"')  # of which every second one is within quotes
    inside = zip(parts[1::2], parts[2::2], strict=False)
    names = [name for name, then in inside if then.lstrip().startswith(b":")]
    return len(set(names)) != len(names)


def given_twice(name: str) -> Refused:
    """The error for such a name."""
    return Refused(f"{name}: given twice; give it once", param=name)


def _entries(value: Any) -> int:
    """The entries of all objects in a value."""
    count, left = 0, [value]
    while left:
        one = left.pop()
        if type(one) is dict:
            count += len(one)
            left += one.values()
        elif type(one) is list:
            left += [each for each in one if type(each) is dict or type(each) is list]
    return count


def _names_at_most(body: bytes) -> int:
    """How many names there are, or more: what looks like the end of a name may be in a text."""
    if len(body) < _LONG_BODY:
        return len(_NAME_ENDS.findall(body))
    read = np.frombuffer(body, np.uint8)
    blocks = range(0, len(read), _BLOCK)
    at = np.concatenate([np.flatnonzero(read[i : i + _BLOCK] == _QUOTE) + i for i in blocks])
    at = at[~_escaped(read, at)]
    then = read[np.minimum(at + 1, len(read) - 1)]
    spaced = at[then <= _SPACE].tolist()
    return int(np.count_nonzero(then == _COLON)) + sum(
        _NAME_ENDS.match(body, quote) is not None for quote in spaced
    )


def _escaped(read: npt.NDArray[np.uint8], at: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Of which quotes the text says that they do not end it: an odd number of backslashes stands
    before them. False where there are `_DEEPEST` or more, which are not counted.
    """
    follows = read[at - 1] == _BACKSLASH
    odd: npt.NDArray[np.bool_] = follows.copy()
    for i in range(2, _DEEPEST + 1):
        if not follows.any():
            break
        follows &= read[at - i] == _BACKSLASH
        odd ^= follows
    odd &= ~follows
    return odd


def _object(pairs: list[tuple[str, Any]]) -> None:
    """Raise Refused for a name that comes twice."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise given_twice(_first_repeated([name for name, _ in pairs]))


def _first_repeated(names: list[Any]) -> str:
    seen: set[Any] = set()
    for name in names:
        if name in seen:
            break
        seen.add(name)
    return str(name)[:_LONGEST]


# --- MessagePack --------------------------------------------------------------------------


def is_repeated_at_top(body: bytes) -> bool:
    """Whether the map that a body of MessagePack holds has a name twice."""
    return len(_MAP.decode(body)) != _size_of(body)[0]


def repeated_in(body: bytes, value: dict[Any, Any]) -> str | None:
    """A name that a map of a body of MessagePack has twice; None if none has.

    value: the map that the body holds.
    """
    if _size_of(body)[0] == len(value) == _entries(value):
        return None
    return _repeated(body, value)


def _repeated(body: bytes, value: Any) -> str | None:
    if type(value) is dict:
        size, begins = _size_of(body)
        # a list of its names and values has the same bytes after its head
        inside = _LIST.decode(bytes([_LIST32]) + (2 * size).to_bytes(4, "big") + body[begins:])
        if len(value) != size:
            return _first_repeated([_name(each) for each in inside[::2]])
        inside, within = inside[1::2], list(value.values())
    else:
        inside, within = _LIST.decode(body), value
    found = (
        _repeated(bytes(raw), each)
        for raw, each in zip(inside, within, strict=True)
        if (type(each) is dict or type(each) is list) and _entries(each)
    )
    return next((name for name in found if name is not None), None)


def _name(raw: msgspec.Raw) -> Any:
    """As the decoder has it in a map, where a list is a tuple."""
    (name,) = msgspec.msgpack.decode(bytes([0x81]) + bytes(raw) + bytes([0xC0]))
    return name


def _size_of(body: bytes) -> tuple[int, int]:
    """The entries of a map, as its head says, and where they begin."""
    head = body[0]
    if head == _MAP16:
        return int.from_bytes(body[1:3], "big"), 3
    if head == _MAP32:
        return int.from_bytes(body[1:5], "big"), 5
    return head & 0x0F, 1
