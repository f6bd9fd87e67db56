"""What the configuration says of a route, and the labels of what belongs to one."""

from __future__ import annotations

from typing import Any

import msgspec

from policies import ArmId

_ROUTE = "route:"


def label_of_route(id: str) -> str:
    """The label of a route's learner, and of what came by the route."""
    return f"{_ROUTE}{id}"


def within_route(route: str, label: str) -> str:
    """The label of a variant whose experiment is of a route, "" being the default one.

    >>> within_route("bot", "trial/b"), within_route("", "trial/b")
    ('route:bot/trial/b', 'trial/b')
    """
    return f"{label_of_route(route)}/{label}" if route else label


def is_of_route(label: str) -> bool:
    """Whether a label is a route's, or that of a variant within one; a variant of the default route
    has one slash, whatever its experiment's id.

    >>> is_of_route(label_of_route("bot")), is_of_route("route:x/treatment"), is_of_route("")
    (True, False, False)
    >>> is_of_route(within_route("bot", "trial/b"))
    True
    """
    return label.startswith(_ROUTE) and label.count("/") != 1


def route_label(label: str) -> str:
    """The label of the route that a label is of, "" if it is of the default one.

    >>> route_label("route:bot/trial/b"), route_label("route:bot"), route_label("trial/b")
    ('route:bot', 'route:bot', '')
    """
    return label.partition("/")[0] if is_of_route(label) else ""


class RouteSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A name under which clients ask, with its own arms and policy.

    arms: what it may choose among; empty for all. willingness_to_pay: USD that one unit of quality
    is worth; latency_weight: quality that one second of latency costs; None for the service's.
    weights: of named metrics, in the place of their own. policy, parameters: which decides.
    holdout_share, holdout_arm: the share of its units that always gets this arm.
    """

    id: str
    arms: tuple[ArmId, ...] = ()
    willingness_to_pay: float | None = None
    policy: str
    parameters: dict[str, Any] = {}
    latency_weight: float | None = None
    weights: dict[str, float] = {}
    holdout_share: float = 0.0
    holdout_arm: ArmId = ArmId("")
