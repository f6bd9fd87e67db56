"""Policies come to learn beside the serving one, or as a variant's own, and go again."""

from __future__ import annotations

import msgspec

import policies
from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.experiments.spec import label_of
from bandit_service.core.learner import Learner, beside
from bandit_service.core.world import World


def join(world: World, event: ev.PolicyJoined) -> None:
    """A policy that cannot be loaded is not there, and a query that names it is told so."""
    learner = _loaded(event.policy, event.parameters, event.state)
    if learner is not None:
        learner.key = event.key
        world.learners[beside(event.policy)] = learner


def seed(world: World, event: ev.VariantSeeded) -> None:
    """A variant's policy begins; one that cannot be loaded leaves the serving one to decide."""
    spec = world.experiments.get(event.experiment)
    variant = None if spec is None else spec.variant(event.variant)
    if variant is None:
        return
    label = label_of(event.experiment, event.variant)
    learner = _loaded(event.policy, event.parameters, event.state)
    if learner is None:
        return
    learner.key = policies_key(event.policy, event.parameters)
    learner.own = label if variant.learning == "isolated" and not variant.shadow else ""
    learner.seeded = world.trials[event.experiment].seeded = event.upto
    world.learners[label] = learner


def unseed(world: World, experiment: str) -> None:
    """The policies of an experiment's variants decide no more."""
    for label in [one for one in world.learners if one.startswith(f"{experiment}/")]:
        del world.learners[label]


def policies_key(name: str, parameters: bytes) -> str:
    """What a variant's policy is called in its decisions."""
    return f"{name}-{codec.sha256(parameters)[:12]}"


def _loaded(name: str, parameters: bytes, state: bytes) -> Learner | None:
    try:
        policy = policies.load(name, **msgspec.json.decode(parameters))
        known = codec.load(state, type(policy.init())) if state else policy.init()
    except (ValueError, TypeError, LookupError, ImportError, *codec.UNREADABLE):
        return None
    return Learner(policy, known, name=name, parameters=parameters)
