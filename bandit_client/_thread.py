"""An event loop in a thread of its own, and what is to be done before the interpreter ends."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import concurrent.futures.thread  # registers its own end, which is to come after ours
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_log = logging.getLogger("bandit_client")


class LoopThread:
    """An event loop that runs in a daemon thread; code without a loop hands coroutines to it."""

    def __init__(self, name: str = "bandit-client") -> None:
        self.loop = asyncio.new_event_loop()
        self.pid = os.getpid()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Begin it there."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Its result; interrupted, it is cancelled. RuntimeError from within the thread itself."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("this would wait for itself: hand it to another thread")
        future = self.start(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def end(self) -> None:
        """Stop the loop and wait for the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        with contextlib.suppress(RuntimeError):  # where the thread hangs
            self.loop.close()


_lock = threading.Lock()
_shared: LoopThread | None = None


def shared() -> LoopThread:
    """The one thread for all clients of this process; a forked process gets its own."""
    global _shared
    with _lock:
        if _shared is None or _shared.pid != os.getpid():
            _shared = LoopThread()
        return _shared


_at_exit: dict[object, tuple[int, Callable[[], None]]] = {}
_registered = False


def before_exit(key: object, end: Callable[[], None]) -> None:
    """Call `end` before the interpreter ends, the last registered first; only in this process."""
    global _registered
    with _lock:
        _at_exit[key] = (os.getpid(), end)
        if not _registered:
            _registered = True
            # Functions of `atexit` run when no executor of threads takes work any more, which
            # asyncio needs to look up a host's name or to write a file. This hook, which the
            # executors themselves use, runs before.
            register: Callable[..., Any] = getattr(threading, "_register_atexit", atexit.register)
            register(_end_all)


def not_before_exit(key: object) -> None:
    """It has ended already."""
    with _lock:
        _at_exit.pop(key, None)


def _end_all() -> None:
    while _at_exit:
        _, (pid, end) = _at_exit.popitem()
        if pid != os.getpid():
            continue
        try:
            end()
        except Exception:  # noqa: BLE001 - the others are to end as well
            _log.exception("at the end of the process")
