"""A query to decide, and the past queries that were recalled for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from bandit_service.core.conversations import Turn
from policies import ArmId, Vector


class Query(msgspec.Struct, gc=False):
    """What is asked: features of the query and its hard constraints.

    embedding: (d,) unit norm, or zeros with `fallback` saying why it could not be had.
    surface: what the text's surface tells, as `events.surface_of` reads it.
    prompt: tokens of all that is sent, where the service sends it; 0 if that is not known. turn: of
    which conversation it is the next turn.
    reason: why it is asked so, of `staying.REASONS`, where the one who asks knows.
    outside: the query takes part in no experiment, since its arm or its policy was named.
    policy: the one that is to decide, the serving one where none is named.
    masked: why arms are not in `arms` though the request allows them.
    tags: the client's own words, which go into the record and change nothing.
    effort_asked, efforts: as of `conversations.Sent`.
    route: by which it is asked; `arms` has its arms then. all_of_route: and all of them, since the
    query names none itself.
    groups, request_key, request_digest: as of `events.Decided`.
    """

    embedding: Vector
    tokens: int
    willingness_to_pay: float
    arms: tuple[ArmId, ...] | None = None
    max_cost_usd: float | None = None
    max_latency_s: float | None = None
    requires: tuple[str, ...] = ()
    tenant: str = ""
    unit: str = ""
    fallback: str = ""
    prompt: int = 0
    turn: Turn | None = None
    reason: str = ""
    caller: str = ""
    duel_of: str = ""
    session: str = ""
    conversation: str = ""
    outside: bool = False
    policy: str = ""
    masked: Mapping[ArmId, str] = {}
    surface: bytes = b""
    tags: tuple[str, ...] = ()
    effort_asked: str = ""
    efforts: Mapping[ArmId, str] = {}
    route: str = ""
    all_of_route: bool = False
    groups: tuple[str, ...] = ()
    request_key: str = ""
    request_digest: str = ""

    @property
    def named(self) -> tuple[ArmId, ...] | None:
        """The arms that the query itself names; None where it names none."""
        return None if self.all_of_route else self.arms


class Recalled(msgspec.Struct, frozen=True, gc=False):
    """What the history index gave for a query, nearest first."""

    ids: Sequence[int] = ()
    similarities: Sequence[float] = ()
