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
        self._waiting: dict[bytes, str] = {}
        self._in_flight: dict[bytes, asyncio.Future[Embedded]] = {}
        self._callers: dict[bytes, int] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._runner: asyncio.Task[None] | None = None
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

    async def embed_new(self, key: bytes, text: str) -> Embedded:
        """Of a text that is not in the cache; raises as `embed` does."""
        future = self._in_flight.get(key)
        if future is None:
            if self._closed or len(self._waiting) >= self._queue_limit:
                raise Overloaded(f"{len(self._waiting)} texts are waiting to be embedded")
            future = asyncio.get_running_loop().create_future()
            self._in_flight[key] = future
            self._waiting[key] = text
            if self._runner is None:
                self._runner = asyncio.create_task(self._run(), name="embed")
        self._callers[key] = self._callers.get(key, 0) + 1
        try:
            # shielded, so that one caller's leaving does not take the text from the others
            return await asyncio.shield(future)
        finally:
            self._leave(key)

    def _leave(self, key: bytes) -> None:
        """One caller fewer; a text that nobody waits for any more is not embedded."""
        self._callers[key] -= 1
        if not self._callers[key]:
            del self._callers[key]
            if self._waiting.pop(key, None) is not None:
                self._in_flight.pop(key).cancel()

    def clear(self) -> None:
        """Forget every embedding kept by its text's hash."""
        self._cache.clear()

    async def close(self) -> None:
        """Answer pending texts, then stop the thread."""
        self._closed = True
        if self._runner is not None:
            await self._runner
        self._thread.shutdown()

    async def _run(self) -> None:
        """Batches until nothing waits; the next text starts it again, also if this one fails."""
        try:
            await self._run_batches()
        except BaseException as error:
            failed = error if isinstance(error, Exception) else RuntimeError("the stage was ended")
            for future in self._in_flight.values():
                self._fail(future, failed)
            self._in_flight.clear()
            self._waiting.clear()
            raise
        finally:
            self._runner = None

    async def _run_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            if self._wait_s and len(self._waiting) < self._batch_size:
                await asyncio.sleep(self._wait_s)
            batch = self._take()
            if not batch:  # the caller has left
                continue
            begun = time.perf_counter()
            try:
                encoded = loop.run_in_executor(
                    self._thread, self._backend.encode, list(batch.values())
                )
                surfaces = [surface(text) for text in batch.values()]  # while the model runs
                vectors = await encoded
                if vectors.shape != (len(batch), self.dim):
                    raise ValueError(
                        f"backend {self._backend.name} answered {len(batch)} texts with an array "
                        f"of shape {vectors.shape}, not {(len(batch), self.dim)}"
                    )
                if self._on_batch is not None:
                    self._on_batch(len(batch), time.perf_counter() - begun)
            except Exception as error:  # noqa: BLE001 - it belongs to whoever asked for this batch
                for key in batch:
                    self._fail(self._in_flight.pop(key), error)
                continue
            for key, vector, of_surface in zip(batch, vectors, surfaces, strict=True):
                kept = self._keep(key, vector, of_surface)
                future = self._in_flight.pop(key)
                if not future.done():
                    future.set_result(kept)

    def _take(self) -> dict[bytes, str]:
        """The next batch: what waits longest, in order of length so that like goes with like."""
        first = list(self._waiting.items())[: self._batch_size]
        for key, _ in first:
            del self._waiting[key]
        return dict(sorted(first, key=lambda item: len(item[1])))

    def _keep(self, key: bytes, row: Vector, of_surface: bytes) -> Embedded:
        vector = row.copy()  # a view would keep its whole batch in memory
        vector.flags.writeable = False
        embedded = Embedded(vector, of_surface)
        if self._cache_size:
            self._cache[key] = embedded
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return embedded

    @staticmethod
    def _fail(future: asyncio.Future[Embedded], error: Exception) -> None:
        if not future.done():
            future.set_exception(error)
            with suppress(Exception):
                future.exception()  # waiting callers get the error; without any it is not a warning


def key_of(text: str) -> bytes:
    """A hash that identifies a text without revealing it."""
    return blake2b(text.encode(), digest_size=16).digest()
