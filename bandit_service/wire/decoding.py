"""Decodes a body to a value, and a value to a request; errors name the field."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from functools import cache
from typing import Any, TypeVar

import msgspec
import numpy as np

from bandit_service.core.errors import Malformed, Refused, TooLarge
from bandit_service.parsing.inputs import TOO_LONG, json_of, long_in
from bandit_service.parsing.validation import bounds_of, first_outside, refused_for, without_nulls
from bandit_service.wire.malformed import malformed
from bandit_service.wire.repeated import may_repeat, refuse_repeated

R = TypeVar("R", bound=msgspec.Struct)
MAX_DEPTH = 32
"""Lists and maps in each other; a request needs five."""
MAX_DEPTH_PASSED = 128
"""The same of what is passed on: the schemas of tools and answers."""
_OF_A_MAP = "[...]"
"""How the decoder writes any entry of a map."""
_LONGEST = 100
"""Characters that are told of a field's name."""
_VALUES = 10
"""So many numbers or texts take as long to decode as one list or object."""
_LONG_BODY, _BLOCK = 10_000, 1 << 17
"""From so many bytes on numpy counts faster, in blocks that stay in the processor's cache."""
_LONG, _DIGITS = b"0" * 19, bytes(0x30 if 0x30 <= i <= 0x39 else 0x20 for i in range(256))
"""A number of so many digits may be beyond 64 bits; with every digit as 0 it is found at once."""
_BOUND = re.compile(r"^Expected `\w+`(?: \| null)? (?:of length )?[<>]=|of length <=")


def convert(value: Any, kind: type[R]) -> R:
    """The request that a decoded JSON or MessagePack value holds; Refused names the field.

    A field of null is absent.
    """
    if isinstance(value, dict):
        value = without_nulls(value, kind)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        param, what = refused_for(error, kind)
        if param in bounds_of(kind) and _BOUND.search(what):
            param, what = first_outside(value, kind) or (param, what)
        if param is not None and param.endswith(_OF_A_MAP):
            param = param.removesuffix(_OF_A_MAP)
            raise Refused(f"{_entry(value, kind, param)}: {what}", param=param) from None
        raise Refused(f"{param}: {what}" if param else what, param=param) from None


def _entry(value: Any, kind: type[msgspec.Struct], field: str) -> str:
    """The first entry of a field of names and values whose value is of another type."""
    types = {each.encode_name: each.type for each in msgspec.structs.fields(kind)}
    entries = value.get(field) if isinstance(value, dict) else None
    if field not in types or not isinstance(entries, dict):
        return field
    for name, each in entries.items():
        try:
            msgspec.convert({name: each}, types[field])
        except msgspec.ValidationError:
            return f"{field}.{str(name)[:_LONGEST]}"
    return field


def decode_json(body: bytes) -> Any:
    """JSON, with or without a byte-order mark. Raises Malformed with the place of the error."""
    body = body.removeprefix(BOM_UTF8)
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise malformed(body, error) from None
    except RecursionError:
        raise _too_deep() from None
    if _nested(body) > MAX_DEPTH:
        _check_depth(value)
    return value


def parts_of(body: bytes) -> int:
    """At most how many parts a body of JSON has: its lists and objects, and a tenth of the rest.

    Braces, brackets and commas in texts count too, which takes little time to find out.
    """
    return _nested(body) + _count(body, b",") // _VALUES


def _nested(body: bytes) -> int:
    """At most how many lists and objects there are."""
    return _count(body, b"{") + _count(body, b"[")


def _count(body: bytes, mark: bytes) -> int:
    """As `bytes.count` of one byte, which compares one after another."""
    if len(body) < _LONG_BODY:
        return body.count(mark)
    read, of = np.frombuffer(body, np.uint8), mark[0]
    return sum(
        int(np.count_nonzero(read[start : start + _BLOCK] == of))
        for start in range(0, len(read), _BLOCK)
    )


def decode_passed(body: bytes, parts: int, max_parts: int) -> Any:
    """JSON that is passed on: what its sender's own tools write, and a provider would not read.

    NaN is null, half a character is U+FFFD, and a schema of a tool may be nested deep. parts:
    as `parts_of` counts them. Raises TooLarge for more than `max_parts`, which would take long to
    decode; Malformed; Refused for a name given twice.
    """
    if parts > max_parts and parts_of(_outside_texts(body)) > max_parts:
        field = _largest(body)
        at = f"{field}: " if field else ""
        raise TooLarge(
            f"{at}the body has more than {max_parts} lists and objects, ten other values counted "
            "as one (gateway.max_body_parts)",
            param=field or None,
        )
    if not body.strip():
        raise malformed(body, ValueError("empty"))
    try:
        value = json_of(body)
    except ValueError as error:
        raise Malformed(f"the body is not JSON: {error}") from None
    if parts > MAX_DEPTH_PASSED and _nested(body) > MAX_DEPTH_PASSED:
        _check_depth(value, MAX_DEPTH_PASSED)
    refuse_repeated(body, value)
    return value


def _outside_texts(body: bytes) -> bytes:
    """What of JSON is not within quotes."""
    plain = body.replace(rb"\\", b"__").replace(rb"\"", b"__")
    read = np.frombuffer(plain, np.uint8)
    within = np.bitwise_xor.accumulate(read == ord('"'))
    return read[~within].tobytes()


def _largest(body: bytes) -> str:
    """The field of the body with the most parts; "" if the body is no object."""
    try:
        fields = msgspec.json.decode(body.removeprefix(BOM_UTF8), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return max(fields, key=lambda name: parts_of(bytes(fields[name])), default="")[:_LONGEST]


def decode_request(body: bytes) -> Any:
    """JSON of a request; Refused names a whole number beyond 64 bits, and a name given twice."""
    value = decode_json(body)
    refuse_repeated(body, value)
    if _LONG in body.translate(_DIGITS):
        at = long_in(value)
        if at is not None:
            where = at or "body"
            raise Refused(f"{where}: {TOO_LONG}", param=where.partition(".")[0])
    return value


def read(body: bytes, kind: type[R]) -> R:
    """The request that a body of JSON holds: `convert` of `decode_request`.

    In one pass, if nothing is wrong; what is wrong the two of them say.
    """
    request = read_at_once(body, kind)
    return convert(decode_request(body), kind) if request is None else request


def read_at_once(body: bytes, kind: type[R]) -> R | None:
    """The same in one pass; None if something may be wrong."""
    nested = _nested(body) > MAX_DEPTH
    if nested or _LONG in body.translate(_DIGITS) or may_repeat(body):
        return None
    try:
        request: R = _decoder_of(kind).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return request


@cache
def _decoder_of(kind: type[R]) -> msgspec.json.Decoder[R]:
    return msgspec.json.Decoder(kind)


def decode_msgpack(body: bytes) -> Any:
    """MessagePack. Raises Malformed with the error."""
    try:
        value = msgspec.msgpack.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise Malformed(f"the message is not MessagePack: {error}") from None
    except RecursionError:
        raise _too_deep() from None
    _check_depth(value)
    return value


def _check_depth(value: Any, most: int = MAX_DEPTH) -> None:
    """Raise Malformed where lists and maps are nested deeper than this."""
    level = [value]
    for _ in range(most):
        level = [
            inner
            for outer in level
            if type(outer) is list or type(outer) is dict
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is list or type(inner) is dict
        ]
        if not level:
            return
    raise _too_deep(most)


def _too_deep(most: int = MAX_DEPTH) -> Malformed:
    return Malformed(f"nested too deeply; at most {most} lists and maps in each other")
