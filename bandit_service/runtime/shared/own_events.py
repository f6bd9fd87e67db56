"""Events of this replica that were not read back from the log yet, with the waiting callers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, KeysView, Sequence
from dataclasses import dataclass

from bandit_service.core import events as ev
from bandit_service.runtime.backlog import Backlog
from bandit_service.runtime.command_batches import Command
from bandit_service.runtime.shared.appending import Appender, Outgoing


@dataclass(slots=True)
class OwnEvent:
    """One of them. owed: its key in the backlog, if it is a cost that waited there."""

    event: ev.AnyEvent
    command: Command | None = None
    led: bool = False
    owed: str = ""


class UnderWay:
    """By the ids of their records. led: how many of them only the keeper may write."""

    def __init__(self, appender: Appender, backlog: Backlog) -> None:
        self._appender = appender
        self._backlog = backlog
        self._own: dict[str, OwnEvent] = {}
        self._owed: set[str] = set()
        self.led = 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._own)

    def __contains__(self, eid: str) -> bool:
        """Whether this one is among them."""
        return eid in self._own

    def ids(self) -> KeysView[str]:
        """The ids of their records, as they are at each look."""
        return self._own.keys()

    def get(self, eid: str) -> OwnEvent | None:
        """The one with this id."""
        return self._own.get(eid)

    def send(self, outgoing: Outgoing, command: Command | None = None, owed: str = "") -> None:
        """Append this one after all others."""
        self._add(outgoing, command, owed)
        self._appender.put(outgoing)

    def send_left(self, left: Sequence[Outgoing]) -> None:
        """Append before all others what an earlier process may have appended."""
        for outgoing in left:
            self._add(outgoing, None, "")
        self._appender.put_left(left)

    def send_owed(self, outgoing_of: Callable[[ev.AnyEvent], Outgoing], room: int) -> None:
        """Append the oldest costs of the backlog that there is room for."""
        waiting = next(self._backlog.oldest(), ())
        for key, event in [each for each in waiting if each[0] not in self._owed][:room]:
            self.send(outgoing_of(event), owed=key)

    def remove(self, eid: str) -> OwnEvent | None:
        """It is applied, or it will not be: nothing waits for it any more."""
        own = self._own.pop(eid, None)
        if own is None:
            return None
        self.led -= own.led
        self._owed.discard(own.owed)
        return own

    def applied(self, eid: str) -> OwnEvent | None:
        """`remove` of one that the log has; a cost leaves the backlog."""
        own = self.remove(eid)
        if own is not None and own.owed:
            self._backlog.written(own.owed)
            self._backlog.count()
        return own

    def callers(self) -> Iterator[Command]:
        """The commands that wait for one of them."""
        return (own.command for own in self._own.values() if own.command is not None)

    def _add(self, outgoing: Outgoing, command: Command | None, owed: str) -> None:
        self._own[outgoing.entry.record.eid] = OwnEvent(outgoing.event, command, outgoing.led, owed)
        self.led += outgoing.led
        if owed:
            self._owed.add(owed)
