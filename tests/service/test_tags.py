"""Tags over every way in, and the decisions that are found by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from bandit_service.cli import main
from tests.service.keyring import Keyring
from tests.service.provider import HELLO, a_gateway
from tests.service.running import Client, a_vector, serving


async def _ids(client: Client, query: str = "") -> list[str]:
    status, body = await client.get(f"/v1/decisions{query}")
    assert status == 200, body
    return [one["decision_id"] for one in body["decisions"]]


async def test_decisions_are_found_by_tag_and_arm_page_by_page(client: Client) -> None:
    made = []
    for i in range(6):
        tags = ["even" if i % 2 == 0 else "odd", "all", f"n:{i}"]
        decided = await client.decide(embedding=a_vector(i), tags=tags, unit=f"u{i}")
        made.append(decided["decision_id"])
    await client.reward(made[4], quality=0.5, cost_usd=0.01)
    newest = made[::-1]
    assert await _ids(client) == newest
    assert await _ids(client, "?tag=even") == newest[1::2]
    assert await _ids(client, "?tag=all&tag=n:3") == [made[3]]
    assert await _ids(client, "?tag=even&tag=odd") == []
    _, body = await client.get("/v1/decisions?limit=2")
    row, following = body["decisions"][1], body["next"]
    assert (row["decision_id"], row["tags"], row["unit"]) == (made[4], ["all", "even", "n:4"], "u4")
    assert row["signals"] == {"quality": 0.5, "cost_usd": 0.01}
    assert row["reward"] == pytest.approx(0.4)
    assert await _ids(client, f"?limit=500&before={following}") == newest[2:]
    by_arm = [one for one in body["decisions"] if one["arm"] == row["arm"]]
    found = await _ids(client, f"?arm={row['arm']}")
    assert set(found) >= {one["decision_id"] for one in by_arm}
    _, one = await client.get(f"/v1/decisions/{made[0]}")
    assert one["tags"] == ["all", "even", "n:0"]
    assert await _ids(client, f"?before={made[1].upper()}") == [made[0]]
    _, again = await client.get(f"/v1/decisions?before={made[0]}")
    assert again == {"decisions": [], "next": None, "baseline": body["baseline"]}


@pytest.mark.parametrize(
    ("query", "param", "allowed"),
    [
        ("?limit=0", "limit", "from 1 to 500"),
        ("?limit=x", "limit", "from 1 to 500"),
        ("?before=garbage", "before", "the id of a decision, a UUID"),  # on 0e17ee51 an empty 200
        ("?before=", "before", "the id of a decision, a UUID"),
        ("?arm=nobody", "arm", "no 'nobody'; expected one of "),  # the same
        ("?tag=a%20b", "tag", "1 to 64 characters of A-Z"),
        ("?tags=a", "tags", "expected one of arm, before, limit, route, tag"),
    ],
)
async def test_a_wrong_filter_is_refused(
    client: Client, query: str, param: str, allowed: str
) -> None:
    status, body = await client.get(f"/v1/decisions{query}")
    assert (status, body["error"]["param"]) == (400, param)
    assert allowed in body["error"]["message"]


async def test_wrong_tags_are_refused_and_nothing_is_decided(client: Client) -> None:
    wrong: list[Any] = [["a b"], [""], ["x" * 65], [str(i) for i in range(17)], "a", [1]]
    for tags in wrong:
        asked = {"embedding": a_vector(0), "tags": tags}
        status, body = await client.post("/v1/decide", asked)
        assert (status, body["error"]["type"]) == (400, "invalid_request_error")
        assert body["error"]["param"].startswith("tags")
    async with client.session.ws_connect(
        f"{client.url}/v1/stream", protocols=("bandit.v1",)
    ) as stream:
        await stream.receive_bytes()
        for id, tags in enumerate((["a b"], ["fine"])):
            asked = {"op": "decide", "id": id, "embedding": a_vector(0), "tags": tags}
            await stream.send_bytes(msgspec.msgpack.encode(asked))
        answers = [msgspec.msgpack.decode(await stream.receive_bytes()) for _ in range(2)]
    assert {one["id"]: "error" in one for one in answers} == {0: True, 1: False}
    assert await _ids(client) == await _ids(client, "?tag=fine")


async def test_a_tenant_finds_its_own(tmp_path: Path, models: Path) -> None:
    ring = Keyring(acme={"tenant": "acme"}, globex={"tenant": "globex"}, all={})
    async with serving(tmp_path / "var", models, **ring.environ) as nobody:
        assert (await nobody.get("/v1/decisions"))[0] == 401
        for id in ("acme", "globex"):
            await nobody.by(ring[id]).decide(tags=["t"])
        assert len(await _ids(nobody.by(ring["all"]), "?tag=t")) == 2
        (own,) = (await nobody.by(ring["acme"]).get("/v1/decisions"))[1]["decisions"]
        assert own["tenant"] == "acme"


async def test_the_gateway_takes_them_from_a_header_the_models_name_and_metadata(
    tmp_path: Path, models: Path
) -> None:
    async with a_gateway(tmp_path, models) as (client, provider):

        async def asked(path: str, headers: dict[str, str], **body: Any) -> Any:
            body = {"model": "auto", "messages": HELLO} | body
            url = f"{client.url}/v1/{path}"
            async with client.session.post(url, json=body, headers=headers) as answer:
                told = await answer.json()
                if answer.status != 200:
                    return told["error"]["param"] if "error" in told else told
                id = answer.headers["x-decision-id"]
            return (await client.get(f"/v1/decisions/{id}"))[1]["tags"]

        chat = "chat/completions"
        assert await asked(chat, {"x-tags": "b, a"}) == ["a", "b"]
        assert await asked(chat, {"x-tags": "a"}, metadata={"tags": "b,c"}) == ["a", "b", "c"]
        assert provider.seen[-1]["metadata"] == {"tags": "b,c"}, "it is passed on as before"
        assert await asked(chat, {}, metadata={"tags": ["a"]}) == ["a"]
        assert await asked(chat, {}, model="auto?tags=a,b") == ["a", "b"]
        assert await asked(chat, {}, metadata={"other": "any text"}) == []
        own = {"messages": None, "input": "Hello", "metadata": {"tags": "r"}}
        assert await asked("responses", {}, **own) == ["r"]
        assert await asked("messages", {"x-tags": "m"}, max_tokens=9) == ["m"]
        assert await asked(chat, {"x-tags": "a b"}) == "x-tags"
        assert await asked(chat, {}, metadata={"tags": "a b"}) == "metadata.tags"
        assert await asked(chat, {}, metadata={"tags": 7}) == "metadata.tags"


async def test_no_tag_is_the_label_of_a_metric(client: Client) -> None:
    await client.decide(tags=["planted-tag"])
    async with client.session.get(f"{client.url}/metrics") as answer:
        assert "planted-tag" not in await answer.text()


def test_the_commands_refuse_what_is_no_tag(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["export"], ["evaluate", "--from-log"]):
        with pytest.raises(SystemExit):
            main([*command, "--tag", "a b"])
        assert "a tag must be 1 to 64 characters" in capsys.readouterr().err
