"""Single settings that can be changed at run time, as the section `settings`."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from bandit_service.parsing.suggestions import did_you_mean
from bandit_service.settings.reading import FLOOR_OR_SHARE, checked
from bandit_service.settings.upstreams import listed
from bandit_service.settings.whole import Settings, rules

LIVE = (
    "log_level",
    "exploration.share",
    "history.neighbours",
    "reward.willingness_to_pay",
    "reward.latency_weight",
    "reward.ttl_s",
    "reward.session_credit",
    "reward.session_discount",
    "reward.on_expiry",
    "reward.default",
    "reward.max_pending",
    "embedding.timeout_s",
    "server.max_arms",
    "server.max_query_chars",
    "duels.share",
    "duels.judge",
    "duels.keep_s",
)
"""Those of the section `settings`."""
RELOADED = (
    "revision",
    "policy.name",
    "policy.parameters",
    "experiment_rules.stopped",
    "experiment_rules.holdout_share",
    "experiment_rules.holdout_arm",
    "experiment_rules.unit",
    "experiment_rules.salt",
    "experiment_rules.steer_s",
)
"""Those that have events or a path of their own, and are taken when the file is read again."""


SECRETS_AT_A_START = ("dsn", "feedback_secrets", "texts_keys")
"""What takes a restart, too, and is not shown."""


class LiveSetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One setting that is not as by default."""

    name: str
    value: Any


def at_a_start() -> list[str]:
    """The settings that take a restart."""
    return [key for key in rules() if key not in LIVE + RELOADED]


def read_again(started: Settings, file: Settings) -> Settings:
    """The settings of a file that was read again, with those that take a restart as they were."""
    for key in at_a_start():
        file = _with(file, key, value_of(started, key))
    secrets = {name: getattr(started, name) for name in SECRETS_AT_A_START}
    return dataclasses.replace(file, pools=started.pools, **secrets)


def value_of(settings: Settings, key: str) -> Any:
    """The value of one setting, such as `reward.ttl_s`."""
    found: Any = settings
    for part in key.split("."):
        found = getattr(found, part)
    return found


def live_values(settings: Settings) -> list[dict[str, Any]]:
    """Those that can be changed at run time and are not as by default."""
    known = rules()
    values = ((key, value_of(settings, key)) for key in LIVE)
    return [{"name": key, "value": value} for key, value in values if value != known[key][0]]


def with_values(settings: Settings, entries: Any, mistakes: list[str]) -> Settings:
    """The settings with these values; those that are not named are as by default."""
    given = listed("settings", entries, LiveSetting, _check, mistakes)
    for i, one in enumerate(given):
        if one.name in [each.name for each in given[:i]]:
            mistakes.append(f"settings[{i}].name: duplicate name {one.name!r}")
        if one.name == "exploration.share" and settings.exploration.floor is not None:
            mistakes.append(f"settings[{i}].name: {FLOOR_OR_SHARE}")
    known, values = rules(), {one.name: one.value for one in given}
    for key in LIVE:
        default, rule = known[key]
        value = checked(key, values[key], default, rule, []) if key in values else default
        settings = _with(settings, key, value)
    return settings


def _check(one: LiveSetting) -> None:
    known = rules()
    if one.name not in LIVE:
        why = "takes a restart" if one.name in known else "is no such setting"
        meant = did_you_mean(one.name, LIVE)
        raise ValueError(f"name: {one.name!r} {why}; expected one of {', '.join(LIVE)}{meant}")
    wrong: list[str] = []
    default, rule = known[one.name]
    checked("value", one.value, default, rule, wrong)
    if wrong:
        raise ValueError(f"{wrong[0]} ({one.name})")


def _with(settings: Settings, key: str, value: Any) -> Settings:
    section, _, name = key.rpartition(".")
    if not section:
        return dataclasses.replace(settings, **{name: value})
    inner = dataclasses.replace(getattr(settings, section), **{name: value})
    return dataclasses.replace(settings, **{section: inner})
