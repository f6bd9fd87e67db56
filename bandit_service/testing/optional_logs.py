"""What an event log must do that can delete its oldest records, or erase those of an owner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, cast

import pytest

from bandit_service.testing.log_records import contents, expected, owned, record, records
from store import (
    Closed,
    Duplicate,
    Erasable,
    EventLog,
    Offset,
    Record,
    Trimmable,
    Trimmed,
    can_erase,
    can_trim,
    first_of,
)


class Whole(Trimmable, Erasable, Protocol):
    """A log that can do both."""


class OpenedLogs:
    """How a test comes by its log."""

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

    @pytest.fixture
    def trimmable(self, log: EventLog) -> Trimmable:
        if not can_trim(log):
            pytest.skip("not applicable: it does not delete its oldest records (store.Trimmable)")
        return log

    @pytest.fixture
    def erasable(self, log: EventLog) -> Erasable:
        if not can_erase(log):
            pytest.skip("not applicable: it does not erase an owner's records (store.Erasable)")
        return log

    @pytest.fixture
    def whole(self, erasable: Erasable, request: pytest.FixtureRequest) -> Whole:
        request.getfixturevalue("trimmable")
        return cast("Whole", erasable)


class ErasableLogs(OpenedLogs):
    """Bodies of an owner's records go; offsets, ids and times stay."""

    def test_forgets_an_owner_up_to_an_offset(self, erasable: Erasable) -> None:
        owners = ["ann", "bob", "", "ann", "ann", "bob"]
        erasable.append([owned(i + 1, owner) for i, owner in enumerate(owners)])
        assert erasable.forget("ann", Offset(4)) == 2
        assert [body for _, body in contents(erasable)] == [
            b"" if i in (1, 4) else record(i).body for i in range(1, 7)
        ]
        assert erasable.forget("ann", Offset(4)) == 0
        assert erasable.forget("ann", Offset(99)) == 1
        assert erasable.forget("nobody", Offset(99)) == 0
        assert (first_of(erasable), erasable.last) == (1, 6)
        assert erasable.append([owned(7, "ann")]) == 7
        assert contents(erasable, 4) == [(5, b""), (6, record(6).body), (7, record(7).body)]

    def test_forgetting_nobody_is_refused(self, erasable: Erasable) -> None:
        erasable.append(records(1, 3))
        with pytest.raises(ValueError, match="owner: must not be empty"):
            erasable.forget("", Offset(3))
        assert contents(erasable) == expected(3)

    def test_an_erased_record_keeps_its_id(self, erasable: Erasable) -> None:
        erasable.append([owned(1, "ann")])
        erasable.forget("ann", Offset(1))
        with pytest.raises(Duplicate):
            erasable.append([record(1)])

    def test_forgets_the_newest_and_goes_on(self, erasable: Erasable) -> None:
        erasable.append([owned(1, "ann"), owned(2, "ann", 9000)])
        assert erasable.forget("ann", Offset(2)) == 2
        erasable.append([record(3)])
        assert contents(erasable) == [(1, b""), (2, b""), (3, record(3).body)]

    def test_forgets_more_than_a_chunk(self, erasable: Erasable) -> None:
        erasable.append([owned(i, "ann" if i % 2 else "bob") for i in range(1, 2601)])
        assert erasable.forget("ann", Offset(2600)) == 1300
        assert [body for _, body in contents(erasable)][:4] == [
            b"",
            record(2).body,
            b"",
            record(4).body,
        ]

    def test_closed_it_erases_nothing(self, erasable: Erasable) -> None:
        erasable.close()
        with pytest.raises(Closed):
            erasable.forget("ann", Offset(1))


