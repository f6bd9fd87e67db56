"""Questions and answers that are kept: who reads them, what is in them, and when they are gone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from bandit_service.settings.texts import new_key
from tests.service.keyring import Keyring
from tests.service.provider import HELLO, a_gateway, until
from tests.service.running import Client, serving

SECRET_QUESTION = "Where is the parcel of jane@example.org?"
JOE = "Where is the parcel of Joe?"
KEPT = "Where is the parcel of [email]?"


def _environ(keep: str = "both", **more: str) -> dict[str, str]:
    return {"BANDIT_TEXTS_KEEP": keep, "BANDIT_TEXTS_KEY_ENV": "K", "K": new_key(), **more}


async def _text(client: Client, id: str) -> tuple[int, Any]:
    return await client.get(f"/v1/decisions/{id}/text")


async def _kept(client: Client, id: str) -> tuple[int, Any]:
    """The same once it is written, which nothing waits for longer than a moment."""

    async def there() -> bool:
        return (await _text(client, id))[0] == 200

    await until(there)
    return await _text(client, id)


async def test_a_key_with_the_scope_reads_what_was_asked_and_asked_before(
    tmp_path: Path, models: Path
) -> None:
    ring = Keyring(
        app={},
        reader={"scopes": ["read", "texts"]},
        acme={"tenant": "acme", "scopes": ["decide", "texts"]},
        ops={"scopes": ["admin"]},
    )
    data = tmp_path / "var"
    environ = _environ("questions") | ring.environ
    async with serving(data, models, **environ) as anybody:
        app, reader, acme, ops = (anybody.by(ring[id]) for id in ("app", "reader", "acme", "ops"))
        first = await app.decide(query=SECRET_QUESTION, unit="u")
        await app.reward(first["decision_id"], quality=1.0)
        second = await app.decide(query=JOE)
        id = second["decision_id"]
        status, told = await _kept(reader, id)
        assert (status, told["question"], told["answer"]) == (200, JOE, None)
        assert [each["question"] for each in told["neighbours"]] == [KEPT]
        assert (
            told["neighbours"][0]["id"]
            == (await reader.get(f"/v1/decisions/{id}"))[1]["neighbours"][0]["id"]
        )
        status, told = await _text(reader, first["decision_id"])
        assert (told["question"], told["redacted"], told["cut"]) == (KEPT, 1, False)
        # the record says who may ask
        assert (await reader.get(f"/v1/decisions/{id}"))[1]["text"] is True
        assert "text" not in (await app.get(f"/v1/decisions/{id}"))[1]
        for other in (app, ops):
            status, told = await _text(other, id)
            assert (status, told["error"]["code"]) == (403, "forbidden")
        assert (await _text(acme, id))[0] == 404
        own = (await acme.decide(query=SECRET_QUESTION))["decision_id"]
        status, told = await _kept(acme, own)
        assert (status, told["question"], told["neighbours"]) == (200, KEPT, [])
        # gone with the unit, before the request is answered
        assert (await ops.call("DELETE", "/v1/units/u", None))[0] == 200
        with closing(sqlite3.connect(data / "texts.sqlite3")) as there:
            ids = {row[0] for row in there.execute("SELECT id FROM texts")}
        assert ids == {id, own}
        assert (await _text(reader, id))[1]["neighbours"] == []
        vector = await app.decide()
        status, told = await _text(reader, vector["decision_id"])
        assert (status, "as an embedding" in told["error"]["message"]) == (404, True)
    for file in data.rglob("*"):
        assert not file.is_file() or b"parcel" not in file.read_bytes(), file
    async with serving(data, models, **environ) as anybody:  # over a restart, with its key
        assert (await _text(anybody.by(ring["reader"]), id))[1]["question"] == JOE
    assert (data / "texts.sqlite3").exists()
    async with serving(data, models, **ring.environ) as anybody:
        status, told = await _text(anybody.by(ring["reader"]), id)
        assert (status, "texts.keep is off" in told["error"]["message"]) == (404, True)
    assert not (data / "texts.sqlite3").exists()


async def test_the_gateway_keeps_the_question_with_the_answer(tmp_path: Path, models: Path) -> None:
    environ = _environ(BANDIT_TEXTS_PATTERNS='["I am"]')
    async with a_gateway(tmp_path, models, **environ) as (client, _):
        for stream in (False, True):
            body = {"model": "alpha", "messages": HELLO, "stream": stream}
            async with client.session.post(
                f"{client.url}/v1/chat/completions", json=body
            ) as answer:
                await answer.read()
                id = answer.headers["x-decision-id"]

            async def kept(id: str = id) -> bool:
                return (await _text(client, id))[0] == 200

            await until(kept)
            _, told = await _text(client, id)
            assert told["question"] == "user: Hello there"
            assert told["answer"] == "[redacted] alpha"
        async with client.session.get(f"{client.url}/metrics") as answer:
            assert 'bandit_texts_total{result="stored"} 2.0' in await answer.text()


async def test_topics_are_for_who_may_read_all_texts_and_lose_a_unit_at_once(
    tmp_path: Path, models: Path
) -> None:
    ring = Keyring(
        app={},
        reader={"scopes": ["read", "texts"]},
        acme={"tenant": "acme", "scopes": ["decide", "texts"]},
        ops={"scopes": ["admin"]},
    )
    async with serving(tmp_path / "var", models, **_environ("questions") | ring.environ) as anybody:
        app, reader, acme, ops = (anybody.by(ring[id]) for id in ("app", "reader", "acme", "ops"))
        asked = ("Refund the invoice {}", "Sort a list in Python {}")
        decided = [await app.decide(query=asked[i % 2].format(i), unit=f"u{i}") for i in range(40)]
        last = decided[-1]["decision_id"]
        await _kept(reader, last)
        status, told = await reader.get("/v1/topics")
        assert (status, told["questions"], len(told["decisions"])) == (200, 40, 40)
        assert {tuple(each["words"]) for each in told["topics"]} == {
            ("invoice", "refund"),
            ("list", "python", "sort"),
        }
        assert all(
            sum(arm["decisions"] for arm in each["arms"]) == each["questions"] == each["units"]
            for each in told["topics"]
        )
        of = {each["decision_id"]: each["topic"] for each in told["decisions"]}
        assert (await _text(reader, last))[1]["topic"] == of[last]
        for other, why in ((app, "the scope"), (ops, "the scope"), (acme, "all tenants")):
            status, refused = await other.get("/v1/topics")
            assert (status, why in refused["error"]["message"]) == (403, True)
        assert (await ops.call("DELETE", "/v1/units/u39", None))[0] == 200
        assert (await _text(reader, decided[0]["decision_id"]))[1]["topic"] is None
        status, told = await reader.get("/v1/topics")
        assert (status, told["questions"], told["needed"], told["topics"]) == (200, 39, 40, [])
    async with serving(tmp_path / "none", models, **ring.environ) as anybody:
        status, told = await anybody.by(ring["reader"]).get("/v1/topics")
        assert (status, "texts.keep is off" in told["error"]["message"]) == (404, True)
