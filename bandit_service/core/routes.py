"""Routes: names for clients to request, each with its own arms, policy and learned state.

Requests for `auto` use the default route, whose policy is the serving one; a service without routes
has only that. Only a route's own policy learns from the route's decisions, and it learns from no
others (`Learners`, `View`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from bandit_service.core import events as ev
from bandit_service.core.errors import Unknown
from bandit_service.core.events import RouteSpec
from bandit_service.core.feature import takes
from bandit_service.core.resolved import Resolved
from policies import ArmId

MAX_ROUTES = 20
AUTO = "auto"
"""What clients call the default route; in the log it has no name."""


@dataclass
class Routes:
    """specs: by id. ended: the ids of removed routes whose outcomes are remembered."""

    specs: dict[str, RouteSpec] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there ever was one."""
        return bool(self.specs or self.ended)

    def find(self, id: str, param: str = "route") -> RouteSpec:
        """The route of this id. Raises Unknown."""
        spec = self.specs.get(id)
        if spec is None:
            there_are = (
                f"expected one of {', '.join(self.specs)}" if self.specs else "none is configured"
            )
            raise Unknown(f"{param}: no route {id!r}; {there_are}", param=param)
        return spec

    def arms_of(self, id: str, there: Collection[ArmId]) -> tuple[ArmId, ...]:
        """The arms of a route that were ever added."""
        return tuple(arm for arm in self.find(id).arms if arm in there)

    @takes(ev.RouteChanged)
    def _changed(self, event: ev.RouteChanged, _: Resolved) -> None:
        self.specs[event.route.id] = event.route
        if event.route.id in self.ended:
            self.ended.remove(event.route.id)

    @takes(ev.RouteRemoved)
    def _removed(self, event: ev.RouteRemoved, _: Resolved) -> None:
        if self.specs.pop(event.id, None) is not None:
            self.ended.append(event.id)
