"""A PostgreSQL of one's own on loopback, from the programs of the distribution."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loadtest.ports import free_port

INSTALL = "postgresql is not there: apt-get install --no-install-recommends postgresql"
_STARTS_S = 30.0


class PostgresFailed(Exception):
    """It did not start."""


def programs() -> Path | None:
    """The directory with `initdb` and `postgres`, the newest one there is; None without them."""
    versions = [each.parent for each in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if versions:
        return max(versions, key=lambda each: int(each.parent.name))
    found = shutil.which("initdb")
    return None if found is None or shutil.which("postgres") is None else Path(found).parent


def _verifier(password: str) -> str:
    """What the server keeps of a password, with one iteration in place of 4096: the password is
    random, and every connection computes them, 18 ms in the driver.
    """
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    kept = (salt, stored, hmac.digest(salted, b"Server Key", "sha256"))
    return "SCRAM-SHA-256$1:{}${}:{}".format(*(base64.b64encode(each).decode() for each in kept))


class Postgres:
    """A server in a directory of its own; `kill` and `start` as often as is wanted."""

    def __init__(self, directory: Path, programs_in: Path) -> None:
        self._directory, self._bin = directory, programs_in
        self._password = secrets.token_hex(8)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        secret = directory / "password"
        secret.write_text(_verifier(self._password))
        self._own(directory, secret)
        self._run(
            "initdb",
            "-D",
            str(self._data),
            "-U",
            "bandit",
            "--auth=scram-sha-256",
            f"--pwfile={secret}",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        )
        self.start()

    @property
    def dsn(self) -> str:
        """What a client connects by."""
        return f"postgresql://bandit:{self._password}@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._bin / "postgres"),
                    "-D",
                    str(self._data),
                    "-p",
                    str(self.port),
                    "-c",
                    "listen_addresses=127.0.0.1",
                    "-c",
                    f"unix_socket_directories={self._directory}",
                    "-c",
                    "shared_buffers=32MB",
                    "-c",
                    "max_connections=50",
                ],
                stdout=log,
                stderr=log,
                cwd=self._directory,
                start_new_session=True,
                **_user(),
            )
        last = time.monotonic() + _STARTS_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > last:
                self.stop()
                told = (self._directory / "server.log").read_text(errors="replace")[-2000:]
                raise PostgresFailed("postgres did not start\n" + told)
            time.sleep(0.02)

    def set(self, name: str, value: str) -> None:
        """Change a setting, for those who connect from now on, too."""
        for statement in (f"ALTER SYSTEM SET {name} = '{value}'", "SELECT pg_reload_conf()"):
            self._run("psql", "-q", "-o", "/dev/null", "-d", self.dsn, "-c", statement)

    def stop(self) -> None:
        """End it; whoever is connected is cut off."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a power cut would: what was not flushed is not looked after."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def _ready(self) -> bool:
        assert self._process is not None
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return lines[:1] == [str(self._process.pid)] and lines[-1].strip() in ("ready", "standby")

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._bin / name), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self._directory,
            **_user(),
        )
        if done.returncode:
            raise PostgresFailed(f"{name} failed\n{done.stdout[-1000:]}{done.stderr[-1000:]}")

    def _own(self, *paths: Path) -> None:
        if os.geteuid() == 0:
            for path in paths:
                shutil.chown(path, _USER, _USER)


class Standby(Postgres):
    """A copy of a server that runs, which follows it until it is promoted."""

    def __init__(self, directory: Path, primary: Postgres, port: int = 0) -> None:
        """port: where it is to listen, such as that of a server that is gone; 0 for a free one."""
        self._directory, self._bin = directory, primary._bin
        self._password = primary._password
        self.port = port or free_port()
        self._process = None
        directory.mkdir()
        self._own(directory)
        # -R: it follows the server that it is copied from
        self._run("pg_basebackup", "-D", str(self._data), "-d", primary.dsn, "-R", "-c", "fast")
        self.start()

    def promote(self) -> None:
        """From now on it accepts writes."""
        self._run("pg_ctl", "promote", "-w", "-D", str(self._data))


@contextmanager
def of_servers() -> Iterator[Path]:
    """A directory for the files of servers, which do not run as root."""
    with tempfile.TemporaryDirectory(prefix="bandit-pg-") as directory:
        whole = Path(directory)
        whole.chmod(0o755)
        yield whole


@contextmanager
def with_standby() -> Iterator[tuple[Postgres, Standby]]:
    """A server and its standby, without which it acknowledges nothing."""
    with running() as primary, of_servers() as directory:
        standby = Standby(directory / "standby", primary)
        try:
            primary.set("synchronous_standby_names", "*")
            yield primary, standby
        finally:
            standby.stop()


_USER = "postgres"


def _user() -> dict[str, Any]:
    """It does not run as root; the distribution's package made a user for it."""
    if os.geteuid() != 0:
        return {}
    who = pwd.getpwnam(_USER)
    return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}


@contextmanager
def running() -> Iterator[Postgres]:
    """A new server on a free port, gone at the end with all that was in it."""
    found = programs()
    if found is None:
        raise PostgresFailed(INSTALL)
    with tempfile.TemporaryDirectory(prefix="bandit-pg-") as directory:
        server = Postgres(Path(directory), found)
        try:
            yield server
        finally:
            server.stop()
