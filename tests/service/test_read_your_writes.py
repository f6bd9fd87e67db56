"""What one of two processes acknowledged, the other knows where it is asked by the offset."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from bandit_client import AsyncClient
from bandit_client._address import address
from bandit_service import settings
from bandit_service.app import service
from bandit_service.http import middleware
from bandit_service.runtime.shared.writer import SharedWriter
from loadtest.postgres import Postgres
from tests.service.keyring import Keyring
from tests.service.running import Client, Process, a_vector, prepare, serving
from tests.service.test_replicas import shared

_ROUNDS = 15


async def test_each_answer_of_another_knows_what_was_acknowledged(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    environ = shared(tmp_path, postgres) | {
        "BANDIT_LOG_POLL_S": "0.2",  # so that without the header it would not know
        "BANDIT_LOG_AFTER_WAIT_S": "20",
    }
    started = [Process(tmp_path / f"r{i}", models, **environ) for i in range(2)]
    try:
        urls = [await each.url() for each in started]
        async with aiohttp.ClientSession() as session:
            one, other = (Client(session, url) for url in urls)
            for i in range(_ROUNDS):
                id = (await one.decide(embedding=a_vector(i)))["decision_id"]
                assert (await other.get(f"/v1/decisions/{id}"))[0] == 200  # it has the decision
                told = await _reward(one, id)
                after = {"x-bandit-after": told["x-bandit-offset"]}
                path = f"{other.url}/v1/decisions/{id}"
                async with session.get(path, headers=after) as answer:
                    assert (await answer.json())["signals"] == {"quality": 0.5}
                    assert int(answer.headers["x-bandit-offset"]) >= int(told["x-bandit-offset"])
        # the client does it by itself; here a balancer asks the other one from some point on
        async with AsyncClient(urls[0], read_your_writes=True) as client:
            decided = await client.decide("What is 17 * 23?")
            assert (await client.reward(decided, quality=0.5)).status == "accepted"
            assert client._transport is not None
            client._transport.address = address(urls[1], None)
            assert (await client.decision(decided.decision_id)).signals == {"quality": 0.5}
    finally:
        await asyncio.gather(*(asyncio.to_thread(each.stop) for each in started))


async def _reward(client: Client, id: str) -> dict[str, str]:
    body = {"decision_id": id, "quality": 0.5}
    async with client.session.post(f"{client.url}/v1/rewards", json=body) as answer:
        assert answer.status == 200
        return dict(answer.headers)


async def test_what_is_not_learned_in_time_is_behind_and_nonsense_is_refused(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    environ = shared(tmp_path, postgres) | {"BANDIT_LOG_AFTER_WAIT_S": "0.05"}
    async with serving(tmp_path / "one", models, **environ) as client:
        for given, status, code in (
            ("1000000", 503, "behind"),
            ("9223372036854775807", 503, "behind"),
            ("9223372036854775808", 400, "invalid_value"),
            ("-1", 400, "invalid_value"),
            ("soon", 400, "invalid_value"),
            ("", 400, "invalid_value"),
            ("٣", 400, "invalid_value"),
        ):
            async with client.session.post(
                f"{client.url}/v1/decide",
                json={"embedding": a_vector(1)},
                headers={"x-bandit-after": given},
            ) as answer:
                told = (await answer.json())["error"]
                assert (answer.status, told["code"]) == (status, code), given
                assert told["param"] == "x-bandit-after"
                assert ("Retry-After" in answer.headers) == (status == 503)
        async with client.session.get(f"{client.url}/v1/arms") as answer:
            offset = answer.headers["x-bandit-offset"]
        assert (await client.get("/v1/decisions"))[1]["decisions"] == []  # nothing was decided
        async with client.session.get(
            f"{client.url}/v1/arms", headers={"x-bandit-after": offset}
        ) as answer:
            assert answer.status == 200


async def test_who_waits_was_let_in_and_waits_no_longer_than_it_says(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    ring = Keyring(app={})
    environ = shared(tmp_path, postgres) | ring.environ | {"BANDIT_LOG_AFTER_WAIT_S": "60"}
    after = {"x-bandit-after": "1000000"}
    known = after | {"Authorization": f"Bearer {ring['app']}"}
    async with serving(tmp_path / "one", models, **environ) as client, asyncio.timeout(50):
        for path, headers, status in (
            ("/v1/arms", after, 401),
            ("/healthz", after, 200),
            ("/v1/nothing", known, 404),
            ("/v1/decide", known, 405),
            ("/v1/arms", known | {"X-Request-Timeout": "soon"}, 400),
            ("/v1/arms", known | {"X-Request-Timeout": "0.05"}, 503),
        ):
            async with client.session.get(client.url + path, headers=headers) as answer:
                assert answer.status == status, path
                code = (await answer.json()).get("error", {}).get("code")
        assert code == "behind"


async def test_who_waits_is_told_of_the_end(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    environ = shared(tmp_path, postgres) | {
        "BANDIT_LOG_AFTER_WAIT_S": "60",
        "BANDIT_SERVER_PORT": "0",
        "BANDIT_SERVER_SHUTDOWN_S": "2",
        "BANDIT_DATA_DIR": str(tmp_path / "one"),
    }
    prepare(tmp_path / "one", models)
    async with aiohttp.ClientSession() as session, asyncio.timeout(50):
        async with service.serving(settings.read(None, environ)) as (url, running):
            headers = {"x-bandit-after": "1000000"}
            ask = asyncio.create_task(session.get(f"{url}/v1/arms", headers=headers))
            writer = running[middleware.ROUTER].writer
            assert isinstance(writer, SharedWriter)
            while not writer._reached._waiting:
                await asyncio.sleep(0.01)
        async with await ask as answer:
            told = (await answer.json())["error"]
            assert (answer.status, told["code"]) == (503, "unavailable")


async def test_one_process_has_nothing_to_wait_for(tmp_path: Path, models: Path) -> None:
    after = {"x-bandit-after": "1000000"}
    async with (
        serving(tmp_path / "alone", models) as client,
        client.session.get(f"{client.url}/v1/arms", headers=after) as answer,
    ):
        assert answer.status == 200
        assert "x-bandit-offset" not in answer.headers
