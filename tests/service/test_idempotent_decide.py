"""A decide with an idempotency key: the same again is the same decision, another a conflict."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bandit_service.runtime.deciding import Deciding
from tests.full_disk import full_disk
from tests.service.keyring import Keyring
from tests.service.running import Client, a_vector, opened, serving

QUERY = {"embedding": a_vector(0), "unit": "u"}


async def _ask(client: Client, key: str, **fields: Any) -> tuple[int, Any]:
    async with client.session.post(
        f"{client.url}/v1/decide",
        json=QUERY | fields,
        headers={**client.headers, "Idempotency-Key": key} if key else client.headers,
    ) as answer:
        return answer.status, await answer.json()


async def test_a_resend_gets_the_same_decision_through_a_restart(
    tmp_path: Path, models: Path
) -> None:
    async with opened(tmp_path / "data", models) as (client, world):
        status, first = await _ask(client, "k1")
        assert status == 200
        before = world.digest()
        assert await _ask(client, "k1") == (200, first)
        assert await _ask(client, "", idempotency_key="k1") == (200, first)
        assert await _ask(client, "other", idempotency_key="k1") == (200, first)
        status, explained = await _ask(client, "k1", explain=True)
        assert (status, explained["decision_id"]) == (200, first["decision_id"])
        assert explained["propensities"][first["arm"]] == first["propensity"]
        assert world.digest() == before
        assert (await _ask(client, "k2"))[1]["decision_id"] != first["decision_id"]
        assert (await _ask(client, ""))[1]["decision_id"] != first["decision_id"]
        events = world.decisions
    async with opened(tmp_path / "data", models) as (client, world):
        assert await _ask(client, "k1") == (200, first)
        assert world.decisions == events == 3


async def test_another_body_with_the_key_is_a_conflict(tmp_path: Path, models: Path) -> None:
    async with opened(tmp_path / "data", models) as (client, world):
        await _ask(client, "k")
        before = world.digest()
        for other in ({"unit": "v"}, {"embedding": a_vector(1)}, {"max_cost_usd": 1.0}):
            status, body = await _ask(client, "k", **other)
            assert (status, body["error"]["code"]) == (409, "conflict")
            assert body["error"]["param"] == "idempotency_key"
        assert world.digest() == before


async def test_many_at_once_get_one_decision(tmp_path: Path, models: Path) -> None:
    async with opened(tmp_path / "data", models) as (client, world):
        told = await asyncio.gather(*(_ask(client, "k", query="Hello") for _ in range(2)))
        assert {status for status, _ in told} == {400}  # a query and an embedding
        told = await asyncio.gather(*(_ask(client, "k") for _ in range(12)))
        assert len({body["decision_id"] for _, body in told}) == 1
        assert world.decisions == 1


async def test_a_request_that_failed_may_be_sent_again_with_its_key(client: Client) -> None:
    status, _ = await _ask(client, "k", arms=["nobody"])
    assert status == 404
    status, _ = await _ask(client, "k")
    assert status == 200


async def test_a_client_that_left_gets_what_was_decided(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path / "data", models) as (client, world):
        decide, begun, go = Deciding.decide, asyncio.Event(), asyncio.Event()

        async def slow(*arguments: Any, **more: Any) -> Any:
            begun.set()
            await go.wait()
            return await decide(*arguments, **more)

        monkeypatch.setattr(Deciding, "decide", slow)
        asking = asyncio.create_task(_ask(client, "k"))
        await begun.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        go.set()
        while not world.decisions:
            await asyncio.sleep(0.01)
        status, _ = await _ask(client, "k")
        assert (status, world.decisions) == (200, 1)


async def test_what_a_client_that_left_began_ends_with_the_service(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On 09672bb it went on after the log was closed, or was destroyed while pending."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless(*_: Any, **__: Any) -> Any:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with opened(tmp_path / "data", models) as (client, _):
        monkeypatch.setattr(Deciding, "decide", endless)
        asking = asyncio.create_task(_ask(client, "k"))
        await begun.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert ended.is_set()


async def test_a_key_is_of_one_caller_and_one_tenant(tmp_path: Path, models: Path) -> None:
    keys = Keyring(a={}, b={}, acme={"tenant": "acme"})
    async with serving(tmp_path / "data", models, **keys.environ) as any_of:
        made = []
        for id in ("a", "b", "acme"):
            status, body = await _ask(any_of.by(keys[id]), "k")
            assert status == 200
            made.append(body["decision_id"])
        status, body = await _ask(any_of.by(keys["a"]), "k", tenant="acme")
        assert len({*made, body["decision_id"]}) == 4


async def test_a_key_that_is_too_long_is_refused(client: Client) -> None:
    status, body = await _ask(client, "x" * 257)
    assert (status, body["error"]["param"]) == (400, "Idempotency-Key")
    status, body = await _ask(client, "", idempotency_key="x" * 257)
    assert (status, body["error"]["param"]) == (400, "idempotency_key")


async def test_a_key_that_is_not_utf8_is_refused(client: Client) -> None:
    """On 09672bb it was an internal error."""
    host, port = client.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = b"POST /v1/decide HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    body = msgspec.json.encode(QUERY)
    writer.write(head + b"Idempotency-Key: a\xff\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    told = await reader.read()
    writer.close()
    assert told.split()[1] == b"400", told
    assert b'"param":"Idempotency-Key"' in told


async def test_a_resend_gets_the_decision_that_waits_for_a_full_disk(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On 09672bb each resend was another decision, and all of them were logged in the end."""
    async with opened(tmp_path / "data", models) as (client, world):
        make_room = full_disk(monkeypatch)
        status, first = await _ask(client, "k")
        assert status == 200
        assert await _ask(client, "k") == (200, first)
        assert (await _ask(client, "k", unit="v"))[0] == 409
        make_room()
        assert (await _ask(client, ""))[0] == 200  # which appends what waited
        assert await _ask(client, "k") == (200, first)
        assert world.decisions == 2


async def test_the_stream_knows_a_key_too(client: Client) -> None:
    async with client.session.ws_connect(
        f"{client.url}/v1/stream", protocols=("bandit.v1",)
    ) as stream:
        await stream.receive_bytes()
        made = []
        for i in range(2):
            asked = {"op": "decide", "id": i, "idempotency_key": "k", **QUERY}
            await stream.send_bytes(msgspec.msgpack.encode(asked))
            made.append(msgspec.msgpack.decode(await stream.receive_bytes()))
    assert made[0]["decision_id"] == made[1]["decision_id"]
    status, body = await _ask(client, "k")
    assert (status, body["decision_id"]) == (200, made[0]["decision_id"])


async def test_a_decision_that_is_forgotten_frees_its_key(tmp_path: Path, models: Path) -> None:
    async with opened(tmp_path / "data", models) as (client, world):
        _, first = await _ask(client, "k")
        status, _ = await client.call("DELETE", "/v1/units/u")
        assert status == 200
        assert not world.pending.asked
        status, again = await _ask(client, "k")
        assert (status, again["decision_id"] != first["decision_id"]) == (200, True)
