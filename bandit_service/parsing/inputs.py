"""Files that others wrote: decoded to UTF-8, and their JSON and numbers read by meaning.

Every reader of such a file begins here, so that a byte-order mark, another encoding or a value of
another type is dealt with once, or named where it cannot be. `packed` unpacks them before.
"""

from __future__ import annotations

import codecs
import io
import json
import math
import re
from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import msgspec

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's mark, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CHUNK = 1 << 16
TOO_LONG = "integers must fit in 64 bits"
"""What is wrong where `long_in` finds one."""
_TRUE, _FALSE = ("true", "t", "yes", "y", "on"), ("false", "f", "no", "n", "off")
_TRUTHS = {**dict.fromkeys(_TRUE, 1.0), **dict.fromkeys(_FALSE, 0.0)}
_NONE = {"", "null", "none", "nan", "na", "n/a", "<na>", "\\n"}


class Unusable(ValueError):
    """A file that cannot be read as text; the message names the kind of file, and what to do."""


def decoded(file: io.BufferedReader) -> io.BufferedReader:
    """The same text as UTF-8 without a byte-order mark.

    UTF-16 and UTF-32 are told by their marks, or by the zeros of ASCII in them. Reading may raise
    UnicodeDecodeError.
    """
    begin = file.peek(4)
    mark, encoding = next(
        ((mark, name) for mark, name in _MARKS if begin.startswith(mark)),
        (b"", _by_zeros(begin[:4])),
    )
    file.read(len(mark))
    return file if encoding == "utf-8" else io.BufferedReader(_Recoded(file, encoding))


def text_of(path: Path) -> str:
    """The whole text of a small file; OSError, or `Unusable`."""
    with path.open("rb") as file:
        try:
            return decoded(file).read().decode()
        except UnicodeDecodeError as error:
            raise Unusable(not_utf8(error)) from None


def not_utf8(error: UnicodeDecodeError) -> str:
    """What is wrong with a text that is not UTF-8, and the way out."""
    byte = error.object[error.start : error.start + 1].hex()
    return (
        f"not UTF-8 (byte 0x{byte}); it may be Windows-1252 or Latin-1: save it as UTF-8, as "
        "`iconv -f WINDOWS-1252 -t UTF-8` does"
    )


def _by_zeros(begin: bytes) -> str:
    """UTF-16 without a mark has a zero in each ASCII character; UTF-8 has none."""
    zeros = [byte == 0 for byte in begin]
    if zeros == [False, True, False, True]:
        return "utf-16-le"
    return "utf-16-be" if zeros == [True, False, True, False] else "utf-8"


class _Recoded(io.RawIOBase):
    """The bytes of another encoding, as UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file, self._left = file, b""
        self._decoder = codecs.getincrementaldecoder(encoding)()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = b"."
        while chunk and not self._left:
            chunk = self._file.read(_CHUNK)
            self._left = self._decoder.decode(chunk, final=not chunk).encode()
        some, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(some)] = some
        return len(some)


# --- JSON ---------------------------------------------------------------------------------


def json_of(body: bytes | str, halves: bool = False) -> Any:
    """The value, as leniently as the clients of the services that wrote it.

    NaN, which Python's json writes, is null; half an emoji is U+FFFD, or stays (halves) for who
    passes it on. Infinity stays: it is no value that is not known. A byte-order mark before it is
    none of it. ValueError says what is wrong.
    """
    body = (
        body.removeprefix("\ufeff") if isinstance(body, str) else body.removeprefix(codecs.BOM_UTF8)
    )
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        strict = error
    except RecursionError:
        raise ValueError("nested too deeply") from None
    try:
        text = body if isinstance(body, str) else body.decode()
    except UnicodeDecodeError as error:
        raise ValueError(not_utf8(error)) from None
    try:
        value = json.loads(text, parse_constant=_constant)
        return value if halves else whole(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        raise ValueError(str(strict)) from None


def said_json(body: bytes | str, halves: bool = False) -> Any:
    """`json_of` of what a server says, in which what is no UTF-8 is U+FFFD, as browsers read it."""
    try:
        return json_of(body, halves)
    except ValueError:
        if isinstance(body, str) or (text := body.decode(errors="replace")).encode() == body:
            raise
    return json_of(text, halves)


def _constant(word: str) -> float | None:
    return None if word == "NaN" else float(word)


def whole(value: Any) -> Any:
    """The same with U+FFFD for halves of characters, in keys too."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [whole(each) for each in value]
        case dict():
            return {whole(key): whole(each) for key, each in value.items()}
        case _:
            return value


# --- values by their meaning --------------------------------------------------------------


def plain(value: Any) -> Any:
    """A number out of a number of any type, a truth, a length of time in seconds, or the text of
    one; None for what is unknown.

    What is none of these comes back as it is, to be told.

    >>> plain("0.5"), plain(True), plain(""), plain(Decimal("0.10")), plain("many")
    (0.5, 1.0, None, 0.1, 'many')
    """
    match value:
        case bool():
            return float(value)
        case bytes():
            return plain(value.decode(errors="replace"))
        case str():
            word = value.strip().lower()
            if word in _NONE:
                return None
            try:
                value = _TRUTHS[word] if word in _TRUTHS else float(word)
            except ValueError:
                return value
        case timedelta():
            value = value.total_seconds()
        case Decimal():
            value = math.nan if value.is_nan() else float(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def is_truth(value: Any) -> bool:
    """Whether this is true or false, or a word for it."""
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in _TRUTHS)


def worded(value: Any) -> Any:
    """A text out of a text, or of a whole number or identity of any type; None for none.

    What is none of these comes back as it is, to be told.

    >>> worded(b"a"), worded(3), worded(3.0), worded(Decimal(3)), worded(1.5)
    ('a', '3', '3', '3', 1.5)
    """
    match value:
        case bool():
            return value
        case bytes():
            return value.decode(errors="replace")
        case int() | UUID():
            return str(value)
        case float() | Decimal():
            if not math.isfinite(value):
                return None if math.isnan(value) else value
            return str(int(value)) if value == int(value) else value
        case _:
            return value


_DECIMAL = re.compile(r"\s*[+-]?\d*,\d+(?:[eE][+-]?\d+)?\s*")
_GROUPED = re.compile(r"\s*[+-]?[1-9]\d{0,2}(?:,\d{3})+\s*")


def with_point(text: str, delimiter: str) -> str:
    """A number's text with a point for its decimal comma, in a file whose cells no comma parts.

    Between semicolons a comma is decimal; elsewhere 1,000 may be a thousand, and stays.

    >>> with_point("0,5", ";"), with_point("1,000", "\\t"), with_point("0,5", ",")
    ('0.5', '1,000', '0,5')
    """
    if delimiter == "," or not _DECIMAL.fullmatch(text):
        return text
    return text if delimiter != ";" and _GROUPED.fullmatch(text) else text.replace(",", ".")


def long_in(value: Any, at: str = "") -> str | None:
    """Where a whole number beyond 64 bits is, which no event could hold; None if there is none.

    >>> long_in({"a": [1, {"b": 2**64}]})
    'a[1].b'
    """
    if type(value) is int and not -(2**63) <= value < 2**64:
        return at
    inside: Iterable[tuple[str, Any]] = ()
    if type(value) is dict:
        inside = ((f"{at}.{key}" if at else str(key), inner) for key, inner in value.items())
    elif type(value) is list:
        inside = ((f"{at}[{i}]", inner) for i, inner in enumerate(value))
    found = (long_in(inner, where) for where, inner in inside)
    return next((where for where in found if where is not None), None)
