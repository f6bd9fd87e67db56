"""Ports of loopback for servers that must be told theirs."""

from __future__ import annotations

import socket


def free_port() -> int:
    """One that nobody has now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
