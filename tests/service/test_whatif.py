"""What another policy would have earned, asked of a running service while it decides."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bandit_service import cli
from bandit_service.offline.offpolicy import whatif
from tests.service.running import Client, a_vector, serving

WORTH = {"llama-3.1-8b-instruct": 0.3, "mistral-large-2512": 0.9, "gemini-2.5-pro": 0.6}
EXPERIMENT = {
    "variants": [
        {"key": "today", "weight": 0.5, "policy": "uniform", "begin": "nothing"},
        {"key": "cheap", "weight": 0.5, "arm": "llama-3.1-8b-instruct"},
    ]
}


@pytest.fixture
def drawn() -> list[float]:
    """What the decisions of the trial were worth of which no arm was fixed."""
    return []


@pytest.fixture
async def trial(tmp_path: Path, models: Path, drawn: list[float]) -> AsyncIterator[Client]:
    """A service that draws evenly, with an experiment and 180 rewarded decisions."""
    async with serving(tmp_path / "var", models, BANDIT_POLICY_NAME="uniform") as client:
        status, _ = await client.call("PUT", "/v1/experiments/trial", EXPERIMENT)
        assert status == 201
        await client.post("/v1/experiments/trial/start", {})
        while (await client.get("/v1/experiments/trial"))[1]["status"] != "running":
            await asyncio.sleep(0.01)
        for i in range(180):
            unit = f"user-{i}" if i % 3 else ""
            decided = await client.decide(embedding=a_vector(i), unit=unit)
            await client.reward(decided["decision_id"], reward=WORTH[decided["arm"]])
            if decided.get("variant") != "cheap":
                drawn.append(WORTH[decided["arm"]])
        yield client


def asking(*policies: str, **more: Any) -> dict[str, Any]:
    return {"policies": [{"name": name} for name in policies], **more}


async def test_an_experiments_decisions_and_all_of_the_services(
    trial: Client, drawn: list[float]
) -> None:
    path = "/v1/experiments/trial/whatif"
    status, of_all = await trial.post(path, asking("uniform", "epsilon_greedy", on="service"))
    assert status == 200, of_all
    log, (uniform, greedy) = of_all["log"], of_all["policies"]
    assert log["decisions"] == 180
    fixed = log["left_out"]["with an arm that an experiment or the hold-out fixed"]
    assert log["used"] == 180 - fixed == len(drawn)
    assert 30 < fixed < 90
    assert uniform["state"] == "shown"
    assert uniform["overlap"]["effective_size"] == pytest.approx(log["used"])
    # drawn evenly and asked about drawing evenly: the mean of what came, whatever that was
    assert uniform["estimates"]["snips"]["value"] == pytest.approx(sum(drawn) / len(drawn))
    assert greedy["parameters"] == {}
    status, own = await trial.post(path, asking("uniform"))
    assert status == 200, own
    assert own["experiment"] == "trial"
    assert own["log"]["decisions"] == 120
    status, late = await trial.post(path, asking("uniform", since=4e9))
    assert status == 200, late
    assert late["policies"][0]["state"] == "not enough data"


async def test_it_goes_on_deciding_and_only_one_is_evaluated_at_a_time(trial: Client) -> None:
    path = "/v1/experiments/trial/whatif"
    first = asyncio.create_task(trial.post(path, asking("metallm", "eagle", on="service")))
    answered = 0
    busy: set[int] = set()
    while not first.done():
        decided = await trial.decide(embedding=a_vector(answered))
        await trial.reward(decided["decision_id"], reward=0.5)
        answered += 1
        if not busy & {429}:
            busy.add((await trial.post(path, asking("uniform")))[0])
    assert (await first)[0] == 200
    assert answered > 5
    assert 429 in busy
    assert (await trial.post(path, asking("uniform")))[0] == 200


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "policies"),
    ({"policies": []}, "policies"),
    ({"policies": [{"name": "best"}]}, "policies[0]"),
    ({"policies": [{"name": "metallm", "parameters": {"alpha": "x"}}]}, "policies[0]"),
    ({"policies": [{"name": "metallm", "parameters": {"alpha": 2**70}}]}, "policies[0]"),
    ({"policies": [{"name": "uniform"}] * 9}, "policies"),
    (asking("uniform", on="moon"), "on"),
    (asking("uniform", metric="joy"), "metric"),
    (asking("uniform", last=0), "last"),
    (asking("uniform", last=10**9), "last"),
    (asking("uniform", alpha=0.9), "alpha"),
    (asking("uniform", clip=0.5), "clip"),
    (asking("uniform", since="now"), "since"),
    (asking("uniform", speed=1), "speed"),
]


async def test_what_is_asked_wrongly_is_named(client: Client) -> None:
    await client.call("PUT", "/v1/experiments/trial", EXPERIMENT)
    for body, param in WRONG:
        status, answer = await client.post("/v1/experiments/trial/whatif", body)
        assert status == 400, (body, answer)
        assert answer["error"]["param"] == param
    assert (await client.post("/v1/experiments/none/whatif", asking("uniform")))[0] == 404


async def test_one_that_takes_too_long_or_breaks_off_says_so_and_blocks_no_other(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "silent_child.py").write_text("import time; time.sleep(600)")
    (tmp_path / "chatty_child.py").write_text("print('good morning, what a day')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = "/v1/experiments/trial/whatif"
    for child, within_s, told in (
        ("silent_child", "1", (504, "timeout")),
        ("chatty_child", "60", (503, "unavailable")),
    ):
        monkeypatch.setattr(whatif, "_CHILD", child)
        within = {"BANDIT_EXPERIMENT_RULES_WHATIF_S": within_s}
        async with serving(tmp_path / child, models, **within) as client:
            await client.call("PUT", "/v1/experiments/trial", EXPERIMENT)
            for _ in range(2):  # the second is not held up by the first
                status, answer = await client.post(path, asking("uniform"))
                assert (status, answer["error"]["code"]) == told
            assert ("evaluate --from-log" in answer["error"]["message"]) is (status == 504)


async def test_the_command_line_asks_it_too(
    trial: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["experiments", "whatif", "trial", "--url", trial.url]
    asked = [*arguments, "--policy", "uniform", "--policy", "epsilon_greedy:epsilon=0.5"]
    assert await asyncio.to_thread(cli.main, asked) == 0
    told = capsys.readouterr().out
    assert "epsilon_greedy:epsilon=0.5: effective size" in told
    assert await asyncio.to_thread(cli.main, [*arguments, "--policy", "best"]) == 2
    assert "no policy named 'best'" in capsys.readouterr().err
    assert await asyncio.to_thread(cli.main, arguments) == 1
    assert "policies: must be 1 to 8, got 0" in capsys.readouterr().err


async def test_the_command_that_reads_the_running_services_log_says_the_same(
    trial: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--experiment", "trial", "--policy", "epsilon_greedy", "--json"]
    arguments = ["evaluate", "--from-log", trial.url, *chosen]
    assert await asyncio.to_thread(cli.main, arguments) == 0
    read = json.loads(capsys.readouterr().out)
    path = "/v1/experiments/trial/whatif"
    status, asked = await trial.post(path, asking("epsilon_greedy"))
    assert status == 200, asked
    assert read == asked
