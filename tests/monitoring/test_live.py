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
import urllib.request
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bandit_service.data.recordings import BadRecording, open_recording
from bandit_service.telemetry.metrics import Metrics
from bandit_service.telemetry.replica_metrics import ReplicaMetrics
from loadtest import dashboards, monitor, panels, pictures
from loadtest.monitor_traffic import DOWN, traffic
from loadtest.pictures_draw import draw
from loadtest.prometheus import asked
from tests.tools import missing, tool

ROOT = Path(__file__).parents[2]
CATALOGUE = Metrics(CollectorRegistry()).declared
OF_REPLICAS = {each.name for each in ReplicaMetrics(CollectorRegistry()).declared}
"""What a service with a log of its own has not."""

SLOW = ("bandit_regret_estimate", "bandit_arm_reward_bound", "bandit_duels_total")
"""What needs the most outcomes of an arm, or comes after the answer."""


def _queries() -> list[tuple[str, str]]:
    """Where a query stands in the committed dashboards, and the query."""
    return [
        (f"{path.stem}, {panel['title']}", target["expr"])
        for path in sorted(dashboards.OUT.iterdir())
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]
        for target in panel.get("targets") or ()
    ]


def _metrics_of(expr: str) -> set[str]:
    found = re.findall(r"\bbandit_[a-z0-9_]+", expr)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def _until(what: str, found: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.2)
    return value


def _known(url: str, name: str) -> bool:
    """Whether the service exposes a number of this name that is one."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        found = re.search(rf"^{name}(?:{{.*}})? (\S+)$", answer.read().decode(), re.MULTILINE)
    return found is not None and found[1] != "NaN"


def _empty(watching: str, expr: str) -> bool:
    """Whether a query has no number that a panel could show."""
    query = expr.replace("$__rate_interval", "1m").replace("$instance", ".*")
    assert "$" not in query, query
    result = asked(watching, "query", query=query)["result"]
    values = [float(one["value"][1]) for one in result]
    return all(value != value for value in values)


@pytest.mark.long
def test_no_panel_of_a_loaded_service_is_empty_and_no_rule_fails(
    tmp_path: Path, models: Path
) -> None:
    tool("prometheus")
    promtool = tool("promtool")
    try:
        recorded = open_recording("paretobandit")
    except BadRecording as error:
        missing(str(error))
    (tmp_path / "models").symlink_to(models, target_is_directory=True)
    with monitor.watched(recorded, "paretobandit", tmp_path, tmp_path) as (url, watching):
        last = 'sum(rate(bandit_http_requests_total{endpoint="/v1/snapshots"}[1m]) >= 0)'
        empty = ["nothing was asked yet"]
        for _ in range(8):  # until enough is known of an arm, and of what comes after an answer
            asyncio.run(traffic(url, recorded, 60.0, 6.0, least=300))
            if not all(_known(url, name) for name in SLOW):
                continue
            _until(
                "a scrape after the load", lambda: asked(watching, "query", query=last)["result"]
            )
            empty = [
                f"{at}: {expr}"
                for at, expr in _queries()
                if not _metrics_of(expr) <= OF_REPLICAS and _empty(watching, expr)
            ]
            if not empty:
                break
        assert empty == []

        end = float(asked(watching, "query", query="time()")["result"][1])
        board = json.loads((dashboards.OUT / "learning.json").read_text(encoding="utf-8"))
        shown = pictures.drawn(watching, board, end - 10.0, end)
        assert all(one.series for one in shown if one.panel["type"] != "row")
        draw(board["title"], shown, tmp_path / "learning.png")
        assert (tmp_path / "learning.png").read_bytes().startswith(b"\x89PNG")

        with urllib.request.urlopen(f"{url}/metrics") as answer:
            exposed = answer.read()
        checked = subprocess.run([promtool, "check", "metrics"], input=exposed, capture_output=True)
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
        assert f'bandit_upstream_failures_total{{arm="{DOWN}"'.encode() in exposed
        names = set(re.findall(r"^# TYPE (bandit_\w+)", exposed.decode(), re.MULTILINE))
        in_panels = set().union(*(_metrics_of(expr) for _, expr in _queries()))
        assert names - in_panels == set(panels.NOT_SHOWN)
        assert not names & OF_REPLICAS

        def evaluated() -> list[Any]:
            groups = asked(watching, "rules")["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            return rules if all(rule["health"] == "ok" for rule in rules) else []

        rules = _until("an evaluation of every rule without fault", evaluated)
        assert len(rules) >= 12
        firing = [rule for rule in rules if rule.get("state") == "firing"]
        assert [rule["name"] for rule in firing if rule["labels"]["severity"] == "page"] == []
        exemplars = _until(
            "an exemplar",
            lambda: asked(
                watching,
                "query_exemplars",
                query="bandit_decision_stage_seconds_bucket",
                start="2000-01-01T00:00:00Z",
                end="2100-01-01T00:00:00Z",
            ),
        )
        assert set(exemplars[0]["exemplars"][0]["labels"]) == {"decision_id"}


def test_the_committed_dashboards_are_the_generated_ones() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in dashboards.OUT.iterdir()}
    assert committed == dashboards.generated(), "run make dashboards"
    for text in committed.values():
        shown = json.loads(text)["panels"]
        assert len({panel["id"] for panel in shown}) == len(shown)
        for panel in shown:
            assert panel["type"] == "row" or panel["targets"]
            for target in panel.get("targets") or ():
                names = re.findall(r"\b(?:bandit|process)_[a-z0-9_]+(\{?)", target["expr"])
                assert target["expr"].count('{instance=~"$instance"') == len(names)


def test_every_metric_is_in_a_panel_or_listed_as_not_shown() -> None:
    shown = set().union(*(_metrics_of(expr) for _, expr in _queries()))
    assert {each.name for each in CATALOGUE} - shown == set(panels.NOT_SHOWN)
    assert shown >= OF_REPLICAS


def test_the_page_of_metrics_has_what_the_code_has() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    for each in CATALOGUE:
        labels = ", ".join(each.labels)
        assert f"| `{each.name}` | {each.kind} | {labels} | {each.help} |" in page


_INTERRUPTED = """
import os, signal, sys
from contextlib import suppress
from loadtest import monitor

signal.signal(signal.SIGINT, monitor.end)
with suppress(monitor.Ended):
    exec("os.kill(os.getpid(), signal.SIGINT)\\nfor _ in range(9): pass")
print("ended")
sys.exit(0)
"""


def test_an_interrupt_within_code_made_of_a_text_ends_cleanly_too(tmp_path: Path) -> None:
    """As it came while a class was made in an import, if rarely, in the next test."""
    (tmp_path / "interrupted.py").write_text(_INTERRUPTED, encoding="utf-8")
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr


def test_make_monitor_ends_cleanly_on_an_interrupt(tmp_path: Path, models: Path) -> None:
    tool("prometheus")
    (tmp_path / "models").symlink_to(models, target_is_directory=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtest.monitor", "--data-dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    lines = list(takewhile(lambda line: not line.startswith("Ctrl-C"), process.stdout))
    assert any("http://127.0.0.1:" in line for line in lines), process.communicate()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them at once
    rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, "ended\n"), errors
