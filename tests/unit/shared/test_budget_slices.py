"""Slices of budgets: whatever replicas do at once, all of them stay within the limit."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - what is asked for when, from a fixed seed
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bandit_service import clock
from bandit_service.core import events as ev
from bandit_service.core.errors import BudgetExhausted, Unavailable
from bandit_service.core.spend import Payer, window
from bandit_service.gateway import budget_slices
from bandit_service.gateway.shared_budgets import SharedBudgets
from bandit_service.settings.budgets import BudgetSpec
from store import Offset, Record, Replica, Tailed
from tests.unit.shared.memory import HANG_S, Engine, Running, same

LIMIT = 5.0
SPEC = BudgetSpec(scope="service", per="month", usd=LIMIT)


class Spender:
    """One replica whose calls are paid: each holds its most, costs a part of it, and is booked."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.budgets = SharedBudgets((SPEC,), running.writer, lost_after_s=600.0)
        self.held: dict[str, float] = {}
        self.seen: list[float] = []

    @property
    def world(self) -> Any:
        return self.running.world

    async def begin(self, most: float) -> str:
        """Hold it, as the gateway does."""
        writer = self.running.writer
        while True:
            now = writer.now()
            self.budgets.fitting(self.world.spend, {"a": most}, Payer(), now)
            if await self.budgets.secured(most, Payer(), now):
                break
        id = writer.new_id(writer.now())
        self.budgets.reserve(id, most, Payer())
        self.held[id] = most
        return id

    async def end(self, id: str, usd: float) -> None:
        """Book what it cost, and let go of what was held."""
        writer = self.running.writer
        await writer.submit(lambda: ev.Spent(ts=writer.now(), usd=usd), key=id, durable=False)
        self.budgets.booked(id, usd)
        self.held[id] = usd  # in the log soon, so it is spent or about to be
        self.budgets.settle(id)


@pytest.fixture
async def start(
    engine: Engine, tmp_path: Path
) -> AsyncIterator[Callable[[str], Awaitable[Spender]]]:
    started: list[Running] = []

    async def starting(name: str) -> Spender:
        started.append(await Running(engine, tmp_path / name).start())
        return Spender(started[-1])

    yield starting
    engine.down = False
    for one in started:
        if not one.writer.broken.done():
            await one.close()


Start = Callable[[str], Awaitable[Spender]]


def _spent(spender: Spender) -> float:
    return float(spender.world.spend.spent("month", clock.now(), "service"))


def _late(spender: Spender, lag_s: float) -> None:
    """It sees everything so much later."""
    shared = spender.running.shared
    tail = shared.tail

    async def later(after: Offset, most: int = 512) -> list[Tailed]:
        found = await tail(after, most)
        await asyncio.sleep(lag_s if found else 0)
        return found

    shared.tail = later  # type: ignore[method-assign]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("most_usd", "lag_s"), [((0.01, 0.1, 0.7, 2.0), 0.02), ((0.02, 0.03), 0.1)]
)
async def test_spent_and_held_of_all_never_pass_the_limit(
    start: Start, seed: int, most_usd: tuple[float, ...], lag_s: float
) -> None:
    spenders = [await start(f"r{i}") for i in range(3)]
    for each in spenders:
        _late(each, lag_s)
    chance = random.Random(seed)
    paid = 0.0
    told = {"begun": 0, "refused": 0}

    def check() -> None:
        under_way = sum(sum(each.held.values()) for each in spenders)
        assert paid + under_way <= LIMIT + 1e-6

    async def live(spender: Spender) -> None:
        nonlocal paid
        for _ in range(200):
            most = chance.choice(most_usd)
            try:
                id = await spender.begin(most)
            except BudgetExhausted:
                told["refused"] += 1
                if told["refused"] > 300:
                    return
                await asyncio.sleep(0.001)
                continue
            told["begun"] += 1
            check()
            await asyncio.sleep(chance.choice([0.0, 0.002]))
            usd = most * chance.choice([0.1, 1.0, 1.0])
            await spender.end(id, usd)
            paid += spender.held.pop(id)

    async with asyncio.timeout(HANG_S):
        await asyncio.gather(*(live(each) for each in spenders for _ in range(3)))
    assert told["begun"] > 3
    assert told["refused"] > 0
    await same(*(each.running for each in spenders))
    assert _spent(spenders[0]) == pytest.approx(paid)
    assert paid <= LIMIT + 1e-6


