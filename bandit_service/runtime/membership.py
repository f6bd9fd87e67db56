"""This process among those that share the log."""

from __future__ import annotations

from collections.abc import Callable

from bandit_service.core import events as ev
from store import Offset, Replica


class LogMembership:
    """Of the only process: it is the keeper, and there is nobody to agree with."""

    @property
    def slot(self) -> int:
        """The number of this process among those that share the log; 0 if none does."""
        return 0

    @property
    def keeps(self) -> bool:
        """Whether this process is the keeper: the one that runs the shared background tasks."""
        return True

    @property
    def barred(self) -> str:
        """Why this process is not ready although it runs; "" if it is ready."""
        return ""

    @property
    def in_touch_since(self) -> float:
        """Since when (time.monotonic) the others that share the log cannot have considered this
        process lost; infinite while they may.
        """
        return 0.0

    @property
    def cannot_erase(self) -> str:
        """Why the records of a unit cannot be erased; "" where it is up to the log alone."""
        return ""

    @property
    def known(self) -> list[Replica]:
        """The processes that share the log, as of a moment ago."""
        return []

    async def replicas(self) -> list[Replica]:
        """The processes that share the log. Raises Unavailable if the log is unreachable."""
        return []

    def differs(self, row: Replica) -> bool | None:  # noqa: ARG002 - others can
        """Whether a replica had another state at an offset that both know; None for not known."""
        return None

    async def share_snapshot(self, key: str, at: Offset, read: Callable[[], bytes]) -> bool:  # noqa: ARG002 - others can
        """Let other processes begin from a snapshot; read: gives it, where it is wanted.

        Whether they can.
        """
        return False

    def check_read_by_all(self, kind: type[ev.Event]) -> None:
        """Raise Unavailable if another process on the log cannot read events of this kind."""
