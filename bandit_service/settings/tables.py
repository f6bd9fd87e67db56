"""The lists of tables: arms, keys, policies beside the serving one, experiments."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

import policies
from bandit_service.core.arm_kinds import misconfigured
from bandit_service.core.arm_request import NOTHING, ArmRequest, check_request, unsayable
from bandit_service.core.deployments import misdeployed, upstreams_of
from bandit_service.core.errors import Refused
from bandit_service.core.events import ArmSpec, Deployment
from bandit_service.core.experiments import checks
from bandit_service.core.experiments.public import PublicExperiment, respelled, stored
from bandit_service.core.experiments.spec import Experiment
from bandit_service.core.fields import check_stated, stated
from bandit_service.core.routes import AUTO
from bandit_service.parsing.suggestions import did_you_mean
from bandit_service.parsing.validation import Mistakes, every_mistake
from bandit_service.settings.keys import ApiKey, check_key
from bandit_service.settings.sections.learning import PolicySettings
from bandit_service.settings.upstreams import listed
from bandit_service.settings.whole import DEFAULT_ARMS


class BesideSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy that learns beside the serving one, and decides if a query names it."""

    name: str
    parameters: dict[str, Any] = {}


def policies_beside(items: Any, serving: str, mistakes: list[str]) -> tuple[PolicySettings, ...]:
    """The policies of `[[policies]]`, each there once and none of them the serving one."""
    specs = listed("policies", items, BesideSpec, _check_learning, mistakes)
    names = [spec.name for spec in specs]
    for i, name in enumerate(names):
        if name == serving:
            mistakes.append(f"policies[{i}].name: {name!r} is the policy that serves")
        if name in names[:i]:
            mistakes.append(f"policies[{i}].name: duplicate name {name!r}")
    return tuple(PolicySettings(spec.name, spec.parameters) for spec in specs)


def _check_learning(spec: BesideSpec) -> None:
    wrong: list[str] = []
    check_policy(spec.name, spec.parameters, wrong)
    if wrong:
        raise Mistakes([each.removeprefix("policy.") for each in wrong])


def _check_experiment(spec: Experiment) -> None:
    try:
        checks.check(spec)
    except Refused as refused:
        raise ValueError(refused.message) from None
    for one in spec.variants:
        try:
            if one.policy:
                policies.load(one.policy, **one.parameters)
        except (ValueError, TypeError) as error:
            raise ValueError(f"variants.{one.key}: {error}") from None


def experiments_of(items: Any, mistakes: list[str]) -> tuple[Experiment, ...]:
    """The experiments of `[[experiments]]`, each valid by itself and together with the others."""
    if isinstance(items, list):
        items = [respelled(each) for each in items]
    written = listed("experiments", items, PublicExperiment, _check_experiment, mistakes)
    experiments = tuple(map(stored, written))
    for i, spec in enumerate(experiments):
        try:
            checks.check_beside(spec, {one.id: one for one in experiments[:i]})
        except Refused as refused:
            mistakes.append(f"experiments[{i}].{refused.message}")
    return experiments


def arms_of(items: Any, mistakes: list[str]) -> tuple[ArmSpec, ...]:
    """The arms of `[[arms]]`, or those that are offered where none is named."""
    if items is None:
        return DEFAULT_ARMS
    if not isinstance(items, list):
        mistakes.append(f"arms: must be a list of tables, got {type(items).__name__}")
        return ()
    arms: list[ArmSpec] = []
    for i, item in enumerate(items):
        try:
            arm = arm_spec(item)
        except Mistakes as error:
            mistakes += [f"arms[{i}].{each}" for each in error.each]
            continue
        try:
            check_callable(arm)
        except ValueError as error:
            mistakes.append(f"arms[{i}].{error}")
        if arm.id in {other.id for other in arms}:
            mistakes.append(f"arms[{i}].id: duplicate id {arm.id!r}")
        arms.append(arm)
    return tuple(arms)


def keys_of_file(
    document: dict[str, Any], path: Path, mistakes: list[str], known: tuple[ApiKey, ...]
) -> tuple[ApiKey, ...]:
    """The keys of a keys_file, which has nothing else: a misspelt table must not mean no key."""
    mistakes += [
        f"{path}: {name}: no such name{did_you_mean(name, ['keys'])}; it has [[keys]] only"
        for name in document
        if name != "keys"
    ]
    return keys_of(document.get("keys", []), f"{path}: ", mistakes, known)


