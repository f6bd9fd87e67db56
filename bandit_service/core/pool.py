"""The offered arms as decisions read them, compiled once for each change of the catalogue."""

from __future__ import annotations

import numpy as np

from bandit_service.core.arm_record import ArmRecord
from policies import Arms, Floats


class Pool:
    """All of it but what rewards change: ids, prices, and how long a query may be for every arm.

    ids: in the canonical order. price: relative to the dearest. room: tokens of the longest query
    that every arm takes.
    """

    __slots__ = ("first_price", "ids", "price", "prices", "records", "room")

    def __init__(self, records: list[ArmRecord]) -> None:
        self.records = records
        self.ids = tuple(record.spec.id for record in records)
        dearest = max((list_price(record) for record in records), default=0.0)
        self.prices = [
            min(list_price(record) / dearest, 1.0) if dearest > 0.0 else 0.0 for record in records
        ]
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


def list_price(record: ArmRecord) -> float:
    """USD for a million tokens in and a million out."""
    return record.spec.usd_per_mtok_in + record.spec.usd_per_mtok_out


def _fixed(values: list[float]) -> Floats:
    array = np.array(values)
    array.setflags(write=False)
    return array
