"""What the page changes: arms, the policy and experiments, each after a confirmation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError

import pytest
import pytest_asyncio

from tests.service.keyring import Keyring
from tests.service.provider import until
from tests.service.running import Process, a_vector
from tests.web.conftest import PICTURES, Opened, Service
from tests.web.test_accessible import DIM, NAMELESS

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page, Route

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
    await page.get_by_text("not a JSON object").wait_for()
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


async def test_a_budget_is_set_and_taken_back(changed: Service, opened: Opened) -> None:
    page = await _settings(opened, changed, failures=True)
    await page.select_option("#section", "budgets")
    await page.fill("#section-text", '[{"scope": "service", "per": "day", "usd": -1}]')
    await page.click('#sections-panel button[type="submit"]')
    await page.fill("#dialog-why", "too little")
    await page.click('#dialog button[type="submit"]')
    # every mistake is told, and nothing was changed
    await page.locator("#dialog [role=alert]", has_text="usd").wait_for()
    await page.click('#dialog button:text("Cancel")')
    assert changed.call("GET", "/v1/configuration")["budgets"] == []
    await page.fill("#section-text", '[{"scope": "service", "per": "day", "usd": 20}]')
    await page.click('#sections-panel button[type="submit"]')
    await page.fill("#dialog-why", "a first limit")
    await page.click('#dialog button[type="submit"]')
    await page.locator("#revisions", has_text="a first limit").wait_for()
    now = changed.call("GET", "/v1/configuration")
    assert [budget["usd"] for budget in now["budgets"]] == [20.0]
    assert now["history"][0]["why"] == "a first limit"
    # who else changed it meanwhile is not overwritten
    changed.call("PUT", "/v1/configuration", {"budgets": [], "why": "elsewhere"}, If_Match="*")
    await page.click('#sections-panel button[type="submit"]')
    await page.fill("#dialog-why", "late")
    await page.click('#dialog button[type="submit"]')
    await page.locator("#dialog [role=alert]", has_text="revision").wait_for()
    await page.click('#dialog button:text("Cancel")')
    await page.get_by_role("button", name="Read it again").click()
    await page.locator("#revisions", has_text="elsewhere").wait_for()
    back = now["revision"]
    await page.get_by_role("button", name=f"Back to {back}").click()
    await page.fill("#dialog-why", "it was right")
    await page.click('#dialog button[type="submit"]')
    await page.locator("#revisions", has_text="it was right").wait_for()
    assert changed.call("GET", "/v1/configuration")["budgets"] == now["budgets"]


async def test_a_route_is_made(changed: Service, opened: Opened) -> None:
    page = await _settings(opened, changed)
    await page.select_option("#section", "routes")
    await page.fill("#section-text", '[{"id": "support-bot", "policy": "knn"}]')
    await page.click('#sections-panel button[type="submit"]')
    await page.fill("#dialog-why", "the support team")
    await page.click('#dialog button[type="submit"]')
    await page.locator("#revisions", has_text="the support team").wait_for()
    made = changed.call("POST", "/v1/decide", {"query": "Hello", "route": "support-bot"})
    assert made["route"] == "support-bot"


async def test_a_key_is_made_shown_once_rotated_and_revoked(
    tmp_path: Path, models: Path, opened: Opened
) -> None:
    ring = Keyring(ops={"scopes": ["decide", "reward", "read", "admin"]})
    process = Process(tmp_path / "var", models, **ring.environ)
    closed = Service(await process.url())
    bearer = f"Bearer {ring['ops']}"
    asked = {"embedding": a_vector(1)}
    made = closed.call("POST", "/v1/decide", asked, Authorization=bearer)["decision_id"]
    page = await opened(f"{closed.url}/#decisions={made}", failures=True)
    await page.fill("#dialog-key", ring["ops"])
    await page.click('#dialog button[type="submit"]')
    await page.wait_for_selector("#why .reward")  # what the address names, once there is a key
    await page.click('nav a[href="#settings"]')
    await page.get_by_role("button", name="Make a key").click()
    await page.fill("#dialog-id", "app")
    await page.fill("#dialog-why", "an app")
    answered = asyncio.Event()

    async def slowly(route: Route) -> None:
        await answered.wait()
        await route.continue_()

    await page.route("**/v1/keys", slowly)
    await page.click('#dialog button[type="submit"]')
    await page.keyboard.press("Escape")
    answered.set()  # what is told once is shown, though the dialog was closed meanwhile
    await page.locator(".note", has_text="The key of app").wait_for()
    secret = await page.locator("#fresh-key").inner_text()
    # a page that comes by http from elsewhere has no clipboard
    await page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    await page.get_by_role("button", name="Copy the key").click()
    await page.get_by_text("Selected; copy it by keyboard.").wait_for()
    assert await page.evaluate("getSelection().toString()") == secret

    def decides() -> None:
        bearer = f"Bearer {secret}"
        closed.call("POST", "/v1/decide", {"embedding": a_vector(1)}, Authorization=bearer)

    decides()
    await page.get_by_role("button", name="Rotate app").click()
    await page.fill("#dialog-why", "yearly")
    await page.click('#dialog button[type="submit"]')
    await page.wait_for_function(
        "before => document.querySelector('#fresh-key')?.textContent !== before", arg=secret
    )
    decides()  # for another hour
    await page.get_by_role("button", name="Revoke app").click()
    await page.fill("#dialog-why", "leaked")
    await page.click('#dialog button[type="submit"]')
    await page.get_by_role("button", name="Revoke app").wait_for(state="detached")
    with pytest.raises(HTTPError, match="401"):
        decides()
    await page.get_by_role("button", name="Rotate ops").click()
    await page.fill("#dialog-grace", "0")
    await page.fill("#dialog-why", "leaked, too")
    await page.click('#dialog button[type="submit"]')
    # the page goes on with the new one
    await page.locator(".note", has_text="The key of ops").wait_for()
    await page.click('nav a[href="#live"]')
    await page.click('nav a[href="#settings"]')
    await page.get_by_role("button", name="Rotate ops").wait_for()
    assert await page.locator("#fresh-key").count() == 0
    await page.close()
    assert await asyncio.to_thread(process.stop) == 0


AGREED = {
    "pairs": 60,
    "mean_difference": -0.125,
    "mean_absolute_difference": 0.25,
    "correlation": None,
    "curve": [{"score": 0.8, "pairs": 60, "grade": 0.61, "calibrated": 0.6}],
}


async def test_judges_are_shown_beside_people(changed: Service, opened: Opened) -> None:
    """What the service answers once there are pairs is in tests/service/test_judging.py."""
    page = await opened(changed.url)
    nothing = AGREED | {"pairs": 0, "mean_difference": None, "mean_absolute_difference": None}
    judge = {"id": "grader", "kind": "llm", "calibration": "apply", "min_pairs": 50}
    rows = [
        judge | {"applied": True, "overall": AGREED, "routes": {"auto": AGREED, "bot": AGREED}},
        judge | {"id": "new", "applied": False, "overall": nothing | {"curve": []}, "routes": {}},
    ]

    async def answered(route: Route) -> None:
        await route.fulfill(json={"judges": rows})

    await page.route("**/v1/judges", answered)
    await page.click('nav a[href="#settings"]')
    panel = page.locator("#judges-panel")
    await panel.get_by_text("its scores are corrected by the curve").wait_for()
    await panel.get_by_text("corrected from 50 pairs on").wait_for()
    cells = panel.get_by_label("Agreement of grader").locator("tbody tr").first
    assert (await cells.inner_text()).split() == [
        "all", "routes", "60", "0.250", "−0.125", "not", "enough", "data",
    ]  # fmt: skip
    await panel.get_by_text("Curve", exact=True).click()
    await panel.get_by_text("0.610").wait_for()
    assert await page.evaluate(NAMELESS) == []
    assert await page.evaluate(DIM) == []
    await page.screenshot(path=PICTURES / "settings-judges.png", full_page=True)


async def test_without_keys_the_first_one_comes_from_the_file(
    changed: Service, opened: Opened
) -> None:
    page = await _settings(opened, changed)
    await page.get_by_text("The first key comes from the configuration file").wait_for()
    assert await page.get_by_role("button", name="Make a key").count() == 0
