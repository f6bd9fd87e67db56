"""What the writer tells of an outcome reaches whoever waits, and the money is let go of once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from bandit_service.core.errors import Unavailable
from bandit_service.gateway.budgets import Budgets
from bandit_service.gateway.exchange_end import Written
from bandit_service.gateway.health import Health
from bandit_service.gateway.resources import Resources
from bandit_service.settings import GatewaySettings
from tests.unit.gateway.test_exchange import Account

FULL = Unavailable("the disk is full")


def _written(account: Account) -> tuple[Written, Resources, list[Any]]:
    told: list[Any] = []
    none: Any = None
    router: Any = SimpleNamespace(
        observed=lambda id, event: told.append((id, event)),
        writer=SimpleNamespace(loop=asyncio.get_running_loop()),
    )
    parts = Resources(router, none, GatewaySettings(), Health(), Budgets(), none)
    return Written(parts, account, "d", 0.5), parts, told


@pytest.mark.parametrize(
    ("event", "notes"), [("event", ["release"]), (None, ["release"]), (FULL, [0.5, "release"])]
)
async def test_the_cost_is_learned_or_else_booked(event: Any, notes: list[Any]) -> None:
    account = Account()
    written, parts, told = _written(account)
    waiting = asyncio.create_task(written.waited())
    await asyncio.sleep(0)
    assert not written.done()
    (written.set_exception if event is FULL else written.set_result)(event)
    assert written.done()
    assert await waiting
    assert account.notes == notes
    assert told == [("d", event)]
    await parts.finished()


async def test_a_fault_of_ours_reaches_who_waits() -> None:
    account = Account()
    written, _, _ = _written(account)
    written.set_exception(RuntimeError("ours"))
    with pytest.raises(RuntimeError, match="ours"):
        await written.waited()
    assert account.notes == ["release"]


@pytest.mark.parametrize("event", ["event", FULL])
async def test_it_is_waited_for_at_the_end_though_who_asked_has_left(event: Any) -> None:
    account = Account()
    written, parts, told = _written(account)
    waiting = asyncio.create_task(written.waited())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not written.cancelled()
    ending = asyncio.create_task(parts.finished())
    await asyncio.sleep(0)
    assert not ending.done(), "it is not written yet"
    (written.set_exception if event is FULL else written.set_result)(event)
    await ending
    assert account.notes[-1] == "release"
    assert account.notes.count("release") == 1
    assert len(told) == 1
