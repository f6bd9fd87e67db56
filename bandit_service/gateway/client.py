"""The client as the gateway sees it: whether it is still there, and where its answer goes.

The gateway knows no server. What speaks HTTP gives it a `Client`, and gets a `Reply` back, or None
if the answer was streamed to the client already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec


class Reply(msgspec.Struct, frozen=True):
    """A whole answer, JSON."""

    body: bytes
    headers: Mapping[str, str]
    status: int = 200


class Client(Protocol):
    """One request's end of its connection."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Those of the request; the case of their names does not matter."""
        ...

    @property
    def gone(self) -> bool:
        """Whether it has left."""
        ...

    def waiting(self) -> AbstractContextManager[None]:
        """Cancel the current task if the client leaves meanwhile."""
        ...

    def answered(self, left: Callable[[], object]) -> AbstractContextManager[None]:
        """From here on the task is not cancelled; `left` is called if the client leaves meanwhile.

        An answer that has begun ends in an orderly way, and its outcome is learned.
        """
        ...

    def cut(self) -> bool:
        """After a CancelledError: whether the end of the service caused it. Ask once."""
        ...

    async def begin(self, headers: Mapping[str, str]) -> None:
        """Send the head of a streamed answer."""
        ...

    async def write(self, data: bytes) -> None:
        """Send a piece of it, of whole events. Raises ConnectionError if the client has left."""
        ...

    async def end(self, data: bytes) -> None:
        """Send the last piece. Raises ConnectionError if the client has left."""
        ...
