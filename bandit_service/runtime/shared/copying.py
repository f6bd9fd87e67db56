"""A replica's own copy of the shared log, brought up to date before the start continues."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from bandit_service.runtime.shared.checkpoint import Checkpoint, Place
from store import (
    EventLog,
    LogState,
    Offset,
    Record,
    SharedLog,
    StoreError,
    Trimmed,
    Unsupported,
    first_of,
    keeps_erased,
)

_log = logging.getLogger("bandit.replica")
_AT_ONCE = 1000


class OtherLog(StoreError):
    """The copy does not belong to the log in the database."""


async def copied(
    shared: SharedLog,
    copy: EventLog,
    checkpoint: Checkpoint,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Append the missing records to the copy. If the log does not have all of these any more, the
    copy begins anew where the log begins; whether it did.

    Raises OtherLog if it has records that the log does not have.
    """
    is_anew = False
    while True:
        state = await shared.state()
        try:
            checkpoint.place = await _compared(shared, copy, checkpoint.place, state)
            await _copy(shared, copy, checkpoint, state.horizon, progress)
        except Trimmed as error:  # in the meantime, or while this replica was away
            _begin_after(copy, Offset(error.first - 1))
            checkpoint.place, is_anew = Place(), True
        else:
            copy.sync()
            checkpoint.write()
            return is_anew


async def _copy(
    shared: SharedLog,
    copy: EventLog,
    checkpoint: Checkpoint,
    horizon: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    at = copy.last
    while rows := await shared.tail(at, _AT_ONCE):
        at = _appended(copy, [each.record for each in rows])
        if progress is not None:
            progress(int(at), max(int(at), horizon))
        checkpoint.place = Place(int(at), rows[-1].chain.hex())


def _begin_after(copy: EventLog, offset: Offset) -> None:
    if not keeps_erased(copy):
        raise Unsupported(copy, "be a copy of one whose oldest records are deleted")
    _log.info("the copy begins anew", extra={"after": int(offset), "before": int(copy.last)})
    copy.begin_after(offset)


def _appended(copy: EventLog, records: Sequence[Record]) -> Offset:
    if all(each.body for each in records):
        return copy.append(records)
    if not keeps_erased(copy):
        raise Unsupported(copy, "be a copy of one with erased records")
    return copy.append_copied(records)


async def _compared(shared: SharedLog, copy: EventLog, place: Place, state: LogState) -> Place:
    if copy.last > state.horizon:
        raise OtherLog(
            f"this data_dir has a log of {copy.last} events, the database one of {state.horizon}; "
            "docs/scale.md says what to do where a failover lost records, or where the directory "
            "was served without the database before"
        )
    if copy.last < state.base:
        raise Trimmed(int(copy.last), state.base + 1)
    since = since_of(place, copy, state.base)
    if since.chain and (await shared.chain_at(Offset(since.offset))).hex() != since.chain:
        raise _other(since.offset)
    return await same_until(shared, copy, since, copy.last)


def since_of(place: Place, copy: EventLog, base: int) -> Place:
    """From where on two logs are to be compared: a place that both have, or where the one begins
    that begins later.
    """
    begin = max(base, int(first_of(copy)) - 1)
    return place if begin < place.offset <= copy.last else Place(begin)


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
