"""A log that several processes share, opened as the settings say."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import policies
from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.world import World, new_world
from bandit_service.parsing.extras import install
from bandit_service.runtime.recovery import (
    Progress,
    Recovered,
    mark_at,
    replayed,
    snapshot_key,
)
from bandit_service.runtime.said import said_of, wanted_of, wanted_policy
from bandit_service.runtime.shared.checkpoint import Checkpoint
from bandit_service.runtime.shared.copying import copied
from bandit_service.runtime.shared.erasing import carry_out_at_start
from bandit_service.runtime.shared.link import Link, LinkRules
from bandit_service.runtime.shared.migrating import migrated
from bandit_service.runtime.shared.spool import Spool
from bandit_service.runtime.shared.writer import SharedRules, SharedWriter
from bandit_service.settings import BadSettings, Settings
from bandit_service.telemetry.telemetry import Telemetry
from store import Corrupt, EventLog, Offset, SharedLog, StoreError, Unfit, first_of
from store.snapshots import FileSnapshots

_log = logging.getLogger("bandit.replica")


def open_shared(settings: Settings) -> SharedLog | None:
    """The log in the database, not connected yet; None if this process has its own."""
    chosen = settings.log
    if not chosen.shared:
        return None
    bounds = {
        "timeout_s": chosen.timeout_s,
        "alive_s": chosen.replica_ttl_s,
        "lost_after_s": chosen.lost_after_s,
    }
    # the adapter's drivers are imported here, where they are asked for, to say that one is missing
    try:
        if chosen.engine == "jetstream":
            import nats  # noqa: F401

            from store.jetstream import JetStreamLog

            return JetStreamLog(
                settings.dsn, chosen.name, insecure_single=chosen.insecure_single, **bounds
            )
        import asyncpg  # noqa: F401
    except ImportError as error:
        driver = {"jetstream": "nats-py", "postgres": "asyncpg"}[chosen.engine]
        raise BadSettings(
            [f'log.engine: "{chosen.engine}" needs {driver}: {install(chosen.engine)} ({error})']
        ) from None
    except Unfit as error:
        raise BadSettings([f"log.dsn_env, log.dsn_file: {error}"]) from None
    from store.postgres import PostgresLog

    return PostgresLog(settings.dsn, chosen.name, **bounds)


async def open_link(
    shared: SharedLog, copy: EventLog, settings: Settings, progress: Progress | None
) -> Link:
    """Connect, and bring the copy up to the log; the replica has not joined yet."""
    chosen = settings.log
    if first_of(copy) > 1:
        raise StoreError(
            f"{Path(settings.data_dir) / chosen.path} begins at offset {first_of(copy)}: its "
            "oldest events were deleted, and a copy of a log has all of them; use another data_dir"
        )
    checkpoint = Checkpoint(Path(settings.data_dir) / "replica.json", chosen.name)
    key = snapshot_key(settings.policy, settings)
    checkpoint.found(copy.last)
    try:
        await shared.connect()
        await _made_durable(shared, copy, checkpoint.name, key)
        await copied(shared, copy, checkpoint, progress)
    except BaseException:
        await shared.close()
        raise
    since = carry_out_at_start(copy, checkpoint)
    rules = LinkRules(
        key=key,
        alive_s=chosen.replica_ttl_s,
        lease_s=chosen.lease_ttl_s,
        max_skew_s=chosen.max_skew_s,
        trust_s=chosen.lost_after_s / 2,
    )
    link = Link(shared, copy, checkpoint, rules)
    link.forgotten, link.ordered = since.forgotten, since.upto
    return link


def erased_at_start(link: Link, copy: EventLog, snapshots: FileSnapshots) -> None:
    """Delete this replica's snapshots of before the erasures, once one is there that knows what the
    records taught. Otherwise the next start looks again. Also those of before an erasure of long
    ago, which a backup brought back.
    """
    if link.ordered:
        if snapshots.newest(Offset(link.ordered - 1)) < link.ordered:
            return
        snapshots.forget(Offset(link.ordered))
    link.carried_out(int(copy.last), link.ordered)


async def refuse_unknown(shared: SharedLog, link: Link, unknown: int, settings: Settings) -> None:
    """StoreError where another replica knows what this one cannot know any more."""
    if not unknown:
        return
    ttl_s = settings.log.replica_ttl_s
    rows = await shared.replicas()
    if any(not row.closed and row.unseen_s < ttl_s and row.name != link.name for row in rows):
        raise StoreError(
            f"{unknown} records of the log are erased, and no snapshot in the database knows what "
            "they taught, which other replicas know: POST /v1/snapshots to the keeper "
            "(GET /v1/replicas), then start this one again"
        )


async def _made_durable(shared: SharedLog, copy: EventLog, name: str, key: str) -> None:
    """Where a failover kept records and lost that they are durable, say so again.

    Whoever runs does so by its signs of life; but this may be the only replica.
    """
    state = await shared.state()
    if state.horizon < copy.last <= state.head:
        await shared.join(name, key, ev.READS)
        await shared.beat(0.0, int(copy.last))


async def begun_from(
    shared: SharedLog, copy: EventLog, snapshots: FileSnapshots, settings: Settings
) -> None:
    """Put the newest snapshot of another replica next to the copy, if it is newer than those there.

    It only saves time: a problem with it is logged, and the log is applied instead.
    """
    if not settings.log.share_snapshots:
        return
    serving, _ = wanted_of(said_of(copy, snapshots)[0], settings)
    key, begun = snapshot_key(serving, settings), time.perf_counter()
    after = max(snapshots.offsets(key), default=Offset(0))
    try:
        found = await shared.newest_snapshot(key, after, copy.last)
        if found is None:
            return
        at, state = found
        if mark_at(copy, at) not in (snapshot.read(state).mark, b""):  # which may be erased
            raise Corrupt(int(at), "the snapshot in the database is of another log")
        snapshots.save(at, key, state)
    except (StoreError, ValueError) as error:
        _log.warning("no snapshot of another replica is used", extra={"why": str(error)})
        return
    seconds = round(time.perf_counter() - begun, 3)
    _log.info(
        "begun from another's snapshot",
        extra={"offset": int(at), "bytes": len(state), "seconds": seconds},
    )


async def migrate(
    shared: SharedLog, log: EventLog, settings: Settings, progress: Progress | None = None
) -> int:
    """Put the log of one process into the database; how many events it had not."""
    key = snapshot_key(settings.policy, settings)
    cheap = new_world({"uniform": policies.load("uniform")}, "uniform", 1)
    return await migrated(shared, log, key, cheap, progress)


def folded_for_all(
    recovered: Recovered, log: EventLog, settings: Settings, progress: Progress | None
) -> Recovered:
    """The same world as on every other replica: for the configured policy, from the whole log.

    Raises StoreError for a log with something in it that replicas cannot do yet.
    """
    wanted, _ = wanted_policy(recovered.world, settings)
    if recovered.policy != wanted or recovered.unknown or recovered.anew:
        recovered = replayed(log, settings, wanted, progress)
    _refuse(recovered.world)
    return recovered


def _refuse(world: World) -> None:
    beside = world.deciding()[1:]
    if beside:
        raise StoreError(
            f"the log has policies that learn beside the serving one ({', '.join(beside)}), which "
            "several replicas cannot do yet; take them out of the configuration before it is shared"
        )


def shared_writer(
    world: World, log: EventLog, telemetry: Telemetry, link: Link, settings: Settings
) -> SharedWriter:
    """The writer of a replica."""
    chosen = settings.log
    return SharedWriter(
        world,
        log,
        telemetry,
        link,
        Spool(Path(settings.data_dir) / chosen.spool),
        SharedRules(
            max_batch=chosen.max_batch,
            poll_s=chosen.poll_s,
            timeout_s=chosen.timeout_s,
            park_s=chosen.park_s,
            max_parked=chosen.max_parked,
            max_spool=chosen.max_spool,
            after_wait_s=chosen.after_wait_s,
            digest_every=chosen.digest_every,
            keep_snapshots=settings.snapshots.keep if chosen.share_snapshots else 0,
        ),
        sync_interval_s=chosen.sync_interval_s,
    )
