"""A log that several processes share, opened as the settings say."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping
from dataclasses import replace
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
    recover,
    replayed,
    replica_key,
    snapshot_key,
)
from bandit_service.runtime.serving_policy import Read, said_of, wanted_of, wanted_policy
from bandit_service.runtime.shared.checkpoint import Checkpoint
from bandit_service.runtime.shared.copying import copied
from bandit_service.runtime.shared.erasing import carry_out_at_start
from bandit_service.runtime.shared.link import Link, LinkRules
from bandit_service.runtime.shared.migrating import Migration
from bandit_service.runtime.shared.rules import SharedRules
from bandit_service.runtime.shared.spool import Spool
from bandit_service.runtime.shared.writer import SharedWriter
from bandit_service.settings import BadSettings, Settings
from bandit_service.telemetry.telemetry import Telemetry
from store import (
    Corrupt,
    EventLog,
    Offset,
    SharedLog,
    Starting,
    StoreError,
    Unfit,
    Unsure,
    first_of,
)
from store.snapshots import FileSnapshots

_log = logging.getLogger("bandit.replica")
STARTS_S = 30.0
"""For how long a start waits for a server that says that it is starting up."""
_PAUSE_S = 0.5


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
    shared: SharedLog,
    copy: EventLog,
    settings: Settings,
    progress: Progress | None,
    wait_s: float = 0.0,
) -> Link:
    """Connect, and bring the copy up to the log; the replica has not joined yet.

    wait_s: for how long a server that says that it is starting up is asked again.
    """
    chosen = settings.log
    checkpoint = Checkpoint(Path(settings.data_dir) / "replica.json", chosen.name)
    key = replica_key(settings)
    checkpoint.found(copy.last)
    try:
        await _connected(shared, wait_s)
        await _made_durable(shared, copy, checkpoint.name, key)
        is_anew = await copied(shared, copy, checkpoint, progress)
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
    link.begins_ts = _begins_ts(copy) if is_anew else 0.0
    return link


async def _connected(shared: SharedLog, wait_s: float) -> None:
    until, told = time.monotonic() + wait_s, False
    while True:
        try:
            await shared.connect()
        except Starting as error:
            if time.monotonic() >= until:
                raise
            if not told:
                extra = {"why": str(error), "seconds": wait_s}
                _log.warning("the log's server is starting up: it is asked again", extra=extra)
            told = True
        else:
            return
        await asyncio.sleep(_PAUSE_S)


def _begins_ts(copy: EventLog) -> float:
    """The time of the oldest record that is neither deleted nor erased."""
    bodies = (body for _, body in copy.replay(Offset(first_of(copy) - 1)) if body)
    return next((ev.decode(body).ts for body in bodies), 0.0)


def erased_at_start(link: Link, copy: EventLog, snapshots: FileSnapshots) -> None:
    """Delete this replica's snapshots of before the erasures, once one is there that knows what the
    records taught. Otherwise the next start looks again. Also those of before an erasure of long
    ago, which a backup brought back, and those from which nothing can begin any more: the order of
    an erasure may have been deleted with the log's oldest records while this replica was away.
    """
    before = max(link.ordered, int(first_of(copy)) - 1)
    if before:
        if snapshots.newest(Offset(before - 1)) < before:
            return
        snapshots.forget(Offset(before))
    link.carried_out(int(copy.last), link.ordered)


def lacks(recovered: Recovered) -> str:
    """What this world does not have that another replica's may have; "" for nothing."""
    if recovered.unknown:
        return (
            f"{recovered.unknown} records of the log are erased, and no snapshot in the database "
            "knows what they taught"
        )
    if recovered.anew or recovered.version != snapshot.VERSION:
        return (
            "the log's oldest events are deleted, and the newest snapshot of this release in the "
            "database is missing"
        )
    return ""


async def refuse_unknown(
    shared: SharedLog, link: Link, recovered: Recovered, settings: Settings
) -> None:
    """StoreError where another replica knows what this one cannot know any more."""
    missing = lacks(recovered)
    if not missing:
        return
    ttl_s = settings.log.replica_ttl_s
    rows = await shared.replicas()
    if any(not row.closed and row.unseen_s < ttl_s and row.name != link.name for row in rows):
        raise StoreError(
            f"{missing}, which other replicas know: POST /v1/snapshots to the keeper "
            "(GET /v1/replicas), then start this one again"
        )


async def refuse_twin(shared: SharedLog, replicas: Mapping[str, str], settings: Settings) -> None:
    """BadSettings where another pool of this process is a replica of the same log, by whatever
    address. replicas: the pool of each name by which this process is one.
    """
    ttl_s = settings.log.replica_ttl_s
    for row in await shared.replicas():
        if row.name in replicas and not row.closed and row.unseen_s < ttl_s:
            raise BadSettings(
                [
                    f"pools: {settings.pool!r} and {replicas[row.name]!r} have one log, "
                    f"{settings.log.name!r} in the same database; give one of them another log or "
                    "another database"
                ]
            )


async def unless_lost(work: Awaitable[None], link: Link, timeout_s: float) -> None:
    """Wait for this; StoreError if the database is lost for this long meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=timeout_s)
            if not task.done() and not link.up.is_set():
                raise Unsure(f"the shared log was lost at the start: {link.why}")
        await task
    finally:
        task.cancel()


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

    If the log has all events, this only saves time: a problem with it is logged, and the log is
    applied instead.
    """
    if not settings.log.share_snapshots:
        return
    said, read = said_of(copy, snapshots)
    serving, _ = wanted_of(said, settings)
    if first_of(copy) > 1:
        if read is None:  # only a snapshot says which policy serves
            await _begun_from_any(shared, copy, snapshots)
            said, _ = said_of(copy, snapshots)
        serving = said.settings() if said.policy else serving
    key = snapshot_key(serving, settings)
    after = max(snapshots.offsets(key), default=Offset(0))
    await _put(shared, copy, snapshots, key, after, copy.last)


