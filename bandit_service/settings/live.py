"""The sections that can be changed at run time: written as plain entries, and read back.

They are read by the same parsers and checked by the same checks as the file, together with all that
cannot be changed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from bandit_service.core.configuration import KEYS, SECTIONS
from bandit_service.core.deployments import upstreams_of
from bandit_service.core.events import ArmSpec
from bandit_service.core.fields import check_stated
from bandit_service.settings import tables
from bandit_service.settings.budgets import BudgetSpec
from bandit_service.settings.derived import exposure
from bandit_service.settings.judges import JudgeSpec, check_judge
from bandit_service.settings.metrics import metrics_of
from bandit_service.settings.reading import BadSettings, check_references, environment
from bandit_service.settings.routes import routes_of
from bandit_service.settings.upstreams import UpstreamSpec, listed
from bandit_service.settings.upstreams import upstreams_of as read_upstreams
from bandit_service.settings.whole import Settings

_CREDENTIALS = frozenset(
    ["authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-goog-api-key"]
)
_PARAMETERS = frozenset(["key", "api_key", "api-key", "apikey", "token", "access_token", "sig"])
HIDDEN = "(hidden)"
"""In the place of a value that may be a secret."""
_PLACE = re.compile(r"arms\[(\d+)\]")


def sections_of(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Every section as plain entries, without what is by default."""
    records: dict[str, Sequence[msgspec.Struct]] = {
        "upstreams": [each.spec for each in settings.upstreams],
        "budgets": settings.budgets,
        "judges": settings.judges,
        "routes": settings.routes,
        "metrics": settings.metrics,
        KEYS: settings.keys,
    }
    return {name: [_plain(each) for each in records[name]] for name in SECTIONS}


def with_sections(
    settings: Settings,
    sections: Mapping[str, Any],
    arms: Collection[ArmSpec],
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings with these sections in the place of theirs. BadSettings with every mistake.

    arms: those that there are, which the API may have added. The secrets of providers are read
    anew, from where the entries say.
    """
    environ = environment() if environ is None else environ
    mistakes: list[str] = []
    given = dict(sections_of(settings)) | dict(sections)
    policy = {"policy.name": settings.policy.name, "policy.parameters": settings.policy.parameters}
    upstreams = read_upstreams(given["upstreams"], environ, settings.file, mistakes)
    mistakes += _literal(each.spec for each in upstreams)
    found: dict[str, Any] = {
        "upstreams": upstreams,
        "budgets": listed("budgets", given["budgets"], BudgetSpec, check_stated, mistakes),
        "judges": listed("judges", given["judges"], JudgeSpec, check_judge, mistakes),
        "routes": routes_of(given["routes"], policy, mistakes),
        "metrics": metrics_of(given["metrics"], mistakes),
        KEYS: tables.keys_of(given[KEYS], "", mistakes),
    }
    before = {each.spec.id for each in settings.upstreams}
    wrong: list[str] = []
    there = [  # one that nothing served before is no reason to refuse
        msgspec.to_builtins(arm) if before.issuperset(upstreams_of(arm)) else {"id": arm.id}
        for arm in arms
    ]
    check_references(
        settings.duels.judge, given | {"arms": there}, found | {"arms": tuple(arms)}, wrong
    )
    mistakes += [_PLACE.sub(lambda at: f"arms.{there[int(at[1])]['id']}", each) for each in wrong]
    changed = replace(settings, **found)
    if refused := exposure(changed):
        mistakes.append(refused)
    if mistakes:
        raise BadSettings(mistakes)
    return changed


def shown(sections: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The sections as they may be told: without keys, and without what may be a secret."""
    told = {name: [dict(each) for each in sections[name]] for name in SECTIONS if name != KEYS}
    for entry in told["upstreams"]:
        for field, names in _secret_fields(entry.get("auth_header", "")):
            if field in entry:
                entry[field] = {
                    name: HIDDEN if name.lower() in names else value
                    for name, value in entry[field].items()
                }
    return told


def _literal(upstreams: Iterable[UpstreamSpec]) -> list[str]:
    """Secrets that stand in an entry, and would be in the log."""
    return [
        f"upstreams.{spec.id}.{field}.{name}: a secret may not stand in the configuration; name "
        "the variable (key_env) or the file (key_file) that has it"
        for spec in upstreams
        for field, names in _secret_fields(spec.auth_header)
        for name in getattr(spec, field)
        if name.lower() in names
    ]


def _secret_fields(auth_header: str) -> tuple[tuple[str, frozenset[str]], ...]:
    return (("headers", _CREDENTIALS | {auth_header.lower()}), ("query", _PARAMETERS))


def _plain(record: msgspec.Struct) -> dict[str, Any]:
    """Its fields as JSON has them, without those that are as by default: so that a field that a
    newer release adds changes nothing.
    """
    written: dict[str, Any] = _as_json(record)
    for each in msgspec.structs.fields(type(record)):
        default = each.default
        if default is msgspec.NODEFAULT and each.default_factory is not msgspec.NODEFAULT:
            default = each.default_factory()
        if default is not msgspec.NODEFAULT and written.get(each.name) == _as_json(default):
            written.pop(each.name, None)
    return written


def _as_json(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))
