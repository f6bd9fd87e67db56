"""A Prometheus of its own beside a service: on a free loopback port, in its own directory."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loadtest.ports import free_port

RULES = Path(__file__).parents[1] / "deploy" / "prometheus" / "rules.yaml"
INSTALL = "prometheus is not there: apt-get install --no-install-recommends prometheus"
_START_S, _STOP_S = 30.0, 15.0


class PrometheusFailed(Exception):
    """It is not there, did not start, or refused a query; the message says why."""


def installed() -> bool:
    """Whether there is a prometheus to start."""
    return shutil.which("prometheus") is not None


@contextmanager
def prometheus(service: str, directory: Path, interval: str = "1s") -> Iterator[str]:
    """The URL of a Prometheus that scrapes the service at this URL; stopped at the end."""
    if not installed():
        raise PrometheusFailed(INSTALL)
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {
                "job_name": "bandit-service",
                "static_configs": [{"targets": [urllib.parse.urlsplit(service).netloc]}],
            }
        ],
    }
    written = directory / "prometheus.yml"
    written.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    address = f"127.0.0.1:{free_port()}"
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={written}",
                f"--web.listen-address={address}",
                f"--storage.tsdb.path={directory / 'data'}",
                "--enable-feature=exemplar-storage",
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for this program, which ends it
        )
    try:
        url = f"http://{address}"
        deadline = time.monotonic() + _START_S
        while not _ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                output = (directory / "prometheus.log").read_text(encoding="utf-8")
                raise PrometheusFailed("prometheus did not start\n" + output[-2000:])
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def asked(url: str, path: str, **parameters: str) -> Any:
    """The data of one call of its HTTP API. PrometheusFailed says what was wrong with it."""
    query = urllib.parse.urlencode(parameters)
    try:
        with urllib.request.urlopen(f"{url}/api/v1/{path}?{query}", timeout=10) as answer:  # noqa: S310 - our own address
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise PrometheusFailed(error.read().decode(errors="replace")) from None


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=1) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except OSError:
        return False