async def test_a_call_waits_for_a_slice_only_where_there_is_none(
    start: Start, engine: Engine
) -> None:
    one = await start("one")
    id = await one.begin(0.05)
    before = len(engine.records)
    assert await one.budgets.secured(0.05, Payer(), clock.now())  # of the same slice
    await one.end(id, 0.05)
    async with asyncio.timeout(HANG_S):
        while _spent(one) == 0.0:
            await asyncio.sleep(0.001)
    assert len(engine.records) == before + 1  # the cost, and no other slice
    leased = one.world.leases.of("month", window("month", clock.now()), "service")
    assert leased == {1: pytest.approx(0.02 * LIMIT)}
    await one.end(await one.begin(0.05), 0.05)
    async with asyncio.timeout(HANG_S):
        while _spent(one) < 0.1:
            await asyncio.sleep(0.001)
    one.budgets.left(one.world.spend, Payer(), clock.now())  # which lets go of what is settled
    assert not one.budgets._slices.covered(["service"], 0.05, clock.now())  # it is used up


async def test_without_the_log_a_replica_spends_what_it_has_and_for_some_time_only(
    start: Start, engine: Engine
) -> None:
    one = await start("one")
    await one.end(await one.begin(0.05), 0.0)
    engine.down = True
    async with asyncio.timeout(HANG_S):
        while one.running.writer.link.up.is_set():
            await asyncio.sleep(0.001)
    assert await one.budgets.secured(0.05, Payer(), clock.now())
    with pytest.raises(Unavailable):  # more than it has
        await one.budgets.secured(4.0, Payer(), clock.now())
    link = one.running.writer.link
    link._rules = replace(link._rules, trust_s=0.0)  # as if that time were over
    with pytest.raises(Unavailable):
        await one.budgets.secured(0.05, Payer(), clock.now())


async def test_after_that_time_it_asks_again_though_the_log_is_back(
    start: Start, engine: Engine
) -> None:
    one = await start("one")
    await one.end(await one.begin(0.05), 0.0)
    link = one.running.writer.link
    link._heard_at -= 1000.0  # it was away for so long, and the others may have taken it back
    link._heard(asyncio.get_running_loop().time())
    assert not one.budgets._slices.covered(["service"], 0.05, clock.now())
    await one.begin(0.05)


async def test_a_slice_of_an_earlier_life_is_given_back_and_not_spent(
    start: Start, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_slices, "_LOOK_S", 0.01)
    monkeypatch.setattr(budget_slices, "_IDLE_S", 0.1)
    one, other = await start("one"), await start("other")
    await one.begin(1.0)
    await one.running.die()
    again = await start("one")
    now = clock.now()
    assert again.world.leases.of("month", window("month", now), "service")
    assert not again.budgets._slices.covered(["service"], 0.01, now)
    again.budgets.start()
    async with asyncio.timeout(HANG_S):
        while again.world.leases or other.world.leases:
            await asyncio.sleep(0.001)
    await again.budgets.close()


async def test_what_the_log_says_of_another_life_is_no_slice_of_this_one(
    start: Start, engine: Engine
) -> None:
    one = await start("one")
    await one.begin(0.01)
    found = one.budgets._slices._slices["service", "month", window("month", clock.now())]
    of = one.world.leases.held_by(1)
    per, name, account = next(of)
    stale = ev.BudgetLeased(
        ts=clock.now(), replica=1, account=account, per=per, window=name, usd=9.0
    )
    record = Record("stale", ev.kind(stale), stale.ts, ev.encode(stale))
    engine.records.append((record, b"", b"chain"))
    async with asyncio.timeout(HANG_S):
        while one.world.leases.of(per, name, account)[1] != 9.0:
            await asyncio.sleep(0.001)
    assert found.usd == pytest.approx(0.02 * LIMIT)


async def test_the_keeper_gives_back_for_one_that_is_long_gone_and_for_no_other(
    start: Start, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_slices, "_LOOK_S", 0.01)
    one, other = await start("one"), await start("other")
    async with asyncio.timeout(HANG_S):
        while not one.running.writer.membership.keeps:
            await asyncio.sleep(0.001)
    await other.begin(1.0)
    slot = other.running.writer.membership.slot
    await same(one.running, other.running)

    def row(unseen_s: float, closed: bool) -> Replica:
        return Replica(slot, "", 1, 0, 0, 0.0, unseen_s, closed, "key", ())

    for unseen_s, closed in ((1000.0, False), (599.0, True)):
        one.running.writer.link.rows = [row(unseen_s, closed)]
        assert one.budgets._slices._gone() == []
    monkeypatch.setattr(type(one.running.writer.membership), "known", [row(601.0, True)])
    one.budgets.start()
    async with asyncio.timeout(HANG_S):
        while one.world.leases:
            await asyncio.sleep(0.001)
    await one.budgets.close()
