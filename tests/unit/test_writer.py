"""The writer on a log that cannot be written, or is broken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

import policies
from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.apply import apply
from bandit_service.core.errors import ServiceError, Unavailable
from bandit_service.core.learner import Learner, teach
from bandit_service.core.world import World, new_world
from bandit_service.runtime.writer import Writer
from bandit_service.telemetry.telemetry import Telemetry
from store import Closed, Full, Offset, Record
from store.memory import MemoryLog


class _Disk(MemoryLog):
    """A log whose disk can be full, or fail to sync; `surprise` is raised once by a sync."""

    full = False
    broken = False
    surprise: BaseException | None = None

    def append(self, records: Sequence[Record]) -> Offset:
        if self.full:
            raise Full("no space left")
        return super().append(records)

    def sync(self) -> Offset:
        if self.broken:
            raise Closed("fdatasync failed")
        if self.surprise is not None:
            error, self.surprise = self.surprise, None
            raise error
        return super().sync()


def _writer(log: _Disk, max_backlog: int = 10) -> Writer:
    world = new_world({"uniform": policies.load("uniform")}, "uniform", 10)
    telemetry = Telemetry(pending=lambda: 0, remembered=lambda: 0)
    return Writer(world, log, telemetry, sync_interval_s=60.0, max_backlog=max_backlog)


def _decided(id: str) -> ev.Decided:
    return ev.Decided(
        ts=1.0,
        id=id,
        embedding=bytes(16),
        tokens=1,
        willingness_to_pay=0.1,
        arms=(policies.ArmId("a"),),
        propensities=(1.0,),
        scores=(0.0,),
        drawn=0,
        policy="p",
        key="k",
        list_cost_usd=0.0,
        expected_cost_usd=0.0,
        price=0.0,
    )


def _ids(log: MemoryLog) -> list[str]:
    events = [ev.decode(body) for _, body in log.replay()]
    return [event.id for event in events if isinstance(event, ev.Decided)]


async def test_while_the_disk_is_full_decisions_go_on_and_outcomes_do_not() -> None:
    log = _Disk()
    writer = _writer(log)
    writer.start()
    await writer.submit(lambda: _decided("before"), durable=False)
    log.full = True
    answered = await writer.submit(lambda: _decided("during"), durable=False)
    assert isinstance(answered, ev.Decided)
    assert writer.in_backlog("during")
    assert "no space left" in writer.degraded
    with pytest.raises(Unavailable, match="no space left"):
        await writer.submit(lambda: ev.DecisionsExpired(ts=2.0, ids=("before",)))
    assert list(writer.world.pending.decisions) == ["before"]
    assert not writer.append_now(ev.DecisionsExpired(ts=2.0, ids=("before",)))
    log.full = False
    await writer.submit(lambda: _decided("after"), durable=False)
    assert _ids(log) == ["before", "during", "after"]
    assert list(writer.world.pending.decisions) == ["before", "during", "after"]
    assert (writer.degraded, writer.in_backlog("during")) == ("", False)
    await writer.close()


async def test_the_backlog_is_bounded_and_the_oldest_is_given_up() -> None:
    log = _Disk()
    log.full = True
    writer = _writer(log, max_backlog=2)
    for id in ("a", "b", "c"):
        await writer.submit(lambda id=id: _decided(id), durable=False)  # type: ignore[misc]
    assert [writer.in_backlog(id) for id in ("a", "b", "c")] == [False, True, True]
    log.full = False
    await writer.close()
    assert _ids(log) == ["b", "c"]


def _spent(usd: float, ts: float = 1.0) -> ev.Spent:
    return ev.Spent(ts=ts, usd=usd)


async def test_a_cost_waits_with_the_decisions_in_one_order_and_is_let_go_of_when_applied() -> None:
    log = _Disk()
    log.full = True
    writer = _writer(log)
    told: list[float] = []
    await writer.submit(lambda: _decided("a"), durable=False)
    assert writer.owe(
        _spent(0.5), lambda: told.append(writer.world.spend.spent("hour", 1.0, "service"))
    )
    await writer.submit(lambda: _decided("b"), durable=False)
    assert (writer.owed_usd, told) == (0.5, [])
    log.full = False
    await writer.submit(lambda: _decided("c"), durable=False)
    kinds = [ev.tag(type(ev.decode(body))) for _, body in log.replay()]
    assert kinds == ["decided", "spent", "decided", "decided"]
    assert (writer.owed_usd, told) == (0.0, [0.5])
    assert writer.owe(_spent(0.25), lambda: told.append(0.0))  # there is room by now
    assert (writer.owed_usd, told) == (0.0, [0.5, 0.0])
    assert writer.world.spend.spent("hour", 1.0, "service") == 0.75
    await writer.close()


async def test_of_more_costs_than_may_wait_the_oldest_is_counted_as_lost() -> None:
    log = _Disk()
    log.full = True
    writer = _writer(log, max_backlog=2)
    let_go: list[int] = []
    for i in range(3):
        writer.owe(_spent(2.0**i), lambda i=i: let_go.append(i))  # type: ignore[misc]
    assert (writer.owed_usd, let_go) == (6.0, [0])
    assert writer._telemetry.metrics.cost_lost._value.get() == 1.0
    log.full = False
    await writer.close()
    assert let_go == [0, 1, 2]
    assert writer.world.spend.spent("hour", 1.0, "service") == 6.0


async def test_a_cost_is_lost_where_the_log_is_broken() -> None:
    log = _Disk()
    writer = _writer(log)
    writer.damaged(Closed("gone"))
    let_go: list[int] = []
    assert not writer.owe(_spent(1.0), lambda: let_go.append(1))
    assert (let_go, writer._telemetry.metrics.cost_lost._value.get()) == ([1], 1.0)


async def test_a_failed_sync_refuses_what_it_covered_and_is_told() -> None:
    log = _Disk()
    writer = _writer(log)
    writer.start()
    log.broken = True
    with pytest.raises(Unavailable, match="fdatasync"):
        await writer.submit(lambda: ev.DecisionsExpired(ts=2.0, ids=()))
    async with asyncio.timeout(60):
        assert "fdatasync" in await writer.broken
    await writer.close()


# --- what goes wrong after an append ------------------------------------------------------


def _replayed(log: MemoryLog) -> World:
    world = new_world({"uniform": policies.load("uniform")}, "uniform", 10)
    for _, body in log.replay():
        world = apply(world, ev.decode(body))
    return world


async def test_an_error_of_ours_in_an_event_is_answered_told_and_the_same_at_every_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At 5a5a85b whoever sent one of the batch waited for ever, and no restart came to its end."""

    def fails(*_: object) -> None:
        raise RuntimeError("a bug")

    log = _Disk()
    writer = _writer(log)
    writer.start()
    monkeypatch.setattr("bandit_service.core.lessons._expired", fails)
    before = writer.submit(lambda: _decided("before"))
    broken = writer.submit(lambda: ev.DecisionsExpired(ts=2.0, ids=("before",)))
    after = writer.submit(lambda: _decided("after"))
    async with asyncio.timeout(60):
        done = await asyncio.gather(before, broken, after, return_exceptions=True)
    assert isinstance(done[0], ev.Decided)
    assert isinstance(done[1], ServiceError)
    assert (done[1].status, done[1].message) == (
        500,
        "internal error; search the log for this request id",
    )
    assert isinstance(done[2], ev.Decided)
    assert not writer.broken.done()
    assert writer.world.unapplied == 1
    assert writer.world.why_unapplied.startswith("expired: RuntimeError at test_writer.py:")
    assert _replayed(log).digest() == writer.world.digest()
    kept = snapshot.read(snapshot.dump(writer.world))
    by_name = {"uniform": policies.load("uniform")}
    assert snapshot.restore(kept, by_name, "uniform").digest() == writer.world.digest()
    await writer.close()


