"""Tenants are apart: what is another's is answered as what does not exist."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bandit_service import __version__
from bandit_service.http.openapi import document
from bandit_service.settings.texts import new_key
from tests.service.keyring import Keyring
from tests.service.running import Client, a_vector, serving

_SCOPES = {"scopes": ["decide", "reward", "read", "texts"]}
RING = Keyring(of_a={"tenant": "a"} | _SCOPES, of_b={"tenant": "b"} | _SCOPES, of_all=_SCOPES)
TEXTS = {"BANDIT_TEXTS_KEEP": "questions", "BANDIT_TEXTS_KEY_ENV": "K", "K": new_key()}
UNKNOWN = "ffffffff-ffff-7fff-bfff-ffffffffffff"
ARMS = {"winner": "gemini-2.5-pro", "loser": "mistral-large-2512"}
MOVES = {"/v1/stream", "/v1/live", "/metrics", "/v1/events", "/", "/docs", "/healthz", "/readyz"}
"""Streams and what is no JSON; /metrics and /v1/events are refused to a tenant's key elsewhere."""
OF_ALL = ("/v1/drift", "/v1/policies/nested/state")
SIGNALS: dict[str, dict[str, Any]] = {
    "ExplainRequest": {},
    "RewardRequest": {"quality": 1.0},
    "CompareRequest": ARMS,
}


@pytest.fixture
async def shared(tmp_path: Path, models: Path) -> AsyncIterator[Client]:
    async with serving(tmp_path / "var", models, **RING.environ, **TEXTS) as client:
        yield client


