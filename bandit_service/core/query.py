"""A query to decide, and the past queries that were recalled for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from bandit_service.core.conversations import Turn
from bandit_service.core.vector_bytes import FLOAT32
from policies import ArmId, Vector


class Query(msgspec.Struct, gc=False):
    """A query to decide: its features and its hard constraints.

    embedding: (d,) unit norm, or zeros with `fallback` saying why it is missing.
    surface: the text's surface features, as `events.surface_of` reads them.
    prompt: tokens of everything that is sent, if the service sends it; 0 if unknown. turn: the next
    turn of its conversation.
    reason: why it is requested in this way, of `staying.REASONS`, if the caller knows.
    outside: the query takes part in no experiment, since its arm or its policy was named.
    policy: the one that must decide, the serving one by default.
    masked: why arms are not in `arms` though the request allows them.
    tags: the client's labels, which are recorded and change nothing.
    effort_asked, efforts: as of `conversations.Sent`.
    route: its route; `arms` are then the route's arms. all_of_route: all of them, since the query
    itself names none.
    groups, request_key, request_digest: as of `events.Decided`.
    coding: how the log keeps the embedding, which is rounded to it.
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
    coding: str = FLOAT32

    @property
    def named(self) -> tuple[ArmId, ...] | None:
        """The arms that the query itself names; None if it names none."""
        return None if self.all_of_route else self.arms


class Recalled(msgspec.Struct, frozen=True, gc=False):
    """The result of the history index for a query, nearest first."""

    ids: Sequence[int] = ()
    similarities: Sequence[float] = ()
