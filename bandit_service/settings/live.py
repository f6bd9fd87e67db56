"""The sections that can be changed at run time: written as plain entries, and read back.

They are read by the same parsers and checked by the same checks as the file, together with all that
cannot be changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from bandit_service.core.configuration import KEYS, SECTIONS, SETTINGS, digests
from bandit_service.core.deployments import upstreams_of
from bandit_service.core.events import ArmSpec
from bandit_service.core.fields import check_stated
from bandit_service.settings import tables
from bandit_service.settings.budgets import BudgetSpec
from bandit_service.settings.derived import exposure
from bandit_service.settings.judges import JudgeSpec, check_judge
from bandit_service.settings.literal_secrets import NAMED, is_secret, literal_secrets, without_user
from bandit_service.settings.live_values import (
    RELOADED,
    at_a_start,
    live_values,
    value_of,
    with_values,
)
from bandit_service.settings.metrics import metrics_of
from bandit_service.settings.reading import BadSettings, check_references, environment
from bandit_service.settings.routes import routes_of
from bandit_service.settings.sections.learning import PolicySettings
from bandit_service.settings.upstreams import listed
from bandit_service.settings.upstreams import upstreams_of as read_upstreams
from bandit_service.settings.whole import Settings, rules

RESTART, RELOAD = "restart", "reload"
"""What takes a setting that no section has."""
HIDDEN = "(hidden)"
"""In the place of a value that may be a secret."""
_ENTRY = re.compile(r"(\w+)\[(\d+)\]\.")
_PLACE = re.compile(r"arms\[(\d+)\]")


def sections_of(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Every section as plain entries, without what is by default."""
    records: dict[str, Sequence[msgspec.Struct]] = {
        "upstreams": [each.spec for each in settings.upstreams],
        "budgets": settings.budgets,
        "judges": settings.judges,
        "routes": settings.routes,
        "metrics": settings.metrics,
        "policies": [_beside_of(each) for each in settings.policies],
        KEYS: settings.keys,
    }
    plain = {name: [_plain(each) for each in of] for name, of in records.items()}
    return {name: live_values(settings) if name == SETTINGS else plain[name] for name in SECTIONS}


def content_of(settings: Settings) -> str:
    """A digest of what a file says that the log keeps: the same for all processes of a log. API
    keys are left out, which have revisions of their own, and the level of one process' logs.
    """
    sections = {name: each for name, each in sections_of(settings).items() if name != KEYS}
    sections[SETTINGS] = [each for each in sections[SETTINGS] if each["name"] != "log_level"]
    defaults = rules()
    single = {key: value_of(settings, key) for key in RELOADED if key != "revision"}
    said = (
        [_plain(each) for each in settings.arms],
        [_plain(each) for each in settings.experiments],
        {key: value for key, value in single.items() if value != defaults[key][0]},
        sections,
    )
    return blake2b(msgspec.json.encode(said, order="sorted"), digest_size=8).hexdigest()


def with_sections(
    settings: Settings,
    sections: Mapping[str, Any],
    arms: Collection[ArmSpec],
    environ: Mapping[str, str] | None = None,
    *,
    taken: Mapping[str, Any] | None = None,
    anew: bool = False,
) -> Settings:
    """The settings with these sections in the place of theirs. BadSettings with every mistake.

    An entry that is not changed is no reason to refuse, though it may not be right any more: so a
    key can be revoked while a budget names it, or while the file of another secret is gone. arms:
    those that there are, which the API may have added. taken: entries that were taken before,
    beside those of the settings. anew: read the secrets of providers again, also where the entries
    are the same.
    """
    environ = environment() if environ is None else environ
    before = sections_of(settings)
    given = before | dict(sections)
    policy = {"policy.name": settings.policy.name, "policy.parameters": settings.policy.parameters}
    mistakes: list[str] = []
    read: dict[str, Callable[[Any], Any]] = {
        "upstreams": lambda of: read_upstreams(of, environ, settings.file, mistakes),
        "budgets": lambda of: listed("budgets", of, BudgetSpec, check_stated, mistakes),
        "judges": lambda of: listed("judges", of, JudgeSpec, check_judge, mistakes),
        "routes": lambda of: routes_of(of, policy, mistakes),
        "metrics": lambda of: metrics_of(of, mistakes),
        "policies": lambda of: tables.policies_beside(of, settings.policy.name, mistakes),
        KEYS: lambda of: tables.keys_of(of, "", mistakes),
    }
    changed = replace(
        settings,
        **{
            name: read[name](given[name])
            for name in read
            if not _same(given[name], before[name]) or (anew and name == "upstreams")
        },
    )
    if not _same(given[SETTINGS], before[SETTINGS]):
        changed = with_values(changed, given[SETTINGS], mistakes)
    in_force = [each.spec for each in settings.upstreams]
    asked = [each.spec for each in changed.upstreams if each.spec not in in_force]
    mistakes += [*literal_secrets(in_force, settings.file), *literal_secrets(asked)]
    served = {each.spec.id for each in settings.upstreams}
    known = set(_beside(settings, before, arms, served))
    mistakes += [
        each
        for each in _beside(changed, given, arms, served)
        if each not in known and not _is_of(each, given, before, taken or {})
    ]
    if mistakes:
        raise BadSettings(list(dict.fromkeys(mistakes)))
    return changed


