"""Values derived from settings: the policy that they name, and where it is safe to listen."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import policies
from bandit_service.core.experiments.spec import Rules
from bandit_service.core.exploration import Exploration
from bandit_service.parsing.suggestions import did_you_mean
from bandit_service.settings.sections.learning import (
    ExperimentSettings,
    ExplorationSettings,
    PolicySettings,
)
from bandit_service.settings.whole import Settings


def load_policy(settings: PolicySettings) -> policies.Policy[Any]:
    """The policy that the settings name."""
    return policies.load(settings.name, **settings.parameters)


def policy_key(name: str, parameters: Mapping[str, Any]) -> str:
    """The name with a hash of its parameters: two that differ in either have different keys."""
    canonical = json.dumps(parameters, sort_keys=True, default=str).encode()
    return f"{name}:{blake2b(canonical, digest_size=6).hexdigest()}"


def exploration(settings: ExplorationSettings) -> Exploration:
    """The floor, and the seed of all chance, as the configuration names them."""
    return Exploration(settings.seed, settings.share, settings.floor, settings.floor_share)


def experiment_rules(settings: ExperimentSettings) -> Rules:
    """The kill switch and the hold-out as the configuration names them."""
    return Rules(
        stopped=settings.stopped,
        holdout_share=settings.holdout_share,
        holdout_arm=settings.holdout_arm,
        unit=settings.unit,
        salt=settings.salt,
    )


def exposure(settings: Settings) -> str:
    """Why the service must not listen at the configured address; empty if it may."""
    server = settings.server
    if bool(server.tls_cert) != bool(server.tls_key):
        return "server.tls_cert: must be set together with server.tls_key"
    if server.tls_client_ca and not server.tls_cert:
        return "server.tls_client_ca: needs server.tls_cert and server.tls_key"
    if _is_loopback(server.host):
        return ""
    keyless = settings.security.keys_file and settings.origins["keys"].startswith("default and ")
    if server.insecure and keyless and not settings.keys:
        return (
            f"security.keys_file: {settings.security.keys_file} has no [[keys]], and server.host "
            f"{server.host!r} is reached from other machines, which could do everything; add a key "
            "(`bandit-service keys new`), or say keys = [] beside [security], or BANDIT_KEYS=[], "
            "where that is meant"
        )
    if server.insecure:
        return ""
    missing = [
        what
        for what, there in (("keys ([[keys]])", settings.keys), ("TLS", server.tls_cert))
        if not there
    ]
    if not missing:
        return ""
    return (
        f"server.host: {server.host!r} is reached from other machines, and there is no "
        f"{' and no '.join(missing)}; set them, or server.insecure = true where something in "
        "front does it"
    )


def not_configured(settings: Settings) -> list[str]:
    """Arms that are named and not configured, which is right only where the API adds them."""
    there = {arm.id for arm in settings.arms}
    named = [(f"judges[{i}].arm", judge.arm) for i, judge in enumerate(settings.judges)]
    named.append(("experiment_rules.holdout_arm", settings.experiment_rules.holdout_arm))
    named.append(("policy.parameters.arm", _fixed_arm(settings.policy.parameters)))
    for i, route in enumerate(settings.routes):
        named.append((f"routes[{i}].parameters.arm", _fixed_arm(route.parameters)))
        named.append((f"routes[{i}].holdout_arm", route.holdout_arm))
    for i, experiment in enumerate(settings.experiments):
        named += [
            (
                f"experiments[{i}].variants.{variant.key}.parameters.arm",
                _fixed_arm(variant.parameters),
            )
            for variant in experiment.variants
        ]
        named += [
            (f"experiments[{i}].variants.{variant.key}.arm", variant.arm)
            for variant in experiment.variants
        ]
    return [
        f"{where}: {arm!r} is no configured arm{did_you_mean(arm, there)}; it does nothing until "
        "the API adds such an arm"
        for where, arm in named
        if arm and arm not in there
    ]


def _fixed_arm(parameters: Mapping[str, object]) -> str:
    """The arm that a policy names, as `fixed` does; "" if it names none."""
    arm = parameters.get("arm", "")
    return arm if isinstance(arm, str) else ""


def following(settings: Settings) -> list[str]:
    """Routes that decide by the configured policy, which may be so since they name none."""
    return [
        f"routes[{i}].policy: {route.id!r} decides by the policy of [policy]; where it names none "
        "itself, another policy or other parameters of [policy] begin it anew with nothing learned"
        for i, route in enumerate(settings.routes)
        if PolicySettings(route.policy, route.parameters) == settings.policy
    ]


def cut_off(settings: Settings) -> list[str]:
    """Upstreams whose calls the limit of a request ends before their own does."""
    most_s = settings.gateway.request_s
    return [
        f"upstreams[{i}].total_s: no call of {each.spec.id!r} gets {each.spec.total_s:g} s, since "
        f"a whole request may take {most_s:g} s (gateway.request_s)"
        for i, each in enumerate(settings.upstreams)
        if each.spec.total_s > most_s
    ]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
