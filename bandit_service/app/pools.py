"""What the pools of one process have together: the keys of the default one, and the file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from aiohttp import web

from bandit_service.app.reloading import Reloading
from bandit_service.http.frame import CONFIGURATION, ROUTER
from bandit_service.http.pools import names_and_pools
from bandit_service.runtime.supervisor import Kept
from bandit_service.settings import Settings
from bandit_service.settings.pool_logs import of_pool

RELOADING = web.AppKey("reloading", Reloading)
_TASK = "keys of pools"


class SameKeys:
    """Makes the keys of the default pool those of the others, by events of their logs, so that each
    log says whom its process admitted.
    """

    def __init__(self, main: web.Application, others: Sequence[web.Application]) -> None:
        self._main, self._others = main[CONFIGURATION], others
        self._tasks = main[ROUTER].writer.tasks
        self._changed = asyncio.Event()

    def start(self) -> Kept:
        """Begin; `end` what is returned."""
        self._main.follow(lambda _: self._changed.set())
        return self._tasks.keep(_TASK, self._follow_forever)

    async def _follow_forever(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                for app in self._others:
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
        pool = next(each for each in file.pools if each.spec.name == name)
        return replace(of_pool(file, pool), keys=main[CONFIGURATION].settings.keys)

    return derive


async def reload(main: web.Application) -> bool:
    """Read the file again, for every pool; whether all that it says is in force in all of them."""
    taken = [await app[RELOADING].reload() for app in names_and_pools(main).values()]
    return all(taken)
