"""Chromium with a page of another origin, and with names that lead here: none changes anything.

At commit 5a5a85b, in this browser, from a page of `http://evil.example`: `new WebSocket` to
127.0.0.1 was opened and its decides were answered, and a name that led to 127.0.0.1 retired an arm
by `fetch(..., {method: "DELETE"})`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from aiohttp import web

from loadtest.browser import ARGS, INSTALL, executable, installed
from tests.service.running import Process
from tests.tools import missing
from tests.web.conftest import Service

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="session")
NAMES = ("evil.example", "other.example", "router.example")
RESOLVED = "--host-resolver-rules=" + ",".join(f"MAP {name} 127.0.0.1" for name in NAMES)
# What newer browsers do against such pages is off: the service must not need it.
UNGUARDED = (
    "--disable-features=HttpsUpgrades,LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests"
)
TARGETS = ("127.0.0.1", "localhost", "0.0.0.0", "[::1]", "evil.example", "other.example",
           "router.example")  # fmt: skip
"""Loopback, every address, the page's own name on our port, and a configured plain-http name."""

ATTACK = """async ([at, arm]) => {
  const spec = JSON.stringify({usd_per_mtok_in: 1, usd_per_mtok_out: 1});
  const told = {};
  const tried = async (name, path, given) => {
    try {
      const answer = await fetch(at + path, given);
      told[name] = answer.type === "opaque" ? "opaque" : answer.status;
    } catch { told[name] = "failed"; }
  };
  await tried("post", "/v1/arms", {method: "POST", mode: "no-cors", body: spec});
  await tried("decide", "/v1/decide", {method: "POST", mode: "no-cors", body: '{"query": "hi"}'});
  await tried("snapshot", "/v1/snapshots", {method: "POST", mode: "no-cors"});
  await tried("put", "/v1/arms/evil", {method: "PUT", body: spec});
  await tried("delete", "/v1/arms/" + arm, {method: "DELETE"});
  await tried("read", "/v1/arms", {});
  for (const sandbox of [false, true]) {
    const frame = document.createElement("iframe");
    if (sandbox) frame.sandbox = "allow-forms allow-scripts";
    frame.srcdoc = `<form method=post enctype=text/plain action="${at}/v1/decide">
      <input name='{"query":"hi","unit":"' value='"}'></form>
      <script>onload = () => document.forms[0].submit()</script>`;
    const over = new Promise(done => { let n = 0; frame.onload = () => { if (++n == 2) done(); };
      setTimeout(done, 3000); });
    document.body.append(frame);
    await over;
  }
  const url = at.replace("http", "ws") + "/v1/stream";
  told.socket = await new Promise(done => {
    const socket = new WebSocket(url, "bandit.v1");
    socket.onopen = () => done("open");
    socket.onclose = () => done("refused");
  });
  return told;
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def misled() -> AsyncIterator[Browser]:
    """A browser whose resolver says of some names that they are this machine."""
    if not installed():
        missing(INSTALL)
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(
            executable_path=executable(), args=[*ARGS, RESOLVED, UNGUARDED]
        )
        yield running
        await running.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running(
    tmp_path_factory: pytest.TempPathFactory, models: Path
) -> AsyncIterator[dict[str, Service]]:
    """Services without keys and with one name: on every address of version 4, and on ::1."""
    processes = {
        host: Process(
            tmp_path_factory.mktemp("foreign") / "var",
            models,
            BANDIT_SERVER_HOST=host,
            BANDIT_SERVER_INSECURE="true",
            BANDIT_SERVER_ALLOWED_HOSTS="router.example",
        )
        for host in ("0.0.0.0", "::1")
    }
    urls = {host: await process.url() for host, process in processes.items()}
    yield {host: Service(url.replace("0.0.0.0", "127.0.0.1")) for host, url in urls.items()}
    for process in processes.values():
        assert await asyncio.to_thread(process.stop) == 0


@pytest.fixture
def reached(running: dict[str, Service], target: str) -> Service:
    """The one that listens where the target leads."""
    return running["::1" if target == "[::1]" else "0.0.0.0"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def elsewhere() -> AsyncIterator[str]:
    """The port of another server, with a page that may do what it likes."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(
            text="<!doctype html><title>evil</title><body>", content_type="text/html"
        )

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield site.name.rsplit(":", 1)[1]
    await runner.cleanup()


def _state(service: Service) -> Any:
    return service.call("GET", "/v1/arms")["arms"], _events(service)


def _events(service: Service) -> int:
    return int(service.call("GET", "/readyz")["events"])


@pytest.mark.parametrize("target", TARGETS)
async def test_a_page_of_another_origin_changes_nothing(
    misled: Browser, reached: Service, elsewhere: str, target: str
) -> None:
    before = await asyncio.to_thread(_state, reached)
    at = f"http://{target}:{reached.url.rsplit(':', 1)[1]}"
    page = await misled.new_page()
    await page.goto(f"http://evil.example:{elsewhere}/")
    told = await page.evaluate(ATTACK, [at, before[0][0]["id"]])
    assert told["socket"] == "refused"
    assert {told[name] for name in ("put", "delete", "read")} == {"failed"}
    assert await asyncio.to_thread(_state, reached) == before
    await page.close()


@pytest.mark.parametrize("target", ["evil.example"])
async def test_a_page_that_was_led_here_by_its_own_name_changes_nothing(
    misled: Browser, reached: Service, target: str
) -> None:
    """The name led elsewhere when the page was loaded, and leads here now: same origin."""
    before = await asyncio.to_thread(_state, reached)
    at = f"http://{target}:{reached.url.rsplit(':', 1)[1]}"
    page = await misled.new_page()

    async def first(route: Any) -> None:
        await route.fulfill(body="<!doctype html><body>", content_type="text/html")

    await page.route(at + "/", first, times=1)
    await page.goto(at + "/")
    told = await page.evaluate(ATTACK, [at, before[0][0]["id"]])
    assert told["socket"] == "refused"
    assert {told[name] for name in told if name != "socket"} <= {403, "opaque", "failed"}
    assert told["delete"] == told["put"] == told["read"] == 403
    assert await asyncio.to_thread(_state, reached) == before
    await page.close()


@pytest.mark.parametrize("target", ["127.0.0.1", "localhost", "[::1]", "router.example"])
async def test_the_services_own_page_asks_and_follows(
    misled: Browser, reached: Service, target: str
) -> None:
    at = f"http://{target}:{reached.url.rsplit(':', 1)[1]}"
    page = await misled.new_page()
    await page.goto(at)
    await page.wait_for_selector("#arms tbody tr")  # which came by its stream
    before = await asyncio.to_thread(_events, reached)
    status = await page.evaluate(
        """async () => (await fetch("v1/decide",
            {method: "POST", body: '{"query": "hi"}'})).status"""
    )
    assert status == 200
    assert await asyncio.to_thread(_events, reached) > before
    opened = await page.evaluate(
        """() => new Promise(done => {
            const s = new WebSocket("/v1/stream", "bandit.v1");
            s.onopen = () => done(true); s.onclose = () => done(false); })"""
    )
    assert opened is True
    await page.close()
