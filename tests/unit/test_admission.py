"""The limit finds what can be done in time; the entrance refuses only what it is sure of."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bandit_service.http.admission import DECIDE, JITTER_S, OUTCOME, Admission, Limit
from bandit_service.http.entrance import Entrance


def _run(limit: Limit, seconds_each: float, offered: int, until: float, begin: float = 0.0) -> None:
    """One server that takes so long for each; as many wait as the limit lets in."""
    now = begin
    while now < until:
        while not limit.full and limit.under_way < offered:
            limit.enter()
        now += seconds_each
        limit.leave(limit.under_way * seconds_each, now)


@pytest.mark.parametrize("seconds_each", [0.0005, 0.001, 0.002])
def test_as_many_are_let_in_as_are_answered_in_time(seconds_each: float) -> None:
    limit = Limit(0.1, least=8, most=1024)
    _run(limit, seconds_each, offered=5000, until=60.0)
    assert 0.08 < limit.allowed * seconds_each < 0.13


def test_a_limit_that_is_not_made_use_of_does_not_widen() -> None:
    limit = Limit(0.1, least=8, most=1024)
    _run(limit, 0.001, offered=4, until=60.0)
    assert limit.allowed == 32


def test_some_are_let_in_however_long_they_take() -> None:
    limit = Limit(0.1, least=8, most=1024)
    _run(limit, 0.5, offered=5000, until=60.0)
    assert limit.allowed == 8


def test_never_more_than_the_most_is_let_in() -> None:
    limit = Limit(0.1, least=8, most=100)
    _run(limit, 1e-5, offered=5000, until=10.0)
    assert limit.allowed == 100


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def write(self, data: Any) -> None:
        self.written += data


class _Stack(asyncio.Protocol):
    """What the entrance stands before."""

    def __init__(self) -> None:
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data


class _Door:
    def __init__(self, least: int = 1, decides: int = 0) -> None:
        self.counted: list[tuple[str, str]] = []
        self.admission = Admission(
            0.1, least, 1, lambda endpoint, kind: self.counted.append((endpoint, kind))
        )
        for _ in range(decides):
            self.admission.enter(DECIDE)
        self.stack, self.transport = _Stack(), _Transport()
        self.entrance: Entrance[object] = Entrance(self.stack, self.admission)
        self.entrance.connection_made(self.transport)


def _request(path: str, body: bytes = b"{}", *more: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def test_a_refusal_is_a_whole_answer_and_the_connection_goes_on() -> None:
    door = _Door(decides=1)
    waits, ids = set(), set()
    for _ in range(100):
        door.transport.written = b""
        door.entrance.data_received(_request("/v1/decide", b'{"query": "hello"}'))
        head, _, body = door.transport.written.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        assert lines[0] == "HTTP/1.1 429 Too Many Requests"
        assert int(headers["content-length"]) == len(body)
        ids.add(headers["x-request-id"])
        assert headers["date"].endswith("GMT")
        waits.add(int(headers["retry-after"]))
        assert json.loads(body)["error"]["code"] == "busy"
    assert waits == set(range(1, 1 + JITTER_S))  # not all at once
    assert len(ids) == 100
    assert door.stack.received == b""
    assert door.counted == [("/v1/decide", DECIDE)] * 100
    reward = _request("/v1/rewards")
    door.entrance.data_received(reward)  # these have a limit of their own
    assert door.stack.received == reward


def test_a_body_that_comes_in_pieces_is_refused_when_it_is_there() -> None:
    door = _Door(decides=1)
    request = _request("/v1/decide", b"x" * 1000)
    for at in range(0, len(request), 300):
        assert door.transport.written == b""
        door.entrance.data_received(request[at : at + 300])
    assert door.transport.written.startswith(b"HTTP/1.1 429 ")
    assert door.stack.received == b""


def test_one_that_is_set_aside_takes_no_place_and_its_waiting_does_not_count() -> None:
    door = _Door()
    limit = door.admission.limits[DECIDE]
    door.entrance.data_received(_request("/v1/decide"))
    with door.entrance.aside(), door.entrance.aside():  # two items of a list
        assert limit.under_way == 0
    assert limit.under_way == 1
    door.entrance.answered()
    assert limit.under_way == 0
    door.entrance.data_received(_request("/v1/decide"))
    with door.entrance.aside():
        door.entrance.connection_lost(None)
    assert limit.under_way == 0


def test_one_under_way_takes_a_place_until_it_is_answered_or_its_client_leaves() -> None:
    door = _Door()
    limits = door.admission.limits
    door.entrance.data_received(_request("/v1/decide"))
    assert (limits[DECIDE].under_way, limits[OUTCOME].under_way) == (1, 0)
    door.entrance.answered()
    assert limits[DECIDE].under_way == 0
    door.entrance.data_received(_request("/v1/comparisons"))
    assert (limits[DECIDE].under_way, limits[OUTCOME].under_way) == (0, 1)
    door.entrance.connection_lost(None)
    assert limits[OUTCOME].under_way == 0


@pytest.mark.parametrize(
    "unclear",
    [
        _request("/v1/decide", b"{}", "Transfer-Encoding: chunked"),
        _request("/v1/decide", b"{}", "Content-Length: 2"),
        _request("/v1/decide", b"{}", "Expect: 100-continue"),
        _request("/v1/decide").replace(b"Content-Length: 2", b"Content-Length: +2"),
        _request("/v1/decide").replace(b"Content-Length:", b"Content-Length :"),
        _request("/v1/decide").replace(b"HTTP/1.1", b"HTTP/1.0"),
        _request("/v1/decide") + _request("/v1/decide"),
        _request("/v1/decide")[:30],
        b"\x16\x03\x01 no HTTP at all",
    ],
)
def test_what_is_not_plain_is_handed_on_and_so_is_everything_after_it(unclear: bytes) -> None:
    door = _Door(decides=1)
    door.entrance.data_received(unclear)
    door.entrance.data_received(_request("/v1/decide"))
    assert door.stack.received == unclear + _request("/v1/decide")
    assert door.transport.written == b""


def test_a_body_that_looks_like_a_request_is_none() -> None:
    door = _Door(decides=1)
    inside = _request("/v1/decide")
    outside = _request("/v1/arms/x", b"y" * 10 + inside)
    door.entrance.data_received(outside[: -len(inside)])
    door.entrance.data_received(inside)
    assert door.stack.received == outside
    assert door.transport.written == b""


def test_a_request_before_the_answer_to_the_last_is_handed_on() -> None:
    door = _Door(decides=1)
    first = _request("/v1/rewards")
    door.entrance.data_received(first)
    door.entrance.data_received(_request("/v1/decide"))  # its answer must come second
    assert door.transport.written == b""
    assert door.stack.received == first + _request("/v1/decide")


def test_a_connection_that_was_to_end_ends_after_its_refusal() -> None:
    door = _Door(decides=1)
    door.entrance.data_received(_request("/v1/decide", b"{}", "Connection: close"))
    assert door.transport.written.startswith(b"HTTP/1.1 429 ")
    assert door.transport.closed


def test_a_long_list_weighs_as_many() -> None:
    limit = Limit(0.1, least=1, most=100, start=10)
    limit.enter(9)
    assert (limit.under_way, limit.full) == (9, False)
    limit.enter(3)  # what is let in is let in whole
    assert limit.full
    limit.leave(0.9, 1.0, 9)
    limit.leave(0.3, 1.0, 3)
    assert (limit.under_way, limit.allowed >= 10) == (0, True)  # 0.1 s a piece is in time
