"""The whole page by axe-core: the rules of WCAG 2, levels A and AA, and its best practices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.service.running import Process, a_vector
from tests.web.conftest import Opened, Service
from tests.web.test_accessible import _open
from tests.web.test_page import VIEWS

if TYPE_CHECKING:
    from playwright.async_api import Page

axe = pytest.importorskip("axe_playwright_python.async_playwright")
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def violations(page: Page) -> list[tuple[str, list[str]]]:
    found: dict[str, Any] = (await axe.Axe().run(page)).response
    return [
        (each["id"], [node["html"][:150] for node in each["nodes"]]) for each in found["violations"]
    ]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1360), ("dark", 390)])
async def test_every_view_is_clean(
    service: Service, opened: Opened, scheme: str, width: int
) -> None:
    page = await opened(service.url, width, scheme)
    await page.wait_for_selector("#arms tbody tr")
    for view in VIEWS:
        await _open(page, view)
        assert await violations(page) == [], view
    await page.click("#key")
    assert await violations(page) == []


async def test_the_reference_the_vote_and_a_start_without_data_are_clean(
    service: Service, opened: Opened, tmp_path: Path, models: Path
) -> None:
    page = await opened(f"{service.url}/docs")
    await page.wait_for_selector(".path")
    assert await violations(page) == []
    made = service.call("POST", "/v1/decide", {"embedding": a_vector(77)})
    page = await opened(f"{service.url}/v1/feedback/{made['feedback_token']}")
    assert await violations(page) == []
    process = Process(tmp_path / "var", models)
    page = await opened(await process.url())
    await page.wait_for_selector("#start:not([hidden])")
    assert await violations(page) == []
    await page.close()
    assert process.stop() == 0


async def test_it_does_find_what_is_wrong(service: Service, opened: Opened) -> None:
    page = await opened(service.url)
    await page.wait_for_selector("#arms tbody tr")
    await page.evaluate("document.querySelector('main').append(document.createElement('button'))")
    assert [rule for rule, _ in await violations(page)] == ["button-name"]
