"""Slices of budgets: what a replica may spend without asking the others.

A slice is an event, `budget_leased`: what a replica may spend from then on, of an account in a
window. It is appended only if the spend so far, the slices of the others and the slice itself stay
within the limit. If another slice of the account came in between, the log refuses it, and it is
checked again. So as long as each replica spends only its own slices, all together stay within the
limit.

A slice that is more than half used is renewed before a call waits for it. A slice that nobody uses
is returned. The keeper returns the slices of a replica that was closed long ago.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from bandit_service.core import events as ev
from bandit_service.core.errors import BudgetExhausted, ServiceError
from bandit_service.core.resolved import Resolved
from bandit_service.core.spend import window
from bandit_service.core.world import World
from bandit_service.runtime.supervisor import Kept
from bandit_service.runtime.writer import Writer

_log = logging.getLogger("bandit.budgets")
_SHARE = 0.02
"""The share of a limit that is one slice."""
_LOOK_S, _IDLE_S, _CLOSE_S = 1.0, 10.0, 2.0
_ROUNDING = 1e-9
"""The rounding error of a sum of costs, as a share of a limit."""
Key: TypeAlias = tuple[str, str, str]
"""Account, period and window."""


@dataclass(slots=True)
class _Slice:
    """usd: the size in the log, of which `used` was spent since. since: the time of that, by
    time.monotonic. asked: the requested size, while a request is running; event: its event. wanted:
    the need of each call that waits for it.
    """

    usd: float = 0.0
    used: float = 0.0
    since: float = -math.inf
    touched: float = 0.0
    asked: float = math.inf
    event: ev.BudgetLeased | None = None
    asking: asyncio.Future[None] | None = None
    wanted: list[float] = field(default_factory=list)


class Slices:
    """limits: of an account, its lowest limit by period. held: the maximum cost of the running
    calls, by account. lost_after_s: when the keeper returns the slices of a closed replica.
    """

    def __init__(
        self,
        writer: Writer,
        limits: Callable[[str], Mapping[str, float]],
        held: Callable[[str], float],
        lost_after_s: float,
    ) -> None:
        self._writer = writer
        self._limits = limits
        self._held = held
        self._lost_after_s = lost_after_s
        self._slices: dict[Key, _Slice] = {}
        self._looking: Kept | None = None
        writer.listen(self._heard)

    def start(self) -> None:
        """Start returning slices that nobody needs."""
        self._looking = self._writer.tasks.keep("budgets", self._look_forever)

    async def close(self) -> None:
        """Return everything except what running calls hold."""
        if self._looking is not None:
            await self._looking.end()
        with suppress(ServiceError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                for key in self._own():
                    await self._set(key, spare=0.0)

    def others(self, account: str, per: str, now: float) -> float:
        """What the other replicas may spend of an account in the present window."""
        leases = self._writer.world.leases
        return leases.others(per, window(per, now), account, self._writer.membership.slot)

    def covered(self, accounts: Sequence[str], usd: float, now: float) -> bool:
        """Whether a call of this maximum cost can begin now; otherwise `secure` it first."""
        return not self._lacking(accounts, usd, now)

    async def secure(self, accounts: Sequence[str], usd: float, now: float) -> None:
        """Request what a call lacks. Check again afterwards: other calls may have taken it.

        Raises BudgetExhausted if it is not available, and Unavailable if the log is unreachable.
        """
        for key in self._lacking(accounts, usd, now):
            found = self._slices.setdefault(key, _Slice())
            found.wanted.append(usd)
            try:
                await asyncio.shield(self._asked(key, found))
            finally:
                found.wanted.remove(usd)

    def refill(self, accounts: Sequence[str], now: float) -> None:
        """Request more in advance if less than half a slice is left."""
        for key in self._keys(accounts, now):
            found, one = self._slices.get(key), self._one(key)
            if found is None or found.asking is not None or self._free(key, found) >= one / 2:
                continue
            if self._more(key, found, one) - self._left(found) > one / 4:
                self._asked(key, found)

    def spent(self, accounts: Sequence[str], usd: float) -> None:
        """A call that held its maximum is over, and its cost is known."""
        for key in self._keys(accounts, self._writer.now()):
            if key in self._slices:
                self._slices[key].used += usd

    # --- what there is --------------------------------------------------------------------

    def _keys(self, accounts: Sequence[str], now: float) -> Iterator[Key]:
        for account in accounts:
            for per in self._limits(account):
                yield account, per, window(per, now)

    def _limit(self, key: Key) -> float:
        return self._limits(key[0]).get(key[1], 0.0)

    def _one(self, key: Key) -> float:
        return _SHARE * self._limit(key)

    def _lacking(self, accounts: Sequence[str], usd: float, now: float) -> list[Key]:
        lacking, touched = list[Key](), time.monotonic()
        for key in self._keys(accounts, now):
            found = self._slices.setdefault(key, _Slice())
            found.touched = touched
            if self._free(key, found) < usd - _ROUNDING * self._limit(key):
                lacking.append(key)
        return lacking

    def _left(self, found: _Slice) -> float:
        """The unspent part of a slice; nothing if the others may have taken it back."""
        good = found.since >= self._writer.membership.in_touch_since
        return found.usd - found.used if good else 0.0

    def _free(self, key: Key, found: _Slice) -> float:
        """How much more calls may hold; negative if more is held than there is."""
        if found.asking is None and not self._writer.under_way(_subject(key)):
            found.asked = math.inf  # nothing came of it
        return min(self._left(found), found.asked) - self._held(key[0])

    def _more(self, key: Key, found: _Slice, extra: float) -> float:
        """The size of the slice that leaves this much beyond what is held, within the limit."""
        (account, per, of), world = key, self._writer.world
        spent = world.spend.spent_in(per, of, account)
        others = world.leases.others(per, of, account, self._writer.membership.slot)
        wanted = max(extra, sum(found.wanted))
        return min(self._held(account) + wanted, self._limit(key) - spent - others)

    # --- asking ---------------------------------------------------------------------------

    def _asked(self, key: Key, found: _Slice) -> asyncio.Future[None]:
        """One request for all calls that wait for this slice."""
        if found.asking is None:
            found.asking = asyncio.ensure_future(self._set(key))
            found.asking.add_done_callback(partial(_asked_for, found))
        return found.asking

    async def _set(self, key: Key, spare: float | None = None) -> None:
        """Change the slice to what is needed, or to `spare` beyond what is held if that is less."""
        prepare = self._increased if spare is None else partial(self._decreased, spare)
        await self._writer.submit(partial(prepare, key), key=_subject(key))

    def _increased(self, key: Key) -> ev.AnyEvent | None:
        """Prepared in the present world, and again if another replica's slice came first."""
        found = self._slices.setdefault(key, _Slice())
        found.asked, found.event = math.inf, None
        new, rounding = self._more(key, found, self._one(key)), _ROUNDING * self._limit(key)
        if found.wanted and new - self._held(key[0]) < min(found.wanted) - rounding:
            raise BudgetExhausted(
                f"what is left of the budget of {self._limit(key):g} USD per {key[1]} is less than "
                "this request may cost at most, or is held by other replicas",
                _LOOK_S,
            )
        return None if new <= self._left(found) + rounding else self._lease(key, found, new)

    def _decreased(self, spare: float, key: Key) -> ev.AnyEvent | None:
        found = self._slices.setdefault(key, _Slice())
        found.asked, found.event = math.inf, None
        new = min(self._held(key[0]) + spare, self._left(found))
        if new > _ROUNDING * self._limit(key):
            return self._lease(key, found, new)
        found.asked = 0.0
        return self._return(self._writer.membership.slot, key)

    def _lease(self, key: Key, found: _Slice, usd: float) -> ev.BudgetLeased:
        (account, per, of), writer = key, self._writer
        found.asked = usd
        found.event = ev.BudgetLeased(
            ts=writer.now(),
            replica=writer.membership.slot,
            account=account,
            per=per,
            window=of,
            usd=usd,
        )
        return found.event

    def _return(self, slot: int, key: Key) -> ev.BudgetReturned | None:
        (account, per, of), writer = key, self._writer
        if slot not in writer.world.leases.of(per, of, account):
            return None
        return ev.BudgetReturned(ts=writer.now(), replica=slot, account=account, per=per, window=of)

    def _heard(self, what: Resolved, _: World) -> None:
        event = what.event
        if not isinstance(event, ev.BudgetLeased | ev.BudgetReturned):
            return
        found = self._slices.get((event.account, event.per, event.window))
        if found is None or event.replica != self._writer.membership.slot:
            return
        if isinstance(event, ev.BudgetReturned):
            found.usd = found.used = 0.0
        elif event is found.event:  # and not one that an earlier process was still writing
            found.usd, found.used, found.since = event.usd, 0.0, time.monotonic()
            found.asked = math.inf

    # --- giving back ----------------------------------------------------------------------

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self._forget()
            for key in self._own():
                if (spare := self._spare(key)) is not None:
                    await _tried(self._set(key, spare))
            for slot in self._gone():
                for key in self._of_replica(slot):
                    taken = partial(self._taken_back, slot, key)
                    await _tried(self._writer.submit(taken, key=_subject(key)))
            self._writer.tasks.well("budgets")

    def _forget(self) -> None:
        """Drop slices of past windows, and empty ones that nobody uses."""
        now = self._writer.now()
        for key, found in list(self._slices.items()):
            unused = found.usd == 0.0 and found.asking is None and self._is_idle(found)
            if key[2] < window(key[1], now) or unused:
                del self._slices[key]

    def _own(self) -> list[Key]:
        """This replica's slices, also those of an earlier process."""
        return self._of_replica(self._writer.membership.slot)

    def _of_replica(self, slot: int) -> list[Key]:
        now, held = self._writer.now(), self._writer.world.leases.held_by(slot)
        return [(account, per, of) for per, of, account in held if of >= window(per, now)]

    def _spare(self, key: Key) -> float | None:
        """How much to keep beyond what is held; None if nothing is to be returned."""
        found, one = self._slices.get(key), self._one(key)
        if found is None or (found.asking is None and self._is_idle(found)):
            return 0.0
        return one if found.asking is None and self._free(key, found) > 2 * one else None

    def _is_idle(self, found: _Slice) -> bool:
        return time.monotonic() - found.touched > _IDLE_S

    def _gone(self) -> list[int]:
        """Replicas whose slices the keeper returns: none of their calls is running any more."""
        rows = self._writer.membership.known if self._writer.membership.keeps else []
        return [row.slot for row in rows if row.closed and row.unseen_s > self._lost_after_s]

    def _taken_back(self, slot: int, key: Key) -> ev.AnyEvent | None:
        if slot not in self._gone():
            return None
        _log.warning("a lost replica's slice of a budget is given back", extra={"slot": slot})
        return self._return(slot, key)


async def _tried(asked: Awaitable[object]) -> None:
    with suppress(ServiceError):  # the log is unreachable; this is tried again
        await asked


def _subject(key: Key) -> str:
    """The subject under which all replicas change the slices of an account."""
    account, per, of = key
    return f"budget {per} {of} {account}"


def _asked_for(found: _Slice, asked: asyncio.Future[None]) -> None:
    """It may be requested again; maybe nobody waits for its error any more."""
    found.asking = None
    if not asked.cancelled():
        asked.exception()
