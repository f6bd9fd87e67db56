"""The profile of `make fuzz`, and one service that all tests of a file shake."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.service.running import Process

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
        tmp_path_factory.mktemp("fuzz") / "var", models, BANDIT_LOG_LEVEL="warning",
        BANDIT_SERVER_MAX_FRAME_BYTES="65536",
    )  # fmt: skip
    try:
        asyncio.run(running.url())
        yield running
    finally:
        assert running.stop() == 0
    told = running.log_path.read_text()
    assert "internal error" not in told, told
    assert "Traceback" not in told, told
