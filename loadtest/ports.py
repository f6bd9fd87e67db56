"""Ports of loopback for servers that must be told theirs."""

from __future__ import annotations

import secrets
import socket

# Below those that Linux takes for outgoing connections (from 32768): no connection gets one
# between the moment when it was found free and the moment when its server listens.
_PORTS = range(10_000, 32_768)
_given: set[int] = set()


def free_port() -> int:
    """One that nobody has now and that this process was not given before."""
    for port in secrets.SystemRandom().sample(_PORTS, len(_PORTS)):
        if port in _given:
            continue
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise OSError(f"no port of {_PORTS.start} to {_PORTS.stop - 1} is free")
