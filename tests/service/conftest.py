"""A running service for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.service.dialects import Provider
from tests.service.dialects import running as both
from tests.service.running import Client, serving


@pytest.fixture
async def client(tmp_path: Path, models: Path) -> AsyncIterator[Client]:
    """A fresh service with the embedded defaults."""
    async with serving(tmp_path / "var", models) as running:
        yield running


@pytest.fixture(scope="session")
def dialects(
    tmp_path_factory: pytest.TempPathFactory, models: Path
) -> Iterator[tuple[str, Provider]]:
    with both(tmp_path_factory.mktemp("fronts"), models) as made:
        yield made


@pytest.fixture
def provider(dialects: tuple[str, Provider]) -> Iterator[Provider]:
    dialects[1].how = ""
    yield dialects[1]
    dialects[1].how = ""
