"""A body that is not JSON is refused by the place of the mistake."""

from __future__ import annotations

import pytest

from bandit_service import wire
from bandit_service.core.errors import Refused


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
    ],
)
def test_what_is_wrong_with_a_body(body: bytes, param: str | None, message: str) -> None:
    with pytest.raises(Refused) as refused:
        wire.decode_request(body)
    assert (refused.value.param, refused.value.message) == (param, message)
