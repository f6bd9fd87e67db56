"""Requests with an idempotency key: a resend gets the existing decision.

The decision is made in a separate task, so that it exists for the resend of a client that has left
meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from bandit_service import logs, wire
from bandit_service.core import events as ev
from bandit_service.core.errors import Conflict
from bandit_service.core.outcomes import digest
from bandit_service.core.world import World


def key_of(caller: str, tenant: str, key: str) -> str:
    """A key as it is stored: a hash that is specific to the caller and the tenant."""
    return digest("decide", caller, tenant, key)


def digest_of(request: wire.DecideRequest) -> str:
    """The digest that a resend must match: the whole request except its key and `explain`."""
    said = {name: getattr(request, name) for name in request.__struct_fields__}
    for name in ("idempotency_key", "explain"):
        del said[name]
    return digest(msgspec.json.encode(said))


class Repeats:
    """Decisions by key: those being made, those not in the world yet, and those in the world.

    world: the present one. waits: whether a decision of this id was answered and is not applied
    yet, for example while the disk is full or a shared log is unreachable.
    """

    def __init__(self, world: Callable[[], World], waits: Callable[[str], bool]) -> None:
        self._world, self._waits = world, waits
        self._under_way: dict[str, asyncio.Task[ev.Decided]] = {}
        self._made: OrderedDict[str, ev.Decided] = OrderedDict()

    async def decide(
        self, key: str, digested: str, make: Callable[[], Coroutine[Any, Any, ev.Decided]]
    ) -> ev.Decided:
        """The decision that was made with this key, or a new one by `make`.

        Raises Conflict if the key belongs to another request, and what `make` raises.
        """
        while (running := self._under_way.get(key)) is not None:
            await asyncio.wait({running})
        found = self._found(key, digested)
        if found is not None:
            logs.decision_id.set(found.id)
            return found
        task = self._under_way[key] = asyncio.create_task(make())
        task.add_done_callback(lambda done: self._ended(key, done))
        event = await asyncio.shield(task)
        logs.decision_id.set(event.id)
        return event

    async def close(self) -> None:
        """Cancel what nobody waits for any more: the writer accepts nothing after this."""
        running = list(self._under_way.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _ended(self, key: str, task: asyncio.Task[ev.Decided]) -> None:
        del self._under_way[key]
        if task.cancelled() or task.exception() is not None:
            return  # reported to the waiting callers, if they have not left
        if self._waits(task.result().id):
            self._made[key] = task.result()
            self._made.move_to_end(key)
        while self._made and not self._waits(next(iter(self._made.values())).id):
            self._made.popitem(last=False)

    def _found(self, key: str, digested: str) -> ev.Decided | None:
        there = self._made_with(key)
        if there is None:
            return None
        if there.request_digest != digested:
            raise Conflict(
                "idempotency_key: already used for another request; a resend must be the same in "
                "all but explain",
                param="idempotency_key",
            )
        return there

    def _made_with(self, key: str) -> ev.Decided | None:
        pending = self._world().pending
        id = pending.asked.get(key)
        there = None if id is None else pending.decisions.get(id)
        if there is not None:
            return there.decided
        waiting = self._made.get(key)
        return waiting if waiting is not None and self._waits(waiting.id) else None
