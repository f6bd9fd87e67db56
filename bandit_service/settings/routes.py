"""`[[routes]]`: names under which clients ask, each with its own arms and policy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from bandit_service.core.arm_kinds import is_routed, not_for_chat
from bandit_service.core.events import ArmSpec, RouteSpec
from bandit_service.core.experiments.spec import Experiment
from bandit_service.core.fields import Id, check_stated, doc
from bandit_service.core.metric_spec import MAX_WEIGHT
from bandit_service.core.routes import AUTO, MAX_ROUTES
from bandit_service.parsing.suggestions import did_you_mean
from bandit_service.parsing.validation import Mistakes
from bandit_service.settings.judges import JudgeSpec
from bandit_service.settings.sections.learning import PolicySettings
from bandit_service.settings.tables import check_policy
from bandit_service.settings.upstreams import listed
from policies import ArmId

_MARKS = "?:/,"


class RouteTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A route as it is configured. arms: ids; all where none is named. policy: the configured one
    with its parameters where none is named. weights: by name of a metric.
    """

    id: Id
    arms: tuple[str, ...] = ()
    willingness_to_pay: Annotated[
        float | None,
        doc("USD that one unit of quality is worth there.", 0.1, minimum=1e-9, maximum=1e6),
    ] = None
    latency_weight: Annotated[
        float | None,
        doc("Quality that one second of latency costs there.", 0.02, minimum=0, maximum=100),
    ] = None
    weights: dict[str, float] = {}
    holdout_share: Annotated[
        float,
        doc("Share of its units that always gets `holdout_arm`.", 0.02, minimum=0, maximum=0.5),
    ] = 0.0
    holdout_arm: str = ""
    policy: str = ""
    parameters: dict[str, Any] = {}


def routes_of(items: Any, values: Mapping[str, Any], mistakes: list[str]) -> tuple[RouteSpec, ...]:
    """The routes of `[[routes]]`; each mistake as a sentence with its place."""
    serving = PolicySettings(values["policy.name"], values["policy.parameters"])
    if isinstance(items, list) and len(items) > MAX_ROUTES:
        mistakes.append(f"routes: must have at most {MAX_ROUTES}, got {len(items)}")
        items = items[:MAX_ROUTES]  # to check all of them takes long
    tables = listed("routes", items, RouteTable, _check, mistakes)
    return tuple(_spec(each, serving) for each in tables)


def _spec(table: RouteTable, serving: PolicySettings) -> RouteSpec:
    chosen = PolicySettings(table.policy, table.parameters) if table.policy else serving
    return RouteSpec(
        id=table.id,
        arms=tuple(map(ArmId, table.arms)),
        willingness_to_pay=table.willingness_to_pay,
        latency_weight=table.latency_weight,
        weights=table.weights,
        holdout_share=table.holdout_share,
        holdout_arm=ArmId(table.holdout_arm),
        policy=chosen.name,
        parameters=chosen.parameters,
    )


def _check(table: RouteTable) -> None:
    check_stated(table)
    if table.id == AUTO or any(mark in table.id for mark in _MARKS):
        raise ValueError(f"id: must not be 'auto', nor have any of {_MARKS} in it")
    if len(set(table.arms)) < len(table.arms):
        raise ValueError("arms: must name each arm once")
    for name, weight in table.weights.items():
        if not 0.0 <= weight <= MAX_WEIGHT:
            raise ValueError(
                f"weights.{name}: must be a number from 0 to {MAX_WEIGHT:g}, got {weight:g}"
            )
    if table.holdout_share and not table.holdout_arm:
        raise ValueError("holdout_arm: name the arm that held-out units get")
    if table.holdout_arm and table.arms and table.holdout_arm not in table.arms:
        meant = did_you_mean(table.holdout_arm, table.arms)
        raise ValueError(
            f"holdout_arm: {table.holdout_arm!r} is no arm of the route{meant}; expected one of "
            f"{', '.join(table.arms)}"
        )
    if table.parameters and not table.policy:
        raise ValueError("parameters: name the policy that they are of")
    if table.policy:
        wrong: list[str] = []
        check_policy(table.policy, table.parameters, wrong)
        if wrong:
            raise Mistakes(
                [each.removeprefix("policy.").replace("name:", "policy:", 1) for each in wrong]
            )


def unknown_routes(routes: Sequence[RouteSpec], judges: Sequence[JudgeSpec]) -> list[str]:
    """Routes that judges name and that are not configured."""
    there = [AUTO, *(each.id for each in routes)]
    return [
        f"judges[{i}].routes: no route {id!r}{did_you_mean(id, there)}; expected one of "
        f"{', '.join(there)}"
        for i, judge in enumerate(judges)
        for id in judge.routes
        if id not in there
    ]


def routeless(experiments: Sequence[Experiment], routes: Sequence[RouteSpec]) -> list[str]:
    """Routes that experiments name and that are not configured, and arms that their routes lack."""
    by_id = {each.id: each for each in routes}
    there_are = f"expected one of {', '.join(by_id)}" if by_id else "none is configured"
    found = []
    for i, spec in enumerate(experiments):
        if not spec.route:
            continue
        route = by_id.get(spec.route)
        if route is None:
            meant = did_you_mean(spec.route, by_id)
            found.append(f"experiments[{i}].route: no route {spec.route!r}{meant}; {there_are}")
            continue
        found += [
            f"experiments[{i}].variants.{one.key}: {one.arm!r} is no arm of the route {route.id!r}"
            f"{did_you_mean(one.arm, route.arms)}; expected one of {', '.join(route.arms)}"
            for one in spec.variants
            if one.arm and route.arms and one.arm not in route.arms
        ]
    return found


def unknown_weights(routes: Sequence[RouteSpec], metrics: Collection[str]) -> list[str]:
    """Weights of routes for what is no metric."""
    there_are = f"expected one of {', '.join(metrics)}" if metrics else "none is configured"
    return [
        f"routes[{i}].weights.{name}: no such metric{did_you_mean(name, metrics)}; {there_are}"
        for i, route in enumerate(routes)
        for name in route.weights
        if name not in metrics
    ]


def route_mistakes(routes: Sequence[RouteSpec], arms: Sequence[ArmSpec]) -> list[str]:
    """What is wrong between routes and the configured arms."""
    by_id = {each.id: each for each in arms}
    found = []
    for i, route in enumerate(routes):
        if ArmId(route.id) in by_id:
            found.append(
                f"routes[{i}].id: there is an arm {route.id!r}; call one of them otherwise"
            )
        named = [("arms", id) for id in route.arms]
        if route.holdout_arm and not route.arms:  # else it is one of those
            named.append(("holdout_arm", route.holdout_arm))
        for field, id in named:
            spec = by_id.get(id)
            if spec is None:
                found.append(
                    f"routes[{i}].{field}: {id!r} is no configured arm{did_you_mean(id, by_id)}"
                )
            elif not is_routed(spec):
                why = not_for_chat(spec) or f"{id!r} has routed = false, so that nothing chooses it"
                found.append(f"routes[{i}].{field}: {why}")
    return found
