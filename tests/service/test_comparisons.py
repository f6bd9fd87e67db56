"""A comparison has a key of its own: the decision and the pair that was compared."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.running import Client, a_vector, serving

ARMS = ("gemini-2.5-pro", "llama-3.1-8b-instruct", "mistral-large-2512")


@pytest.fixture
async def client(tmp_path: Path, models: Path) -> AsyncIterator[Client]:
    async with serving(tmp_path / "var", models, BANDIT_POLICY_NAME="eagle") as running:
        yield running


async def _told(client: Client, **body: Any) -> tuple[int, Any]:
    status, answer = await client.post("/v1/comparisons", body)
    return status, answer["results"][0]["status"] if status == 200 else answer["error"]


async def _state(client: Client) -> dict[str, Any]:
    status, state = await client.get("/v1/policies/eagle/state")
    assert status == 200
    return {name: state[name] for name in ("events", "comparisons", "sha256")}


async def _of_a_decision(client: Client) -> tuple[str, str, str, str]:
    decided = await client.decide(embedding=a_vector(0))
    other, third = (arm for arm in ARMS if arm != decided["arm"])
    return decided["decision_id"], decided["arm"], other, third


@pytest.mark.parametrize("tie", [False, True])
async def test_a_resend_counts_once_under_any_key_and_in_either_order(
    client: Client, tie: bool
) -> None:
    """On 5a5a85b the same comparison of one decision, sent three times without a key, was
    accepted three times, and with keys of their own 10,000 times."""
    id, arm, other, _ = await _of_a_decision(client)
    body = {"decision_id": id, "winner": arm, "loser": other, "tie": tie}
    assert await _told(client, **body) == (200, "accepted")
    once = await _state(client)
    again = [body, body | {"idempotency_key": "k"}, body | {"idempotency_key": "l"}]
    if tie:  # the order of two that tie says nothing
        again.append(body | {"winner": other, "loser": arm})
    again.append(body | {"correction": True})
    for each in again:
        assert await _told(client, **each) == (200, "duplicate")
    assert await _state(client) == once


async def test_another_result_is_a_conflict_and_changes_nothing(client: Client) -> None:
    """On 5a5a85b the opposite was accepted too."""
    id, arm, other, third = await _of_a_decision(client)
    assert await _told(client, decision_id=id, winner=arm, loser=other) == (200, "accepted")
    once = await _state(client)
    for change in ({"winner": other, "loser": arm}, {"winner": arm, "loser": other, "tie": True}):
        status, error = await _told(client, decision_id=id, **change)
        assert (status, error["param"]) == (409, "winner")
        assert f"{arm!r} won was already reported" in error["message"]
        assert "correction: true" in error["message"]
    assert await _state(client) == once
    # another pair of the same decision is another outcome
    assert await _told(client, decision_id=id, winner=third, loser=arm) == (200, "accepted")


async def test_a_correction_takes_the_earlier_ones_place(client: Client) -> None:
    id, arm, other, _ = await _of_a_decision(client)
    await _told(client, decision_id=id, winner=arm, loser=other)
    first = await _state(client)
    turned = {"decision_id": id, "winner": other, "loser": arm, "correction": True}
    assert await _told(client, **turned) == (200, "accepted")
    assert await _told(client, **turned) == (200, "duplicate")
    after = await _state(client)
    assert after["comparisons"] == first["comparisons"] == 1
    status, _ = await _told(client, decision_id=id, winner=arm, loser=other)
    assert status == 409


async def test_one_of_the_two_must_be_the_decisions_arm(client: Client) -> None:
    """On 5a5a85b who may reward its own decisions alone could move the ratings of any two arms."""
    id, arm, other, third = await _of_a_decision(client)
    before = await _state(client)
    status, error = await _told(client, decision_id=id, winner=other, loser=third)
    assert (status, error["param"]) == (400, "winner")
    assert repr(arm) in error["message"]
    assert await _state(client) == before


async def test_a_correction_needs_the_decision_that_it_corrects(client: Client) -> None:
    status, error = await _told(
        client, embedding=a_vector(0), winner=ARMS[0], loser=ARMS[1], correction=True
    )
    assert (status, error["param"]) == (400, "correction")


async def test_the_key_outlives_a_restart(tmp_path: Path, models: Path) -> None:
    environ = {"BANDIT_POLICY_NAME": "eagle"}
    async with serving(tmp_path / "twice", models, **environ) as client:
        id, arm, other, _ = await _of_a_decision(client)
        await _told(client, decision_id=id, winner=arm, loser=other)
        await client.post("/v1/snapshots", {})
        once = await _state(client)
    async with serving(tmp_path / "twice", models, **environ) as client:
        again = {"decision_id": id, "winner": arm, "loser": other}
        assert await _told(client, **again) == (200, "duplicate")
        assert (await _told(client, **(again | {"winner": other, "loser": arm})))[0] == 409
        assert await _state(client) == once
