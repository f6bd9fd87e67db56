"""The profile of `make fuzz`, and one service that all tests of a file shake."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from loadtest.sections import put_section
from tests.fuzz.effort import is_long, left_out
from tests.service.running import Process

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
_COUNTS = re.compile(r"(\d+) passing, (\d+) failing")

settings.register_profile(
    "fuzz",
    max_examples=10_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Process]:
    """A real service; at the end it stops in order, and its log has no error of ours."""
    running = Process(
        tmp_path_factory.mktemp("fuzz") / "var",
        models,
        BANDIT_LOG_LEVEL="warning",
        BANDIT_SERVER_MAX_FRAME_BYTES="65536",
        BANDIT_MONITORING_MAX_LISTENERS="0",  # an answer of ten minutes is no example
    )
    try:
        asyncio.run(running.url())
        yield running
    finally:
        assert running.stop() == 0
    told = running.log_path.read_text()
    assert "internal error" not in told, told
    assert "Traceback" not in told, told


def pytest_sessionfinish(session: pytest.Session) -> None:
    """After the long way, what was tried goes into the page on reliability; not of a part of it."""
    if not is_long():
        return
    rows = []
    for item in session.items:
        said = dict(item.user_properties).get("tried") or getattr(item, "hypothesis_statistics", "")
        # failing ones are counted while the least of them is looked for, so they are no figure
        if counts := _COUNTS.search(str(said)):
            rows.append(f"| `{item.name}` | {int(counts[1]):,} | {int(counts[2]) and 'yes'} |")
    if rows and not left_out(item.name for item in session.items):
        head = ["| test | examples | failed |", "|---|--:|---|"]
        put_section(PAGE, "fuzz", "\n".join(head + rows).replace("| 0 |", "| no |"))
