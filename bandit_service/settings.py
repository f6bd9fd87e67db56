"""Every setting, its default, what is allowed, and where its value came from.

One TOML file (none is needed), every key overridable by the environment: `[server] port` is
`BANDIT_SERVER_PORT`. The whole is checked at start: all mistakes at once, each with its key.
This module is the only reader of the environment.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import msgspec

import policies
from bandit_service.core import experiment_checks
from bandit_service.core.errors import Refused, field_of
from bandit_service.core.events import ArmSpec
from bandit_service.core.experiments import Experiment, Rules
from bandit_service.gateway.budgets import BudgetSpec, check_budget
from bandit_service.gateway.configured import Upstream, listed, upstreams_of
from bandit_service.gateway.judges import JudgeSpec, check_judge
from bandit_service.logs import FORMATS
from bandit_service.security import ApiKey, check_key

PREFIX = "BANDIT_"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a setting is for and which values it takes; bounds are inclusive."""

    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


def _setting(default: Any, help: str, **bounds: Any) -> Any:  # noqa: A002 - the word is right
    return field(default=default, metadata={"rule": Rule(help, **bounds)})


@dataclass(frozen=True, slots=True)
class Server:
    """Where the service listens, and how much one request may hold."""

    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(8080, "port to listen on; 0 takes a free one", low=0, high=65535)
    max_body_bytes: int = _setting(4_194_304, "largest request body", low=1024)
    max_frame_bytes: int = _setting(
        1_048_576,
        "largest stream message that is answered; four times as much ends the stream",
        low=1024,
    )
    max_query_chars: int = _setting(200_000, "longest query, all messages together", low=1)
    max_items: int = _setting(1000, "longest list of rewards or comparisons in one call", low=1)
    max_arms: int = _setting(
        1000, "arms that PUT /v1/arms may make, with those there are and were", low=1
    )
    max_in_flight: int = _setting(1024, "decides and outcomes under way before 429", low=1)
    target_s: float = _setting(
        0.05,
        "time in which decides are to be answered; as many are let in as can be, the others get "
        "429, outcomes only where they take ten times as long",
        low=0.001,
    )
    stream_credits: int = _setting(256, "requests in flight on one stream", low=1, high=65535)
    insecure: bool = _setting(
        False, "listen beyond this machine without keys and TLS: something in front has both"
    )
    tls_cert: str = _setting("", "certificate file (PEM, with its chain); makes it https")
    tls_key: str = _setting("", "private key file of tls_cert")
    tls_client_ca: str = _setting("", "file of the CAs whose client certificates are asked for")
    idle_s: float = _setting(
        75.0, "a connection that sends no whole request head for this long is closed", low=0.1
    )
    body_s: float = _setting(30.0, "after this a body that has not come in full is a 408", low=0.1)
    drain_s: float = _setting(
        0.0,
        "when stopping, how long readiness fails and new work gets 503 before the port is closed",
        low=0,
    )
    shutdown_s: float = _setting(10.0, "time for requests in flight when stopping", low=0)


@dataclass(frozen=True, slots=True)
class Embedding:
    """How a query becomes a vector."""

    backend: str = _setting("onnx", "what runs the model", choices=("onnx", "torch", "static"))
    model: str = _setting("all-MiniLM-L6-v2", "name of the model, or path of its directory")
    threads: int = _setting(1, "threads of one embedding call", low=1, high=256)
    batch_size: int = _setting(16, "most texts in one call of the model", low=1, high=1024)
    wait_s: float = _setting(0.0, "how long a batch waits for company", low=0, high=1)
    cache_size: int = _setting(10_000, "embeddings kept by text hash", low=0)
    queue_limit: int = _setting(1024, "texts waiting before 429", low=1)
    timeout_s: float = _setting(
        5.0, "after this a query is decided without its embedding", low=0.01
    )


