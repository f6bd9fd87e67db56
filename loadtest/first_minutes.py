"""From an empty environment to a changed route, timed: what a newcomer does with a release.

Installs the wheels of `dist` into an empty environment, makes an admin key, starts the service,
decides by the Python client, rewards that decision in a browser, and changes a route on the page.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from loadtest import browser
from loadtest.installed import Wrong, installed, wait_for
from loadtest.ports import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Page

LIMIT_S = 600.0
_CLIENT = """
from bandit_client import Client

with Client() as client:
    decision = client.decide("What is 17 * 23?")
    print(decision.decision_id, decision.arm)
"""
_ROUTE = [{"id": "support-bot", "policy": "knn"}]


def main(argv: list[str] | None = None) -> int:
    """Do it; 0 where all of it came off within the limit."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.first_minutes", description=__doc__)
    parser.add_argument("dist", type=Path, help="the directory that `make dist` wrote")
    args = parser.parse_args(argv)
    if not browser.installed():
        print(browser.INSTALL, file=sys.stderr)
        return 1
    steps = Steps()
    try:
        with tempfile.TemporaryDirectory() as directory:
            _all(args.dist.resolve(), Path(directory), steps)
    except Wrong as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{steps.seconds:8.1f} s  in all, of {LIMIT_S:.0f}")
    return 0 if steps.seconds <= LIMIT_S else 1


class Steps:
    """Prints what each step took."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what is done within."""
        begun = time.monotonic()
        yield
        took = time.monotonic() - begun
        self.seconds += took
        print(f"{took:8.1f} s  {name}", flush=True)


def _all(dist: Path, directory: Path, steps: Steps) -> None:
    with steps.step("install the wheels of the service, the model and the client"):
        python = installed(dist, directory / "environment", "bandit_client")
    command = str(python.parent / "bandit-service")
    with steps.step("make an admin key"):
        scopes = ["--scopes", "decide,reward,read,admin"]
        made = subprocess.run(
            [command, "keys", "new", "--id", "ops", *scopes], check=True, capture_output=True
        )
        config = directory / "bandit.toml"
        config.write_bytes(made.stdout)
        config.chmod(0o600)
        secret = made.stdout.decode().partition("shown only now: ")[2].split()[0]
    port = free_port()
    url, log = f"http://127.0.0.1:{port}", directory / "log"
    serve = [command, "serve", "--config", str(config), "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(serve, cwd=directory, env={}, stdout=out, stderr=out)
    try:
        with steps.step("start the service"):
            wait_for(f"{url}/readyz", process, log)
        with steps.step("the first decision, by the client"):
            asked = {"BANDIT_URL": url, "BANDIT_KEY": secret, "PATH": os.defpath}
            told = subprocess.run(
                [str(python), "-c", _CLIENT], check=True, capture_output=True, env=asked
            )
            id, _ = told.stdout.decode().split()
        with browser.browser() as running:
            page = running.new_page()
            with steps.step("its first reward, by a click in the browser"):
                _reward(page, url, secret, id)
            with steps.step("a route made, by the page"):
                _route(page)
    finally:
        process.terminate()
        process.wait(60)


def _reward(page: Page, url: str, secret: str, id: str) -> None:
    page.goto(f"{url}/#decisions={id}")
    page.fill("#dialog-key", secret)
    page.click('#dialog button[type="submit"]')
    page.click("#why .reward >> text=Good")
    page.wait_for_selector("text=Quality 1 was learned.")


def _route(page: Page) -> None:
    page.click('nav a[href="#settings"]')
    page.select_option("#section", "routes")
    page.fill("#section-text", json.dumps(_ROUTE))
    page.click('#sections-panel button[type="submit"]')
    page.fill("#dialog-why", "the first route")
    page.click('#dialog button[type="submit"]')
    page.wait_for_selector("#revisions >> text=the first route")


if __name__ == "__main__":
    sys.exit(main())
