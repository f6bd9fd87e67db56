"""The pools of one process: opened, moved, with the keys of the default one and one file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace

from aiohttp import web

from bandit_service import settings as reading
from bandit_service.app.assembly import open_log, open_snapshots
from bandit_service.app.closed_pools import ClosedPools
from bandit_service.app.log_move import begin, end, undo
from bandit_service.app.reloading import Reloading
from bandit_service.app.sharing import begin_migration, end_migration, open_shared
from bandit_service.core.errors import Conflict, Refused, ServiceError
from bandit_service.http.live import LIVE
from bandit_service.http.middleware import (
    CONFIGURATION,
    DRAINING,
    KEEPER,
    ROUTER,
    SETTINGS,
    TELEMETRY,
)
from bandit_service.http.pools import HOMES, Hold, names_and_pools
from bandit_service.http.shutdown import ENDING
from bandit_service.runtime.shared.migrating import Migration
from bandit_service.runtime.supervisor import Kept
from bandit_service.settings import BadSettings, Settings
from bandit_service.settings.live_values import read_again
from bandit_service.settings.pool_logs import of_pool, pool_named
from bandit_service.settings.pools import Pool
from store import SharedLog, StoreError, Unsure
from store.snapshots import FileSnapshots

RELOADING = web.AppKey("reloading", Reloading)
_TASK = "keys of pools"
_FEW, _CUT_S = 100, 1.0
_log = logging.getLogger("bandit.app")


class OpenPools:
    """The pools beside the default one: each opened by itself, and moved to another log."""

    def __init__(
        self,
        main: web.Application,
        open_one: Callable[[Settings], AbstractAsyncContextManager[web.Application]],
    ) -> None:
        """open_one: the application of the settings of one pool."""
        self.main, self._open_one = main, open_one
        self.homes = main[HOMES]
        self.closed = ClosedPools(
            self.homes,
            main[ROUTER].writer.tasks,
            self._open_again,
            lambda name, up: main[TELEMETRY].metrics.pool_up(name).set(float(up)),
        )
        self.moves: dict[str, str] = {}
        """By pool, how far the newest move of it is, or why it ended."""
        self.opened: Callable[[], None] = lambda: None
        """Called when a pool was opened that had been closed."""
        self._pools: dict[str, Pool] = {}
        self._stacks: dict[str, AsyncExitStack] = {}
        self._moving: asyncio.Task[None] | None = None
        self._breaking: set[asyncio.Task[None]] = set()

    async def open_all(self, settings: Sequence[Settings]) -> None:
        """Open them, at the start. One whose log cannot be opened is tried again, while the others
        are served. Raises BadSettings, WrongDimension: a wrong configuration is no outage.
        """
        away: dict[tuple[str, str], Unsure] = {}
        for each in settings:
            self._pools[each.pool] = pool_named(each, each.pool)
            address = each.log.engine, each.dsn
            try:
                if address in away:  # each would wait for as long as the first one
                    raise away[address]
                await self.open(each)
            except Unsure as error:
                away[address] = error
                self.closed.add(each.pool, error)
            except (StoreError, OSError) as error:
                self.closed.add(each.pool, error)

    async def open(self, settings: Settings) -> None:
        """Open a pool; its requests are answered from then on."""
        own = replace(settings, keys=self.main[CONFIGURATION].settings.keys)
        stack = AsyncExitStack()
        app = await stack.enter_async_context(self._open_one(own))
        app.freeze()
        if self.main[DRAINING].is_set():
            app[DRAINING].set()
        self._stacks[settings.pool], self.homes.apps[settings.pool] = stack, app
        self.main[TELEMETRY].metrics.pool_up(settings.pool).set(1.0)
        self._watch(app, settings.pool)

    async def _open_again(self, name: str) -> None:
        """Open a pool that is closed, by the file that was read last."""
        configuration = self.main[CONFIGURATION]
        file = configuration.file
        await self.open(of_pool(read_again(self.main[SETTINGS], file), self._pools[name]))
        self.opened()
        async with self.homes.changing:
            if configuration.file is not file:  # it was read again meanwhile
                await self.homes.apps[name][RELOADING].reload()

    def _watch(self, app: web.Application, name: str) -> None:
        """A pool whose log broke is opened anew, as by a start; its neighbours are served on."""

        def broke(why: asyncio.Future[str]) -> None:
            if why.cancelled():
                return
            task = asyncio.create_task(self._close_broken(name, app, why.result()))
            self._breaking.add(task)
            task.add_done_callback(self._breaking.discard)

        app[ROUTER].writer.broken.add_done_callback(broke)

    async def _close_broken(self, name: str, app: web.Application, why: str) -> None:
        async with self.homes.changing:
            if self.homes.apps.get(name) is not app:
                return  # it moved meanwhile
            self.closed.note(name, why)
            del self.homes.apps[name]
            await self._emptied(app)
            try:
                await self._stacks.pop(name).aclose()
            except Exception as error:  # noqa: BLE001 - it is opened anew from the log
                _log.error("a pool did not close well", extra={"pool": name}, exc_info=error)
        self.closed.add(name, why)

    async def close(self) -> None:
        """Close all, the newest first. A move that is under way ends; it can be begun again."""
        under_way = [*self._breaking, *([] if self._moving is None else [self._moving])]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self.closed.close()
        for name in reversed(list(self._stacks)):
            await self._stacks.pop(name).aclose()

    async def move(self, name: str) -> None:
        """Begin to move a pool's log to where the file says now. Raises Refused, Conflict."""
        if self._moving is not None and not self._moving.done():
            raise Conflict("a pool is being moved; wait until it is there")
        app = self.homes.apps.get(name)
        if name in self.homes.closed:
            raise Conflict(f"name: the pool {name!r} is closed; GET /v1/pools says why")
        if app is None or app is self.main:
            there_are = ", ".join(self._stacks) or "none"
            what = f"name: no pool {name!r} that could be moved; there are {there_are}"
            raise Refused(what, param="name")
        settings = await self._wanted(app, name)
        begin(settings)
        self.moves[name] = "begins"
        self._moving = asyncio.create_task(self._move(name, app, settings))

    async def _wanted(self, app: web.Application, name: str) -> Settings:
        """The settings that the pool is to have. Refused where it cannot be moved to them."""
        now = app[SETTINGS]
        try:
            file = await asyncio.to_thread(reading.read, now.file)
        except BadSettings as bad:
            param = bad.mistakes[0].split(":")[0]
            raise Refused("; ".join(bad.mistakes), param=param) from None
        try:
            found = settings_in(self.main, name)(file)
        except LookupError:
            raise Refused(f"name: the file has no pool {name!r} any more", param="name") from None
        if now.log.shared or not found.log.shared:
            raise Refused(
                f"name: a log is moved from a file into a database, and {name!r} is in "
                f"{now.log.engine} and is to be in {found.log.engine}; for another way stop all "
                "its processes, and use `bandit-service migrate` (docs/pools.md)",
                param="name",
            )
        if found.data_dir != now.data_dir:
            raise Refused("pools.data_dir: stays the same in a move", param="name")
        return found

    async def _move(self, name: str, app: web.Application, wanted: Settings) -> None:
        try:
            shared = open_shared(wanted)
            assert shared is not None
            try:
                await self._moved(name, app, wanted, shared)
            finally:
                await shared.close()
        except (BadSettings, StoreError, ServiceError) as error:
            self.moves[name] = f"failed: {error}"
            _log.error("a pool was not moved", extra={"pool": name, "why": str(error)})
        except Exception as error:  # noqa: BLE001 - told where it is looked for
            self.moves[name] = f"failed: {type(error).__name__}"
            _log.exception("a pool was not moved", extra={"pool": name})
        else:
            self.moves[name] = "moved"
            _log.info("a pool was moved", extra={"pool": name})

    async def _moved(
        self, name: str, app: web.Application, wanted: Settings, shared: SharedLog
    ) -> None:
        def progress(done: int, total: int) -> None:
            self.moves[name] = f"copied {done} of {total} events"

        began, log = app[CONFIGURATION].file, app[ROUTER].writer.log
        snapshots = open_snapshots(wanted)
        # while it serves; nothing is deleted or erased meanwhile
        async with app[KEEPER].kept():
            migration = await begin_migration(shared, log, snapshots, wanted)
            while await migration.copy(log, progress) > _FEW:
                pass
            async with self.homes.changing:
                now = app[CONFIGURATION].file
                if now is not began:  # the file was read again meanwhile
                    wanted = replace(now, log=wanted.log, dsn=wanted.dsn, pools=wanted.pools)
                hold = self.homes.held[name] = Hold()
                try:
                    # calls of providers end first, and short requests are answered meanwhile
                    await app[ENDING].long_ended(app[SETTINGS].server.shutdown_s)
                    hold.all = True
                    await self._emptied(app)
                    await self._stacks.pop(name).aclose()
                    try:
                        await self._rest(migration, now, wanted, snapshots)
                        await self.open(wanted)
                    except BaseException:
                        await self._open_unmoved(name, now)
                        raise
                    self._tell_all(name, wanted)
                    end(wanted)
                finally:
                    del self.homes.held[name]
                    hold.ended.set()

    async def _open_unmoved(self, name: str, now: Settings) -> None:
        """Open a pool on its file, which is whole and grows again, or try until that can be."""
        try:
            undo(now)
            await self.open(now)
        except Exception as error:  # noqa: BLE001 - its neighbours are served, whatever it is
            self.closed.add(name, error)

    def _tell_all(self, name: str, wanted: Settings) -> None:
        """The pool is where the file says, so that it takes no restart any more."""
        pool = self._pools[name] = pool_named(wanted, name)
        for app in self.homes.apps.values():
            app[RELOADING].moved(pool)

    async def _emptied(self, app: web.Application) -> None:
        """Wait until its requests have ended, as long as at the end of the process; then end them.
        The feeds of the page and the streams end at once: their clients connect again.
        """
        seconds = app[SETTINGS].server.shutdown_s
        app[DRAINING].set()
        app[LIVE].broadcast.close()
        await self.main[ENDING].decided()
        await app[ENDING].ended(seconds)
        app[ENDING].cut()
        await app[ENDING].ended(_CUT_S)

    async def _rest(
        self, migration: Migration, now: Settings, wanted: Settings, snapshots: FileSnapshots
    ) -> None:
        """Copy what came while the rest was copied."""
        log = open_log(now)
        try:
            await end_migration(migration, log, snapshots, wanted)
        finally:
            log.close()


