"""The web page with real recorded traffic, and the pictures of it in the docs.

python -m loadtest.webpage [--seconds N] [--rate N] [--out DIR] [--stay]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import numpy as np
from PIL import Image

from bandit_service.core.events import ArmSpec
from bandit_service.data.recordings import BadRecording, Recorded, open_recording
from loadtest.browser import INSTALL, browser, installed
from loadtest.client import StreamClient, StreamError
from loadtest.demo.serve import DemoFailed, config_of, own_data, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DEARER = 60.0
PICTURES = (
    ("live", "light", 1360), ("live", "dark", 1360), ("decisions", "light", 1360),
    ("experiments", "light", 1360), ("map", "dark", 1360), ("live", "light", 390),
)  # fmt: skip
EXPERIMENT = {
    "id": "eagle-trial",
    "share": 0.6,
    "min_units": 100,
    "variants": [
        {"key": "now", "weight": 0.5},
        {"key": "eagle", "weight": 0.5, "policy": "eagle", "learning": "isolated"},
    ],
}
"""A trial that runs beside the rest of the traffic."""


def config(recorded: Recorded, policy: str, own: Path) -> str:
    """The recording's arms, of which the dearest is the one that savings are counted against."""
    prices = {arm.usd_per_mtok_in + arm.usd_per_mtok_out: arm.id for arm in recorded.arms}
    return config_of(recorded.arms, policy, own) + (
        f"[monitoring]\nbaseline_arm = {json.dumps(prices[max(prices)])}\n"
        '[[budgets]]\nscope = "service"\nper = "hour"\nusd = 100.0\n'
        '[[budgets]]\nscope = "service"\nper = "month"\nusd = 1000.0\n'
    )


async def traffic(
    url: str, recorded: Recorded, rate: float, seconds: float, dearer_after: float = float("inf")
) -> int:
    """Recorded queries at this rate, each with what was recorded of its arm; how many.

    One in eight has a limit of cost, half of what the dearest arm costs on average. One in four has
    a comparison with another arm, by what was recorded of both. After `dearer_after` seconds the
    arm that was drawn most costs DEARER times as much from then on.
    """
    chance = np.random.default_rng(0)
    order = chance.permutation(len(recorded))
    column = {str(arm.id): k for k, arm in enumerate(recorded.arms)}
    dear = 0.5 * float(np.nanmean(recorded.cost, axis=0).max())
    begun, sent, drawn = time.monotonic(), 0, np.zeros(len(column))
    prices = np.ones(len(column))
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{url}/v1/experiments/{EXPERIMENT['id']}", json=EXPERIMENT) as put:
            put.raise_for_status()
        async with session.post(f"{url}/v1/experiments/{EXPERIMENT['id']}/start") as start:
            start.raise_for_status()
    async with StreamClient(url) as client:
        while time.monotonic() - begun < seconds:
            row = int(order[sent % len(order)])
            asked: dict[str, Any] = {"query": recorded.texts[row], "unit": f"user-{row}"}
            if sent % 8 == 0:
                asked["max_cost_usd"] = dear
            decided = await client.request("decide", **asked)
            k = column[decided["arm"]]
            drawn[k] += 1
            if time.monotonic() - begun > dearer_after and prices.max() == 1.0:
                prices[int(drawn.argmax())] = DEARER
                await _price(url, recorded.arms[int(drawn.argmax())])
            quality, cost = recorded.quality[row], recorded.cost[row] * prices
            id = decided["decision_id"]
            await client.request(
                "reward",
                decision_id=id,
                quality=float(quality[k]),
                cost_usd=float(cost[k]),
                latency_s=float(chance.lognormal(float(k) / 3.0, 0.4)),
            )
            if sent % 4 == 0:
                other = int(chance.choice([each for each in column.values() if each != k]))
                if quality[k] != quality[other]:
                    first, second = (k, other) if quality[k] > quality[other] else (other, k)
                    ids = list(column)
                    await client.request(
                        "compare", winner=ids[first], loser=ids[second], decision_id=id
                    )
            sent += 1
            await asyncio.sleep(max(0.0, begun + sent / rate - time.monotonic()))
    return sent


