"""A running decision that is answered within its turn of the loop, without a future or a task."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bandit_service.core import events as ev
from bandit_service.runtime.router import Router


class AtOnce:
    """A `group_commit.Done` of a decide. router: who is asked. taken: it counts it. made: its
    result.

    tell: called with this one when it has its result.
    """

    __slots__ = ("_tell", "begun", "made", "router", "taken")

    def __init__(self, tell: Callable[[Any], None]) -> None:
        self.begun = time.perf_counter()
        self.router: Router | None = None
        self.taken = False
        self.made: ev.Decided | Exception | None = None
        self._tell = tell

    def cancelled(self) -> bool:
        """It is decided within the turn, even if the client leaves."""
        return False

    def done(self) -> bool:
        """Whether it has its result."""
        return self.made is not None

    def set_result(self, event: ev.Decided, /) -> None:
        """The decision."""
        self.made = event
        self._tell(self)

    def set_exception(self, error: Exception, /) -> None:
        """Set the error."""
        self.made = error
        self._tell(self)
