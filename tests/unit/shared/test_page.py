"""What docs/scale.md says is what there is."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from bandit_service.telemetry.metrics import Metrics
from bandit_service.telemetry.replica_metrics import ReplicaMetrics

PAGE = Path(__file__).parents[3] / "docs" / "scale.md"


def test_every_metric_of_a_replica_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    registry = CollectorRegistry()
    Metrics(registry)  # they stand beside these, and no two have one name
    declared = ReplicaMetrics(registry).declared
    for each in declared:
        assert f"| `{each.name}` | {each.kind} | {each.help} |" in page
    listed = re.findall(r"^\| `(bandit_\w+)`", page, re.MULTILINE)
    assert listed == [each.name for each in declared]
