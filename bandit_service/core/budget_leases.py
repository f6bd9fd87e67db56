"""What each replica may spend of a budget without asking: a fold of their slices.

Together with the spend it keeps several processes within one limit: spend and all slices never
exceed it (docs/adr/0017).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from bandit_service.core import events as ev
from bandit_service.core.feature import takes
from bandit_service.core.resolved import Resolved

_KEPT = 2
Slots: TypeAlias = dict[int, float]


@dataclass
class BudgetLeases:
    """USD by period, window, account and the slot of the replica; of each period two windows."""

    windows: dict[str, dict[str, dict[str, Slots]]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether a replica holds anything."""
        return bool(self.windows)

    def of(self, per: str, window: str, account: str) -> Mapping[int, float]:
        """What each replica may spend of an account, by slot."""
        return self.windows.get(per, {}).get(window, {}).get(account, {})

    def others(self, per: str, window: str, account: str, slot: int) -> float:
        """What all replicas but this one may spend of it."""
        held = self.of(per, window, account)
        return sum(usd for each, usd in held.items() if each != slot) if held else 0.0

    def held_by(self, slot: int) -> Iterator[tuple[str, str, str]]:
        """The accounts of which a replica may spend: period, window, account."""
        for per, windows in self.windows.items():
            for window, accounts in windows.items():
                for account, slots in accounts.items():
                    if slot in slots:
                        yield per, window, account

    @takes(ev.BudgetLeased)
    def _leased(self, event: ev.BudgetLeased, _: Resolved) -> None:
        kept = self.windows.setdefault(event.per, {})
        if event.window not in kept:
            if len(kept) >= _KEPT and event.window < min(kept):
                return  # of a window that nobody asks for any more
            kept[event.window] = {}
            while len(kept) > _KEPT:
                del kept[min(kept)]
        kept[event.window].setdefault(event.account, {})[event.replica] = event.usd

    @takes(ev.BudgetReturned)
    def _returned(self, event: ev.BudgetReturned, _: Resolved) -> None:
        kept = self.windows.get(event.per, {})
        accounts = kept.get(event.window, {})
        slots = accounts.get(event.account, {})
        slots.pop(event.replica, None)
        if not slots:
            accounts.pop(event.account, None)
        if not accounts:
            kept.pop(event.window, None)
        if not kept:
            self.windows.pop(event.per, None)
