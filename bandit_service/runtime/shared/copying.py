"""A replica's own copy of the shared log, brought up to date before the start continues."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bandit_service.runtime.shared.checkpoint import Checkpoint, Place
from store import (
    EventLog,
    Offset,
    Record,
    SharedLog,
    StoreError,
    Unsupported,
    keeps_erased,
)

_AT_ONCE = 1000


class OtherLog(StoreError):
    """The copy does not belong to the log in the database."""


async def copied(
    shared: SharedLog,
    copy: EventLog,
    checkpoint: Checkpoint,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Append the missing records to the copy.

    Raises OtherLog if it has records that the log does not have.
    """
    state = await shared.state()
    checkpoint.place = await _compared(shared, copy, checkpoint.place, state.horizon)
    at = copy.last
    while rows := await shared.tail(at, _AT_ONCE):
        at = _appended(copy, [each.record for each in rows])
        if progress is not None:
            progress(int(at), max(int(at), state.horizon))
        checkpoint.place = Place(int(at), rows[-1].chain.hex())
    copy.sync()
    checkpoint.write()


def _appended(copy: EventLog, records: Sequence[Record]) -> Offset:
    if all(each.body for each in records):
        return copy.append(records)
    if not keeps_erased(copy):
        raise Unsupported(copy, "be a copy of one with erased records")
    return copy.append_copied(records)


async def _compared(shared: SharedLog, copy: EventLog, place: Place, horizon: int) -> Place:
    if copy.last > horizon:
        raise OtherLog(
            f"this data_dir has a log of {copy.last} events, the database one of {horizon}; "
            "docs/scale.md says what to do where a failover lost records, or where the directory "
            "was served without the database before"
        )
    since = Place()
    if 0 < place.offset <= copy.last:
        if (await shared.chain_at(Offset(place.offset))).hex() != place.chain:
            raise _other(place.offset)
        since = place
    return await same_until(shared, copy, since, copy.last)


async def same_until(shared: SharedLog, copy: EventLog, since: Place, last: Offset) -> Place:
    """Raise OtherLog if the two differ after `since` and up to `last`; returns the newest place
    where they agree.
    """
    at, place = Offset(since.offset), since
    ours = copy.replay(at)
    while at < last:
        rows = await shared.tail(at, _AT_ONCE)
        if not rows:
            raise _other(int(at) + 1)
        for each in rows:
            found = next(ours, None)
            if found is None:
                return place
            at = found[0]
            theirs = each.record.body
            if found[1] != theirs and found[1] and theirs:  # erased here, there, or at neither
                raise _other(int(at))
            if each.chain:
                place = Place(int(at), each.chain.hex())
    return place


def _other(offset: int) -> OtherLog:
    return OtherLog(
        f"the log in this data_dir and that in the database differ at or before {offset}; "
        "docs/scale.md says what to do"
    )
