"""Answered decisions that wait to be appended because the disk was full."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice

from bandit_service.core import events as ev
from bandit_service.telemetry.metrics import Metrics
from store import Full

_log = logging.getLogger("bandit.writer")
_CATCH_UP = 500


class Backlog:
    """If there are more than `most`, the oldest is dropped. full: why nothing can be written."""

    def __init__(self, most: int, metrics: Metrics) -> None:
        self.full: Full | None = None
        self._most = most
        self._metrics = metrics
        self._waiting: OrderedDict[str, ev.Decided] = OrderedDict()

    def __len__(self) -> int:
        """How many decisions wait."""
        return len(self._waiting)

    def filled(self, error: Full) -> None:
        """From now on nothing can be written."""
        if self.full is None:
            self.full = error
            _log.error("the log cannot be written", extra={"why": str(error)})

    def emptied(self, offset: int) -> None:
        """Nothing waits any more; the log, now at this offset, can be written again."""
        self.full = None
        _log.warning("the log can be written again", extra={"offset": offset})

    def holds(self, decision_id: str, tenant: str | None) -> bool:
        """Whether this decision waits, and belongs to this tenant if one is given."""
        waiting = self._waiting.get(decision_id)
        return waiting is not None and tenant in (None, waiting.tenant)

    def put(self, event: ev.Decided) -> None:
        """Add one."""
        self._waiting[event.id] = event
        if len(self._waiting) > self._most:
            self._waiting.popitem(last=False)
            self._metrics.unlogged.inc()
        self.count()

    def oldest(self) -> Iterator[Sequence[ev.Decided]]:
        """Some of them at a time, in order, until all are `written`."""
        while self._waiting:
            yield list(islice(self._waiting.values(), _CATCH_UP))

    def written(self, event: ev.Decided) -> None:
        """It is in the log, and does not wait any more."""
        del self._waiting[event.id]

    def count(self) -> None:
        """Report how many wait."""
        self._metrics.log_backlog.set(len(self._waiting))
