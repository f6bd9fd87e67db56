"""Who gets which variant: the order in which a query meets experiments. Pure.

kill switch → hold-out of the route → for each running experiment, oldest first: audience →
override → namespace → share and split by hash → the variant that is kept → held variants. A unit is
in at most one experiment; where none takes it, the policy that serves decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
from typing import Protocol

import msgspec

from bandit_service.core.events import label_of_route, owner_of
from bandit_service.core.experiments.bucketing import SCHEMES, in_namespace
from bandit_service.core.experiments.hashing import KEPT, sha256_fraction
from bandit_service.core.experiments.spec import (
    HOLDOUT,
    Experiment,
    Variant,
    holdout_id,
    label_of,
)
from bandit_service.core.experiments.trial import Trial
from bandit_service.core.world import World


class Sized(Protocol):
    """What of a query an audience is chosen by."""

    @property
    def tenant(self) -> str: ...  # noqa: D102
    @property
    def caller(self) -> str: ...  # noqa: D102
    @property
    def tokens(self) -> int: ...  # noqa: D102
    @property
    def route(self) -> str: ...  # noqa: D102


class Asker(Sized, Protocol):
    """What of a query says who asks."""

    @property
    def unit(self) -> str: ...  # noqa: D102
    @property
    def session(self) -> str: ...  # noqa: D102
    @property
    def conversation(self) -> str: ...  # noqa: D102


class Assigned(msgspec.Struct, frozen=True, gc=False):
    """What a query takes part in. learner: the label of the policy that decides, "" for `arm`.

    split: the probability with which a unit that takes part got this variant when it got it, 0
    where it was named or is not to be measured. steps: what made it so (see `events.Decided`).
    """

    experiment: str
    variant: str
    split: float
    member: str
    learner: str = ""
    arm: str = ""
    steps: tuple[str, ...] = ()


def assigned(world: World, asker: Asker) -> Assigned | None:
    """The experiment and variant of a query; None where it takes part in none.

    A unit that is held out in one route is held out in all that hold out as large a share.
    """
    rules = world.experiments.rules_of(asker.route)
    if rules.stopped:
        return None
    if rules.holdout_share > 0.0:
        unit = unit_of(rules.unit, asker)
        if unit and sha256_fraction(f"holdout:{rules.salt}", unit) < rules.holdout_share:
            member = member_of(rules.unit, asker)
            return Assigned(
                holdout_id(asker.route),
                HOLDOUT,
                rules.holdout_share,
                member,
                arm=rules.holdout_arm,
                steps=("holdout",),
            )
    specs = world.experiments.specs
    for id, trial in world.experiments.trials.items():
        if trial.status != "running":
            continue
        found = _in(world, specs[id], trial, asker)
        if found is not None:
            return found
    return None


def running(world: World) -> Iterator[tuple[Experiment, Trial]]:
    """The experiments that assign, oldest first."""
    for id, trial in world.experiments.trials.items():
        if trial.status == "running":
            yield world.experiments.specs[id], trial


def invited(spec: Experiment, asker: Sized) -> bool:
    """Whether the query is of the experiment's route, and the audience allows it."""
    audience = spec.audience
    return (
        spec.route == asker.route
        and (not audience.tenants or asker.tenant in audience.tenants)
        and (not audience.callers or asker.caller in audience.callers)
        and asker.tokens >= audience.min_tokens
        and (audience.max_tokens is None or asker.tokens <= audience.max_tokens)
    )


_NAMED = {
    "user": attrgetter("unit"),
    "session": attrgetter("session"),
    "conversation": attrgetter("conversation"),
    "tenant": attrgetter("tenant"),
}


def unit_of(kind: str, asker: Asker) -> str:
    """The text that is hashed, "" where the query does not name such a unit."""
    unit: str = _NAMED[kind](asker)
    return unit


def member_of(kind: str, asker: Asker) -> str:
    """The unit as it is kept: a hash, for users the one by which they are erased."""
    tenant = "" if kind == "tenant" else asker.tenant
    return _member(kind, tenant, unit_of(kind, asker))


@lru_cache(KEPT)
def _member(kind: str, tenant: str, unit: str) -> str:
    if kind == "user":
        return owner_of(tenant, unit)
    text = f"{kind}:{len(tenant)}:{tenant}{unit}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _in(world: World, spec: Experiment, trial: Trial, asker: Asker) -> Assigned | None:
    if not invited(spec, asker):
        return None
    unit = unit_of(spec.unit, asker)
    if not unit:
        return None
    steps = [] if spec.for_everybody else ["audience"]
    if unit in spec.overrides:
        named, member = spec.variant(spec.overrides[unit]), member_of(spec.unit, asker)
        return (
            None if named is None else _given(world, spec, named, 0.0, member, *steps, "override")
        )
    if spec.namespace:
        if not in_namespace(spec.scheme, spec.namespace, unit, spec.slots):
            return None
        steps.append("namespace")
    index = _index(
        spec.scheme, spec.salt or spec.id, spec.split_salt, unit, spec.share, spec.weights
    )
    if index is None:
        return None
    served = spec.served
    member = member_of(spec.unit, asker)
    if spec.share < 1.0:
        steps.append("share")
    variant, split = served[index], trial.effective(spec)[index]
    steps.append("split")
    known = trial.members.get(member) if spec.sticky or spec.mode == "champion" else None
    stored = spec.variant(known.variant) if known is not None else None
    if known is not None and stored is not None:
        split = trial.epochs[known.epoch].weights[served.index(stored)]
        if stored != variant:
            variant = stored
            steps.append("kept")
    if variant.key in trial.held:
        return _given(world, spec, spec.control, 0.0, member, *steps, "held")
    return _given(world, spec, variant, split, member, *steps)


@lru_cache(KEPT)
def _index(
    scheme: str, salt: str, split_salt: str, unit: str, share: float, weights: tuple[float, ...]
) -> int | None:
    """The variant that chance gives a unit; what was asked lately is kept."""
    return SCHEMES[scheme](salt, split_salt or salt, unit, share, weights)


def _given(
    world: World, spec: Experiment, variant: Variant, split: float, member: str, *steps: str
) -> Assigned:
    label = label_of(spec.id, variant.key)
    if variant.arm:
        return Assigned(spec.id, variant.key, split, member, arm=variant.arm, steps=steps)
    usual = label_of_route(spec.route) if spec.route else world.serving
    learner = label if label in world.learners else usual
    return Assigned(spec.id, variant.key, split, member, learner, steps=steps)


def forget_units() -> None:
    """What is kept of units to hash each of them once."""
    _member.cache_clear()
    _index.cache_clear()
    sha256_fraction.cache_clear()
