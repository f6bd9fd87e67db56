"""One write for all that is written in a turn of the loop."""

from __future__ import annotations

import asyncio

import pytest

from bandit_service.http.write_batching import Gathering


class _Wire(asyncio.Transport):
    """Notes what is done with it."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[bytes | str] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.done.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 7

    def close(self) -> None:
        self.closed = True
        self.done.append("close")

    def abort(self) -> None:
        self.closed = True
        self.done.append("abort")

    def write_eof(self) -> None:
        self.done.append("eof")


async def test_what_is_written_in_one_turn_goes_out_at_once_and_in_order() -> None:
    wire = _Wire()
    gathered = Gathering(wire)
    gathered.write(b"a")
    gathered.writelines([bytearray(b"b"), memoryview(b"c")])
    assert (wire.done, gathered.get_write_buffer_size()) == ([], 10)
    await asyncio.sleep(0)
    assert (wire.done, gathered.get_write_buffer_size()) == ([b"abc"], 7)
    gathered.write(b"d")
    await asyncio.sleep(0)
    assert wire.done == [b"abc", b"d"]


@pytest.mark.parametrize(
    ("what", "left"),
    [("close", [b"ab", "close"]), ("abort", ["abort"]), ("write_eof", [b"ab", "eof"])],
)
async def test_an_end_comes_after_what_was_written(what: str, left: list[bytes | str]) -> None:
    wire = _Wire()
    gathered = Gathering(wire)
    gathered.write(b"a")
    gathered.write(b"b")
    getattr(gathered, what)()
    await asyncio.sleep(0)
    assert wire.done == left


async def test_nothing_is_written_to_a_connection_that_was_closed_meanwhile() -> None:
    wire = _Wire()
    gathered = Gathering(wire)
    gathered.write(b"a")
    wire.closed = True
    await asyncio.sleep(0)
    assert wire.done == []


async def test_everything_else_is_the_transport_beneath() -> None:
    """A server and a client over a real socket: limits, pauses, what is known of the peer."""
    there: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

    class _Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            there.set_result(transport)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Server, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    beneath = await there
    gathered = Gathering(beneath)
    gathered.set_write_buffer_limits(high=100, low=10)
    assert gathered.get_write_buffer_limits() == beneath.get_write_buffer_limits() == (10, 100)
    gathered.pause_reading()
    assert not gathered.is_reading()
    gathered.resume_reading()
    assert gathered.is_reading()
    assert gathered.get_extra_info("peername") == writer.get_extra_info("sockname")
    assert gathered.get_extra_info("nothing", 3) == 3
    other = asyncio.Protocol()
    gathered.set_protocol(other)
    assert gathered.get_protocol() is beneath.get_protocol() is other
    assert gathered.can_write_eof()
    gathered.write(b"whole")
    gathered.close()
    assert gathered.is_closing()
    assert await reader.read() == b"whole"
    writer.close()
    server.close()
