"""Topics on the page: of which each decision is, the map in their colours, what arms earn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from bandit_service.settings.texts import new_key
from tests.service.running import Process
from tests.web.conftest import PICTURES, Opened, Service
from tests.web.test_accessible import DIM, NAMELESS
from tests.web.test_axe import violations

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="session")
ASKED = ["Please refund the invoice of order {}", "Write a Python function that sorts list {}"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def keeping(
    chromium: Browser, tmp_path_factory: pytest.TempPathFactory, models: Path
) -> AsyncIterator[Service]:
    """A service that keeps the questions of 50 people."""
    texts = {"BANDIT_TEXTS_KEEP": "questions", "BANDIT_TEXTS_KEY_ENV": "K", "K": new_key()}
    process = Process(tmp_path_factory.mktemp("topics") / "var", models, **texts)
    running = Service(await process.url())

    def ask() -> None:
        for i in range(50):
            query = {"query": ASKED[i % 2].format(i), "unit": f"u{i}"}
            id = running.call("POST", "/v1/decide", query)["decision_id"]
            running.call(
                "POST", "/v1/rewards", {"decision_id": id, "quality": 0.5, "cost_usd": 0.001}
            )

    await asyncio.to_thread(ask)
    yield running
    assert await asyncio.to_thread(process.stop) == 0


@pytest.mark.parametrize(("scheme", "width"), [("light", 1360), ("dark", 390)])
async def test_topics_stand_in_decisions_and_on_the_map(
    keeping: Service, opened: Opened, scheme: str, width: int
) -> None:
    page = await opened(f"{keeping.url}/#decisions", width, scheme)
    badges = page.locator("#feed .badge:has(.dot):visible")
    await badges.first.wait_for()
    about = await badges.all_inner_texts()
    assert all(("invoice" in text) != ("python" in text) for text in about), about
    both = await page.locator("#feed li").count()
    names = await page.locator("#feed-topic option").all_inner_texts()
    await page.select_option("#feed-topic", label=next(each for each in names if "python" in each))
    shown = await page.locator("#feed li").all_inner_texts()
    assert 0 < len(shown) < both
    assert all("python" in text for text in shown)
    await page.locator("#feed li a").first.click()
    await page.locator("#why dd", has_text="python").wait_for()
    assert await violations(page) == []
    await page.click('nav a[href="#map"]')
    await page.select_option("#map-colour", "topic")
    legend = page.locator("#map .legend")
    await legend.filter(has_text="python").wait_for()
    assert "invoice" in await legend.inner_text()
    assert "python" in (await page.get_attribute("#map canvas", "aria-label") or "")
    rows = page.get_by_role("region", name="invoice").locator("tbody tr")
    assert "0.49" in await rows.first.inner_text()  # 0.5 less 0.001 USD at 0.10 for a unit
    assert await violations(page) == []
    assert await page.evaluate(NAMELESS) == []
    assert await page.evaluate(DIM) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    await page.screenshot(path=PICTURES / f"topics-{scheme}.png", full_page=True)
