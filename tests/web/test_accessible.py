"""Names, order, contrast and keyboard: what a person without mouse or good sight needs."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest

from tests.web.conftest import Opened, Service
from tests.web.test_page import READY, VIEWS

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAMELESS = """() => {
  const text = (id) => document.getElementById(id)?.textContent ?? "";
  const name = (e) => e.getAttribute("aria-label")
    || (e.getAttribute("aria-labelledby") ?? "").split(" ").map(text).join(" ").trim()
    || [...(e.labels ?? [])].map((label) => label.textContent).join(" ").trim()
    || (/^(INPUT|TEXTAREA|SELECT)$/.test(e.tagName) ? "" : e.textContent.trim());
  const wanting = 'a, button, input, textarea, select, summary, canvas, svg[role="img"],'
    + 'dialog[open], [role="region"], nav, section, table';
  return [...document.querySelectorAll(wanting)]
    .filter((e) => e.checkVisibility() && !name(e) && !(e.tagName === "TABLE" && e.caption))
    .map((e) => e.outerHTML.slice(0, 120));
}"""

DIM = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const apart = e.closest(".unseen, .skip, svg, noscript, :disabled");
    if (!own || apart || !e.checkVisibility()) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(parse(style.color)), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)}: ${e.textContent.slice(0, 40)}`);
  }
  return found;
}"""

ORDER = """() => [...document.querySelectorAll("h1, h2, h3, h4")]
  .filter((e) => e.checkVisibility()).map((e) => Number(e.tagName[1]))"""

TWICE = """() => {
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  return ids.filter((id, i) => ids.indexOf(id) !== i);
}"""


async def _open(page: Page, view: str) -> None:
    await page.click(f'nav a[href="#{view}"]')
    await page.wait_for_selector(READY[view])
    if view == "decisions":
        await page.locator(".feed a").first.click()
        await page.wait_for_selector("#why .reward")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_everything_has_a_name_an_order_and_enough_contrast(
    service: Service, opened: Opened, scheme: str
) -> None:
    page = await opened(service.url, scheme=scheme)
    await page.wait_for_selector("#arms tbody tr")
    for view in VIEWS:
        await _open(page, view)
        assert await page.evaluate(NAMELESS) == [], view
        assert await page.evaluate(DIM) == [], view
        assert await page.evaluate(TWICE) == [], view
        levels = await page.evaluate(ORDER)
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert await page.evaluate("document.documentElement.lang") == "en"
    assert await page.locator("main, nav, header.top").count() == 3
    await page.click("#key")
    assert await page.evaluate(NAMELESS) == []
    assert await page.evaluate(DIM) == []


async def test_the_checks_do_find_what_is_wrong(service: Service, opened: Opened) -> None:
    page = await opened(service.url)
    await page.wait_for_selector("#arms tbody tr")
    await page.evaluate("""() => {
      const pale = document.createElement("p");
      pale.textContent = "pale";
      pale.style.color = "#bbb";
      document.querySelector("main").append(document.createElement("button"), pale);
    }""")
    assert await page.evaluate(NAMELESS) == ["<button></button>"]
    assert len(await page.evaluate(DIM)) == 1


async def test_everything_is_reached_by_the_keyboard_and_is_seen_to_be(
    service: Service, opened: Opened
) -> None:
    page = await opened(service.url)
    await page.wait_for_selector("#arms tbody tr")
    reached = []
    for _ in range(40):
        await page.keyboard.press("Tab")
        reached.append(
            await page.evaluate("""() => {
          const at = document.activeElement;
          const seen = getComputedStyle(at).outlineStyle !== "none";
          return [at.id || at.hash || at.getAttribute("role") || at.tagName, seen];
        }""")
        )
        if reached[-1][0] == "BODY":
            break
    names = [name for name, _ in reached]
    assert names[0] == "#main"  # the way past the navigation
    links = [f"#{view}" for view in VIEWS]
    assert [name for name in names if name in links] == links
    assert {"theme", "key", "range-fine", "range-coarse"} <= set(names)
    assert names.count("img") == 2  # both charts
    assert all(seen for name, seen in reached if name != "BODY"), reached


async def test_a_chart_is_read_with_the_arrow_keys(service: Service, opened: Opened) -> None:
    """Its name says the newest values where they are drawn, and nothing of those of before."""
    page = await opened(service.url)
    await page.wait_for_selector("#arms tbody tr")
    drawn = page.locator('#reward canvas[aria-label*="Now"]')
    for step in ("fine", "coarse", "fine"):
        await page.click(f"#range-{step}")
        name, too_few = await page.evaluate(
            "() => [document.querySelector('#reward canvas').ariaLabel,"
            " !document.querySelector('#reward .none').hidden]"
        )
        assert ("Now" in name) is not too_few
    while not await drawn.count():  # until rewards came in two seconds of the last ten minutes
        await asyncio.to_thread(service.serve, 3, first=5000)
    await page.focus("#reward canvas")
    await page.keyboard.press("ArrowLeft")
    said = await page.locator("#reward [aria-live]").inner_text()
    assert "mean reward" in said
    assert "best single arm" in said
    assert await page.locator("#reward .tip").is_visible()
    await page.keyboard.press("Escape")
    assert await page.locator("#reward .tip").is_hidden()
