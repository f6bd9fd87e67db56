"""The service of a process, from its start until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from tqdm import tqdm

from bandit_service.app import pools, service
from bandit_service.core.world import World
from bandit_service.embedding import Backend
from bandit_service.http import middleware
from bandit_service.settings import Settings

_MIN_END_S = 2.0
_log = logging.getLogger("bandit.cli")

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_NOT_USED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
"""Sent to open files anew; by default they end the process at once."""


async def until_stopped(
    chosen: Settings, model: Future[Backend] | None, ready: Callable[[str, World], None]
) -> int:
    """Serve until a signal ends it; 0 then, 1 where the log broke.

    model: the one that is being loaded for it. ready: is told the address once it is listening, and
    the world.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGHUP, *_NOT_USED):
        signal.signal(number, signal.SIG_IGN)  # a terminal that is closed ends no service
    signal.signal(signal.SIGTERM, _end)  # while it recovers there is nothing to drain
    why = ""
    bar: tqdm[Any] = tqdm(desc="recovering", unit=" events", disable=None, leave=False)

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    async with service.serving(chosen, progress, model) as (url, running):
        bar.close()
        for number in _ENDING:
            loop.add_signal_handler(number, stop.set)
        reloads: set[asyncio.Task[bool]] = set()

        def reload() -> None:
            task = loop.create_task(pools.reload(running))
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, reload)
        for number in _NOT_USED:
            what = f"{number.name}: does nothing; SIGHUP reads the configuration again"
            loop.add_signal_handler(number, _log.warning, what)
        ready(url, running[middleware.ROUTER].world)
        stopping = asyncio.ensure_future(stop.wait())
        broken = running[middleware.ROUTER].writer.broken
        await asyncio.wait((stopping, broken), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if broken.done():
            why = broken.result()
        for number in _ENDING:
            loop.remove_signal_handler(number)
            signal.signal(number, _end)  # a second one ends the process at once
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _end_after(chosen.server.drain_s + chosen.server.shutdown_s)
    if why:
        print(f"bandit-service: {why}", file=sys.stderr)
    return int(bool(why))


def _end_after(seconds: float) -> None:
    """End the process then, whatever it does: acknowledged events are in the log. Only the last
    snapshot may be lost, and then the next start applies a few more events.
    """
    timer = threading.Timer(max(seconds, _MIN_END_S), _late)
    timer.daemon = True
    timer.start()


def _late() -> None:
    _log.warning("server.shutdown_s is over: ended without the rest, such as the last snapshot")
    os._exit(0)


def _end(number: int, _: object) -> None:
    """End at once, as by kill -9: acknowledged events are in the log."""
    os._exit(128 + number)