def _same(one: Any, other: Any) -> bool:
    """Whether they are equal. To Python true equals 1, which is a mistake that must be told."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _is_of(
    mistake: str, given: Mapping[str, Any], before: Mapping[str, Any], taken: Mapping[str, Any]
) -> bool:
    """Whether a mistake is of an entry that is there already."""
    at = _ENTRY.match(mistake)
    if at is None or at[1] not in given:
        return False
    entry = given[at[1]][int(at[2])]
    return entry in before[at[1]] or entry in taken.get(at[1], ())


def _beside(
    settings: Settings, given: Mapping[str, Any], arms: Collection[ArmSpec], served: Collection[str]
) -> list[str]:
    """What is wrong between the sections, and between them and the rest.

    served: upstreams, without any of which an arm had none before; that is no reason to refuse.
    """
    wrong: list[str] = []
    there = [
        msgspec.to_builtins(arm) if set(upstreams_of(arm)) <= set(served) else {"id": arm.id}
        for arm in arms
    ]
    found = {name: getattr(settings, name) for name in SECTIONS if name != SETTINGS} | {
        "arms": tuple(arms)
    }
    given = {**given, "arms": there}
    check_references(settings.duels.judge, given, found, settings.implicit, wrong)
    wrong = [_PLACE.sub(lambda at: f"arms.{there[int(at[1])]['id']}", each) for each in wrong]
    if refused := exposure(settings):
        wrong.append(refused)
    return wrong


def beside_sections(settings: Settings) -> dict[str, Any]:
    """What the file says and no section has: `values`, each with where it is from and what takes
    it; and digests of the `tables`. Both are taken at a restart, or when the file is read again.
    """
    known = rules()
    values = [
        {"name": key, "value": value, "origin": settings.origins.get(key, ""), "taken_by": by}
        for by, keys in ((RESTART, at_a_start()), (RELOAD, RELOADED))
        for key in keys
        if (value := _as_json(value_of(settings, key))) != _as_json(known[key][0])
    ]
    tables_of = {"arms": settings.arms, "experiments": settings.experiments}
    plain = {name: [_plain(each) for each in of] for name, of in tables_of.items()}
    return {"values": values, "tables": digests(plain)}


def shown(sections: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The sections as they may be told: without keys, and without what may be a secret."""
    told = {name: [dict(each) for each in sections[name]] for name in SECTIONS if name != KEYS}
    for entry in told["upstreams"]:
        header = entry.get("auth_header", "")
        entry["base_url"] = without_user(entry["base_url"], HIDDEN)
        for field in NAMED & set(entry):
            entry[field] = {
                name: HIDDEN if is_secret(name, header) else value
                for name, value in entry[field].items()
            }
    return told


def foreign_secrets(upstreams: Any, file: Settings) -> list[str]:
    """Secrets that an upstream may not be given at run time: of the service itself, and files from
    where the file of the configuration has none, which may be anything. upstreams: entries that
    nobody has checked yet, since the check reads the files.
    """
    beside = Path() if file.file is None else file.file.parent
    named = [each.spec.key_file for each in file.upstreams if each.spec.key_file]
    allowed = {(beside / each).resolve().parent for each in named}
    allowed |= set() if file.file is None else {beside.resolve()}
    own = {file.log.dsn_env, file.feedback.secret_env} - {""}
    written = (file.log.dsn_file, file.security.keys_file, file.server.tls_key)
    own_files = {(beside / each).resolve() for each in written if each}
    own_files |= set() if file.file is None else {file.file.resolve()}
    data = Path(file.data_dir).resolve()
    wrong = []
    for entry in upstreams if isinstance(upstreams, list) else ():
        given = entry if isinstance(entry, dict) else {}
        place, key_env, key_file = (given.get(name) for name in ("id", "key_env", "key_file"))
        if key_env in own:
            wrong.append(f"upstreams.{place}.key_env: {key_env} is a secret of the service")
        if not key_file or not isinstance(key_file, str):
            continue
        path = _resolved(beside / key_file)
        if path is not None and (path in own_files or data in path.parents):
            wrong.append(f"upstreams.{place}.key_file: is a file of the service itself")
        elif path is None or path.parent not in allowed:
            there = ", ".join(sorted(map(str, allowed))) or "none"
            wrong.append(
                f"upstreams.{place}.key_file: must be beside the configuration file or a key "
                f"file that it names ({there})"
            )
    return wrong


def _resolved(file: Path) -> Path | None:
    """Where a file really is; None for a path that leads nowhere."""
    try:
        return file.resolve()
    except (OSError, ValueError, RuntimeError):  # a NUL in it, or links in a circle
        return None


def _beside_of(policy: PolicySettings) -> tables.BesideSpec:
    return tables.BesideSpec(name=policy.name, parameters=policy.parameters)


def _plain(record: msgspec.Struct) -> dict[str, Any]:
    """Its fields as JSON has them, without those that are as by default: so that a field that a
    newer release adds changes nothing.
    """
    defaults = _defaults(type(record))
    written: dict[str, Any] = _as_json(record)
    return {
        name: value
        for name, value in written.items()
        if name not in defaults or value != defaults[name]
    }


@cache
def _defaults(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """By field, as JSON has it; without those that have none."""
    found = {}
    for each in msgspec.structs.fields(kind):
        if each.default is not msgspec.NODEFAULT:
            found[each.name] = _as_json(each.default)
        elif each.default_factory is not msgspec.NODEFAULT:
            found[each.name] = _as_json(each.default_factory())
    return found


def _as_json(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))
