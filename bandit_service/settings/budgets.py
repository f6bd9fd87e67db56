"""`[[budgets]]`: limits in USD for a window."""

from __future__ import annotations

import msgspec

from bandit_service.core.spend import PERIODS

SCOPES = ("service", "tenant", "key")


ON_EXHAUSTED = ("cheaper", "refuse")


class BudgetSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit in USD for each hour, day or month.

    id: the tenant or key that it is for; "*" gives each one a budget of its own. on_exhausted:
    "cheaper" offers the arms that still fit, and refuses when none does; "refuse" refuses whenever
    the arm of the policy's choice may not fit. pace: spread the spend over the window.
    """

    scope: str
    per: str
    usd: float
    id: str = "*"
    on_exhausted: str = "cheaper"
    pace: bool = True


def check_budget(spec: BudgetSpec) -> None:
    """ValueError "field: what was wrong, what is allowed"."""
    for name, value, allowed in (
        ("scope", spec.scope, SCOPES),
        ("per", spec.per, PERIODS),
        ("on_exhausted", spec.on_exhausted, ON_EXHAUSTED),
    ):
        if value not in allowed:
            raise ValueError(f"{name}: must be one of {', '.join(allowed)}, got {value!r}")
    if not 0.0 < spec.usd <= 1e9:
        raise ValueError(f"usd: must be above 0 and at most 1000000000, got {spec.usd:g}")
