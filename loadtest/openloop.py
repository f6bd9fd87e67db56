"""Load that does not wait for its answers: requests leave when they are due.

A generator that waits for each answer before it sends the next one slows down together with the
service, and so never overloads it nor sees the delay of what it did not send. Here the arrivals are
a Poisson process that is drawn beforehand, each request takes a free connection or a new one, and
its latency counts from the moment at which it was due.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

DIM = 384
_ID = b'"decision_id":"'
_ID_LENGTH = 36


@dataclass(slots=True)
class Sample:
    """One request: what it was, when it was due, how long until its answer; 0: none came."""

    kind: str
    due: float
    seconds: float = 0.0
    status: int = 0
    retry_after: str = ""
    decision_id: str = ""


@dataclass(slots=True)
class Ledger:
    """What was acknowledged, and what is in doubt because its answer never came."""

    waiting: deque[str] = field(default_factory=deque)
    acknowledged: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way; reads as much as it must."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._buffer = b""
        self._answered: asyncio.Future[tuple[bytes, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop's
        """Called by the loop; whoever waits learns that no answer comes."""
        self.transport = None
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionError("the connection ended"))

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or self._answered is None:
            return
        length = int(header(head, b"content-length") or b"0")
        if len(body) >= length and not self._answered.done():
            self._buffer = b""
            self._answered.set_result((head, body))

    async def request(self, raw: bytes) -> tuple[bytes, bytes]:
        """Head and body of the answer. ConnectionError when none comes."""
        if self.transport is None:
            raise ConnectionError("the connection ended")
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(raw)
        return await self._answered


def header(head: bytes, name: bytes) -> bytes:
    """The value of one header, empty where it is not there."""
    at = head.lower().find(b"\r\n" + name + b":")
    return head[at + len(name) + 3 :].split(b"\r\n", 1)[0].strip() if at >= 0 else b""


class Pool:
    """Connections to one service, as many as are needed and at most `most`."""

    def __init__(self, host: str, port: int, most: int) -> None:
        self._host, self._port = host, port
        self._free: deque[Connection] = deque()
        self._slots = asyncio.Semaphore(most)

    async def request(self, raw: bytes) -> tuple[bytes, bytes]:
        """One request on a free connection, or on a new one."""
        async with self._slots:
            connection = self._free.pop() if self._free else await self._connect()
            if connection.transport is None:  # the service closed it while nobody used it
                connection = await self._connect()
            answer = await connection.request(raw)
            self._free.append(connection)
            return answer

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(Connection, self._host, self._port)
        return made

    def close(self) -> None:
        """Close all that are free."""
        for connection in self._free:
            if connection.transport is not None:
                connection.transport.close()
        self._free.clear()


class Traffic:
    """Decides with an embedding, built beforehand, and a reward for every second decision.

    A reward that is refused is sent again later. A `text` traffic sends queries that the service
    embeds itself, each of them another.
    """

    def __init__(self, host: str, port: int, rewards: float = 0.5, text: bool = False) -> None:
        rng = np.random.default_rng(7)
        vectors = rng.normal(size=(256, DIM))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self._host = f"{host}:{port}".encode()
        self._decides = [
            self._http("/v1/decide", {"embedding": [round(float(x), 4) for x in row]})
            for row in vectors
        ]
        self._rng, self._rewards, self._text, self._asked = rng, rewards, text, 0
        self.ledger = Ledger()

    def next(self) -> tuple[str, str, bytes]:
        """Kind, decision id of a reward, and the request's bytes."""
        waiting = self.ledger.waiting
        if waiting and self._rng.random() < 0.5:
            id = waiting.popleft()
            return "reward", id, self._http("/v1/rewards", {"decision_id": id, "quality": 0.5})
        self._asked += 1
        if self._text:
            query = (
                f"Question {self._asked}: what is {self._asked} times {self._asked % 97}, and why?"
            )
            return "decide", "", self._http("/v1/decide", {"query": query})
        return "decide", "", self._decides[self._asked % len(self._decides)]

    def _http(self, path: str, body: Any) -> bytes:
        raw = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: ".encode() + self._host
        return head + f"\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw

    async def send(self, pool: Pool, due: float) -> Sample:
        """One request from now on; its latency counts from `due`, perf_counter seconds."""
        kind, id, raw = self.next()
        sample = Sample(kind, due, decision_id=id)
        try:
            head, body = await pool.request(raw)
        except OSError:
            if kind == "reward":
                self.ledger.doubtful.append(id)
            return sample
        sample.seconds = time.perf_counter() - due
        sample.status = int(head[9:12])
        if sample.status == 200:
            self._answered(sample, body)
        else:
            sample.retry_after = header(head, b"retry-after").decode()
            if kind == "reward":
                self.ledger.waiting.append(id)  # refused, so it is not there: send it later
        return sample

    def _answered(self, sample: Sample, body: bytes) -> None:
        if sample.kind == "reward":
            self.ledger.acknowledged.append(sample.decision_id)
            return
        at = body.find(_ID) + len(_ID)
        sample.decision_id = body[at : at + _ID_LENGTH].decode()
        if self._rng.random() < self._rewards:
            self.ledger.waiting.append(sample.decision_id)


async def open_loop(
    traffic: Traffic,
    pool: Pool,
    rate: float,
    seconds: float,
    seed: int = 0,
    watch: Callable[[Sample], None] | None = None,
) -> list[Sample]:
    """Poisson arrivals of `rate` a second; the samples of all, those without an answer too."""
    rng = np.random.default_rng(seed)
    dues = np.cumsum(rng.exponential(1.0 / rate, size=int(rate * seconds * 1.2) + 10))
    begun = time.perf_counter()
    tasks: set[asyncio.Task[Sample]] = set()
    samples: list[Sample] = []

    def done(task: asyncio.Task[Sample]) -> None:
        tasks.discard(task)
        if not task.cancelled():
            samples.append(task.result())
            if watch is not None:
                watch(task.result())

    for due in dues[dues < seconds].tolist():
        # 0 where this is late: answers are read in between, however slow the machine is
        await asyncio.sleep(max(0.0, begun + due - time.perf_counter()))
        task = asyncio.create_task(traffic.send(pool, begun + due))
        tasks.add(task)
        task.add_done_callback(done)
    if tasks:
        await asyncio.wait(tasks, timeout=30.0)
    return samples


async def closed_loop(traffic: Traffic, pool: Pool, workers: int, seconds: float) -> list[Sample]:
    """Each worker sends when its answer has come: what the service does when it is kept busy."""
    samples: list[Sample] = []
    end = time.perf_counter() + seconds

    async def work() -> None:
        while time.perf_counter() < end:
            samples.append(await traffic.send(pool, time.perf_counter()))

    await asyncio.gather(*(work() for _ in range(workers)))
    return samples
