"""What wakes the commits, and what ends them."""

from __future__ import annotations

import asyncio

import pytest

from bandit_service.runtime.group_commit import GroupCommit
from store.memory import MemoryLog


@pytest.mark.parametrize("turns", range(6))
async def test_who_is_cancelled_as_somebody_begins_to_wait_is_cancelled(turns: int) -> None:
    """Else the task of a service that ends would go on, and nobody would end it again."""
    commits = GroupCommit(MemoryLog(), 60.0, lambda _: None, lambda _: None)
    due = asyncio.ensure_future(commits.due())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    commits.wait(answered, None)
    for _ in range(turns):
        await asyncio.sleep(0)
    if due.cancel():  # it had not ended by then
        with pytest.raises(asyncio.CancelledError):
            await due
    else:
        await due
    commits.close()


async def test_it_is_due_when_somebody_waits_or_the_interval_is_over() -> None:
    commits = GroupCommit(MemoryLog(), 0.001, lambda _: None, lambda _: None)
    async with asyncio.timeout(60):
        await commits.due()
    assert not commits.needed
    commits = GroupCommit(MemoryLog(), 60.0, lambda _: None, lambda _: None)
    synced = asyncio.ensure_future(commits.synced())
    async with asyncio.timeout(60):
        await commits.due()
        await commits.sync()
        assert await synced == 0
    commits.close()
