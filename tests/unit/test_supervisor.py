"""Background tasks end by exceptions that nobody expected, and go on all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from bandit_service.runtime import supervisor
from bandit_service.runtime.supervisor import Supervisor


class _Told:
    def __init__(self) -> None:
        self.counted: list[str] = []
        self.told: list[tuple[str, bool]] = []
        self.tasks = Supervisor(self.counted.append, lambda *one: self.told.append(one))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_S", 0.001)


def _failing(
    told: _Told, errors: list[BaseException], well: asyncio.Event
) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        while True:
            await asyncio.sleep(0)
            if errors:
                raise errors.pop(0)
            told.tasks.well("work")
            well.set()

    return work


@pytest.mark.parametrize(
    "error",
    [
        OSError(24, "Too many open files"),
        MemoryError(),
        RuntimeError("can't start new thread"),
        KeyError("x"),
        AssertionError(),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_task_that_ends_by_any_exception_is_counted_told_and_begun_again(
    error: BaseException,
) -> None:
    """At 5a5a85b `create_subprocess_exec` raised OSError and upkeep was gone for good, untold."""
    told, well = _Told(), asyncio.Event()
    kept = told.tasks.keep("work", _failing(told, [error, error], well))
    async with asyncio.timeout(60):
        await well.wait()
    assert told.counted == ["work", "work"]
    assert told.told == [("work", True), ("work", False)]
    assert told.tasks.failing == {}
    await kept.end()
    assert kept.task.cancelled()


async def test_while_it_fails_it_is_there_to_be_seen_without_what_an_error_repeats() -> None:
    told = _Told()
    secret = [ValueError("the client's words")] * 3
    kept = told.tasks.keep("work", _failing(told, [*secret], asyncio.Event()), lambda _: None)
    async with asyncio.timeout(60):
        while not told.tasks.failing:
            await asyncio.sleep(0)
    assert told.tasks.failing == {"work": "ValueError"}
    await kept.end()


async def test_who_cancels_a_task_that_is_not_theirs_does_not_stop_it() -> None:
    told, well = _Told(), asyncio.Event()
    kept = told.tasks.keep("work", _failing(told, [], well))
    async with asyncio.timeout(60):
        await well.wait()
        kept.task.cancel()
        well.clear()
        await well.wait()
    assert told.counted == ["work"]
    await kept.end()


async def test_without_what_nothing_works_it_gives_up_and_says_so() -> None:
    told, said = _Told(), asyncio.Queue[str]()
    errors: list[BaseException] = [OSError(5, "Input/output error")] * 99
    kept = told.tasks.keep("work", _failing(told, errors, asyncio.Event()), said.put_nowait)
    async with asyncio.timeout(60):
        why = await said.get()
        await kept.task
    assert why == "work failed 6 times in a row: OSError: Input/output error"
    assert len(told.counted) == supervisor.TRIES


async def test_work_that_is_done_is_not_begun_again() -> None:
    told = _Told()

    async def work() -> None:
        await asyncio.sleep(0)

    kept = told.tasks.keep("work", work)
    await kept.task
    await kept.end()
    assert (told.counted, told.tasks.failing) == ([], {})


async def test_a_task_whose_work_takes_a_cancellation_for_its_own_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Upkeep of a replica on JetStream waited for ever for a writer that was closed before it."""
    monkeypatch.setattr(supervisor, "_AGAIN_S", 0.01)
    begun, told = asyncio.Event(), _Told()

    async def work() -> None:
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        await asyncio.get_running_loop().create_future()

    kept = told.tasks.keep("work", work)
    await begun.wait()
    async with asyncio.timeout(60):
        await kept.end()
    assert kept.task.cancelled()
    assert not told.counted
