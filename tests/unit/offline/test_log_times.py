"""Where a log is begun to be read for a moment: nothing is missed, and little is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from bandit_service.clock import Ids
from bandit_service.core import events as ev
from bandit_service.offline.history.fold import Asked, HistoryFold
from bandit_service.offline.log_times import SKEW_S, first_since
from store import START, Offset, Record
from store.memory import MemoryLog
from tests.unit.test_live import decided

HOUR = 3_600.0


def _records(events: Iterable[ev.AnyEvent]) -> list[Record]:
    return [
        Record(f"e{i}", ev.kind(each), each.ts, ev.encode(each)) for i, each in enumerate(events)
    ]


class _Log(MemoryLog):
    """A log whose erased records have empty bodies; it counts what is read."""

    read = 0

    def __init__(self, times: list[float], erased: frozenset[int] = frozenset()) -> None:
        super().__init__()
        self._erased = erased
        if times:
            self.append(_records(ev.MetricsWeighed(ts=ts) for ts in times))

    def replay(self, after: Offset = START) -> Iterator[tuple[Offset, bytes]]:
        for at, body in super().replay(after):
            self.read += 1
            yield at, b"" if at in self._erased else body


def _first(log: _Log, first: int, since: float) -> int:
    return asyncio.run(first_since(log, first, int(log.last), since))


MINUTE = 60.0


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.booleans()), max_size=40),
    st.integers(1, 5),
    st.integers(0, 60),
)
def test_nothing_since_then_is_missed(
    steps: list[tuple[int, int, bool]], first: int, minutes: int
) -> None:
    """Clocks of replicas differ, and some records are erased."""
    assert SKEW_S > 9 * MINUTE
    since, rising = minutes * MINUTE, accumulate(step for step, _, _ in steps)
    times = [(ts - behind) * MINUTE for ts, (_, behind, _) in zip(rising, steps, strict=True)]
    erased = frozenset(at for at, (_, _, gone) in enumerate(steps, 1) if gone)
    log = _Log(times, erased)
    found = _first(log, min(first, len(times) + 1), since)
    wanted = [
        at for at, ts in enumerate(times, 1) if at >= first and at not in erased and ts >= since
    ]
    assert all(found <= at for at in wanted)


def test_of_a_long_log_few_records_are_looked_at() -> None:
    log = _Log([10.0 * i for i in range(20_000)])
    found = _first(log, 1, 150_000.0)
    assert found == 1 + int((150_000.0 - SKEW_S) / 10.0)
    assert log.read < 20
    assert _first(log, 1, 0.0) == 1
    assert _first(log, 1, 1e9) == 20_001


def test_the_figures_are_those_of_the_whole_log() -> None:
    """Outcomes and judges' costs come hours after a decision that was made before the beginning."""
    ids, events, made = Ids(), list[ev.AnyEvent](), list[str]()
    for i in range(60):
        ts = 1e9 + i * HOUR / 2
        made.append(ids.new(ts))
        events.append(decided(made[-1], ts))
        if i >= 12:
            late = made[i - 12]
            events.append(ev.Rewarded(ts=ts, decision_id=late, quality=0.5, cost_usd=0.1))
            events.append(ev.Spent(ts=ts, decision_id=late, judge="j", usd=0.2))
        events.append(ev.Spent(ts=ts, usd=0.01))
    events.append(ev.Rewarded(ts=2e9, decision_id="never was", quality=1.0))
    log = MemoryLog()
    log.append(_records(events))
    since = 1e9 + 20 * HOUR
    begin = asyncio.run(first_since(log, 1, len(events), since))
    assert begin > 40
    for tenant in (None, ""):
        asked = Asked(per="hour", by="arm", since=since, until=2e9, tenant=tenant)
        whole, part = HistoryFold(asked), HistoryFold(asked)
        for at, event in enumerate(events, 1):
            whole.take(event)
            if at >= begin:
                part.take(event)
        assert part.history() == whole.history()
        assert whole.history().uncounted == (tenant is None)
