"""`[[budgets]]`: limits in USD for a window."""

from __future__ import annotations

from typing import Annotated

import msgspec

from bandit_service.core.fields import doc
from bandit_service.core.spend import PERIODS

SCOPES = ("service", "tenant", "key", "route")
ON_EXHAUSTED = ("cheaper", "refuse")


class BudgetSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit in USD for each hour, day or month.

    id: the tenant, key or route that it is for; "*" gives each one a budget of its own.
    on_exhausted: "cheaper" offers the arms that still fit, and refuses when none does; "refuse"
    refuses whenever the arm of the policy's choice may not fit. pace: spread the spend over the
    window.
    """

    scope: Annotated[str, doc("What the limit is for.", "tenant", enum=SCOPES)]
    per: Annotated[str, doc("How long a window is.", "day", enum=PERIODS)]
    usd: Annotated[float, doc("The limit, USD.", 20.0, exclusiveMinimum=0, maximum=1e9)]
    id: str = "*"
    on_exhausted: Annotated[str, doc("What to do at the limit.", "cheaper", enum=ON_EXHAUSTED)] = (
        "cheaper"
    )
    pace: bool = True
