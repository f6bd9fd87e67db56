"""Deployments of an arm: the same model at several upstreams, with one learner. Pure.

An arm without deployments is called at its own upstream. One with deployments is called at one of
them, as the arm that `called_at` makes: with that upstream, the model's name there, and its prices.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bandit_service.core.events import ArmSpec, Deployment

PRICES = (
    "usd_per_mtok_in",
    "usd_per_mtok_out",
    "usd_per_mtok_cached_in",
    "usd_per_mtok_cache_write",
    "usd_per_mtok_cache_write_1h",
)


def name_of(deployment: Deployment) -> str:
    """What it is called: its id, else its upstream's."""
    return deployment.id or deployment.upstream


def called_at(spec: ArmSpec, deployment: Deployment) -> ArmSpec:
    """The arm as it is called at one of its deployments.

    >>> spec = ArmSpec(id="m", usd_per_mtok_in=1.0, usd_per_mtok_out=2.0)
    >>> at = called_at(spec, Deployment(upstream="eu", model="m-eu", usd_per_mtok_in=1.5))
    >>> at.upstream, at.model, at.usd_per_mtok_in, at.usd_per_mtok_out
    ('eu', 'm-eu', 1.5, 2.0)
    """
    own = {name: price for name in PRICES if (price := getattr(deployment, name)) is not None}
    return msgspec.structs.replace(
        spec,
        upstream=deployment.upstream,
        model=deployment.model or spec.model,
        deployments=(),
        **own,
    )


def calls_of(spec: ArmSpec) -> Iterator[ArmSpec]:
    """The arm in each way in which it may be called; none if nothing serves it."""
    if spec.deployments:
        yield from (called_at(spec, each) for each in spec.deployments)
    elif spec.upstream:
        yield spec


def calls_in(spec: ArmSpec, name: str) -> list[ArmSpec]:
    """The arm as it is called at the deployment of this name; in every way if it has none such."""
    at = [called_at(spec, each) for each in spec.deployments if name_of(each) == name]
    return at or list(calls_of(spec))


def upstreams_of(spec: ArmSpec) -> tuple[str, ...]:
    """The upstreams that serve the arm."""
    if spec.deployments:
        return tuple(each.upstream for each in spec.deployments)
    return (spec.upstream,) if spec.upstream else ()


def misdeployed(spec: ArmSpec) -> str:
    """What is wrong with an arm's deployments, "field: why"; "" if nothing is."""
    if not spec.deployments:
        return ""
    if spec.upstream:
        return "upstream: leave it out, since each of the deployments names its own"
    names: set[str] = set()
    for i, each in enumerate(spec.deployments):
        if not each.upstream:
            return f"deployments[{i}].upstream: name the [[upstreams]] that serves it"
        if not name_of(each).isprintable():
            return f"deployments[{i}].id: must be printable characters, got {each.id!r}"
        if name_of(each) in names:
            return (
                f"deployments[{i}].id: another one is called {name_of(each)!r}; give each its own "
                "id"
            )
        names.add(name_of(each))
    return ""
