"""Requests with an idempotency key, while the first of them is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.errors import Conflict
from bandit_service.core.world import World
from bandit_service.runtime.idempotency import Repeats
from tests.unit.experiments.given import a_world, asked, decided


class _Making:
    """Makes a decision once it may; counts how often it was begun and done."""

    def __init__(self, world: World, digest: str = "digest") -> None:
        self.go = asyncio.Event()
        self.begun = self.done = 0
        self._world, self._digest = world, digest

    async def __call__(self) -> ev.Decided:
        self.begun += 1
        await self.go.wait()
        self.done += 1
        query = asked(request_key="key", request_digest=self._digest)
        return decided(self._world, query)


async def _started(making: _Making) -> None:
    while not making.begun:
        await asyncio.sleep(0)


async def test_who_leaves_does_not_end_what_is_decided() -> None:
    world = a_world()
    repeats, making = Repeats(lambda: world, lambda _: False), _Making(world)
    leaving = asyncio.create_task(repeats.decide("key", "digest", making))
    await _started(making)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    resend = asyncio.create_task(repeats.decide("key", "digest", making))
    await asyncio.sleep(0)
    making.go.set()
    event = await resend
    assert (making.begun, making.done, world.decisions) == (1, 1, 1)
    assert (await repeats.decide("key", "digest", making)).id == event.id
    assert making.begun == 1


async def test_another_request_with_the_key_waits_and_is_refused() -> None:
    world = a_world()
    repeats, making = Repeats(lambda: world, lambda _: False), _Making(world)
    first = asyncio.create_task(repeats.decide("key", "digest", making))
    await _started(making)
    other = asyncio.create_task(repeats.decide("key", "another", making))
    making.go.set()
    await first
    with pytest.raises(Conflict, match="idempotency_key: already used for another request"):
        await other
    assert world.decisions == 1


async def test_a_failure_is_told_and_the_next_one_tries() -> None:
    world = a_world()
    repeats, making = Repeats(lambda: world, lambda _: False), _Making(world)

    async def failing() -> ev.Decided:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await repeats.decide("key", "digest", failing)
    making.go.set()
    assert (await repeats.decide("key", "digest", making)).id


async def test_what_was_answered_and_is_not_in_the_log_yet_is_not_decided_again() -> None:
    made, world, waiting = a_world(), a_world(), set[str]()
    repeats, making = Repeats(lambda: world, waiting.__contains__), _Making(made)
    making.go.set()
    for key in ("one", "two"):
        making.begun = 0
        event = await repeats.decide(key, "digest", _noted(making, waiting))
        assert (await repeats.decide(key, "digest", making)).id == event.id
        assert making.begun == 1
        with pytest.raises(Conflict):
            await repeats.decide(key, "another", making)
    waiting.clear()
    assert (await repeats.decide("three", "digest", _noted(making, waiting))).id
    assert list(repeats._made) == ["three"]


def _noted(making: _Making, waiting: set[str]) -> Callable[[], Coroutine[Any, Any, ev.Decided]]:
    async def make() -> ev.Decided:
        event = await making()
        waiting.add(event.id)
        return event

    return make


def test_a_key_leaves_with_its_decision() -> None:
    world = a_world()
    event = decided(world, asked(request_key="key", request_digest="digest"))
    assert world.pending.asked == {"key": event.id}
    apply(world, ev.DecisionsExpired(ts=world.ts, ids=(event.id,)))
    assert not world.pending.asked
