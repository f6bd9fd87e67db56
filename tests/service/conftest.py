"""A running service for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.service.running import Client, serving


@pytest.fixture
async def client(tmp_path: Path, models: Path) -> AsyncIterator[Client]:
    """A fresh service with the embedded defaults."""
    async with serving(tmp_path / "var", models) as running:
        yield running
