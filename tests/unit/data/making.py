"""Logs of every kind of event, made by hand, so that what an export must say is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from bandit_service.core import events as ev
from policies import SURFACE, ArmId
from store import Record
from store.sqlite import SqliteLog

DIM = 6
ARMS = [
    ev.ArmSpec(id=ArmId(f"arm-{i}"), usd_per_mtok_in=0.3 * 3.0**i, usd_per_mtok_out=0.9 * 3.0**i)
    for i in range(4)
]


def vector(rng: np.random.Generator, dim: int = DIM) -> bytes:
    """An embedding; none of its numbers is zero, which VW would leave out."""
    return ev.pack((rng.normal(size=dim) + 3.0).astype(np.float32))


def a_decision(i: int, rng: np.random.Generator, dim: int = DIM, unit: str = "") -> ev.Decided:
    """A decision among two to four arms, drawn by propensities of many digits."""
    arms = ARMS[: int(rng.integers(2, len(ARMS) + 1))]
    propensities = rng.dirichlet(np.ones(len(arms)))
    drawn = int(rng.integers(len(arms)))
    tokens = int(rng.integers(5, 400))
    spec = arms[drawn]
    cost = (tokens * spec.usd_per_mtok_in + 300 * spec.usd_per_mtok_out) / 1e6
    return ev.Decided(
        ts=1_790_000_000.0 + i + 0.25,
        id=f"d-{i}",
        embedding=vector(rng, dim),
        surface=bytes((i + 7 * k) % 121 for k in range(SURFACE)) if i % 3 else b"",
        tokens=tokens,
        willingness_to_pay=0.1,
        arms=tuple(arm.id for arm in arms),
        propensities=tuple(float(p) for p in propensities),
        scores=tuple(float(s) for s in rng.normal(size=len(arms))),
        drawn=drawn,
        policy="metallm",
        key="k1",
        list_cost_usd=cost,
        expected_cost_usd=cost * 1.25,
        price=0.5,
        expected_quality=0.5,
        expected_deviation=0.125,
        expected_count=12.0,
        tenant="acme",
        unit=unit,
    )


def a_history(n: int, seed: int = 0, dim: int = DIM) -> list[ev.AnyEvent]:
    """Arms, n decisions, and outcomes of most of them: late, partial, corrected and by default."""
    rng = np.random.default_rng(seed)
    events: list[ev.AnyEvent] = [ev.ArmAdded(ts=1.0, arm=arm, source="config") for arm in ARMS]
    parameters = b'{"alpha": 1.0}'
    events.append(ev.PolicyChanged(ts=1.0, policy="metallm", key="k1", parameters=parameters))
    open_: list[ev.Decided] = []
    for i in range(n):
        decided = a_decision(i, rng, dim, unit=f"u{i % 7}")
        events.append(decided)
        open_.append(decided)
        if len(open_) > 5:
            of = open_.pop(int(rng.integers(len(open_))))
            events += an_outcome(of, decided.ts, rng)
    return events


def an_outcome(of: ev.Decided, ts: float, rng: np.random.Generator) -> Sequence[ev.AnyEvent]:
    """What comes back for one decision; nothing for some."""
    quality, cost = float(rng.random()), float(rng.random()) * 1e-3
    whole = ev.Rewarded(
        ts=ts, decision_id=of.id, quality=quality, cost_usd=cost, reward=quality - 0.25
    )
    match int(rng.integers(7)):
        case 0:
            return [ev.Rewarded(ts=ts, decision_id=of.id, cost_usd=cost)]
        case 1:
            late = ev.Rewarded(ts=ts + 0.5, decision_id=of.id, quality=quality, reward=quality)
            return [ev.Rewarded(ts=ts, decision_id=of.id, cost_usd=cost), late]
        case 2:
            corrected = ev.Rewarded(
                ts=ts + 0.5, decision_id=of.id, quality=0.125, reward=-0.5, correction=True
            )
            return [whole, corrected]
        case 3:
            return [ev.DecisionsExpired(ts=ts, ids=(of.id,), default_reward=-0.75)]
        case 4:
            compared = ev.Compared(
                ts=ts, winner=of.arms[0], loser=of.arms[1], decision_id=of.id, digest="x"
            )
            subject = ev.Subject(
                embedding=vector(rng, len(of.embedding) // 4),
                tokens=9,
                willingness_to_pay=0.2,
                neighbours=(1, 2),
                similarities=(0.5, 0.25),
                unit="u1",
                surface=bytes(range(200, 200 + SURFACE)),
            )
            alone = ev.Rewarded(ts=ts, subject=subject, arm=of.arm, quality=0.75, reward=0.5)
            aside = ev.Compared(ts=ts, winner=of.arms[0], loser=of.arms[1], subject=subject)
            return [compared, alone, aside]
        case _:
            return [whole]


def records(events: Iterable[ev.AnyEvent], start: int = 1) -> list[Record]:
    """The events as the service writes them, with their owners."""
    owners: dict[str, str] = {}
    made = []
    for i, event in enumerate(events, start):
        of: object = event
        if isinstance(event, ev.Rewarded | ev.Compared):
            of = event.subject
        owner = ""
        if isinstance(of, ev.Decided | ev.Subject):
            owner = ev.owner_of(of.tenant, of.unit)
        if isinstance(event, ev.Decided):
            owners[event.id] = owner
        elif isinstance(event, ev.Rewarded | ev.Compared) and event.decision_id:
            owner = owners.get(event.decision_id, "")
        made.append(Record(f"e-{i}", ev.kind(event), event.ts, ev.encode(event), owner))
    return made


def a_log(path: Path, events: Iterable[ev.AnyEvent]) -> SqliteLog:
    """A log of these events, open."""
    log = SqliteLog(path)
    log.append(records(events))
    return log
