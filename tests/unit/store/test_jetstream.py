"""The log in NATS JetStream: what every log must do, and what its streams and servers add."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bandit_service.testing.logs import LogSuite
from loadtest.nats import NatsServers
from store import EventLog
from store.jetstream import MOST, JetStreamLog
from tests.shared_log import Synchronous
from tests.unit.store.shared_suite import Joined, SharedSuite


class TestJetStreamLog(LogSuite):
    durable = True
    address = ""

    @pytest.fixture(autouse=True)
    def _server(self, nats: NatsServers) -> None:
        type(self).address = nats.address

    def make(self, path: Path) -> EventLog:
        return Synchronous(JetStreamLog(self.address, str(path), insecure_single=True), MOST)


class TestSharedJetStream(SharedSuite):
    """By the fixture `joined` below."""


@pytest.fixture
async def joined(nats: NatsServers, tmp_path: Path) -> AsyncIterator[Joined]:
    """Opens replicas of this test's log."""
    logs: list[JetStreamLog] = []

    async def joining(name: str, key: str = "key", log: str = "") -> JetStreamLog:
        opened = JetStreamLog(nats.address, f"{tmp_path}{log}", insecure_single=True)
        logs.append(opened)
        await opened.connect()
        await opened.join(name, key)
        return opened

    yield joining
    for log in logs:
        await log.close()
