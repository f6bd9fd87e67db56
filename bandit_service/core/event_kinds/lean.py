"""Decisions in fewer bytes, as only logs have them."""

from __future__ import annotations

from bandit_service.core.event_kinds.decisions import Decided
from bandit_service.core.vector_bytes import halves, of_halves, pack, pack_as, unpack, unpack_as


class DecidedLean(Decided, frozen=True, kw_only=True, tag="decided_lean"):
    """`Decided` in fewer bytes. Only logs have it: `events.encode` writes it, and `events.decode`
    returns a `Decided` with all embeddings as float32.

    coding: of `embedding`, one of `vector_bytes.CODINGS`. near: `similarities` as half floats, and
    these are empty. scores: empty.
    """

    coding: str
    near: bytes = b""


def lean(event: Decided, coding: str) -> Decided:
    """The decision in this coding, or itself if that would not be the same decision."""
    embedding = pack_as(unpack(event.embedding), coding)
    near = halves(event.similarities)
    exact = (
        not event.scores
        and pack(unpack_as(embedding, coding)) == event.embedding
        and of_halves(near) == event.similarities
    )
    if not exact:
        return event
    fields = {name: getattr(event, name) for name in Decided.__struct_fields__}
    fields |= {"embedding": embedding, "similarities": ()}
    return DecidedLean(**fields, coding=coding, near=near)


def whole(lean: DecidedLean) -> Decided:
    """The decision that `lean` wrote so."""
    fields = {name: getattr(lean, name) for name in Decided.__struct_fields__}
    embedding = pack(unpack_as(lean.embedding, lean.coding))
    return Decided(**fields | {"embedding": embedding, "similarities": of_halves(lean.near)})
