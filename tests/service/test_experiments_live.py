"""Experiments on recorded traffic, ramped and killed: nothing flips, nothing is lost or invented.

Three variants and, beside them, two that are the same. The clients are processes with a tally of
their own; every answer is rewarded as it was recorded.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from bandit_service.data.recordings import Recorded, open_recording
from bandit_service.runtime import recovery, shadows
from tests.service.running import Client, Process, a_vector
from tests.tools import needed

needed("pareto_bandit")

CLIENTS, USERS = 3, 260
WORTH = 0.1
CHEAP, BALANCED = "meta-llama/llama-3.1-8b-instruct", "mistralai/mistral-large-2512"
THREE = {
    "namespace": "n", "slots": [0.0, 0.75], "share": 0.3, "guardrails": [
        {"metric": "quality", "least": 0.05}],
    "variants": [
        {"key": "cheap", "arm": CHEAP, "weight": 0.34},
        {"key": "router", "policy": "metallm", "weight": 0.33},
        {"key": "balanced", "arm": BALANCED, "weight": 0.33},
        {"key": "shade", "policy": "knn", "shadow": True},
    ],
}  # fmt: skip
SAME = {
    "namespace": "n", "slots": [0.75, 1.0], "min_units": 50,
    "variants": [{"key": "one", "arm": CHEAP, "weight": 0.5},
                 {"key": "other", "arm": CHEAP, "weight": 0.5}],
}  # fmt: skip


def _plans(recorded: Recorded, directory: Path) -> list[Path]:
    """What each client asks: its users twice, every time something else. Its embedding is by
    chance, since to embed the texts would take most of the test's time.
    """
    lengths = np.array([len(text) for text in recorded.texts])
    recorded = recorded.take(np.argsort(lengths, kind="stable")[: 2 * CLIENTS * USERS])
    rows = [
        {
            "embedding": a_vector(i),
            "quality": {arm.id: float(q) for arm, q in zip(recorded.arms, quality, strict=True)},
            "cost": {arm.id: float(c) for arm, c in zip(recorded.arms, cost, strict=True)},
        }
        for i, (quality, cost) in enumerate(zip(recorded.quality, recorded.cost, strict=True))
    ]
    plans = []
    for k in range(CLIENTS):
        visits = [[f"user-{k}-{i % USERS}", i] for i in range(2 * USERS)]
        plan = {"url": str(directory / "url"), "allowed": str(directory / "allowed"),
                "rows": rows[k::CLIENTS], "visits": visits, "worth": WORTH}  # fmt: skip
        plans.append(directory / f"plan-{k}.json")
        plans[-1].write_text(json.dumps(plan))
    return plans


def _allow(directory: Path, visits: int) -> None:
    """So many visits of each client; it waits before the next one, so no ramp comes too late."""
    written = directory / "written"
    written.write_text(str(visits))
    written.rename(directory / "allowed")


async def _clients(plans: list[Path]) -> list[dict[str, Any]]:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.service.experiment_client",
            str(plan),
            str(plan.with_suffix(".tally")),
        )
        for plan in plans
    ]
    for process in processes:
        assert await process.wait() == 0
    return [json.loads(plan.with_suffix(".tally").read_text()) for plan in plans]


async def _served(data: Path, models: Path, arms: str) -> tuple[Process, str]:
    process = Process(
        data,
        models,
        BANDIT_ARMS=arms,
        BANDIT_SNAPSHOTS_EVERY_EVENTS="1000",
        BANDIT_EXPERIMENT_RULES_STEER_S="0.2",
    )
    url = await process.url()
    (data.parent / "url").write_text(url)
    return process, url


async def _units(client: Client, least: int) -> None:
    """Wait until the experiment had so many units."""
    async with asyncio.timeout(120):
        while True:
            _, body = await client.get("/v1/experiments/three")
            if body["units"] >= least:
                return
            await asyncio.sleep(0.02)


@pytest.mark.long
async def test_three_variants_from_several_clients_over_ramps_and_a_kill(
    tmp_path: Path, models: Path
) -> None:
    recorded = open_recording("paretobandit")
    arms = json.dumps([msgspec.to_builtins(arm) for arm in recorded.arms])
    data, plans = tmp_path / "var", _plans(recorded, tmp_path)
    process, url = await _served(data, models, arms)
    try:
        async with aiohttp.ClientSession() as session:
            client = Client(session, url)
            for id, body in (("three", THREE), ("same", SAME)):
                assert (await client.call("PUT", f"/v1/experiments/{id}", body))[0] == 201
                status, begun = await client.post(f"/v1/experiments/{id}/start", {"why": "go"})
                assert status in (200, 202), begun
            _allow(tmp_path, USERS // 2)
            running = asyncio.create_task(_clients(plans))
            for units, share, visits in ((60, 0.6, USERS), (150, 0.8, 3 * USERS // 2)):
                await _units(client, units)
                ramp = {"share": share, "why": "it goes well"}
                assert (await client.call("PATCH", "/v1/experiments/three", ramp))[0] == 200
                _allow(tmp_path, visits)
            await _units(client, 220)
            process.kill()
            process, url = await _served(data, models, arms)
            client = Client(session, url)
            _, again = await client.get("/v1/experiments/three")
            assert (again["status"], again["experiment"]["share"]) == ("running", 0.8)
            await client.call("PATCH", "/v1/experiments/three", {"share": 1.0})
            _allow(tmp_path, 2 * USERS)
            tallies = await running
            _, three = await client.get("/v1/experiments/three/results")
            _, same = await client.get("/v1/experiments/same/results")
            status, ended = await client.post("/v1/experiments/three/stop", {"why": "enough"})
            assert (status, ended["winner"] in ("router", "balanced")) == (200, True)
    finally:
        process.stop()
    tally = [one for each in tallies for one in each["tally"]]
    assert len(tally) == 2 * CLIENTS * USERS
    _nothing_flipped(tally)
    doubts = sum((Counter(each["doubts"]) for each in tallies), Counter[str]())
    lost = _in_the_log_alone(data, tally, doubts)
    for results in (three, same):
        _counts_are_the_clients(results, tally, lost)
    _what_is_concluded(three, same)


def _nothing_flipped(tally: list[dict[str, Any]]) -> None:
    """A unit has one variant at most, and once it takes part it goes on to."""
    seen: dict[str, tuple[str, str]] = {}
    for one in sorted(tally, key=lambda one: str(one["id"])):  # ids sort by age
        found = (one["experiment"], one["variant"])
        assert seen.setdefault(one["unit"], found) in (found, ("", "")), one["unit"]
        seen[one["unit"]] = found
    assert {variant for _, variant in seen.values()} == {
        "cheap",
        "router",
        "balanced",
        "one",
        "other",
    }


def _in_the_log_alone(
    data: Path, tally: list[dict[str, Any]], doubts: Counter[str]
) -> list[ev.Decided]:
    """Decisions whose answer the kill took: no more than were asked and not answered.

    By the way: the log folds to the same world from its beginning and from a snapshot.
    """
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(data)})
    log = assembly.open_log(chosen)
    try:
        events = [ev.decode(body) for _, body in log.replay()]
        decided = [event for event in events if isinstance(event, ev.Decided)]
        short = recovery.recover(log, chosen, assembly.open_snapshots(chosen))
        assert short.after > 0
        assert short.world.digest() == recovery.replayed(log, chosen).world.digest()
    finally:
        log.close()
    known = {one["id"] for one in tally}
    assert known <= {event.id for event in decided}
    lost = [event for event in decided if event.id not in known]
    assert Counter(event.unit for event in lost) <= doubts
    shadowed = [event.decision_id for event in events if isinstance(event, ev.Shadowed)]
    answered = {event.decision_id for event in events if isinstance(event, ev.Rewarded)}
    assert len(set(shadowed)) == len(shadowed)
    three = [event for event in decided if event.experiment == "three"]
    assert all("split" in event.steps for event in three)
    unseen = answered & {event.id for event in three} - set(shadowed)
    assert len(unseen) <= shadows.MANY  # they waited when the process was killed
    assert len(shadowed) > len(three) / 2
    return lost


def _counts_are_the_clients(
    results: dict[str, Any], tally: list[dict[str, Any]], lost: list[ev.Decided]
) -> None:
    rewards: dict[str, list[float]] = defaultdict(list)
    units: dict[str, set[str]] = defaultdict(set)
    for one in tally:
        if one["experiment"] == results["id"]:
            rewards[one["variant"]].append(one["reward"])
            units[one["variant"]].add(one["unit"])
    unheard: Counter[str] = Counter()
    for event in lost:
        if event.experiment == results["id"]:
            unheard[event.variant] += 1
            units[event.variant].add(event.unit)
    assert results["mixed_units"] == results["uncounted_decisions"] == 0
    for one in results["variants"]:
        key, mine = one["key"], rewards[one["key"]]
        assert one["decisions"] == len(mine) + unheard[key], key
        assert one["units"] == len(units[key]), key
        assert one["rewards"] == len(mine), key
        assert one["metrics"]["reward"]["mean"] == pytest.approx(sum(mine) / len(mine), abs=1e-9)


def _what_is_concluded(three: dict[str, Any], same: dict[str, Any]) -> None:
    """Recorded: 0.79 of the cheap arm and 0.92 of the balanced one, which the router learns.

    What the router's answers are worth hangs on its draws too, so its sequence may still hold 0
    (its low is 0.01 ± 0.002); its mean is 0.078 ± 0.002 above the control's.
    """
    gaps = {one["key"]: one["difference"] for one in three["variants"] if "difference" in one}
    assert {key: gap["state"] for key, gap in gaps.items()} == {
        "router": "shown",
        "balanced": "shown",
    }
    assert gaps["balanced"]["low"] > 0.0
    assert gaps["router"]["mean"] > 0.05
    assert "balanced is better than cheap in reward" in three["conclusion"].lower()
    assert three["split"]["state"] == same["split"]["state"] == "as configured"
    assert all(not one["held"] for one in three["variants"])
    (shade,) = three["shadows"]
    assert 0.0 <= shade["agreement"] <= 1.0
    (_, other) = same["variants"]
    assert other["difference"]["low"] < 0.0 < other["difference"]["high"]
    assert "no significant difference" in same["conclusion"].lower()
