"""Questions and answers beside a shared log, each encrypted, for all replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from bandit_service.runtime.text_store import KeptQuestion, Sealing, Text
from store import StoreError
from store.postgres_texts import PostgresTexts

T = TypeVar("T")


class SharedTextStore:
    """As `TextStore`, in the database; used by one thread, which waits for it.

    What cannot be done raises OSError, as with a file.
    """

    name = "the table of texts"

    def __init__(self, rows: PostgresTexts, keys: Sequence[bytes]) -> None:
        self._sealing = Sealing(keys)
        self._rows = rows
        self._loop: asyncio.AbstractEventLoop | None = None

    def put(self, id: str, ts: float, owner: str, text: Text, event: int | None = None) -> None:
        """See `KeepsTexts`."""
        self._wait(self._rows.put(id, ts, owner, event, self._sealing.seal(id, text)))

    def remembered(self, id: str, event: int) -> None:
        """See `KeepsTexts`."""
        self._wait(self._rows.remembered(id, event))

    def get(self, id: str, since: float) -> tuple[float, Text] | None:
        """See `KeepsTexts`."""
        row = self._wait(self._rows.get(id, since))
        return None if row is None else (row[0], self._sealing.opened(id, row[1]))

    def of_events(self, events: Sequence[int], since: float) -> dict[int, Text]:
        """See `KeepsTexts`."""
        return self._sealing.by_event(self._wait(self._rows.of_events(events, since)))

    def questions(self, most: int, since: float) -> list[KeptQuestion]:
        """See `KeepsTexts`."""
        return self._sealing.questions(reversed(self._wait(self._rows.newest(most, since))))

    def forget(self, owner: str) -> None:
        """See `KeepsTexts`."""
        self._wait(self._rows.forget(owner))

    def forget_unless(self, present: Callable[[str], bool], before: float) -> None:
        """See `KeepsTexts`."""
        ids = self._wait(self._rows.owned(before))
        self._wait(self._rows.delete([id for id in ids if not present(id)]))

    def trim(self, since: float, most: int) -> None:
        """See `KeepsTexts`."""
        self._wait(self._rows.trim(since, most))

    def close(self) -> None:
        """Close the connection."""
        self._wait(self._rows.close())
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        try:
            return self._loop.run_until_complete(call)
        except StoreError as error:
            raise OSError(str(error)) from None
