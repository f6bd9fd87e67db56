"""Budgets: hard caps by reserve and settle, and the price of a dollar that spreads the spend.

A request reserves what its arm may cost at most, and settles when the cost comes back; so spent +
reserved never exceeds the limit, except by what a provider bills above its own maximum. Spend is
computed from the log and survives a restart; reservations end with the running requests.

Pacing is dual ascent on the price of a dollar λ ≥ 0, on top of 1 / willingness to pay (Balseiro,
Lu and Mirrokni; ParetoBandit has it with a smoothed cost). The step after each cost c, against what
the clock allows ρ, is λ ← λ + η · (c − ρ); summed over a window that is

    λ = min(max(0, G · (x − t)), max) / wtp,

with x what was spent of the limit and t what has passed of the window. In this form λ is a function
of the folded state and the clock. So nothing has to be stored, and a restart continues the pacing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bandit_service.core.display import rounded
from bandit_service.core.errors import BudgetExhausted
from bandit_service.core.spend import Payer, Spend, accounts_of, ends, window
from bandit_service.settings.budgets import BudgetSpec

_GAIN, _MAX_PRICE = 20.0, 100.0
_SOON_S = 1.0
"""When to retry if other calls hold the money; most of them will spend less than they hold."""
_SECONDS = {"hour": 3600.0, "day": 86_400.0, "month": 30 * 86_400.0}


@dataclass(slots=True)
class _Reserved:
    usd: float
    accounts: list[str]


@dataclass(slots=True)
class _Held:
    """What an account has reserved, and by how many requests."""

    usd: float = 0.0
    requests: int = 0


@dataclass
class Budgets:
    """All limits, and what is reserved under them. An account is known while it reserves."""

    specs: tuple[BudgetSpec, ...] = ()
    _reserved: dict[str, _Reserved] = field(default_factory=dict)
    _held: dict[str, _Held] = field(default_factory=dict)

    def fitting(
        self, spend: Spend, max_usd: Mapping[str, float], payer: Payer, now: float
    ) -> list[str]:
        """The arms whose maximum cost still fits every budget, in their order. What costs nothing
        fits one that is overspent, too.

        Raises BudgetExhausted if none does, or if a budget refuses rather than save.
        """
        left, binding, held, others = self._left(spend, payer, now)
        fitting = [arm for arm, usd in max_usd.items() if usd <= max(left, 0.0)]
        if binding is None or len(fitting) == len(max_usd):
            return list(max_usd)
        if not fitting or binding.on_exhausted == "refuse":
            needed = min(max_usd.values()) if not fitting else max(max_usd.values())
            raise BudgetExhausted(
                f"the budget of {binding.usd:g} USD per {binding.per} ({binding.scope}) is spent, "
                "or has less left than this request may cost at most; a smaller max_tokens, or "
                "max_output_tokens of the arm, makes that less",
                _SOON_S if needed <= left + held + others else ends(binding.per, now) - now,
            )
        return fitting

    def left(self, spend: Spend, payer: Payer, now: float) -> float:
        """USD that one more request may hold; infinite without a budget."""
        return self._left(spend, payer, now)[0]

    def _left(
        self, spend: Spend, payer: Payer, now: float
    ) -> tuple[float, BudgetSpec | None, float, float]:
        """The budget with the least left: what is left, the budget, what is held of it, and what
        other replicas may spend.
        """
        left, binding, holds, others_have = float("inf"), None, 0.0, 0.0
        self._look()
        for spec, account in self._of(payer):
            held, others = self._held_usd(account), self._others(account, spec.per, now)
            free = spec.usd - spend.spent(spec.per, now, account) - held - others
            if free < left:
                left, binding, holds, others_have = free, spec, held, others
        return left, binding, holds, others_have

    def start(self) -> None:
        """One process has no background work."""

    async def close(self) -> None:
        """Nor work at its end."""

    async def secured(self, usd: float, payer: Payer, now: float) -> bool:  # noqa: ARG002 - replicas ask for it
        """Whether the money may be reserved at once. If not, this has waited: check again. One
        process has all that is left.
        """
        return True

    def booked(self, id: str, usd: float) -> None:
        """A cost of what is held under this id was booked on no decision."""

    def _others(self, account: str, per: str, now: float) -> float:  # noqa: ARG002 - there are none
        """What other replicas may spend of an account."""
        return 0.0

    def _look(self) -> None:
        """Release what is settled by now."""

    def reserve(self, decision_id: str, usd: float, payer: Payer) -> None:
        """Hold what a request may cost until it settles."""
        if not self.specs:
            return
        accounts = accounts_of(payer)
        self._reserved[decision_id] = _Reserved(usd, accounts)
        for account in accounts:
            held = self._held.setdefault(account, _Held())
            held.usd, held.requests = held.usd + usd, held.requests + 1

    def settle(self, decision_id: str) -> None:
        """Release what was held: its cost is applied, or will never come."""
        reserved = self._reserved.pop(decision_id, None)
        for account in reserved.accounts if reserved is not None else ():
            assert reserved is not None
            held = self._held[account]
            held.usd, held.requests = max(0.0, held.usd - reserved.usd), held.requests - 1
            if not held.requests:  # and what rounding has left
                del self._held[account]

    def _held_usd(self, account: str) -> float:
        held = self._held.get(account)
        return 0.0 if held is None else held.usd

    def worth(self, spend: Spend, worth: float, payer: Payer, now: float) -> float:
        """Willingness to pay at the dearest price of a dollar: 1 / (1 / worth + λ)."""
        prices = (
            _price(spec, spend.spent(spec.per, now, account), now)
            for spec, account in self._of(payer)
        )
        return worth / (1.0 + max(prices, default=0.0))

    def rows(self, spend: Spend, now: float, tenant: str | None = None) -> list[dict[str, Any]]:
        """Each limit for each account that has spent, or is the service.

        tenant: who sees its own account alone; None sees all.
        """
        rows = []
        self._look()
        for spec in self.specs:
            seen = spend.windows.get(spec.per, {}).get(window(spec.per, now), {})
            prefix = f"{spec.scope}:"
            for account in sorted({"service", *seen}):
                name = account.removeprefix(prefix)
                mine = (
                    account == "service"
                    if spec.scope == "service"
                    else (account.startswith(prefix) and spec.id in ("*", name))
                )
                if mine and (tenant is None or account == f"tenant:{tenant}"):
                    rows.append(
                        {
                            "account": account,
                            "per": spec.per,
                            "usd": spec.usd,
                            "spent_usd": rounded(seen.get(account, 0.0)),
                            "held_usd": rounded(self._held_usd(account)),
                            "leased_usd": rounded(self._others(account, spec.per, now)),
                            "ends_in_s": ends(spec.per, now) - now,
                            "shadow_price": _price(spec, seen.get(account, 0.0), now),
                        }
                    )
        return rows

    def _of(self, payer: Payer) -> list[tuple[BudgetSpec, str]]:
        named = {"service": "", **payer._asdict()}
        accounts = []
        for spec in self.specs:
            name = named[spec.scope]
            if spec.scope == "service":
                accounts.append((spec, "service"))
            elif name and spec.id in ("*", name):
                accounts.append((spec, f"{spec.scope}:{name}"))
        return accounts


def _price(spec: BudgetSpec, spent_usd: float, now: float) -> float:
    """λ · wtp: min(max(0, G · (x − t)), max); 0 for a budget that does not pace."""
    if not spec.pace:
        return 0.0
    passed = 1.0 - (ends(spec.per, now) - now) / _SECONDS[spec.per]
    ahead = spent_usd / spec.usd - min(max(passed, 0.0), 1.0)
    return min(max(0.0, _GAIN * ahead), _MAX_PRICE)
