"""However a call ends, it is counted, settled and booked once."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from bandit_service.core.events import Deployment
from bandit_service.gateway.budgets import Budgets
from bandit_service.gateway.deployments import key_of
from bandit_service.gateway.exchange import Exchange
from bandit_service.gateway.failures import Failed, Rejected
from bandit_service.gateway.health import Health
from bandit_service.gateway.money import likely_usd
from bandit_service.gateway.request_size import Size
from bandit_service.gateway.resources import Resources
from bandit_service.settings import GatewaySettings
from bandit_service.settings.upstreams import UpstreamSpec
from tests.unit.gateway.test_money import PLAIN

SIZE = Size(prompt=100, limit=None, answers=1)
USAGE = {"prompt_tokens": 100, "completion_tokens": 10}
COST = (100 * 2 + 10 * 8) / 1e6
DEPLOYED = msgspec.structs.replace(
    PLAIN,
    upstream="",
    deployments=(Deployment(upstream="p"), Deployment(upstream="q", priority=1)),
)
LIKELY = likely_usd(PLAIN, SIZE)


@dataclass
class Account:
    """Notes what is done with it; `slow` is how long a booking takes."""

    notes: list[str | float] = field(default_factory=list)
    slow: asyncio.Event | None = None
    waits: bool = False

    def reserve(self) -> None:
        self.notes.append("reserve")

    def release(self) -> None:
        self.notes.append("release")

    async def book(self, usd: float) -> bool:
        if self.slow is not None:
            self.waits = True
            await self.slow.wait()
        self.notes.append(usd)
        return True

    async def book_apart(self, usd: float) -> bool:
        return await self.book(usd)


def resources() -> Resources:
    """Those that a call without a decision needs to begin and to end."""
    none: Any = None
    health = Health(failures=1)
    return Resources(none, none, GatewaySettings(), health, Budgets(), none)


def deployed_resources() -> Resources:
    """Those that a call of an arm with deployments needs, at two upstreams."""
    at = {id: UpstreamSpec(id=id, base_url="http://127.0.0.1:9") for id in ("p", "q")}

    class Upstreams(dict[str, UpstreamSpec]):
        def spec(self, id: str) -> UpstreamSpec:
            return self[id]

    explore = SimpleNamespace(explore=SimpleNamespace(seed=0))
    router: Any = SimpleNamespace(rules=explore)
    telemetry: Any = SimpleNamespace(deployment_failed=lambda *_: None)
    upstreams: Any = Upstreams(at)
    health = Health(failures=1)
    return Resources(router, upstreams, GatewaySettings(), health, Budgets(), telemetry)


@pytest.mark.parametrize(
    ("error", "notes", "answers"),
    [
        (None, ["reserve", pytest.approx(COST), "release"], True),
        (Rejected(400, b""), ["reserve", "release"], True),
        (Failed("broken"), ["reserve", "release"], False),
        (Failed("late", timeout=True, cut_short=True), ["reserve", LIKELY, "release"], True),
        (asyncio.CancelledError(), ["reserve", LIKELY, "release"], True),
        (RuntimeError("a fault of ours"), ["reserve", "release"], True),
    ],
)
async def test_a_call_settles_once_however_it_ends(
    error: BaseException | None, notes: list[Any], answers: bool
) -> None:
    account, parts = Account(), resources()
    exchange = Exchange(parts, PLAIN, SIZE, account)

    async def call() -> None:
        async with exchange:
            assert parts.health.full(PLAIN.id, 1)
            exchange.usage, exchange.received = USAGE, 40
            if error is not None:
                raise error

    with nullcontext() if error is None else pytest.raises(type(error)):
        await call()
    assert account.notes == notes
    assert not parts.health.full(PLAIN.id, 1)
    assert parts.health.available(PLAIN.id, 0.0) is answers
    assert exchange.cost_usd == (pytest.approx(COST) if error is None else None)


async def test_what_a_call_cost_that_failed_is_booked_once() -> None:
    account, parts = Account(), resources()
    failed = Failed("the answer has no choices")
    failed.usage = USAGE
    with pytest.raises(Failed):
        async with Exchange(parts, PLAIN, SIZE, account):
            raise failed
    assert account.notes == ["reserve", pytest.approx(COST), "release"]
    assert not parts.health.full(PLAIN.id, 1)
    assert not parts.health.available(PLAIN.id, 0.0)


async def test_an_ending_within_the_call_is_the_only_one() -> None:
    account = Account()

    async def call() -> None:
        async with Exchange(resources(), PLAIN, SIZE, account) as exchange:
            await exchange.answered(USAGE, 40)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await call()
    assert account.notes == ["reserve", pytest.approx(COST), "release"]


async def test_a_cancel_between_two_deployments_books_what_the_first_cost_alone() -> None:
    account, parts = Account(slow=asyncio.Event()), deployed_resources()
    failed = Failed("overloaded")
    failed.usage = USAGE
    asked: list[str] = []

    async def call() -> None:
        async with Exchange(parts, DEPLOYED, SIZE, account) as exchange:

            async def ask() -> None:
                asked.append(exchange.deployment)
                raise failed

            await exchange.over(ask)

    task = asyncio.create_task(call())
    while not account.waits:
        await asyncio.sleep(0)
    task.cancel()
    assert account.slow is not None
    account.slow.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await parts.finished()
    assert asked == ["p"]
    assert [each for each in account.notes if each != "reserve"] in (
        ["release", pytest.approx(COST)],
        [pytest.approx(COST), "release"],
    )
    for key in (DEPLOYED.id, key_of(DEPLOYED.id, "p"), key_of(DEPLOYED.id, "q")):
        assert not parts.health.full(key, 1)


async def test_a_cost_is_booked_even_if_its_call_is_cancelled_meanwhile() -> None:
    account, parts = Account(slow=asyncio.Event()), resources()

    async def call() -> None:
        async with Exchange(parts, PLAIN, SIZE, account) as exchange:
            exchange.usage, exchange.received = USAGE, 40

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert account.notes == ["reserve"]
    assert account.slow is not None
    account.slow.set()
    await parts.finished()
    assert account.notes == ["reserve", pytest.approx(COST), "release"]
