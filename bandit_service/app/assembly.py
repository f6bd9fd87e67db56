"""The composition root: opens what the settings name, and passes each part what it needs."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import policies
import store
from bandit_service import logs
from bandit_service.app import log_move
from bandit_service.app.sharing import (
    STARTS_S,
    begun_from,
    erased_at_start,
    lacks,
    open_link,
    open_shared,
    recovered_for_all,
    refuse_twin,
    refuse_unknown,
    shared_writer,
    unless_lost,
)
from bandit_service.core import snapshot
from bandit_service.core.errors import Unavailable, Unknown
from bandit_service.core.events import ArmSpec
from bandit_service.core.world import World
from bandit_service.embedding import (
    MODELS,
    Backend,
    EmbeddingStage,
    WrongDimension,
    open_backend,
    opening,
)
from bandit_service.gateway import deployments
from bandit_service.gateway.budgets import Budgets
from bandit_service.gateway.gateway import Gateway
from bandit_service.gateway.health import Health
from bandit_service.gateway.implicit_signals import ImplicitSignals
from bandit_service.gateway.resources import Resources
from bandit_service.gateway.shared_budgets import SharedBudgets
from bandit_service.gateway.upstreams import Upstreams
from bandit_service.http import live as live_http
from bandit_service.observe.feed import ActivityFeeds
from bandit_service.observe.snapshots import Shown
from bandit_service.parsing.extras import install
from bandit_service.runtime.detectors import DriftWatch
from bandit_service.runtime.drift_alarms import DriftAlarms
from bandit_service.runtime.feedback import open_feedback
from bandit_service.runtime.learner_log import LearnerLog
from bandit_service.runtime.live_configuration import Follow, LiveConfiguration, in_force
from bandit_service.runtime.log_check import LogCheck, note_of, verifies_all
from bandit_service.runtime.maintenance import Maintenance
from bandit_service.runtime.recovery import (
    Progress,
    Recovered,
    mark_at,
    recover,
    snapshot_key,
)
from bandit_service.runtime.router import Router
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.runtime.serving_policy import wanted_policy
from bandit_service.runtime.shared.erasing import SharedErasure
from bandit_service.runtime.shared.policy_switch import PolicyTurn
from bandit_service.runtime.shared.retaining import SharedRetention
from bandit_service.runtime.shared.text_table import SharedTextStore
from bandit_service.runtime.shared.writer import SharedWriter
from bandit_service.runtime.text_store import KeepsTexts, TextStore
from bandit_service.runtime.texts import Texts
from bandit_service.runtime.topics import Topics
from bandit_service.runtime.writer import Writer
from bandit_service.settings import (
    BadSettings,
    Settings,
    arm_and_judge_mistakes,
    policy_key,
)
from bandit_service.settings.metrics import implicit_weights
from bandit_service.settings.pool_logs import is_default
from bandit_service.settings.texts import OFF
from bandit_service.telemetry.telemetry import Telemetry
from bandit_service.telemetry.tracing import Tracer
from policies import ArmId
from store import EventLog, StoreError, can_erase_shared, can_trim, placed
from store.history import HybridIndex
from store.postgres_texts import PostgresTexts
from store.snapshots import FileSnapshots

_log = logging.getLogger("bandit.app")
TEXTS = "texts.sqlite3"
"""The file of questions and answers, in data_dir."""


def open_log(settings: Settings, *, to_read: bool = False) -> EventLog:
    """The event log in its directory, which is created if it is missing; for a shared log the copy.

    to_read: nothing will be appended, so a log of an old format is not converted, and a missing one
    is not created. Raises store.Absent.
    """
    directory, chosen = Path(settings.data_dir), settings.log
    path, engine = directory / chosen.path, store.DEFAULT if chosen.shared else chosen.engine
    if to_read:
        return store.open_to_read(path, engine)
    directory.mkdir(0o700, parents=True, exist_ok=True)
    return store.open_log(path, engine)


def pool_of(settings: Settings) -> dict[str, str]:
    """What a line of the log says of the pool, where there are several."""
    return {"pool": settings.pool} if settings.pool else {}


def open_snapshots(settings: Settings) -> FileSnapshots:
    """The snapshots in their directory, which is made if it is not there."""
    directory = Path(settings.data_dir) / settings.snapshots.directory
    return FileSnapshots(directory, settings.snapshots.keep)


def drift_watch(settings: Settings, serving: policies.Policy[Any]) -> DriftWatch | None:
    """The watch for drift; None if it is off.

    Policies may change while the service runs, and others learn beside the serving one. So `keep`
    with a policy that it does not affect is not an error, but is logged.
    """
    chosen = settings.drift
    if not chosen.enabled:
        return None
    if chosen.keep is not None and policies.watches_arms(serving):
        _log.warning(
            "drift.keep does nothing to the serving policy, which watches its arms itself",
            extra={"keep": chosen.keep, "policy": type(serving).__name__},
        )
    return DriftWatch(chosen)


def _check_retention(log: EventLog, settings: Settings) -> None:
    """Raise what a log that cannot delete its oldest records has against the settings."""
    rules = settings.retention
    if not can_trim(log):
        given = {"max_age_s": rules.max_age_s, "max_bytes": rules.max_bytes}
        why = f"the event log ({type(log).__name__}) cannot delete its oldest records; use 0"
        wrong = [f"retention.{name}: {why}, got {value}" for name, value in given.items() if value]
        if wrong:
            raise BadSettings(wrong)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The other pools of a process, which are served while one is opened.

    embedder: is used here, too. replicas: the pool of each name by which the process is a replica
    of a shared log.
    """

    embedder: EmbeddingStage
    replicas: Mapping[str, str]


