"""Which arms may serve a query, and why the others may not. Pure."""

from __future__ import annotations

from bandit_service.core.arm_kinds import is_named_only, not_for_chat
from bandit_service.core.arm_record import ArmRecord
from bandit_service.core.errors import NoEligibleArm, Refused, Unknown
from bandit_service.core.query import Query
from bandit_service.core.world import World
from policies import ArmId

NOT_ALLOWED = "not in arms"


def eligible(world: World, query: Query) -> list[ArmRecord]:
    """The arms left after the hard constraints, in the canonical order.

    Raises Unknown for an arm of the allow-list that was never there, Refused for one that is not
    for chat, and NoEligibleArm saying which constraint excluded which arm.
    """
    for id in query.arms or ():
        if id not in world.arms:
            raise Unknown(f"arms: no arm {id!r}; GET /v1/arms lists them", param="arms")
        if wrong := not_for_chat(world.arms[id].spec):
            raise Refused(f"arms: {wrong}", param="arms")
    left: list[ArmRecord] = []
    excluded = [f"{id}: retired" for id in query.arms or () if world.arms[id].retired]
    excluded += _unrouted(world, query)
    for record in world.catalogue.open_to(query.named):
        why = _excluded(record, query)
        if why:
            excluded.append(f"{record.spec.id}: {why}")
        else:
            left.append(record)
    if not left:
        if not excluded:
            raise NoEligibleArm("there is no arm: add one with PUT /v1/arms/{id}", param="arms")
        raise NoEligibleArm("no arm is eligible; " + "; ".join(excluded), param=_relax(query))
    return left


def _unrouted(world: World, query: Query) -> list[str]:
    """Which arms of a list a policy may not choose, and what to do about it."""
    if query.arms is None or len(query.named or ()) == 1:
        return []
    records = (world.arms[id] for id in query.arms)
    return [
        f"{one.spec.id}: routed = false, so it has to be named alone"
        for one in records
        if not one.retired and is_named_only(one.spec)
    ]


def left_out(world: World, query: Query) -> dict[ArmId, str]:
    """Why each arm that is not eligible is not."""
    records = world.catalogue.open_to(query.named)
    reasons = ((record.spec.id, _excluded(record, query)) for record in records)
    return {id: why for id, why in reasons if why}


def expected_usd(record: ArmRecord, query: Query) -> float:
    """What a query is expected to cost on an arm, which may have a part of it cached."""
    if not query.prompt:
        return record.expected_cost_usd(query.tokens)
    there = 0 if query.turn is None else query.turn.at(record.spec.id)
    return record.expected_prompt_usd(query.prompt, there)


def _excluded(record: ArmRecord, query: Query) -> str:
    """Why the arm cannot serve this query, or nothing."""
    spec = record.spec
    if query.arms is not None and spec.id not in query.arms:
        return query.masked.get(spec.id, NOT_ALLOWED)
    missing = [name for name in query.requires if name not in spec.capabilities]
    if missing:
        return f"requires {', '.join(missing)}"
    needed = query.tokens + spec.expected_output_tokens
    if needed > spec.context_window:
        return f"context window {spec.context_window} < {needed} tokens"
    if query.max_cost_usd is not None:
        cost = expected_usd(record, query)
        if cost > query.max_cost_usd:
            return f"max_cost_usd {query.max_cost_usd:g} < expected {cost:.3g}"
    if query.max_latency_s is not None:
        latency = record.expected_latency_s()
        if latency is not None and latency > query.max_latency_s:
            return f"max_latency_s {query.max_latency_s:g} < expected {latency:.3g}"
    return ""


def _relax(query: Query) -> str | None:
    """The first constraint that the caller set, which is the field to look at."""
    for name in ("max_cost_usd", "max_latency_s", "requires", "arms"):
        if getattr(query, name) not in (None, ()):
            return name
    return None
