"""The embedding stage: micro-batches on a thread of their own, with a cache by text hash."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from bandit_service.embedding.backends import Backend, Matrix
from bandit_service.embedding.surface import surface
from policies import Vector

Batch = dict[bytes, str]
"""Texts by their keys."""


class Overloaded(Exception):
    """More texts are waiting to be embedded than are allowed."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """A text's embedding, (dim,) of unit norm, and its surface."""

    vector: Vector
    surface: bytes


class EmbeddingStage:
    """Embeds texts off the event loop. Make one inside the running loop; `close` it at the end.

    While the model runs, new texts gather for the next batch, shortest first, at most `batch_size`
    at once. A single text never waits, unless `wait_s` is set. The same text in flight twice is
    embedded once; the cache is keyed by a hash, never by the text.

    Callbacks of the loop hand batches over and take them back: after the model the caches are cold,
    and a task and the executor's futures in between take longer than what they do.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        batch_size: int = 16,
        wait_s: float = 0.0,
        cache_size: int = 10_000,
        queue_limit: int = 1024,
        on_batch: Callable[[int, float], None] | None = None,
        on_cache: Callable[[str], None] | None = None,
    ) -> None:
        self.dim = backend.dim
        self._backend = backend
        self._batch_size, self._wait_s = batch_size, wait_s
        self._cache_size, self._queue_limit = cache_size, queue_limit
        self._on_batch, self._on_cache = on_batch, on_cache
        self._cache: OrderedDict[bytes, Embedded] = OrderedDict()
        self._waiting: Batch = {}
        self._callers: dict[bytes, list[asyncio.Future[Embedded]]] = {}
        """Who waits for each text, whether it waits too or is with the model."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    @property
    def waiting(self) -> int:
        """Texts that wait for the model."""
        return len(self._waiting)

    async def embed(self, texts: Sequence[str]) -> Matrix:
        """(n, dim); raises Overloaded, or what the backend raised for these texts' batch."""
        return np.stack(await asyncio.gather(*(self.embed_one(text) for text in texts)))

    async def embed_one(self, text: str) -> Vector:
        """(dim,) of unit norm."""
        key = key_of(text)
        return (self.kept(key) or await self.embed_new(key, text)).vector

    def kept(self, key: bytes) -> Embedded | None:
        """What is in the cache for the text of this key; counted as a hit or a miss."""
        cached = self._cache.get(key)
        if cached is not None:
            self._cache.move_to_end(key)
        if self._on_cache is not None:
            self._on_cache("miss" if cached is None else "hit")
        return cached

    async def embed_new(self, key: bytes, text: str, timeout_s: float | None = None) -> Embedded:
        """Of a text that is not in the cache; raises as `embed` does, and TimeoutError."""
        loop = asyncio.get_running_loop()
        callers = self._callers.get(key)
        if callers is None:
            if self._closed or len(self._waiting) >= self._queue_limit:
                raise Overloaded(f"{len(self._waiting)} texts are waiting to be embedded")
            callers = self._callers[key] = []
            self._waiting[key] = text
            if self._idle.is_set():
                self._idle.clear()
                loop.call_soon(self._next)  # with the other texts of this turn
        future: asyncio.Future[Embedded] = loop.create_future()
        callers.append(future)
        timer = None if timeout_s is None else loop.call_later(timeout_s, _too_late, future)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            callers.remove(future)
            if not callers and self._callers.get(key) is callers and key in self._waiting:
                del self._waiting[key], self._callers[key]  # nobody waits for it any more

    def clear(self) -> None:
        """Forget every embedding kept by its text's hash."""
        self._cache.clear()

    async def close(self) -> None:
        """Answer pending texts, then stop the thread."""
        self._closed = True
        await self._idle.wait()
        self._thread.shutdown()

    def _next(self) -> None:
        """Begin with what waits, now or when more may have come."""
        if self._wait_s and 0 < len(self._waiting) < self._batch_size:
            asyncio.get_running_loop().call_later(self._wait_s, self._hand_over)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        """Give the next batch to the thread; `_take_back` gets what it answers."""
        batch = self._take()
        if not batch:  # the callers have left, or all is done
            self._idle.set()
            return
        surfaces: list[bytes] = []
        loop, begun = asyncio.get_running_loop(), time.perf_counter()

        def run() -> None:
            answer: list[Vector] | Exception
            try:
                answer = self._encoded(list(batch.values()))
            except BaseException as error:  # noqa: BLE001 - it belongs to this batch's callers
                answer = error if isinstance(error, Exception) else RuntimeError(repr(error))
            with suppress(RuntimeError):  # the loop was closed, and nobody waits any more
                loop.call_soon_threadsafe(self._take_back, batch, surfaces, answer, begun)

        try:
            self._thread.submit(run)
        except RuntimeError as error:  # the system has no thread for it
            self._take_back(batch, surfaces, error, begun)
            return
        surfaces += [surface(text) for text in batch.values()]  # while the thread wakes

    def _encoded(self, texts: list[str]) -> list[Vector]:
        """On the thread: the embedding of each. Raises what the backend does."""
        answer = self._backend.encode(texts)
        if answer.shape != (len(texts), self.dim):
            raise ValueError(
                f"backend {self._backend.name} answered {len(texts)} texts with an array of shape "
                f"{answer.shape}, not {(len(texts), self.dim)}"
            )
        vectors = [row.copy() for row in answer]  # a view would keep its whole batch in memory
        for vector in vectors:
            vector.flags.writeable = False
        return vectors

    def _take_back(
        self, batch: Batch, surfaces: list[bytes], answer: list[Vector] | Exception, begun: float
    ) -> None:
        """Tell the callers of a batch, and begin the next one."""
        try:
            if isinstance(answer, Exception):
                raise answer
            if self._on_batch is not None:
                self._on_batch(len(batch), time.perf_counter() - begun)
            for key, vector, of_surface in zip(batch, answer, surfaces, strict=True):
                self._tell(key, Embedded(vector, of_surface))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever asked for this batch
            for key in batch:
                for future in self._callers.pop(key, ()):
                    _fail(future, error)
        self._next()

    def _tell(self, key: bytes, embedded: Embedded) -> None:
        if self._cache_size:
            self._cache[key] = embedded
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        for future in self._callers.pop(key, ()):
            if not future.done():
                future.set_result(embedded)

    def _take(self) -> Batch:
        """The next batch: what waits longest, in order of length so that like goes with like."""
        first = list(self._waiting.items())[: self._batch_size]
        for key, _ in first:
            del self._waiting[key]
        return dict(sorted(first, key=lambda item: len(item[1])))


def _fail(future: asyncio.Future[Embedded], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # its caller gets the error; where that one has left it is no warning


def _too_late(future: asyncio.Future[Embedded]) -> None:
    _fail(future, TimeoutError())


def key_of(text: str) -> bytes:
    """A hash that identifies a text without revealing it."""
    return blake2b(text.encode(), digest_size=16).digest()
