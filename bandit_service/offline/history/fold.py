"""The fold of a log to figures by period and group.

An outcome counts in the period in which its decision was made, as in `core.spend`. The answer is
the same whether the events before `since` are read or not. A correction
takes the place of what it corrects, and what was revoked counts no more. What a unit's erasure or
retention took from the log is not in the figures.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

from bandit_service.clock import time_of
from bandit_service.core import events as ev
from bandit_service.core.fields import doc
from bandit_service.core.routes import AUTO

PERIODS = ("hour", "day", "week", "month")
GROUPS = ("arm", "route", "tenant", "key", "tag", "policy")
MAX_DECISIONS = 200_000
"""Of so many decisions, the newest, later outcomes are counted; more would not fit in memory."""
OTHERS = "others"
NONE = "none"
_SIGNALS = ("quality", "reward", "cost_usd")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: decisions from `since` up to `until`, UTC seconds, of a tenant or of all.

    most: groups that are told apart, those that spent the most; the rest are `others`.
    """

    per: str
    by: str
    since: float
    until: float
    tenant: str | None = None
    most: int = 20


class Figures(msgspec.Struct, kw_only=True, frozen=True):
    """The decisions of one period, and their outcomes."""

    decisions: Annotated[int, doc("Decisions.", 1_204)]
    rewarded: Annotated[int, doc("Decisions with a reward.", 830)]
    mean_reward: Annotated[float | None, doc("Mean reward; null: none came.", 0.71)]
    rated: Annotated[int, doc("Decisions with a quality.", 830)]
    mean_quality: Annotated[float | None, doc("Mean quality; null: none came.", 0.74)]
    spent_usd: Annotated[
        float,
        doc(
            "Costs, USD: as reported, or estimated if none was reported, plus those of judges.",
            3.42,
        ),
    ]


class Period(msgspec.Struct, kw_only=True, frozen=True):
    """One hour, day, week or month, UTC."""

    begin: Annotated[float, doc("When it begins, UTC seconds.", 1732838400.0)]
    name: Annotated[str, doc("The same for people.", "2024-11-29")]
    total: Annotated[Figures, doc("All of it.")]
    groups: Annotated[
        dict[str, Figures],
        doc(
            "By group; with tags a decision counts for each of its tags. `none`: without any; "
            "`others`: all groups that are not listed."
        ),
    ]


class History(msgspec.Struct, kw_only=True, frozen=True):
    """Figures by period, oldest first; a period without any is left out."""

    per: Annotated[str, doc("The length of a period.", "day", enum=list(PERIODS))]
    by: Annotated[str, doc("What the groups are.", "arm", enum=list(GROUPS))]
    since: Annotated[float, doc("Decisions from here on, UTC seconds.", 1730419200.0)]
    until: Annotated[float, doc("Only decisions before this time.", 1732924800.0)]
    periods: Annotated[list[Period], doc("The periods, oldest first.")]
    uncounted: Annotated[
        int,
        doc("Outcomes of decisions that are too old or not in the log; 0 to a tenant's key.", 0),
    ]


@dataclass(slots=True)
class Cell:
    """Sums of one period and group."""

    decisions: int = 0
    n: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SIGNALS, 0))
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_SIGNALS, 0.0))
    other_usd: float = 0.0

    @property
    def usd(self) -> float:
        """All that was spent."""
        return self.sums["cost_usd"] + self.other_usd

    def add(self, other: Cell) -> None:
        """Add another one's sums."""
        self.decisions += other.decisions
        self.other_usd += other.other_usd
        for name in _SIGNALS:
            self.n[name] += other.n[name]
            self.sums[name] += other.sums[name]

    def figures(self) -> Figures:
        """As they are told."""

        def mean(name: str) -> float | None:
            return self.sums[name] / self.n[name] if self.n[name] else None

        return Figures(
            decisions=self.decisions,
            rewarded=self.n["reward"],
            mean_reward=mean("reward"),
            rated=self.n["quality"],
            mean_quality=mean("quality"),
            spent_usd=self.usd,
        )


@dataclass(slots=True)
class _Known:
    """A decision that may still get outcomes: where they count, and what came."""

    cells: tuple[Cell, ...]
    signals: dict[str, float] = field(default_factory=dict)

    def set(self, name: str, value: float | None) -> None:
        """The value in place of the one before; None: no value any more."""
        before = self.signals.pop(name, None)
        if value is not None:
            self.signals[name] = value
        for cell in self.cells:
            cell.n[name] += (value is not None) - (before is not None)
            cell.sums[name] += (value or 0.0) - (before or 0.0)

    def take(self, event: ev.Rewarded) -> None:
        """Every signal that came with an outcome."""
        for name in _SIGNALS:
            if (value := getattr(event, name)) is not None:
                self.set(name, value)


