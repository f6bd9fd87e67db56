"""Every panel and alert against a real Prometheus that scraped a really loaded service."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtest import dashboards, monitor
from loadtest.demo import serving
from loadtest.panels import DASHBOARDS
from loadtest.prometheus import INSTALL, asked, installed, prometheus

ROOT = Path(__file__).parents[2]

NEEDS_MORE = {
    "bandit_upstream_": "arms with an upstream, which the load does not call",
    "bandit_conversation_turns_total": "the same",
    "bandit_cached_prompt_saved_usd_total": "the same",
    "bandit_quality_": "a policy that expects a quality",
}
"""What may be empty in this run, by what the query names, and why."""

QUERIES = [
    (name, panel.title, expr)
    for name, panels in DASHBOARDS.items()
    for panel in panels
    for expr, _ in panel.queries
]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[str]:
    if not installed():
        pytest.skip(INSTALL)
    data = tmp_path_factory.mktemp("watched")
    (data / "models").symlink_to(models, target_is_directory=True)
    config = data / "monitor.toml"
    config.write_text(monitor.config(data, data), encoding="utf-8")
    with serving(config) as url, prometheus(url, data / "prometheus") as watching:
        assert asyncio.run(monitor.traffic(url, 100.0, 6.0)) > 50
        deadline = time.monotonic() + 20
        counted = 'bandit_http_requests_total{endpoint="/v1/decide"}'
        ready = f"sum(rate(bandit_decisions_total[30s])) > 0 and sum(rate({counted}[30s])) > 0"
        while not asked(watching, "query", query=ready)["result"]:
            assert time.monotonic() < deadline, "nothing was scraped"
            time.sleep(0.2)
        yield watching


def _numbers(result: list[Any]) -> list[float]:
    return [value for one in result if (value := float(one["value"][1])) == value]


@pytest.mark.parametrize(("dashboard", "title", "expr"), QUERIES)
def test_no_query_is_wrong_and_no_panel_empty(
    watched: str, dashboard: str, title: str, expr: str
) -> None:
    query = expr.replace("$__rate_interval", "1m")
    assert "$" not in query
    result = asked(watched, "query", query=query)["result"]
    if not any(name in expr for name in NEEDS_MORE):
        assert _numbers(result), f"{dashboard}, {title}: empty: {query}"


def test_prometheus_evaluates_every_rule_without_fault(watched: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        groups = asked(watched, "rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        if all(rule["health"] == "ok" for rule in rules):
            break
        assert time.monotonic() < deadline, rules
        time.sleep(0.2)
    assert len(rules) >= 10
    firing = [rule["name"] for rule in rules if rule.get("state") == "firing"]
    assert firing == []


def test_exemplars_of_the_decide_path_arrive(watched: str) -> None:
    now = time.monotonic()
    while time.monotonic() < now + 20:
        found = asked(
            watched, "query_exemplars", query="bandit_decision_stage_seconds_bucket",
            start="2000-01-01T00:00:00Z", end="2100-01-01T00:00:00Z",
        )  # fmt: skip
        if found:
            break
        time.sleep(0.2)
    assert set(found[0]["exemplars"][0]["labels"]) == {"decision_id"}


def test_the_committed_dashboards_are_the_generated_ones() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in dashboards.OUT.iterdir()}
    assert committed == dashboards.generated(), "run make dashboards"
    for text in committed.values():
        for panel in json.loads(text)["panels"]:
            assert panel["targets"]
            assert panel["datasource"]["uid"] == "${datasource}"


def test_every_metric_of_a_panel_is_documented() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    known = set(re.findall(r"^\| `(bandit_\w+)`", page, re.MULTILINE))
    for _, title, expr in QUERIES:
        for name in re.findall(r"bandit_[a-z0-9_]+", expr):
            assert re.sub(r"_(bucket|sum|count)$", "", name) in known, (title, name)


def test_make_monitor_ends_cleanly_on_an_interrupt(tmp_path: Path, models: Path) -> None:
    if not installed():
        pytest.skip(INSTALL)
    (tmp_path / "models").symlink_to(models, target_is_directory=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtest.monitor", "--data-dir", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    assert "http://127.0.0.1:" in lines[0], process.communicate()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them at once
    rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, "ended\n"), errors