@dataclass(frozen=True, slots=True)
class HistorySettings:
    """The remembered queries."""

    capacity: int = _setting(
        20_000, "queries remembered; beyond it the one remembered first leaves", low=1
    )
    neighbours: int = _setting(20, "past queries recalled for each query", low=0, high=1000)
    exact_below: int = _setting(2000, "fewer remembered queries are searched exactly", low=0)


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """The policy that decides, and the parameters that `policies.load` gets."""

    name: str = _setting("metallm", "a policy; `bandit-service policies` lists them")
    parameters: dict[str, Any] = field(
        default_factory=dict, metadata={"rule": Rule("the policy's own parameters, a table")}
    )


class BesideSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy that learns beside the serving one, and decides where a query names it."""

    name: str
    parameters: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class ExplorationSettings:
    """Chance, and the probability that every eligible arm keeps."""

    seed: int = _setting(0, "seed of every draw", low=0)
    floor: float = _setting(0.01, "least probability of an eligible arm", low=0, high=0.5)
    floor_share: float = _setting(
        0.1, "most that all floors together may take, however many arms", low=0, high=1
    )


@dataclass(frozen=True, slots=True)
class RewardSettings:
    """reward = quality - cost_usd / willingness_to_pay - latency_weight * latency_s."""

    willingness_to_pay: float = _setting(
        0.10,
        "USD that one unit of quality is worth, unless the query says otherwise",
        low=1e-9,
        high=1e6,
    )
    latency_weight: float = _setting(0.0, "quality that one second costs", low=0, high=100)
    ttl_s: float = _setting(86_400.0, "how long a decision may be rewarded", low=1)
    on_expiry: str = _setting(
        "drop",
        "what a decision teaches that nobody rewarded in ttl_s: nothing, or reward.default",
        choices=("drop", "default"),
    )
    default: float = _setting(
        0.0, "the reward of silence, where on_expiry is default", low=-1, high=1
    )
    max_pending: int = _setting(
        50_000, "decisions kept for their reward, about 5 kB each; then the oldest expires", low=1
    )


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Where events are kept."""

    path: str = _setting("events.sqlite3", "file of the event log, relative to data_dir")
    sync_interval_s: float = _setting(
        0.5,
        "a power cut loses at most the decisions of this long; rewards never wait for it",
        low=0.001,
        high=60,
    )
    verify: str = _setting(
        "all",
        "what a start checks the checksums of: all of the log, or what comes after the snapshot",
        choices=("all", "tail"),
    )
    max_backlog: int = _setting(
        10_000, "decisions kept in memory while the disk is full; then the oldest is lost", low=0
    )


@dataclass(frozen=True, slots=True)
class SnapshotSettings:
    """Folded state beside the log, from which a restart goes on."""

    directory: str = _setting("snapshots", "directory of the snapshots, relative to data_dir")
    every_events: int = _setting(20_000, "events after which the next is made", low=100)
    every_s: float = _setting(
        900.0, "seconds after which the next is made, if anything happened", low=1
    )
    keep: int = _setting(3, "how many are kept", low=1, high=100)


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """How much of the log is kept behind the oldest snapshot; 0 keeps everything."""

    max_age_s: float = _setting(0.0, "events older than this are deleted; 0 keeps them", low=0)
    max_bytes: int = _setting(0, "beyond this the oldest events are deleted; 0: no bound", low=0)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """How requests of OpenAI's wire format are carried out; `[[upstreams]]` are the providers."""

    attempts: int = _setting(3, "arms tried for one request", low=1, high=20)
    failure_quality: float = _setting(
        0.0, "quality that an arm is taught for an answer that failed", low=0, high=1
    )
    latency_signal: str = _setting(
        "total",
        "what is taught as latency_s: the whole answer, its first token, or the whole divided by "
        "its tokens",
        choices=("total", "first_token", "per_token"),
    )
    sticky: bool = _setting(False, "a conversation stays with its arm, for the provider's cache")
    sticky_margin: float = _setting(
        0.05, "how much higher another arm must score for a conversation to switch", low=0
    )
    sticky_s: float = _setting(300.0, "how long a conversation is remembered", low=1)
    max_answer_bytes: int = _setting(33_554_432, "largest answer of a provider", low=1024)
    breaker_failures: int = _setting(3, "failures in a row that mask an arm", low=1)
    breaker_cool_s: float = _setting(
        5.0, "how long an arm is masked first; doubles with each failed probe", low=0.01
    )