class TrimmableLogs(OpenedLogs):
    """The oldest records are deleted; the others keep their offsets."""

    def test_trims_the_oldest_in_pieces(self, trimmable: Trimmable) -> None:
        trimmable.append(records(1, 2000))
        assert trimmable.first == 1
        assert trimmable.trim(Offset(1500), most=1000) == 500
        assert (trimmable.first, trimmable.last) == (1001, 2000)
        assert trimmable.trim(Offset(1500), most=1000) == 0
        assert trimmable.trim(Offset(1500), most=1) == 0
        assert trimmable.trim(Offset(3)) == 0
        assert (trimmable.first, trimmable.last) == (1501, 2000)
        assert contents(trimmable, 1500) == expected(2000, 1500)
        assert contents(trimmable, 1700) == expected(2000, 1700)

    def test_what_was_trimmed_cannot_be_replayed(self, trimmable: Trimmable) -> None:
        trimmable.append(records(1, 20))
        trimmable.trim(Offset(10))
        for after in (0, 9):
            with pytest.raises(
                Trimmed,
                match=rf"after offset {after} were requested, but the log begins at offset 11",
            ):
                contents(trimmable, after)

    def test_trimming_what_is_being_replayed(self, trimmable: Trimmable) -> None:
        trimmable.append(records(1, 2000))
        replaying = trimmable.replay()
        next(replaying)
        trimmable.trim(Offset(1999), most=2000)
        with pytest.raises(Trimmed):
            list(replaying)

    def test_goes_on_after_everything_was_trimmed(self, trimmable: Trimmable) -> None:
        trimmable.append(records(1, 10))
        assert trimmable.trim(Offset(99)) == 0
        assert (trimmable.first, trimmable.last) == (11, 10)
        assert contents(trimmable, 10) == []
        assert trimmable.sync() == 10
        assert trimmable.append(records(11, 12)) == 12
        assert contents(trimmable, 10) == expected(12, 10)

    def test_says_what_is_older(self, trimmable: Trimmable) -> None:
        assert trimmable.offset_at(5.0) == 0
        times = [1.0, 2.0, 2.0, 2.0, 3.5, 9.0]
        trimmable.append([Record(f"e{i}", "k", ts, b"x") for i, ts in enumerate(times)])
        at = {0.5: 0, 1.0: 0, 1.5: 1, 2.0: 1, 2.1: 4, 3.5: 4, 8.0: 5, 9.0: 5, 9.5: 6}
        assert {ts: trimmable.offset_at(ts) for ts in at} == at
        trimmable.trim(Offset(4))
        assert [trimmable.offset_at(ts) for ts in (1.5, 3.5, 3.6, 99.0)] == [0, 0, 5, 6]

    def test_size_grows_with_what_it_holds_and_shrinks_with_what_is_trimmed(
        self, trimmable: Trimmable
    ) -> None:
        trimmable.append([record(i, 2000) for i in range(1, 101)])
        small = trimmable.size_bytes
        assert small >= 200_000
        trimmable.append([record(i, 2000) for i in range(101, 2101)])
        large = trimmable.size_bytes
        assert large >= small + 4_000_000
        while trimmable.trim(Offset(2000)):
            pass
        assert trimmable.size_bytes < large - 2_500_000

    def test_closed_it_deletes_nothing(self, trimmable: Trimmable) -> None:
        trimmable.close()
        with pytest.raises(Closed):
            trimmable.trim(Offset(1))
        with pytest.raises(Closed):
            trimmable.offset_at(0.0)


class WholeLogs(OpenedLogs):
    """Both together."""

    @pytest.mark.parametrize("batch", [1, 7, 64, 65, 300])
    def test_trims_and_erases_inside_of_a_batch(
        self, whole: Whole, opened: Callable[[], EventLog], batch: int
    ) -> None:
        log, owners = whole, ["", "ann", "bob"]
        for first in range(1, 301, batch):
            last = min(300, first + batch - 1)
            log.append([owned(i, owners[i % 3]) for i in range(first, last + 1)])
        for trimmed, erased in ((37, 150), (63, 90), (64, 200), (130, 131)):
            log.trim(Offset(trimmed))
            log.forget("ann", Offset(erased))
        left = {i: b"" if i % 3 == 1 and i <= 200 else record(i).body for i in range(131, 301)}
        for _ in range(1 + self.durable):
            assert (log.first, log.last) == (131, 300)
            for after in (130, 131, 191, 192, 193, 199, 256, 299, 300):
                assert contents(log, after) == [(i, left[i]) for i in left if i > after]
                assert log.offset_at(record(max(after, 131) + 1).ts) == max(after, 131)
            with pytest.raises(Trimmed):
                contents(log, 129)
            with pytest.raises(Duplicate):
                log.append([record(301), record(133)])
            if self.durable:
                log.close()
                log = cast("Whole", opened())

    def test_trims_what_was_erased(self, whole: Whole) -> None:
        log = whole
        log.append([owned(i, "ann" if i % 3 else "bob") for i in range(1, 21)])
        log.forget("ann", Offset(20))
        log.trim(Offset(10))
        assert log.forget("ann", Offset(20)) == 0
        assert log.forget("bob", Offset(11)) == 0
        assert contents(log, 10) == [(i, b"" if i % 3 else record(i).body) for i in range(11, 21)]

    def test_is_trimmed_and_erased_when_opened_again(
        self, whole: Whole, opened: Callable[[], EventLog]
    ) -> None:
        if not self.durable:
            pytest.skip("keeps nothing beyond its process")
        log = whole
        log.append([owned(i, "ann" if i % 5 == 0 else "") for i in range(1, 1001)])
        log.trim(Offset(700), most=700)
        log.forget("ann", Offset(800))
        left = [(i, b"" if i % 5 == 0 and i <= 800 else record(i).body) for i in range(701, 1001)]
        assert contents(log, 700) == left
        log.close()
        log = cast("Whole", opened())
        assert (log.first, log.last) == (701, 1000)
        assert contents(log, 700) == left
        log.trim(Offset(1000), most=1000)
        log.close()
        log = cast("Whole", opened())
        assert (log.first, log.last) == (1001, 1000)
        assert log.append([record(1001)]) == 1001
        assert contents(log, 1000) == [(1001, record(1001).body)]
