"""The file, read again while the service runs: by the same check as at a start, all of it or none.

What cannot change at run time is told by its name and waits for a restart.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bandit_service import settings as reading
from bandit_service.app.assembly import arms_then, reconcile
from bandit_service.core.configuration import SECTIONS
from bandit_service.core.errors import Conflict, ServiceError
from bandit_service.runtime.live_configuration import LiveConfiguration
from bandit_service.runtime.maintenance import Maintenance
from bandit_service.runtime.router import Router
from bandit_service.settings import BadSettings, Settings, default_of, exposure
from bandit_service.telemetry.telemetry import Telemetry

_log = logging.getLogger("bandit.configuration")
_LIVE = {*SECTIONS, "arms", "policy"}
_BESIDE = {"origins", "file", "from_file"}


class Reloading:
    """Reads the file again. What goes wrong is told and counted, and what is in force stays.

    derive: from the file's settings to those of this pool. Which pools there are takes a restart.
    """

    def __init__(
        self,
        router: Router,
        maintenance: Maintenance,
        telemetry: Telemetry,
        configuration: LiveConfiguration,
        derive: Callable[[Settings], Settings] = default_of,
    ) -> None:
        self._router, self._maintenance, self._telemetry = router, maintenance, telemetry
        self._configuration = configuration
        self._started = configuration.file
        self._one = asyncio.Lock()
        self._derive = derive

    async def reload(self) -> bool:
        """Whether all that the file says is in force, but for what takes a restart."""
        async with self._one:
            metrics = self._telemetry.metrics
            try:
                await self._reload()
            except BadSettings as bad:
                for mistake in bad.mistakes:
                    _log.error("the file is not taken", extra={"why": mistake})
            except ServiceError as error:
                _log.error("the file is not taken", extra={"why": error.message})
            except Exception as error:  # noqa: BLE001 - what is in force goes on, whatever it was
                self._router.writer.tasks.failed("reload", error)
            else:
                self._router.writer.tasks.well("reload")
                metrics.configuration_reloads("taken").inc()
                return True
            metrics.configuration_reloads("refused").inc()
            return False

    async def _reload(self) -> None:
        configuration = self._configuration
        now, serving = configuration.settings, self._maintenance
        file = await asyncio.to_thread(reading.read, self._started.file)
        fresh = self._derive(replace(file, pools=self._started.pools))
        if file.pools != self._started.pools:
            _log.warning("these take a restart", extra={"settings": ["pools"]})
        waiting = sorted(_waiting(self._started, fresh))
        if refused := exposure(dataclasses.replace(fresh, server=now.server)):
            raise BadSettings([refused])
        if fresh.policy != now.policy and serving.wanted is not None:
            raise Conflict(f"policy.name: {serving.wanted.name!r} is being folded; try again then")
        wanted = dataclasses.replace(now, arms=fresh.arms, policy=fresh.policy)
        arms = arms_then(self._router.world, wanted)
        await configuration.read_file(fresh, arms, "the file was read again (SIGHUP)")
        configuration.settings = dataclasses.replace(
            configuration.settings, arms=fresh.arms, policy=fresh.policy
        )
        await reconcile(self._router, self._maintenance, configuration)
        if waiting:
            _log.warning("these take a restart", extra={"settings": waiting})
        known = configuration.known
        _log.info("the file was read again", extra={"revision": known.revision})


def _waiting(before: Settings, fresh: Settings) -> set[str]:
    """What is other in the file, and cannot be taken over while the service runs; without what the
    command line said in its place.
    """
    found: set[str] = set()
    for each in dataclasses.fields(Settings):
        if each.name in _LIVE | _BESIDE:
            continue
        was, now = getattr(before, each.name), getattr(fresh, each.name)
        if dataclasses.is_dataclass(was) and not isinstance(was, type):
            inner: dict[str, Any] = {
                f"{each.name}.{one.name}": (getattr(was, one.name), getattr(now, one.name))
                for one in dataclasses.fields(was)
            }
            found |= {
                name
                for name, (one, other) in inner.items()
                if one != other and not before.origins.get(name, "").startswith("--")
            }
        elif was != now:
            found.add(each.name)
    return found