def keys_of(
    items: Any, where: str, mistakes: list[str], known: tuple[ApiKey, ...] = ()
) -> tuple[ApiKey, ...]:
    """The keys of `[[keys]]`, none of them there twice, nor among those known before."""
    if not isinstance(items, list):
        mistakes.append(f"{where}keys: must be a list of tables, got {type(items).__name__}")
        return ()
    keys: list[ApiKey] = []
    for i, item in enumerate(items):
        key, wrong = every_mistake(item, ApiKey, check_key)
        mistakes += [f"{where}keys[{i}].{each}" for each in wrong]
        if key is None:
            continue
        for other in (*known, *keys):
            if key.id == other.id:
                mistakes.append(f"{where}keys[{i}].id: duplicate id {key.id!r}")
            elif key.hash == other.hash:
                mistakes.append(f"{where}keys[{i}].hash: is that of {other.id!r} too")
        keys.append(key)
    return tuple(keys)


class _StrictRequest(ArmRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _StrictDeployment(Deployment, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _StrictArm(ArmSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    request: _StrictRequest = _StrictRequest()
    deployments: Annotated[
        tuple[_StrictDeployment, ...],
        Meta(extra_json_schema=stated(ArmSpec)["deployments"]),
    ] = ()


def arm_spec(item: Any) -> ArmSpec:
    """The arm that a table describes; `Mistakes` has every one that there is."""
    strict, wrong = every_mistake(item, _StrictArm, _check_arm)
    if strict is None:
        raise Mistakes(wrong)
    fields = {name: getattr(strict, name) for name in ArmSpec.__struct_fields__}
    asked = {name: getattr(strict.request, name) for name in ArmRequest.__struct_fields__}
    request = ArmRequest(**asked)
    fields["request"] = NOTHING if request == NOTHING else request
    names = Deployment.__struct_fields__
    fields["deployments"] = tuple(
        Deployment(**{name: getattr(each, name) for name in names}) for each in strict.deployments
    )
    return ArmSpec(**fields)


def _check_arm(strict: ArmSpec) -> None:
    check_stated(strict)
    try:
        check_stated(strict.request)
        check_request(strict.request)
    except ValueError as error:
        raise ValueError(f"request.{error}") from None
    for i, each in enumerate(strict.deployments):
        try:
            check_stated(each)
        except ValueError as error:
            raise ValueError(f"deployments[{i}].{error}") from None
    if wrong := misdeployed(strict):
        raise ValueError(wrong)
    if wrong := misconfigured(strict):
        raise ValueError(wrong)
    if strict.id in (".", ".."):  # which no client can put into a path
        raise ValueError(f"id: must not be {strict.id!r}")


def check_callable(arm: ArmSpec) -> None:
    """ValueError where no client of the gateway could name the arm as its model."""
    if "?" in arm.id or arm.id.partition(":")[0] == AUTO:
        raise ValueError(
            "id: must not be 'auto', nor begin with 'auto:', nor have a '?' in it: as a model that "
            f"means any arm, or preferences; got {arm.id!r}"
        )


def check_upstream_of(named: str, upstreams: Collection[str]) -> None:
    """ValueError where an arm names an upstream that there is not."""
    if named and named not in upstreams:
        there_are = f"expected one of {', '.join(upstreams)}" if upstreams else "none is configured"
        meant = did_you_mean(named, upstreams)
        raise ValueError(f"upstream: there is no [[upstreams]] {named!r}{meant}; {there_are}")


def check_served(arm: ArmSpec, upstreams: Mapping[str, str]) -> None:
    """ValueError where what serves an arm is not there, or cannot be asked what the arm asks.

    upstreams: kind by id.
    """
    check_upstream_of(arm.upstream, upstreams)
    check_sayable(arm, upstreams)
    for i, each in enumerate(arm.deployments):
        try:
            check_upstream_of(each.upstream, upstreams)
        except ValueError as error:
            raise ValueError(f"deployments[{i}].{error}") from None


def check_sayable(arm: ArmSpec, upstreams: Mapping[str, str]) -> None:
    """ValueError where an arm's request cannot be said to its upstreams. upstreams: kind by id."""
    kinds = [upstreams.get(each, "openai") for each in upstreams_of(arm)] or ["openai"]
    if wrong := unsayable(arm.request, kinds[0]):
        raise ValueError(f"request.{wrong}")
    for i, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise ValueError(
                f"deployments[{i}].upstream: is of kind {kind!r}, and that of deployments[0] of "
                f"kind {kinds[0]!r}; the deployments of an arm must be of one kind"
            )


def check_policy(name: str, parameters: dict[str, Any], mistakes: list[str]) -> None:
    """Whether there is a policy of this name that takes these parameters."""
    left = dict(parameters)
    while True:
        try:
            policies.load(name, **left)
            return
        except (ValueError, TypeError) as error:
            said = str(error).removeprefix("policy: ")
            wrong = said.partition(":")[0]
            if not policies.exists(name):
                mistakes.append(f"policy.name: {said}")
            else:
                mistakes.append(f"policy.parameters{'.' if ':' in said else ': '}{said}")
            if wrong not in left:
                return
            del left[wrong]
