"""What the entrance hands to the fast path is what aiohttp's parser reads of the same bytes."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bandit_service.http.admission import Admission
from bandit_service.http.entrance import Entrance
from bandit_service.http.fast_path import Head, head_of

_BODY = b'{"query": "hello"}'
_LINES = (
    b"Content-Length: 18",
    b"content-length: 18",
    b"Content-Length: 018",
    b"Content-Length: +18",
    b"Content-Length: 18 ",
    b"Content-Length:18",
    b"Content-Length: 17",
    b"Content-Length: 1_8",
    b"Content-Length: 0x12",
    b"Content-Length: 18, 18",
    b"Content-Length : 18",
    b"Content-Length: \xd9\xa1\xd9\xa8",
    b"Content_Length: 3",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: identity",
    b"X: a\nTransfer-Encoding: chunked",
    b"X: a\rTransfer-Encoding: chunked",
    b"X: a\nContent-Length: 3",
    b" folded",
    b"\tfolded",
    b"X: \0",
    b"X: \xff",
    b"X Y: 1",
    b": 1",
    b"",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: keep-alive, close",
    b"Proxy-Connection: close",
    b"Expect: 100-continue",
    b"Upgrade: h2c",
    b"Authorization: Bearer a",
    b"Authorization: Bearer b",
)
_FIRST = (
    b"POST /v1/decide HTTP/1.1",
    b"POST /v1/decide HTTP/1.0",
    b"POST  /v1/decide HTTP/1.1",
    b"post /v1/decide HTTP/1.1",
    b"POST /v1/decide HTTP/1.1 HTTP/1.1",
    b"POST /v1/decide?a HTTP/1.1",
    b"POST http://x/v1/decide HTTP/1.1",
)
_ENDS = (b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n")


_LOOP = asyncio.new_event_loop()
_LOOP.close()
_NOBODY = BaseProtocol(_LOOP)


def _read(data: bytes) -> Any:
    """What aiohttp's server reads of it: messages with their bodies, an upgrade, and the rest."""
    parser = HttpRequestParser(_NOBODY, _LOOP, 65_536, max_line_size=8190, max_field_size=8190)
    return parser.feed_data(data)


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.closing = False
        self.pauses: list[bool] = []

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.pauses.append(True)

    def resume_reading(self) -> None:
        self.pauses.append(False)


class _Fast:
    """Takes every usual request, and notes it."""

    def __init__(self) -> None:
        self.taken: list[tuple[Head, bytes]] = []

    def head_of(self, head: bytes) -> Head | None:
        return head_of(head, _NOBODY, _LOOP)

    def takes(self, head: Head, body: bytes, entrance: Any) -> bool:
        self.taken.append((head, body))
        return True


def _entrance() -> tuple[Entrance[Any], _Fast, _Transport]:
    fast, transport = _Fast(), _Transport()
    admission = Admission(0.1, 8, 8, lambda _, __: None)
    entrance: Entrance[Any] = Entrance(asyncio.Protocol(), admission, fast=fast)
    entrance.connection_made(transport)
    return entrance, fast, transport


_LINE = st.tuples(st.sampled_from(_LINES), st.sampled_from(_ENDS))
_USUAL: tuple[bytes, bytes] = (_LINES[0], b"\r\n")


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    lines = draw(st.lists(_LINE, max_size=3))
    if draw(st.integers(0, 4)):
        lines.insert(draw(st.integers(0, len(lines))), _USUAL)
    first = draw(st.sampled_from(_FIRST[:1] * 20 + _FIRST))
    body = draw(st.sampled_from((_BODY, _BODY, _BODY, _BODY + b"x", b"")))
    return _request(first, lines, body)


def _request(first: bytes, lines: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    told = b"".join(b"%b%b" % line for line in lines)
    return first + b"\r\nHost: x\r\n" + told + b"\r\n" + body


_LONG = [_USUAL] + [(b"X: y", b"\r\n")] * 126


@given(st.lists(_requests(), max_size=4))
@example([_request(_FIRST[0], _LONG, _BODY)])
@example([_request(_FIRST[0], [*_LONG, (b"X: y", b"\r\n")], _BODY)])
@example([_request(_FIRST[0], [_USUAL, (b"X-Request-Id: %d" % i, b"\r\n")], _BODY) for i in (1, 2)])
@example([_request(_FIRST[0], [(b"Transfer-Encoding: chunked", b"\r\n")], b"")])
@example([_request(_FIRST[0], [_USUAL, (b"Transfer-Encoding: chunked", b"\r\n")], _BODY)])
@settings(max_examples=300)
def test_a_request_that_is_taken_is_the_one_that_aiohttp_reads(requests: list[bytes]) -> None:
    entrance, fast, _ = _entrance()
    for data in requests:
        fast.taken.clear()
        entrance.data_received(data)
        if not fast.taken:
            entrance.answered()
            continue
        ((head, body),) = fast.taken
        messages, upgraded, rest = _read(data)
        ((message, payload),) = messages
        assert (upgraded, rest, message.chunked, message.should_close) == (False, b"", False, False)
        assert message.path == head.path
        theirs = [each for each in message.headers.items() if each[0].lower() != "content-length"]
        assert theirs == list(head.headers.items())
        assert payload.is_eof()
        assert (payload.read_nowait() if body else b"") == body
        entrance.finished()


def _usual(body: bytes = _BODY) -> bytes:
    return b"POST /v1/decide HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def test_what_comes_meanwhile_is_held_and_bounded() -> None:
    entrance, fast, transport = _entrance()
    entrance.data_received(_usual())
    following = _usual(b"x" * 65_000)
    for at in range(len(following)):
        entrance.data_received(following[at : at + 1])
    assert transport.pauses == []
    entrance.finished()
    assert [body for _, body in fast.taken] == [_BODY, b"x" * 65_000]
    entrance.data_received(b"y" * 65_536)
    assert transport.pauses == []
    entrance.data_received(b"y")
    entrance.data_received(b"y")
    assert transport.pauses == [True]
    entrance.finished()
    assert transport.pauses == [True, False]


def test_after_a_connection_was_closed_the_next_request_is_not_begun() -> None:
    entrance, fast, transport = _entrance()
    entrance.data_received(_usual())
    entrance.data_received(_usual())
    transport.closing = True
    entrance.finished()
    assert len(fast.taken) == 1
