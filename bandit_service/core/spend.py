"""What was spent, by whom and in which hour, day and month: a fold of the costs reported.

A cost counts in the window in which its decision was made, so that a bill that comes late does not
fall on the next window. Windows are UTC; of each kind the newest two are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

PERIODS = ("hour", "day", "month")
_FORMS = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}
_KEPT = 2


def window(period: str, ts: float) -> str:
    """The window that a moment (UTC seconds) lies in.

    >>> window("hour", 0.0), window("day", 90_000.0), window("month", 0.0)
    ('1970-01-01T00', '1970-01-02', '1970-01')
    """
    return datetime.fromtimestamp(ts, UTC).strftime(_FORMS[period])


def ends(period: str, ts: float) -> float:
    """When the window of a moment ends, UTC seconds.

    >>> ends("hour", 10.0), ends("day", 10.0), ends("month", 10.0) == 31 * 86_400
    (3600.0, 86400.0, True)
    """
    if period == "hour":
        return (ts // 3600.0 + 1.0) * 3600.0
    if period == "day":
        return (ts // 86_400.0 + 1.0) * 86_400.0
    moment = datetime.fromtimestamp(ts, UTC)
    year, month = moment.year + moment.month // 12, moment.month % 12 + 1
    return datetime(year, month, 1, tzinfo=UTC).timestamp()


@dataclass
class Spend:
    """USD by period, window and account: "service", "tenant:…", "key:…" or "judge:…"."""

    windows: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def add(self, ts: float, usd: float, tenant: str, key: str, judge: str = "") -> None:
        """One cost, or with a negative sign the part of one that was corrected away."""
        for period in PERIODS:
            kept = self.windows.setdefault(period, {})
            name = window(period, ts)
            if name not in kept:
                if len(kept) >= _KEPT and name < min(kept):
                    continue  # of a window that nobody asks for any more
                kept[name] = {}
                while len(kept) > _KEPT:
                    del kept[min(kept)]
            accounts = kept[name]
            for account in accounts_of(tenant, key, judge):
                accounts[account] = accounts.get(account, 0.0) + usd

    def spent(self, period: str, ts: float, account: str) -> float:
        """What an account spent in the window of this moment."""
        return self.windows.get(period, {}).get(window(period, ts), {}).get(account, 0.0)


def accounts_of(tenant: str, key: str, judge: str = "") -> list[str]:
    """The accounts that a decision's cost, or that of judging it, is booked on."""
    named = (("tenant", tenant), ("key", key), ("judge", judge))
    return ["service", *(f"{kind}:{name}" for kind, name in named if name)]