async def test_without_memory_to_apply_what_is_in_the_log_the_process_ends_and_recovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = _Disk()
    writer = _writer(log)
    writer.start()

    def fails(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("bandit_service.core.lessons._expired", fails)
        sent = [
            writer.submit(lambda: _decided("a")),
            writer.submit(lambda: ev.DecisionsExpired(ts=2.0, ids=("a",))),
            writer.submit(lambda: _decided("b")),
        ]
        async with asyncio.timeout(60):
            done = await asyncio.gather(*sent, return_exceptions=True)
            why = await writer.broken
    assert why == "event 3 could not be applied (MemoryError); it is in the log"
    assert isinstance(done[0], ev.Decided)
    assert all(isinstance(one, ServiceError) and "in the log" in one.message for one in done[1:])
    with pytest.raises(Unavailable):
        await writer.submit(lambda: _decided("c"))
    assert _replayed(log).events == 3  # a process with memory has it
    await writer.close()


async def test_who_looks_on_may_fail_and_changes_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise KeyError("a metric")

    def heard(*_: object) -> None:
        if failing:
            raise KeyError("whoever listens")

    failing, told = True, list[ev.AnyEvent]()
    log = _Disk()
    writer = _writer(log)
    writer.listen(heard)
    writer.listen(lambda what, _: told.append(what.event))  # is told, whoever failed before
    writer.start()
    with monkeypatch.context() as patched:
        patched.setattr(Telemetry, "appended", fails)
        assert isinstance(await writer.submit(lambda: _decided("a")), ev.Decided)
        assert writer.tasks.failing == {"look on": "KeyError", "flush": "KeyError"}
    failing = False
    assert isinstance(await writer.submit(lambda: _decided("b")), ev.Decided)
    assert writer.tasks.failing == {}
    assert list(writer.world.pending.decisions) == ["a", "b"]
    assert told == [pending.decided for pending in writer.world.pending.decisions.values()]
    await writer.close()


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
async def test_a_sync_that_cannot_be_tried_is_tried_again(error: BaseException) -> None:
    """At 5a5a85b the task that commits ended by it: no reward was ever answered again."""
    log = _Disk()
    writer = _writer(log)
    writer.start()
    log.surprise = error
    async with asyncio.timeout(60):
        done = await writer.submit(lambda: ev.DecisionsExpired(ts=2.0, ids=()))
    assert done is not None
    assert not writer.broken.done()
    await writer.close()


async def test_an_append_that_fails_in_a_way_nobody_expected_is_told_to_all_who_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = _Disk()
    writer = _writer(log)
    writer.start()

    def fails(*_: object) -> Offset:
        raise TypeError("of the store")

    with monkeypatch.context() as patched:
        patched.setattr(_Disk, "append", fails)
        async with asyncio.timeout(60):
            with pytest.raises(
                ServiceError, match="internal error; search the log for this request id"
            ):
                await writer.submit(lambda: _decided("a"))
        assert writer.tasks.failing == {"flush": "TypeError"}
    assert isinstance(await writer.submit(lambda: _decided("b")), ev.Decided)
    assert list(writer.world.pending.decisions) == ["b"]
    await writer.close()


async def test_what_cannot_be_encoded_is_refused_alone() -> None:
    log = _Disk()
    writer = _writer(log)
    writer.start()
    wrong = writer.submit(lambda: ev.DecisionsExpired(ts=2.0, ids=(1j,)))  # type: ignore[arg-type]
    right = writer.submit(lambda: _decided("a"))
    with pytest.raises(TypeError):
        await wrong
    assert isinstance(await right, ev.Decided)
    await writer.close()


class _Raises:
    """A policy of somebody's own, with a bug in it."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def init(self) -> int:
        return 0

    def learn(self, _: int, __: object) -> int:
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError(), AssertionError(), AttributeError(), OSError()])
def test_whatever_a_policy_raises_when_it_learns_is_counted(error: Exception) -> None:
    """At 5a5a85b only four kinds were, and any other came up in the middle of an append."""
    learner = Learner(_Raises(error), 0)  # type: ignore[arg-type]
    lesson = policies.Compared(
        policies.Context(np.zeros(4, np.float32), 1, 0.1), policies.ArmId("a"), policies.ArmId("b")
    )
    if isinstance(error, OSError):  # which is the machine's, and may be gone tomorrow
        with pytest.raises(OSError):  # noqa: PT011 - it has no message
            teach(learner, lesson)
    else:
        teach(learner, lesson)
    assert learner.failures == (not isinstance(error, OSError))


async def test_a_full_disk_says_once_what_to_do() -> None:
    """At 5a5a85b "nothing was written; make space" stood twice in one sentence."""
    log = _Disk()
    writer = _writer(log)
    log.full = True
    await writer.submit(lambda: _decided("a"), durable=False)
    with pytest.raises(Unavailable) as said:
        await writer.submit(lambda: ev.DecisionsExpired(ts=2.0, ids=()))
    assert said.value.message.count("make space") == 1
    assert writer.degraded.count("make space") == 1
    log.full = False
    await writer.close()


async def test_what_is_late_comes_after_all_of_its_turn_in_one_append() -> None:
    log = _Disk()
    writer = _writer(log)
    writer.start()
    batches = _batches(log)
    late = writer.submit(lambda: _decided("late"), durable=False, late=True)
    others = [
        writer.submit(lambda id=id: _decided(id), durable=False)  # type: ignore[misc]
        for id in ("a", "b")
    ]
    await asyncio.gather(late, *others)
    assert _ids(log) == ["a", "b", "late"]
    assert batches == [3]
    await writer.close()


@pytest.mark.parametrize(
    ("turns_between", "late", "batches"),
    [
        (1, True, [2]),  # what comes from sockets takes turns, so a turn without any is waited out
        (4, True, [1, 1]),  # nobody waits for long where nobody comes
        (1, False, [1, 1]),  # one that does not wait is not kept waiting
    ],
)
async def test_the_patient_wait_a_few_turns_of_the_loop_for_company(
    turns_between: int, late: bool, batches: list[int]
) -> None:
    log = _Disk()
    writer = _writer(log)
    writer.start()
    made = _batches(log)
    first = writer.submit(lambda: _decided("a"), durable=False, late=late)
    for _ in range(turns_between):
        await asyncio.sleep(0)
    second = writer.submit(lambda: _decided("b"), durable=False, late=True)
    await asyncio.gather(first, second)
    assert made == batches
    await writer.close()


async def test_one_that_cannot_wait_takes_the_patient_along() -> None:
    log = _Disk()
    writer = _writer(log)
    writer.start()
    made = _batches(log)
    submitted = [writer.submit(lambda: _decided("a"), durable=False, late=True)]
    for i in range(3):
        await asyncio.sleep(0)
        hurried = i == 1
        submitted.append(
            writer.submit(lambda id=str(i): _decided(id), durable=False, late=not hurried)  # type: ignore[misc]
        )
    await asyncio.gather(*submitted)
    assert made == [3, 1]
    await writer.close()


def _batches(log: _Disk) -> list[int]:
    """How many records each append has from here on."""
    batches: list[int] = []
    append = log.append

    def counted(records: Sequence[Record]) -> Offset:
        batches.append(len(records))
        return append(records)

    log.append = counted  # type: ignore[method-assign]
    return batches
