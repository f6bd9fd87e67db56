"""Reads a stream in order, by an ephemeral push consumer.

Nothing is acknowledged. The reader checks the numbers of the messages. It starts again if one is
missing, or if nothing came for longer than the server's heartbeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from store._jetstream_record import BATCH, COMMIT, MESSAGE_ID, Message, eid_of, unpack
from store._nats_wire import Refused, Wire
from store._shared import Unsure
from store.errors import Corrupt

BEAT_S = 0.5
_QUIET_S = 3 * BEAT_S
_ENOUGH = 4096
"""The maximum number of messages that wait here before the server may send more."""


BodyOf = Callable[[bytes], Awaitable[bytes]]
GoneOf = Callable[[int], Awaitable[Message | None]]


class Broken(Exception):
    """This consumer must be created again."""


class Consumer:
    """One consumer.

    `waiting` has the received messages: offset, headers, payload and nanoseconds. left: how many
    more the server had at the newest one.
    """

    def __init__(self, wire: Wire, stream: str) -> None:
        self._wire, self._stream = wire, stream
        self._subscription: Any = None
        self.waiting: deque[tuple[int, dict[str, str], bytes, int]] = deque()
        self.came = asyncio.Event()
        self.left = 0
        self._number = 0
        self._stalled = ""
        self._missing = False
        self._heard = 0.0

    async def start(self, **config: Any) -> None:
        """Create it; `config` says where it begins."""
        raw = self._wire.raw
        inbox = raw.new_inbox()
        self._heard = asyncio.get_running_loop().time()
        self._subscription = await raw.subscribe(inbox, cb=self._take)
        name = f"bandit_{secrets.token_hex(8)}"
        wanted = {
            "name": name,
            "deliver_subject": inbox,
            "ack_policy": "none",
            "max_deliver": 1,
            "flow_control": True,
            "idle_heartbeat": int(BEAT_S * 1e9),
            "inactive_threshold": 5 * 10**9,
            "mem_storage": True,
            "num_replicas": 1,
            **config,
        }
        try:
            made = await self._wire.ask_again(
                f"CONSUMER.CREATE.{self._stream}.{name}",
                stream_name=self._stream,
                config=wanted,
                action="create",
            )
        except Refused as error:
            await self.stop()
            raise Unsure(f"JetStream cannot read the stream {self._stream}: {error}") from None
        if not self._number:  # if the answer was lost, some may be on their way
            sent = made.get("delivered", {}).get("consumer_seq", 0)
            self.left = int(made.get("num_pending", 0)) + int(sent)

    async def stop(self) -> None:
        """End it; the server deletes it."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()

    def check(self) -> None:
        """Raise Broken if the consumer has failed."""
        quiet = asyncio.get_running_loop().time() - self._heard > _QUIET_S
        if self._missing or (quiet and not self.waiting) or self._wire.closed.is_set():
            raise Broken

    async def take(self) -> tuple[int, dict[str, str], bytes, int]:
        """The next received message."""
        one = self.waiting.popleft()
        if self._stalled and len(self.waiting) < _ENOUGH // 2:
            subject, self._stalled = self._stalled, ""
            await self._wire.publish(subject, b"", {})
        return one

    async def wait(self, seconds: float) -> bool:
        """Whether a message is here within this time."""
        if not self.waiting:
            self.came.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.came.wait()
        return bool(self.waiting)

    async def _take(self, message: Any) -> None:
        self._heard = asyncio.get_running_loop().time()
        headers = message.headers or {}
        if "Status" in headers:
            stalled = message.reply or headers.get("Nats-Consumer-Stalled", "")
            if stalled and len(self.waiting) < _ENOUGH:
                await self._wire.publish(stalled, b"", {})
            elif stalled:
                self._stalled = stalled
            elif headers["Status"] != "100":
                self._missing = True
                self.came.set()
            return
        # $JS.ACK.<stream>.<consumer>.<delivered>.<offset>.<number>.<ns>.<left>, newer servers may
        # put a domain and an account before the stream, and one more token at the end
        tokens = message.reply.split(".")
        first = 4 if len(tokens) == 9 else 6
        offset, number, ns, left = (int(each) for each in tokens[first + 1 : first + 5])
        if number != self._number + 1:
            self._missing = True
        self._number = number
        if not self._missing:
            self.left = left
            self.waiting.append((offset, headers, message.data, ns))
        self.came.set()


