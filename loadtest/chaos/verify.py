"""What the log holds, against the ledger; and the fold, against an independent one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.runtime import recovery
from loadtest.chaos.gateway import TENANT
from loadtest.chaos.load import Client, Ledger, Wrong

_PENNY = 1e-7  # what eight digits of a header leave out


@dataclass(frozen=True)
class Found:
    """What a log that was verified holds."""

    events: int
    outcomes: int
    from_snapshot: int
    state_sha256: str


def verify(data: Path, ledger: Ledger) -> Found:
    """Every acknowledged outcome exactly once, none in half, and one state by either way.

    Raises Wrong naming the promise that is broken.
    """
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(data)})
    log = assembly.open_log(chosen)
    try:
        decided: set[str] = set()
        signals: dict[str, dict[str, float]] = {}
        keys: dict[str, int] = {}
        outcomes, serving = 0, ("", "")
        routed: dict[str, float | None] = {}
        embedded = 0
        for _, body in log.replay():
            event = ev.decode(body)
            if isinstance(event, ev.PolicyChanged):
                serving = event.policy, event.key
            elif isinstance(event, ev.Decided):
                decided.add(event.id)
                if (event.policy, event.key) != serving:
                    raise Wrong(
                        f"{event.id} is of {event.policy} {event.key}, and {serving} served"
                    )
                if event.tenant == TENANT:
                    routed[event.id] = None
            elif isinstance(event, ev.Spent):
                embedded += not event.decision_id
                if event.decision_id in routed:  # there was no space for its outcome
                    routed[event.decision_id] = event.usd
            elif isinstance(event, ev.Rewarded) and event.decision_id in routed:
                if event.cost_usd is not None:
                    routed[event.decision_id] = event.cost_usd
            elif isinstance(event, ev.Rewarded | ev.Compared):
                outcomes += 1
                if event.idempotency_key:
                    keys[event.idempotency_key] = keys.get(event.idempotency_key, 0) + 1
                elif isinstance(event, ev.Rewarded):
                    _take(signals.setdefault(event.decision_id, {}), event)
        short = recovery.recover(log, chosen, assembly.open_snapshots(chosen))
        whole = recovery.replayed(log, chosen, short.policy)
    finally:
        log.close()
    _compare(ledger, decided, signals, keys)
    if short.policy.name != serving[0]:
        raise Wrong(f"the log says that {serving[0]} serves, and a start has {short.policy.name}")
    _compare_costs(ledger, routed, embedded)
    if short.world.digest() != whole.world.digest():
        raise Wrong(f"the fold from the snapshot at {short.after} is not that of the whole log")
    learner = whole.world.learners[whole.world.serving]
    state = codec.sha256(codec.dump(learner.state))
    return Found(short.world.events, outcomes, short.after, state)


async def same_state(client: Client, found: Found) -> None:
    """The service that was just started has the state that was folded apart from it."""
    status, policies = await client.get("/v1/policies")
    name = policies["serving"]["name"]
    status, state = await client.get(f"/v1/policies/{name}/state")
    there = (status, state.get("events"), state.get("sha256"))
    if there != (200, found.events, found.state_sha256):
        raise Wrong(f"the service has {there}, the fold {(found.events, found.state_sha256)}")


def _take(known: dict[str, float], event: ev.Rewarded) -> None:
    for name in ("quality", "cost_usd", "latency_s"):
        value = getattr(event, name)
        if value is None:
            continue
        if name in known:
            raise Wrong(f"{name} of {event.decision_id} is in the log twice")
        known[name] = value


def _compare_costs(ledger: Ledger, routed: dict[str, float | None], embedded: int) -> None:
    for id, told in ledger.costs.items():
        found = routed.get(id)
        if found is None or (told is not None and abs(found - told) > _PENNY):
            raise Wrong(f"a cost of {told} was told for {id}, the log has {found}")
    if embedded < ledger.embedded:
        raise Wrong(f"{ledger.embedded} costs of embeddings were told, the log has {embedded}")


def _compare(
    ledger: Ledger, decided: set[str], signals: dict[str, dict[str, float]], keys: dict[str, int]
) -> None:
    lost = [id for id in ledger.decided if id not in decided]
    if lost:
        raise Wrong(f"{len(lost)} answered decisions are lost, the first is {lost[0]}")
    for id, acknowledged in ledger.signals.items():
        found = signals.get(id, {})
        doubtful = ledger.doubt.get(id, {})
        if not acknowledged.items() <= found.items():
            raise Wrong(f"acknowledged {acknowledged} of {id}, found {found}")
        extra = {name: value for name, value in found.items() if name not in acknowledged}
        if extra not in ({}, doubtful):
            raise Wrong(f"{id} has {extra}, which is neither acknowledged nor whole")
    for id, found in signals.items():
        if id not in ledger.signals and found not in ({}, ledger.doubt.get(id)):
            raise Wrong(f"{id} has {found}, which is not what was sent")
    for key in ledger.keys:
        if keys.get(key) != 1:
            raise Wrong(f"the outcome under key {key} is there {keys.get(key, 0)} times")
    for key, times in keys.items():
        if times != 1 or (key not in ledger.keys and key not in ledger.doubtful_keys):
            raise Wrong(f"the outcome under key {key} is there {times} times")
