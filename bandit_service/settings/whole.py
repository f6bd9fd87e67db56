"""All sections together, and the pool that is offered where none is configured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import policies
from bandit_service.core.events import ArmSpec, RouteSpec
from bandit_service.core.experiments.spec import Experiment
from bandit_service.core.metric_spec import NamedMetric
from bandit_service.logs import FORMATS
from bandit_service.settings.budgets import BudgetSpec
from bandit_service.settings.judges import JudgeSpec
from bandit_service.settings.keys import ApiKey
from bandit_service.settings.pools import Pool
from bandit_service.settings.rule import Rule, setting
from bandit_service.settings.sections.gateway import DuelSettings, GatewaySettings
from bandit_service.settings.sections.learning import (
    DriftSettings,
    Embedding,
    ExperimentSettings,
    ExplorationSettings,
    FeedbackSettings,
    HistorySettings,
    ImplicitSettings,
    PolicySettings,
    RewardSettings,
)
from bandit_service.settings.sections.serving import (
    MonitoringSettings,
    SecuritySettings,
    Server,
    TracingSettings,
)
from bandit_service.settings.sections.storage import (
    LogSettings,
    RetentionSettings,
    SnapshotSettings,
    TextsSettings,
)
from bandit_service.settings.upstreams import Upstream

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
class Settings:
    """All settings, checked. `origins` tells where each value came from.

    feedback_secrets: what the environment variable `feedback.secret_env` has; in no log, no repr.
    texts_keys: what encrypts texts, the first one for new ones; in no log, no repr, either.
    file: the one that was read. from_file: nothing that was changed at run time is kept. pool,
    id_code: which of the pools they are of, and what names it in ids; none where there is one log.
    """

    data_dir: str = setting("var", "directory of the log and of exported models")
    policies_dir: str = setting(
        "",
        "directory of your own policies, one Python file each; the service runs these files; "
        "empty: none",
    )
    log_level: str = setting(
        "info", "lowest level that is logged", choices=("debug", "info", "warning", "error")
    )
    log_format: str = setting(
        "auto", "format of the logs; auto is console on a terminal, else json", choices=FORMATS
    )
    cell: str = setting(
        "",
        "the cell of this process: it serves the [[pools]] of this cell, and answers 421 for "
        "those of others; empty: there are no cells",
    )
    revision: int = setting(
        0,
        "number of this file, for processes that share a log: raise it with every change of arms, "
        "policies, routes, experiments or what else the log has, so that an older file is not "
        "taken; 0: not numbered",
        low=0,
    )
    server: Server = field(default_factory=Server)
    embedding: Embedding = field(default_factory=Embedding)
    history: HistorySettings = field(default_factory=HistorySettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    exploration: ExplorationSettings = field(default_factory=ExplorationSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    feedback: FeedbackSettings = field(default_factory=FeedbackSettings)
    implicit: ImplicitSettings = field(default_factory=ImplicitSettings)
    texts: TextsSettings = field(default_factory=TextsSettings)
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
    routes: tuple[RouteSpec, ...] = ()
    metrics: tuple[NamedMetric, ...] = ()
    upstreams: tuple[Upstream, ...] = ()
    budgets: tuple[BudgetSpec, ...] = ()
    judges: tuple[JudgeSpec, ...] = ()
    experiments: tuple[Experiment, ...] = ()
    pools: tuple[Pool, ...] = ()
    keys: tuple[ApiKey, ...] = ()
    dsn: str = field(default="", repr=False)
    feedback_secrets: tuple[str, ...] = field(default=(), repr=False)
    texts_keys: tuple[bytes, ...] = field(default=(), repr=False)
    origins: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = field(default=None, repr=False)
    from_file: bool = field(default=False, repr=False)
    pool: str = field(default="", repr=False)
    id_code: int | None = field(default=None, repr=False)


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


def digest_of(settings: Settings) -> str:
    """A hash of every value except the API keys and those of providers;

    the origins of values do not count.
    """
    return blake2b(
        repr(dataclasses.replace(settings, keys=(), origins={})).encode(), digest_size=6
    ).hexdigest()


def assembled(
    values: dict[str, Any], tables: Mapping[str, Any], origins: Mapping[str, str]
) -> Settings:
    """The settings of flat values by key and of the lists of tables."""
    top: dict[str, Any] = {}
    for each in dataclasses.fields(Settings):
        default = getattr(Settings(), each.name)
        if each.name in values:
            top[each.name] = values[each.name]
        elif dataclasses.is_dataclass(default):
            inner = {f.name: values[f"{each.name}.{f.name}"] for f in dataclasses.fields(default)}
            top[each.name] = type(cast(Any, default))(**inner)
    return Settings(**top, **tables, origins=origins)


def _fields(of: Any) -> list[tuple[str, Any, Rule | None]]:
    found = []
    for each in dataclasses.fields(of):
        rule = each.metadata.get("rule")
        if rule is not None or dataclasses.is_dataclass(getattr(of, each.name)):
            found.append((each.name, getattr(of, each.name), rule))
    return found
