"""Rewards that are sent in the background: bounded, in lists, and none lost without a word.

Any thread adds to the queue; one task on the clients' own loop sends its head as a list, and goes
on with the same until the service took each or refused it for good. So what is queued survives a
service that is away for a while, and a queue that is full says so to who adds.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from bandit_client import _calls
from bandit_client._http import Transport
from bandit_client._retry import Retries, may_again
from bandit_client._thread import LoopThread
from bandit_client.answers.decisions import Result
from bandit_client.errors import (
    BadAnswer,
    BanditError,
    Lost,
    QueueFull,
    ServiceError,
    Undelivered,
    told,
)

_log = logging.getLogger("bandit_client")
_MAX_LISTED = 1_000
"""So many lost rewards are listed for the next flush; all are counted, and told to the callback."""
_HURRIED_S = 0.25
"""The longest pause between attempts while somebody waits for the queue to empty."""
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Batching:
    """How rewards are sent in the background.

    queue: most rewards that wait. batch: most that are sent in one list. every_s: how long a reward
    waits for others. wait_s: how long adding one waits for room in a full queue; then QueueFull.
    exit_s: how long the end of the process waits for the queue to empty.
    """

    queue: int = 10_000
    batch: int = 200
    every_s: float = 0.2
    wait_s: float = 1.0
    exit_s: float = 10.0

    def __post_init__(self) -> None:
        for name, least in (("queue", 1), ("batch", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: must be {least} or more, got {getattr(self, name)}")
        for name in ("every_s", "wait_s", "exit_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: must be seconds from 0 up, got {getattr(self, name)}")


BATCHING = Batching()
"""The defaults."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What happened to the background rewards so far.

    waiting: still to be sent. delivered: in the service's log. lost: refused, or given up; the
    next `flush` or `close` raises Undelivered for those not reported before.
    """

    waiting: int = 0
    delivered: int = 0
    lost: int = 0


class Outbox:
    """The queue of one client, and the task that sends it."""

    def __init__(
        self,
        thread: LoopThread,
        transport: Transport,
        batching: Batching,
        on_undelivered: Callable[[Sequence[Lost]], None] | None = None,
    ) -> None:
        self._thread, self._transport, self._batching = thread, transport, batching
        self._tell = on_undelivered
        # a list is sent for ever, and each time by an attempt of its own
        self._retries = Retries(1, transport.retries.first_s, transport.retries.max_s)
        self._changed = threading.Condition()
        self._queue: deque[tuple[int, dict[str, Any]]] = deque()
        self._added = self._delivered = self._lost = 0
        self._untold: deque[Lost] = deque(maxlen=_MAX_LISTED)
        self._untold_count = 0
        self._hurry = self._closed = False
        self._wake = asyncio.Event()
        self._task = thread.start(self._work())

    @property
    def delivery(self) -> Delivery:
        """What became of all so far."""
        with self._changed:
            return Delivery(len(self._queue), self._delivered, self._lost)

    def add(self, reward: dict[str, Any], wait_s: float | None = None) -> None:
        """Queue one; QueueFull if there is no room within the wait."""
        _calls.encoded(reward)  # what cannot be sent is told to who adds it
        wait_s = self._batching.wait_s if wait_s is None else wait_s
        with self._changed:
            room = self._changed.wait_for(
                lambda: self._closed or len(self._queue) < self._batching.queue, wait_s
            )
            if self._closed:
                raise RuntimeError("the client is closed")
            if not room:
                raise QueueFull(
                    f"queue: {len(self._queue)} rewards wait already, as many as may; "
                    "send fewer, or reward without the queue"
                )
            self._added += 1
            self._queue.append((self._added, reward))
        self._thread.loop.call_soon_threadsafe(self._wake.set)

    def flush(self, timeout_s: float) -> None:
        """Wait until all rewards added so far are delivered or lost; Undelivered lists the lost."""
        with self._changed:
            last, self._hurry = self._added, True
            self._thread.loop.call_soon_threadsafe(self._wake.set)
            done = self._changed.wait_for(lambda: self._first() > last, timeout_s)
            self._hurry = False
            waiting = 0 if done else sum(number <= last for number, _ in self._queue)
            self._raise_untold(waiting)

    def close(self, timeout_s: float) -> None:
        """Flush and stop; undelivered rewards are lost and reported. May be called again."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._hurry = True
            self._changed.notify_all()
            self._thread.loop.call_soon_threadsafe(self._wake.set)
            self._changed.wait_for(lambda: not self._queue, timeout_s)
        self._thread.run(self._stop())
        with self._changed:
            self._raise_untold(0)

    def _first(self) -> int:
        return self._queue[0][0] if self._queue else self._added + 1

    def _raise_untold(self, waiting: int) -> None:
        lost, count = tuple(self._untold), self._untold_count
        self._untold.clear()
        self._untold_count = 0
        if count or waiting:
            raise Undelivered(lost, count, waiting)

    # --- on the loop ---------------------------------------------------------------------------
    async def _stop(self) -> None:
        """End the task; what is still queued is lost."""
        self._task.cancel()
        with self._changed:
            left = [reward for _, reward in self._queue]
        if left:
            error = BanditError("the client was closed before the service had confirmed it")
            await self._settle([(reward, error) for reward in left])

    async def _work(self) -> None:
        failures = 0
        most = self._batching.batch
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                if not self._hurry and len(self._queue) < self._batching.batch:
                    await self._gathered()
                with self._changed:
                    head = [reward for _, reward in islice(self._queue, most)]
                error = await self._deliver(head)
                if error is None:
                    failures, most = 0, self._batching.batch
                elif error.code == "too_large" and len(head) > 1:
                    most = (len(head) + 1) // 2
                else:
                    failures += 1
                    wait_s = self._retries.wait_s(failures, error.cause)
                    if failures == 1:
                        _log.warning("rewards wait, the service does not take them: %s", error)
                    await self._pause(wait_s, error.cause)

    async def _pause(self, wait_s: float, error: BanditError) -> None:
        """Wait before the next attempt; only as long as must be where somebody waits for it."""
        said = error.retry_after_s if isinstance(error, ServiceError) else None
        begun, least = time.monotonic(), _HURRIED_S if said is None else said
        while (passed := time.monotonic() - begun) < wait_s:
            if self._hurry and passed >= least:
                return
            await asyncio.sleep(min(_LOOK_S, wait_s - passed))

    async def _gathered(self) -> None:
        """Wait for others to send with it, unless somebody waits for it."""
        until = time.monotonic() + self._batching.every_s
        while not self._hurry and len(self._queue) < self._batching.batch:
            try:
                async with asyncio.timeout_at(
                    asyncio.get_running_loop().time() + until - time.monotonic()
                ):
                    await self._wake.wait()
            except TimeoutError:
                return
            self._wake.clear()

    async def _deliver(self, head: list[dict[str, Any]]) -> _Again | None:
        """Send the head of the queue once. None: each was taken, or refused for good."""
        call = _calls.rewards(head)
        try:
            results = await self._transport.once(
                call, msgspec.json.encode(call.body), self._transport.timeout_s
            )
        except BanditError as error:
            if may_again(error, harmless=True):
                return _Again(error)
            if isinstance(error, ServiceError) and error.code == "too_large" and len(head) > 1:
                return _Again(error, error.code)
            await self._settle([(reward, error) for reward in head])
            return None
        except Exception as error:  # noqa: BLE001 - such as no more files: the queue outlives it
            return _Again(BanditError(f"{type(error).__name__}: {error}"))
        if len(results) != len(head):
            bad = BadAnswer(f"{len(results)} results for {len(head)} rewards")
            await self._settle([(reward, bad) for reward in head])
            return None
        return await self._sorted(head, results)

    async def _sorted(self, head: list[dict[str, Any]], results: list[Result]) -> _Again | None:
        """Drop from the queue what is done; what may be taken later stays, in its order."""
        again: BanditError | None = None
        done: list[tuple[dict[str, Any], BanditError | None]] = []
        for reward, result in zip(head, results, strict=True):
            error = None if result.error is None else told(msgspec.to_builtins(result.error))
            if error is not None and may_again(error, harmless=True):
                again = error
            else:
                done.append((reward, error))
        await self._settle(done)
        return None if again is None else _Again(again)

    async def _settle(self, done: Sequence[tuple[dict[str, Any], BanditError | None]]) -> None:
        """Take these from the queue: delivered where there is no error, otherwise lost."""
        whys = {id(reward): error for reward, error in done}
        lost: list[Lost] = []
        with self._changed:
            kept = []
            while whys and self._queue:
                number, reward = self._queue.popleft()
                if id(reward) not in whys:
                    kept.append((number, reward))
                elif (why := whys.pop(id(reward))) is not None:
                    lost.append(Lost(reward, why))
                else:
                    self._delivered += 1
            self._queue.extendleft(reversed(kept))
            self._lost += len(lost)
            self._untold.extend(lost)
            self._untold_count += len(lost)
            self._changed.notify_all()
        if lost:
            _log.error("%d rewards were not delivered: %s", len(lost), lost[0].error)
        if lost and self._tell is not None:
            try:
                await asyncio.to_thread(self._tell, lost)
            except Exception:  # noqa: BLE001 - it is the user's
                _log.exception("on_undelivered failed")


@dataclass(frozen=True, slots=True)
class _Again:
    """Why the head of the queue is to be sent again."""

    cause: BanditError
    code: str = ""

    def __str__(self) -> str:
        return str(self.cause)
