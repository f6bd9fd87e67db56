"""The parts that the whole gateway shares, in one place."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from bandit_service.core import events as ev
from bandit_service.core.arm_kinds import JUDGE, not_for_chat
from bandit_service.core.deployments import upstreams_of
from bandit_service.core.errors import Refused
from bandit_service.gateway.budgets import Budgets
from bandit_service.gateway.health import Health
from bandit_service.gateway.upstreams import Upstreams
from bandit_service.runtime.router import Router
from bandit_service.settings import GatewaySettings
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId


@dataclass(slots=True)
class Resources:
    """The parts of the service that a call needs. `close` them at the end.

    upstreams: those that are configured now; a call keeps those that it began with.
    """

    router: Router
    upstreams: Upstreams
    settings: GatewaySettings
    health: Health
    budgets: Budgets
    telemetry: Telemetry
    _finishing: set[asyncio.Future[bool]] = field(default_factory=set)

    def callable_arm(self, id: str) -> ev.ArmSpec | None:
        """The arm, unless it is retired or has no upstream."""
        record = self.router.world.arms.get(ArmId(id))
        if record is None or record.retired or not self.serves(record.spec):
            return None
        return record.spec

    def serves(self, spec: ev.ArmSpec) -> bool:
        """Whether the arm has an upstream that is configured."""
        return any(each in self.upstreams for each in upstreams_of(spec))

    def chat_arm(self, id: str) -> ev.ArmSpec | None:
        """The same for an arm of kind chat.

        Raises Refused with the arm's kind if it is another one.
        """
        spec = self.callable_arm(id)
        if spec is not None and (wrong := not_for_chat(spec)):
            raise Refused(f"model: {wrong}", param="model")
        return spec

    def models(self) -> list[ev.ArmSpec]:
        """The arms that clients can name, of every kind."""
        specs = (record.spec for record in self.router.world.catalogue.present())
        return [spec for spec in specs if spec.kind != JUDGE and self.serves(spec)]

    async def finish(self, work: Coroutine[Any, Any, bool]) -> bool:
        """Run this to its end, even if the caller is cancelled meanwhile."""
        return await asyncio.shield(self.started(work))

    def started(self, work: Coroutine[Any, Any, bool]) -> asyncio.Future[bool]:
        """Start a task that runs to its end, whoever waits for it."""
        return self.expected(asyncio.get_running_loop().create_task(work))

    def expected(self, end: asyncio.Future[bool]) -> asyncio.Future[bool]:
        """The same future; these parts are closed only after its end."""
        self._finishing.add(end)
        end.add_done_callback(self._finishing.discard)
        return end

    async def finished(self) -> None:
        """Wait until all of it is done."""
        await asyncio.gather(*self._finishing, return_exceptions=True)

    async def close(self) -> None:
        """Finish pending writes, and close the connections."""
        await self.finished()
        await self.budgets.close()
        await self.upstreams.close()
