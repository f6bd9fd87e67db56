"""What the process that reads the demo's recording says."""

from __future__ import annotations

import msgspec


class Row(msgspec.Struct, frozen=True):
    """One recorded query. outcomes: quality and cost in USD by arm, where they are known."""

    text: str
    outcomes: dict[str, tuple[float, float]]


class Rows(msgspec.Struct, frozen=True):
    """The recorded queries in their order, and the arms that answered them."""

    arms: list[str]
    rows: list[Row]
