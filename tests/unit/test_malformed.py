"""A body that is not JSON, or has a name twice, is refused by the place of the mistake."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service import wire
from bandit_service.core.errors import Refused
from bandit_service.wire.malformed import may_repeat


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b"", None, "the body is empty; it must be JSON"),
        (b" \n", None, "the body is empty; it must be JSON"),
        (b'{"query": "\xff"}', None, "the body is not text: byte 0xff (byte 11) is not UTF-8"),
        (b'{"a": [1, {"b": NaN}]}', "a", "a[1].b: must be a finite number, got NaN"),
        (b'[{"a": -Infinity}]', None, "[0].a: must be a finite number, got -Infinity"),
        (b'{"cost": 1e400}', "cost", "cost: must be a finite number, got 1e400"),
        (b'{"cost": ' + b"9" * 5000 + b"}", "cost", "cost: integers must fit in 64 bits"),
        (b"NaN", None, "body: must be a finite number, got NaN"),
        (b'{"a": 1, "a": 1}', "a", "a: given twice; give it once"),
        (b'{"b": {"a": 1,"\\u0061" : 1}}', "a", "a: given twice; give it once"),
        (b'\xef\xbb\xbf{"a": 1, "a": 1}', "a", "a: given twice; give it once"),
    ],
)
def test_what_is_wrong_with_a_body(body: bytes, param: str | None, message: str) -> None:
    with pytest.raises(Refused) as refused:
        wire.decode_request(body)
    assert (refused.value.param, refused.value.message) == (param, message)


@pytest.mark.parametrize(
    "body",
    [
        b'{"query": "{\\"a\\": 1, \\"a\\": 2}"}',
        b'[{"a": 1}, {"a": 1}]',
        b'{"a": {"a": {"a" : 1}}}',
        b'{"a": "b", "b": "b"}',
        b'{"a": "\\\\", "b": "x\\":y"}',
    ],
)
def test_a_name_in_two_objects_or_in_a_text_is_not_repeated(body: bytes) -> None:
    assert wire.decode_request(body) == json.loads(body)


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


@given(_values, st.sampled_from(["", " ", "\n"]))
def test_every_repeated_name_is_found_and_no_other(value: Any, spaces: str) -> None:
    body = _written(value, spaces).encode()
    if not _repeated(value):
        assert wire.decode_request(body) == json.loads(body)
        return
    assert may_repeat(body)
    with pytest.raises(Refused, match="given twice"):
        wire.decode_request(body)
