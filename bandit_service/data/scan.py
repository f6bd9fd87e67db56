"""The first of two passes: stores on disk what later events say about earlier ones.

A decision's outcome may be anywhere after it, so a row is only complete when the whole log was
read. The first pass writes the outcomes to a temporary file without a name; the second pass looks
them up, decision by decision. So memory does not grow with the log.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from bandit_service.core import events as ev
from bandit_service.core.routes import AUTO
from bandit_service.data.log_source import Source

Progress = Callable[[int], None]
_COLUMNS = (
    "quality",
    "cost_usd",
    "latency_s",
    "reward",
    "reward_ts",
    "settled",
    "corrected",
    "expired",
    "weighed",
    "metrics",
)
_VALUES = ("quality", "cost_usd", "latency_s", "reward")


@dataclass(slots=True)
class Outcome:
    """What came back for one decision, after every correction.

    reward: the one that was learned: of the client, or the default at expiry (`settled` is False
    then); reward_ts: when. weighed: the quality is what named metrics came to. metrics: the
    user's own. expired: the service gave the decision up before or after its reward.
    """

    quality: float | None = None
    cost_usd: float | None = None
    latency_s: float | None = None
    reward: float | None = None
    reward_ts: float | None = None
    settled: bool = False
    corrected: bool = False
    expired: bool = False
    weighed: bool = False
    metrics: dict[str, float] = field(default_factory=dict)


class Outcomes:
    """Outcomes by decision, in a temporary file."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA cache_size=-4096")
        self._db.execute("PRAGMA journal_mode=OFF")
        columns = ", ".join(_COLUMNS)
        self._db.execute(f"CREATE TABLE outcome (id TEXT PRIMARY KEY, {columns}) WITHOUT ROWID")
        self._db.execute("BEGIN")
        self._find = f"SELECT {columns} FROM outcome WHERE id = ?"  # noqa: S608 - our own names
        marks = ", ".join("?" * (len(_COLUMNS) + 1))
        self._put = f"INSERT OR REPLACE INTO outcome (id, {columns}) VALUES ({marks})"  # noqa: S608

    def of(self, id: str) -> Outcome | None:
        """What came back for a decision."""
        row = self._db.execute(self._find, (id,)).fetchone()
        if row is None:
            return None
        found = Outcome(*row[:5], *map(bool, row[5:-1]))
        found.metrics = json.loads(row[-1])
        return found

    def rewarded(self, event: ev.Rewarded) -> None:
        """Add the outcomes of one event; a correction's values replace earlier ones."""
        outcome = self.of(event.decision_id) or Outcome()
        if event.revoked:
            for name in {*event.revoked, "reward", "reward_ts"} & set(_COLUMNS):
                setattr(outcome, name, None)
            for name in event.revoked:
                outcome.metrics.pop(name, None)
            outcome.corrected, outcome.settled, outcome.weighed = True, False, False
            self._keep(event.decision_id, outcome)
            return
        for name in _VALUES:
            if (value := getattr(event, name)) is not None:
                setattr(outcome, name, value)
        outcome.metrics |= event.metrics
        outcome.corrected = outcome.corrected or event.correction
        if event.reward is not None:
            outcome.settled, outcome.reward_ts = True, event.ts
            outcome.weighed = event.weighed
        self._keep(event.decision_id, outcome)

    def expired(self, event: ev.DecisionsExpired) -> None:
        """Note that decisions expired, and the default reward of those that were never rewarded."""
        for id in event.ids:
            outcome = self.of(id) or Outcome()
            outcome.expired = True
            if not outcome.settled and event.default_reward is not None:
                outcome.reward, outcome.reward_ts = event.default_reward, event.ts
            self._keep(id, outcome)

    def count(self) -> int:
        """The number of decisions with an outcome."""
        return int(self._db.execute("SELECT count(*) FROM outcome").fetchone()[0])

    def close(self) -> None:
        """Close the temporary file, which deletes it."""
        self._db.close()

    def _keep(self, id: str, outcome: Outcome) -> None:
        *values, metrics = (getattr(outcome, name) for name in _COLUMNS)
        self._db.execute(self._put, (id, *values, json.dumps(metrics)))


@dataclass(slots=True)
class Counts:
    """What an export wrote, and what it skipped and why."""

    written: dict[str, int] = field(default_factory=dict)
    erased: int = 0
    forgotten: int = 0
    unrewarded: int = 0
    elsewhere: int = 0
    unwanted: int = 0

    def wrote(self, what: str) -> None:
        """Count one line or row."""
        self.written[what] = self.written.get(what, 0) + 1

    def told(self) -> str:
        """For people, in one line."""
        said = [f"{count} {what}" for what, count in sorted(self.written.items())] or ["nothing"]
        left_out = [
            f"{count} {what}"
            for what, count in (
                ("erased", self.erased),
                ("of units being erased", self.forgotten),
                ("unrewarded decisions", self.unrewarded),
                ("decisions of another route or without the tags", self.unwanted),
                ("outcomes of decisions that are not in this export", self.elsewhere),
            )
            if count
        ]
        return "wrote " + ", ".join(said) + ("; left out: " * bool(left_out)) + ", ".join(left_out)


