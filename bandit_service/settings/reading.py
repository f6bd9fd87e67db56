"""From a file and the environment to settings, or to every mistake at once."""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import policies
from bandit_service.core.feedback import MIN_SECRET
from bandit_service.core.fields import check_stated
from bandit_service.parsing.hosts import check_host, check_origin
from bandit_service.parsing.inputs import TOO_LONG, long_in, text_of
from bandit_service.parsing.suggestions import did_you_mean
from bandit_service.settings import shared, tables, texts
from bandit_service.settings.arms_and_judges import arm_and_judge_mistakes
from bandit_service.settings.budgets import BudgetSpec
from bandit_service.settings.judges import JudgeSpec, check_judge
from bandit_service.settings.metrics import all_metrics, metrics_of
from bandit_service.settings.pools import pools_of
from bandit_service.settings.routes import (
    route_mistakes,
    routeless,
    routes_of,
    unknown_routes,
    unknown_weights,
)
from bandit_service.settings.rule import Rule
from bandit_service.settings.secret_sources import of_variable
from bandit_service.settings.sections.learning import ImplicitSettings
from bandit_service.settings.upstreams import listed, upstreams_of
from bandit_service.settings.whole import Settings, assembled, rules

PREFIX = "BANDIT_"
URL, KEY = f"{PREFIX}URL", f"{PREFIX}KEY"
"""Which service commands and clients ask, and with which key; no settings of a service."""
DEFAULT_URL = "http://127.0.0.1:8080"
_LINK = re.compile(
    rf"{PREFIX}SERVICE_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)
"""Variables that Kubernetes sets in each pod next to a Service of our name (enableServiceLinks)."""

_OLD_FLOOR = 0.01
"""What exploration.floor was where a file set its bound alone, and is there."""

TABLES = (
    "arms",
    "keys",
    "policies",
    "routes",
    "metrics",
    "upstreams",
    "budgets",
    "judges",
    "experiments",
    "pools",
)


class BadSettings(Exception):
    """The configuration as a whole is refused; `mistakes` has a sentence for each."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def environment() -> Mapping[str, str]:
    """The variables of this process."""
    return os.environ  # noqa: TID251 - the one place


def read(
    path: Path | None = None, environ: Mapping[str, str] | None = None, *, secrets: bool = True
) -> Settings:
    """The settings of the file and the environment; BadSettings with every mistake at once.

    secrets: read those that it refers to. Without them no service can run, but the file can be
    compared with one that runs elsewhere.
    """
    environ = environment() if environ is None else environ
    mistakes: list[str] = []
    document = _document(path, mistakes)
    overrides = {
        key: value
        for key, value in environ.items()
        if key.startswith(PREFIX)
        and key not in (f"{PREFIX}CONFIG", URL, KEY)
        and not _LINK.fullmatch(key)
    }
    known = rules()
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    flat = _flatten(document, known, mistakes)
    for key, (default, rule) in known.items():
        variable = PREFIX + key.replace(".", "_").upper()
        if variable in overrides:
            values[key], origins[key] = _from_text(overrides.pop(variable), default), variable
        elif key in flat:
            values[key], origins[key] = flat[key], str(path)
        else:
            values[key], origins[key] = default, "default"
        values[key] = checked(key, values[key], default, rule, mistakes)
    given: dict[str, Any] = {name: [] for name in TABLES} | {"arms": None}
    for name in TABLES:
        variable = PREFIX + name.upper()
        if variable in overrides:
            given[name] = _json(variable, overrides.pop(variable), mistakes)
            origins[name] = variable
        else:
            given[name] = document.get(name, given[name])
            origins[name] = str(path) if name in document else "default"
        if (at := long_in(given[name], name)) is not None:
            mistakes.append(f"{at}: {TOO_LONG}")
            given[name] = None if name == "arms" else []
    keys = tables.keys_of(given["keys"], "", mistakes)
    if (file := values["security.keys_file"]) and secrets:
        more = Path(file) if path is None else path.parent / file
        keys += tables.keys_of_file(_document(more, mistakes), more, mistakes, keys)
        origins["keys"] += f" and {more}"
    variables = [PREFIX + key.replace(".", "_").upper() for key in (*known, *TABLES)]
    mistakes += [
        f"{name}: no such setting{did_you_mean(name, variables)}; `bandit-service config show` "
        "lists them all"
        for name in sorted(overrides)
    ]
    _add_policies(values["policies_dir"], path, mistakes)
    tables.check_policy(values["policy.name"], values["policy.parameters"], mistakes)
    found: dict[str, Any] = {
        "file": path,
        "arms": tables.arms_of(given["arms"], mistakes),
        "keys": keys,
        "policies": tables.policies_beside(given["policies"], values["policy.name"], mistakes),
        "routes": routes_of(given["routes"], values, mistakes),
        "metrics": metrics_of(given["metrics"], mistakes),
        "upstreams": upstreams_of(given["upstreams"], environ, path, mistakes, secrets=secrets),
        "budgets": listed("budgets", given["budgets"], BudgetSpec, check_stated, mistakes),
        "judges": listed("judges", given["judges"], JudgeSpec, check_judge, mistakes),
        "experiments": tables.experiments_of(given["experiments"], mistakes),
        "pools": pools_of(given["pools"], values, environ, path, mistakes, secrets=secrets),
        "dsn": shared.dsn_of(values, environ, path, mistakes) if secrets else "",
        "feedback_secrets": _secrets(
            values["feedback.secret_env"] if secrets else "", environ, mistakes
        ),
        "texts_keys": texts.keys_of(values, environ, path, mistakes) if secrets else (),
    }
    mistakes += routeless(found["experiments"], found["routes"])
    mistakes += texts.redaction_mistakes(values)
    mistakes += shared.of_retention(values)
    mistakes += shared.of_jetstream(values)
    _settle_floor(values, origins, mistakes)
    _check_rules(values, mistakes)
    _check_tracing(values["tracing.endpoint"], mistakes)
    implicit = (values[f"implicit.{name}"] for name in ("retry", "regenerate", "edit"))
    judge = values["duels.judge"]
    check_references(judge, given, found, ImplicitSettings(*implicit), mistakes)
    for key, check in (("allowed_hosts", check_host), ("allowed_origins", check_origin)):
        wrong = (check(one) for one in values[f"server.{key}"])
        mistakes += [f"server.{key}: {each}" for each in wrong if each]
    if mistakes:
        raise BadSettings(mistakes)
    return assembled(values, found, origins)


def service_asked(environ: Mapping[str, str] | None = None) -> tuple[str, str]:
    """The URL and the key of the service that a command asks where it is told neither."""
    environ = environment() if environ is None else environ
    return environ.get(URL) or DEFAULT_URL, environ.get(KEY, "")


def _secrets(variable: str, environ: Mapping[str, str], mistakes: list[str]) -> tuple[str, ...]:
    """The secrets of feedback tokens that a variable has; no message has any part of one."""
    if not variable:
        return ()
    try:
        found = tuple(of_variable("feedback.secret_env", variable, environ).split())
    except ValueError as error:
        mistakes.append(str(error))
        return ()
    for i, one in enumerate(found, 1):
        if len(one.encode(errors="surrogateescape")) < MIN_SECRET:
            mistakes.append(
                f"feedback.secret_env: secret {i} of {variable} must have at least {MIN_SECRET} "
                f"characters, got {len(one)}"
            )
    return found


def variables_there(names: Iterable[str], environ: Mapping[str, str] | None = None) -> list[str]:
    """Which of these variables have a value; none of the values is given."""
    environ = environment() if environ is None else environ
    return [name for name in names if environ.get(name, "").strip()]


def _add_policies(directory: str, beside: Path | None, mistakes: list[str]) -> None:
    """Make the files of `directory`, relative to the configuration's, policies of this process."""
    if not directory:
        return
    path = (Path() if beside is None else beside.parent) / directory
    if not path.is_dir():
        mistakes.append(f"policies_dir: there is no directory {path}")
        return
    try:
        policies.add_directory(str(path.resolve()))
    except ValueError as error:
        mistakes.append(f"policies_dir: {error}")


def _check_rules(values: Mapping[str, Any], mistakes: list[str]) -> None:
    if values["experiment_rules.holdout_share"] and not values["experiment_rules.holdout_arm"]:
        mistakes.append("experiment_rules.holdout_arm: name the arm that held-out units get")


def check_references(
    judge: str,
    given: Mapping[str, Any],
    found: Mapping[str, Any],
    implicit: ImplicitSettings,
    mistakes: list[str],
) -> None:
    """A name of something that is configured must be there, be it right or not.

    judge: of duels. given: the tables as they were written. found: what they were read to.
    """
    judges, upstreams, keys = (_ids(given[name]) for name in ("judges", "upstreams", "keys"))
    if judge and judge not in judges:
        mistakes.append(
            f"duels.judge: there is no [[judges]] with id {judge!r}{did_you_mean(judge, judges)}"
        )
    place = {item.get("id"): i for i, item in enumerate(_tables(given["arms"]))}
    for where, item in _called(given["arms"]):
        named = item.get("upstream")
        if named and isinstance(named, str):
            try:
                tables.check_upstream_of(named, upstreams)
            except ValueError as error:
                mistakes.append(f"{where}.{error}")
    kinds = {each.spec.id: each.spec.kind for each in found["upstreams"]}
    for arm in found["arms"]:
        try:
            tables.check_sayable(arm, kinds)
        except ValueError as error:
            mistakes.append(f"arms[{place[arm.id]}].{error}")
    mistakes += arm_and_judge_mistakes(found["arms"], found["judges"])
    mistakes += route_mistakes(found["routes"], found["arms"])
    mistakes += unknown_routes(found["routes"], found["judges"])
    metrics = [each.name for each in all_metrics(found["metrics"], implicit)]
    mistakes += unknown_weights(found["routes"], metrics)
    keys += [key.id for key in found["keys"]]
    named = {"key": keys, "route": [route.id for route in found["routes"]]}
    for i, item in enumerate(_tables(given["budgets"])):
        id, scope = item.get("id", "*"), str(item.get("scope"))
        there = named.get(scope)
        if there is not None and isinstance(id, str) and id not in ("*", *there):
            mistakes.append(
                f"budgets[{i}].id: there is no [[{scope}s]] with id {id!r}{did_you_mean(id, there)}"
            )


def _called(arms: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every place where an arm is called, its own and its deployments', with its position in the
    file.
    """
    for i, arm in enumerate(_tables(arms)):
        yield f"arms[{i}]", arm
        for k, each in enumerate(_tables(arm.get("deployments"))):
            yield f"arms[{i}].deployments[{k}]", each


def _tables(items: Any) -> list[dict[str, Any]]:
    """The tables of a list that may be anything; others as empty ones, so that numbers stay."""
    return (
        [each if isinstance(each, dict) else {} for each in items or ()]
        if isinstance(items, list)
        else []
    )


def _ids(items: Any) -> list[str]:
    return [each["id"] for each in _tables(items) if isinstance(each.get("id"), str)]


FLOOR_OR_SHARE = "set the share of all arms together, or the floor of each, not both"
_SHARE, _FLOOR, _MOST = "exploration.share", "exploration.floor", "exploration.floor_share"


def _settle_floor(values: dict[str, Any], origins: dict[str, str], mistakes: list[str]) -> None:
    """Only one of the two settings of the floor may be used;

    older files, from before it was a share, keep their meaning.
    """
    given = [key for key in (_FLOOR, _MOST) if origins[key] != "default"]
    if given and origins[_SHARE] != "default":
        mistakes.append(f"{_SHARE}: is in the place of {' and '.join(given)}; {FLOOR_OR_SHARE}")
    elif given == [_MOST]:
        values[_FLOOR], origins[_FLOOR] = _OLD_FLOOR, _MOST


def _check_tracing(endpoint: str, mistakes: list[str]) -> None:
    if endpoint and not endpoint.startswith(("http://", "https://")):
        mistakes.append(f"tracing.endpoint: must begin with http:// or https://, got {endpoint!r}")


def _json(variable: str, text: str, mistakes: list[str]) -> Any:
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except ValueError as error:  # also of a number of thousands of digits
        mistakes.append(f"{variable}: not JSON: {error}")
        return []


def _document(path: Path | None, mistakes: list[str]) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(text_of(path))
    except OSError as error:
        mistakes.append(f"{path}: cannot be read: {error.strerror or error}")
    except tomllib.TOMLDecodeError as error:
        mistakes.append(f"{path}: not TOML: {error}")
    except ValueError as error:
        mistakes.append(f"{path}: {error}")
    return {}


def _flatten(
    document: dict[str, Any], known: Mapping[str, Any], mistakes: list[str]
) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    sections = {key.split(".")[0] for key in known if "." in key}
    for name, value in document.items():
        if name in TABLES:
            continue
        if name in sections:
            if not isinstance(value, dict):
                mistakes.append(f"{name}: must be a table, got {value!r}")
                continue
            flat |= {f"{name}.{inner}": item for inner, item in value.items()}
        else:
            flat[name] = value
    mistakes.extend(
        f"{key}: no such setting{did_you_mean(key, (*known, *sections, *TABLES))}; "
        "`bandit-service config show` lists them all"
        for key in flat
        if key not in known
    )
    return flat


def _from_text(text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    if isinstance(default, tuple) and not text.lstrip().startswith("["):
        return [one.strip() for one in text.split(",") if one.strip()]
    if isinstance(default, bool):
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:  # also of a number of thousands of digits
        return text


def checked(key: str, value: Any, default: Any, rule: Rule, mistakes: list[str]) -> Any:
    """The value, or the default and one mistake more."""
    if value is None:  # by default only: neither TOML nor the environment can say so
        return None
    if (at := long_in(value, key)) is not None:
        mistakes.append(f"{at}: {TOO_LONG}")
        return default
    allowed = _allowed(default, rule)
    kind = _kind(default)
    if kind is float and type(value) is int:
        value = float(value)
    if kind is tuple and isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = tuple(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    wrong = (
        type(value) is not kind
        or (number and not math.isfinite(value))
        or (number and rule.low is not None and value < rule.low)
        or (number and rule.high is not None and value > rule.high)
        or (bool(rule.choices) and value not in rule.choices)
    )
    if wrong:
        meant = did_you_mean(value, rule.choices) if isinstance(value, str) else ""
        mistakes.append(f"{key}: must be {allowed}, got {value!r}{meant}")
        return default
    return value


def _kind(default: Any) -> type[Any]:
    return float if default is None else type(default)


def _allowed(default: Any, rule: Rule) -> str:
    if rule.choices:
        return "one of " + ", ".join(rule.choices)
    if isinstance(default, bool):
        return "true or false"
    word = {
        int: "a whole number",
        float: "a number",
        str: "a string",
        dict: "a table",
        tuple: "a list of strings",
    }[_kind(default)]
    low = "" if rule.low is None else f" from {rule.low:g}"
    high = "" if rule.high is None else f" to {rule.high:g}"
    return word + (low or (" up" if high else "")) + high