POOLS = web.AppKey("pools", OpenPools)


class SameKeys:
    """Makes the keys of the default pool those of the others, by events of their logs, so that each
    log says whom its process admitted.
    """

    def __init__(self, main: web.Application) -> None:
        self._app, self._main = main, main[CONFIGURATION]
        self._tasks = main[ROUTER].writer.tasks
        self._changed = asyncio.Event()

    def again(self) -> None:
        """See whether all have them: a pool was opened, maybe while they changed."""
        self._changed.set()

    def start(self) -> Kept:
        """Begin; `end` what is returned."""
        self._main.follow(lambda _: self.again())
        return self._tasks.keep(_TASK, self._follow_forever)

    async def _follow_forever(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                for app in list(names_and_pools(self._app).values())[1:]:
                    await self._pass_on(app)
            except BaseException:
                self._changed.set()
                raise
            self._tasks.well(_TASK)

    async def _pass_on(self, app: web.Application) -> None:
        configuration, keys = app[CONFIGURATION], self._main.settings.keys
        if configuration.settings.keys == keys:
            return
        arms = [record.spec for record in app[ROUTER].world.catalogue.present()]
        file = replace(configuration.file, keys=keys)
        await configuration.read_file(file, arms, "the keys of the default pool")


def settings_in(main: web.Application, name: str) -> Callable[[Settings], Settings]:
    """What turns a file's settings into those of a pool of the process."""

    def derive(file: Settings) -> Settings:
        own = of_pool(file, pool_named(file, name))
        return replace(own, keys=main[CONFIGURATION].settings.keys)

    return derive


async def reload(main: web.Application) -> bool:
    """Read the file again, for every pool, and try those that are closed; whether all that it says
    is in force in all that are open.
    """
    async with main[HOMES].changing:
        taken = [await app[RELOADING].reload() for app in names_and_pools(main).values()]
    if (pools := main.get(POOLS)) is not None:
        pools.closed.hurry()
    return all(taken)
