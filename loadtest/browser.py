"""A headless Chromium of the machine, driven by Playwright, which downloads nothing here."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

INSTALL = (
    "Chromium or playwright is not there: apt-get install --no-install-recommends chromium, and "
    "make setup"
)
_NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars",
]  # fmt: skip


def executable() -> str | None:
    """Where the browser is."""
    found = (shutil.which(name) for name in _NAMES)
    return next((path for path in found if path is not None), None)


def installed() -> bool:
    """Whether there is a browser and what drives it."""
    return executable() is not None and importlib.util.find_spec("playwright") is not None


@contextmanager
def browser() -> Iterator[Browser]:
    """A running browser, ended at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable(), args=ARGS)
        try:
            yield running
        finally:
            running.close()
