"""One browser and one service for all tests of the page, and a page that forgives no error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.request import Request, urlopen

import pytest
import pytest_asyncio

from loadtest.browser import ARGS, INSTALL, executable, installed
from tests.service.running import Process, a_vector
from tests.tools import missing

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

PICTURES = Path(__file__).parents[2] / "build" / "web"
EVIL = '<img src=x onerror="document.title=1"><script>alert(1)<script>'
ARMS = [
    {"id": "small", "usd_per_mtok_in": 0.1, "usd_per_mtok_out": 0.1, "capabilities": ["json"]},
    {"id": "large", "usd_per_mtok_in": 2.0, "usd_per_mtok_out": 9.0, "capabilities": ["json"]},
    {"id": EVIL, "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 1.0},
]
Opened: TypeAlias = "Callable[..., Awaitable[Page]]"


class Service:
    """A running service, asked without a browser."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The JSON answer to one request."""
        data = None if body is None else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        with urlopen(Request(self.url + path, data, given, method=method)) as answer:
            return json.load(answer)

    def serve(self, n: int, first: int = 0) -> list[str]:
        """Decide and reward `n` queries; the ids of the decisions."""
        made = []
        for i in range(first, first + n):
            decided = self.call("POST", "/v1/decide", {"embedding": a_vector(i), "unit": f"u{i}"})
            made.append(decided["decision_id"])
            usd = decided["expected"]["cost_usd"]
            signals = {"quality": (i % 5) / 4, "cost_usd": usd, "latency_s": 0.5}
            self.call("POST", "/v1/rewards", {"decision_id": made[-1], **signals})
        return made


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    if not installed():
        missing(INSTALL)
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=executable(), args=ARGS)
        yield running
        await running.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service(
    chromium: Browser, tmp_path_factory: pytest.TempPathFactory, models: Path
) -> AsyncIterator[Service]:
    """A service with a little traffic, of which one arm's name would like to be a script."""
    process = Process(
        tmp_path_factory.mktemp("page") / "var",
        models,
        BANDIT_ARMS=json.dumps(ARMS),
        BANDIT_BUDGETS=json.dumps([{"scope": "service", "per": "month", "usd": 1000.0}]),
    )
    running = Service(await process.url())
    running.serve(60)
    running.call(
        "POST", "/v1/comparisons", {"embedding": a_vector(1), "winner": "large", "loser": "small"}
    )
    yield running
    assert await asyncio.to_thread(process.stop) == 0


@pytest_asyncio.fixture(loop_scope="session")
async def opened(chromium: Browser) -> AsyncIterator[Opened]:
    """Open an address in a context of its own; at the end nothing may have gone wrong in it."""
    contexts, wrong = [], []

    async def open_page(
        url: str, width: int = 1360, scheme: str = "light", **tolerated: bool
    ) -> Page:
        context = await chromium.new_context(
            viewport={"width": width, "height": 900},
            reduced_motion="reduce",
            color_scheme="dark" if scheme == "dark" else "light",
        )
        contexts.append(context)
        page = await context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
        page.on("request", lambda sent: wrong.append(sent.url) if _abroad(sent.url, url) else None)
        if not tolerated.get("failures"):
            page.on(
                "console",
                lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None,
            )
        await page.goto(url)
        return page

    yield open_page
    for context in contexts:
        await context.close()
    assert wrong == []


def _abroad(sent: str, url: str) -> bool:
    """Whether a request goes to another origin than the page's."""
    return sent.split("/")[2] != url.split("/")[2]
