"""What every log of several writers must do. Subclass `SharedSuite` where a fixture is `joined`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

import pytest

from bandit_service.testing.log_records import owned, record, records
from store import (
    Duplicate,
    Entry,
    Fenced,
    Mark,
    Membership,
    Offset,
    OtherKey,
    Outdated,
    SharedLog,
    Tailed,
    Trimmed,
    can_erase_shared,
)


class OpenedLog(SharedLog, Protocol):
    """A log that remembers what it is to the others."""

    member: Membership


Joined = Callable[..., Awaitable[OpenedLog]]
"""Called with the name of a replica, and maybe its key and the log's."""


def entries(first: int, last: int, subject: str = "", seen: int = 0) -> list[Entry]:
    return [Entry(each, subject.encode(), seen) for each in records(first, last)]


async def all_of(log: SharedLog) -> list[Tailed]:
    return await all_of_after(log, 0)


async def all_of_after(log: SharedLog, after: int) -> list[Tailed]:
    found: list[Tailed] = []
    at = Offset(after)
    while some := await log.tail(at, 512):
        found += some
        at = some[-1].offset
    return found


class SharedSuite:
    """Order, conflicts, fences, leases, snapshots."""

    async def test_appends_of_several_writers_have_one_order_without_gaps(
        self, joined: Joined
    ) -> None:
        logs = [await joined(f"r{i}") for i in range(3)]

        async def writes(log: SharedLog, first: int) -> None:
            for i in range(20):
                await log.append(entries(first + 5 * i, first + 5 * i + 4), 0.0)

        await asyncio.gather(*(writes(log, 1000 * i) for i, log in enumerate(logs, 1)))
        seen = [[(one.offset, one.record.eid) for one in await all_of(log)] for log in logs]
        assert seen[0] == seen[1] == seen[2]
        assert [int(at) for at, _ in seen[0]] == list(range(1, 301))
        assert len({eid for _, eid in seen[0]}) == 300
        for i in range(3):  # each writer's own stand in the order in which it appended them
            own = [int(eid[1:]) for _, eid in seen[0] if eid.startswith(f"e{i + 1}")]
            assert own == sorted(own)

    async def test_a_record_that_was_checked_against_less_than_there_is_is_refused(
        self, joined: Joined
    ) -> None:
        one, other = await joined("one"), await joined("other")
        assert await one.append(entries(1, 2, "decision"), 0.0) == 2
        with pytest.raises(Outdated) as refused:
            await other.append([Entry(record(3)), *entries(4, 4, "decision", seen=1)], 0.0)
        assert refused.value.newer == {1: 2}
        assert (await other.state()).head == 2
        # what was seen, and another subject, are no conflict
        assert await other.append(entries(5, 5, "decision", seen=2), 0.0) == 3
        assert await other.append(entries(6, 6, "another"), 0.0) == 4

    async def test_a_second_process_of_one_name_fences_the_first(self, joined: Joined) -> None:
        first = await joined("one")
        second = await joined("one")
        assert second.member.slot == first.member.slot
        with pytest.raises(Fenced):
            await first.append(entries(1, 1), 0.0)
        assert await second.append(entries(1, 1), 0.0) == 1

    async def test_who_folds_otherwise_may_not_join_beside_an_open_replica(
        self, joined: Joined
    ) -> None:
        one = await joined("one", "nested")
        with pytest.raises(OtherKey, match="nested"):
            await joined("other", "uniform")
        await one.leave()
        assert (await joined("other", "uniform")).member.slot == 2

    async def test_settled_is_that_of_the_slowest_and_not_of_who_left(self, joined: Joined) -> None:
        one, other = await joined("one"), await joined("other")
        await one.beat(100.0, 0)
        assert (await one.state()).settled == 0.0
        await other.beat(50.0, 0)
        assert (await one.state()).settled == 50.0
        await other.leave()
        assert (await one.state()).settled == 100.0
        assert [(each.name, each.closed) for each in await one.replicas()] == [
            ("one", False),
            ("other", True),
        ]

    async def test_a_digest_is_told_to_the_others_until_its_replica_joins_again(
        self, joined: Joined
    ) -> None:
        one, other = await joined("one"), await joined("other")
        await one.beat(0.0, 5, Mark(4, "abc"))
        assert [each.mark for each in await other.replicas()] == [Mark(4, "abc"), Mark()]
        await one.join("one", "key")
        assert [each.mark for each in await other.replicas()] == [Mark(), Mark()]

    async def test_an_id_that_is_there_is_refused_and_can_be_found(self, joined: Joined) -> None:
        log = await joined("one")
        await log.append(entries(1, 2), 0.0)
        with pytest.raises(Duplicate, match="'e2'"):
            await log.append(entries(2, 3), 0.0)
        assert await log.find(["e1", "e2", "e3"]) == {"e1": 1, "e2": 2}

    async def test_an_append_larger_than_a_page_is_tailed_whole(self, joined: Joined) -> None:
        log = await joined("one")
        await log.append(entries(1, 30), 0.0)
        assert len(await log.tail(Offset(0), 7)) == 30
        await log.append(entries(31, 40), 0.0)
        assert [each.offset for each in await log.tail(Offset(0), 35)] == list(range(1, 31))

    async def test_a_silent_replica_is_closed_and_appends_no_more_until_it_joins(
        self, joined: Joined
    ) -> None:
        one, other = await joined("one"), await joined("other")
        assert await other.close_silent(60.0) == 0
        while await other.close_silent(0.2) == 0:
            await other.beat(0.0, 0)
            await asyncio.sleep(0.01)
        with pytest.raises(Fenced):
            await one.append(entries(1, 1), 0.0)
        with pytest.raises(Fenced):
            await one.append(entries(1, 1, "decision"), 0.0)
        with pytest.raises(Fenced):
            await one.beat(0.0, 0)
        assert (await other.state()).head == 0
        before = one.member
        await one.join("one", "key")
        assert (one.member.slot, one.member.epoch) == (before.slot, before.epoch + 1)
        assert await one.append(entries(1, 1), 0.0) == 1

    async def test_a_lease_has_one_holder_and_its_epoch_fences_the_one_before(
        self, joined: Joined
    ) -> None:
        one, other = await joined("one"), await joined("other")
        held = await one.lead("keeper", None, 60.0)
        assert held is not None
        assert await other.lead("keeper", None, 60.0) is None
        assert await one.lead("keeper", held, 0.1) == held
        assert await one.append(entries(1, 2), 0.0, held) == 2
        while (taken := await other.lead("keeper", None, 60.0)) is None:
            await asyncio.sleep(0.01)
        assert taken.epoch == held.epoch + 1
        assert await one.lead("keeper", held, 60.0) is None
        with pytest.raises(Fenced):
            await one.append(entries(3, 3), 0.0, held)
        assert await other.append(entries(3, 3), 0.0, taken) == 3
        assert [(each.name, each.roles) for each in await one.replicas()] == [
            ("one", ()),
            ("other", ("keeper",)),
        ]
        await other.leave()
        again = await one.lead("keeper", None, 60.0)  # who leaves lets go of it
        assert again is not None
        assert await one.append(entries(4, 4), 0.0, again) == 4

    async def test_snapshots_are_kept_whole_and_the_newest_is_found(self, joined: Joined) -> None:
        log = await joined("one")
        states = {at: bytes([at]) * ((1 << 20) + at) for at in range(1, 6)}
        for at, state in states.items():
            await log.save_snapshot("key", Offset(at), state, 3)
        await log.save_snapshot("other", Offset(9), b"another", 3)
        assert await log.newest_snapshot("key", Offset(0), Offset(99)) == (5, states[5])
        assert await log.newest_snapshot("key", Offset(0), Offset(4)) == (4, states[4])
        assert await log.newest_snapshot("key", Offset(0), Offset(2)) is None  # only three are kept
        assert await log.newest_snapshot("key", Offset(5), Offset(99)) is None
        assert await log.newest_snapshot("unheard of", Offset(0), Offset(99)) is None

    async def test_an_older_snapshot_that_comes_late_takes_no_newer_ones_place(
        self, joined: Joined
    ) -> None:
        """A keeper that stood still puts it there after the next one has put its own."""
        log = await joined("one")
        for at in (3, 9, 7, 4, 9, 8):
            await log.save_snapshot("key", Offset(at), b"of %d" % at, 2)
        assert await log.snapshots() == [("key", 9), ("key", 8)]
        assert await log.newest_snapshot("key", Offset(0), Offset(99)) == (9, b"of 9")
        await log.save_snapshot("key", Offset(5), b"of 5", 1)
        assert await log.snapshots() == [("key", 9)]

    async def test_a_chain_tells_one_past_from_another(self, joined: Joined) -> None:
        one = await joined("one")
        await one.append(entries(1, 2), 0.0)
        await one.append(entries(3, 3), 0.0)
        chains = [each.chain for each in await all_of(one)]
        assert chains[0] == b""
        assert await one.chain_at(Offset(1)) == await one.chain_at(Offset(9)) == b""
        assert await one.chain_at(Offset(2)) == chains[1] != b""
        another = await joined("one", log="again")
        await another.append([Entry(record(2)), Entry(record(1))], 0.0)
        await another.append(entries(3, 3), 0.0)
        assert await another.chain_at(Offset(3)) != chains[2]

    async def test_what_is_trimmed_is_told_and_the_others_keep_their_offsets(
        self, joined: Joined
    ) -> None:
        one, other = await joined("one"), await joined("other")
        for first in (1, 4, 7):
            await one.append(entries(first, first + 2, f"s{first}"), 0.0)
        before = {int(each.offset): each.chain for each in await all_of(other)}
        assert (await one.state()).base == 0
        await one.trim(Offset(4))  # in the middle of an append
        assert [(each.head, each.base) for each in (await one.state(), await other.state())] == [
            (9, 4)
        ] * 2
        for log, after in ((one, 0), (other, 3)):
            with pytest.raises(Trimmed) as told:
                await log.tail(Offset(after), 512)
            assert (told.value.after, told.value.first) == (after, 5)
        kept = await all_of_after(other, 4)
        assert [(int(each.offset), each.record) for each in kept] == [
            (at, record(at)) for at in range(5, 10)
        ]
        assert {int(each.offset): each.chain for each in kept}.items() <= before.items()
        assert await one.find(["e3", "e5"]) == {"e5": 5}
        # a subject whose records may have been trimmed unseen is checked again
        with pytest.raises(Outdated) as refused:
            await other.append(
                [*entries(10, 10, "s4", seen=3), *entries(11, 11, "s7", seen=9)], 0.0
            )
        assert refused.value.newer[0] >= 4
        assert await other.append(entries(10, 10, "s1", seen=4), 0.0) == 10
        await one.trim(Offset(3))  # nothing comes back
        await one.trim(Offset(10))
        assert (await other.state()).base == 10
        assert await other.tail(Offset(10), 512) == []
        assert await one.append(entries(12, 13, "s1", seen=10), 0.0) == 12
        assert await other.append(entries(14, 14), 0.0) == 13
        third = await joined("third")
        assert [int(each.offset) for each in await all_of_after(third, 10)] == [11, 12, 13]

    async def test_erased_records_keep_what_they_are_found_by(self, joined: Joined) -> None:
        one, other = await joined("one"), await joined("other")
        assert can_erase_shared(one)
        assert one.cannot_erase == ""
        # the first, one in the middle of an append, and the last of their subjects
        owners = ["ann", "bob", "ann", "bob", "ann"]
        await one.append([Entry(owned(1, "ann"))], 0.0)
        whole = [Entry(owned(i, owners[i - 1]), b"s") for i in range(2, 6)]
        await one.append(whole, 0.0)
        before = await all_of(other)
        assert await one.forget(["ann", "nobody"], Offset(4)) == 2
        assert await one.forget(["ann"], Offset(4)) == 0
        assert await one.forget(["ann"], Offset(5)) == 1
        third = await joined("third")
        await third.append([Entry(record(6))], 0.0)
        gone = {1, 3, 5}
        for log in (one, third):
            found = [each for each in await all_of(log) if each.offset <= 5]
            assert found == [
                replace(each, record=each.record._replace(body=b""))
                if each.offset in gone
                else each
                for each in before
            ]
            for each in before:
                assert await log.chain_at(each.offset) == each.chain
        assert (await other.state()).base == 0
        # the subjects go on
        assert await one.append([Entry(record(7)), Entry(record(8), b"s", 5)], 0.0) == 8
        with pytest.raises(Outdated):
            await other.append([Entry(record(9), b"s", 5)], 0.0)
        with pytest.raises(ValueError, match="owners: none must be empty"):
            await one.forget(["ann", ""], Offset(8))
        await one.trim(Offset(4))
        await all_of_after(other, 4)
        await one.trim(Offset(6))
        assert [int(each.offset) for each in await all_of_after(other, 6)] == [7, 8]

    async def test_a_log_is_copied_with_its_holes_and_its_beginning(self, joined: Joined) -> None:
        one = await joined("one")
        await one.begin_after(Offset(70))
        assert [(each.head, each.base) for each in [await one.state()]] == [(70, 70)]
        with_holes = [
            owned(i, "ann")._replace(body=b"") if i % 3 else owned(i, "bob") for i in range(71, 79)
        ]
        assert await one.append_copied(with_holes[:5]) == 75
        await one.begin_after(Offset(90))  # it has records
        assert await one.append_copied(with_holes[5:]) == 78
        await one.beat(0.0, 0)
        other = await joined("other")
        found = await all_of_after(other, 70)
        assert [(int(each.offset), each.record) for each in found] == list(
            enumerate(with_holes, 71)
        )
        with pytest.raises(Trimmed):
            await other.tail(Offset(0), 512)
        assert can_erase_shared(one)
        assert await one.forget(["ann", "bob"], Offset(78)) == 3
        assert not any(each.record.body for each in await all_of_after(await joined("third"), 70))

    async def test_snapshots_are_listed_the_newest_first(self, joined: Joined) -> None:
        log = await joined("one")
        assert await log.snapshots() == []
        for key, at in (("one", 3), ("other", 5), ("one", 4)):
            await log.save_snapshot(key, Offset(at), f"{key} {at}".encode(), 2)
        assert await log.snapshots() == [("other", 5), ("one", 4), ("one", 3)]

    async def test_only_one_of_two_at_once_is_let_in(self, joined: Joined) -> None:
        logs = [await joined(f"r{i}") for i in range(3)]
        for turn in range(20):
            seen = (await logs[0].state()).head
            tried = await asyncio.gather(
                *(
                    log.append(entries(10 * turn + i, 10 * turn + i, f"d{turn}", seen), 0.0)
                    for i, log in enumerate(logs)
                ),
                return_exceptions=True,
            )
            refused = [each for each in tried if isinstance(each, Outdated)]
            assert len(refused) == 2
            assert all(each.newer == {0: seen + 1} for each in refused)
        assert len(await all_of(logs[0])) == 20

    async def test_who_leaves_in_the_middle_cuts_nobody_off(self, joined: Joined) -> None:
        """A client of GET /v1/replicas that goes does not take the log from its replica."""
        log = await joined("one")
        await log.append(entries(1, 2), 0.0)
        for work in (log.replicas(), log.tail(Offset(0), 512), log.state()):
            under_way = asyncio.ensure_future(work)
            await asyncio.sleep(0)
            under_way.cancel()
            with pytest.raises(asyncio.CancelledError):
                await under_way
        assert len(await log.replicas()) == 1
        assert [each.offset for each in await all_of(log)] == [1, 2]
        assert await log.append(entries(5, 5), 0.0) == 3

    async def test_what_a_replica_reads_is_told_to_the_others(self, joined: Joined) -> None:
        one, other = await joined("one"), await joined("other")
        assert [each.reads for each in await one.replicas()] == [1, 1]
        await other.join("other", "key", 2)
        assert [each.reads for each in await one.replicas()] == [1, 2]
        await other.join("other", "key")
        assert [each.reads for each in await one.replicas()] == [1, 1]

    async def test_a_replica_is_never_seen_without_what_it_reads(self, joined: Joined) -> None:
        """Else a replica of this release is taken for an older one: a budget's slice was 503."""
        one, other = await joined("one"), await joined("other")
        joins = 0

        async def again() -> None:
            nonlocal joins
            for _ in range(20):
                await other.join("other", "key", 2)
                joins += 1

        await other.join("other", "key", 2)
        joining = asyncio.ensure_future(again())
        seen = set()
        while not joining.done():
            seen |= {each.reads for each in await one.replicas() if each.name == "other"}
        await joining
        assert (joins, seen) == (20, {2})
