"""Answered decisions that are not in the shared log yet, written to the kernel of this machine.

So a killed process loses none: the next start appends what it finds here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path

import store
from bandit_service.core import events as ev
from store import (
    Corrupt,
    EventLog,
    Offset,
    Record,
    StoreError,
    can_erase,
    can_trim,
    first_of,
    keeps_erased,
)

_LATE_S = 3600.0
"""By how much a decision may be older than records before it: it waited for the log so long."""


class SpoolDamaged(StoreError):
    """The file has answered decisions that nobody can read."""


class Spool:
    """A log in a separate file, whose beginning is deleted once the shared log has it.

    Raises SpoolDamaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._told():
            self._log = store.open_log(path)
        self._kept: dict[str, int] = {}

    def __len__(self) -> int:
        """How many decisions are not in the shared log."""
        return len(self._kept)

    def left(self) -> Iterator[ev.Decided]:
        """The decisions of an earlier process, oldest first;

        they are kept until they are dropped.
        """
        with self._told():
            for at, body in self._log.replay(Offset(first_of(self._log) - 1)):
                if not body:  # lost before a repair
                    continue
                event = ev.decode(body)
                assert isinstance(event, ev.Decided)
                self._kept[event.id] = int(at)
                yield event

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Corrupt as error:
            raise SpoolDamaged(
                f"the spool {self._path}, with answered decisions that the shared log may not have "
                f"yet, is damaged at offset {error.offset}: {error.reason}; `bandit-service "
                "inspect --spool --repair` saves what can be read, and the next start appends it"
            ) from None

    def keep(self, records: Sequence[Record]) -> None:
        """Write them to the kernel. Raises Full."""
        last = int(self._log.append(records))
        for at, each in enumerate(records, last - len(records) + 1):
            self._kept[each.eid] = at

    def drop(self, id: str) -> None:
        """The shared log has it."""
        self._kept.pop(id, None)

    def trim(self) -> None:
        """Delete decisions up to the oldest one that is still needed."""
        if not can_trim(self._log):
            return
        upto = next(iter(self._kept.values()), int(self._log.last) + 1) - 1
        while upto >= self._log.first and self._log.trim(Offset(upto)):
            pass

    def forget(self, owner: str) -> None:
        """Erase from the file what the shared log has of an owner."""
        self.trim()
        upto = next(iter(self._kept.values()), int(self._log.last) + 1) - 1
        if can_erase(self._log):
            self._log.forget(owner, Offset(upto))

    def close(self) -> None:
        """Close the file."""
        self._log.close()


def copied(copy: EventLog, events: Sequence[ev.Decided]) -> Set[str]:
    """The ids of those that a replica's copy has, and so the log had.

    The log does not say so any more of a record that it deleted, and would take it twice.
    """
    if not events or not can_trim(copy):
        return set()
    after = copy.offset_at(min(event.ts for event in events) - _LATE_S)
    begin, ids = max(after, Offset(copy.first - 1)), {event.id for event in events}
    if not keeps_erased(copy):
        return set()
    return {record.eid for _, record in copy.records(begin) if record.eid in ids}
