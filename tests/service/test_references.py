"""Kinds of faults of commit 5a5a85b about names: those that point nowhere, and typing slips."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from policies import _registry
from tests.service.running import Client, Process, serving

PRICED = {"usd_per_mtok_in": 1, "usd_per_mtok_out": 1}


async def test_an_arm_whose_upstream_there_is_not_is_refused(client: Client) -> None:
    """Seen on 5a5a85b: it was added and drawn, and the gateway's error pointed elsewhere."""
    status, body = await client.call("PUT", "/v1/arms/a", PRICED | {"upstream": "opnai"})
    assert (status, body["error"]["param"]) == (400, "upstream")
    assert "there is no [[upstreams]] 'opnai'; none is configured" in body["error"]["message"]
    _, arms = await client.get("/v1/arms")
    assert "a" not in {arm["id"] for arm in arms["arms"]}


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/decide", {"qery": "x"}, "qery: unknown field; did you mean query?; allowed are "),
        ("/v1/rewards", {"decison_id": "x"}, "decison_id: unknown field; did you mean decision_id"),
        ("/v1/comparisons", {"winner": "a", "loser": "b", "tei": True}, "did you mean tie?"),
        (
            "PUT /v1/experiments/e",
            {"variants": [{"key": "a", "polcy": "x"}]},
            "variants[0].polcy: unknown field; did you mean policy?; allowed are ",
        ),
        (
            "PUT /v1/experiments/e",
            {"variants": [], "audience": {"tenant": []}},
            "audience.tenant: unknown field; did you mean tenants?",
        ),
        (
            "PUT /v1/arms/a",
            PRICED | {"request": {"temprature": 1}},
            "request.temprature: unknown field; did you mean temperature?",
        ),
        (
            "PUT /v1/arms/a",
            PRICED | {"deployments": [{"upstream": "p", "wieght": 1}]},
            "deployments[0].wieght: unknown field; did you mean weight?",
        ),
        ("DELETE /v1/units/u?tenat=acme", {}, "tenat: no such parameter; did you mean tenant?"),
        ("DELETE /v1/units/u?tenant=a&tenant=b", {}, "tenant: given twice"),
        ("GET /v1/decisions?limt=1", {}, "limt: no such parameter; did you mean limit?"),
        ("GET /v1/arms?tag=x", {}, "tag: no such parameter; it has none"),
    ],
)
async def test_an_unknown_field_is_told_with_the_one_that_was_meant(
    client: Client, path: str, body: dict[str, Any], said: str
) -> None:
    """Seen on 5a5a85b: "Object contains unknown field `qery`". On 164cc0c0 so of a field within
    another, and a mistyped parameter of a path was not looked at: a unit was erased for no tenant.
    """
    method, _, there = path.rpartition(" ")
    status, answer = await client.call(method or "POST", there, body)
    assert status == 400
    assert said in answer["error"]["message"]


async def test_a_policy_that_is_gone_at_a_start_leaves_the_configured_one(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen on 5a5a85b: a traceback at each start, until a third policy was configured."""
    data = tmp_path / "var"
    async with serving(data, models) as client:
        await client.decide()
        await client.call("PUT", "/v1/policy", {"name": "epsilon_greedy"})
        async with asyncio.timeout(60):
            while (await client.get("/v1/policies"))[1]["serving"]["name"] == "nested":
                await asyncio.sleep(0.02)
        await client.decide()
        await client.post("/v1/snapshots", {})
    names = [name for name in _registry.names() if name != "epsilon_greedy"]
    monkeypatch.setattr(_registry, "names", lambda: tuple(names))
    async with serving(data, models) as client:
        async with asyncio.timeout(60):
            while (await client.get("/v1/policies"))[1]["serving"]["name"] != "nested":
                await asyncio.sleep(0.02)
        assert (await client.decide())["policy"] == "nested"


@pytest.mark.parametrize("number", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM"])
async def test_a_signal_that_is_for_nothing_ends_no_service(
    tmp_path: Path, models: Path, number: str
) -> None:
    """Seen on 5a5a85b: SIGHUP ended the process at once, without its orderly stop. On 164cc0c0 the
    others did, which are sent to open log files anew."""
    process = Process(tmp_path / "var", models)
    try:
        await process.url()
        process.popen.send_signal(signal.Signals[number])
        said = "the file was read again" if number == "SIGHUP" else number
        async with asyncio.timeout(60):
            while said not in process.log_path.read_text():
                await asyncio.sleep(0.02)
        assert process.stop() == 0
    finally:
        if process.popen.poll() is None:
            process.kill()


async def test_sigquit_is_an_orderly_end(tmp_path: Path, models: Path) -> None:
    """On 164cc0c0 it ended the process at once, without its orderly stop."""
    process = Process(tmp_path / "var", models)
    try:
        await process.url()
        process.popen.send_signal(signal.SIGQUIT)
        assert process.popen.wait(60) == 0
    finally:
        if process.popen.poll() is None:
            process.kill()
