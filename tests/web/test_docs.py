"""The API's reference in a real browser: complete, by keyboard, on a phone, from nowhere else."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.web.conftest import PICTURES, Opened, Service
from tests.web.test_accessible import DIM, NAMELESS, ORDER, TWICE

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _reference(service: Service, opened: Opened, at: str = "", width: int = 1360) -> Page:
    page = await opened(f"{service.url}/docs{at}", width=width)
    await page.wait_for_selector(".path")
    return page


async def test_every_path_is_listed_with_method_scope_and_summary(
    service: Service, opened: Opened
) -> None:
    page = await _reference(service, opened)
    whole = service.call("GET", "/openapi.json")
    expected = [
        f"{method.upper()} {path} {operation['summary']}"
        for path, methods in whole["paths"].items()
        for method, operation in methods.items()
    ]
    shown = await page.locator(".path").evaluate_all(
        """all => all.map((one) => [".method", "h2", ".muted"]
             .map((each) => one.querySelector(each).textContent).join(" "))"""
    )
    assert shown == expected
    assert await page.locator(".path .scope").count() == len(expected)
    assert await page.locator("#contents a").count() == len(expected)
    assert await page.locator("#found").inner_text() == f"{len(expected)} of {len(expected)} paths"


async def test_a_path_shows_its_parameters_fields_descriptions_and_examples(
    service: Service, opened: Opened
) -> None:
    page = await _reference(service, opened, "#post-v1-decide")
    shown = page.locator("#post-v1-decide")
    await shown.locator("h3").first.wait_for()
    headings = await shown.locator("h3").all_inner_texts()
    assert headings == ["Parameters", "Request", "Answer 200"]
    told = await shown.inner_text()
    for part in (
        "X-Request-Timeout",
        "max_cost_usd",
        "at most 1000000000",
        "required",
        "Id of the decision; send it with the reward.",
        "What is the capital of France?",
        "Errors: 400",
    ):
        assert part in told, part
    await shown.get_by_text("Fields of expected").first.click()
    await shown.get_by_text("Expected cost of the answer, USD.").first.wait_for()


async def test_everything_in_it_can_be_opened_and_has_a_name(
    service: Service, opened: Opened
) -> None:
    page = await _reference(service, opened)
    await page.evaluate("""async () => {
      for (let closed; (closed = document.querySelectorAll("details:not([open])")).length;) {
        for (const one of closed) one.open = true;
        await new Promise((done) => setTimeout(done));
      }
    }""")
    assert await page.locator(".fields li").count() > 500
    assert await page.evaluate(NAMELESS) == []
    assert await page.evaluate(DIM) == []
    assert await page.evaluate(TWICE) == []
    levels = await page.evaluate(ORDER)
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


async def test_it_is_used_by_keyboard_on_a_phone(service: Service, opened: Opened) -> None:
    page = await _reference(service, opened, width=390)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    await page.focus("#find")
    await page.keyboard.type("propensities")
    await page.locator("#get-v1-arms").wait_for(state="hidden")
    assert await page.locator("#get-v1-decisions-id").is_visible()
    await page.focus("#get-v1-decisions-id > summary")
    await page.keyboard.press("Enter")
    await page.locator("#get-v1-decisions-id h3").first.wait_for()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    PICTURES.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=PICTURES / "docs-390.png")


async def test_the_page_leads_to_it(service: Service, opened: Opened) -> None:
    page = await opened(service.url)
    await page.click('header a[href="docs"]')
    await page.wait_for_selector(".path")
    assert page.url == f"{service.url}/docs"
