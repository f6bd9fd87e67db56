"""One service for the tests of the client that need no service of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bandit_client import Client
from tests.service.keyring import Keyring
from tests.service.running import Process

ALL = ["decide", "reward", "read", "admin"]


@dataclass(frozen=True)
class Served:
    url: str
    key: str
    reader: str


@pytest.fixture(scope="session")
def served(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    ring = Keyring(app={"scopes": ALL}, reader={"scopes": ["read"]})
    process = Process(tmp_path_factory.mktemp("client") / "var", models, **ring.environ)
    try:
        yield Served(asyncio.run(process.url()), ring["app"], ring["reader"])
    finally:
        process.kill()


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.url, served.key) as made:
        yield made
