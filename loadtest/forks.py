"""A process that has imported the service, and forks one whenever it is asked.

To import the service costs a second of a processor, and the tests and the kills of
`loadtest.chaos` start it hundreds of times. What is forked is as real as what is started: it has a
process of its own, its own settings and its own end, and can be killed. Run as a module this is
that process; a line of standard input is a request, a line of standard output the number of the
process that it became.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
from functools import cache, partial
from importlib import import_module
from pathlib import Path

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux: who asked becomes the parent of what was forked

# What a service imports only when it is there to be needed, and always needs.
_LATE = ("onnxruntime", "policies.nested", "river.drift.page_hinkley", "sqlite3", "store.sqlite",
         "tokenizers")  # fmt: skip


class Forked:
    """As much of `subprocess.Popen` as is used here, for a child that something else forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, −n for signal n; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once there is one."""
        last = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if last is not None and time.monotonic() > last:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)


def fork(
    arguments: list[str],
    environ: dict[str, str],
    log: Path,
    descriptors: int = 0,
    out: Path | None = None,
    session: bool = False,
) -> Forked:
    """`bandit-service` with these arguments and nothing but this environment.

    log: what it says on both outputs is added there. descriptors: its `ulimit -n`, where that is
    not to be this process's. out: what it says on standard output goes there instead. session: a
    terminal's Ctrl-C is not for it.
    """
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    files = (descriptors,) * 2 if descriptors else resource.getrlimit(resource.RLIMIT_NOFILE)
    asked = {
        "arguments": arguments,
        "environ": environ,
        "log": str(log),
        "out": str(out or log),
        "files": files,
        "session": session,
    }
    server.stdin.write(json.dumps(asked) + "\n")
    server.stdin.flush()
    return Forked(int(server.stdout.readline()))


def start(
    arguments: list[str], environ: dict[str, str], log: Path, descriptors: int = 0
) -> subprocess.Popen[bytes]:
    """The same, started from nothing."""
    command = [sys.executable, "-m", "bandit_service.cli", *arguments]
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (descriptors,) * 2)
    with log.open("ab") as said:
        return subprocess.Popen(
            command,
            env=environ,
            stdout=said,
            stderr=said,
            preexec_fn=few if descriptors else None,
        )


@cache
def _server() -> subprocess.Popen[str]:
    ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0)
    command = [sys.executable, "-m", "loadtest.forks"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(_end, server)
    return server


def _end(server: subprocess.Popen[str]) -> None:
    server.kill()
    server.communicate()


def _serve() -> int:
    """Until standard input ends; in a forked process what the service's command came to."""
    from bandit_service.app import service  # noqa: F401 - all that it imports
    from bandit_service.cli import main, serving  # noqa: F401
    from bandit_service.cli.commands import serve  # noqa: F401

    for late in _LATE:
        import_module(late)

    gc.collect()
    gc.freeze()  # what is forked need not look at all this, nor copy it
    while line := sys.stdin.readline():
        told, tell = os.pipe()
        between = os.fork()
        if between:
            os.waitpid(between, 0)  # only then is what it forked a child of who asked
            os.close(tell)
            os.write(1, os.read(told, 32))
            os.close(told)
            continue
        pid = os.fork()
        if pid:
            os.write(tell, f"{pid}\n".encode())
            os._exit(0)
        asked = json.loads(line)
        nothing = os.open(os.devnull, os.O_RDONLY)
        out, log = (
            os.open(asked[name], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            for name in ("out", "log")
        )
        for number, file in enumerate((nothing, out, log)):
            os.dup2(file, number)
        os.closerange(3, max(nothing, out, log, tell) + 1)
        if asked["session"]:
            os.setsid()
        resource.setrlimit(resource.RLIMIT_NOFILE, tuple(asked["files"]))
        os.environ.clear()  # noqa: TID251 - the command's, as if it had been started with it
        os.environ.update(asked["environ"])  # noqa: TID251
        sys.argv[1:] = asked["arguments"]
        code = main(asked["arguments"])
        gc.freeze()  # nor does its end, which would look at all of it once more
        return code
    return 0


if __name__ == "__main__":
    sys.exit(_serve())
