"""What the page changes: arms, the policy and experiments, each after a confirmation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.service.provider import until
from tests.service.running import Process
from tests.web.conftest import PICTURES, Opened, Service

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def changed(
    chromium: Browser, tmp_path_factory: pytest.TempPathFactory, models: Path
) -> AsyncIterator[Service]:
    """A service of its own, since these tests change it."""
    process = Process(tmp_path_factory.mktemp("settings") / "var", models)
    running = Service(await process.url())
    await asyncio.to_thread(running.serve, 20)
    yield running
    assert await asyncio.to_thread(process.stop) == 0


async def _settings(opened: Opened, service: Service, **more: bool) -> Page:
    page = await opened(f"{service.url}/#settings", **more)
    await page.wait_for_selector("#arms-panel tbody tr")
    return page


def _arm(service: Service, id: str) -> dict[str, object]:
    arms = service.call("GET", "/v1/arms")["arms"]
    found: dict[str, object] = next(arm for arm in arms if arm["id"] == id)
    return found


async def test_an_arm_is_added_changed_retired_and_offered_again(
    changed: Service, opened: Opened
) -> None:
    page = await _settings(opened, changed, failures=True)
    await page.get_by_role("button", name="Add an arm").click()
    await page.fill("#dialog-id", "fresh")
    await page.fill("#dialog-usd_per_mtok_in", "1.5")
    await page.fill("#dialog-usd_per_mtok_out", "6")
    await page.fill("#dialog-capabilities", "json, tools")
    await page.fill("#dialog-upstream", "nowhere")
    await page.click('#dialog button[type="submit"]')
    # refused as a whole: the dialog says why, and nothing was added
    await page.locator("#dialog [role=alert]", has_text="nowhere").wait_for()
    assert not any(arm["id"] == "fresh" for arm in changed.call("GET", "/v1/arms")["arms"])
    await page.fill("#dialog-upstream", "")
    await page.click('#dialog button[type="submit"]')
    await page.get_by_role("button", name="Change fresh").wait_for()
    arm = _arm(changed, "fresh")
    assert (arm["usd_per_mtok_in"], arm["capabilities"]) == (1.5, ["json", "tools"])
    changed.call("PUT", "/v1/arms/fresh", _spec(arm) | {"max_running": 7})
    await page.reload()
    await page.get_by_role("button", name="Change fresh").click()
    await page.fill("#dialog-usd_per_mtok_in", "90")
    await page.click('#dialog button[type="submit"]')
    await page.get_by_text("$90.00 in, $6.00 out").wait_for()
    assert _arm(changed, "fresh")["max_running"] == 7  # what the dialog does not show stays
    await page.get_by_role("button", name="Retire fresh").click()
    await page.click('#dialog button:text("Cancel")')
    assert not _arm(changed, "fresh")["retired"]
    await page.get_by_role("button", name="Retire fresh").click()
    await page.click('#dialog button[type="submit"]')
    await page.get_by_role("button", name="Offer again fresh").click()
    await page.screenshot(path=PICTURES / "settings-dialog.png")
    assert _arm(changed, "fresh")["retired"]
    await page.click('#dialog button[type="submit"]')
    await page.get_by_role("button", name="Retire fresh").wait_for()
    assert _spec(_arm(changed, "fresh"))["max_running"] == 7


def _spec(arm: dict[str, object]) -> dict[str, object]:
    told = ("retired", "source", "observed", "health")
    return {name: value for name, value in arm.items() if name not in told}


async def test_another_policy_is_trained_and_then_decides(changed: Service, opened: Opened) -> None:
    page = await _settings(opened, changed)
    await page.select_option("#next-policy", "knn")
    await page.fill("#next-parameters", "no json")
    await page.click('#policy-panel button[type="submit"]')
    await page.get_by_text("this is no JSON object").wait_for()
    await page.fill("#next-parameters", '{"neighbours": 5}')
    await page.click('#policy-panel button[type="submit"]')
    await page.click('#dialog button[type="submit"]')

    async def decides() -> bool:
        serving = (await asyncio.to_thread(changed.call, "GET", "/v1/policies"))["serving"]
        return bool(serving["name"] == "knn" and serving["parameters"]["neighbours"] == 5)

    await until(decides)
    await page.locator("#policy-panel strong", has_text="knn").wait_for()


async def test_an_experiment_is_made_and_started(changed: Service, opened: Opened) -> None:
    page = await opened(f"{changed.url}/#experiments")
    await page.get_by_role("button", name="New experiment").click()
    await page.fill("#dialog-id", "first-try")
    await page.fill("#dialog-policy", "eagle")
    await page.fill("#dialog-share", "0.25")
    await page.fill("#dialog-why", "to see")
    await page.click('#dialog button[type="submit"]')
    await page.locator("article", has_text="first-try").wait_for()
    made = changed.call("GET", "/v1/experiments/first-try")
    assert (made["status"], made["experiment"]["share"]) == ("draft", 0.25)
    await page.get_by_role("button", name="Start").click()
    await page.fill("#dialog-why", "go")
    await page.click('#dialog button[type="submit"]')

    async def runs() -> bool:
        told = await asyncio.to_thread(changed.call, "GET", "/v1/experiments/first-try")
        return bool(told["status"] == "running")

    await until(runs)
