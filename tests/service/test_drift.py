"""An arm gets worse without a word: what a real service sees, writes down and does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from tests.service.running import Client, Process, a_vector, serving

ARMS = json.dumps(
    [{"id": name, "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 1.0} for name in ("good", "fair")]
)
ENVIRON = {
    "BANDIT_ARMS": ARMS,
    "BANDIT_POLICY_NAME": "epsilon_greedy",
    "BANDIT_REWARD_WILLINGNESS_TO_PAY": "1000",
}
REACTIONS = {
    "BANDIT_DRIFT_KEEP": "0.02",
    "BANDIT_DRIFT_EXPLORE": "0.05",
    "BANDIT_DRIFT_EXPLORE_DECISIONS": "500",
}
BEFORE = {"good": 0.9, "fair": 0.6}
AFTER = {"good": 0.3, "fair": 0.6}


async def _traffic(client: Client, quality: dict[str, float], n: int, seed: int) -> list[str]:
    """The arms of n decisions, each rewarded with nearly the quality of its arm.

    Nearly: with answers right or wrong, an arm that is tried twenty times may look good by chance,
    and where the traffic stays would be chance too.
    """
    rng, arms = np.random.default_rng(seed), []
    for _ in range(0, n, 10):
        decided = await asyncio.gather(
            *(client.decide(embedding=a_vector(int(rng.integers(50)))) for _ in range(10))
        )
        rewards = [
            {
                "decision_id": one["decision_id"],
                "quality": quality[one["arm"]] + float(rng.uniform(-0.1, 0.1)),
            }
            for one in decided
        ]
        status, _ = await client.post("/v1/rewards", rewards)
        assert status == 200
        arms += [one["arm"] for one in decided]
    return arms


async def _drift(client: Client) -> dict[str, Any]:
    status, body = await client.get("/v1/drift")
    assert status == 200
    found: dict[str, Any] = body
    return found


async def _metrics(client: Client) -> str:
    async with client.session.get(client.url + "/metrics") as response:
        return await response.text()


async def test_a_silent_drop_is_told_and_with_reactions_traffic_leaves_the_arm_sooner(
    tmp_path: Path, models: Path
) -> None:
    shares = {}
    for name, more in (("watched", {"BANDIT_DRIFT_KEEP": "1"}), ("reacting", REACTIONS)):
        async with serving(tmp_path / name, models, **ENVIRON, **more) as client:
            await _traffic(client, BEFORE, 500, 1)
            steady = await _drift(client)
            assert (steady["watched"], steady["alarms"], steady["allowances"]) == (True, [], [])
            assert steady["forgets"] is True
            assert abs(steady["arms"]["good"]["residual"]) < 0.2
            arms = await _traffic(client, AFTER, 400, 2)
            shares[name] = arms[200:].count("good") / 200
            (alarm, *_) = (await _drift(client))["alarms"]
            assert (alarm["arm"], alarm["direction"]) == ("good", "down")
            assert alarm["before"] > alarm["after"] + 0.3
            series = f'arm="good",detector="{alarm["detector"]}",direction="down"'
            assert f"bandit_drift_detected_total{{{series}}} 1.0" in await _metrics(client)
            assert (alarm["keep"], alarm["explore"]) == (
                (1.0, 0.0) if name == "watched" else (0.02, 0.05)
            )
    assert shares["watched"] > 0.8
    assert shares["reacting"] < 0.5


async def test_alarm_and_allowance_outlive_a_kill_and_so_does_what_leads_to_an_alarm(
    tmp_path: Path, models: Path
) -> None:
    environ = ENVIRON | REACTIONS
    process = Process(tmp_path / "var", models, **environ)
    async with aiohttp.ClientSession() as session:
        client = Client(session, await process.url())
        await _traffic(client, BEFORE, 300, 1)
        # the change has begun, and nobody has seen it yet: that takes twenty of the arm's outcomes
        await _traffic(client, AFTER, 10, 2)
        before = await _drift(client)
        assert before["alarms"] == []
        process.kill()
        process = Process(tmp_path / "var", models, **environ)
        client = Client(session, await process.url())
        assert await _drift(client) == before
        await _traffic(client, AFTER, 200, 3)
        told = await _drift(client)
        (alarm,) = told["alarms"]
        assert (alarm["arm"], alarm["direction"]) == ("good", "down")
        assert told["allowances"][0]["arm"] == "good"
        process.kill()
        logged = [json.loads(line) for line in process.log_path.read_text().splitlines()]
        (line,) = (line for line in logged if line["message"] == "drift")
        assert (line["arm"], line["level"], line["direction"]) == ("good", "warning", "down")
        assert "request_id" not in line
        process = Process(tmp_path / "var", models, **environ)
        client = Client(session, await process.url())
        assert await _drift(client) == told
    assert await asyncio.to_thread(process.stop) == 0


async def test_where_it_is_off_nothing_is_told(tmp_path: Path, models: Path) -> None:
    off = {"BANDIT_DRIFT_ENABLED": "false"}
    async with serving(tmp_path / "var", models, **ENVIRON, **off) as client:
        await _traffic(client, BEFORE, 200, 1)
        await _traffic(client, AFTER, 200, 2)
        found = await _drift(client)
        assert (found["watched"], found["alarms"]) == (False, [])
        assert found["arms"]["good"]["residual"] < -0.1


async def test_that_a_policy_cannot_forget_is_told(tmp_path: Path, models: Path) -> None:
    environ = ENVIRON | {"BANDIT_POLICY_NAME": "uniform"}
    async with serving(tmp_path / "var", models, **environ) as client:
        assert (await _drift(client))["forgets"] is False


async def test_a_policy_that_watches_its_arms_itself_is_left_to_it(
    tmp_path: Path, models: Path
) -> None:
    environ = ENVIRON | {"BANDIT_POLICY_NAME": "nested"}
    async with serving(tmp_path / "var", models, **environ) as client:
        await _traffic(client, BEFORE, 200, 1)
        assert 'bandit_arm_alarms_total{arm="good"}' not in await _metrics(client)
        arms = await _traffic(client, AFTER, 200, 2)
        assert arms[100:].count("good") < 20
        told = await _drift(client)
        assert (told["forgets"], told["watches_arms"]) == (False, True)
        _, catalogue = await client.get("/v1/arms")
        observed = {arm["id"]: arm["observed"] for arm in catalogue["arms"]}
        alarms = observed["good"]["alarms"]
        assert alarms >= 1
        assert "alarms" not in observed["fair"]
        assert f'bandit_arm_alarms_total{{arm="good"}} {float(alarms)}' in await _metrics(client)
