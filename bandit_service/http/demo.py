"""`/v1/demo`: recorded traffic through this service, so that somebody new sees it learn.

It teaches the policy of this service, so that it runs only where nothing can be spoiled: on the
machine of whoever looks, with nothing configured, before the first decision. It ends as soon as
anybody else decides or configures anything. Its decisions have a unit and a tag of their own.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import sys

import msgspec
from aiohttp import web

from bandit_service import wire
from bandit_service.core.errors import Conflict, ServiceError, Unavailable
from bandit_service.http.middleware import CONFIGURATION, ROUTER, reply
from bandit_service.http.responses.demo import Demo as DemoState
from bandit_service.offline.demo_rows import Rows
from bandit_service.parsing.extras import install
from bandit_service.parsing.hosts import is_loopback
from bandit_service.runtime.live_configuration import LiveConfiguration
from bandit_service.runtime.router import Router
from bandit_service.settings import DEFAULT_ARMS

_log = logging.getLogger("bandit.demo")
NAME = "demo"
"""The unit and the tag of its decisions."""
QUERIES = 400
PAUSE_S = 0.05
_MIXED = "the log has decisions, outcomes or experiments, which it would be mixed with"


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

    def _elsewhere(self) -> str:
        """Why this is no service for a demo; "" if it is."""
        world, settings = self._router.world, self._configuration.settings
        alone = not (settings.keys or settings.pools or self._router.writer.shared)
        if not alone or not is_loopback(settings.server.host):
            return "it runs only on a service for one machine alone, without API keys"
        configured = settings.upstreams or settings.experiments or settings.routes
        own = [record for record in world.offered() if record.spec not in DEFAULT_ARMS]
        if configured or settings.arms != DEFAULT_ARMS or own:
            return "it runs only where nothing is configured, with the arms that come by default"
        return _MIXED if world.experiments.specs else ""

    def _refusal(self) -> str:
        """Why it may not begin; "" if it may."""
        world = self._router.world
        if why := self._elsewhere():
            return why
        if world.decisions or world.rewards or world.comparisons:
            return _MIXED
        if importlib.util.find_spec("pareto_bandit") is None:
            return f"its recording is not installed; {install('demo', 'paretobandit')}"
        return ""

    async def _run(self) -> None:
        try:
            await self._stream(await _recorded())
        except ServiceError as error:
            _log.error("the demo ended early", extra={"why": error.message})
        else:
            _log.info("the demo ended", extra={"count": self._made})

    async def _stream(self, recorded: Rows) -> None:
        most = self._router.rules.max_query_chars
        for row in recorded.rows:
            if self._router.world.decisions > self._made or self._elsewhere():
                return  # somebody else decides, or configures the service
            asked = wire.DecideRequest(
                query=row.text[:most], unit=NAME, tags=[NAME], arms=recorded.arms
            )
            decided = await self._router.decide(asked)
            self._made += 1
            if decided.arm in row.outcomes:
                quality, cost = row.outcomes[decided.arm]
                told = wire.RewardRequest(decision_id=decided.id, quality=quality, cost_usd=cost)
                await self._router.reward(told)
            await asyncio.sleep(PAUSE_S)


async def _recorded() -> Rows:
    """The recorded queries. Raises Unavailable where they cannot be read."""
    module = "bandit_service.offline.demo"
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        str(QUERIES),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        told, _ = await child.communicate()
        return msgspec.msgpack.decode(told, type=Rows)
    except msgspec.DecodeError:
        raise Unavailable("the recording of the demo cannot be read") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


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
