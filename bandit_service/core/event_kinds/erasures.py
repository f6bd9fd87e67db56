"""Events about data that is erased or deleted."""

from __future__ import annotations

from bandit_service.core.event_kinds.event import Event


class Forgotten(Event, frozen=True, kw_only=True, tag="forgotten"):
    """All data of one unit must be erased; `owner` is `owner_of` it.

    What was learned from it stays in the sums of the policies, where it cannot be separated.
    """

    owner: str


class ErasureOrdered(Event, frozen=True, kw_only=True, tag="erasure_ordered"):
    """Every replica erases the records of this owner up to an offset, which a snapshot holds."""

    owner: str
    upto: int


class Erased(Event, frozen=True, kw_only=True, tag="erased"):
    """The records of this owner are gone from the log and from every snapshot."""

    owner: str


class TrimOrdered(Event, frozen=True, kw_only=True, tag="trim_ordered"):
    """Every replica deletes the records up to an offset, which snapshots hold."""

    upto: int
