"""Decisions of one turn of the loop together, beside the same service that takes them one by one.

Two services on the same log, each in a process of its own, and a bare echo, asked by turns. What
counts is the CPU time of the server, so the load may come from the same machine.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import struct
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import numpy as np
import psutil

from bandit_service.core import events as ev
from loadtest.bench.start import appears
from loadtest.bench.world import ARMS, PAST, Row, specs, vectors
from store import Record
from store.sqlite import SqliteLog

ROUNDS, EACH, ECHOED, IN_FLIGHT = 12, 1500, 30_000, 32
"""An echo is so short that more of them are needed for a clock of 10 ms."""
_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    "Sec-WebSocket-Protocol: bandit.v1\r\n\r\n"
)
_IDLE, _LOOK_S = 0.2, 0.5


async def bench_turns(directory: Path) -> list[Row]:
    """CPU of the server for a decide on a stream: echo, one by one, together."""
    log = directory / "events.sqlite3"
    await asyncio.to_thread(learned_log, log, PAST)
    asked = [
        msgspec.msgpack.encode({"op": "decide", "id": i, "embedding": ev.pack(vector)})
        for i, vector in enumerate(vectors(512, seed=5))
    ]
    taken: dict[str, list[float]] = {"echo (baseline)": [], "one by one": [], "together": []}
    async with AsyncExitStack() as stack:
        ways: dict[str, tuple[psutil.Process, str]] = {}
        for how in ("together", "one by one"):
            data = directory / how.replace(" ", "-")
            await asyncio.to_thread(data.mkdir)
            await asyncio.to_thread(shutil.copy, log, data / log.name)
            flags = ("--one-by-one",) if how == "one by one" else ()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "loadtest.bench", "--serve", str(data), *flags
            )
            stack.push_async_callback(_ended, process)
            urls = json.loads(await appears(data / "urls", process))
            watched = psutil.Process(process.pid)
            await _idle(watched)
            ways[how] = watched, urls["service"] + "/v1/stream"
            ways["echo (baseline)"] = watched, urls["echo"] + "/echo-stream"
        for turn in range(ROUNDS + 1):
            for what, (watched, url) in sorted(ways.items(), reverse=bool(turn % 2)):
                each = ECHOED if what.startswith("echo") else EACH
                us = await _cpu_us(watched, url, asked, each)
                if turn:  # the first one warms up
                    taken[what].append(us)
    rows: list[Row] = []
    for what, found in taken.items():
        low, middle, high = np.percentile(found, [25, 50, 75])
        rows.append({"stream": what, "CPU us p25": low, "p50": middle, "p75": high})
    alone = taken["one by one"]
    for row, found in zip(rows, taken.values(), strict=True):
        pairs = [one / other for one, other in zip(found, alone, strict=True)]
        row["x one by one"] = statistics.median(pairs)
    return rows


def learned_log(path: Path, past: int) -> None:
    """A log in which `past` queries were learned from."""
    log = SqliteLog(path)
    rng, arms = np.random.default_rng(1), specs()
    events: list[ev.AnyEvent] = [ev.ArmAdded(ts=1.0, arm=one, source="config") for one in arms]
    for vector in vectors(past):
        subject = ev.Subject(embedding=ev.pack(vector), tokens=25, willingness_to_pay=0.1)
        quality, arm = float(rng.random()), arms[int(rng.integers(ARMS))].id
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
    records = [
        Record(f"e-{i}", ev.kind(one), one.ts, ev.encode(one)) for i, one in enumerate(events)
    ]
    for start in range(0, len(records), 1000):
        log.append(records[start : start + 1000])
    log.close()


async def _ended(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    await process.wait()


async def _idle(process: psutil.Process) -> None:
    """Wait for what a service builds after its start."""
    quiet = 0
    while quiet < 4:
        before = _cpu_s(process)
        await asyncio.sleep(_LOOK_S)
        busy = (_cpu_s(process) - before) / _LOOK_S
        quiet = quiet + 1 if busy < _IDLE else 0


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _cpu_us(process: psutil.Process, url: str, asked: Sequence[bytes], each: int) -> float:
    """CPU time of the server per answer, `IN_FLIGHT` at a time on one connection."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(_HANDSHAKE.format(path=parts.path, host=parts.netloc).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101"), head
    frames = [_frame(body) for body in asked]
    begun, answered, sent = _cpu_s(process), -1, IN_FLIGHT  # the first one greets
    writer.write(b"".join(frames[:IN_FLIGHT]))
    kept = b""
    while answered < each:
        came = await reader.read(1 << 18)
        assert came, "the server closed the connection"
        count, kept = _answers(kept + came)
        answered += count
        more = min(answered + IN_FLIGHT, each) - sent
        if more > 0:
            writer.write(b"".join(frames[i % len(frames)] for i in range(sent, sent + more)))
            sent += more
    used = _cpu_s(process) - begun
    writer.close()
    return used / each * 1e6


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