async def _price(url: str, arm: ArmSpec) -> None:
    """Tell the service of the new price."""
    spec = {
        "usd_per_mtok_in": DEARER * arm.usd_per_mtok_in,
        "usd_per_mtok_out": DEARER * arm.usd_per_mtok_out,
        "context_window": arm.context_window,
    }
    path = f"{url}/v1/arms/{quote(arm.id, safe='')}"
    async with aiohttp.ClientSession() as session, session.put(path, json=spec) as put:
        put.raise_for_status()


def pictures(running: Browser, url: str, out: Path) -> list[Path]:
    """Some views in light and in dark, and the first on a phone."""
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for view, scheme, width in PICTURES:
        context = running.new_context(
            viewport={"width": width, "height": 900 if width > 760 else 1180},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector("#arms tbody tr")
        show(page, view)
        made.append(out / f"web-{view}-{scheme if width > 760 else 'phone'}.png")
        page.screenshot(path=made[-1], full_page=view == "live" and width > 760)
        context.close()
        small(made[-1])
    return made


def small(path: Path) -> None:
    """The same picture with few colours."""
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def show(page: Page, view: str) -> None:
    """Open a view and wait until it has something to show."""
    page.click(f'nav a[href="#{view}"]')
    if view == "decisions":
        page.click("#feed .quiet[aria-pressed]")
        limited = page.locator(".feed a", has_text="taken out")
        (limited if limited.count() else page.locator(".feed a")).first.click()
        page.wait_for_selector("#why .facts")
    if view == "experiments":
        page.wait_for_selector(".experiment")
    if view == "map":
        page.wait_for_selector("#map .legend li")
    page.wait_for_timeout(1500)  # two seconds' events, so that nothing is half drawn


def main() -> int:
    """Traffic, then pictures; 0 done, 1 something did not start, 2 the arguments are wrong."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.webpage", description=__doc__)
    parser.add_argument("--data", default="paretobandit")
    parser.add_argument("--policy", default="metallm")
    parser.add_argument("--seconds", type=float, default=150.0, help="traffic before the pictures")
    parser.add_argument("--rate", type=float, default=25.0, help="queries per second")
    parser.add_argument("--data-dir", type=Path, default=Path("var"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--stay", action="store_true", help="serve until Ctrl-C, no pictures")
    args = parser.parse_args()
    if not args.stay and not installed():
        print(f"webpage: {INSTALL}", file=sys.stderr)
        return 1
    try:
        recorded = open_recording(args.data)
        with tempfile.TemporaryDirectory() as scratch:
            written = Path(scratch) / "webpage.toml"
            text = config(recorded, args.policy, own_data(Path(scratch), args.data_dir))
            written.write_text(text, encoding="utf-8")
            with serving(written) as url:
                print(f"open {url}", flush=True)
                if args.stay:
                    asyncio.run(traffic(url, recorded, args.rate, float("inf"), 60.0))
                return _pictures(url, recorded, args)
    except BadRecording as error:
        print(f"webpage: {error}", file=sys.stderr)
        return 2
    except (DemoFailed, StreamError, aiohttp.ClientError, ConnectionError) as error:
        print(f"webpage: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _pictures(url: str, recorded: Recorded, args: argparse.Namespace) -> int:
    """While traffic goes on."""
    last = args.seconds + 40.0
    streaming = Thread(
        target=lambda: asyncio.run(
            traffic(url, recorded, args.rate, last, dearer_after=0.55 * args.seconds)
        ),
        daemon=True,
    )
    streaming.start()
    time.sleep(args.seconds)
    with browser() as running:
        for path in pictures(running, url, args.out):
            print(path)
    streaming.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
