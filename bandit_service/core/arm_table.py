"""The offered arms as decisions read them, compiled once for each change of the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bandit_service.core.arm_record import ArmRecord, list_price, relative_price
from policies import Arms, Floats


class ArmTable:
    """All of it but what rewards change: ids, prices, and how long a query may be for every arm.

    ids: in the canonical order. dearest: the highest list price. price: relative to it. room:
    tokens of the longest query that every arm takes. family, kin: as of `policies.Arms`.
    """

    __slots__ = (
        "dearest",
        "family",
        "first_price",
        "ids",
        "kin",
        "price",
        "prices",
        "records",
        "room",
    )

    def __init__(self, records: list[ArmRecord], every: Iterable[ArmRecord] = ()) -> None:
        self.records = records
        self.ids = tuple(record.spec.id for record in records)
        self.dearest = max((list_price(record.spec) for record in records), default=0.0)
        self.prices = [relative_price(record.spec, self.dearest) for record in records]
        self.price = _fixed(self.prices)
        self.first_price = _fixed([record.first_price for record in records])
        self.room = min(
            (one.spec.context_window - one.spec.expected_output_tokens for one in records),
            default=-1,
        )
        self.family, self.kin = families(records, every, self.dearest)

    def arms(self, tokens: int) -> Arms:
        """All of them, with the cost of a query of this many tokens on each."""
        return self.costing(np.array([record.expected_cost_usd(tokens) for record in self.records]))

    def costing(self, cost_usd: Floats) -> Arms:
        """All of them, with what a query costs on each."""
        return Arms(self.ids, cost_usd, self.price, self.first_price, self.family, self.kin)


def families(
    records: Sequence[ArmRecord], every: Iterable[ArmRecord], dearest: float
) -> tuple[tuple[str, ...] | None, Arms | None]:
    """The family of each of these arms, and those of every arm that are of their families too."""
    named = {record.spec.family for record in records} - {""}
    if not named:
        return None, None
    here = {record.spec.id for record in records}
    kin = [one for one in every if one.spec.family in named and one.spec.id not in here]
    names = tuple(record.spec.family for record in records)
    of_one = [name for name in (*names, *(one.spec.family for one in kin)) if name]
    if len(of_one) == len(named):
        return None, None  # none has a second arm
    if not kin:
        return names, None
    return names, Arms(
        ids=tuple(one.spec.id for one in kin),
        cost_usd=_fixed([0.0] * len(kin)),
        price=_fixed([relative_price(one.spec, dearest) for one in kin]),
        first_price=_fixed([one.first_price for one in kin]),
        family=tuple(one.spec.family for one in kin),
    )


def _fixed(values: list[float]) -> Floats:
    array = np.array(values)
    array.setflags(write=False)
    return array
