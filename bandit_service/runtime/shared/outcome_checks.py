"""Outcomes, checked against the applied state: those of one key one after another.

An outcome that another replica's record made invalid is checked again once that one is applied.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from itertools import chain
from typing import Protocol

from bandit_service.core import events as ev
from bandit_service.core.errors import NotYet, Unavailable
from bandit_service.runtime.command_batches import Command
from bandit_service.runtime.group_commit import fail
from bandit_service.runtime.shared.appending import Outgoing
from bandit_service.runtime.shared.own_events import UnderWay
from bandit_service.runtime.shared.parking import Parking
from store import SharedLog, StoreError

_LOOK_S = 0.1


class ReplicaState(Protocol):
    """What the writer tells about this replica."""

    @property
    def degraded(self) -> str:
        """Why outcomes cannot be written now, "" when they can."""
        ...

    @property
    def goes_on(self) -> bool:
        """Whether an event that is sent can be read back and applied."""
        ...

    @property
    def seen(self) -> int:
        """The offset up to which the world is folded."""
        ...

    def takes(self, command: Command) -> bool:
        """Whether it can be written, or may wait because no client gets an acknowledgement."""
        ...

    def outgoing(self, event: ev.AnyEvent, key: str) -> Outgoing:
        """The entry for the shared log. Raises Unavailable if a replica cannot read it."""
        ...


class Checking:
    """appended: set so that the log is read at once."""

    def __init__(
        self,
        replica: ReplicaState,
        log: SharedLog,
        under_way: UnderWay,
        parking: Parking,
        appended: asyncio.Event,
    ) -> None:
        self._replica = replica
        self._log = log
        self._under_way = under_way
        self._parking = parking
        self._appended = appended
        self._keys: dict[str, deque[Command]] = {}
        self._outdated: list[tuple[int, Command]] = []

    def take(self, command: Command) -> None:
        """Check it, after the earlier ones of its key."""
        waiting = self._keys.get(command.key) if command.key else None
        if waiting is None:
            self._check(command)
        elif self._replica.takes(command):
            waiting.append(command)
        else:
            fail(command.done, Unavailable(self._replica.degraded))

    def again(self, command: Command) -> None:
        """Check one again that waited for its decision."""
        waiting = self._keys.get(command.key) if command.key else None
        if waiting is None:
            self._check(command)
        else:
            waiting.append(command)

    def holds(self, key: str) -> bool:
        """Whether an outcome of this key is being written."""
        return key in self._keys

    def outdated(self, command: Command, newer: int) -> None:
        """Check it again once the record at this offset is applied."""
        self._outdated.append((newer, command))
        self.check_outdated()

    def check_outdated(self) -> None:
        """Check again what waited for a record that is applied now."""
        seen = self._replica.seen
        due = [command for newer, command in self._outdated if newer <= seen]
        if due:
            self._outdated = [each for each in self._outdated if each[0] > seen]
            for command in due:
                self._check(command)

    def next_of(self, key: str) -> None:
        """Check the next outcome of this key, now that the one before it is answered."""
        waiting = self._keys.get(key)
        if waiting is None:
            return
        if not waiting:
            del self._keys[key]
            return
        asyncio.get_running_loop().call_soon(self._check, waiting.popleft())

    async def look_forever(self) -> None:
        """Refuse the parked outcomes whose decision cannot come any more."""
        while True:
            await self._parking.parked.wait()
            if self._replica.goes_on:
                with suppress(StoreError):
                    self._parking.learned(await self._log.state())
            else:
                self._parking.fail_all(lambda: Unavailable(self._replica.degraded))
            self._parking.look()
            await asyncio.sleep(_LOOK_S)

    def fail_all(self) -> None:
        """Report the error to the waiting callers.

        Their events may still be appended; a resend is then a duplicate.
        """
        again = (command for _, command in self._outdated)
        callers = chain(self._under_way.callers(), again, *self._keys.values())
        for command in list(callers):
            if command.durable:
                fail(command.done, Unavailable(self._replica.degraded))

    def _check(self, command: Command) -> None:
        """Check against the applied state; then it is sent, or answered."""
        answered = command.done.done() if command.durable else command.done.cancelled()
        if (
            answered or command.prepare is None
        ):  # a client that got an error may have sent another one
            self.next_of(command.key)
            return
        try:
            event = command.prepare()
            if event is not None and not self._replica.takes(command):
                raise Unavailable(self._replica.degraded)
            outgoing = None if event is None else self._replica.outgoing(event, command.key)
        except NotYet as error:
            self._park(command, error)
            self.next_of(command.key)
            return
        except Exception as error:  # noqa: BLE001 - one command's bug is not the others'
            fail(command.done, error)
            self.next_of(command.key)
            return
        if outgoing is None:
            if not command.done.done():
                command.done.set_result(None)
            self.next_of(command.key)
            return
        if command.key:
            self._keys.setdefault(command.key, deque())
        self._under_way.send(outgoing, command)
        if not command.durable and not command.done.done():
            command.done.set_result(outgoing.event)

    def _park(self, command: Command, error: NotYet) -> None:
        """Keep it until its decision is here.

        The service's own observation of its decision waits as long as the decision itself. No
        caller waits for it, so it does not hold up an answer while the log is unreachable.
        """
        self._appended.set()  # its decision may be there
        own = self._under_way.get(command.key)
        if own is not None and not command.durable:
            self._parking.put(command.key, command, error, patient=True)
            if not command.done.done():
                command.done.set_result(own.event)
        elif self._replica.goes_on:
            self._parking.put(command.key, command, error)
        else:
            fail(command.done, Unavailable(self._replica.degraded))