def _about_decisions() -> list[tuple[str, str, str | None]]:
    """Every operation of the OpenAPI document that takes a decision's id."""
    whole = document(__version__)
    found: list[tuple[str, str, str | None]] = []
    for path, methods in whole["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            names = set(re.findall(r"#/components/schemas/(\w+)", str(body)))
            for name in names:
                if "decision_id" in whole["components"]["schemas"][name]["properties"]:
                    found.append((method, path, name))
            if "/decisions/{id}" in path:
                found.append((method, path, None))
    return found


def test_the_operations_that_take_a_decision_are_found() -> None:
    found = _about_decisions()
    assert ("get", "/v1/decisions/{id}", None) in found
    assert ("post", "/v1/rewards", "RewardRequest") in found
    assert len(found) >= 3
    assert {name for _, _, name in found if name} <= set(SIGNALS)


async def _about(
    client: Client, id: str, method: str, path: str, name: str | None, many: bool
) -> tuple[int, str]:
    body: Any = None if name is None else {"decision_id": id, **SIGNALS[name]}
    target = path.replace("{id}", id)
    status, answer = await client.call(method.upper(), target, [body] if many and body else body)
    return status, msgspec.json.encode(answer).decode().replace(id, "ID")


@pytest.mark.parametrize("many", [False, True], ids=["one", "list"])
@pytest.mark.parametrize(("method", "path", "name"), _about_decisions())
async def test_a_decision_of_another_tenant_is_answered_as_one_that_never_was(
    shared: Client, method: str, path: str, name: str | None, many: bool
) -> None:
    mine, other = shared.by(RING["of_a"]), shared.by(RING["of_b"])
    made = await mine.decide(query="Whose?", arms=[*ARMS.values()])  # of which one is compared
    id = made["decision_id"]
    if name is None:
        assert (await mine.call(method.upper(), path.replace("{id}", id)))[0] == 200
    many = many and name != "ExplainRequest"  # of which there is no list
    foreign = await _about(other, id, method, path, name, many)
    unknown = await _about(other, UNKNOWN, method, path, name, many)
    assert foreign == unknown
    assert "unknown" in foreign[1]
    # nothing was learned by it, and its owner and a key of all tenants still can
    assert (await mine.call("GET", f"/v1/decisions/{id}"))[1]["signals"] == {}
    status, answer = await _about(shared.by(RING["of_all"]), id, method, path, name, many)
    assert status == 200
    assert "error" not in answer


async def test_the_stream_keeps_tenants_apart(shared: Client) -> None:
    mine, other = shared.by(RING["of_a"]), shared.by(RING["of_b"])
    id = (await mine.decide())["decision_id"]
    url = shared.url + "/v1/stream"
    async with shared.session.ws_connect(
        url, headers=other.headers, protocols=("bandit.v1",)
    ) as socket:
        await socket.receive_bytes()
        for op, body in (("reward", SIGNALS["RewardRequest"]), ("compare", ARMS)):
            answers = []
            for asked in (id, UNKNOWN):
                message = {"op": op, "id": 1, "decision_id": asked, **body}
                await socket.send_bytes(msgspec.msgpack.encode(message))
                answer = msgspec.msgpack.decode(await socket.receive_bytes())
                answers.append(str(answer).replace(asked, "ID"))
            assert answers[0] == answers[1]
            assert "'unknown'" in answers[0]
        await socket.send_bytes(
            msgspec.msgpack.encode({"op": "decide", "id": 2, "query": "x", "tenant": "a"})
        )
        answer = msgspec.msgpack.decode(await socket.receive_bytes())
        assert answer["error"]["code"] == "forbidden"


async def test_a_key_of_a_tenant_decides_for_it_alone(shared: Client) -> None:
    mine = shared.by(RING["of_a"])
    for named in ({}, {"tenant": "a"}):
        id = (await mine.decide(**named))["decision_id"]
        assert (await mine.get(f"/v1/decisions/{id}"))[1]["tenant"] == "a"
    status, body = await mine.post("/v1/decide", {"embedding": a_vector(0), "tenant": "b"})
    assert (status, body["error"]["param"]) == (403, "tenant")
    id = (await shared.by(RING["of_all"]).decide(tenant="b"))["decision_id"]
    assert (await mine.get(f"/v1/decisions/{id}"))[0] == 404
    assert (await shared.by(RING["of_b"]).get(f"/v1/decisions/{id}"))[0] == 200


async def test_idempotency_keys_of_two_tenants_never_meet(shared: Client) -> None:
    report = {
        "embedding": a_vector(1), "arm": "gemini-2.5-pro", "quality": 1.0, "idempotency_key": "k"
    }  # fmt: skip
    pair = {"embedding": a_vector(1), "idempotency_key": "k2", **ARMS}
    for path, body, change in (
        ("/v1/rewards", report, {"quality": 0.0}),
        ("/v1/comparisons", pair, {"tie": True}),
    ):
        for id in ("of_a", "of_b", "of_all"):
            client = shared.by(RING[id])
            # each one's first is new to it, also where another sent other values under that key
            asked = body | (change if id == "of_b" else {})
            for expected in ("accepted", "duplicate"):
                status, answer = await client.post(path, asked)
                assert (status, answer["results"][0]["status"]) == (200, expected), (id, answer)
        status, _ = await shared.by(RING["of_a"]).post(path, body | change)
        assert status == 409
        named = {**body, **change, "tenant": "b"}
        assert (await shared.by(RING["of_a"]).post(path, named))[0] == 403
        # who acts for all tenants meets the tenant's own
        status, answer = await shared.by(RING["of_all"]).post(path, named)
        assert answer["results"][0]["status"] == "duplicate"


async def test_neighbours_of_other_tenants_are_not_shown(shared: Client) -> None:
    everybody, mine = shared.by(RING["of_all"]), shared.by(RING["of_a"])
    id = (await everybody.decide(tenant="b"))["decision_id"]
    assert await everybody.reward(id, quality=1.0) == "accepted"
    assert (await everybody.decide(explain=True))["neighbours"]
    explained = await mine.decide(explain=True)
    assert explained["neighbours"] == []
    again = await mine.get(f"/v1/decisions/{explained['decision_id']}")
    assert again[1]["neighbours"] == []
    status, weighed = await mine.post("/v1/explain", {"decision_id": explained["decision_id"]})
    assert (status, weighed["neighbours"]) == (200, [])
    # another's decision is weighed for nobody else
    assert (await mine.post("/v1/explain", {"decision_id": id}))[0] == 404
    assert (await everybody.post("/v1/explain", {"decision_id": id}))[0] == 200


async def test_what_one_tenant_reads_is_not_moved_by_what_another_reports(shared: Client) -> None:
    """On 5a5a85b GET /v1/drift told tenant b "outcomes 1, residual -0.74697" after tenant a's one
    reward, from which a's quality follows; /v1/arms told its cost and latency to the last digit."""
    mine, other = shared.by(RING["of_b"]), shared.by(RING["of_a"])
    paths = document(__version__)["paths"].items()
    routes = [p for p, methods in paths if "get" in methods and "{" not in p and p not in MOVES]
    assert len(routes) > 6
    # of a time that does not end now
    asked = {"/v1/history": "/v1/history?per=month&since=1.7e9&until=4e9"}
    routes = [asked.get(path, path) for path in routes]
    before = {path: await mine.get(path) for path in routes}
    states = {path: await mine.get(path) for path in OF_ALL}
    decided = await other.decide()
    signals = {"quality": 0.37, "cost_usd": 0.0123, "latency_s": 4.2}
    assert await other.reward(decided["decision_id"], **signals) == "accepted"
    for path, (status, body) in before.items():
        assert await mine.get(path) == (status, body), path
    for path, (status, body) in states.items():
        assert (status, body["error"]["code"]) == (403, "forbidden"), path
        assert (await shared.by(RING["of_all"]).get(path))[0] == 200
