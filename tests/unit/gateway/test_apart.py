"""Work on large requests leaves the event loop to others."""

from __future__ import annotations

import asyncio
import threading

import pytest

from bandit_service import wire
from bandit_service.core.errors import Malformed, TooLarge
from bandit_service.gateway.large_requests import LARGE, apart


async def test_the_loop_runs_on_while_a_large_request_is_worked_on() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def work() -> int:
        begun.set()
        assert may_end.wait(60.0)  # which only the loop can bring about
        return threading.get_ident()

    working = asyncio.create_task(apart(LARGE + 1, work))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    may_end.set()
    assert await working != threading.get_ident()
    assert await apart(LARGE, threading.get_ident) == threading.get_ident()


async def test_what_is_wrong_with_a_large_request_is_raised_where_it_is_awaited() -> None:
    def work() -> None:
        raise TooLarge("x: too much", param="x")

    with pytest.raises(TooLarge, match="too much"):
        await apart(LARGE + 1, work)


@pytest.mark.parametrize(
    ("body", "right"),
    [
        (b'{"x": [{}, [], {"a": [1]}]}', 6),
        (b'{"x": "[[[{{{\\"[[[", "y": [[], []]}', 4),
        (b'{"x": "\\\\", "y": [[], []]}', 4),
        (b'\xef\xbb\xbf{"x": [[], []]}', 4),
        (b'{"x": [' + b"0," * 30 + b"0]}", 5),
    ],
)
def test_parts_are_lists_objects_and_a_tenth_of_the_rest(body: bytes, right: int) -> None:
    parts = wire.parts_of(body)
    wire.decode_passed(body, parts, right)
    with pytest.raises(TooLarge, match=f"more than {right - 1} lists and objects"):
        wire.decode_passed(body, parts, right - 1)


@pytest.mark.parametrize("length", [9_999, 10_000, 131_072, 131_073, 400_000])
def test_parts_of_a_long_body_are_counted_as_those_of_a_short_one(length: int) -> None:
    body = (b"{[," * 140_000)[:length]
    assert wire.parts_of(body) == body.count(b"{") + body.count(b"[") + body.count(b",") // 10


def test_a_long_body_that_is_nested_deep_is_refused() -> None:
    text = b'"' + b"x" * 10_000 + b'"'
    deep = b'{"x": [%b, %b%b]}' % (text, b"[" * 126, b"]" * 126)
    wire.decode_passed(deep, wire.parts_of(deep), 1000)
    deeper = deep.replace(b"[[", b"[[[[", 1).replace(b"]]", b"]]]]", 1)
    with pytest.raises(Malformed, match="nested"):
        wire.decode_passed(deeper, wire.parts_of(deeper), 1000)


@pytest.mark.parametrize("body", [b"[[], [], []]", b'{"x": [[], [}'])
def test_a_body_that_is_no_object_is_refused_all_the_same(body: bytes) -> None:
    with pytest.raises(TooLarge, match=r"^the body has more than 1 "):
        wire.decode_passed(body, wire.parts_of(body), 1)


def test_a_long_name_leaves_room_for_the_limit() -> None:
    body = b'{"' + b"x" * 9000 + b'": [[]]}'
    with pytest.raises(TooLarge, match=r"gateway\.max_body_parts"):
        wire.decode_passed(body, wire.parts_of(body), 1)
