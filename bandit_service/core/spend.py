"""The spend of each account in each hour, day and month: a fold of the reported costs.

A cost counts in the window in which its decision was made, so that a bill that comes late does not
fall on the next window. Windows are UTC; of each kind the newest two are kept.

Clients name tenants, so each window keeps only the tenants with the highest spend apart, about
`MAX_ACCOUNTS`. Beyond that the tenth with the lowest spend is dropped, and the highest spend among
these stands for every tenant that is not kept apart, also when it returns (the space saving of
Metwally, Agrawal and El Abbadi, in bulk). So no tenant counts as less than it spent, and a hard
budget stays hard. A tenant may count as more, by at most the total spend over nine tenths of that
bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from bandit_service.core import events as ev
from bandit_service.core.feature import takes
from bandit_service.core.resolved import Resolved

PERIODS = ("hour", "day", "month")
_FORMS = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}
_KEPT = 2
MAX_ACCOUNTS = 10_000
_TENANT = "tenant:"
OTHERS = "others"
"""The account of a tenant's spend that is not separated further."""


def window(period: str, ts: float) -> str:
    """The window that a moment (UTC seconds) lies in.

    >>> window("hour", 0.0), window("day", 90_000.0), window("month", 0.0)
    ('1970-01-01T00', '1970-01-02', '1970-01')
    """
    return _windows(_hour(ts))[PERIODS.index(period)]


def _hour(ts: float) -> int:
    """The hour of a moment, to the microsecond, as a datetime rounds it."""
    part, whole = math.modf(ts)
    return int(whole + (part > 0.999 and round(part * 1e6) >= 1_000_000)) // 3600


@lru_cache(maxsize=64)
def _windows(hour: int) -> tuple[str, ...]:
    """The windows that an hour lies in, in the order of PERIODS."""
    begin = datetime.fromtimestamp(3600.0 * hour, UTC)
    return tuple(begin.strftime(_FORMS[period]) for period in PERIODS)


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


class Payer(NamedTuple):
    """Whose budgets a cost counts for; the default route has none of its own."""

    tenant: str = ""
    key: str = ""
    route: str = ""


@dataclass
class Spend:
    """USD by period, window and account: "service", "tenant:…", "key:…", "route:…", "judge:…".

    `_hour`, `_kept`: the hour of the last cost, and the accounts of its windows that are kept.
    """

    windows: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    _hour: int = field(default=-1, compare=False)
    _kept: tuple[dict[str, float], ...] = field(default=(), compare=False)

    @takes(ev.Rewarded)
    def _rewarded(self, event: ev.Rewarded, what: Resolved) -> None:
        """A reported cost takes the place of the provisional one."""
        if not what.known or event.cost_usd is None:
            return
        before = what.replaced.get("cost_usd", 0.0) if event.correction else 0.0
        usd = event.cost_usd - before - what.guessed_usd
        pending = what.pending
        if pending is None:
            self._book(event.ts, usd, _accounts_of(what.tenant, "", "", ""))
        else:
            self.pay(pending.decided, usd)

    @takes(ev.Spent)
    def _spent(self, event: ev.Spent, what: Resolved) -> None:
        """In the window of the decision where its cost is estimated."""
        pending = what.pending
        if pending is None:
            payer = Payer(event.tenant, event.caller, event.route)
            self.add(event.ts, event.usd, payer, event.judge)
        elif "cost_usd" not in pending.signals:
            self.add(pending.decided.ts, event.usd, payer_of(pending.decided))

    def pay(self, by: ev.Decided, usd: float) -> None:
        """The cost of a decision."""
        self._book(by.ts, usd, _accounts_of(by.tenant, by.caller, by.route, ""))

    def add(self, ts: float, usd: float, payer: Payer, judge: str = "") -> None:
        """One cost, or with a negative sign the part of one that was corrected away."""
        self._book(ts, usd, _accounts_of(*payer, judge))

    def _book(self, ts: float, usd: float, named: Sequence[str]) -> None:
        """The same on these accounts."""
        hour = _hour(ts)
        if hour != self._hour:
            self._hour, self._kept = hour, tuple(self._accounts(hour))
        for accounts in self._kept:
            for account in named:
                before = accounts.get(account)
                accounts[account] = (_of(accounts, account) if before is None else before) + usd
            if len(accounts) > MAX_ACCOUNTS:
                _shrink(accounts)

    def _accounts(self, hour: int) -> Iterator[dict[str, float]]:
        """The accounts of each window that an hour lies in, but of those that nobody asks for any
        more.
        """
        for period, name in zip(PERIODS, _windows(hour), strict=True):
            kept = self.windows.setdefault(period, {})
            if name not in kept:
                if len(kept) >= _KEPT and name < min(kept):
                    continue
                kept[name] = {}
                while len(kept) > _KEPT:
                    del kept[min(kept)]
            yield kept[name]

    def spent(self, period: str, ts: float, account: str) -> float:
        """What an account spent in the window of this moment, or a little more."""
        return self.spent_in(period, window(period, ts), account)

    def spent_in(self, period: str, window: str, account: str) -> float:
        """The same of a window by its name."""
        return _of(self.windows.get(period, {}).get(window, {}), account)


def _of(accounts: dict[str, float], account: str) -> float:
    found = accounts.get(account)
    if found is None:
        return accounts.get(OTHERS, 0.0) if account.startswith(_TENANT) else 0.0
    return found


def _shrink(accounts: dict[str, float]) -> None:
    tenants = [(usd, name) for name, usd in accounts.items() if name.startswith(_TENANT)]
    for usd, name in sorted(tenants)[: -(-len(tenants) // 10)]:
        accounts[OTHERS] = max(usd, accounts.get(OTHERS, 0.0))
        del accounts[name]


def payer_of(decided: ev.Decided) -> Payer:
    """Who pays for a decision."""
    return Payer(decided.tenant, decided.caller, decided.route)


def accounts_of(payer: Payer, judge: str = "") -> list[str]:
    """The accounts that a decision's cost, or that of judging it, is booked on."""
    return list(_accounts_of(*payer, judge))


@lru_cache(maxsize=256)
def _accounts_of(tenant: str, key: str, route: str, judge: str) -> tuple[str, ...]:
    named = {"tenant": tenant, "key": key, "route": route, "judge": judge}
    return ("service", *(f"{kind}:{name}" for kind, name in named.items() if name))