async def _begun_from_any(shared: SharedLog, copy: EventLog, snapshots: FileSnapshots) -> None:
    """Those of earlier versions come last: what they know is nowhere else after an upgrade."""
    there = await shared.snapshots()
    for version in (snapshot.VERSION, *snapshot.versions_before()):
        for key, at in there:
            reaches = first_of(copy) - 1 <= at <= copy.last and snapshot.is_of(key, version)
            if reaches and await _put(shared, copy, snapshots, key, Offset(at - 1), at):
                return


async def _put(
    shared: SharedLog,
    copy: EventLog,
    snapshots: FileSnapshots,
    key: str,
    after: Offset,
    upto: Offset,
) -> bool:
    """Put the newest one between two offsets there that is whole; whether there is one."""
    begun = time.perf_counter()
    while True:
        try:
            found = await shared.newest_snapshot(key, after, upto)
            if found is None:
                return False
            at, state = found
            if mark_at(copy, at) not in (snapshot.read(state).mark, b""):  # which may be erased
                raise Corrupt(int(at), "the snapshot in the database is of another log")
            snapshots.save(at, key, state)
        except Corrupt as error:
            _log.warning("no snapshot of another replica is used", extra={"why": str(error)})
            upto = Offset(error.offset - 1)
        except (StoreError, ValueError) as error:
            _log.warning("no snapshot of another replica is used", extra={"why": str(error)})
            return False
        else:
            break
    seconds = round(time.perf_counter() - begun, 3)
    _log.info(
        "begun from another's snapshot",
        extra={"offset": int(at), "bytes": len(state), "seconds": seconds},
    )
    return True


async def migrate(
    shared: SharedLog,
    log: EventLog,
    snapshots: FileSnapshots,
    settings: Settings,
    progress: Progress | None = None,
) -> int:
    """Put the log of one process into the database; how many events it had not. Also the newest
    snapshot: what erased and deleted events told is known to it alone.

    Raises StoreError if the oldest events are deleted, and no snapshot can be put there.
    """
    migration = await begin_migration(shared, log, snapshots, settings)
    return await end_migration(migration, log, snapshots, settings, progress)


async def begin_migration(
    shared: SharedLog, log: EventLog, snapshots: FileSnapshots, settings: Settings
) -> Migration:
    """Connect, and find what is there; the log may grow until the end. Raises as `migrate`."""
    _fit(log, snapshots)
    cheap = new_world({"uniform": policies.load("uniform")}, "uniform", 1)
    migration = Migration(shared, replica_key(settings), cheap)
    await migration.begin(log)
    return migration


async def end_migration(
    migration: Migration,
    log: EventLog,
    snapshots: FileSnapshots,
    settings: Settings,
    progress: Progress | None = None,
) -> int:
    """Copy what is left of a log that does not grow any more, and its newest snapshot; how many
    events were left.
    """
    newest = _fit(log, snapshots)
    count = await migration.copy(log, progress)
    await migration.shared.leave()
    found = None if newest is None else snapshots.latest(newest.key)
    if newest is not None and found is not None:
        if mark_at(log, found[0]) not in (newest.kept.mark, b""):
            raise StoreError(f"the snapshot at offset {found[0]} is not of this log; move it away")
        keep = settings.snapshots.keep
        await migration.shared.save_snapshot(newest.key, found[0], bytes(found[1]), keep)
    return count


def _fit(log: EventLog, snapshots: FileSnapshots) -> Read | None:
    """The newest snapshot, if it is of this version. StoreError where the log needs one."""
    _, newest = said_of(log, snapshots)
    if newest is not None and snapshot.is_of_this_version(newest.key):
        return newest
    if first_of(log) > 1:
        raise StoreError(
            f"the log begins at offset {first_of(log)}, and there is no snapshot of this version "
            "that reaches it: start the service once as one process, and stop it with SIGTERM"
        )
    return None


def recovered_for_all(
    log: EventLog, settings: Settings, snapshots: FileSnapshots, progress: Progress | None
) -> Recovered:
    """The same world as on every other replica."""
    if first_of(log) > 1:
        return _from_snapshots(log, settings, snapshots, progress)
    recovered = recover(log, settings, snapshots, progress)
    return _folded_for_all(recovered, log, settings, progress)


def _from_snapshots(
    log: EventLog, settings: Settings, snapshots: FileSnapshots, progress: Progress | None
) -> Recovered:
    """For the policy that serves by the log: the past that another would learn from is deleted. The
    replicas train the configured one together, once they serve.
    """
    said = said_of(log, snapshots)[0]
    if not said.policy:
        return recover(log, settings, snapshots, progress)  # which says what is missing
    recovered = recover(log, replace(settings, policy=said.settings()), snapshots, progress)
    if recovered.policy != said.settings():
        raise StoreError(
            f"the policy {said.policy!r} serves, and no snapshot of it is here or in the database: "
            "POST /v1/snapshots to the keeper (GET /v1/replicas), then start this one again"
        )
    return recovered


def _folded_for_all(
    recovered: Recovered, log: EventLog, settings: Settings, progress: Progress | None
) -> Recovered:
    """For the configured policy, from the whole log."""
    wanted, _ = wanted_policy(recovered.world, settings)
    if recovered.policy != wanted or recovered.unknown or recovered.anew:
        recovered = replayed(log, settings, wanted, progress)
    return recovered


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
        embeddings=chosen.embeddings,
        id_code=settings.id_code,
    )
