"""Changes of what can be chosen and of what chooses: arms, routes and the serving policy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from bandit_service.core import events as ev
from bandit_service.core.errors import Refused, TooLarge, Unknown
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.runtime.writer import Writer
from policies import ArmId

_log = logging.getLogger("bandit.router")


class CatalogueChanges:
    """Each is an event, in the order in which they come; nothing is written if nothing changes."""

    def __init__(self, writer: Writer, rules: RouterRules) -> None:
        self._writer, self._rules = writer, rules

    async def put_arm(
        self,
        spec: ev.ArmSpec,
        source: str = "api",
        check: Callable[[list[ev.ArmSpec]], None] = lambda _: None,
    ) -> bool:
        """Add or replace an arm; True when it is new or back. Nothing happens if it is the same.

        check: gets the resulting arms, and raises an error if they are not allowed.
        """
        existed = False

        def prepare() -> ev.AnyEvent | None:
            nonlocal existed
            world = self._writer.world
            record = world.arms.get(spec.id)
            existed = record is not None and not record.retired
            same = record is not None and existed and record.spec == spec
            if same and (source == "api" or world.catalogue.configured.get(spec.id) == spec):
                return None
            if source == "api" and spec.id in world.routes.specs:
                raise Refused(
                    f"id: there is a route {spec.id!r}; put the arm under another id", param="id"
                )
            most = self._rules.max_arms
            if record is None and source == "api" and len(world.arms) >= most:
                raise TooLarge(f"id: there are {most} arms, retired ones included", param="id")
            there = world.catalogue.present()
            check([spec, *(one.spec for one in there if one.spec.id != spec.id)])
            kind = ev.ArmUpdated if existed else ev.ArmAdded
            return kind(ts=self._writer.now(), arm=spec, source=source)

        await self._writer.submit(prepare, key="catalogue")
        return not existed

    async def retire_arm(self, id: ArmId, source: str = "api") -> None:
        """Stop offering the arm; its learned state stays, and it still accepts rewards."""

        def prepare() -> ev.AnyEvent:
            record = self._writer.world.arms.get(id)
            if record is None or record.retired:
                raise Unknown(f"id: no arm {id!r}; GET /v1/arms lists them", param="id")
            return ev.ArmRetired(ts=self._writer.now(), id=id, source=source)

        await self._writer.submit(prepare, key="catalogue")

    async def set_routes(self, wanted: Mapping[str, tuple[ev.RouteSpec, str]]) -> None:
        """Set the routes, each with the key of its policy."""
        learners = self._writer.world.learners

        def removed(id: str) -> ev.RouteRemoved | None:
            there = id in self._writer.world.routes.specs
            return ev.RouteRemoved(ts=self._writer.now(), id=id) if there else None

        def changed(spec: ev.RouteSpec, key: str) -> ev.RouteChanged | None:
            learner = learners.get(ev.label_of_route(spec.id))
            same = learner is not None and learner.key == key
            if same and self._writer.world.routes.specs.get(spec.id) == spec:
                return None
            return ev.RouteChanged(ts=self._writer.now(), route=spec, key=key)

        for id in [id for id in self._writer.world.routes.specs if id not in wanted]:
            await self._writer.submit(partial(removed, id), key="catalogue")
        for id, (spec, key) in wanted.items():
            learner = learners.get(ev.label_of_route(id))
            if learner is not None and learner.key != key:
                _log.warning(
                    "a route has another policy, or other parameters, than before, and begins with "
                    "nothing learned",
                    extra={"route": id, "policy": spec.policy},
                )
            await self._writer.submit(partial(changed, spec, key), key="catalogue")

    async def change_policy(
        self, name: str, key: str, parameters: dict[str, Any], source: str
    ) -> None:
        """Write the event that this policy decides from now on, with its present state."""

        def prepare() -> ev.PolicyChanged | None:
            if self._writer.world.policy.key == key:
                return None
            return ev.PolicyChanged(
                ts=self._writer.now(),
                policy=name,
                key=key,
                parameters=msgspec.json.encode(parameters),
                source=source,
            )

        await self._writer.submit(prepare, key="catalogue")
