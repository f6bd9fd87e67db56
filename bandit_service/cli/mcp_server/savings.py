"""What routing spent and saved over a window: of the service's list of decisions, summed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bandit_service.statistics.moments import Moments

PAGE, MOST = 500, 50_000
"""Decisions of one request, and of one answer."""


@dataclass(slots=True)
class Spent:
    """The answers of one arm, and their outcomes."""

    decisions: int = 0
    cost_usd: Moments = field(default_factory=Moments)
    reward: Moments = field(default_factory=Moments)


@dataclass(slots=True)
class Savings:
    """Sums over the decisions of a window. saved: expected cost of the baseline less the cost.

    oldest: when the oldest decision that was looked at was made. whole: no older ones are left out.
    """

    baseline: str = ""
    arms: dict[str, Spent] = field(default_factory=dict)
    saved: Moments = field(default_factory=Moments)
    spent_usd: float = 0.0
    would_cost_usd: float = 0.0
    oldest: float | None = None
    whole: bool = True

    @property
    def decisions(self) -> int:
        """How many there were."""
        return sum(each.decisions for each in self.arms.values())

    def add(self, row: Mapping[str, Any]) -> None:
        """One decision of the list."""
        spent = self.arms.setdefault(row["arm"], Spent())
        spent.decisions += 1
        self.oldest = row["ts"]
        cost, would = row["signals"].get("cost_usd"), row.get("baseline_usd")
        if row["reward"] is not None:
            spent.reward.add(row["reward"])
        if cost is None:
            return
        spent.cost_usd.add(cost)
        self.spent_usd += cost
        if would is not None:
            self.would_cost_usd += would
            self.saved.add(would - cost)


def gathered(pages: Iterable[Mapping[str, Any]], since: float, most: int = MOST) -> Savings:
    """The sums over the decisions from `since`, UTC seconds. pages: newest first.

    >>> row = {"arm": "a", "ts": 9.0, "reward": None, "signals": {"cost_usd": 1.0}}
    >>> page = {"baseline": "b", "decisions": [row | {"baseline_usd": 3.0}, row | {"ts": 1.0}]}
    >>> found = gathered([page], since=5.0)
    >>> found.decisions, found.spent_usd, found.would_cost_usd, found.whole
    (1, 1.0, 3.0, True)
    """
    found = Savings()
    for page in pages:
        found.baseline = page.get("baseline", "")
        for row in page["decisions"]:
            if row["ts"] < since:
                return found
            if found.decisions == most:
                found.whole = False
                return found
            found.add(row)
    return found


def pages_of(get: Callable[..., Any]) -> Iterable[Mapping[str, Any]]:
    """The pages of the service's list, newest first, each asked for when it is needed."""
    query: dict[str, str | int] = {"limit": PAGE}
    while True:
        page = get("/v1/decisions", **query)
        yield page
        if not page.get("next"):
            return
        query["before"] = page["next"]