@asynccontextmanager
async def running_router(
    settings: Settings,
    progress: Progress | None = None,
    beside: Neighbours | None = None,
    model: Future[Backend] | None = None,
) -> AsyncIterator[tuple[Router, Maintenance, Telemetry, LiveConfiguration]]:
    """A recovered router with everything it stands on; all of it is closed at the end.

    model: that of the settings, if it is being loaded already.
    """
    file = settings
    used = embedder = None if beside is None else beside.embedder
    shared = open_shared(settings)
    log = open_log(settings)
    if model is None and used is None:
        model = opening(partial(_backend, settings), _models(settings))
    try:
        _check_retention(log, settings)
        begun = time.perf_counter()
        snapshots = open_snapshots(settings)
        if shared is not None:
            await log_move.finish(log, snapshots, settings, progress)
        link = None
        if shared is not None:  # other pools are served meanwhile, and this one is tried again
            wait_s = STARTS_S if beside is None else 0.0
            link = await open_link(shared, log, settings, progress, wait_s)
        if shared is not None and beside is not None:
            await refuse_twin(shared, beside.replicas, settings)
        if shared is not None:
            await begun_from(shared, log, snapshots, settings)
        if link is not None:
            erased_at_start(link, log, snapshots)
        fold = partial(recover if link is None else recovered_for_all, log, settings, snapshots)
        recovered = await _beside(fold, progress) if beside is not None else fold(progress)
        if link is not None:
            assert shared is not None
            await refuse_unknown(shared, link, recovered, settings)
        world, recovery_s = recovered.world, time.perf_counter() - begun
        settings = in_force(file, world)
        feedback = open_feedback(settings)
        _log.info(
            "recovered",
            extra={
                "events": world.events,
                "from_snapshot": recovered.after,
                "erased": recovered.erased,
                "unapplied": world.unapplied,
                "seconds": round(recovery_s, 3),
                **pool_of(settings),
            },
        )
        if verifies_all(settings):
            note_of(settings).unlink(missing_ok=True)  # it is whole again
        if recovered.version != snapshot.VERSION or recovered.anew:
            _keep_upgraded(recovered, log, settings, snapshots)
        if recovered.unknown:
            _log.warning(
                "what was learned from some erased or lost events is unknown: the snapshots that "
                "contained it are missing or unreadable",
                extra={"events": recovered.unknown, "from_snapshot": recovered.after},
            )
        telemetry = Telemetry(
            pending=lambda: len(router.world.pending.decisions),
            remembered=lambda: len(router.world.history.items),
            baseline=settings.monitoring.baseline_arm,
        )
        telemetry.metrics.recovery.set(recovery_s)
        telemetry.metrics.recovery_unknown.set(recovered.unknown)
        telemetry.metrics.unapplied.set(world.unapplied)
        telemetry.learning.drift.begin(world)
        if embedder is None:
            embedder = _embedder(await _opened(model, settings), settings, telemetry)
        index = _index(world, settings, embedder.dim)
        watch = drift_watch(settings, world.learners[world.serving].policy)
        telemetry.learning.drift.watched = watch is not None
        if link is not None:
            await link.join()
        writer = (
            Writer(
                world,
                log,
                telemetry,
                sync_interval_s=settings.log.sync_interval_s,
                max_backlog=settings.log.max_backlog,
                embeddings=settings.log.embeddings,
                id_code=settings.id_code,
            )
            if link is None
            else shared_writer(world, log, telemetry, link, settings)
        )
        router = Router(
            writer=writer,
            index=index,
            embedder=embedder,
            telemetry=telemetry,
            rules=RouterRules.of(settings),
            feedback=feedback,
        )
        configuration = LiveConfiguration(router, settings, file)
        configuration.follow(lambda now: feedback.delegate(now.keys))
        configuration.follow(router.rules.take)
        if is_default(settings):
            configuration.follow(_leveled(file.log_level))
        writer.listen(telemetry.heard, many=telemetry.decisions)
        learner_log = LearnerLog(telemetry, world)
        writer.listen(learner_log.heard, many=learner_log.decided)
        maintenance = Maintenance(
            writer, snapshots, settings, telemetry, recovered.policy, recovered.after
        )
        # before anything is applied, which may be what it is asked of
        turn = PolicyTurn(writer, maintenance) if isinstance(writer, SharedWriter) else None
        if isinstance(writer, SharedWriter) and shared is not None and can_erase_shared(shared):
            SharedErasure(writer, maintenance, shared)
        if isinstance(writer, SharedWriter) and shared is not None:
            SharedRetention(writer, maintenance, shared, settings.log.lost_after_s)
        check = LogCheck(writer, note_of(settings), recovered.unread)
        await router.start()
        if watch is not None:
            DriftAlarms(watch, writer).start()
        texts: Texts | None = None
        try:
            if isinstance(writer, SharedWriter) and beside is not None:
                await unless_lost(writer.caught_up(), writer.link, settings.log.timeout_s)
            else:
                await writer.caught_up()
            settings = configuration.settings  # which others may have changed meanwhile
            if turn is not None:
                turn.start()
            try:
                if configuration.behind:
                    _log.warning("the file is not taken", extra={"why": configuration.behind})
                    await configuration.settle_at_start()
                else:
                    await configuration.claim(file)
                    await reconcile(router, maintenance, configuration)
                if configuration.known:
                    arms = [record.spec for record in world.catalogue.present()]
                    await configuration.read_file(file, arms, "the file at the start")
            except Unavailable as error:
                raise StoreError(f"the configuration was not written: {error.message}") from None
            router.warm()
            configuration.start()
            # who joins now needs it, where not all is in the log any more
            maintenance.due = link is not None and bool(lacks(recovered))
            maintenance.start()
            if settings.log.verify == "background":
                check.start()
            texts = await open_texts(router, maintenance, telemetry, settings)
            yield router, maintenance, telemetry, configuration
        finally:
            if texts is not None:
                await texts.close()
            if router.topics is not None:
                await router.topics.close()
            await check.close()
            await configuration.close()
            if turn is not None:
                await turn.close()
            await router.close()
            await maintenance.close()
            if used is None:
                await embedder.close()
            index.close()
            if (cells := index.placed()) is not None:
                _keep_cells(settings, cells)
    finally:
        if model is not None:  # what refused the start is told
            await asyncio.gather(asyncio.wrap_future(model), return_exceptions=True)
        if shared is not None:
            await shared.close()
        log.close()


