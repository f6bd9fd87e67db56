"""The exposition: named by Prometheus' rules, bounded in size, right in its numbers."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from bandit_service.core import events as ev
from bandit_service.learning_health import LearningHealth
from bandit_service.telemetry import TIMED, Telemetry
from policies import ArmId
from tests.service.running import a_vector, serving

ARMS, POLICIES = 50, 5
MOST_SERIES = 1000
NEEDS_PROMTOOL = "promtool is not there: apt-get install --no-install-recommends prometheus"


def _decided(arm: int, policy: str) -> ev.Decided:
    return ev.Decided(
        ts=1.0, id=f"{policy}-{arm}", embedding=b"", tokens=1, willingness_to_pay=0.1,
        arms=tuple(ArmId(f"arm-{k}") for k in range(ARMS)), propensities=(1 / ARMS,) * ARMS,
        scores=(0.0,) * ARMS, drawn=arm, policy=policy, key="", list_cost_usd=0.1,
        expected_cost_usd=0.1, price=0.5,
    )  # fmt: skip


async def test_names_are_by_prometheus_rules(tmp_path: Path, models: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip(NEEDS_PROMTOOL)
    async with serving(tmp_path / "var", models) as client:
        decided = await client.decide(embedding=a_vector(1))
        await client.reward(decided["decision_id"], quality=1.0, cost_usd=0.001)
        async with client.session.get(f"{client.url}/metrics") as answer:
            text = await answer.read()
    command = [promtool, "check", "metrics"]
    checked = await asyncio.to_thread(subprocess.run, command, input=text, capture_output=True)
    assert checked.returncode == 0, (checked.stdout + checked.stderr).decode()
    assert checked.stdout + checked.stderr == b""


def test_promtool_does_find_a_bad_name() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip(NEEDS_PROMTOOL)
    bad = b"# HELP x_ms Wrong unit.\n# TYPE x_ms gauge\nx_ms 1\n"
    assert subprocess.run([promtool, "check", "metrics"], input=bad).returncode != 0


async def test_what_exemplars_say(tmp_path: Path, models: Path) -> None:
    async with serving(tmp_path / "var", models) as client:
        decided = await client.decide(embedding=a_vector(1))
        accept = {"Accept": "application/openmetrics-text;version=1.0.0"}
        async with client.session.get(f"{client.url}/metrics", headers=accept) as answer:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
            text = await answer.text()
    assert f'# {{decision_id="{decided["decision_id"]}"}}' in text
    assert text.endswith("# EOF\n")


def test_series_at_fifty_arms_and_five_policies() -> None:
    telemetry = Telemetry(pending=lambda: 0, remembered=lambda: 0)
    learning = telemetry.learning
    for p in range(POLICIES):
        for k in range(ARMS):
            event = _decided(k, f"policy-{p}")
            telemetry.decided(event, 0.001)
            learning.health.settled(event.arm, event.propensity, 0.5, 0.5, 0.6)
            learning.health.compared(event.arm, event.arms[k - 1], tie=False)
        for outcome in ("accepted", "duplicate", "unknown", "expired", "conflict", "refused"):
            telemetry.rewarded(f"policy-{p}", outcome, 1.0)
    for k in range(ARMS):
        telemetry.answered(f"arm-{k}", 1.0, 0.1, 100)
        telemetry.upstream_failed(f"arm-{k}", "failed")
    for endpoint in TIMED:
        for code in (200, 400, 429, 500):
            telemetry.request(endpoint, code, 0.01)
    text, _ = telemetry.render()
    series = [one for one in text.decode().splitlines() if one and not one.startswith("#")]
    assert ARMS * POLICIES < len(series) < MOST_SERIES


def test_regret_is_zero_of_the_best_arm_alone_and_corrected_for_how_often_each_was_drawn() -> None:
    health = LearningHealth()
    assert health.regret() is None
    for i in range(1000):  # "good" pays 1, "bad" 0; good is drawn one time in ten
        good = i % 10 == 0
        health.settled("good" if good else "bad", 0.1 if good else 0.9, float(good))
    assert health.corrected["good"].value == pytest.approx(1.0)
    assert health.regret() == pytest.approx(0.9, abs=0.01)
    assert health.rewards.value == pytest.approx(0.1, abs=0.01)


def test_entropy_exploration_and_least_propensity_follow_the_window() -> None:
    health = LearningHealth(window=100)
    for i in range(100):
        assert health.decided(f"arm-{i % 4}", 0.25, (0.25,) * 4) is False
    assert health.entropy(4) == pytest.approx(1.0)
    assert health.decided("arm-1", 0.01, (0.99, 0.01)) is True
    assert health.least_propensity() == 0.01
    for _ in range(100):
        health.decided("arm-0", 1.0, (1.0, 0.0))
    assert health.entropy(4) == 0.0
    assert health.least_propensity() == 0.0


def test_elo_moves_by_comparisons_and_means_survive_many_outcomes() -> None:
    health = LearningHealth(span=10.0)
    health.compared(ArmId("a"), ArmId("b"), tie=False)
    assert health.elo[ArmId("a")] == 1008.0
    assert health.elo[ArmId("b")] == 992.0
    for _ in range(10_000):  # far beyond where the weights are scaled down
        health.settled("a", 0.5, 0.25)
    assert health.rewards.value == pytest.approx(0.25)
    assert health.regret() == pytest.approx(0.0)
