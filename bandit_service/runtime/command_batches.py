"""The commands of one turn of the loop: checked in order, in as few batches as possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from bandit_service.core import events as ev
from bandit_service.runtime.group_commit import Done, fail
from store import Record

Prepare = Callable[[], ev.AnyEvent | None]

Q = TypeVar("Q", contravariant=True)


class Among(Protocol[Q]):
    """Prepares commands of one kind together, at most `most` at once.

    Each gives the same result as if prepared alone after all those before it.
    """

    most: int

    @property
    def alone(self) -> bool:
        """Whether each must be applied before the next is prepared, as the world is now."""
        ...

    def prepare(self, asked: Sequence[Q], /) -> Sequence[ev.AnyEvent | Exception]:
        """The event of each, or its error."""
        ...


class Command(msgspec.Struct, gc=False):
    """A command to check against the world and append.

    Two with the same key never share a batch. asked: prepared by `among` instead of `prepare`.
    late: it comes after all others of its turn.
    """

    done: Done
    durable: bool
    key: str = ""
    late: bool = False
    prepare: Prepare | None = None
    among: Among[Any] | None = None
    asked: Any = None


Ready = tuple[Command, ev.AnyEvent, Record]


class Turn:
    """Takes commands, and commits a batch whenever the next command must see it applied.

    record: makes the record of an event. commit: appends and applies a batch. nothing: called with
    a command that has nothing to do.
    """

    def __init__(
        self,
        record: Callable[[ev.AnyEvent], Record],
        commit: Callable[[Sequence[Ready]], None],
        nothing: Callable[[Command], None],
    ) -> None:
        self._record = record
        self._commit_batch = commit
        self._nothing = nothing
        self._batch: list[Ready] = []
        self._keys: set[str] = set()
        self._others = False  # whether any of the batch was prepared by itself
        self._together: list[Command] = []  # the newest ones, which are prepared together
        self._alone = False  # whether no other may join them, as the world is until they commit

    def take(self, command: Command) -> None:
        """Take the next command, unless its caller has left: nothing is written yet."""
        if command.done.cancelled():
            return
        if command.among is not None:
            self._take_among(command, command.among)
        elif command.prepare is not None:
            self._take_one(command, command.prepare)

    def commit(self) -> None:
        """Append and apply what is taken so far; the turn continues with an empty batch."""
        self._prepare_together()
        batch, self._batch = self._batch, []
        self._keys, self._others = set(), False
        if batch:
            self._commit_batch(batch)

    def _take_one(self, command: Command, prepare: Prepare) -> None:
        self._prepare_together()
        if command.key and command.key in self._keys:
            self.commit()  # what this one is checked against must be applied first
        try:
            event = prepare()
            ready = None if event is None else (command, event, self._record(event))
        except Exception as error:  # noqa: BLE001 - one command's bug is not the others'
            fail(command.done, error)
            return
        if ready is None:
            self._nothing(command)
            return
        self._batch.append(ready)
        self._keys.add(command.key)
        self._others = True

    def _take_among(self, command: Command, among: Among[Any]) -> None:
        waiting = self._together
        if waiting and waiting[0].among is among and not self._alone:
            if len(waiting) >= among.most:
                self._prepare_together()
            self._together.append(command)
            return
        self._alone = among.alone
        if self._others or ((self._batch or waiting) and self._alone):
            self.commit()  # it sees what came before it
            self._alone = among.alone
        self._prepare_together()
        self._together.append(command)

    def _prepare_together(self) -> None:
        commands, self._together = self._together, []
        if not commands:
            return
        among = commands[0].among
        assert among is not None
        try:
            made = among.prepare([command.asked for command in commands])
        except Exception as error:  # noqa: BLE001 - a bug of all of them, and of no other command
            made = [error] * len(commands)
        for command, event in zip(commands, made, strict=True):
            if isinstance(event, Exception):
                fail(command.done, event)
                continue
            try:
                self._batch.append((command, event, self._record(event)))
            except Exception as error:  # noqa: BLE001 - one command's bug is not the others'
                fail(command.done, error)
