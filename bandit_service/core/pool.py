"""The offered arms as decisions read them, compiled once for each change of the catalogue."""

from __future__ import annotations

import numpy as np

from bandit_service.core.arm_record import ArmRecord, list_price, relative_price
from policies import Arms, Floats


class Pool:
    """All of it but what rewards change: ids, prices, and how long a query may be for every arm.

    ids: in the canonical order. dearest: the highest list price. price: relative to it. room:
    tokens of the longest query that every arm takes.
    """

    __slots__ = ("dearest", "first_price", "ids", "price", "prices", "records", "room")

    def __init__(self, records: list[ArmRecord]) -> None:
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

    def arms(self, tokens: int) -> Arms:
        """All of them, with what a query of so many tokens costs on each."""
        costs = np.array([record.expected_cost_usd(tokens) for record in self.records])
        return Arms(self.ids, costs, self.price, self.first_price)


def _fixed(values: list[float]) -> Floats:
    array = np.array(values)
    array.setflags(write=False)
    return array