async def _beside(
    fold: Callable[[Progress | None], Recovered], progress: Progress | None
) -> Recovered:
    """Fold on a thread, while other pools are served. The log is not closed before it has ended."""
    folding = asyncio.get_running_loop().run_in_executor(None, fold, progress)
    try:
        return await asyncio.shield(folding)
    except asyncio.CancelledError:
        await asyncio.wait([folding])
        raise


async def open_texts(
    router: Router, maintenance: Maintenance, telemetry: Telemetry, settings: Settings
) -> Texts | None:
    """What keeps questions and answers; None where nothing is kept, and nothing is left of before.

    Raises BadSettings where they cannot be encrypted, StoreError where their file cannot be used.
    """
    path = Path(settings.data_dir) / TEXTS
    in_database = settings.log.engine == "postgres"
    if settings.texts.keep == OFF or in_database:
        there = [each for each in (path, path.with_name(f"{TEXTS}-journal")) if each.exists()]
        for each in there:  # a journal would be applied to the next file of this name
            each.unlink()
        if there:
            _log.info("the file of texts is not used any more and was deleted")
    if settings.texts.keep == OFF:
        if in_database:
            rows = _texts_of(settings)
            try:
                await rows.delete_all()
            finally:
                await rows.close()
        return None
    store: KeepsTexts
    try:
        store = (
            SharedTextStore(_texts_of(settings), settings.texts_keys)
            if in_database
            else TextStore(path, settings.texts_keys)
        )
    except ImportError as error:
        needs = f"texts.keep: needs the package cryptography: {install('texts')} ({error})"
        raise BadSettings([needs]) from None
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path} cannot be opened: {error}") from None
    counted = telemetry.metrics.texts
    texts = Texts(router.writer, store, settings.texts, lambda result: counted(result).inc())
    try:
        await texts.start()
    except Unavailable as error:
        await texts.close_store()
        where = settings.log.engine if in_database else path
        raise StoreError(f"{where}: {error.message}") from None
    router.texts, maintenance.forget_beside = texts, texts.forget
    router.topics = Topics(router.writer, texts, settings.texts.topic_people)
    return texts


