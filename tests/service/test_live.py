"""The page's stream and its files: who may follow, what comes, and how it ends."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest

from bandit_service import settings
from bandit_service.app import service
from bandit_service.http import live as live_http
from bandit_service.http import page
from tests.service.keyring import Keyring
from tests.service.running import Client, Process, a_vector, prepare, serving

ACCEPT = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@asynccontextmanager
async def following(client: Client) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
    """The events of GET /v1/live: kind and body."""
    async with client.session.get(f"{client.url}/v1/live", headers=client.headers) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"
        yield _events(answer)


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    held = b""
    async for piece in answer.content.iter_any():
        held += piece
        while b"\n\n" in held:
            event, held = held.split(b"\n\n", 1)
            kind, data = event.split(b"\n", 1)
            yield kind.removeprefix(b"event: ").decode(), json.loads(data.removeprefix(b"data: "))


@pytest.fixture
async def hub(tmp_path: Path, models: Path) -> AsyncIterator[tuple[Client, live_http.Live]]:
    """A service in this process, and what it shows."""
    prepare(tmp_path / "var", models)
    environ = {"BANDIT_DATA_DIR": str(tmp_path / "var"), "BANDIT_SERVER_PORT": "0"}
    chosen = settings.read(None, environ)
    async with service.serving(chosen) as (url, running), aiohttp.ClientSession() as session:
        yield Client(session, url), running[live_http.LIVE]


async def test_a_page_begins_with_what_there_is_and_hears_of_what_happens(client: Client) -> None:
    before = await client.decide(embedding=a_vector(1))
    await client.reward(before["decision_id"], quality=0.5, cost_usd=0.0001)
    async with following(client) as events:
        kind, first = await anext(events)
        assert kind == "begin"
        assert first["state"]["is"] == "good"
        assert [one["id"] for one in first["feed"]] == [before["decision_id"]]
        assert first["feed"][0]["reward"] is not None
        assert sum(sum(row[1][1::2]) for row in first["fine"]["rows"]) == 1
        by_id = {arm["id"]: arm for arm in first["arms"]}
        assert by_id[before["arm"]]["reward"]["n"] == 1
        assert by_id[before["arm"]]["reward"]["low"] is None  # not enough data
        assert first["totals"]["reward"]["n"] == 1
        after = await client.decide(embedding=a_vector(2))
        kind, second = await anext(events)
        while second["totals"]["decisions"] < 2:  # a tick that was made before
            kind, second = await anext(events)
        assert kind == "tick"
        assert [one["id"] for one in second["feed"]] == [
            after["decision_id"],
            before["decision_id"],
        ]
        assert second["totals"]["decisions"] == 2


async def test_many_follow_and_one_frame_is_made_for_all(
    hub: tuple[Client, live_http.Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, live = hub
    made: list[int] = []
    tick = live.shown.tick

    def counted(*given: Any) -> Any:
        made.append(live.broadcast.listeners)
        return tick(*given)

    monkeypatch.setattr(type(live.shown), "tick", lambda self, *given: counted(*given))
    live.broadcast.every_s = 0.05

    async def hears(n: int) -> list[str]:
        async with following(client) as events:
            return [kind for kind, _ in [await anext(events) for _ in range(n)]]

    heard = await asyncio.gather(*(hears(4) for _ in range(20)))
    assert heard == [["begin", "tick", "tick", "tick"]] * 20
    assert len(made) < 20 + 20 * 3  # their beginnings, and far fewer ticks than were heard
    async with asyncio.timeout(60):  # until they are gone and nothing ticks any more
        while live.broadcast.listeners or "live" in {t.get_name() for t in asyncio.all_tasks()}:
            await asyncio.sleep(0.01)


async def test_more_listeners_than_are_allowed_are_told_to_come_again(
    tmp_path: Path, models: Path
) -> None:
    bound = {"BANDIT_MONITORING_MAX_LISTENERS": "2"}
    async with (
        serving(tmp_path / "var", models, **bound) as client,
        following(client) as one,
        following(client) as two,
    ):
        assert [(await anext(each))[0] for each in (one, two)] == ["begin", "begin"]
        async with client.session.get(f"{client.url}/v1/live") as answer:
            assert answer.status == 429
            assert "Retry-After" in answer.headers
            assert "monitoring.max_listeners" in (await answer.json())["error"]["message"]


async def test_one_who_does_not_read_is_dropped_and_the_others_go_on(
    hub: tuple[Client, live_http.Live],
) -> None:
    client, live = hub
    live.broadcast.every_s = 0.002
    for i in range(40):
        await client.decide(embedding=a_vector(i))
    host, port = client.url.removeprefix("http://").split(":")
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(slow, (host, int(port)))
    await loop.sock_sendall(slow, b"GET /v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with following(client) as events:
        deadline = time.monotonic() + 60
        both = False
        async for _ in events:
            both = both or live.broadcast.listeners == 2
            if both and live.broadcast.listeners == 1:
                break
            assert time.monotonic() < deadline, "the slow one was not dropped"
        assert (await anext(events))[0] == "tick"
    slow.close()


async def test_it_ends_when_the_service_stops_and_does_not_hold_it_up(
    tmp_path: Path, models: Path
) -> None:
    process = Process(tmp_path / "var", models, BANDIT_SERVER_SHUTDOWN_S="50")
    async with aiohttp.ClientSession() as session:
        client = Client(session, await process.url())
        async with following(client) as events:
            assert (await anext(events))[0] == "begin"
            begun = time.monotonic()
            stopped = asyncio.create_task(asyncio.to_thread(process.stop))
            assert {kind async for kind, _ in events} <= {"tick"}  # the last ones under way
            assert await stopped == 0
            assert time.monotonic() - begun < 50


RING = Keyring(
    of_a={"tenant": "a"}, of_b={"tenant": "b"}, of_all={}, decides={"scopes": ["decide"]}
)


async def test_it_asks_for_a_key_and_a_tenant_sees_its_own(tmp_path: Path, models: Path) -> None:
    limits = [{"scope": "tenant", "per": "day", "usd": 1.0}]
    environ = RING.environ | {"BANDIT_BUDGETS": json.dumps(limits)}
    async with serving(tmp_path / "var", models, **environ) as client:
        for path in ("/v1/live", "/v1/live/map"):
            async with client.session.get(client.url + path) as answer:
                assert answer.status == 401
            assert (await client.by(RING["decides"]).get(path))[0] == 403
        mine, other, every = (client.by(RING[id]) for id in ("of_a", "of_b", "of_all"))
        for i in range(12):
            await mine.decide(embedding=a_vector(i))
        id = (await other.decide(embedding=a_vector(99)))["decision_id"]
        await other.reward(id, quality=0.7, cost_usd=0.01)
        seen = {}
        for name, who in (("a", mine), ("b", other), ("all", every)):
            async with following(who) as events:
                seen[name] = (await anext(events))[1]
        assert [len(seen[name]["feed"]) for name in ("a", "b", "all")] == [12, 1, 13]
        assert [seen[name]["totals"]["decisions"] for name in ("a", "b", "all")] == [12, 1, 13]
        assert [seen[name]["totals"]["reward"]["n"] for name in ("a", "b", "all")] == [0, 1, 1]
        assert id not in json.dumps(seen["a"])
        assert seen["a"]["totals"]["p99_s"] is None  # how long others waited is not for one
        assert [seen[name]["totals"]["answered"] > 0 for name in ("a", "all")] == [False, True]
        accounts = [[row["account"] for row in seen[name]["budgets"]] for name in ("a", "b", "all")]
        assert accounts == [[], ["tenant:b"], ["tenant:b"]]
        pictures = [(await who.get("/v1/live/map"))[1] for who in (mine, other, every)]
        assert [picture["n"] for picture in pictures] == [12, 1, 13]
        assert [picture["state"] for picture in pictures] == ["shown", "not enough data", "shown"]


async def test_a_decision_says_what_was_taken_out_and_how_its_neighbours_did(
    client: Client,
) -> None:
    first = await client.decide(embedding=a_vector(1))
    await client.reward(first["decision_id"], quality=0.9, cost_usd=0.0)
    cheap = await client.decide(
        embedding=a_vector(1), max_cost_usd=0.0005, arms=["llama-3.1-8b-instruct", "gemini-2.5-pro"]
    )
    _, body = await client.get(f"/v1/decisions/{cheap['decision_id']}")
    assert list(body["excluded"]) == ["gemini-2.5-pro"]
    assert body["excluded"]["gemini-2.5-pro"].startswith("max_cost_usd 0.0005 < expected")
    (neighbour,) = body["neighbours"]
    assert neighbour["outcomes"] == [{"arm": first["arm"], "reward": pytest.approx(0.9, abs=0.01)}]


async def test_a_browser_gets_the_page_and_everybody_else_the_index(client: Client) -> None:
    async with client.session.get(client.url + "/") as answer:
        assert answer.headers["Content-Type"].startswith("application/json")
        assert (await answer.json())["service"] == "bandit-service"
        assert answer.headers["Vary"] == "Accept"
    async with client.session.get(client.url + "/", headers=ACCEPT) as answer:
        assert answer.headers["Content-Type"].startswith("text/html")
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        text = await answer.text()
    assert text == page.files()["index.html"].body.decode()


async def test_files_of_the_page_are_sent_again_only_when_they_changed(client: Client) -> None:
    for name, file in page.files().items():
        async with client.session.get(f"{client.url}/web/{name}") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith(file.kind)
            assert answer.headers["Cache-Control"] == "no-cache"
            tag = answer.headers["ETag"]
        async with client.session.get(
            f"{client.url}/web/{name}", headers={"If-None-Match": tag}
        ) as answer:
            assert answer.status == 304
            assert await answer.read() == b""
    for name in ("nothing.js", "..%2fapp.py", "%2e%2e%2fhttp.py"):
        async with client.session.get(f"{client.url}/web/{name}") as answer:
            assert answer.status == 404
            assert (await answer.json())["error"]["code"] == "unknown"


def test_the_page_names_nothing_of_another_origin_and_runs_no_inline_script() -> None:
    for name, file in page.files().items():
        text = file.body.decode()
        elsewhere = text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in elsewhere, name
        assert "https://" not in elsewhere, name
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert way not in text, (name, way)
        if name.endswith(".html"):
            assert "<script>" not in text
            assert " style=" not in text
            assert " on" not in text.replace(" only", "").replace(" one", "").replace(" on ", "")
        assert len(text.splitlines()) < 400, f"{name} is too long for one sitting"


async def test_a_page_of_another_origin_is_refused_and_a_link_from_there_is_not(
    client: Client,
) -> None:
    for site, expected in (("cross-site", 403), ("same-site", 403), ("same-origin", 200)):
        body = json.dumps({"embedding": a_vector(1)})
        async with client.session.post(
            f"{client.url}/v1/decide", data=body, headers={"Sec-Fetch-Site": site}
        ) as answer:
            assert answer.status == expected
    visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", **ACCEPT}
    async with client.session.get(client.url + "/", headers=visit) as answer:
        assert answer.status == 200


async def test_answers_over_the_stream_count_among_those_that_may_be_errors(
    client: Client,
) -> None:
    url = client.url + "/v1/stream"
    async with client.session.ws_connect(url, protocols=("bandit.v1",)) as socket:
        await socket.receive_bytes()  # the greeting
        vector = np.asarray(a_vector(1), "<f4").tobytes()
        for message in ({"op": "decide", "id": 1, "embedding": vector}, {"op": "guess", "id": 2}):
            await socket.send_bytes(msgspec.msgpack.encode(message))
            await socket.receive_bytes()
    async with following(client) as events:
        _, first = await anext(events)
    told = {name: first["totals"][name] for name in ("answered", "failed", "refused")}
    assert told == {"answered": 2, "failed": 0, "refused": 0}
