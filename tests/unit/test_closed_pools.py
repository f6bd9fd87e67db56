"""When a closed pool is tried again."""

from __future__ import annotations

import asyncio

import pytest

from bandit_service.app import closed_pools
from bandit_service.app.closed_pools import ClosedPools
from bandit_service.http.pools import Homes
from bandit_service.runtime.supervisor import Supervisor
from store import StoreError


def test_who_hurries_while_a_pool_is_tried_has_it_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(closed_pools, "FIRST_S", 0.0)
    monkeypatch.setattr(closed_pools, "pause_after", lambda *_: 3600.0)
    homes, tries = Homes(), list[str]()

    async def run() -> None:
        opened = asyncio.Event()

        async def open_one(name: str) -> None:
            tries.append(name)
            if len(tries) == 1:
                closed.hurry()  # its log was repaired after this try had read it
                raise StoreError("it is damaged")

        def up(_: str, is_up: bool) -> None:
            if is_up:
                opened.set()

        closed = ClosedPools(homes, Supervisor(lambda _: None, lambda *_: None), open_one, up)
        closed.add("eu", "it is away")
        async with asyncio.timeout(60.0):
            await opened.wait()
        await closed.close()

    asyncio.run(run())
    assert tries == ["eu", "eu"]
    assert homes.closed == {}