def _ends(headers: dict[str, str]) -> bool:
    return BATCH not in headers or COMMIT in headers


class Tail:
    """Reads a whole stream from some offset on.

    body_of: returns bodies that are not in their messages. gone: returns what is left of a message
    that was erased; None if it was not.
    """

    def __init__(self, wire: Wire, stream: str, body_of: BodyOf, gone: GoneOf) -> None:
        self._wire, self._stream, self._body_of, self._gone = wire, stream, body_of, gone
        self._consumer: Consumer | None = None
        self._at = 0
        self._part: list[Message] = []

    async def next(self, after: int, most: int, wait_s: float) -> list[Message]:
        """Whole appends after this offset that come within this time, not many more than `most`
        messages.
        """
        consumer = await self._from(after)
        found: list[Message] = []
        if not await consumer.wait(wait_s):
            return []
        ended = 0
        part, self._part = self._part, []
        found += part
        while consumer.waiting and (ended == 0 or len(found) < most):
            offset, headers, payload, ns = await consumer.take()
            for missing in range(self._at + 1, offset):
                erased = await self._gone(missing)
                if erased is None:
                    raise Corrupt(missing, "it is missing in the stream")
                found.append(erased)
                ended = len(found) if erased.ends else ended
            message = unpack(offset, payload, ns, _ends(headers))
            if message.held:
                message = message.with_body(await self._body_of(message.held))
            self._at = offset
            found.append(message)
            if found[-1].ends:
                ended = len(found)
        self._part = found[ended:]
        return found[:ended]

    async def erased(self) -> list[Message]:
        """The appends that end with erased messages, of which the server pushes nothing, if nothing
        follows them.
        """
        found, ended = list(self._part), 0
        while (gone := await self._gone(self._at + 1)) is not None:
            self._at += 1
            found.append(gone)
            ended = len(found) if gone.ends else ended
        self._part = found[ended:]
        return found[:ended]

    async def drop(self) -> None:
        """Start again the next time."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def _from(self, after: int) -> Consumer:
        first = int(self._part[0].offset) - 1 if self._part else self._at
        if self._consumer is not None and first == after:
            try:
                self._consumer.check()
                return self._consumer
            except Broken:
                pass
        await self.drop()
        self._part, self._at = [], after
        consumer = Consumer(self._wire, self._stream)
        await consumer.start(deliver_policy="by_start_sequence", opt_start_seq=after + 1)
        self._consumer = consumer
        return consumer


async def owned(
    wire: Wire, stream: str, owners: Sequence[str], upto: int
) -> AsyncIterator[Message]:
    """The messages of these owners' records up to an offset; all up to there are read."""
    wanted = set(owners)
    async with contextlib.aclosing(_all(wire, stream, deliver_policy="all")) as messages:
        async for offset, headers, payload, ns in messages:
            if offset > upto:
                return
            message = unpack(offset, payload, ns, _ends(headers))
            if message.record.owner in wanted and (message.record.body or message.held):
                yield message


async def ids_of(
    wire: Wire, stream: str, subjects: Sequence[str], *, after: int = 0, since: float | None = None
) -> AsyncIterator[tuple[str, int]]:
    """The ids and offsets of all records of these subjects after an offset, or from a time on."""
    where: dict[str, Any] = {"deliver_policy": "by_start_sequence", "opt_start_seq": after + 1}
    if since is not None:
        begun = datetime.fromtimestamp(max(0.0, since), UTC).isoformat().replace("+00:00", "Z")
        where = {"deliver_policy": "by_start_time", "opt_start_time": begun}
    where |= {"headers_only": True, "filter_subjects": list(subjects)}
    async with contextlib.aclosing(_all(wire, stream, **where)) as messages:
        async for offset, headers, _, _ in messages:
            yield eid_of(headers[MESSAGE_ID]), offset


async def _all(
    wire: Wire, stream: str, **where: Any
) -> AsyncGenerator[tuple[int, dict[str, str], bytes, int], None]:
    """Each message from there to the end of the stream. Raises Unsure where it does not come."""
    consumer = Consumer(wire, stream)
    await consumer.start(**where)
    try:
        while consumer.left or consumer.waiting:
            if not await consumer.wait(_QUIET_S):
                raise Unsure(f"the stream {stream} was not read to its end")
            yield await consumer.take()
            try:
                consumer.check()
            except Broken:
                raise Unsure(f"the stream {stream} was not read to its end") from None
    finally:
        await consumer.stop()
