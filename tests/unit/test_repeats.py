"""Requests with an idempotency key, while the first of them is under way."""

from __future__ import annotations

import asyncio

import pytest

from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.errors import Conflict
from bandit_service.core.world import World
from bandit_service.runtime.repeats import Repeats
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


def test_a_key_leaves_with_its_decision() -> None:
    world = a_world()
    event = decided(world, asked(request_key="key", request_digest="digest"))
    assert world.pending.asked == {"key": event.id}
    apply(world, ev.DecisionsExpired(ts=world.ts, ids=(event.id,)))
    assert not world.pending.asked


async def test_what_was_made_is_known_until_it_is_applied_and_no_longer() -> None:
    """On 09672bb a resend got a second decision while the first one waited for the log."""
    world, waiting = a_world(), {"on"}
    repeats = Repeats(lambda: world, lambda _: bool(waiting))
    made: list[ev.Decided] = []

    async def make() -> ev.Decided:
        query = asked(request_key="key", request_digest="digest")
        made.append(decided(a_world(), query))  # in a world of its own: here it is not applied
        return made[-1]

    first = await repeats.decide("key", "digest", make)
    assert await repeats.decide("key", "digest", make) is first
    with pytest.raises(Conflict):
        await repeats.decide("key", "another", make)
    waiting.clear()  # it was given up, or was applied and is forgotten
    await repeats.decide("key", "digest", make)
    assert len(made) == 2
    assert not repeats._made