@dataclass(frozen=True, slots=True)
class DuelSettings:
    """A second arm answers too, and the two answers are compared; the user gets the first."""

    share: float = _setting(0.0, "share of the routed answers that are challenged", low=0, high=1)
    judge: str = _setting("", "id of the judge that compares; empty leaves it to the user")
    keep_s: float = _setting(600.0, "how long both answers can be asked for", low=0, high=86_400)


@dataclass(frozen=True, slots=True)
class SecuritySettings:
    """What keys do not say themselves; `[[keys]]` tables are the keys."""

    keys_file: str = _setting("", "TOML file with more [[keys]], relative to this file")
    open_metrics: bool = _setting(True, "/metrics without a key; else it needs the scope read")
    share_window: int = _setting(
        1000, "newest outcomes of which a key may send its reward_share", low=100
    )


@dataclass(frozen=True, slots=True)
class MonitoringSettings:
    """What the metrics are told."""

    baseline_arm: str = _setting(
        "", "arm that savings are counted against; empty takes the dearest by list price"
    )
    max_listeners: int = _setting(
        32, "pages that may follow GET /v1/live at a time; 0 turns it off", low=0, high=10_000
    )


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """OpenTelemetry spans of requests; they need the extra `otel`."""

    endpoint: str = _setting(
        "",
        "where spans are sent by OTLP over HTTP, as http://127.0.0.1:4318/v1/traces; empty: none",
    )
    share: float = _setting(
        1.0, "share of the requests that are traced, where no traceparent says", low=0, high=1
    )
    service_name: str = _setting("bandit-service", "service.name of the spans")


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """What watches for arms and queries that change, and what follows from an alarm."""

    enabled: bool = _setting(True, "watch for drift, where river is installed")
    adwin_delta: float = _setting(
        0.002, "ADWIN's delta; less gives fewer and later alarms", low=1e-9, high=0.5
    )
    page_hinkley_threshold: float = _setting(
        20.0, "Page-Hinkley's threshold; more gives fewer and later alarms", low=1.0, high=1e6
    )
    page_hinkley_delta: float = _setting(
        0.05, "a change of the mean smaller than this is none to Page-Hinkley", low=0, high=1
    )
    keep: float = _setting(
        1.0, "share of what was learned of an arm that its alarm leaves; 1 forgets nothing",
        low=0.01, high=1,
    )  # fmt: skip
    explore: float = _setting(
        0.0, "probability that an arm keeps at least after its alarm, all arms after one of the "
        "queries; 0 adds nothing", low=0, high=0.5,
    )  # fmt: skip
    explore_decisions: int = _setting(
        1000, "decisions for which drift.explore holds", low=1, high=1_000_000
    )


DEFAULT_ARMS = (
    ArmSpec(
        id=policies.ArmId("llama-3.1-8b-instruct"),
        usd_per_mtok_in=0.10,
        usd_per_mtok_out=0.10,
        context_window=128_000,
        tags=("cheap", "fast"),
    ),
    ArmSpec(
        id=policies.ArmId("mistral-large-2512"),
        usd_per_mtok_in=0.50,
        usd_per_mtok_out=1.50,
        context_window=128_000,
        capabilities=("json", "tools"),
        tags=("balanced",),
    ),
    ArmSpec(
        id=policies.ArmId("gemini-2.5-pro"),
        usd_per_mtok_in=1.25,
        usd_per_mtok_out=10.0,
        context_window=1_048_576,
        expected_output_tokens=1000,
        capabilities=("json", "tools", "vision"),
        tags=("strong",),
    ),
)
"""The pool that is offered where no arm is configured; list prices in USD per million tokens."""


