"""The page of a vote in a real browser: without scripts, in light and dark, by keyboard."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.service.running import a_vector
from tests.web.conftest import PICTURES, Opened, Service
from tests.web.test_accessible import DIM, NAMELESS, ORDER, TWICE

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="session")


def _decided(service: Service, seed: int) -> tuple[str, str]:
    """A decision's id, and the address of its page."""
    made = service.call("POST", "/v1/decide", {"embedding": a_vector(seed)})
    return made["decision_id"], f"{service.url}/v1/feedback/{made['feedback_token']}"


def _signals(service: Service, id: str) -> dict[str, float]:
    signals: dict[str, float] = service.call("GET", f"/v1/decisions/{id}")["signals"]
    return signals


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 320])
async def test_a_click_votes_and_everything_can_be_read(
    service: Service, opened: Opened, width: int, scheme: str
) -> None:
    id, url = _decided(service, 900 + width)
    page = await opened(url, width, scheme)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, said, signals in (
        ("Good answer", "You voted: good answer.", {"quality": 1.0, "vote": 1.0}),
        ("Bad answer", "You voted: bad answer.", {"quality": 0.0, "vote": 0.0}),
        ("No vote", "You have not voted.", {}),
        ("Good answer", "You voted: good answer.", {"quality": 1.0, "vote": 1.0}),
    ):
        await page.get_by_role("button", name=name, exact=True).click()
        await page.get_by_role("status").filter(has_text=said).wait_for()
        assert page.url == url
        assert _signals(service, id) == signals
        assert await page.get_by_role("button", pressed=True).all_inner_texts() == [name]
        assert await page.evaluate(NAMELESS) == []
        assert await page.evaluate(DIM) == []
    assert await page.evaluate(TWICE) == []
    assert await page.evaluate(ORDER) == [1]
    assert await page.evaluate("document.documentElement.lang") == "en"
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    assert await page.locator("script").count() == 0
    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 150) is (scheme == "dark")
    await page.screenshot(path=PICTURES / f"feedback-{scheme}-{width}.png")


async def test_it_works_by_keyboard_and_without_javascript(
    service: Service, chromium: Browser
) -> None:
    id, url = _decided(service, 910)
    context = await chromium.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(url)
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.get_by_text("You voted: bad answer.").wait_for()
    assert _signals(service, id)["quality"] == 0.0
    await page.reload()  # which sends no form again
    await page.get_by_text("You voted: bad answer.").wait_for()
    await context.close()


async def test_a_token_that_is_none_gets_a_page_that_says_so(
    service: Service, opened: Opened
) -> None:
    page = await opened(f"{service.url}/v1/feedback/nonsense", failures=True)
    told = page.get_by_role("alert")
    assert await told.inner_text() == "token: not a valid feedback token"
    assert await page.evaluate(DIM) == []
