"""What every EventLog must do. Subclass `LogSuite`, say how to make one, and run it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from store import Closed, Duplicate, EventLog, Offset, Record, Trimmed


def record(i: int, size: int = 20) -> Record:
    """The i-th record of every test: nothing in it is random, nothing in it repeats."""
    body = np.random.default_rng(i).integers(0, 256, size, np.uint8).tobytes()
    return Record(f"e{i}", "decision" if i % 2 else "reward", 1_700_000_000.25 + i, body)


def records(first: int, last: int) -> list[Record]:
    return [record(i) for i in range(first, last + 1)]


def owned(i: int, owner: str, size: int = 20) -> Record:
    return dataclasses.replace(record(i, size), owner=owner)


def contents(log: EventLog, after: int = 0) -> list[tuple[int, bytes]]:
    return [(int(at), body) for at, body in log.replay(Offset(after))]


def expected(last: int, after: int = 0) -> list[tuple[int, bytes]]:
    return [(i, record(i).body) for i in range(after + 1, last + 1)]


class LogSuite:
    """Offsets from 1 without gaps, all or nothing, and the same again after reopening."""

    durable = False

    def make(self, path: Path) -> EventLog:
        """A log at `path`: empty the first time, and of a durable backend the same again."""
        raise NotImplementedError

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Iterator[Callable[[], EventLog]]:
        """Opens the log of this test; whatever is left open is closed."""
        logs: list[EventLog] = []

        def opening() -> EventLog:
            logs.append(self.make(tmp_path / "events.db"))
            return logs[-1]

        yield opening
        for log in logs:
            log.close()

    @pytest.fixture
    def log(self, opened: Callable[[], EventLog]) -> EventLog:
        return opened()

    def test_is_empty_at_first(self, log: EventLog) -> None:
        assert log.last == 0
        assert contents(log) == []
        assert log.sync() == 0

    def test_offsets_start_at_one_and_have_no_gaps(self, log: EventLog) -> None:
        assert log.append([record(1)]) == 1
        assert log.append(records(2, 4)) == 4
        assert log.append([record(5)]) == 5
        assert log.last == 5
        assert contents(log) == expected(5)

    def test_keeps_the_order_of_many_batches(self, log: EventLog) -> None:
        rng, last = np.random.default_rng(1), 0
        while last < 3000:
            size = int(rng.integers(1, 200))
            assert log.append(records(last + 1, last + size)) == last + size
            last += size
        assert contents(log) == expected(last)

    @pytest.mark.parametrize(
        "body",
        [b"\0", b"\0" * 1000, bytes(range(256)), "é\U0001f600".encode(), b"x" * 200_000],
    )
    def test_gives_back_any_bytes(self, log: EventLog, body: bytes) -> None:
        log.append([Record("any", "decision", 0.0, body)])
        assert contents(log) == [(1, body)]

    @pytest.mark.parametrize(
        "eid", ["", "a b", "é", "\U0001f600", "a\0b", "'; DROP TABLE log", "%"]
    )
    def test_takes_any_id(self, log: EventLog, eid: str) -> None:
        log.append([Record(eid, "decision", 0.0, b"x")])
        with pytest.raises(Duplicate):
            log.append([Record(eid, "decision", 0.0, b"y")])
        assert contents(log) == [(1, b"x")]

    @pytest.mark.parametrize("ts", [-1.0, 0.0, 1e300, 5e-324, 0.1 + 0.2])
    def test_takes_any_time(self, log: EventLog, ts: float) -> None:
        log.append([Record("any", "decision", ts, b"x")])
        assert contents(log) == [(1, b"x")]

    @pytest.mark.parametrize("ts", [float("nan"), float("inf"), float("-inf")])
    def test_refuses_a_time_that_is_none(self, log: EventLog, ts: float) -> None:
        with pytest.raises(ValueError, match=r"^ts: must be finite"):
            log.append([record(1), Record("other", "decision", ts, b"x")])
        assert log.append([record(1)]) == 1

    def test_refuses_an_empty_body(self, log: EventLog) -> None:
        with pytest.raises(ValueError, match=r"^body: must not be empty"):
            log.append([record(1), Record("other", "decision", 1.0, b"")])
        assert log.append([record(1)]) == 1

    def test_keeps_values_and_no_references(self, log: EventLog) -> None:
        batch = records(1, 3)
        log.append(batch)
        batch.clear()
        replayed = contents(log)
        replayed.clear()
        assert contents(log) == expected(3)

    def test_an_empty_append_does_nothing(self, log: EventLog) -> None:
        assert log.append([]) == 0
        log.append(records(1, 2))
        assert log.append(()) == 2
        assert contents(log) == expected(2)

    @pytest.mark.parametrize("at", [0, 1, 4])
    def test_a_known_id_refuses_the_whole_batch(self, log: EventLog, at: int) -> None:
        log.append(records(1, 3))
        batch = records(4, 8)
        batch[at] = Record("e2", "other", 5.0, b"other")
        with pytest.raises(Duplicate, match="'e2'") as refused:
            log.append(batch)
        assert refused.value.eid == "e2"
        assert contents(log) == expected(3)
        assert log.append(records(4, 8)) == 8
        assert contents(log) == expected(8)

    def test_an_id_twice_in_a_batch_refuses_all_of_it(self, log: EventLog) -> None:
        with pytest.raises(Duplicate) as refused:
            log.append([record(1), record(2), record(3), record(2)])
        assert refused.value.eid == "e2"
        assert log.last == 0
        assert log.append(records(1, 3)) == 3
        assert contents(log) == expected(3)

    @pytest.mark.parametrize("after", [0, 1, 7, 511, 512, 513, 1299, 1300])
    def test_replays_what_follows_an_offset(self, log: EventLog, after: int) -> None:
        log.append(records(1, 1300))
        assert contents(log, after) == expected(1300, after)

    def test_can_append_while_it_replays(self, log: EventLog) -> None:
        log.append(records(1, 600))
        replaying = log.replay()
        assert next(replaying) == (1, record(1).body)
        log.append(records(601, 610))
        rest = [int(at) for at, _ in replaying]
        assert rest[:599] == list(range(2, 601))
        assert contents(log) == expected(610)

    def test_sync_says_up_to_where(self, log: EventLog) -> None:
        log.append(records(1, 3))
        assert log.sync() == 3
        assert log.sync() == 3
        log.append([record(4)])
        assert log.sync() == 4

    def test_syncs_from_another_thread(self, log: EventLog) -> None:
        stop, failures = threading.Event(), []
        reached: list[int] = []

        def syncing() -> None:
            try:
                while not stop.is_set():
                    reached.append(log.sync())
            except Exception as error:  # noqa: BLE001 - told to the test below
                failures.append(error)

        thread = threading.Thread(target=syncing)
        thread.start()
        try:
            for first in range(1, 2001, 10):
                log.append(records(first, first + 9))
        finally:
            stop.set()
            thread.join()
        assert not failures
        assert reached == sorted(reached)
        assert log.sync() == 2000
        assert contents(log) == expected(2000)

    def test_closed_it_refuses_everything(self, log: EventLog) -> None:
        log.append([record(1)])
        log.close()
        log.close()
        refused: Sequence[Callable[[], object]] = [
            lambda: log.append([record(2)]),
            lambda: log.append([]),
            log.sync,
            lambda: list(log.replay()),
            lambda: log.forget("ann", Offset(1)),
            lambda: log.trim(Offset(1)),
            lambda: log.offset_at(0.0),
        ]
        for call in refused:
            with pytest.raises(Closed):
                call()

    def test_is_the_same_when_opened_again(self, opened: Callable[[], EventLog]) -> None:
        if not self.durable:
            pytest.skip("keeps nothing beyond its process")
        for first in range(1, 101, 20):
            log = opened()
            assert log.last == first - 1
            assert contents(log) == expected(first - 1)
            assert log.append(records(first, first + 19)) == first + 19
            log.close()
        log = opened()
        assert contents(log) == expected(100)
        with pytest.raises(Duplicate):
            log.append([record(1)])

    def test_forgets_an_owner_up_to_an_offset(self, log: EventLog) -> None:
        owners = ["ann", "bob", "", "ann", "ann", "bob"]
        log.append([owned(i + 1, owner) for i, owner in enumerate(owners)])
        assert log.forget("ann", Offset(4)) == 2
        assert [body for _, body in contents(log)] == [
            b"" if i in (1, 4) else record(i).body for i in range(1, 7)
        ]
        assert log.forget("ann", Offset(4)) == 0
        assert log.forget("ann", Offset(99)) == 1
        assert log.forget("nobody", Offset(99)) == 0
        assert (log.first, log.last) == (1, 6)
        assert log.append([owned(7, "ann")]) == 7
        assert contents(log, 4) == [(5, b""), (6, record(6).body), (7, record(7).body)]

    def test_forgetting_nobody_is_refused(self, log: EventLog) -> None:
        log.append(records(1, 3))
        with pytest.raises(ValueError, match="owner: must not be empty"):
            log.forget("", Offset(3))
        assert contents(log) == expected(3)

    def test_an_erased_record_keeps_its_id(self, log: EventLog) -> None:
        log.append([owned(1, "ann")])
        log.forget("ann", Offset(1))
        with pytest.raises(Duplicate):
            log.append([record(1)])

    def test_forgets_the_newest_and_goes_on(self, log: EventLog) -> None:
        log.append([owned(1, "ann"), owned(2, "ann", 9000)])
        assert log.forget("ann", Offset(2)) == 2
        log.append([record(3)])
        assert contents(log) == [(1, b""), (2, b""), (3, record(3).body)]

    def test_forgets_more_than_a_chunk(self, log: EventLog) -> None:
        log.append([owned(i, "ann" if i % 2 else "bob") for i in range(1, 2601)])
        assert log.forget("ann", Offset(2600)) == 1300
        assert [body for _, body in contents(log)][:4] == [
            b"",
            record(2).body,
            b"",
            record(4).body,
        ]

    def test_trims_the_oldest_in_pieces(self, log: EventLog) -> None:
        log.append(records(1, 2000))
        assert log.first == 1
        assert log.trim(Offset(1500), most=1000) == 500
        assert (log.first, log.last) == (1001, 2000)
        assert log.trim(Offset(1500), most=1000) == 0
        assert log.trim(Offset(1500), most=1) == 0
        assert log.trim(Offset(3)) == 0
        assert (log.first, log.last) == (1501, 2000)
        assert contents(log, 1500) == expected(2000, 1500)
        assert contents(log, 1700) == expected(2000, 1700)

    def test_what_was_trimmed_cannot_be_replayed(self, log: EventLog) -> None:
        log.append(records(1, 20))
        log.trim(Offset(10))
        for after in (0, 9):
            with pytest.raises(Trimmed, match=rf"follows offset {after}, and begins at offset 11"):
                contents(log, after)

    def test_trimming_what_is_being_replayed(self, log: EventLog) -> None:
        log.append(records(1, 2000))
        replaying = log.replay()
        next(replaying)
        log.trim(Offset(1999), most=2000)
        with pytest.raises(Trimmed):
            list(replaying)

    def test_goes_on_after_everything_was_trimmed(self, log: EventLog) -> None:
        log.append(records(1, 10))
        assert log.trim(Offset(99)) == 0
        assert (log.first, log.last) == (11, 10)
        assert contents(log, 10) == []
        assert log.sync() == 10
        assert log.append(records(11, 12)) == 12
        assert contents(log, 10) == expected(12, 10)

    def test_trims_what_was_erased(self, log: EventLog) -> None:
        log.append([owned(i, "ann" if i % 3 else "bob") for i in range(1, 21)])
        log.forget("ann", Offset(20))
        log.trim(Offset(10))
        assert log.forget("ann", Offset(20)) == 0
        assert log.forget("bob", Offset(11)) == 0
        assert contents(log, 10) == [(i, b"" if i % 3 else record(i).body) for i in range(11, 21)]

    def test_says_what_is_older(self, log: EventLog) -> None:
        assert log.offset_at(5.0) == 0
        times = [1.0, 2.0, 2.0, 2.0, 3.5, 9.0]
        log.append([Record(f"e{i}", "k", ts, b"x") for i, ts in enumerate(times)])
        at = {0.5: 0, 1.0: 0, 1.5: 1, 2.0: 1, 2.1: 4, 3.5: 4, 8.0: 5, 9.0: 5, 9.5: 6}
        assert {ts: log.offset_at(ts) for ts in at} == at
        log.trim(Offset(4))
        assert [log.offset_at(ts) for ts in (1.5, 3.5, 3.6, 99.0)] == [0, 0, 5, 6]

    def test_size_grows_with_what_it_holds_and_shrinks_with_what_is_trimmed(
        self, log: EventLog
    ) -> None:
        log.append([record(i, 2000) for i in range(1, 101)])
        small = log.size_bytes
        assert small >= 200_000
        log.append([record(i, 2000) for i in range(101, 2101)])
        large = log.size_bytes
        assert large >= small + 4_000_000
        while log.trim(Offset(2000)):
            pass
        assert log.size_bytes < large - 2_500_000

    def test_is_trimmed_and_erased_when_opened_again(self, opened: Callable[[], EventLog]) -> None:
        if not self.durable:
            pytest.skip("keeps nothing beyond its process")
        log = opened()
        log.append([owned(i, "ann" if i % 5 == 0 else "") for i in range(1, 1001)])
        log.trim(Offset(700), most=700)
        log.forget("ann", Offset(800))
        left = [(i, b"" if i % 5 == 0 and i <= 800 else record(i).body) for i in range(701, 1001)]
        assert contents(log, 700) == left
        log.close()
        log = opened()
        assert (log.first, log.last) == (701, 1000)
        assert contents(log, 700) == left
        log.trim(Offset(1000), most=1000)
        log.close()
        log = opened()
        assert (log.first, log.last) == (1001, 1000)
        assert log.append([record(1001)]) == 1001
        assert contents(log, 1000) == [(1001, record(1001).body)]