class HistoryFold:
    """Events in, in the order of the log; `history` at any time."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._cells: dict[float, dict[str | None, Cell]] = {}
        self._known: OrderedDict[str, _Known | None] = OrderedDict()
        self._uncounted = 0

    def take(self, event: ev.AnyEvent | None) -> None:
        """Count one event; None is one that was erased."""
        match event:
            case ev.Decided():
                self._decided(event)
            case ev.Rewarded():
                self._rewarded(event)
            case ev.Spent():
                self._spent(event)
            case _:
                pass

    def history(self) -> History:
        """All that was taken so far."""
        asked = self._asked
        kept = self._kept_apart()
        return History(
            per=asked.per,
            by=asked.by,
            since=asked.since,
            until=asked.until,
            periods=[
                _period(asked.per, begin, self._cells[begin], kept) for begin in sorted(self._cells)
            ],
            uncounted=self._uncounted,
        )

    def _decided(self, event: ev.Decided) -> None:
        counts = self._counts(event.ts, event.tenant)
        cells = self._of(event.ts, self._groups_of(event)) if counts else ()
        for cell in cells:
            cell.decisions += 1
        self._known[event.id] = _Known(cells) if counts else None
        if len(self._known) > MAX_DECISIONS:
            self._known.popitem(last=False)

    def _rewarded(self, event: ev.Rewarded) -> None:
        if event.prior:  # a warm start: nobody was answered
            return
        if event.subject is not None:
            self._elsewhere(event, event.subject)
            return
        if event.decision_id not in self._known:
            if self._was_before(event.decision_id):
                return
            # whose it is cannot be told, and how much others are rewarded is not a tenant's to know
            self._uncounted += self._asked.tenant is None
            return
        known = self._known[event.decision_id]
        if known is None:
            return
        if event.revoked:  # its values are what the policies learn in their place
            for name in {*event.revoked, "reward"} & {*_SIGNALS}:
                known.set(name, None)
            return
        known.take(event)

    def _elsewhere(self, event: ev.Rewarded, subject: ev.Subject) -> None:
        """An outcome of an answer that this service did not decide on."""
        if not self._counts(event.ts, subject.tenant):
            return
        group = {"arm": event.arm, "tenant": subject.tenant}.get(self._asked.by, "")
        _Known(self._of(event.ts, [str(group)])).take(event)

    def _spent(self, event: ev.Spent) -> None:
        cells: tuple[Cell, ...] = ()
        if event.decision_id in self._known:
            known = self._known[event.decision_id]
            if known is None:
                return
            if event.judge:
                cells = known.cells
            elif "cost_usd" not in known.signals:
                known.set("cost_usd", event.usd)
        elif self._was_before(event.decision_id):
            return
        elif self._counts(event.ts, event.tenant):  # of nothing that was routed
            named = {"route": event.route or AUTO, "tenant": event.tenant, "key": event.caller}
            cells = self._of(event.ts, [named.get(self._asked.by, "")])
        for cell in cells:
            cell.other_usd += event.usd

    def _was_before(self, decision_id: str) -> bool:
        """Whether a decision is older than what is asked for, by its id: it may not be read."""
        made = time_of(decision_id)
        return made is not None and made < self._asked.since

    def _counts(self, ts: float, tenant: str) -> bool:
        asked = self._asked
        return asked.since <= ts < asked.until and asked.tenant in (None, tenant)

    def _groups_of(self, event: ev.Decided) -> Iterable[str]:
        match self._asked.by:
            case "arm":
                return (str(event.arm),)
            case "route":
                return (event.route or AUTO,)
            case "tenant":
                return (event.tenant,)
            case "key":
                return (event.caller,)
            case "tag":
                return event.tags or ("",)
            case _:
                return (event.policy,)

    def _of(self, ts: float, groups: Iterable[str]) -> tuple[Cell, ...]:
        """The cells of a moment: that of all, and those of its groups."""
        of = self._cells.setdefault(begin_of(self._asked.per, ts), {})
        names = (None, *(group or NONE for group in groups))
        return tuple(of.setdefault(name, Cell()) for name in names)

    def _kept_apart(self) -> frozenset[str]:
        sums: dict[str, Cell] = {}
        for of in self._cells.values():
            for name, cell in of.items():
                if name not in (None, OTHERS):  # one of this name is never apart from the others
                    sums.setdefault(str(name), Cell()).add(cell)
        ranked = sorted(sums, key=lambda name: (-sums[name].usd, -sums[name].decisions, name))
        return frozenset(ranked[: self._asked.most])


def _period(per: str, begin: float, of: dict[str | None, Cell], kept: frozenset[str]) -> Period:
    groups: dict[str, Cell] = {}
    for name, cell in of.items():
        if name is not None:
            groups.setdefault(name if name in kept else OTHERS, Cell()).add(cell)
    return Period(
        begin=begin,
        name=name_of(per, begin),
        total=of[None].figures(),
        groups={name: groups[name].figures() for name in sorted(groups)},
    )


def begin_of(per: str, ts: float) -> float:
    """When the period of a moment begins, UTC; weeks begin on Monday.

    >>> begin_of("hour", 3700.0), begin_of("day", 90_000.0), begin_of("week", 0.0)
    (3600.0, 86400.0, -259200.0)
    """
    if per in ("hour", "day"):
        length = 3600.0 if per == "hour" else 86_400.0
        return ts // length * length
    day = datetime.fromtimestamp(ts // 86_400.0 * 86_400.0, UTC)
    first = day - timedelta(days=day.weekday()) if per == "week" else day.replace(day=1)
    return first.timestamp()


def name_of(per: str, begin: float) -> str:
    """A period for people.

    >>> name_of("hour", 3600.0), name_of("day", 0.0), name_of("month", 0.0)
    ('1970-01-01 01:00', '1970-01-01', '1970-01')
    """
    forms = {"hour": "%Y-%m-%d %H:%M", "month": "%Y-%m"}
    return datetime.fromtimestamp(begin, UTC).strftime(forms.get(per, "%Y-%m-%d"))
