"""What every kind of event shares."""

from __future__ import annotations

import msgspec


class Event(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", gc=False
):
    """What all events share: `ts`, UTC seconds when it was made, read once, by the router.

    None refers to itself, so the garbage collector need not look at any.
    """

    ts: float
    v: int = 1
