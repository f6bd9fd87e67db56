"""Answered decisions and costs of calls that wait to be appended while the disk is full."""

from __future__ import annotations

import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from bandit_service.core import events as ev
from bandit_service.telemetry.metrics import Metrics
from store import Full

_log = logging.getLogger("bandit.writer")
_CATCH_UP = 500

Booked = Callable[[], None]
"""Called once a cost is in the log and applied, or is dropped."""


class Backlog:
    """If there are more than `most`, the oldest is dropped. full: why nothing can be written.

    Decisions and costs wait in one order, so that times in the log ascend.
    """

    def __init__(self, most: int, metrics: Metrics) -> None:
        self.full: Full | None = None
        self._most = most
        self._metrics = metrics
        self._waiting: OrderedDict[str, ev.Decided | ev.Spent] = OrderedDict()
        self._booked: dict[str, Booked] = {}
        self._numbers = itertools.count()
        self._usd = 0.0

    def __len__(self) -> int:
        """How much waits."""
        return len(self._waiting)

    @property
    def usd(self) -> float:
        """The sum of the costs that wait."""
        return self._usd

    @property
    def decisions(self) -> int:
        """How many decisions wait."""
        return len(self._waiting) - len(self._booked)

    def filled(self, error: Full) -> None:
        """From now on nothing can be written."""
        if self.full is None:
            self.full = error
            _log.error("the log cannot be written", extra={"why": str(error)})

    def emptied(self, offset: int) -> None:
        """Nothing waits any more, and the log, now at this offset, can be written again."""
        self.full = None
        _log.warning("the log can be written again", extra={"offset": offset})

    def holds(self, decision_id: str, tenant: str | None) -> bool:
        """Whether this decision waits, and is of this tenant if one is named."""
        waiting = self._waiting.get(decision_id)
        return waiting is not None and tenant in (None, waiting.tenant)

    def put(self, event: ev.Decided) -> None:
        """Add a decision."""
        self._keep(event.id, event)

    def owe(self, event: ev.Spent, booked: Booked) -> None:
        """Add a cost."""
        key = f"cost {next(self._numbers)}"
        self._booked[key] = booked
        self._usd += event.usd
        self._keep(key, event)

    def oldest(self) -> Iterator[Sequence[tuple[str, ev.Decided | ev.Spent]]]:
        """Some of them at a time, in order, with their keys, until all are `written`."""
        while self._waiting:
            yield list(islice(self._waiting.items(), _CATCH_UP))

    def written(self, key: str) -> None:
        """It is in the log and applied, and does not wait any more, unless it was dropped."""
        if key in self._waiting:
            self._let_go(key)

    def count(self) -> None:
        """Report how many wait."""
        self._metrics.log_backlog.set(self.decisions)
        self._metrics.cost_waiting.set(self._usd)

    def _keep(self, key: str, event: ev.Decided | ev.Spent) -> None:
        self._waiting[key] = event
        if len(self._waiting) > self._most:
            oldest = next(iter(self._waiting))
            gone = self._let_go(oldest)
            if isinstance(gone, ev.Spent):
                self.lost(gone)
            else:
                self._metrics.unlogged.inc()
        self.count()

    def _let_go(self, key: str) -> ev.Decided | ev.Spent:
        event = self._waiting.pop(key)
        if isinstance(event, ev.Spent):
            self._booked.pop(key)()
            self._usd = self._usd - event.usd if self._booked else 0.0  # no rounding is left
        return event

    def lost(self, event: ev.Spent) -> None:
        """A cost that will be in no log."""
        self._metrics.cost_lost.inc(event.usd)
        told = {"decision_id": event.decision_id, "usd": event.usd}
        _log.error("a cost is lost", extra=told)
