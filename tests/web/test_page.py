"""The page in a real browser: it opens, moves, teaches by a click, and believes no name."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from loadtest.ports import free_port
from loadtest.postgres import Postgres
from tests.service.keyring import Keyring
from tests.service.running import Process, a_vector
from tests.service.test_replicas import shared
from tests.web.conftest import ARMS, EVIL, PICTURES, Opened, Service

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = pytest.mark.asyncio(loop_scope="session")
VIEWS = ("live", "decisions", "try", "playground", "experiments", "map", "history", "settings")
READY = {
    "live": "#arms tbody tr", "decisions": ".feed li", "try": "#query",
    "playground": "#question p", "experiments": "#experiments > *", "map": "#map .legend li",
    "history": "#history-periods tbody tr", "settings": "#arms-panel tbody tr",
}  # fmt: skip


async def _visit(page: Page, view: str) -> None:
    await page.click(f'nav a[href="#{view}"]')
    await page.wait_for_selector(READY[view])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 390])
async def test_every_view_opens_without_fault_and_fits(
    service: Service, opened: Opened, width: int, scheme: str
) -> None:
    page = await opened(service.url, width, scheme)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for view in VIEWS:
        await _visit(page, view)
        assert await page.locator("main section:visible").count() == 1
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await page.screenshot(path=PICTURES / f"{view}-{scheme}-{width}.png")
    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 150) is (scheme == "dark")
    await page.click("#theme")
    turned = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert turned != ground


@pytest.mark.parametrize("width", [1280, 1360, 1600, 390])
async def test_no_tile_stands_alone_in_a_row(service: Service, opened: Opened, width: int) -> None:
    """On 5a5a85b the sixth had a row of its own at 1280 px."""
    page = await opened(service.url, width=width)
    await page.wait_for_selector(".tile")
    tops = await page.eval_on_selector_all(
        ".tile", "all => all.map(one => Math.round(one.getBoundingClientRect().top))"
    )
    rows = [tops.count(top) for top in sorted(set(tops))]
    assert len(set(rows)) == 1, rows


async def test_replicas_are_listed_with_what_each_is_behind_and_does(
    tmp_path: Path, models: Path, opened: Opened, postgres: Postgres
) -> None:
    started = [Process(tmp_path / f"r{i}", models, **shared(tmp_path, postgres)) for i in range(2)]
    page = await opened(await started[0].url())
    await page.wait_for_selector("#replicas-panel:not([hidden]) li:nth-child(2)")
    names = await page.locator("#replicas h4").all_inner_texts()
    assert names in (
        ["Replica 1, this one", "Replica 2"],
        ["Replica 1", "Replica 2, this one"],
    )
    await page.locator("#replicas small", has_text="runs the shared background tasks").wait_for()
    await page.locator("#replicas span", has_text="up to date").first.wait_for()
    await asyncio.to_thread(started[1].stop)
    await page.locator("#replicas span", has_text="left, or was silent for too long").wait_for()
    await page.close()
    await asyncio.to_thread(started[0].stop)


async def test_the_page_shows_the_pool_that_is_chosen(
    service: Service, tmp_path: Path, models: Path, opened: Opened
) -> None:
    process = Process(
        tmp_path / "var",
        models,
        BANDIT_POOLS=json.dumps(
            [
                {"name": "acme", "tenants": ["acme"]},
                {"name": "away", "tenants": ["a"], "engine": "postgres", "dsn_env": "AWAY_DSN"},
            ]
        ),
        AWAY_DSN=f"postgresql://u:p@127.0.0.1:{free_port()}/x",
    )
    running = Service(await process.url())
    made = running.call("POST", "/v1/decide", {"embedding": a_vector(1), "tenant": "acme"})
    page = await opened(running.url)
    await page.wait_for_selector("#arms tbody tr")
    shown = await page.locator("#pool option").all_inner_texts()
    assert shown == ["main", "acme", "away (closed)"]
    assert await page.locator("#pool option").nth(2).is_disabled()
    assert await page.locator("#arms").get_by_text("n = 1").count() == 0
    await page.select_option("#pool", "acme")
    await page.locator("#arms").get_by_text("n = 1").first.wait_for()
    assert await page.input_value("#pool") == "acme"
    assert made["arm"] in await page.locator("#arms").inner_text()
    await page.close()
    assert await asyncio.to_thread(process.stop) == 0
    only = await opened(service.url)
    await only.wait_for_selector("#arms tbody tr")
    assert await only.locator("#pool").is_hidden()
    await only.close()


async def test_a_change_of_the_configuration_is_listed_with_who_made_it_and_why(
    tmp_path: Path, models: Path, opened: Opened
) -> None:
    process = Process(tmp_path / "var", models)
    page = await opened(await process.url())
    await page.wait_for_selector("#arms tbody tr")
    assert await page.locator("#changes-panel").is_hidden()
    why = "<b>a limit</b>"
    body = {"budgets": [{"scope": "service", "per": "day", "usd": 5}], "why": why}
    async with (
        aiohttp.ClientSession() as session,
        session.put(
            f"{await process.url()}/v1/configuration", json=body, headers={"If-Match": '"0"'}
        ) as answer,
    ):
        assert answer.status == 200
    await page.wait_for_selector("#changes-panel:not([hidden]) li")
    assert await page.locator("#changes h4").all_inner_texts() == ["Revision 1 by anonymous"]
    assert await page.locator("#changes span").all_inner_texts() == ["budgets"]
    assert (await page.locator("#changes small").inner_text()).endswith(why)
    await page.close()
    await asyncio.to_thread(process.stop)


async def test_the_demo_runs_from_the_start_card(
    tmp_path: Path, models: Path, opened: Opened
) -> None:
    process = Process(tmp_path / "var", models)
    page = await opened(await process.url())
    await page.get_by_role("button", name="Run the demo here").click()
    await page.locator("#start").wait_for(state="hidden")
    await page.locator("#arms").get_by_text(re.compile(r"n = \d")).first.wait_for()
    await page.close()
    assert await asyncio.to_thread(process.stop) == 0


async def test_a_start_without_data_says_so_and_shows_no_zero(
    tmp_path: Path, models: Path, opened: Opened
) -> None:
    process = Process(tmp_path / "var", models)
    page = await opened(await process.url())
    await page.wait_for_selector("#arms tbody tr")
    await page.wait_for_selector('#state[data-is="idle"]')
    assert await page.locator(".tile .big").all_inner_texts() == ["not enough data"] * 6
    assert await page.locator(".chart .none:visible").count() == 2
    row = page.locator("#arms tbody tr").first
    assert "not enough data" in await row.inner_text()
    assert "no traffic" in await row.inner_text()
    start = page.locator("#start")
    assert f"curl -s {await process.url()}/v1/decide" in await start.inner_text()
    await start.get_by_role("button", name="Copy: From Python").click()
    await start.get_by_role("status").filter(has_text=re.compile("Copied|Selected")).wait_for()
    await start.get_by_role("button", name="Run the demo here").wait_for()
    await asyncio.to_thread(Service(await process.url()).serve, 1)
    await page.locator("#arms").get_by_text("n = 1").first.wait_for()
    await start.wait_for(state="hidden")
    for chart in ("#split", "#reward"):  # of a single step there is nothing to read: no error
        await page.focus(f"{chart} canvas")
        await page.keyboard.press("ArrowLeft")
    await _go_and_read(page, "experiments", "No experiments yet")
    await page.click('nav a[href="#map"]')
    await page.wait_for_selector("text=Not enough data: 1 of 10 queries")
    await page.close()
    assert await asyncio.to_thread(process.stop) == 0


async def test_the_history_adds_up_the_log_by_what_is_chosen(
    service: Service, opened: Opened
) -> None:
    page = await opened(f"{service.url}/#history")
    groups = page.locator("#history-groups tbody tr")
    await groups.nth(1).wait_for()
    assert any("large" in text for text in await groups.all_inner_texts())
    told = service.call("GET", "/v1/history?per=hour&by=policy")
    await page.select_option("#history-by", "policy")
    await page.select_option("#history-per", "hour")
    await page.locator("#history-groups tbody tr", has_text="nested").wait_for()
    assert await groups.count() == len({g for one in told["periods"] for g in one["groups"]})
    await page.locator("#history-periods tbody tr", has_text=told["periods"][0]["name"]).wait_for()
    await page.select_option("#history-by", "tag")
    await page.locator("#history-groups tbody tr", has_text="none").wait_for()


async def _go_and_read(page: Page, view: str, text: str) -> None:
    await page.click(f'nav a[href="#{view}"]')
    await page.wait_for_selector(f"text={text}")


async def test_numbers_move_while_traffic_runs(service: Service, opened: Opened) -> None:
    page = await opened(service.url)
    await page.wait_for_selector("#arms tbody tr")
    tile = await page.wait_for_selector(".tile p:not(.big):text-matches('\\\\d')")
    assert tile is not None
    before = await tile.inner_text()
    made = service.serve(5, first=1000)
    await page.wait_for_function(
        "least => Number(document.querySelector('.tile p:not(.big)').textContent"
        ".replace(/\\D/g, '')) >= least",
        arg=int(re.sub(r"\D", "", before)) + 5,
    )
    await page.click('nav a[href="#decisions"]')
    await page.wait_for_selector(f'.feed a[href="#decisions={made[-1]}"]')


async def test_a_reward_by_a_click_changes_the_next_decision(
    service: Service, opened: Opened
) -> None:
    page = await opened(service.url)
    await _visit(page, "try")
    await page.fill("#query", "What is the capital of France?")
    await page.click('#ask button[type="submit"]')
    await page.wait_for_selector("#answer .reward")
    await page.click("#answer .reward >> text=Bad")
    told = await page.wait_for_selector("#answer .change .note")
    assert told is not None
    text = await told.inner_text()
    value = re.search(r"Bad: its value fell from (\S+) to ([0-9.]+)", text)
    assert value is not None, text
    assert float(value[2]) < float(value[1])
    before, after = await _steps(page, "Value")
    assert after < before
    await page.wait_for_selector("text=Its reward is final and was learned.")
    # sent twice it counts once, and another value for the same decision is refused in words
    await page.click("#answer .reward >> text=Bad")
    await page.wait_for_selector("text=It was already sent, and counts once.")


async def _steps(page: Page, name: str) -> tuple[float, float]:
    """Before and after of one part, as the page shows them."""
    shown = page.locator("#answer .change dl div").filter(has=page.locator(f"dt:text-is('{name}')"))
    before, after = re.findall(r"[−\d.]+", await shown.locator("dd").inner_text())
    return float(before), float(after)


async def _decide_and_reward(page: Page, favourite: str) -> tuple[str, str]:
    """Decide anew; Good for the favourite, or whoever comes first, Bad for others: arm, note."""
    before = await page.locator("#answer").inner_text()
    await page.click('#ask button[type="submit"]')
    await page.wait_for_function(
        "was => document.querySelector('#answer .reward button') && "
        "!document.querySelector('#answer .note') && "
        "document.querySelector('#answer').innerText !== was",
        arg=before,
    )
    arm = await page.locator("#answer p .name").first.inner_text()
    await page.click(f"#answer .reward >> text={'Good' if arm == (favourite or arm) else 'Bad'}")
    await page.wait_for_selector("#answer .change .note")
    return arm, await page.locator("#answer .change .note").inner_text()


async def test_good_five_times_in_a_row_says_each_time_what_it_moved_and_why(
    tmp_path: Path, models: Path, opened: Opened
) -> None:
    """With LinUCB an answer takes more of the bonus than it adds to the value, which is said."""
    environ = {
        "BANDIT_ARMS": json.dumps(ARMS[:2]),
        "BANDIT_POLICY_NAME": "metallm",
        "BANDIT_EXPLORATION_SHARE": "0",  # the best arm each time, so that nothing is up to chance
    }
    process = Process(tmp_path / "var", models, **environ)
    page = await opened(await process.url())
    await _visit(page, "try")
    await page.fill("#query", "What is the capital of France?")
    favourite, goods, fell = "", 0, 0
    for _ in range(20):
        arm, said = await _decide_and_reward(page, favourite)
        favourite = favourite or arm
        parts = {name: await _steps(page, name) for name in ("Chance", "Value", "Bonus", "Score")}
        was, now = parts["Chance"]
        good = said.startswith("The same query again. Good: ")
        assert good is (arm == favourite), said
        assert "its value " in said, said
        assert parts["Bonus"][1] < parts["Bonus"][0]
        assert "its bonus for being little known fell from" in said
        for value, bonus, score in zip(parts["Value"], parts["Bonus"], parts["Score"], strict=True):
            cost = (await _steps(page, "Cost"))[0]
            assert abs(value + bonus - cost - score) < 0.003
        against = await page.locator("#answer .change .note.against").count()
        assert against == (now < was if good else now > was), said
        if good and now < was:
            assert "so in sum its score fell" in said, said
            assert re.search(r"below the \S+ of \S+.*, and its chance fell from", said), said
            fell += 1
        goods += good
        if goods == 5:
            break
    assert goods == 5
    assert fell, "no Good lowered a chance, so that nothing was explained"
    await page.close()
    assert await asyncio.to_thread(process.stop) == 0


def _weighed(chance: float, width: float = 0.2, rival: float = 0.8, **parts: float) -> Any:
    """An explanation of two arms, as the page gets it."""
    score = parts.get("value", 0.7) + parts.get("bonus", 0.0) - parts.get("cost", 0.0)
    expected = {"value": 0.7, "n": 3, "low": 0.7 - width / 2, "high": 0.7 + width / 2}
    other = {"id": "b", "propensity": 1.0 - chance, "score": rival, "expected": {"n": 9}}
    return {"policy": "nested", "arms": [
        {"id": "a", "propensity": chance, "score": score, "expected": expected, **parts}, other,
    ]}  # fmt: skip


async def test_every_cause_of_a_chance_that_moved_is_told_in_one_sentence(
    service: Service, opened: Opened
) -> None:
    page = await opened(service.url)

    async def said(quality: float, before: Any, after: Any) -> tuple[bool, str]:
        found = await page.evaluate(
            "async ([q, b, a]) => (await import('/web/moved.js')).moved('a', q, b, a)",
            [quality, before, after],
        )
        return found["against"], found["text"]

    full = {"bonus": 0.2, "cost": 0.05}
    after = _weighed(0.94, value=0.74, bonus=0.14, cost=0.05)
    assert await said(1.0, _weighed(0.96, value=0.71, **full), after) == (
        True,
        "Good: its value rose from 0.71 to 0.74; its bonus for being little known fell from 0.20 "
        "to 0.14, so in sum its score fell from 0.86 to 0.83, above the 0.80 of b, and its chance "
        "fell from 96 % to 94 %.",
    )
    # Thompson's scores have no bonus: what is believed became narrower
    against, text = await said(
        1.0,
        _weighed(0.4, 0.4, value=0.7, bonus=0.0, cost=0.0),
        _weighed(0.3, 0.2, value=0.72, bonus=0.0, cost=0.0),
    )
    assert against
    assert "bonus" not in text
    assert "its 95 % interval is 0.20 wide and was 0.40, which chances follow too" in text
    # the other arm's score moved
    against, text = await said(1.0, _weighed(0.5, rival=0.7), _weighed(0.4, rival=0.75))
    assert against
    assert "its score stayed at 0.70, below the 0.75 of b (before 0.70), and its chance" in text
    # nothing but the share of exploration
    against, text = await said(0.0, _weighed(0.01), _weighed(0.05))
    assert against
    assert "and the share that is left to exploration changed, and its chance rose" in text
    # another policy took over
    against, text = await said(0.25, _weighed(0.9), _weighed(0.1) | {"policy": "eagle"})
    assert not against
    assert text.startswith("Quality 0.25: its chance fell from 90 % to 10 %, as eagle decides now")
    # what went the way of the reward is told as well
    against, text = await said(
        1.0, _weighed(0.4, value=0.7, **full), _weighed(0.6, value=0.9, **full)
    )
    assert not against
    assert "its value rose from 0.70 to 0.90" in text


async def test_an_untried_arm_says_so_and_shows_no_expected_quality(
    tmp_path: Path, models: Path, opened: Opened
) -> None:
    process = Process(
        tmp_path / "var", models, BANDIT_ARMS=json.dumps(ARMS[:2]), BANDIT_POLICY_NAME="metallm"
    )
    service = Service(await process.url())
    page = await opened(service.url)
    await _visit(page, "try")
    await page.fill("#query", "What is the capital of France?")
    await page.click("text=Only explain")
    rows = page.locator('#answer [aria-label="Arms that could be drawn"] tbody tr')
    await rows.nth(1).wait_for()
    for row in await rows.all():
        cells = await row.locator("td").all_inner_texts()
        assert "untried" in cells[0]
        assert "by prior" in cells[3]
        assert cells[6] == "untried"
    decided = service.call("POST", "/v1/decide", {"query": "What is the capital of France?"})
    await page.goto(f"{service.url}/#decisions={decided['decision_id']}")
    await page.locator("#why dt", has_text="Expected quality").wait_for()
    fact = page.locator("#why .facts div").filter(has_text="Expected quality").locator("dd")
    assert await fact.inner_text() == "untried"
    assert await page.locator("#why tbody .badge", has_text="untried").count() == 2
    await page.click('nav a[href="#live"]')
    await page.locator("#arms tbody").get_by_text("Untried: its score is a prior").nth(1).wait_for()
    await page.close()
    assert await asyncio.to_thread(process.stop) == 0


async def test_why_a_decision_fell_with_what_was_taken_out_and_a_slider(
    service: Service, opened: Opened
) -> None:
    asked = {"query": "Write a haiku.", "max_cost_usd": 0.001, "requires": ["json"]}
    id = service.call("POST", "/v1/decide", asked)["decision_id"]
    page = await opened(f"{service.url}/#decisions={id}")
    await page.wait_for_selector("#why .facts")
    text = await page.locator("#why").inner_text()
    assert "max_cost_usd 0.001 < expected" in text
    assert "requires json" in text
    assert "in no experiment" in text
    assert "Nearest past queries" in text
    assert await page.locator('#why [aria-label^="Arms that could be drawn"] tbody tr').count() == 1
    await page.focus('#why input[type="range"]')
    await page.keyboard.press("End")
    await page.click("#why .reward >> text=Send")
    await page.wait_for_selector("text=Its reward is final and was learned.")
    assert service.call("GET", f"/v1/decisions/{id}")["signals"] == {"quality": 1.0}
    await page.fill("#find", "ffffffff-ffff-7fff-bfff-ffffffffffff")
    await page.close()


async def test_a_decision_that_is_not_there_is_said_in_words(
    service: Service, opened: Opened
) -> None:
    page = await opened(service.url, failures=True)
    await _visit(page, "decisions")
    await page.fill("#find", "ffffffff-ffff-7fff-bfff-ffffffffffff")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#why .note >> text=no decision")


async def test_a_link_that_was_cut_off_stops_nothing(service: Service, opened: Opened) -> None:
    page = await opened(f"{service.url}/#decisions=%E0", failures=True)
    await page.locator("#connection", has_text="live").wait_for()


async def test_a_budget_that_is_nearly_spent_is_said_at_the_top(
    service: Service, opened: Opened
) -> None:
    page = await opened(service.url)
    shown = page.locator("#budgets li").filter(has_text="service, each month")
    await shown.wait_for()
    assert "0 % of $1,000" in await shown.inner_text()
    id = service.call("POST", "/v1/decide", {"embedding": a_vector(1), "unit": "spender"})
    service.call("POST", "/v1/rewards", {"decision_id": id["decision_id"], "cost_usd": 950.0})
    await shown.filter(has_text="95 % of $1,000").wait_for()
    await page.wait_for_selector("#state-says >> text=95 % of a budget is spent (service, 1000 USD")
    correction = {"decision_id": id["decision_id"], "cost_usd": 0.0, "correction": True}
    service.call("POST", "/v1/rewards", correction)
    await shown.filter(has_text="0 % of $1,000").wait_for()


async def test_only_explaining_writes_nothing(service: Service, opened: Opened) -> None:
    page = await opened(service.url)
    await _visit(page, "try")
    events = service.call("GET", "/readyz")["events"]
    await page.fill("#query", "Prove something.")
    await page.fill("#requires", "json")
    await page.click("text=Only explain")
    await page.wait_for_selector("text=What would be decided")
    assert "requires json" in await page.locator("#answer").inner_text()
    assert service.call("GET", "/readyz")["events"] == events


async def test_the_name_of_an_arm_is_text_wherever_it_stands(
    service: Service, opened: Opened
) -> None:
    page = await opened(service.url)
    await page.get_by_text(EVIL).nth(1).wait_for()  # in the table and the legend
    await page.hover("#split canvas", position={"x": 300, "y": 100})
    for view in ("decisions", "try", "map"):
        await _visit(page, view)
    assert await page.locator("main img, main script").count() == 0
    assert (await page.title()).startswith("Map of recent queries")


async def test_the_policy_lets_no_inline_script_run(service: Service, opened: Opened) -> None:
    page = await opened(service.url, failures=True)
    refused = await page.evaluate("""() => new Promise((done) => {
      document.addEventListener("securitypolicyviolation", (e) => done(e.effectiveDirective));
      const script = document.createElement("script");
      script.textContent = "window.ran = true";
      document.head.append(script);
    })""")
    assert refused.startswith("script-src")
    assert await page.evaluate("window.ran") is None


async def test_fifty_arms_and_ten_minutes_are_drawn(service: Service, opened: Opened) -> None:
    page = await opened(service.url)
    await page.wait_for_selector("#arms tbody tr")
    drawn = await page.evaluate("""async () => {
      const { hear, store } = await import("/web/store.js");
      const { Split } = await import("/web/split.js");
      const names = Array.from({ length: 50 }, (_, i) => `arm-${i}`);
      const plain = { n: 0, mean: null, low: null, high: null };
      const arms = names.map((id, i) => ({ id, decisions: 50 - i, retired: false, share: 0.02,
        reward: plain }));
      const rows = Array.from({ length: 600 }, (_, i) =>
        [10000 + i, names.flatMap((_, k) => [k, 1 + ((i + k) % 7)]), 1, 0.5, 0.5, 0.5]);
      store.slots.clear();
      hear("begin", { ...store, now: 10600, numbers: names, arms,
        fine: { step_s: 1, most: 600, rows }, coarse: { step_s: 30, most: 360, rows: [] } });
      const room = document.createElement("div");
      document.querySelector("main").append(room);
      const chart = new Split(room);
      chart.draw();
      const { width, height } = chart.canvas;
      const pixels = chart.canvas.getContext("2d").getImageData(0, 0, width, height).data;
      const colours = new Set();
      for (let i = 0; i < pixels.length; i += 4)
        if (pixels[i + 3] === 255) colours.add(`${pixels[i]},${pixels[i + 1]},${pixels[i + 2]}`);
      return { points: chart.times.length, legend: chart.legend.children.length,
        last: chart.legend.lastChild.textContent, colours: colours.size };
    }""")
    assert drawn["points"] == 200
    assert drawn["legend"] == 11
    assert drawn["last"].startswith("40 others")
    assert drawn["colours"] >= 11


async def test_deployments_and_kinds_are_shown(service: Service, opened: Opened) -> None:
    page = await opened(service.url)
    await page.wait_for_selector("#arms tbody tr")
    rows = await page.evaluate("""async () => {
      const { hear, store } = await import("/web/store.js");
      const { showArms } = await import("/web/arms.js");
      const plain = { n: 0, mean: null, low: null, high: null };
      const arm = { decisions: 0, retired: false, share: 0, share_before: null, why: "",
        reward: plain, quality: plain, cost_usd: plain, latency_s: plain, upstream: "closed" };
      hear("tick", { ...store, numbers: ["many", "embeds"], arms: [
        { ...arm, id: "many", kind: "chat", deployments: [
          { id: "eu", state: "open" }, { id: "us", state: "closed" }] },
        { ...arm, id: "embeds", kind: "embedding", deployments: [] }] });
      showArms();
      return Array.from(document.querySelectorAll("#arms tbody tr td:first-child"))
        .map((cell) => cell.textContent);
    }""")
    assert any("many" in row and "eu masked, us answers" in row for row in rows)
    assert any(row.startswith("embeds") and row.endswith("embedding") for row in rows)


async def test_an_experiment_is_shown_and_paused_with_a_reason(
    service: Service, opened: Opened
) -> None:
    trial = {"id": "trial", "variants": [
        {"key": "now", "weight": 0.5}, {"key": "fixed", "weight": 0.5, "arm": "small"}],
        "min_units": 5}  # fmt: skip
    service.call("PUT", "/v1/experiments/trial", trial)
    service.call("POST", "/v1/experiments/trial/start", {})
    service.serve(30, first=2000)
    page = await opened(service.url)
    await _visit(page, "experiments")
    panel = page.locator('article[aria-label="trial"]')
    await panel.wait_for()
    text = await panel.inner_text()
    for part in ("running", "50 %", "control", "Difference to the control", "split"):
        assert part in text
    phone = await opened(service.url, width=390)
    await _visit(phone, "experiments")
    table = phone.locator('article[aria-label="trial"] .scroll')
    await table.wait_for()
    PICTURES.mkdir(parents=True, exist_ok=True)
    await phone.screenshot(path=PICTURES / "experiment-390.png", full_page=True)
    widths = await table.evaluate("at => [at.scrollWidth, at.clientWidth]")
    assert widths[0] <= widths[1], "columns are cut off"
    await panel.get_by_text("Pause", exact=True).click()
    await page.click("dialog >> text=Confirm")  # the reason is asked for
    assert await page.evaluate("document.querySelector('dialog').open") is True
    await page.fill("#dialog-why", "a look")
    await page.click("dialog >> text=Confirm")
    await panel.locator(".badge", has_text="paused").wait_for()
    found = service.call("GET", "/v1/experiments/trial/results")
    assert found["changes"][-1]["why"] == "a look"
    service.call("POST", "/v1/experiments/trial/stop", {"why": "done"})


async def test_the_map_leads_to_a_decision(service: Service, opened: Opened) -> None:
    page = await opened(service.url)
    await _visit(page, "map")
    assert "of the variance" in await page.locator("#map").inner_text()
    await page.focus("#map canvas")
    await page.keyboard.press("ArrowLeft")
    await page.wait_for_selector("#map .tip:visible")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#why .facts")


RING = Keyring(reads={}, decides={"scopes": ["decide"]})


async def test_with_keys_the_page_asks_for_one_and_keeps_it_in_this_tab_only(
    tmp_path: Path, models: Path, opened: Opened
) -> None:
    process = Process(tmp_path / "var", models, **RING.environ)
    page = await opened(await process.url(), failures=True)
    for key, said in (("bs_wrong", "no such key"), (RING["decides"], "scope")):
        await page.wait_for_selector("dialog[open]")
        await page.fill("#dialog-key", key)
        await page.click("dialog >> text=Confirm")
        await page.wait_for_selector(f"#state-says >> text={said}")
        if key == RING["decides"]:
            await page.click("#key")
    await page.fill("#dialog-key", RING["reads"])
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#connection >> text=live")
    await page.wait_for_selector("#arms tbody tr")
    assert await page.evaluate("JSON.stringify(localStorage)") == "{}"
    assert RING["reads"] in await page.evaluate("JSON.stringify(sessionStorage)")
    assert RING["reads"] not in page.url
    other = await page.context.new_page()
    await other.goto(page.url)
    await other.wait_for_selector("dialog[open]")
    await other.close()
    assert await asyncio.to_thread(process.stop) == 0
    await page.wait_for_selector("#connection >> text=reconnecting")
    await page.close()