@dataclass(frozen=True, slots=True)
class ExperimentSettings:
    """What stands over all experiments, and how often they are looked at."""

    stopped: bool = _setting(False, "the kill switch: no unit is in any experiment")
    holdout_share: float = _setting(
        0.0, "share of the units that always get holdout_arm", low=0.0, high=0.5
    )
    holdout_arm: str = _setting("", "the arm of held-out units")
    unit: str = _setting("user", "what is held out", choices=("user", "tenant"))
    salt: str = _setting("holdout", "another salt holds out other units")
    steer_s: float = _setting(
        5.0, "seconds between two looks at guardrails, ramps and weights", low=0.1, high=3600.0
    )
    whatif_s: float = _setting(
        300.0, "seconds that one off-policy evaluation may take", low=1.0, high=86400.0
    )


LISTS = ("policies", "upstreams", "budgets", "judges", "experiments")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, checked. `origins` tells where each value came from."""

    data_dir: str = _setting("var", "directory of the log and of exported models")
    log_level: str = _setting(
        "info", "least level logged", choices=("debug", "info", "warning", "error")
    )
    log_format: str = _setting(
        "auto", "form of the logs; auto is console on a terminal, else json", choices=FORMATS
    )
    server: Server = field(default_factory=Server)
    embedding: Embedding = field(default_factory=Embedding)
    history: HistorySettings = field(default_factory=HistorySettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    exploration: ExplorationSettings = field(default_factory=ExplorationSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    log: LogSettings = field(default_factory=LogSettings)
    snapshots: SnapshotSettings = field(default_factory=SnapshotSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    security: SecuritySettings = field(default_factory=SecuritySettings)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    duels: DuelSettings = field(default_factory=DuelSettings)
    monitoring: MonitoringSettings = field(default_factory=MonitoringSettings)
    tracing: TracingSettings = field(default_factory=TracingSettings)
    drift: DriftSettings = field(default_factory=DriftSettings)
    experiment_rules: ExperimentSettings = field(default_factory=ExperimentSettings)
    arms: tuple[ArmSpec, ...] = DEFAULT_ARMS
    policies: tuple[PolicySettings, ...] = ()
    upstreams: tuple[Upstream, ...] = ()
    budgets: tuple[BudgetSpec, ...] = ()
    judges: tuple[JudgeSpec, ...] = ()
    experiments: tuple[Experiment, ...] = ()
    keys: tuple[ApiKey, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)


class BadSettings(Exception):
    """The configuration as a whole is refused; `mistakes` has a sentence for each."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def rules() -> dict[str, tuple[Any, Rule]]:
    """Every key with its default and its rule, in the order of the file."""
    found: dict[str, tuple[Any, Rule]] = {}
    for name, default, rule in _fields(Settings()):
        if rule is not None:
            found[name] = (default, rule)
            continue
        for inner, value, inner_rule in _fields(default):
            found[f"{name}.{inner}"] = (value, cast(Rule, inner_rule))
    return found


