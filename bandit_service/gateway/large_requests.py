"""Work on a large request, in threads of its own, so that other clients are answered meanwhile.

A thread shares the interpreter with the event loop; `app/service.py` makes their turns short. Only
the decoding takes no turns, so the number of parts of a body has a limit
(`gateway.max_body_parts`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
LARGE = 4_000
"""A request of more parts, of which all the work in one turn of the loop would take about 20 ms."""
_threads = ThreadPoolExecutor(2, "large-request")
"""Few, since each takes turns with the loop; and none begins before there is a large request."""


async def apart(parts: int, work: Callable[[], T]) -> T:
    """What `work` returns or raises. parts: of the request, as `wire.parts_of`.

    A small request is worked on at once, without giving up the loop. A large one is worked on in a
    thread, so `work` changes nothing that others see. What every request passes asks `LARGE` itself
    before, since a coroutine for each small step adds up.
    """
    if parts <= LARGE:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_threads, work)
