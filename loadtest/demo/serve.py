"""`bandit-service serve` as a process of its own, with the arms of a recording."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bandit_service.core.events import ArmSpec
from bandit_service.settings import PREFIX

_START_S, _STOP_S = 120.0, 30.0


class DemoFailed(Exception):
    """The service did not start, or did not stop; the message has the end of its output."""


def own_data(scratch: Path, data_dir: Path) -> Path:
    """A data directory in `scratch` with the models of `data_dir`, and with nothing else of it.

    Snapshots of a service that was run there are not of this service's log.
    """
    own = scratch / "data"
    own.mkdir()
    (own / "models").symlink_to((data_dir / "models").resolve(), target_is_directory=True)
    return own


def config_of(arms: Sequence[ArmSpec], policy: str, own: Path) -> str:
    """These arms, and a data directory of their own."""
    lines = [
        f"data_dir = {_toml(str(own.absolute()))}",
        'log_level = "warning"',
        "[server]",
        "port = 0",
        "[policy]",
        f"name = {_toml(policy)}",
    ]
    return "\n".join(lines) + "\n" + arms_toml(arms)


def arms_toml(arms: Sequence[ArmSpec]) -> str:
    """The tables of these arms."""
    lines = []
    for arm in arms:
        lines += [
            "[[arms]]",
            f"id = {_toml(arm.id)}",
            f"usd_per_mtok_in = {arm.usd_per_mtok_in!r}",
            f"usd_per_mtok_out = {arm.usd_per_mtok_out!r}",
            f"context_window = {arm.context_window}",
        ]
    return "\n".join(lines) + "\n"


@contextmanager
def serving(config: Path) -> Iterator[str]:
    """The URL of a `bandit-service serve` of its own process, stopped by SIGTERM at the end."""
    ready, output = config.with_name("ready.json"), config.with_name("output.txt")
    with output.open("wb") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "bandit_service.cli",
                "serve",
                "--config",
                str(config),
                "--ready-file",
                str(ready),
            ],
            stdout=file,
            stderr=file,
            env=environment(),
            start_new_session=True,  # Ctrl-C is for this program, which ends it in order
        )
    try:
        deadline = time.monotonic() + _START_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise DemoFailed(f"the service did not start\n{_end_of(output)}")
            time.sleep(0.05)
        yield str(json.loads(ready.read_text(encoding="utf-8"))["url"])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise DemoFailed(f"the service ended with {process.returncode}\n{_end_of(output)}")


def environment() -> dict[str, str]:
    """Ours without settings of a service: the port and the log of the demo are its own."""
    ours = os.environ  # noqa: TID251 - it is handed on, not read
    return {name: text for name, text in ours.items() if not name.startswith(PREFIX)}


def _end_of(output: Path) -> str:
    return "\n".join(output.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