def _texts_of(settings: Settings) -> PostgresTexts:
    return PostgresTexts(settings.dsn, settings.log.name, settings.log.timeout_s)


def _models(settings: Settings) -> Path:
    return Path(settings.data_dir) / MODELS


def _backend(settings: Settings) -> Backend:
    chosen = settings.embedding
    return open_backend(chosen.backend, chosen.model, _models(settings), chosen.threads)


async def _opened(model: Future[Backend] | None, settings: Settings) -> Backend:
    """The model that is being loaded, or one whose files may have to be made first."""
    if model is not None:
        return await asyncio.wrap_future(model)
    return await asyncio.to_thread(_backend, settings)


def _embedder(backend: Backend, settings: Settings, telemetry: Telemetry) -> EmbeddingStage:
    chosen = settings.embedding
    return EmbeddingStage(
        backend,
        batch_size=chosen.batch_size,
        wait_s=chosen.wait_s,
        cache_size=chosen.cache_size,
        queue_limit=chosen.queue_limit,
        on_batch=telemetry.embedded,
        on_cache=telemetry.cached,
    )


def _keep_upgraded(
    recovered: Recovered, log: EventLog, settings: Settings, snapshots: FileSnapshots
) -> None:
    """Write the world of an earlier version as one of this: the log alone cannot make it again."""
    at, world = log.sync(), recovered.world
    key = snapshot_key(recovered.policy, settings)
    snapshots.save(at, key, snapshot.dump(world, mark_at(log, at)))
    _log.warning(
        "gone on from a snapshot of an earlier version: the log has not all of its past",
        extra={
            "version": recovered.version,
            "from_snapshot": recovered.after,
            "learned_anew": list(recovered.anew),
        },
    )


def _index(world: World, settings: Settings, dim: int) -> HybridIndex:
    chosen, built = settings.history, partial(_keep_cells, settings)
    index = HybridIndex(dim, chosen.capacity, chosen.exact_below, rows=world.history, built=built)
    ids, vectors = world.history.vectors()
    if len(ids) and vectors.shape[1] != dim:
        raise WrongDimension(
            f"embedding.model: makes {dim} numbers, but the log in {settings.data_dir!r} holds "
            f"embeddings of {vectors.shape[1]}; configure the model it was made with, or another "
            "data_dir"
        )
    if len(ids):
        index.load(ids, vectors, placed.read(_cells_of(settings)))
    _log.info("past queries", extra={"recalled_by": index.kernel, "remembered": len(ids)})
    return index


def _cells_of(settings: Settings) -> Path:
    return Path(settings.data_dir) / settings.snapshots.directory / "cells"


def _keep_cells(settings: Settings, cells: placed.Placed) -> None:
    """Write down in which cell each past query is; without that a start computes the cells."""
    try:
        cells.save(_cells_of(settings))
    except StoreError as error:
        _log.warning("the cells of past queries are not kept", extra={"why": str(error)})


def _arms_changed(world: World, settings: Settings) -> tuple[dict[ArmId, ArmSpec], list[ArmId]]:
    """The configured arms that are not as the log has them, and those that are configured no more.

    What the API changed since stays until the arm's own entry changes.
    """
    configured = {spec.id: spec for spec in settings.arms}
    changed = {
        id: new for id, new in configured.items() if world.catalogue.configured.get(id) != new
    }
    gone = [
        id
        for id in world.catalogue.configured
        if id not in configured and world.arms[id].source == "config" and not world.arms[id].retired
    ]
    return changed, gone


def arms_then(world: World, settings: Settings) -> list[ArmSpec]:
    """The arms that there will be once the catalogue agrees with the configuration."""
    changed, gone = _arms_changed(world, settings)
    present = {record.spec.id: record.spec for record in world.catalogue.present()}
    return [spec for id, spec in (present | changed).items() if id not in gone]


