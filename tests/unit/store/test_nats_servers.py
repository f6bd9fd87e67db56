"""The NATS servers that the tests and benchmarks start."""

from __future__ import annotations

import socket

import pytest

from loadtest import nats
from loadtest.ports import free_port
from tests import shared_log


def test_servers_start_although_a_chosen_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """One test run in some hundred failed: with one route's port taken no leader was elected."""
    shared_log.nats_wanted()

    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [free_port(), taken.getsockname()[1]]
        monkeypatch.setattr(
            "loadtest.nats.free_port", lambda: ports.pop(0) if ports else free_port()
        )
        with nats.running(3) as servers:
            assert all(each.healthy() for each in servers.servers)
    assert all(each.ended for each in servers.servers)
