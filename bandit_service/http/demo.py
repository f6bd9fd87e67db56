"""`/v1/demo`: recorded traffic through this service, so that somebody new sees it learn.

It teaches the policy of this service, so that it runs only where nothing can be spoiled: on the
machine of whoever looks, with nothing configured, before the first decision. It ends as soon as
anybody else decides. Its decisions have a unit and a tag of their own.
"""

from __future__ import annotations

import asyncio
import logging
import math

from aiohttp import web

from bandit_service import wire
from bandit_service.core.errors import Conflict, ServiceError
from bandit_service.data.recordings import (
    PARETOBANDIT,
    BadRecording,
    missing_paretobandit,
    open_recording,
)
from bandit_service.http.frame import CONFIGURATION, ROUTER, reply
from bandit_service.http.responses.demo import Demo as DemoState
from bandit_service.offline.simulate import order_of
from bandit_service.parsing.hosts import is_loopback
from bandit_service.runtime.live_configuration import LiveConfiguration
from bandit_service.runtime.router import Router
from bandit_service.settings import DEFAULT_ARMS

_log = logging.getLogger("bandit.demo")
NAME = "demo"
"""The unit and the tag of its decisions."""
QUERIES = 400
PAUSE_S = 0.05


class Demo:
    """The demo of one service."""

    def __init__(self, router: Router, configuration: LiveConfiguration) -> None:
        self._router, self._configuration = router, configuration
        self._running: asyncio.Task[None] | None = None
        self._made = 0

    @property
    def state(self) -> DemoState:
        """Whether it can run, or does."""
        running = self._running is not None and not self._running.done()
        why = "" if running else self._refusal()
        return DemoState(
            available=not running and not why, why=why, running=running, decisions=self._made
        )

    def start(self) -> None:
        """Begin; Conflict where it may not run here."""
        state = self.state
        if state.running or not state.available:
            raise Conflict(f"demo: {state.why or 'it runs already'}")
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """End it."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def _refusal(self) -> str:
        """Why it may not run here; "" if it may."""
        world, settings = self._router.world, self._configuration.settings
        if settings.keys or not is_loopback(settings.server.host) or self._router.writer.shared:
            return "it runs only on a service for one machine alone, without API keys"
        configured = settings.upstreams or settings.experiments or settings.routes
        own = [record for record in world.offered() if record.spec not in DEFAULT_ARMS]
        if configured or settings.arms != DEFAULT_ARMS or own:
            return "it runs only where nothing is configured, with the arms that come by default"
        if world.decisions or world.rewards or world.comparisons or world.experiments.specs:
            return "the log has decisions, outcomes or experiments, which it would be mixed with"
        return missing_paretobandit()

    async def _run(self) -> None:
        try:
            await self._stream()
        except (BadRecording, ServiceError) as error:
            _log.error("the demo ended early", extra={"why": str(error)})
        else:
            _log.info("the demo ended", extra={"count": self._made})

    async def _stream(self) -> None:
        recorded = await asyncio.to_thread(open_recording, PARETOBANDIT)
        arms = [str(arm.id).rpartition("/")[2] for arm in recorded.arms]
        for row in order_of(recorded, 0).tolist():
            if self._made == QUERIES or self._router.world.decisions > self._made:
                return  # it is over, or somebody else decides
            quality, cost = recorded.quality[row], recorded.cost[row]
            text = recorded.texts[row][: self._router.rules.max_query_chars]
            asked = wire.DecideRequest(query=text, unit=NAME, tags=[NAME], arms=arms)
            decided = await self._router.decide(asked)
            self._made += 1
            k = arms.index(decided.arm)
            if not math.isnan(quality[k]):
                told = wire.RewardRequest(
                    decision_id=decided.id, quality=float(quality[k]), cost_usd=float(cost[k])
                )
                await self._router.reward(told)
            await asyncio.sleep(PAUSE_S)


DEMO = web.AppKey("demo", Demo)


async def get_demo(request: web.Request) -> web.Response:
    """GET /v1/demo."""
    return reply(request.app[DEMO].state)


async def start_demo(request: web.Request) -> web.Response:
    """POST /v1/demo: begin."""
    request.app[DEMO].start()
    return reply(request.app[DEMO].state, 202)


def of(app: web.Application) -> Demo:
    """The demo of a service that is put together."""
    return Demo(app[ROUTER], app[CONFIGURATION])
