"""Checks that all replicas have the same state: each publishes its digest at the same offsets, and
compares.

Replicas that applied the same events have the same state, bit for bit. If they do not, one of them
has a fault: of its memory, its processor, or the fold's code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from store import Mark, Replica, StoreError

_KEPT = 8
"""The number of earlier digests that are kept, for replicas that are behind."""


class StatesDiffer(StoreError):
    """Another replica has another state after the same events."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """The result for a replica of this epoch, at this offset."""

    epoch: int
    at: int
    differs: bool


class Digests:
    """every: compare at multiples of this offset; 0 for never.

    key: the key of this replica's fold. differing: called with the number of differing replicas,
    and of new differences. failed, well: called with the error, or without one.
    """

    def __init__(
        self,
        every: int,
        key: str,
        *,
        differing: Callable[[int, int], None],
        failed: Callable[[StatesDiffer], object],
        well: Callable[[], None],
    ) -> None:
        self.newest = Mark(0, "")
        self._every, self._key = every, key
        self._differing, self._failed, self._well = differing, failed, well
        self._own: dict[int, str] = {}
        self._compared: dict[int, _Compared] = {}

    def wanted(self, offset: int) -> bool:
        """Whether the digest of the world after this offset must be recorded."""
        return self._every > 0 and offset % self._every == 0

    def note(self, offset: int, digest: str) -> None:
        """The digest after all events up to here."""
        self.newest = Mark(offset, digest)
        self._own[offset] = digest
        while len(self._own) > _KEPT:
            del self._own[next(iter(self._own))]

    @property
    def any_differ(self) -> bool:
        """Whether an open replica had another state when it was compared last."""
        return any(each.differs for each in self._compared.values())

    @property
    def in_minority(self) -> bool:
        """Whether the replicas with another state outnumber those with this one's, itself included.

        Of two that differ, it is unknown which one is wrong.
        """
        differ = sum(each.differs for each in self._compared.values())
        return differ > 1 + len(self._compared) - differ

    def differs(self, row: Replica) -> bool | None:
        """Whether it had another state at an offset that both know; None if there is none."""
        own = self._own.get(row.mark.offset) if row.key == self._key else None
        return None if own is None else own != row.mark.digest

    def compare(self, rows: Sequence[Replica], slot: int) -> None:
        """Compare the others' digests; a difference is reported once for each offset.

        The result for a replica holds until it leaves or joins again, since it may then be
        repaired.
        """
        told: list[str] = []
        before, self._compared = self._compared, {}
        for row in rows:
            if row.slot == slot or row.closed:
                continue
            known, at = before.get(row.slot), row.mark.offset
            anew = known is not None and row.epoch > known.epoch
            found = None if anew else known
            if known is not None and at == known.at:
                if anew:  # it published this before it joined again
                    found = _Compared(row.epoch, at, differs=False)
            elif (wrong := self.differs(row)) is not None:
                found = _Compared(row.epoch, at, wrong)
                if wrong:
                    told.append(f"replica {row.slot} and this one ({slot}) at offset {at}")
            if found is not None:
                self._compared[row.slot] = found
        differing = sum(each.differs for each in self._compared.values())
        self._differing(differing, len(told))
        if told:
            self._failed(StatesDiffer("these have other states: " + ", ".join(told)))
        elif not differing:
            self._well()
