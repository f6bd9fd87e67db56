"""What keeps the log of `loadtest.scale`: a PostgreSQL, or three NATS servers, of its own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

import psutil

from loadtest import nats, postgres
from loadtest.relay import Relay, through

NAMES = ("postgres", "jetstream")
FAILOVER = "postgres with a synchronous standby"
"""For `running`: to kill its server is to lose it, and to start it is to promote the standby."""


@dataclass(frozen=True, slots=True)
class Engine:
    """environ: the settings of a replica on it. kill: with -9, one server of it, by a number.
    start: what was killed. pids: of the processes of its servers, one list for each. ports: where
    each is reached. relays: a replica's own, through which it reaches them, if it is `cut_able`.
    """

    environ: dict[str, str]
    kill: Callable[[int], None]
    start: Callable[[], None]
    pids: Callable[[], list[int]]
    ports: tuple[int, ...]
    relays: tuple[Relay, ...] = ()

    @property
    def address(self) -> str:
        """Of its servers, with the password."""
        return self.environ["SCALE_DSN"]

    @asynccontextmanager
    async def cut_able(self) -> AsyncIterator[Engine]:
        """The same for one replica, which reaches it through relays of its own."""
        relays = tuple(Relay(port) for port in self.ports)
        async with AsyncExitStack() as open_until_then:
            for each in relays:
                await open_until_then.enter_async_context(each.listening())
            environ = self.environ | {"SCALE_DSN": through(self.address, relays, self.ports)}
            yield replace(self, environ=environ, relays=relays)

    async def cut(self, seconds: float) -> None:
        """Nothing goes to this replica's servers and back for so long."""
        for each in self.relays:
            each.hold()
        await asyncio.sleep(seconds)
        for each in self.relays:
            each.let_go()

    async def stand_still(self, number: int, seconds: float) -> None:
        """One server stands still for so long, with all of its processes."""
        pids = self.pids()
        process = psutil.Process(pids[number % len(pids)])
        for each in (process, *process.children(recursive=True)):
            each.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        for each in (process, *process.children(recursive=True)):
            each.send_signal(signal.SIGCONT)


def missing(name: str) -> str:
    """How to install what is not there; empty where all is."""
    if name in ("postgres", FAILOVER):
        return "" if postgres.programs() is not None else postgres.INSTALL
    return "" if nats.program() is not None else nats.INSTALL


@contextmanager
def running(name: str) -> Iterator[Engine]:
    """Gone at the end with all that was in it."""
    if name == "postgres":
        with postgres.running() as server:
            yield Engine(
                _settings(name, server.dsn),
                lambda _: server.kill(),
                server.start,
                lambda: [server.pid],
                (server.port,),
            )
        return
    if name == FAILOVER:
        with postgres.with_standby() as (primary, standby):
            hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
            dsn = primary.dsn.replace(f"127.0.0.1:{primary.port}", hosts)
            yield Engine(
                _settings("postgres", f"{dsn}?target_session_attrs=read-write"),
                lambda _: primary.kill(),
                standby.promote,
                lambda: [primary.pid],
                (primary.port, standby.port),
            )
        return
    with nats.running(3) as servers:

        def kill(number: int) -> None:
            servers.servers[number % len(servers.servers)].kill()

        yield Engine(
            _settings(name, servers.address),
            kill,
            servers.start,
            lambda: [each.pid for each in servers.servers if not each.ended],
            tuple(each.port for each in servers.servers),
        )


def _settings(engine: str, address: str) -> dict[str, str]:
    return {
        "BANDIT_LOG_ENGINE": engine,
        "BANDIT_LOG_DSN_ENV": "SCALE_DSN",
        "SCALE_DSN": address,
    }
