"""Snapshots, another policy, erasure, retention: what goes on beside serving, and is exact."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.cli.commands import serve
from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.events import owner_of
from bandit_service.core.learner import Learner
from bandit_service.runtime import recovery
from policies import Policy
from store import EventLog, Offset, Record
from tests.service.running import Client, a_vector, opened, serving


async def _traffic(client: Client, first: int, last: int, **fields: Any) -> list[str]:
    """Decisions `first` to `last` - 1, each rewarded; their ids."""
    ids = []
    for i in range(first, last):
        decided = await client.decide(embedding=a_vector(i % 40), **fields)
        ids.append(decided["decision_id"])
        assert await client.reward(ids[-1], quality=(i % 10) / 10, cost_usd=0.001) == "accepted"
    return ids


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.02)


def _chosen(data: Path, **environ: str) -> settings.Settings:
    return settings.read(None, {"BANDIT_DATA_DIR": str(data), **environ})


def _both_ways(chosen: settings.Settings) -> tuple[int, str, str]:
    """Offset of the snapshot gone on from, the digest by it, and that of the whole log."""
    log = assembly.open_log(chosen)
    try:
        short = recovery.recover(log, chosen, assembly.open_snapshots(chosen))
        whole = recovery.replayed(log, chosen, short.policy)
    finally:
        log.close()
    return short.after, short.world.digest(), whole.world.digest()


async def test_recovery_goes_on_from_the_newest_valid_snapshot(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    async with serving(data, models) as client:
        await _traffic(client, 0, 30)
        status, first = await client.post("/v1/snapshots", {})
        assert (status, first["offset"]) == (200, 3 + 1 + 60)  # arms, policy, decided and rewarded
        await _traffic(client, 30, 50)
        status, second = await client.post("/v1/snapshots", {})
        assert second["offset"] == first["offset"] + 40
        await _traffic(client, 50, 60)
    chosen = _chosen(data)
    files = sorted((data / "snapshots").iterdir())
    assert len(files) == 3  # the last one was made when it stopped
    for damaged, expected in ((files[2], second["offset"]), (files[1], first["offset"])):
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[: len(whole) // 2])
        after, short, full = _both_ways(chosen)
        assert (after, short) == (expected, full)
    files[0].unlink()
    after, short, full = _both_ways(chosen)
    assert (after, short) == (0, full)


async def test_a_policy_changed_while_serving_is_as_if_it_had_been_there_from_the_first(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, on_the_loop, load = tmp_path / "var", list[bool](), snapshot.load_learner

    def loaded(learner: memoryview, policy: Policy[Any]) -> Learner:
        on_the_loop.append(threading.current_thread() is threading.main_thread())
        return load(learner, policy)

    monkeypatch.setattr(snapshot, "load_learner", loaded)
    async with serving(data, models) as client:
        ids = await _traffic(client, 0, 150)
        asked = {"name": "epsilon_greedy", "parameters": {"epsilon": 0.25}}
        status, body = await client.call("PUT", "/v1/policy", asked)
        assert (status, body["serving"]["name"]) == (202, "nested")
        assert body["folding"]["of"] == 3 + 1 + 300
        status, body = await client.call("PUT", "/v1/policy", asked)
        assert (status, body["error"]["code"]) == (409, "conflict")
        served: set[str] = set()

        async def switched() -> bool:
            # rewards and corrections of old decisions come in meanwhile, and are queued
            new = await client.decide(embedding=a_vector(len(served)))
            served.add(new["policy"])
            await client.reward(new["decision_id"], quality=0.5)
            if ids:  # a slow machine may need more rounds than there are old decisions
                corrected = {"decision_id": ids.pop(), "quality": 0.35, "correction": True}
                await client.post("/v1/rewards", corrected)
            _, now = await client.get("/v1/policies")
            return bool(now["serving"]["name"] == "epsilon_greedy")

        await _until(switched)
        await _traffic(client, 150, 160)
        _, live = await client.get("/v1/policies/epsilon_greedy/state")
        assert served >= {"nested"}
        assert live["key"].startswith("epsilon_greedy:")
        assert on_the_loop == [False]  # all decisions would wait: a state may have megabytes
    chosen = _chosen(data)
    _, short, full = _both_ways(chosen)
    assert short == full
    async with serving(data, models) as client:  # what the API chose stays
        _, again = await client.get("/v1/policies/epsilon_greedy/state")
        assert (again["sha256"], again["key"]) == (live["sha256"], live["key"])
    async with serving(data, models, BANDIT_POLICY_NAME="uniform") as client:  # until this changes
        _, body = await client.get("/v1/policies")
        assert body["serving"]["name"] in ("epsilon_greedy", "uniform")

        async def configured() -> bool:
            _, now = await client.get("/v1/policies")
            return bool(now["serving"]["name"] == "uniform")

        await _until(configured)


async def test_a_policy_that_is_none_changes_nothing(client: Client) -> None:
    status, body = await client.call("PUT", "/v1/policy", {"name": "no such"})
    assert (status, body["error"]["param"]) == (400, "name")
    for name, value, allowed in (
        ("alpha", -1, "0"),
        ("alpha", 1e300, "0"),
        ("ridge", 1e-300, "1e-12"),
    ):
        asked = {"name": "metallm", "parameters": {name: value}}
        status, body = await client.call("PUT", "/v1/policy", asked)
        assert (status, body["error"]["message"]) == (
            400,
            f"parameters: {name}: must be a number >= {allowed} and <= 1e+12, got {value!r}",
        )
    _, body = await client.get("/v1/policies")
    assert body["serving"]["name"] == "nested"
    assert "folding" not in body


async def test_a_unit_that_is_erased_is_nowhere_any_more(tmp_path: Path, models: Path) -> None:
    data, unit = tmp_path / "var", "someone-0192-marked"
    async with serving(data, models) as client:
        await _traffic(client, 0, 20, unit="other")
        await client.post("/v1/snapshots", {})
        marked = [round(x, 6) for x in a_vector(777)]
        theirs = await client.decide(embedding=marked, unit=unit)
        await client.reward(theirs["decision_id"], quality=0.9)
        own = {"embedding": marked, "arm": theirs["arm"], "quality": 0.8, "unit": unit}
        assert (await client.post("/v1/rewards", own))[0] == 200
        near = await client.decide(embedding=marked, explain=True)
        assert near["neighbours"][0]["similarity"] > 0.999
        await client.post("/v1/snapshots", {})
        assert _holders(data, unit.encode())
        status, body = await client.call("DELETE", f"/v1/units/{unit}")
        assert (status, body) == (200, {"erased": 3})
        status, _ = await client.get(f"/v1/decisions/{theirs['decision_id']}")
        assert status == 404
        near = await client.decide(embedding=a_vector(777), explain=True)
        assert all(each["similarity"] < 0.999 for each in near["neighbours"])
        assert _holders(data, unit.encode()) == []
        _, before = await client.get("/v1/policies/nested/state")
    async with serving(data, models) as client:
        _, after = await client.get("/v1/policies/nested/state")
        assert after["sha256"] == before["sha256"]
        status, body = await client.call("DELETE", "/v1/units/never-seen")
        assert (status, body) == (200, {"erased": 0})
    assert _holders(data, unit.encode()) == []
    assert owner_of("", unit) != owner_of("tenant", unit)


def _holders(data: Path, needle: bytes) -> list[str]:
    """Which files of the service hold these bytes."""
    files = [*data.glob("events*"), *(data / "snapshots").iterdir()]
    return sorted(path.name for path in files if needle in path.read_bytes())


async def test_what_is_too_much_is_deleted_and_a_restart_goes_on(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    bounds = {"BANDIT_RETENTION_MAX_BYTES": "200000", "BANDIT_SNAPSHOTS_KEEP": "1"}
    async with serving(data, models, **bounds) as client:
        await _traffic(client, 0, 150)
        await client.post("/v1/snapshots", {})

        async def trimmed() -> bool:
            return _first(await client.get("/readyz")) > 1

        await _until(trimmed)
        await _traffic(client, 150, 160)
        _, before = await client.get("/v1/policies/nested/state")
    async with serving(data, models, **bounds) as client:
        _, after = await client.get("/v1/policies/nested/state")
        assert after["sha256"] == before["sha256"]
        await client.call("PUT", "/v1/policy", {"name": "eagle"})  # learns from what is kept

        async def switched() -> bool:
            _, now = await client.get("/v1/policies")
            return bool(now["serving"]["name"] == "eagle")

        await _until(switched)
        await _traffic(client, 160, 165)
    for path in (data / "snapshots").iterdir():
        path.unlink()
    chosen = _chosen(data)
    log = assembly.open_log(chosen)
    try:
        failure = ""
        try:
            recovery.recover(log, chosen, assembly.open_snapshots(chosen))
        except recovery.NotWhole as error:
            failure = str(error)
    finally:
        log.close()
    assert "the log begins at" in failure


def _first(answer: tuple[int, Any]) -> int:
    return int(json.loads(json.dumps(answer[1]))["first"])


async def test_an_erasure_that_was_begun_is_finished_after_a_restart(
    tmp_path: Path, models: Path
) -> None:
    data, unit = tmp_path / "var", "someone-0193-marked"
    async with serving(data, models) as client:
        theirs = await client.decide(embedding=a_vector(1), unit=unit)
        await client.reward(theirs["decision_id"], quality=0.9)
    log = assembly.open_log(
        _chosen(data)
    )  # as if the service had been killed right after the event
    forgotten = ev.encode(ev.Forgotten(ts=ev.decode(_last(log)).ts, owner=owner_of("", unit)))
    log.append([Record("forgotten-1", "forgotten", ev.decode(_last(log)).ts, forgotten)])
    log.close()
    assert _holders(data, unit.encode())
    async with serving(data, models) as client:
        assert (await client.get(f"/v1/decisions/{theirs['decision_id']}"))[0] == 404

        async def erased() -> bool:
            return not _holders(data, unit.encode())

        await _until(erased)


def _last(log: EventLog) -> bytes:
    return next(body for _, body in log.replay(Offset(log.last - 1)))


async def test_a_start_prints_the_arms_in_force(tmp_path: Path, models: Path) -> None:
    """It printed the configured ones: not what the API added or retired before the start."""
    async with serving(tmp_path / "var", models) as client:
        price = {"usd_per_mtok_in": 1, "usd_per_mtok_out": 1}
        assert (await client.call("PUT", "/v1/arms/mine", price))[0] == 201
        assert (await client.call("DELETE", "/v1/arms/gemini-2.5-pro"))[0] == 200
    async with opened(tmp_path / "var", models) as (client, world):
        printed = serve.hints(client.url, settings.Settings(), world)
    (arms,) = re.findall(r"  arms     (.*)", printed)
    assert "mine" in arms.split(", ")
    assert "gemini-2.5-pro" not in arms.split(", ")
    assert "  policy   nested\n" in printed
