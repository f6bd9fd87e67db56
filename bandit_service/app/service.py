"""The service: the assembled parts behind one port, until it is stopped."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from typing import Any

from aiohttp import web

from bandit_service.app.assembly import (
    Neighbours,
    open_gateway,
    open_live,
    open_tracer,
    pool_of,
    running_router,
)
from bandit_service.app.gauges import ServiceGauges
from bandit_service.app.pools import POOLS, RELOADING, OpenPools, SameKeys, settings_in
from bandit_service.app.port_check import cannot_listen, check_address
from bandit_service.app.reloading import Reloading
from bandit_service.core.errors import ServiceError, Unavailable
from bandit_service.embedding import Backend
from bandit_service.gateway.gateway import Gateway
from bandit_service.http import demo, middleware, operations, pool_states
from bandit_service.http import experiments as experiments_http
from bandit_service.http import feedback as feedback_http
from bandit_service.http import gateway as gateway_http
from bandit_service.http import history as history_http
from bandit_service.http import live as live_http
from bandit_service.http import tracing as tracing_http
from bandit_service.http.admission import Admission
from bandit_service.http.auth import Gate
from bandit_service.http.connections import (
    AT_ONCE,
    Connection,
    Door,
    deepen,
    expect,
    tell_seldom,
)
from bandit_service.http.entrance import Entrance
from bandit_service.http.fast_path import Head, fast_path_of
from bandit_service.http.openapi import document
from bandit_service.http.origins import Borders
from bandit_service.http.pools import HOMES, Homes, front_of, names_and_pools
from bandit_service.http.routes import ROUTES, SCOPES, handler_of, paths_of
from bandit_service.http.shutdown import ENDING, Ending, closed_within, cut_after_s
from bandit_service.offline.history.asked import Histories
from bandit_service.offline.offpolicy.whatif import WhatIf
from bandit_service.runtime.configured_experiments import reconcile
from bandit_service.runtime.experiments import Experiments
from bandit_service.runtime.maintenance import Maintenance
from bandit_service.runtime.recovery import Progress
from bandit_service.runtime.router import Router
from bandit_service.runtime.shared.writer import SharedWriter
from bandit_service.runtime.standby import StandbyPolicies
from bandit_service.settings import (
    BadSettings,
    Settings,
    default_of,
    digest_of,
    experiment_rules,
    exposure,
    map_of,
    others_of,
)
from bandit_service.telemetry.telemetry import Telemetry
from bandit_service.telemetry.tracing import Tracer
from store import StoreError

_log = logging.getLogger("bandit.app")
_NAME = re.compile(r"{(\w+)}")
_LOOK_S = 0.02
_YOUNG = 10_000
"""New objects until the collector looks at them. At its usual 700 most are of requests that are
under way, and would be gone by themselves."""


_TURN_S = 0.0005
"""How long a thread keeps the interpreter while another one waits for it. A request takes it back
several times, so beside the work on a large one, in a thread, Python's own 5 ms add up."""


class _Interpreter:
    """Its settings while services serve in this process, however they overlap.

    The recovered state lives as long as the process, so the collector never scans it: hardly any of
    it is garbage. It scans later objects rarely. Threads take short turns.
    """

    def __init__(self) -> None:
        self._serving = 0
        self._thresholds = (0, 0, 0)
        self._turn_s = 0.0

    def __enter__(self) -> None:
        if not self._serving:
            self._thresholds, self._turn_s = gc.get_threshold(), sys.getswitchinterval()
            gc.set_threshold(_YOUNG, *self._thresholds[1:])
            sys.setswitchinterval(_TURN_S)
        self._serving += 1
        gc.freeze()

    def __exit__(self, *_: object) -> None:
        self._serving -= 1
        if not self._serving:
            gc.set_threshold(*self._thresholds)
            sys.setswitchinterval(self._turn_s)
            gc.unfreeze()


