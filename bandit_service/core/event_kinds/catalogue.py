"""Events about what can be chosen and by what: arms, policies, routes and the configuration."""

from __future__ import annotations

from typing import Any

from bandit_service.core.arm_spec import ArmSpec
from bandit_service.core.event_kinds.event import Event
from bandit_service.core.route_spec import RouteSpec
from policies import ArmId


class ArmAdded(Event, frozen=True, kw_only=True, tag="arm_added"):
    """An arm joined the catalogue, or came back to it. `source` is "config" or "api"."""

    arm: ArmSpec
    source: str


class ArmUpdated(Event, frozen=True, kw_only=True, tag="arm_updated"):
    """An arm's record was replaced; what was learned of it stays."""

    arm: ArmSpec
    source: str


class ArmRetired(Event, frozen=True, kw_only=True, tag="arm_retired"):
    """An arm is no longer offered; it keeps its state and still accepts rewards."""

    id: ArmId
    source: str


class PolicyChanged(Event, frozen=True, kw_only=True, tag="policy_changed"):
    """From here on decisions are made by this policy; `key` hashes its name and parameters.

    `source` is "config" or "api".
    """

    policy: str
    key: str
    parameters: bytes
    source: str = "config"


class PolicyAnnounced(Event, frozen=True, kw_only=True, tag="policy_announced"):
    """A policy is to decide soon, on a log that several replicas share: each folds the past for it.

    Fields as of `policy_changed`, which follows when all have it.
    """

    policy: str
    key: str
    parameters: bytes
    source: str = "api"


class PolicyBuilt(Event, frozen=True, kw_only=True, tag="policy_built"):
    """A replica has folded the past for the policy that was announced. epoch: its joining.

    at: the offset of a snapshot of it in the shared log, with which the others begin; 0 if each
    folds the past itself.
    """

    key: str
    replica: int
    epoch: int
    at: int = 0


class PolicyGivenUp(Event, frozen=True, kw_only=True, tag="policy_given_up"):
    """A replica could not train the announced policy on the past, so the earlier one continues."""

    key: str
    replica: int
    why: str


class PolicyJoined(Event, frozen=True, kw_only=True, tag="policy_joined"):
    """From now on a policy learns beside the serving one, and decides if a query names it.

    parameters: JSON. key: hashes name and parameters. state: its knowledge of all earlier events,
    as `codec.dump` wrote it; empty if there was nothing to learn. On a log that several replicas
    share, of the events that the one which trained it had applied.
    """

    policy: str
    key: str
    parameters: bytes
    state: bytes = b""


class PolicyLeft(Event, frozen=True, kw_only=True, tag="policy_left"):
    """A policy no longer learns beside the serving one; its state is gone."""

    policy: str


class RouteChanged(Event, frozen=True, kw_only=True, tag="route_changed"):
    """A route is there from here on, or is as this says. key: hashes policy and parameters: while
    it is the same, what the route's policy has learned stays; else it begins with nothing.
    """

    route: RouteSpec
    key: str


class RouteRemoved(Event, frozen=True, kw_only=True, tag="route_removed"):
    """A route was removed; its policy's state is gone."""

    id: str


class ConfigurationChanged(Event, frozen=True, kw_only=True, tag="configuration_changed"):
    """Sections of the configuration are others from here on, as lists of plain entries.

    revision: its number. sections: those that changed, whole. by, why: as of an experiment. source:
    "api", "rollback" or "file". before: all sections as the file had them, in the first of these.
    file: by section and name a digest of what the file says; empty where it was not read.
    No entry has a secret: keys are there by their hashes, those of providers by where they are.
    """

    revision: int
    sections: dict[str, tuple[dict[str, Any], ...]]
    by: str = ""
    why: str = ""
    source: str = "api"
    before: dict[str, tuple[dict[str, Any], ...]] = {}
    file: dict[str, dict[str, str]] = {}