class Scan:
    """A source read once, to be read again by `events`. Close it, or use it in `with`.

    joined: whether outcomes are kept, by decision. tags, route: only decisions that have all of
    these, and of this route (None for all, "auto" for the default one), with what came of them.
    """

    def __init__(
        self,
        source: Source,
        after: int,
        *,
        joined: bool,
        progress: Progress | None = None,
        tags: Iterable[str] = (),
        route: str | None = None,
    ) -> None:
        self.after = after
        self._tags = frozenset(tags)
        self._route = "" if route == AUTO else route
        self._all = not self._tags and route is None
        self.counts = Counts()
        self._outcomes = Outcomes()
        self.dim = 0
        self.arms: set[str] = set()
        self._matched = 0
        self._source = source
        self._progress = progress or (lambda _: None)
        self._forgotten: dict[str, int] = {}
        # decisions before `after` are not exported; the arms are known only from there on
        self._from = source.first - 1 if joined else after
        try:
            for offset, event in source.events(self._from):
                self._note(offset, event, joined=joined)
                self._progress(1)
        except BaseException:
            self._outcomes.close()
            raise

    def outcome(self, id: str) -> Outcome:
        """What came back for a decision; ask once for each."""
        found = self._outcomes.of(id)
        self._matched += found is not None
        return found or Outcome()

    def summary(self) -> str:
        """A sentence with what was written and skipped."""
        self.counts.elsewhere = self._outcomes.count() - self._matched
        return self.counts.told()

    def events(self) -> Iterator[tuple[int, ev.AnyEvent]]:
        """Every event that may be shown, in order, and those of arms from the beginning on."""
        hidden: set[str] = set()
        wanted: set[str] = set()
        for offset, event in self._source.events(self._from):
            self._progress(1)
            if event is None:
                self.counts.erased += offset > self.after
            elif self._is_hidden(offset, event, hidden):
                self.counts.forgotten += offset > self.after
            elif not self._all and not self._is_wanted(event, wanted):
                self.counts.unwanted += offset > self.after and isinstance(event, ev.Decided)
            elif offset > self.after or isinstance(event, ev.ArmAdded | ev.ArmUpdated):
                yield offset, event

    def _note(self, offset: int, event: ev.AnyEvent | None, *, joined: bool) -> None:
        match event:
            case ev.Forgotten():
                self._forgotten[event.owner] = offset
            case ev.Decided():
                self.dim = self.dim or len(event.embedding) // 4
                self.arms.update(event.arms)
            case ev.Rewarded() | ev.Compared() if event.subject is not None:
                self.dim = self.dim or len(event.subject.embedding) // 4
            case ev.Rewarded() if joined and event.decision_id:
                self._outcomes.rewarded(event)
            case ev.DecisionsExpired() if joined:
                self._outcomes.expired(event)
            case _:
                pass

    def _is_hidden(self, offset: int, event: ev.AnyEvent, hidden: set[str]) -> bool:
        """Whether it belongs to a unit that was forgotten later, erased in the log or not yet."""
        of: ev.Decided | ev.Subject | None = None
        match event:
            case ev.Decided():
                of = event
            case ev.Rewarded() | ev.Compared():
                if event.decision_id in hidden:
                    return True
                of = event.subject
            case ev.SessionRewarded() if event.owner:
                return offset <= self._forgotten.get(event.owner, 0)
            case _:
                return False
        if of is None or offset > self._forgotten.get(ev.owner_of(of.tenant, of.unit), 0):
            return False
        if isinstance(event, ev.Decided):
            hidden.add(event.id)
        return True

    def _is_wanted(self, event: ev.AnyEvent, wanted: set[str]) -> bool:
        """Whether it is a requested decision, an outcome of one, or about no decision.

        wanted: ids of these decisions, and the sessions of which one is rewarded.
        """
        match event:
            case ev.Decided():
                if self._route in (None, event.route) and self._tags <= set(event.tags):
                    wanted.add(event.id)
                return event.id in wanted
            case ev.DecisionsExpired():
                ours = not wanted.isdisjoint(event.ids)
                wanted.difference_update(event.ids)  # nothing comes of them any more
                return ours
            case ev.Rewarded() | ev.Compared() | ev.Shadowed() | ev.Redirected() | ev.Judged():
                return event.decision_id in wanted
            case ev.Spent():
                return event.decision_id in wanted
            case ev.SessionRewarded():
                ours = not wanted.isdisjoint(event.ids)
                (wanted.add if ours else wanted.discard)(event.group)
                return ours
            case ev.SessionCredited():
                return event.group in wanted
            case _:
                return True

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self._outcomes.close()
