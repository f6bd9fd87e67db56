"""The playground in a real browser, before a real provider: answers stream, votes teach."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bandit_service.settings.texts import new_key
from tests.service.provider import COST, a_gateway
from tests.service.running import Client
from tests.web.conftest import PICTURES, Opened, Service
from tests.web.test_accessible import DIM, NAMELESS, ORDER, TWICE

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _playground(opened: Opened, url: str, width: int = 1360, **more: bool) -> Page:
    page = await opened(f"{url}/#playground", width, **more)
    await page.wait_for_selector("#model-first")
    return page


async def _asked(page: Page, first: str, second: str = "") -> Locator:
    await page.fill("#message", "Hello there")
    await page.select_option("#model-first", first)
    await page.select_option("#model-second", second)
    await page.click('#question button[type="submit"]')
    return page.locator("#answers article")


@pytest.mark.parametrize("width", [1360, 390])
async def test_two_models_answer_beside_each_other_and_a_vote_is_learned(
    tmp_path: Path, models: Path, opened: Opened, width: int
) -> None:
    async with a_gateway(tmp_path, models) as (client, _):
        page = await _playground(opened, client.url, width)
        answers = await _asked(page, "alpha", "beta")
        await page.get_by_text("Done.").wait_for()
        assert await answers.locator(".said").all_inner_texts() == ["I am alpha", "I am beta"]
        assert f"${COST:.4f}" in await answers.first.inner_text()
        link = await answers.first.locator("a").get_attribute("href")
        assert link is not None
        id = link.partition("=")[2]
        await page.get_by_role("button", name="beta was better").click()
        await page.get_by_text("Your vote was learned.").wait_for()
        assert await _known(client, id, "beta", "alpha", tie=False)
        await page.get_by_role("button", name="Equally good").click()
        await page.get_by_text("Your vote was changed.").wait_for()
        assert await _known(client, id, "alpha", "beta", tie=True)
        await answers.first.get_by_role("button", name="Good").click()
        await answers.first.get_by_text("Quality 1 was learned.").wait_for()
        _, told = await client.get(f"/v1/decisions/{id}")
        assert told["signals"]["quality"] == 1.0
        assert await page.evaluate(NAMELESS) == []
        assert await page.evaluate(DIM) == []
        assert await page.evaluate(TWICE) == []
        levels = await page.evaluate(ORDER)
        assert levels[:3] == [1, 2, 3]
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        PICTURES.mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=PICTURES / f"playground-{width}.png", full_page=True)
        # the same message again is a question of its own: the service may choose anew
        await _asked(page, "auto")
        await page.get_by_text("Done.").wait_for()
        assert "auto → " in await page.locator("#answers h3").first.inner_text()
        assert await page.locator("#answers .vote").is_hidden()
        await page.close()


async def _known(client: Client, id: str, winner: str, loser: str, *, tie: bool) -> bool:
    """Whether the service has this comparison already."""
    body = {"decision_id": id, "winner": winner, "loser": loser, "tie": tie}
    _, told = await client.post("/v1/comparisons", body)
    return bool(told["results"][0]["status"] == "duplicate")


async def test_a_failure_is_said_where_the_answer_would_be(
    tmp_path: Path, models: Path, opened: Opened
) -> None:
    async with a_gateway(tmp_path, models) as (client, provider):
        page = await _playground(opened, client.url, failures=True)
        provider.behaviour |= {"alpha": "broken", "beta": "rejected"}
        answers = await _asked(page, "alpha", "beta")
        await page.get_by_text("An answer is incomplete.").wait_for()
        assert "I am" in await answers.first.locator(".said").inner_text()
        assert await answers.first.locator(".bad").inner_text() != ""
        assert "bad tool" in await answers.nth(1).locator(".bad").inner_text()
        assert await page.locator("#answers .vote").is_hidden()
        await page.close()


async def test_an_answer_that_ends_early_is_not_whole(
    tmp_path: Path, models: Path, opened: Opened
) -> None:
    async with a_gateway(tmp_path, models) as (client, _):
        page = await _playground(opened, client.url)
        piece = 'data: {"choices": [{"delta": {"content": "I am"}}]}\n\n'
        await page.route(
            "**/v1/chat/completions",
            lambda route: route.fulfill(body=piece, content_type="text/event-stream"),
        )
        answers = await _asked(page, "alpha")
        await page.get_by_text("An answer is incomplete.").wait_for()
        assert await answers.first.locator(".said").inner_text() == "I am"
        assert await answers.first.locator(".bad").inner_text() == "The answer broke off."
        await page.close()


async def test_an_answer_can_be_stopped(tmp_path: Path, models: Path, opened: Opened) -> None:
    async with a_gateway(tmp_path, models) as (client, provider):
        page = await _playground(opened, client.url)
        provider.behaviour["alpha"] = "endless"
        await _asked(page, "alpha")
        await page.locator(".said", has_text="I am").wait_for()
        await page.get_by_role("button", name="Stop").click()
        await page.locator("#question .result", has_text="Stopped.").wait_for()
        async with asyncio.timeout(60):
            await provider.cancelled.wait()
        await page.close()


async def test_without_an_upstream_it_says_what_is_missing(
    service: Service, opened: Opened
) -> None:
    page = await opened(f"{service.url}/#playground")
    await page.get_by_text("No arm has an upstream").wait_for()


async def test_a_route_is_chosen_for_a_query_and_in_the_list_of_decisions(
    tmp_path: Path, models: Path, opened: Opened
) -> None:
    routes = json.dumps([{"id": "bot", "arms": ["beta"], "policy": "uniform"}])
    async with a_gateway(tmp_path, models, BANDIT_ROUTES=routes) as (client, _):
        await client.decide(query="by none")
        page = await opened(f"{client.url}/#try")
        await page.fill("#query", "by the route")
        await page.select_option("#try-route", "bot")
        await page.get_by_role("button", name="Decide", exact=True).click()
        await page.locator("#answer dd", has_text="bot").wait_for()
        _, listed = await client.get("/v1/decisions?route=bot")
        (made,) = listed["decisions"]
        assert (made["arm"], made["route"]) == ("beta", "bot")
        await page.goto(f"{client.url}/#decisions")
        rows = page.locator("#feed li")
        await rows.nth(1).wait_for()
        await page.select_option("#feed-route", "bot")
        assert await rows.count() == 1
        assert "route bot" in await rows.first.inner_text()
        await page.select_option("#feed-route", "auto")
        assert "route bot" not in await rows.first.inner_text()
        await client.reward(made["decision_id"], quality=0.5, cost_usd=0.002, latency_s=2.0)
        await page.goto(f"{client.url}/#live")
        of_bot = page.locator("#routes-rows tr", has_text="bot")
        await of_bot.locator("td", has_text="$2.00").wait_for()
        cells = [each.replace("\n", " ") for each in await of_bot.locator("td").all_inner_texts()]
        assert cells == ["bot", "1", "0.480 n = 1", "0.500", "$2.00", "2.00 s"]
        assert await page.locator("#routes-rows tr").count() == 2, "auto is the other one"
        assert await page.evaluate(NAMELESS) == []


async def test_a_decision_shows_what_was_said_if_it_is_kept(
    tmp_path: Path, models: Path, opened: Opened
) -> None:
    texts = {"BANDIT_TEXTS_KEEP": "both", "BANDIT_TEXTS_KEY_ENV": "K", "K": new_key()}
    async with a_gateway(tmp_path, models, **texts) as (client, _):
        page = await _playground(opened, client.url)
        answers = await _asked(page, "alpha")
        await page.get_by_text("Done.").wait_for()
        await answers.first.locator("a").click()
        said = page.locator("#why .block", has_text="What was said")
        await said.wait_for()
        assert await said.locator("pre").all_inner_texts() == ["user: Hello there", "I am alpha"]
        assert await page.evaluate(NAMELESS) == []
        assert await page.evaluate(DIM) == []
