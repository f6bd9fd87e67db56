"""`[[metrics]]`: what answers are judged by, each a part of the quality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bandit_service.core.fields import check_stated
from bandit_service.core.metric_spec import (
    EDIT,
    IMPLICIT,
    MAX_NAMED,
    REGENERATE,
    RETRY,
    NamedMetric,
)
from bandit_service.core.outcomes import VOTE, is_metric_name
from bandit_service.core.pending import SIGNALS
from bandit_service.settings.sections.learning import ImplicitSettings
from bandit_service.settings.upstreams import listed


class MetricTable(NamedMetric, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named metric as it is configured."""


def metrics_of(items: Any, mistakes: list[str]) -> tuple[NamedMetric, ...]:
    """The metrics of `[[metrics]]`; each mistake as a sentence with its place."""
    tables = listed("metrics", items, MetricTable, _check, mistakes)
    if len(tables) > MAX_NAMED:
        mistakes.append(f"metrics: must have at most {MAX_NAMED}, got {len(tables)}")
    given = items if isinstance(items, list) else []
    names = [each.get("name") if isinstance(each, dict) else None for each in given]
    mistakes += [
        f"metrics[{i}].name: duplicate name {name!r}"
        for i, name in enumerate(names)
        if name is not None and name in names[:i]
    ]
    fields = NamedMetric.__struct_fields__
    return tuple(NamedMetric(**{name: getattr(each, name) for name in fields}) for each in tables)


def implicit_weights(settings: ImplicitSettings) -> dict[str, float]:
    """The weight of each implicit signal, by its name as a metric."""
    return {RETRY: settings.retry, REGENERATE: settings.regenerate, EDIT: settings.edit}


def all_metrics(
    named: Sequence[NamedMetric], implicit: ImplicitSettings
) -> tuple[NamedMetric, ...]:
    """The configured metrics, and the implicit signals that have a weight."""
    more = (
        NamedMetric(name=name, kind="boolean", lower_is_better=True, weight=weight)
        for name, weight in implicit_weights(implicit).items()
        if weight > 0.0
    )
    return (*named, *more)


def _check(table: MetricTable) -> None:
    check_stated(table)
    if not is_metric_name(table.name):
        raise ValueError(
            "name: must be letters, digits and _, with no digit first, and none of "
            f"{', '.join(SIGNALS)}, got {table.name!r}"
        )
    if table.implicit:
        raise ValueError(f"name: begins with {IMPLICIT!r}, as implicit signals do; see [implicit]")
    if table.kind == "boolean" and (table.low, table.high) != (0.0, 1.0):
        raise ValueError("low: is of the kind number; a boolean is true or false")
    if not table.low < table.high:
        raise ValueError(f"low: must be below high, got {table.low:g} and {table.high:g}")
    if table.name == VOTE and (table.kind, table.scope) != ("boolean", "decision"):
        raise ValueError(
            "kind: the metric vote has users' votes, so it must be a boolean of a decision"
        )
    if table.name == VOTE and table.lower_is_better:
        raise ValueError("lower_is_better: the metric vote is 1 for up, which is better")
    if table.feedback and table.scope == "session":
        raise ValueError("feedback: a token belongs to one decision, but this metric to a session")
