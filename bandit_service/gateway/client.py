"""The one who asked, as the gateway sees it: whether it is still there, and where its answer goes.

The gateway knows no server. What speaks HTTP gives it a `Client`, and gets a `Reply` back, or
nothing where the answer was streamed to the client already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, JSON."""

    body: bytes
    headers: Mapping[str, str]
    status: int = 200


class Client(Protocol):
    """One request's end of its connection."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Those of the request; their names are found in any case."""
        ...

    @property
    def gone(self) -> bool:
        """Whether it has left."""
        ...

    def waiting(self) -> AbstractContextManager[None]:
        """The current task is cancelled when the client leaves meanwhile."""
        ...

    def answered(self, left: Callable[[], object]) -> AbstractContextManager[None]:
        """From here on the task is not cancelled; `left` is called if the client leaves meanwhile.

        An answer that has begun ends in an orderly way, and its outcome is learned.
        """
        ...

    def cut(self) -> bool:
        """For who catches a CancelledError: whether the end of the service is its cause, asked
        once."""
        ...

    async def begin(self, headers: Mapping[str, str]) -> None:
        """Send the head of a streamed answer."""
        ...

    async def write(self, data: bytes) -> None:
        """Send a piece of it; ConnectionError where the client has left."""
        ...

    async def end(self, data: bytes) -> None:
        """Send the last piece; ConnectionError where the client has left."""
        ...
