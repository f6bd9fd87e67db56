"""A name that an object has twice is refused, wherever it is, and nothing else is."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service import wire
from bandit_service.core.errors import Refused
from bandit_service.wire import repeated
from bandit_service.wire.repeated import is_repeated_at_top, may_repeat, repeated_in


def _passed(body: bytes) -> Any:
    return wire.decode_passed(body, wire.parts_of(body), 100_000)


_LONG = "\\ \": \\\\ : \" 'and so on' " * 400
"""Longer than what is searched otherwise, and full of what ends a name."""


@pytest.mark.parametrize("decode", [wire.decode_request, _passed])
@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 1}',
        b'{"b": {"a": 1,"\\u0061" : 1}}',
        b'\xef\xbb\xbf{"a": 1, "a": 1}',
        b'{"a": ":", "a" \n: 1}',
        b'{"b": [{"c": "a"}, {"a": {}, "a": []}]}',
    ],
)
def test_a_name_given_twice_is_named(decode: Any, body: bytes) -> None:
    for sent in (body, body[:-1] + f', "long": {json.dumps(_LONG)}}}'.encode()):
        with pytest.raises(Refused) as refused:
            decode(sent)
        assert refused.value.param == "a"
        assert refused.value.message == "a: given twice; give it once"


def test_a_body_that_only_clients_write_is_searched_too() -> None:
    """NaN and half an emoji are passed on, which the strict decoder does not read."""
    good = b'{"a": NaN, "\\ud83d": 1, "\\ud83e": 2}'
    assert _passed(good) == {"a": None, "\ufffd": 2}
    with pytest.raises(Refused, match="a: given twice"):
        _passed(b'{"a": NaN, "b": "\\ud83d", "a": 1}')


@pytest.mark.parametrize(
    "body",
    [
        b'{"query": "{\\"a\\": 1, \\"a\\": 2}"}',
        b'[{"a": 1}, {"a": 1}]',
        b'{"a": {"a": {"a" : 1}}}',
        b'{"a": "b", "b": "b"}',
        b'{"a": "\\\\", "b": "x\\":y"}',
        b'{"query": ":", "b": ": \\":\\" :"}',
        b'":"',
        b"[]",
    ],
)
def test_a_name_in_two_objects_or_in_a_text_is_not_repeated(body: bytes) -> None:
    assert wire.decode_request(body) == _passed(body) == json.loads(body)


@pytest.mark.parametrize("count", range(12))
def test_a_name_that_ends_with_backslashes_is_found_in_a_long_body(count: int) -> None:
    name = json.dumps("a" + "\\" * count)
    with pytest.raises(Refused, match="given twice"):
        wire.decode_request(f'{{{name}: "{"b" * 5_000}", {name}: 1}}'.encode())


@pytest.mark.parametrize("texts", range(5))
def test_a_text_of_json_in_a_text_is_not_read_again(
    texts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    value: Any = [{"name": i} for i in range(1_000)]
    for _ in range(texts):
        value = {"text": json.dumps(value)}
    body = json.dumps({"content": value}).encode()
    with monkeypatch.context() as patched:
        patched.setattr(repeated, "_object", lambda _: pytest.fail("it is read again"))
        assert wire.decode_request(body) == {"content": value}


_texts = st.text(st.sampled_from('ab":\\ ,{}'), max_size=4)
_values: Any = st.recursive(
    st.none() | st.integers(-9, 9) | _texts,
    lambda inner: (
        st.lists(inner, max_size=2) | st.lists(st.tuples(_texts, inner), max_size=3).map(tuple)
    ),
    max_leaves=6,
)


def _written(value: Any, spaces: str) -> str:
    """JSON in which a tuple of pairs is an object, with spaces around its colons."""
    match value:
        case tuple():
            fields = (f"{json.dumps(k)}{spaces}:{spaces}{_written(v, spaces)}" for k, v in value)
            return "{" + ", ".join(fields) + "}"
        case list():
            return f"[{', '.join(_written(each, spaces) for each in value)}]"
        case _:
            return json.dumps(value)


def _repeated(value: Any) -> bool:
    match value:
        case tuple():
            names = [name for name, _ in value]
            return len(set(names)) < len(names) or any(_repeated(each) for _, each in value)
        case list():
            return any(map(_repeated, value))
        case _:
            return False


@given(_values, st.sampled_from(["", " ", "\n"]), st.booleans())
def test_every_repeated_name_is_found_and_no_other(value: Any, spaces: str, long: bool) -> None:
    body = _written([_LONG, value] if long else value, spaces).encode()
    if not _repeated(value):
        assert wire.decode_request(body) == _passed(body) == json.loads(body)
        return
    assert may_repeat(body)
    for decode in (wire.decode_request, _passed):
        with pytest.raises(Refused, match="given twice"):
            decode(body)


def _packed(value: Any, wide: bool) -> bytes:
    """MessagePack in which a tuple of pairs is a map; wide: its head is longer than it must be."""
    match value:
        case tuple():
            size = len(value)
            head = b"\xde" + size.to_bytes(2, "big") if wide else bytes([0x80 | size])
            return head + b"".join(_packed(k, wide) + _packed(v, wide) for k, v in value)
        case list():
            head = b"\xdd" + len(value).to_bytes(4, "big") if wide else bytes([0x90 | len(value)])
            return head + b"".join(_packed(each, wide) for each in value)
        case str() if wide:
            return b"\xd9" + bytes([len(value)]) + value.encode()
        case _:
            return msgspec.msgpack.encode(value)


@given(st.lists(st.tuples(_texts, _values), max_size=4).map(tuple), st.booleans())
def test_so_is_one_of_messagepack(value: Any, wide: bool) -> None:
    body = _packed(value, wide)
    decoded = msgspec.msgpack.decode(body)
    names = [name for name, _ in value]
    assert is_repeated_at_top(body) == (len(set(names)) < len(names))
    assert (repeated_in(body, decoded) is not None) == _repeated(value)


@pytest.mark.parametrize("name", [b"\x05", b"\xc0", b"\x91\x01", b"\xc4\x01a"])
def test_a_name_within_a_map_may_be_of_any_kind(name: bytes) -> None:
    """Only those of the message itself must be texts."""
    for second in (name, b"\xa1b"):
        body = b"\x81\xa1a\x91\x82" + name + b"\x01" + second + b"\x02"
        found = repeated_in(body, msgspec.msgpack.decode(body))
        assert (found is not None) == (second == name)


def test_the_repeated_name_of_messagepack_is_told() -> None:
    inner = bytes([0x82]) + b"\xa1b\x01\xd9\x01b\x02"  # in two ways
    body = b"\xdf\x00\x00\x00\x02\xa1a\x92\x01" + inner + b"\xa1c\xc4\x01\x82"
    assert repeated_in(body, msgspec.msgpack.decode(body)) == "b"
    assert not is_repeated_at_top(body)
