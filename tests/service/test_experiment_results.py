"""Results of an experiment, from a service, through its command line, and after a restart."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bandit_service.core import chance
from tests.service.command import command
from tests.service.running import Client, a_vector, serving

CHEAP = "llama-3.1-8b-instruct"
PATH = "/v1/experiments/e"


async def _play(client: Client) -> None:
    """120 users of two variants: one arm that is right, and arms at random that are not."""
    variants = [
        {"key": "fixed", "arm": CHEAP, "weight": 0.5},
        {"key": "random", "policy": "uniform", "weight": 0.5},
    ]
    body = {"variants": variants, "primary": "quality", "min_units": 20,
            "guardrails": [{"metric": "latency_s", "max": 30.0, "high": 60.0}]}  # fmt: skip
    assert (await client.call("PUT", PATH, body))[0] == 201
    await client.begin("e")
    for i in range(120):
        decided = await client.decide(embedding=a_vector(i % 7), unit=f"u{i}")
        good = decided["variant"] == "fixed"
        signals = {"quality": float(good), "cost_usd": 0.001 if good else 0.003, "latency_s": 1.0}
        await client.reward(decided["decision_id"], **signals)


async def _checked(client: Client, path: str, schema: str) -> dict[str, Any]:
    status, body = await client.get(path)
    assert status == 200, body
    _, document = await client.get("/openapi.json")
    whole = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    jsonschema.Draft202012Validator(whole).validate(body)
    found: dict[str, Any] = body
    return found


async def _table(client: Client, *arguments: str) -> str:
    said = await command("experiments", *arguments, "--url", client.url)
    assert said.status == 0, said.err
    return said.out.decode()


@pytest.fixture
def even(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws that are spread evenly: real ones look wrong to their own test once in a thousand."""
    drawn = itertools.count(1)
    golden = (5**0.5 - 1.0) / 2.0
    monkeypatch.setattr(chance, "uniform", lambda seed, id: next(drawn) * golden % 1.0)


@pytest.mark.usefixtures("even")
async def test_results_over_http_and_the_command_line_are_the_same_after_a_restart(
    tmp_path: Path, models: Path
) -> None:
    async with serving(tmp_path / "var", models) as client:
        await _play(client)
        before = await _checked(client, f"{PATH}/results", "ExperimentResults")
        policies = await _checked(client, "/v1/policies", "Policies")
        assert before["state"] == "shown"
        assert before["conclusion"].startswith("random is worse than fixed in quality: by -1")
        assert before["caveats"] == []
        fixed, random = before["variants"]
        assert fixed["units"] + random["units"] == 120
        assert fixed["calibration"] == {"state": "not enough data", "decisions": 0}
        assert random["calibration"]["decisions"] == random["decisions"]
        assert before["cost"]["saved"]["random"]["usd_per_decision"] < 0.0
        assert [row["state"] for row in before["guardrails"]] == ["kept", "kept"]
        assert policies["calibration"]["uniform"]["p_value"] > 0.001
        table = await _table(client, "results", "e")
        assert before["conclusion"] in table
        assert before["conclusion"] in await _table(client, "list")
        async with client.session.get(f"{client.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        name = 'bandit_propensity_calibration_p_value{policy="uniform"}'
        (value,) = [line.split()[-1] for line in lines if line.startswith(name)]
        assert float(value) == policies["calibration"]["uniform"]["p_value"]
    async with serving(tmp_path / "var", models) as client:
        assert await _checked(client, f"{PATH}/results", "ExperimentResults") == before
        again = await _checked(client, "/v1/policies", "Policies")
        assert again["calibration"] == policies["calibration"]


async def test_the_hold_out_has_results_of_its_own_and_is_what_cost_is_saved_against(
    client: Client,
) -> None:
    rules = {"holdout_share": 0.5, "holdout_arm": "gemini-2.5-pro"}
    assert (await client.call("PUT", "/v1/experiment-rules", rules))[0] == 200
    body = {"variants": [{"key": "a", "arm": CHEAP, "weight": 0.5},
                         {"key": "b", "arm": CHEAP, "weight": 0.5}], "min_units": 5}  # fmt: skip
    await client.call("PUT", PATH, body)
    await client.begin("e")
    for i in range(60):
        decided = await client.decide(unit=f"u{i}")
        held = decided["arm"] != CHEAP
        await client.reward(decided["decision_id"], quality=1.0, cost_usd=0.01 if held else 0.001)
    results = await _checked(client, f"{PATH}/results", "ExperimentResults")
    cost = results["cost"]
    assert (cost["kind"], cost["against"]) == ("measured", "the hold-out")
    assert cost["saved"]["b"]["usd_per_decision"] == pytest.approx(0.009)
    out = await _checked(client, "/v1/experiments/holdout/results", "ExperimentResults")
    assert [one["key"] for one in out["variants"]] == ["holdout", "routed"]
    assert out["variants"][0]["units"] + out["variants"][1]["units"] == 60
