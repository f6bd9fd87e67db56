"""The file, read again while the service runs: by the same check as at a start, all of it or none.

What cannot change at run time is told by its name and waits for a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from bandit_service import settings as reading
from bandit_service.app.assembly import arms_then, reconcile
from bandit_service.core.errors import Conflict, ServiceError, Unknown
from bandit_service.core.events import ArmSpec, RouteSpec
from bandit_service.runtime import configured_experiments
from bandit_service.runtime.experiments import Experiments, Offered
from bandit_service.runtime.file_revision import behind
from bandit_service.runtime.live_configuration import LiveConfiguration
from bandit_service.runtime.maintenance import Maintenance
from bandit_service.runtime.router import Router
from bandit_service.settings import BadSettings, Settings, default_of, experiment_rules, exposure
from bandit_service.settings.live_values import SECRETS_AT_A_START, at_a_start, value_of
from bandit_service.settings.pools import Pool
from bandit_service.telemetry.telemetry import Telemetry

_log = logging.getLogger("bandit.configuration")


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
        experiments: Experiments,
        derive: Callable[[Settings], Settings] = default_of,
    ) -> None:
        self._router, self._maintenance, self._telemetry = router, maintenance, telemetry
        self._configuration, self._experiments = configuration, experiments
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

    def moved(self, pool: Pool) -> None:
        """A pool is served where the file says now."""
        there = self._started.pools
        pools = tuple(pool if each.spec.name == pool.spec.name else each for each in there)
        self._started = replace(self._started, pools=pools)

    async def _reload(self) -> None:
        configuration = self._configuration
        now, serving = configuration.settings, self._maintenance
        file = await asyncio.to_thread(reading.read, self._started.file)
        fresh = self._derive(replace(file, pools=self._started.pools))
        if file.pools != self._started.pools:
            _log.warning("these take a restart", extra={"settings": ["pools"]})
        waiting = _waiting(self._started, fresh)
        if old := behind(fresh, configuration.known.file):
            raise BadSettings([old])
        if refused := exposure(replace(fresh, server=now.server)):
            raise BadSettings([refused])
        if fresh.policy != now.policy and serving.training.wanted is not None:
            raise Conflict(
                f"policy.name: {serving.training.wanted.name!r} is being trained; try again later"
            )
        wanted = replace(now, arms=fresh.arms, policy=fresh.policy)
        arms = arms_then(self._router.world, wanted)
        rules = experiment_rules(fresh.experiment_rules)
        try:
            configured_experiments.check(
                self._experiments, fresh.experiments, rules, _offered(arms, fresh.routes)
            )
        except ServiceError as error:
            raise BadSettings([f"experiments: {error.message}"]) from None
        await configuration.claim(fresh)
        await configuration.read_file(fresh, arms, "the file was read again (SIGHUP)")
        configuration.settings = replace(
            configuration.settings,
            arms=fresh.arms,
            policy=fresh.policy,
            experiments=fresh.experiments,
            experiment_rules=fresh.experiment_rules,
        )
        await reconcile(self._router, self._maintenance, configuration)
        await configured_experiments.reconcile(self._experiments, fresh.experiments, rules)
        self._experiments.steer_every(fresh.experiment_rules.steer_s)
        if waiting:
            _log.warning("these take a restart", extra={"settings": waiting})
        known = configuration.known
        _log.info("the file was read again", extra={"revision": known.revision})


def _offered(arms: Sequence[ArmSpec], routes: Sequence[RouteSpec]) -> Offered:
    """The arms that there will be once the file is taken, by route."""
    there = {arm.id for arm in arms}
    of_route = {route.id: there & set(route.arms) if route.arms else there for route in routes}

    def offered(route: str) -> Collection[str]:
        if route and route not in of_route:
            raise Unknown(f"route: no route {route!r} in the file", param="route")
        return of_route[route] if route else there

    return offered


def _waiting(before: Settings, fresh: Settings) -> list[str]:
    """What is other in the file, and cannot be taken over while the service runs; without what the
    command line said in its place.
    """
    others = [name for name in SECRETS_AT_A_START if getattr(before, name) != getattr(fresh, name)]
    return others + [
        key
        for key in at_a_start()
        if value_of(before, key) != value_of(fresh, key)
        and not before.origins.get(key, "").startswith("--")
    ]
