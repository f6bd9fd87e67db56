"""What every EventLog must do. Subclass `LogSuite`, say how to make one, and run it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from bandit_service.testing.log_records import contents, expected, record, records
from bandit_service.testing.optional_logs import ErasableLogs, TrimmableLogs, WholeLogs
from store import Closed, Duplicate, EventLog, Record


class LogSuite(TrimmableLogs, ErasableLogs, WholeLogs):
    """Offsets from 1 without gaps, all or nothing, and the same again after reopening.

    What a log need not do (`store.Trimmable`, `store.Erasable`) is skipped where it does not.
    """

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

    def test_takes_small_and_large_ones_together(self, log: EventLog) -> None:
        sizes = [1, 200_000, 20, 70_000, 70_000, *[3] * 200, 131_072, 1]
        batch = [record(i, size) for i, size in enumerate(sizes, 1)]
        assert log.append(batch) == len(sizes)
        assert log.append([record(len(sizes) + 1)]) == len(sizes) + 1
        for after in (0, 1, 3, 4, 68, 69, 205, 206, len(sizes)):
            whole = [*batch, record(len(sizes) + 1)]
            assert contents(log, after) == [
                (i, each.body) for i, each in enumerate(whole, 1) if i > after
            ]

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
