"""Requests with an idempotency key: the same one again gets the decision that there is.

The decision is made in a task of its own, so that it is there for the resend of a client that has
left meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from bandit_service import logs, wire
from bandit_service.core import events as ev
from bandit_service.core.errors import Conflict
from bandit_service.core.outcomes import digest
from bandit_service.core.world import World


def key_of(caller: str, tenant: str, key: str) -> str:
    """A key as it is kept: a hash, which no other caller's or tenant's is."""
    return digest("decide", caller, tenant, key)


def digest_of(request: wire.DecideRequest) -> str:
    """What a resend must agree with: all of the request but its key, and how much is explained."""
    said = {name: getattr(request, name) for name in request.__struct_fields__}
    for name in ("idempotency_key", "explain"):
        del said[name]
    return digest(msgspec.json.encode(said))


class Repeats:
    """What is under way by its key, and what the world has. world: as it is now. waits: whether a
    decision of this id was answered and is not in the world yet.
    """

    def __init__(self, world: Callable[[], World], waits: Callable[[str], bool]) -> None:
        self._world, self._waits = world, waits
        self._under_way: dict[str, asyncio.Task[ev.Decided]] = {}
        self._answered: dict[str, ev.Decided] = {}

    async def decide(
        self, key: str, digested: str, make: Callable[[], Coroutine[Any, Any, ev.Decided]]
    ) -> ev.Decided:
        """The decision that was made with this key, or the one that `make` makes now.

        Raises Conflict where the key is another request's, and what `make` does.
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

    def _ended(self, key: str, task: asyncio.Task[ev.Decided]) -> None:
        del self._under_way[key]
        # its error is told to whoever waits, and to nobody where they have left
        if not task.cancelled() and task.exception() is None and self._waits(task.result().id):
            self._forget()
            self._answered[key] = task.result()

    def _forget(self) -> None:
        """Let go of the oldest, which the world has by now, or which were given up."""
        while self._answered:
            key, event = next(iter(self._answered.items()))
            if self._waits(event.id):
                return
            del self._answered[key]

    def _found(self, key: str, digested: str) -> ev.Decided | None:
        pending, answered = self._world().pending, self._answered.get(key)
        if answered is not None and self._waits(answered.id):
            found = answered
        else:
            there = pending.decisions.get(pending.asked.get(key, ""))
            if there is None:
                return None
            found = there.decided
        if found.request_digest != digested:
            raise Conflict(
                "idempotency_key: already used for another request; a resend must be the same in "
                "all but explain",
                param="idempotency_key",
            )
        return found
