"""What keeps the log of `loadtest.scale`: a PostgreSQL, or three NATS servers, of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from loadtest import nats, postgres

NAMES = ("postgres", "jetstream")


@dataclass(frozen=True, slots=True)
class Engine:
    """environ: the settings of a replica on it. kill: with -9, one server of it, by a number.
    start: what was killed.
    """

    environ: dict[str, str]
    kill: Callable[[int], None]
    start: Callable[[], None]

    @property
    def address(self) -> str:
        """Of its servers, with the password."""
        return self.environ["SCALE_DSN"]


def missing(name: str) -> str:
    """How to install what is not there; empty where all is."""
    if name == "postgres":
        return "" if postgres.programs() is not None else postgres.INSTALL
    return "" if nats.program() is not None else nats.INSTALL


@contextmanager
def running(name: str) -> Iterator[Engine]:
    """Gone at the end with all that was in it."""
    if name == "postgres":
        with postgres.running() as server:
            yield Engine(_settings(name, server.dsn), lambda _: server.kill(), server.start)
        return
    with nats.running(3) as servers:

        def kill(number: int) -> None:
            servers.servers[number % len(servers.servers)].kill()

        yield Engine(_settings(name, servers.address), kill, servers.start)


def _settings(engine: str, address: str) -> dict[str, str]:
    return {
        "BANDIT_LOG_ENGINE": engine,
        "BANDIT_LOG_DSN_ENV": "SCALE_DSN",
        "SCALE_DSN": address,
    }