async def reconcile(
    router: Router, maintenance: Maintenance, configuration: LiveConfiguration
) -> None:
    """Make catalogue and policy agree with the configuration, by events.

    A configured arm is added or updated when its entry is not what the configuration last said; one
    that came from the configuration and is no longer in it is retired. Raises BadSettings, and
    writes nothing, if all arms and the judges cannot be together.
    """
    world, settings = router.world, configuration.settings
    if mistakes := arm_and_judge_mistakes(arms_then(world, settings), settings.judges):
        raise BadSettings(mistakes)
    changed, gone = _arms_changed(world, settings)
    for spec in changed.values():
        await router.catalogue.put_arm(spec, "config")
    for id in gone:
        with suppress(Unknown):  # another replica, which starts too, was first
            await router.catalogue.retire_arm(id, "config")
    await configuration.settle_at_start()
    _warn_of_hidden(world)
    wanted, source = wanted_policy(world, settings)
    if wanted == maintenance.serving:
        key = policy_key(wanted.name, wanted.parameters)
        if world.policy.key != key:
            await router.catalogue.change_policy(wanted.name, key, wanted.parameters, source)
    else:  # it is trained while the policy with an existing state continues to decide
        maintenance.training.change_policy(wanted, source)


def _leveled(level: str) -> Follow:
    """What sets the level of the logs where it is another than it was."""

    def follow(now: Settings) -> None:
        nonlocal level
        if now.log_level != level:
            level = now.log_level
            logs.set_level(level)

    return follow


def _warn_of_hidden(world: World) -> None:
    """Warn of arms that the API put before there was a route of the same id.

    They are still drawn, so the service can start.
    """
    for id in world.routes.specs:
        arm = world.arms.get(ArmId(id))
        if arm is not None and not arm.retired:
            _log.warning(
                "a route has the id of an arm: who names it as model gets the route; "
                "call the route otherwise, or delete the arm and put it under another id",
                extra={"route": id},
            )


def open_gateway(
    router: Router, telemetry: Telemetry, settings: Settings, over: Upstreams | None = None
) -> Gateway:
    """The gateway that answers requests of OpenAI's wire format.

    over: the providers of another pool, whose connections are used here, too.
    """
    chosen = settings.gateway
    upstreams = (
        Upstreams(
            {each.spec.id: each for each in settings.upstreams},
            telemetry.sent_again,
            chosen.max_header_bytes,
        )
        if over is None
        else over.borrowed(settings.upstreams)
    )
    health = Health(chosen.breaker_failures, chosen.breaker_cool_s, upstreams=upstreams)
    present = (record.spec for record in router.world.catalogue.present())
    for target in deployments.unserved(present, health):
        told = {"arm": target.spec.id, "deployment": target.deployment}
        _log.warning(
            "a deployment is never called: its upstream is not configured",
            extra=told | {"upstream": target.spec.upstream},
        )
    budgets = _budgets(router.writer, settings)
    budgets.start()
    resources = Resources(router, upstreams, chosen, health, budgets, telemetry)
    implicit = ImplicitSignals(implicit_weights(settings.implicit), settings.implicit.window_s)
    return Gateway(resources, settings.judges, settings.duels, implicit)


def _budgets(writer: Writer, settings: Settings) -> Budgets:
    if writer.shared:
        return SharedBudgets(settings.budgets, writer, settings.log.lost_after_s)
    return Budgets(settings.budgets)


def open_tracer(settings: Settings) -> Tracer | None:
    """The tracer, if tracing is on; OpenTelemetry is imported only then."""
    wanted = settings.tracing
    if not wanted.endpoint:
        return None
    try:
        from bandit_service.app.otel import OtelTracer
    except ImportError as error:
        what = f"tracing.endpoint: needs OpenTelemetry: {install('otel')} ({error})"
        raise BadSettings([what]) from None
    return OtelTracer(wanted.endpoint, wanted.share, wanted.service_name)


def open_live(
    router: Router, telemetry: Telemetry, gateway: Gateway, settings: Settings
) -> live_http.Live:
    """What the page shows, from here on and of the newest pending decisions. These are counted
    after the start, but before anything else is applied or looked at.
    """
    tenants = {key.tenant for key in settings.keys if key.tenant}
    feeds = ActivityFeeds(tenants, telemetry.learning.fold)
    feeds.recall(router.world)
    router.writer.before_next(feeds.catch_up)
    telemetry.looks.insert(0, feeds.catch_up)
    router.writer.listen(feeds.heard, many=feeds.decided)
    shown = Shown(router, telemetry, gateway.health, gateway.budgets, router.writer.now)
    return live_http.Live(feeds, shown, settings.monitoring.max_listeners)
