"""A client that costs little, and what it asked of a server: CPU time, answers a second, latency.

It writes requests that were made beforehand to plain sockets and looks at nothing in an answer but
where it ends.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil

from bandit_service import clock
from bandit_service.core import events as ev
from loadtest.bench.world import specs, vectors
from store import Record
from store.sqlite import SqliteLog

_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    "Sec-WebSocket-Protocol: bandit.v1\r\n\r\n"
)
_POST = "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n"
_IDLE, _LOOK_S = 0.2, 0.5
_SCHEDULED = 2
"""In the number of a clock, as clock_getcpuclockid(3) makes it: the CPU time of a process."""
_PIECE, _LAST_CHUNK = 1 << 16, b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Loaded:
    """cpu_us: of the server, for each answer. taken: seconds until each came; firsts: until the
    first byte of its body did.
    """

    cpu_us: float
    per_second: float
    taken: list[float]
    firsts: list[float] = field(default_factory=list)


def learned_log(path: Path, past: int, arms: Sequence[ev.ArmSpec] = ()) -> None:
    """A log in which `past` queries were learned from, answered by these arms or the usual ones."""
    log = SqliteLog(path)
    rng, arms = np.random.default_rng(1), arms or specs()
    events: list[ev.AnyEvent] = [ev.ArmAdded(ts=1.0, arm=one, source="config") for one in arms]
    for vector in vectors(past):
        subject = ev.Subject(embedding=ev.pack(vector), tokens=25, willingness_to_pay=0.1)
        quality, arm = float(rng.random()), arms[int(rng.integers(len(arms)))].id
        events.append(
            ev.Rewarded(
                ts=1.0,
                subject=subject,
                arm=arm,
                quality=quality,
                cost_usd=0.001,
                reward=quality - 0.01,
            )
        )
    ids = clock.Ids()  # as the service makes them: all later ones are greater
    records = [Record(ids.new(one.ts), ev.kind(one), one.ts, ev.encode(one)) for one in events]
    for start in range(0, len(records), 1000):
        log.append(records[start : start + 1000])
    log.close()


async def ended(process: asyncio.subprocess.Process) -> None:
    """Stop it."""
    process.terminate()
    await process.wait()


async def idle(process: psutil.Process) -> None:
    """Wait for what a service builds after its start."""
    quiet = 0
    while quiet < 4:
        before = _cpu_s(process)
        await asyncio.sleep(_LOOK_S)
        busy = (_cpu_s(process) - before) / _LOOK_S
        quiet = quiet + 1 if busy < _IDLE else 0


def _cpu_s(process: psutil.Process) -> float:
    """CPU time of a process, by its own clock where there is one: others count by 10 ms."""
    with suppress(OSError):
        return time.clock_gettime((~process.pid << 3) | _SCHEDULED)
    times = process.cpu_times()
    return float(times.user + times.system)


async def stream_load(
    process: psutil.Process, url: str, asked: Sequence[bytes], each: int, in_flight: int
) -> Loaded:
    """So many requests in flight on one connection; the next go out as answers come in."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(_HANDSHAKE.format(path=parts.path, host=parts.netloc).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101"), head
    frames = [_frame(body) for body in asked]
    used, begun, answered, sent = _cpu_s(process), time.perf_counter(), -1, in_flight
    writer.write(b"".join(frames[:in_flight]))
    went = [begun] * in_flight
    taken: list[float] = []
    kept = b""
    while answered < each:  # the first one greets
        came = await reader.read(1 << 18)
        assert came, "the server closed the connection"
        count, kept = _answers(kept + came)
        now = time.perf_counter()
        taken += [now - went[i] for i in range(max(answered, 0), answered + count)]
        answered += count
        more = min(answered + in_flight, each) - sent
        if more > 0:
            writer.write(b"".join(frames[i % len(frames)] for i in range(sent, sent + more)))
            went += [now] * more
            sent += more
    used, lasted = _cpu_s(process) - used, time.perf_counter() - begun
    writer.close()
    return Loaded(used / each * 1e6, each / lasted, taken)


async def post_load(
    process: psutil.Process, url: str, bodies: Sequence[bytes], each: int, at_once: int
) -> Loaded:
    """So many connections, each with one request at a time."""
    parts = urlsplit(url)
    posts = [
        _POST.format(path=parts.path, host=parts.netloc, length=len(body)).encode() + body
        for body in bodies
    ]
    taken: list[float] = []

    async def one(worker: int) -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for i in range(worker, each, at_once):
            begun = time.perf_counter()
            writer.write(posts[i % len(posts)])
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            taken.append(time.perf_counter() - begun)
        writer.close()

    used, begun = _cpu_s(process), time.perf_counter()
    await asyncio.gather(*(one(worker) for worker in range(at_once)))
    used, lasted = _cpu_s(process) - used, time.perf_counter() - begun
    return Loaded(used / each * 1e6, each / lasted, taken)


async def asked_load(
    process: psutil.Process, url: str, bodies: Sequence[bytes], at_once: int
) -> Loaded:
    """Each of these once, by so many callers; answers may come in chunks, as streams do."""
    parts = urlsplit(url)
    posts = [
        _POST.format(path=parts.path, host=parts.netloc, length=len(body)).encode() + body
        for body in bodies
    ]
    taken: list[float] = []
    firsts: list[float] = []

    async def caller(number: int) -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for post in posts[number::at_once]:
            begun = time.perf_counter()
            writer.write(post)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200"), head
            _, whole, length = head.partition(b"content-length:")
            if whole:
                body = await reader.readexactly(int(length.partition(b"\r\n")[0]))
                firsts.append(time.perf_counter() - begun)
            else:
                body = await reader.read(_PIECE)
                firsts.append(time.perf_counter() - begun)
                while not body.endswith(_LAST_CHUNK):
                    piece = await reader.read(_PIECE)
                    assert piece, "the server closed the connection"
                    body = body[-len(_LAST_CHUNK) :] + piece
            taken.append(time.perf_counter() - begun)
        writer.close()

    used, begun = _cpu_s(process), time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(at_once)))
    used, lasted = _cpu_s(process) - used, time.perf_counter() - begun
    return Loaded(used / len(posts) * 1e6, len(posts) / lasted, taken, firsts)


def _frame(body: bytes) -> bytes:
    """A binary frame of a client, under the mask of zeros."""
    return struct.pack("!BBH4x", 0x82, 0x80 | 126, len(body)) + body


def _answers(data: bytes) -> tuple[int, bytes]:
    """How many frames of the server are whole, and the bytes after them."""
    at = count = 0
    while len(data) - at >= 2:
        length, head = data[at + 1], 2
        if length == 126:
            if len(data) - at < 4:
                break
            length, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
        if len(data) - at < head + length:
            break
        assert b"\xa5error" not in data[at : at + head + length], data[at : at + head + length]
        at += head + length
        count += 1
    return count, data[at:]
