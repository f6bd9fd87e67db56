"""What operators, their tools and the page ask for."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from bandit_service.core.fields import doc


class Index(msgspec.Struct, kw_only=True, frozen=True):
    """Where to look."""

    service: Annotated[str, doc("The name of the service.", "bandit-service")]
    version: Annotated[str, doc("Its version.", "0.1.0")]
    see: Annotated[list[str], doc("Paths to start from.", ["/openapi.json", "/v1/arms"])]


class Erased(msgspec.Struct, kw_only=True, frozen=True):
    """What was erased of a unit."""

    erased: Annotated[int, doc("Records erased from the log.", 31)]


class Snapshot(msgspec.Struct, kw_only=True, frozen=True):
    """The snapshot that was made."""

    offset: Annotated[int, doc("Offset of the last event in it.", 12_043)]
    bytes: Annotated[int, doc("Its size.", 1_204_333)]


class ReplicaRow(msgspec.Struct, kw_only=True, frozen=True):
    """One replica, as the shared log knows it."""

    slot: Annotated[int, doc("Its number, which it keeps over restarts.", 1)]
    epoch: Annotated[int, doc("How often it joined.", 3)]
    open: Annotated[bool, doc("Whether it may append; false once it left or was silent.", True)]
    unseen_s: Annotated[float, doc("Seconds since its last sign of life.", 0.12)]
    applied: Annotated[int, doc("The offset that it last reported as applied.", 12_040)]
    behind: Annotated[int, doc("How many events that is behind the log.", 3)]
    roles: Annotated[list[str], doc("What it does for all replicas.", ["keeper"])]
    digest_at: Annotated[int, doc("Offset of its newest published digest; 0: none yet.", 10_000)]
    digest: Annotated[str, doc("The digest.", "5feceb66ffc86f38")]
    differs: Annotated[
        bool | None,
        doc("Whether it differs from this replica's digest; null: unknown.", False),
    ]
    folds_by: Annotated[str, doc("Its policy and history settings, hashed.", "5b2c9d-20000-32-12")]
    reads: Annotated[int, doc("The newest format of events that it reads.", 2)]


class Replicas(msgspec.Struct, kw_only=True, frozen=True):
    """The replicas that share the log; empty if one process has it alone."""

    this: Annotated[int, doc("The slot of the replica that answers; 0 for none.", 1)]
    newest: Annotated[int, doc("The newest durable offset.", 12_043)]
    replicas: Annotated[list[ReplicaRow], doc("Every replica that joined, by slot.")]


class PoolRow(msgspec.Struct, kw_only=True, frozen=True):
    """One pool of tenants, with its log."""

    name: Annotated[str, doc("Its name.", "acme")]
    default: Annotated[bool, doc("Whether it has all that no other pool has.", False)]
    cell: Annotated[str, doc("The cell that serves it; empty without cells.", "eu")]
    tenants: Annotated[
        list[str], doc("Its tenants by name, or by how their names begin.", ["acme", "acme-*"])
    ]
    share: Annotated[int, doc("Its weight for tenants that no pool names; 0: none.", 0)]
    state: Annotated[
        Literal["ready", "degraded", "not ready", "elsewhere"],
        doc("Whether it works here, or is served in another cell.", "ready"),
    ]
    why: Annotated[str, doc("What does not work now.", "")] = ""
    moving: Annotated[
        str, doc("How far the newest move of its log is, or why it ended.", "moved")
    ] = ""
    engine: Annotated[str, doc("What keeps its log.", "postgres")] = ""
    log: Annotated[str, doc("The name of its log.", "acme")] = ""
    events: Annotated[int, doc("Events that were applied here.", 12_043)] = 0
    pending: Annotated[int, doc("Decisions that may still be rewarded.", 512)] = 0
    first: Annotated[int, doc("Offset of the first event in the log.", 1)] = 0
    last: Annotated[int, doc("Offset of the last event in the log.", 12_043)] = 0


class Pools(msgspec.Struct, kw_only=True, frozen=True):
    """Every pool; one where none is configured."""

    cell: Annotated[str, doc("The cell of the process that answers; empty without cells.", "eu")]
    pools: Annotated[list[PoolRow], doc("The pools of this process, then those of other cells.")]


class BudgetRow(msgspec.Struct, kw_only=True, frozen=True):
    """One budget of one account in its present window."""

    account: Annotated[str, doc("`service`, `tenant:NAME` or `key:ID`.", "tenant:acme")]
    per: Annotated[str, doc("Its window: hour, day or month.", "day")]
    usd: Annotated[float, doc("The limit, USD.", 50.0)]
    spent_usd: Annotated[float, doc("What was spent in this window, USD.", 12.4)]
    held_usd: Annotated[float, doc("Reserved for running calls, USD.", 0.2)]
    leased_usd: Annotated[
        float, doc("What other replicas of the log may still spend of it, USD.", 1.0)
    ]
    ends_in_s: Annotated[float, doc("Seconds until the window ends.", 30_211.0)]
    shadow_price: Annotated[
        float, doc("How much more a USD counts now, because the budget runs short.", 0.3)
    ]


class Budgets(msgspec.Struct, kw_only=True, frozen=True):
    """Every budget, and how much of it is used."""

    budgets: Annotated[list[BudgetRow], doc("One row for each budget and account.")]


class Point(msgspec.Struct, kw_only=True, frozen=True):
    """One query on the map."""

    id: Annotated[str, doc("Id of its decision.", "0192f1b6-7c1e-7aaa-9c1e-5f0d6b1a2c3d")]
    x: Annotated[float, doc("Along the first principal direction.", 0.31)]
    y: Annotated[float, doc("Along the second principal direction.", -0.12)]
    arm: Annotated[str, doc("The arm that answered.", "gpt-5-mini")]
    reward: Annotated[float | None, doc("Its reward, if one came.", 0.85)]


class Map(msgspec.Struct, kw_only=True, frozen=True):
    """The newest queries on a plane."""

    state: Annotated[
        Literal["shown", "all alike", "not enough data"],
        doc("Whether there is a picture.", "shown"),
    ]
    n: Annotated[int, doc("Queries that have an embedding.", 480)]
    needed: Annotated[int | UnsetType, doc("How many there must be.", 20)] = UNSET
    share: Annotated[
        float | UnsetType, doc("Share of the variance that the plane keeps.", 0.21)
    ] = UNSET
    points: Annotated[list[Point] | UnsetType, doc("The queries, oldest first.")] = UNSET


class Track(msgspec.Struct, kw_only=True, frozen=True):
    """What is watched of one arm."""

    outcomes: Annotated[int, doc("Outcomes watched.", 210)]
    residual: Annotated[
        float | None, doc("Recent mean of reward minus expectation; null before the first.", 0.02)
    ]


class Queries(msgspec.Struct, kw_only=True, frozen=True):
    """What is watched of the queries."""

    seen: Annotated[int, doc("Queries watched.", 5_000)]
    distance: Annotated[
        float | None, doc("Recent mean distance from the usual; null before the first.", 0.4)
    ]


class Allowance(msgspec.Struct, kw_only=True, frozen=True):
    """Exploration that an alarm granted."""

    arm: Annotated[str | None, doc("The arm; null for all.", "gpt-5-mini")]
    floor: Annotated[float, doc("Its minimum probability.", 0.1)]
    decisions_left: Annotated[int, doc("Number of decisions left.", 60)]


class Alarm(msgspec.Struct, kw_only=True, frozen=True):
    """A drift that was detected."""

    ts: Annotated[float, doc("When, UTC seconds.", 1764345600.0)]
    detector: Annotated[str, doc("The detector: adwin or page_hinkley.", "adwin")]
    direction: Annotated[
        str, doc("Direction of the change of the mean.", "down", enum=["up", "down"])
    ]
    before: Annotated[float, doc("The mean before the change.", 0.02)]
    after: Annotated[float, doc("The mean after the change.", -0.3)]
    arm: Annotated[str | None, doc("The arm; null for the queries.", "gpt-5-mini")]
    seen: Annotated[int, doc("Values behind the two means.", 200)]
    begun: Annotated[int, doc("Number of the event with which the change began.", 11_800)]
    keep: Annotated[
        float, doc("Share of what was learned of the arm that stays; 1 forgets nothing.", 0.5)
    ]
    explore: Annotated[float, doc("The arm's minimum probability.", 0.1)]
    decisions: Annotated[int, doc("For how many decisions it keeps it.", 100)]


class Drift(msgspec.Struct, kw_only=True, frozen=True):
    """What is watched for drift, and the newest alarms."""

    watched: Annotated[bool, doc("Whether drift is watched for.", True)]
    forgets: Annotated[
        bool, doc("Whether an alarm makes the serving policy forget, as `drift.keep` says.", True)
    ]
    watches_arms: Annotated[
        bool, doc("Whether the serving policy detects changed arms by itself.", False)
    ]
    arms: Annotated[dict[str, Track], doc("What is watched of each arm.")]
    queries: Annotated[Queries, doc("What is watched of the queries.")]
    allowances: Annotated[list[Allowance], doc("Exploration that alarms granted.")]
    alarms: Annotated[list[Alarm], doc("The newest alarms, newest first.")]
