"""The exposition: named by Prometheus' rules, bounded in size, right in its numbers."""

from __future__ import annotations

import json
import math
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bandit_service.telemetry import metrics
from bandit_service.telemetry.learning_health import LearningHealth, Mean, changes
from policies import ArmId
from tests.service.provider import Provider, a_provider
from tests.service.running import Client, a_vector, serving
from tests.tools import tool

ARMS, POLICIES = 50, 5
MAX_SERIES = 1000


async def _exposed(client: Client) -> str:
    async with client.session.get(f"{client.url}/metrics") as answer:
        return await answer.text()


def _value(text: str, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    assert found is not None, f"{series} is not in\n{text}"
    return float(found[1])


def _trial(id: str, **policies: str) -> dict[str, Any]:
    """An experiment of these variants; the first one is the control."""
    keyed = [
        {"key": key, "weight": 1.0 / len(policies), "policy": policy, "begin": "nothing"}
        for key, policy in policies.items()
    ]
    return {"id": id, "min_units": 2, "variants": keyed}


def test_promtool_does_find_a_bad_name() -> None:
    promtool = tool("promtool")
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


async def test_series_at_fifty_arms_and_five_policies(tmp_path: Path, models: Path) -> None:
    """A real service in which every arm was decided, called, rewarded and compared."""
    both = [{"upstream": "p"}, {"upstream": "q"}]
    async with a_provider() as provider:
        arms = [
            {
                "id": f"arm-{k:02d}",
                "usd_per_mtok_in": 1.0,
                "usd_per_mtok_out": 1.0 + k,
                **({"deployments": both} if k < 15 else {"upstream": "p"}),
            }
            for k in range(ARMS)
        ]
        upstreams = [{"id": id, "base_url": provider.url} for id in ("p", "q")]
        environ = {
            "BANDIT_ARMS": json.dumps(arms),
            "BANDIT_UPSTREAMS": json.dumps(upstreams),
            "BANDIT_POLICY_NAME": "uniform",
            "BANDIT_BUDGETS": json.dumps([{"scope": "service", "per": "day", "usd": 1000.0}]),
            "BANDIT_GATEWAY_ATTEMPTS": "1",
            "BANDIT_EXPERIMENTS": json.dumps([
                _trial("five", control="uniform", a="metallm", b="epsilon_greedy",
                       c="pickllm_q", d="eagle"),
                _trial("two", control="uniform", treatment="metallm"),
            ]),
        }  # fmt: skip
        async with serving(tmp_path / "var", models, **environ) as client:
            await _everything(client, provider)
            text = await _exposed(client)
            series = [one for one in text.splitlines() if one and not one.startswith("#")]
            # what comes with the hundredth outcome of each arm and policy
            bounds = 2 * metrics.MAX_ESTIMATED - text.count("bandit_arm_reward_bound{")
            bounds += 3 * POLICIES - text.count("bandit_policy_value_estimate{")
            of_deployments = sum(one.startswith("bandit_deployment_") for one in series)
            assert len(series) - of_deployments + bounds <= MAX_SERIES
            assert of_deployments <= 3 * (metrics.MAX_DEPLOYMENTS + 1)
            for name in ("decisions_total", "rewards_total", "cost_usd_total", "reward_mean"):
                by_arm = "cost_usd_total" if name == "cost_usd_total" else f"arm_{name}"
                assert text.count(f'bandit_{by_arm}{{arm="arm-') == ARMS
            assert text.count("bandit_upstream_seconds_count{") == ARMS
            assert text.count("bandit_arm_info{") == ARMS
            assert 'bandit_arm_info{arm="arm-17",model="arm-17",upstream="p"} 1.0' in text
            assert 'bandit_arm_info{arm="arm-07",model="arm-07",upstream="p,q"} 1.0' in text
            assert text.count("bandit_deployment_up{") == metrics.MAX_DEPLOYMENTS + 1
            assert 'bandit_deployment_up{arm="other",deployment="other"}' in text
            assert text.count("bandit_deployment_failures_total{") == 2 * 5
            for name in ("reward_change", "value_estimate", "elo_rating", "residual_mean"):
                assert text.count(f"bandit_arm_{name}{{") == metrics.MAX_ESTIMATED
            assert text.count("bandit_arm_probability{") == metrics.MAX_PROBABILITIES
            policies = set(re.findall(r'bandit_decisions_total\{.*policy="(\w+)"', text))
            assert len(policies) == POLICIES
            assert text.count("bandit_experiment_effect{") == 3 * 4

            new = {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 1.0}
            assert (await client.call("PUT", "/v1/arms/beyond", new))[0] == 201
            decided = await client.decide(arms=["beyond"])
            await client.reward(decided["decision_id"], quality=1.0)
            text = await _exposed(client)
            assert "beyond" not in text
            assert _value(text, 'bandit_arm_decisions_total{arm="other"}') == 1


async def _everything(client: Client, provider: Provider) -> None:
    for k in range(ARMS):
        body = {"model": f"arm-{k:02d}", "messages": [{"role": "user", "content": f"query {k}"}]}
        assert (await client.post("/v1/chat/completions", body))[0] == 200
        decided = await client.decide(embedding=a_vector(k), arms=[f"arm-{k:02d}"])
        await client.reward(decided["decision_id"], quality=0.5, cost_usd=0.001)
        pair = {"winner": f"arm-{k:02d}", "loser": f"arm-{(k + 1) % ARMS:02d}",
                "decision_id": decided["decision_id"]}  # fmt: skip
        assert (await client.post("/v1/comparisons", pair))[0] == 200
    for k in range(5):
        provider.behaviour[f"arm-{k:02d}"] = "500"
        body = {"model": f"arm-{k:02d}", "messages": [{"role": "user", "content": "again"}]}
        assert (await client.post("/v1/chat/completions", body))[0] == 500
    for k in range(80):
        decided = await client.decide(embedding=a_vector(k), unit=f"user-{k}")
        await client.reward(decided["decision_id"], quality=k % 2)
    for path in ("arms", "policies", "budgets", "experiments", "stats", "decisions/never-was"):
        await client.get(f"/v1/{path}")
    await client.post("/v1/decide", {"query": 1})


async def test_experiments_have_metrics_while_they_are_there(tmp_path: Path, models: Path) -> None:
    trial = _trial("trial", today="uniform", new="metallm")
    trial["guardrails"] = [{"metric": "quality", "least": 0.9}]
    environ = {"BANDIT_EXPERIMENTS": json.dumps([trial]), "BANDIT_EXPERIMENT_RULES_STEER_S": "60"}
    async with serving(tmp_path / "var", models, **environ) as client:
        text = await _exposed(client)
        assert "bandit_experiment_effect{" not in text
        counts = {"today": 0, "new": 0}
        for k in range(60):
            decided = await client.decide(embedding=a_vector(k), unit=f"user-{k}")
            counts[decided["variant"]] += 1
            quality = 1.0 if decided["variant"] == "today" else 0.0
            # without a cost the expected one of the arm that was drawn would count
            cost_usd = 0.001 * (k % 3)
            await client.reward(decided["decision_id"], quality=quality, cost_usd=cost_usd)
        text = await _exposed(client)
        for variant, count in counts.items():
            labels = f'{{experiment="trial",variant="{variant}"}}'
            assert _value(text, f"bandit_experiment_decisions_total{labels}") == count
            assert _value(text, f"bandit_experiment_units{labels}") == count
            assert _value(text, f"bandit_experiment_weight{labels}") == 0.5
        assert _value(text, 'bandit_experiment_srm_p_value{experiment="trial"}') > 0.5
        low, mean, high = (
            _value(
                text,
                f'bandit_experiment_effect{{bound="{bound}",experiment="trial",variant="new"}}',
            )
            for bound in ("low", "mean", "high")
        )
        assert mean == pytest.approx(-1.0, abs=0.05)
        assert low < mean < high < 0.0
        guard = 'bandit_experiment_guardrail_state{experiment="trial",variant="new"}'
        assert _value(text, guard) == 1
        status, _ = await client.post("/v1/experiments/trial/stop", {"why": "enough"})
        assert status == 200
        status, _ = await client.call("DELETE", "/v1/experiments/trial")
        assert status == 200
        assert 'experiment="trial"' not in await _exposed(client)


def test_regret_is_zero_of_the_best_arm_alone_and_corrected_for_how_often_each_was_drawn() -> None:
    health = LearningHealth()
    assert health.regret() is None
    for i in range(1000):  # "good" pays 1, "bad" 0; good is drawn one time in ten
        good = i % 10 == 0
        health.settled("good" if good else "bad", 0.1 if good else 0.9, float(good))
    assert health.corrected["good"].value == pytest.approx(1.0)
    assert health.regret() == pytest.approx(0.9, abs=0.01)
    assert health.rewards.value == pytest.approx(0.1, abs=0.01)


def test_an_arm_of_few_effective_samples_is_no_part_of_the_regret() -> None:
    health = LearningHealth(span=1e9)
    for _ in range(200):
        health.settled("usual", 1.0, 0.5)
    for i in range(40):  # 39 weigh 1 each and one weighs 1000: (1039)² / (39 + 1000²) = 1.08
        health.settled("rare", 0.001 if i == 0 else 1.0, 1.0)
    assert health.corrected["rare"].effective == pytest.approx(1039**2 / (39 + 1000**2), rel=1e-6)
    best = health.best()
    assert best is not None
    assert best.effective == pytest.approx(200.0)
    assert health.regret() == pytest.approx(0.5 - (100.0 + 40.0) / 240.0)
    for _ in range(30):
        health.settled("new", 1.0, 0.9)
    assert health.best() is health.corrected["new"]


def test_entropy_and_least_propensity_follow_the_window() -> None:
    health = LearningHealth(window=100)
    for i in range(100):
        health.decided([f"arm-{i % 4}"], [(0.25,) * 4])
    assert health.entropy(4) == pytest.approx(1.0)
    health.decided(["arm-1"], [(0.99, 0.01)])
    assert health.least_propensity() == 0.01
    for _ in range(100):
        health.decided(["arm-0"], [(1.0, 0.0)])
    assert health.entropy(4) == 0.0
    assert health.least_propensity() == 0.0


def test_elo_moves_by_comparisons_and_means_survive_many_outcomes() -> None:
    health = LearningHealth(span=100.0)
    health.compared(ArmId("a"), ArmId("b"), tie=False)
    assert health.elo[ArmId("a")] == 1008.0
    assert health.elo[ArmId("b")] == 992.0
    for _ in range(30_000):  # far beyond where the weights are scaled down
        health.settled("a", 0.5, 0.25)
    assert health.rewards.value == pytest.approx(0.25)
    assert health.regret() == pytest.approx(0.0)


def test_the_moving_change_of_an_arm_is_the_newest_less_the_slow_mean() -> None:
    health = LearningHealth(span=1000.0, short=50.0)
    for _ in range(1000):
        health.settled("a", 1.0, 1.0)
    assert changes(health.by_arm, health.lately) == {"a": pytest.approx(0.0)}
    for _ in range(100):
        health.settled("a", 1.0, 0.0)
    # weights e^{-age/span}: 1 - e^{-100/1000} of the slow mean's weight is new, more of the fast
    slow = (math.exp(-0.1) - math.exp(-1.1)) / (1.0 - math.exp(-1.1))
    fast = math.exp(-2.0)
    assert changes(health.by_arm, health.lately)["a"] == pytest.approx(fast - slow, abs=0.01)


def test_calibration_error_is_of_the_means_of_each_tenth_not_of_single_outcomes() -> None:
    health = LearningHealth(span=1e9)
    for i in range(100):  # expected 0.75, came as 1, 1, 1, 0: every one is off, all together right
        health.settled("a", 1.0, 0.0, float(i % 4 != 3), 0.75)
    assert health.quality.error() == pytest.approx(0.0, abs=1e-6)
    assert health.quality_error.value == pytest.approx(0.375)
    for _ in range(100):  # expected 0.25, came as 0: half of all outcomes are off by a quarter
        health.settled("a", 1.0, 0.0, 0.0, 0.25)
    assert health.quality.error() == pytest.approx(0.125, abs=1e-6)


def test_calibration_of_cost_is_relative_and_does_not_let_dear_and_cheap_cancel() -> None:
    health = LearningHealth(span=1e9)
    for _ in range(10):
        health.paid(expected_usd=0.004, usd=0.002)
        health.paid(expected_usd=0.001, usd=0.003)
    assert health.cost.ratio() == pytest.approx((0.002 + 0.002) / (0.002 + 0.003))
    assert health.cost.bias() == pytest.approx(0.0, abs=1e-6)
    assert LearningHealth().cost.bias() is None
    free = LearningHealth()
    free.paid(0.0, 0.0)
    assert free.cost.ratio() is None


def test_a_variant_that_is_one_arm_says_nothing_of_exploration() -> None:
    health = LearningHealth()
    health.decided(["a"], [])
    assert health.least_propensity() is None
    health.decided(["a"], [(0.9, 0.1)])
    assert health.least_propensity() == 0.1


def test_arms_that_share_a_label_count_as_one() -> None:
    health, together = LearningHealth(span=1e9), Mean()
    for i in range(10):
        health.settled("a", 1.0, 0.2)
        health.settled("b", 1.0, 0.2 * (i % 2))
    for mean in health.by_arm.values():
        together.merge(mean)
    assert together.value == pytest.approx(0.15)
    assert together.effective == pytest.approx(20.0)