def read(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of the file and the environment; BadSettings with every mistake at once."""
    environ = os.environ if environ is None else environ  # noqa: TID251 - the one place
    mistakes: list[str] = []
    document = _document(path, mistakes)
    overrides = {
        key: value
        for key, value in environ.items()
        if key.startswith(PREFIX) and key != f"{PREFIX}CONFIG"
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
        values[key] = _checked(key, values[key], default, rule, mistakes)
    arms, origins["arms"] = _arms(document, overrides.pop(f"{PREFIX}ARMS", None), path, mistakes)
    keys, origins["keys"] = _keys(document, overrides.pop(f"{PREFIX}KEYS", None), path, mistakes)
    if file := values["security.keys_file"]:
        more = Path(file) if path is None else path.parent / file
        keys += _read_keys(_document(more, mistakes).get("keys", []), f"{more}: ", mistakes, keys)
        origins["keys"] += f" and {more}"
    given = {name: document.get(name, []) for name in LISTS}
    for name in given:
        variable = PREFIX + name.upper()
        if variable in overrides:
            given[name] = _json(variable, overrides.pop(variable), mistakes)
    mistakes += [
        f"{name}: no such setting; `bandit-service config show` lists them all"
        for name in sorted(overrides)
    ]
    _check_policy(values, mistakes)
    beside = _beside(given["policies"], values["policy.name"], mistakes)
    upstreams = upstreams_of(given["upstreams"], environ, path, mistakes)
    budgets = listed("budgets", given["budgets"], BudgetSpec, check_budget, mistakes)
    judges = listed("judges", given["judges"], JudgeSpec, check_judge, mistakes)
    experiments = listed(
        "experiments", given["experiments"], Experiment, _check_experiment, mistakes
    )
    _check_beside(experiments, mistakes)
    _check_rules(values, mistakes)
    _check_tracing(values["tracing.endpoint"], mistakes)
    if values["duels.judge"] not in ("", *(spec.id for spec in judges)):
        mistakes.append(f"duels.judge: there is no [[judges]] with id {values['duels.judge']!r}")
    if mistakes:
        raise BadSettings(mistakes)
    tables = {"arms": arms, "keys": keys, "policies": beside, "upstreams": upstreams,
              "budgets": budgets, "judges": judges, "experiments": experiments}  # fmt: skip
    return _assemble(values, tables, origins)


def _beside(items: Any, serving: str, mistakes: list[str]) -> tuple[PolicySettings, ...]:
    """The policies of `[[policies]]`, each there once and none of them the serving one."""
    specs = listed("policies", items, BesideSpec, _check_learning, mistakes)
    names = [spec.name for spec in specs]
    for i, name in enumerate(names):
        if name == serving:
            mistakes.append(f"policies[{i}].name: {name!r} is the policy that serves")
        if name in names[:i]:
            mistakes.append(f"policies[{i}].name: {name!r} is there twice")
    return tuple(PolicySettings(spec.name, spec.parameters) for spec in specs)


def _check_learning(spec: BesideSpec) -> None:
    try:
        load_policy(PolicySettings(spec.name, spec.parameters))
    except (ValueError, TypeError) as error:
        known = spec.name in policies.names()
        raise ValueError(f"parameters: {error}" if known else f"name: {error}") from None


def _check_experiment(spec: Experiment) -> None:
    try:
        experiment_checks.check(spec)
    except Refused as refused:
        raise ValueError(refused.message) from None
    for one in spec.variants:
        try:
            if one.policy:
                policies.load(one.policy, **one.parameters)
        except (ValueError, TypeError) as error:
            raise ValueError(f"variants.{one.key}: {error}") from None


def _check_beside(experiments: Sequence[Experiment], mistakes: list[str]) -> None:
    for i, spec in enumerate(experiments):
        try:
            experiment_checks.check_beside(spec, {one.id: one for one in experiments[:i]})
        except Refused as refused:
            mistakes.append(f"experiments[{i}].{refused.message}")


def experiment_rules(settings: ExperimentSettings) -> Rules:
    """The kill switch and the hold-out as the configuration names them."""
    return Rules(
        stopped=settings.stopped,
        holdout_share=settings.holdout_share,
        holdout_arm=settings.holdout_arm,
        unit=settings.unit,
        salt=settings.salt,
    )


def _check_rules(values: Mapping[str, Any], mistakes: list[str]) -> None:
    if values["experiment_rules.holdout_share"] and not values["experiment_rules.holdout_arm"]:
        mistakes.append("experiment_rules.holdout_arm: name the arm that held-out units get")


def _check_tracing(endpoint: str, mistakes: list[str]) -> None:
    if endpoint and not endpoint.startswith(("http://", "https://")):
        mistakes.append(f"tracing.endpoint: must begin with http:// or https://, got {endpoint!r}")


def _json(variable: str, text: str, mistakes: list[str]) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        mistakes.append(f"{variable}: not JSON: {error}")
        return []


def load_policy(settings: PolicySettings) -> policies.Policy[Any]:
    """The policy that the settings name."""
    return policies.load(settings.name, **settings.parameters)


def digest_of(settings: Settings) -> str:
    """A hash of every value but the API keys and those of providers; where they came from is no
    part of it."""
    return blake2b(
        repr(dataclasses.replace(settings, keys=(), origins={})).encode(), digest_size=6
    ).hexdigest()


def policy_key(name: str, parameters: Mapping[str, Any]) -> str:
    """The name with a hash of its parameters: two that differ in either have different keys."""
    canonical = json.dumps(parameters, sort_keys=True, default=str).encode()
    return f"{name}:{blake2b(canonical, digest_size=6).hexdigest()}"


def _fields(of: Any) -> list[tuple[str, Any, Rule | None]]:
    found = []
    for each in dataclasses.fields(of):
        rule = each.metadata.get("rule")
        if rule is not None or dataclasses.is_dataclass(getattr(of, each.name)):
            found.append((each.name, getattr(of, each.name), rule))
    return found


def _document(path: Path | None, mistakes: list[str]) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        mistakes.append(f"{path}: cannot be read: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        mistakes.append(f"{path}: not TOML: {error}")
    return {}


def _flatten(
    document: dict[str, Any], known: Mapping[str, Any], mistakes: list[str]
) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    sections = {key.split(".")[0] for key in known if "." in key}
    for name, value in document.items():
        if name in ("arms", "keys", *LISTS):
            continue
        if name in sections:
            if not isinstance(value, dict):
                mistakes.append(f"{name}: must be a table, got {value!r}")
                continue
            flat |= {f"{name}.{inner}": item for inner, item in value.items()}
        else:
            flat[name] = value
    mistakes.extend(
        f"{key}: no such setting; `bandit-service config show` lists them all"
        for key in flat
        if key not in known
    )
    return flat


def _from_text(text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _checked(key: str, value: Any, default: Any, rule: Rule, mistakes: list[str]) -> Any:
    allowed = _allowed(default, rule)
    kind = type(default)
    if kind is float and type(value) is int:
        value = float(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    wrong = (
        type(value) is not kind
        or (number and not math.isfinite(value))
        or (number and rule.low is not None and value < rule.low)
        or (number and rule.high is not None and value > rule.high)
        or (bool(rule.choices) and value not in rule.choices)
    )
    if wrong:
        mistakes.append(f"{key}: must be {allowed}, got {value!r}")
        return default
    return value


def _allowed(default: Any, rule: Rule) -> str:
    if rule.choices:
        return "one of " + ", ".join(rule.choices)
    if isinstance(default, bool):
        return "true or false"
    word = {int: "a whole number", float: "a number", str: "a string", dict: "a table"}[
        type(default)
    ]
    low = "" if rule.low is None else f" from {rule.low:g}"
    high = "" if rule.high is None else f" to {rule.high:g}"
    return word + (low or (" up" if high else "")) + high


def _arms(
    document: dict[str, Any], override: str | None, path: Path | None, mistakes: list[str]
) -> tuple[tuple[ArmSpec, ...], str]:
    origin = "default"
    items: Any = None
    if override is not None:
        origin = f"{PREFIX}ARMS"
        try:
            items = json.loads(override)
        except json.JSONDecodeError as error:
            mistakes.append(f"{origin}: not JSON: {error}")
            return (), origin
    elif "arms" in document:
        items, origin = document["arms"], str(path)
    if items is None:
        return DEFAULT_ARMS, origin
    if not isinstance(items, list):
        mistakes.append(f"arms: must be a list of tables, got {type(items).__name__}")
        return (), origin
    arms: list[ArmSpec] = []
    for i, item in enumerate(items):
        try:
            arm = arm_spec(item)
        except ValueError as error:
            mistakes.append(f"arms[{i}].{error}")
            continue
        if arm.id in {other.id for other in arms}:
            mistakes.append(f"arms[{i}].id: {arm.id!r} is there twice")
        arms.append(arm)
    return tuple(arms), origin


def _keys(
    document: dict[str, Any], override: str | None, path: Path | None, mistakes: list[str]
) -> tuple[tuple[ApiKey, ...], str]:
    origin, items = "default", document.get("keys", [])
    if override is not None:
        origin = f"{PREFIX}KEYS"
        try:
            items = json.loads(override)
        except json.JSONDecodeError as error:
            mistakes.append(f"{origin}: not JSON: {error}")
            return (), origin
    elif items:
        origin = str(path)
    return _read_keys(items, "", mistakes), origin


def _read_keys(
    items: Any, where: str, mistakes: list[str], known: tuple[ApiKey, ...] = ()
) -> tuple[ApiKey, ...]:
    if not isinstance(items, list):
        mistakes.append(f"{where}keys: must be a list of tables, got {type(items).__name__}")
        return ()
    keys: list[ApiKey] = []
    for i, item in enumerate(items):
        try:
            key = msgspec.convert(item, ApiKey)
            check_key(key)
        except msgspec.ValidationError as error:
            param, what = field_of(error)
            mistakes.append(f"{where}keys[{i}].{param or 'key'}: {what}")
            continue
        except ValueError as error:
            mistakes.append(f"{where}keys[{i}].{error}")
            continue
        for other in (*known, *keys):
            if key.id == other.id:
                mistakes.append(f"{where}keys[{i}].id: {key.id!r} is there twice")
            elif key.hash == other.hash:
                mistakes.append(f"{where}keys[{i}].hash: is that of {other.id!r} too")
        keys.append(key)
    return tuple(keys)


def exposure(settings: Settings) -> str:
    """Why the service may not listen where it is told to; empty when it may."""
    server = settings.server
    if bool(server.tls_cert) != bool(server.tls_key):
        return "server.tls_cert: must be set together with server.tls_key"
    if server.tls_client_ca and not server.tls_cert:
        return "server.tls_client_ca: needs server.tls_cert and server.tls_key"
    if server.insecure or _is_loopback(server.host):
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


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _StrictArm(ArmSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


def arm_spec(item: Any) -> ArmSpec:
    """The arm that a table describes; ValueError "field: what was wrong, what is allowed"."""
    try:
        strict = msgspec.convert(item, _StrictArm)
    except msgspec.ValidationError as error:
        param, what = field_of(error)
        raise ValueError(f"{param or 'arm'}: {what}") from None
    for name, low, high in (
        ("usd_per_mtok_in", 0.0, 1e5),
        ("usd_per_mtok_out", 0.0, 1e5),
        ("context_window", 1, 10**9),
        ("expected_output_tokens", 0, 10**7),
        ("expected_latency_s", 0.0, 86_400.0),
        ("usd_per_mtok_cached_in", 0.0, 1e5),
        ("usd_per_mtok_cache_write", 0.0, 1e5),
        ("max_running", 0, 10**6),
    ):
        value = getattr(strict, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"{name}: must be from {low:g} to {high:g}, got {value:g}")
    if not 1 <= len(strict.id) <= 128 or not strict.id.isprintable():
        raise ValueError(f"id: must be 1 to 128 printable characters, got {strict.id!r}")
    return ArmSpec(**{name: getattr(strict, name) for name in ArmSpec.__struct_fields__})


def _check_policy(values: dict[str, Any], mistakes: list[str]) -> None:
    try:
        load_policy(PolicySettings(values["policy.name"], values["policy.parameters"]))
    except (ValueError, TypeError) as error:
        mistakes.append(f"policy.parameters.{error}" if ":" in str(error) else f"policy: {error}")


def _assemble(
    values: dict[str, Any], tables: Mapping[str, Any], origins: Mapping[str, str]
) -> Settings:
    top: dict[str, Any] = {}
    for each in dataclasses.fields(Settings):
        default = getattr(Settings(), each.name)
        if each.name in values:
            top[each.name] = values[each.name]
        elif dataclasses.is_dataclass(default):
            inner = {f.name: values[f"{each.name}.{f.name}"] for f in dataclasses.fields(default)}
            top[each.name] = type(cast(Any, default))(**inner)
    return Settings(**top, **tables, origins=origins)