_INTERPRETER = _Interpreter()


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """TLS 1.2 or newer with the configured files; None without them. BadSettings if unusable."""
    server = settings.server
    if not server.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(server.tls_cert, server.tls_key)
        if server.tls_client_ca:
            context.load_verify_locations(server.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise BadSettings([f"server.tls_cert: the files cannot be used ({error})"]) from None
    return context


async def _experiments_of(experiments: Experiments, settings: Settings, *, taken: bool) -> None:
    """taken: whether what the file says is in force."""
    try:
        rules = experiment_rules(settings.experiment_rules)
        if taken:
            await reconcile(experiments, settings.experiments, rules)
    except Unavailable as error:
        await experiments.close()
        raise StoreError(f"the experiments were not written: {error.message}") from None
    except ServiceError as error:
        await experiments.close()
        raise BadSettings([f"experiments: {error.message}"]) from None
    experiments.start()


def application(
    router: Router,
    maintenance: Maintenance,
    telemetry: Telemetry,
    settings: Settings,
    tracer: Tracer | None = None,
    main: web.Application | None = None,
) -> web.Application:
    """The routes around a router. main: the application of the default pool, where this is of
    another one: all that admits requests is the same.
    """
    middlewares = [middleware.frame] if tracer is None else [tracing_http.traced, middleware.frame]
    app = web.Application(middlewares=middlewares, client_max_size=settings.server.max_body_bytes)
    app.on_response_prepare.append(middleware.name_response)
    if tracer is not None:
        app[tracing_http.TRACER] = tracer
        app.on_response_prepare.append(tracing_http.name_span)
    app[middleware.ROUTER] = router
    app[middleware.KEEPER] = maintenance
    app[middleware.TELEMETRY] = telemetry
    app[middleware.SETTINGS] = settings
    app[operations.DOCUMENT] = document
    if main is None:
        _add_admission(app, telemetry, settings)
    else:
        for key in _SHARED:
            app[key] = main[key]
    app[middleware.DRAINING] = asyncio.Event()
    app[ENDING] = Ending()
    app[feedback_http.LIMITS] = feedback_http.VoteLimits(
        settings.feedback.rate_per_s, time.monotonic()
    )
    for row in ROUTES:
        for path in paths_of(row):
            whole = _NAME.sub(r"{\1:[^/]+}", path)  # aiohttp's own has no braces in it
            resource = app.router.add_resource(whole)
            for method in ("GET", "HEAD") if row.method == "GET" and row.head else (row.method,):
                resource.add_route(method, handler_of(row), expect_handler=expect)
    return app


_SHARED: tuple[web.AppKey[Any], ...] = (
    middleware.GATE,
    middleware.BORDERS,
    middleware.ADMISSION,
    HOMES,
)


def _add_admission(app: web.Application, telemetry: Telemetry, settings: Settings) -> None:
    """What admits requests, for all pools."""
    app[HOMES] = Homes()
    app[middleware.GATE] = Gate(
        SCOPES, settings.keys, settings.security.open_metrics, settings.security.share_window
    )
    server = settings.server
    app[middleware.BORDERS] = Borders.of(
        server.allowed_hosts,
        server.allowed_origins,
        server.host,
        bool(server.tls_cert),
        bool(settings.keys),
    )
    app[middleware.ADMISSION] = Admission(
        settings.server.target_s,
        2 * settings.embedding.batch_size,
        settings.server.max_in_flight,
        telemetry.overloaded,
    )


def _entrances(
    runner: web.AppRunner, app: web.Application, idle_s: float, door: Door
) -> Callable[[], Entrance[Head]]:
    """What a new connection is given to: the HTTP stack with an entrance before it.

    A span begins in the stack, so with tracing every request passes through it.
    """
    loop = asyncio.get_running_loop()
    admission = app[middleware.ADMISSION]

    def connection() -> Connection:
        assert runner.server is not None
        return Connection(runner.server, loop, idle_s, middleware.failed)

    traced = app.get(tracing_http.TRACER) is not None
    fast = None if traced else fast_path_of(app, connection())

    def entrance() -> Entrance[Head]:
        return Entrance(connection(), admission, door.closed_to, fast)

    return entrance


async def _written(runner: web.AppRunner, until: float) -> None:
    """Wait until this time for clients to read their answers."""
    assert runner.server is not None
    while time.monotonic() < until:
        transports = [each.transport for each in runner.server.connections]
        if not any(each is not None and each.get_write_buffer_size() for each in transports):
            return
        await asyncio.sleep(_LOOK_S)


def _admit(app: web.Application, settings: Settings) -> None:
    """Admit requests by other keys."""
    app[middleware.GATE].take(settings.keys)
    app[middleware.BORDERS].keys = bool(settings.keys)


def _follow(gateway: Gateway, live: live_http.Live, settings: Settings) -> None:
    """Go on by other settings: those of what can be changed at run time."""
    gateway.reconfigure(settings.upstreams, settings.budgets, settings.judges, settings.duels)
    live.feeds.admit({key.tenant for key in settings.keys if key.tenant})


@asynccontextmanager
async def _listening(
    settings: Settings,
    front: web.Application,
    main: web.Application,
    tls: ssl.SSLContext | None,
) -> AsyncIterator[str]:
    """Answers requests at the address that is yielded. front: the application that gets them; main:
    that of the default pool.
    """
    server = settings.server
    last_s = server.shutdown_s - cut_after_s(server.shutdown_s)
    # what it waits for is waited for before; it counts its own patience twice
    runner = web.AppRunner(front, shutdown_timeout=last_s / 8, handler_cancellation=False)
    await runner.setup()
    listening: asyncio.Server | None = None
    interpreter = ExitStack()
    try:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(tell_seldom)
        refused = main[middleware.TELEMETRY].metrics.connections_refused.inc
        try:
            listening = await loop.create_server(
                _entrances(runner, main, server.idle_s, Door(refused)),
                server.host,
                server.port,
                ssl=tls,
                backlog=AT_ONCE,
            )
        except OSError as error:  # taken since it was looked at
            raise cannot_listen(error, server.host, server.port) from None
        deepen(listening)
        host, port = listening.sockets[0].getsockname()[:2]
        scheme = "https" if tls else "http"
        url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        interpreter.enter_context(_INTERPRETER)
        _log.info("serving", extra={"url": url})
        for app in names_and_pools(main).values():
            app[live_http.LIVE].look_back()
        yield url
    finally:
        interpreter.close()
        for app in names_and_pools(main).values():
            app[middleware.DRAINING].set()
            app[live_http.LIVE].close()
        if listening is not None:
            await asyncio.sleep(server.drain_s)
            listening.close()
        deadline = main[ENDING].deadline = time.monotonic() + server.shutdown_s
        endings = [app[ENDING] for app in names_and_pools(main).values()]
        for ending in endings:
            await ending.ended(deadline - last_s - time.monotonic())
        await _written(runner, deadline - last_s)
        for ending in endings:
            ending.cut()
        for ending in endings:
            await ending.ended(deadline - last_s / 2 - time.monotonic())
        await runner.cleanup()


def _neighbours(main: web.Application) -> Neighbours:
    """The pools that are open. main: the application of the default one."""
    writers = {name: app[middleware.ROUTER].writer for name, app in names_and_pools(main).items()}
    return Neighbours(
        main[middleware.ROUTER].embedder,
        {each.link.name: name for name, each in writers.items() if isinstance(each, SharedWriter)},
    )


@asynccontextmanager
async def _running(
    settings: Settings,
    progress: Progress | None,
    tracer: Tracer | None,
    main: web.Application | None = None,
    model: Future[Backend] | None = None,
) -> AsyncIterator[web.Application]:
    """The application of one log, recovered; running requests are answered before it is left.

    main: that of the default pool, of which others use the embedding stage, the connections to
    providers, and all that admits requests.
    """
    neighbours = None if main is None else _neighbours(main)
    async with running_router(settings, progress, neighbours, model) as (
        router,
        maintenance,
        telemetry,
        configuration,
    ):
        settings = configuration.settings
        app = application(router, maintenance, telemetry, settings, tracer, main)
        beside = StandbyPolicies(router.writer, maintenance)
        await beside.start(settings.policies)
        experiments = Experiments(router.writer, maintenance, settings.experiment_rules.steer_s)
        await _experiments_of(experiments, settings, taken=not configuration.behind)
        app[experiments_http.EXPERIMENTS] = experiments
        app[experiments_http.WHATIF] = WhatIf(router.writer, settings)
        app[history_http.HISTORIES] = Histories(router.writer, settings)
        over = None if main is None else main[gateway_http.GATEWAY].upstreams
        gateway = open_gateway(router, telemetry, settings, over)
        app[gateway_http.GATEWAY] = gateway
        gauges = ServiceGauges(
            telemetry,
            router,
            app[middleware.ADMISSION] if main is None else None,
            gateway.health,
            gateway.budgets,
        )
        live = open_live(router, telemetry, gateway, settings)
        app[live_http.LIVE] = live
        app[middleware.CONFIGURATION] = configuration
        app[demo.DEMO] = demo.of(app)
        configuration.follow(partial(_follow, gateway, live))
        if main is None:
            configuration.follow(partial(_admit, app))
        configuration.follow(lambda now: gauges.configured(digest_of(now)))
        behind = telemetry.metrics.file_behind.set
        telemetry.looks.append(lambda: behind(configuration.revisions_behind))
        configuration.follow(lambda now: beside.want(now.policies))
        derive = default_of if main is None else settings_in(main, settings.pool)
        app[RELOADING] = Reloading(
            router, maintenance, telemetry, configuration, experiments, derive
        )
        lag = router.writer.tasks.keep("lag", gauges.measure_lag) if main is None else None
        try:
            yield app
        finally:
            if lag is not None:
                await lag.end()
            live.close()
            await app[demo.DEMO].close()
            await experiments.close()
            await beside.close()
            await gateway.close()
            _log.info("stopped", extra={"events": router.world.events, **pool_of(settings)})


@asynccontextmanager
async def _all_pools(
    settings: Settings, progress: Progress | None, tracer: Tracer | None, main: web.Application
) -> AsyncIterator[web.Application]:
    """One application before those of all pools of this process. main: that of the default one."""
    homes = main[HOMES]
    homes.map, homes.apps = map_of(settings), {settings.log.name: main}
    main[middleware.TELEMETRY].metrics.pool_up(settings.log.name).set(1.0)
    pools = OpenPools(main, lambda own: _running(own, progress, tracer, main))
    main[POOLS] = main[pool_states.MOVER] = pools
    keys = SameKeys(main)
    pools.opened = keys.again
    try:
        await pools.open_all(others_of(settings))
        main.freeze()
        same = keys.start()
        try:
            yield front_of(homes, settings.server.max_body_bytes)
        finally:
            await same.end()
    finally:
        await pools.close()


@asynccontextmanager
async def serving(
    settings: Settings, progress: Progress | None = None, model: Future[Backend] | None = None
) -> AsyncIterator[tuple[str, web.Application]]:
    """The service, listening; yields its URL, and the application of the default pool. Leaving
    drains: running requests are answered.

    model: that of the settings, if it is being loaded already.
    """
    refused = exposure(settings)
    if refused:
        raise BadSettings([refused])
    check_address(settings.server.host, settings.server.port)
    tls, tracer = tls_context(settings), open_tracer(settings)
    main: web.Application | None = None
    try:
        async with AsyncExitStack() as stack:
            running = _running(default_of(settings), progress, tracer, model=model)
            main = await stack.enter_async_context(running)
            front = main
            if settings.pools:
                pools = _all_pools(settings, progress, tracer, main)
                front = await stack.enter_async_context(pools)
            async with _listening(settings, front, main, tls) as url:
                yield url, main
    finally:
        if tracer is not None:
            deadline = 0.0 if main is None else main[ENDING].deadline
            await closed_within(tracer.close, deadline - time.monotonic())
