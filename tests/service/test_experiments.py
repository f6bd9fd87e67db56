"""Experiments through the API and the configuration: changed live, written down, refused whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.clock import Ids
from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.shadows import seen
from bandit_service.core.world import World
from bandit_service.runtime import recovery
from bandit_service.settings import BadSettings
from store import Record
from tests.service.keyring import Keyring
from tests.service.running import Client, a_vector, opened, serving

CHEAP, DEAR = "llama-3.1-8b-instruct", "gemini-2.5-pro"
PATH = "/v1/experiments/e"


def arms_of(**fields: Any) -> dict[str, Any]:
    """Two fixed arms, half and half."""
    variants = [{"key": "a", "arm": CHEAP, "weight": 0.5}, {"key": "b", "arm": DEAR, "weight": 0.5}]
    return {"variants": variants, **fields}


async def _running(client: Client, **fields: Any) -> None:
    status, body = await client.call("PUT", PATH, arms_of(**fields))
    assert status == 201, body
    await client.begin("e", "to see")


async def _variants(client: Client, count: int = 30, **fields: Any) -> dict[str, str]:
    """The variant of each user, "" for none."""
    found = {}
    for i in range(count):
        decided = await client.decide(embedding=a_vector(i % 7), unit=f"u{i}", **fields)
        found[f"u{i}"] = decided.get("variant", "")
    return found


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.02)


async def test_an_experiment_from_its_draft_to_its_end(client: Client) -> None:
    status, body = await client.call("PUT", PATH, arms_of(share=0.4, why="is dear better?"))
    assert (status, body["status"]) == (201, "draft")
    assert set((await _variants(client, 5)).values()) == {""}
    assert (await client.call("PUT", PATH, arms_of(share=0.5)))[0] == 200
    await client.begin("e", "now")
    first = await _variants(client)
    assert set(first.values()) == {"", "a", "b"}
    status, body = await client.call("PATCH", PATH, {"share": 1.0, "why": "more"})
    assert (status, body["experiment"].get("share", 1.0)) == (200, 1.0)
    ramped = await _variants(client)
    assert all(ramped[unit] == variant for unit, variant in first.items() if variant)
    assert "" not in ramped.values()
    decided = await client.decide(unit="u0", explain=True)
    assert decided["steps"] == ["split"]
    assert decided["arm"] == (CHEAP if decided["variant"] == "a" else DEAR)
    status, body = await client.post(f"{PATH}/pause", {"why": "lunch"})
    assert (status, body["status"]) == (200, "paused")
    assert set((await _variants(client, 5)).values()) == {""}
    await client.post(f"{PATH}/start", {})
    assert await _variants(client) == ramped
    status, body = await client.post(f"{PATH}/stop", {"why": "enough", "winner": "b"})
    assert (status, body["status"], body["winner"]) == (200, "stopped", "b")
    status, results = await client.get(f"{PATH}/results")
    assert [(one["status"], one["by"], one["why"]) for one in results["changes"]] == [
        ("draft", "anonymous", "is dear better?"),
        ("draft", "anonymous", ""),
        ("starting", "anonymous", "now"),
        ("running", "system", "every variant begins with what was known at event 12"),
        ("running", "anonymous", "more"),
        ("paused", "anonymous", "lunch"),
        ("running", "anonymous", ""),
        ("stopped", "anonymous", "enough"),
    ]
    assert (await client.call("DELETE", f"{PATH}?why=old"))[0] == 200
    assert (await client.get(PATH))[0] == 404


REFUSED: list[tuple[str, str, Any, int, str | None, str]] = [
    # method, path, body, status, param, what is said
    ("PUT", PATH, {"variants": [{"key": "a", "arm": CHEAP, "weight": 0.4},
                                {"key": "b", "arm": DEAR, "weight": 0.5}]}, 400, "variants",
     "the weights must sum to 1, they sum to 0.9"),
    ("PUT", "/v1/experiments/n", {"variants": [{"key": "a", "arm": CHEAP, "weight": 0.5},
        {"key": "b", "policy": "nosuch", "weight": 0.5}]}, 400, "variants", "variants.b: "),
    ("PUT", "/v1/experiments/n", {"variants": [{"key": "a", "arm": CHEAP, "weight": 0.5},
        {"key": "b", "policy": "knn", "parameters": {"q": 1}, "weight": 0.5}]}, 400, "variants",
     "variants.b: "),
    ("PUT", "/v1/experiments/n", {"variants": [{"key": "a", "arm": CHEAP, "weight": 0.5},
        {"key": "b", "policy": "knn", "parameters": {"k": 2**70}, "weight": 0.5}]}, 400,
     "variants[1]", "64 bits"),
    ("PUT", "/v1/experiments/n", {"variants": [{"key": "a", "arm": "gpt-9", "weight": 0.5},
        {"key": "b", "arm": DEAR, "weight": 0.5}]}, 400, "variants",
     "variants.a: no arm 'gpt-9' is offered; expected one of "),
    ("PUT", "/v1/experiments/n", arms_of(primary="clicks"), 400, "primary", "no 'clicks'"),
    ("PUT", "/v1/experiments/n", arms_of(guardrails=[{"metric": "clicks", "least": 0}]), 400,
     "guardrails[0].metric", "no 'clicks'"),
    ("PUT", "/v1/experiments/n", arms_of(namespace="n", slots=[0.4, 1.0]), 400, "slots",
     "[0.4, 1) overlaps experiment 'e', which has [0, 0.5) of namespace 'n'"),
    ("PUT", "/v1/experiments/n", arms_of(mode="champion", floor=0.5), 400, "floor",
     "0.5 for 2 variants: must be at least 1e-06 and below 0.5"),
    ("PUT", "/v1/experiments/n", {"variants": [{"key": "a", "arm": CHEAP, "weight": 0.99},
        {"key": "b", "arm": DEAR, "weight": 0.01}], "mode": "champion"}, 400, "variants",
     "b: weight 0.01 is below the floor, 0.05"),
    ("PUT", "/v1/experiments/n", arms_of(namespace="n", slots=[0.5, 1], unit="session"), 400,
     "namespace", "use another namespace"),
    ("PUT", "/v1/experiments/n", arms_of(wieght=1), 400, "wieght", "unknown field"),
    ("PUT", "/v1/experiments/n", arms_of(id="m"), 400, "id", "the path says 'n', the body 'm'"),
    ("PUT", "/v1/experiments/n", arms_of(why=7), 400, "why", "must be a text"),
    ("PUT", "/v1/experiments/n", [1], 400, None, "the body must be an object"),
    ("PUT", "/v1/experiments/holdout", arms_of(), 400, "id", "is the global hold-out's"),
    ("PUT", PATH, {"variants": [{"key": "a", "arm": CHEAP, "weight": 1.0},
                                {"key": "c", "arm": DEAR, "weight": 0.0}],
                   "namespace": "n", "slots": [0, 0.5]}, 400, "variants",
     "decisions; after the start a variant cannot be deleted: set its weight to 0"),
    ("PUT", PATH, arms_of(namespace="n", slots=[0, 0.5], unit="session"), 400, "unit",
     "cannot change after the start"),
    ("PATCH", PATH, {}, 400, None, "send share, weights or release"),
    ("PATCH", PATH, {"share": 1.1}, 400, "share", "from 0 to 1"),
    ("PATCH", PATH, {"weights": {"a": 0.9}}, 400, "variants", "they sum to 1.4"),
    ("PATCH", PATH, {"weights": {"c": 1.0}}, 400, "weights", "no variant 'c'; "
     "expected one of a, b"),
    ("PATCH", PATH, {"release": "b"}, 400, "release", "'b' is not held"),
    ("PATCH", "/v1/experiments/none", {"share": 0.1}, 404, "id", "no experiment 'none'"),
    ("PATCH", "/v1/experiments/old", {"share": 0.1}, 409, None, "'old' is finished"),
    ("PUT", "/v1/experiments/old", arms_of(share=0.2), 409, None, "'old' is finished"),
    ("POST", "/v1/experiments/old/start", {}, 409, None, "'old' is finished"),
    ("POST", "/v1/experiments/old/pause", {}, 409, None, "'old' is stopped; only what is running"),
    ("POST", "/v1/experiments/old/stop", {}, 409, None, "'old' is stopped; only what is running"),
    ("POST", f"{PATH}/stop", {"winner": "c"}, 400, "winner", "no variant 'c'; "
     "expected one of a, b"),
    ("POST", "/v1/experiments/none/start", {}, 404, "id", "no experiment 'none'"),
    ("DELETE", PATH, None, 409, None, "'e' has traffic; stop it first"),
    ("POST", "/v1/experiments/holdout/start", {}, 400, "id", "PUT /v1/experiment-rules changes it"),
    ("POST", "/v1/experiments/holdout/stop", {}, 400, "id", "PUT /v1/experiment-rules changes it"),
    ("PATCH", "/v1/experiments/holdout", {"share": 0.1}, 400, "id", "experiment-rules"),
    ("DELETE", "/v1/experiments/holdout", None, 400, "id", "experiment-rules"),
    ("PUT", "/v1/experiment-rules", b"", 400, None, "the body is empty; send stopped, "),
    ("PUT", "/v1/experiments/n", b"", 400, None, "the body is empty; send the experiment"),
    ("PUT", "/v1/experiment-rules", {"holdout_arm": ""}, 400, "holdout_arm", "name the arm"),
    ("PUT", "/v1/experiment-rules", {"holdout_share": 0.1, "holdout_arm": "x"}, 400,
     "holdout_arm", "no arm 'x' is offered"),
    ("PUT", "/v1/experiment-rules", {"holdout_share": 0.9, "holdout_arm": DEAR}, 400,
     "holdout_share", "from 0 to 0.5"),
]  # fmt: skip


async def test_what_is_refused_says_what_to_do_and_changes_nothing(
    tmp_path: Path, models: Path
) -> None:
    async with opened(tmp_path / "var", models) as (client, world):
        await client.call("PUT", "/v1/experiments/old", arms_of())
        await client.post("/v1/experiments/old/start", {})
        await client.post("/v1/experiments/old/stop", {})
        held_out = {"holdout_share": 0.01, "holdout_arm": DEAR}
        assert (await client.call("PUT", "/v1/experiment-rules", held_out))[0] == 200
        await _running(client, namespace="n", slots=[0.0, 0.5])
        found = await _variants(client, 20)
        assert {"a", "b"} <= set(found.values())
        before = world.digest()
        for method, path, body, expected, param, says in REFUSED:
            status, answer = await client.call(method, path, body)
            error = answer["error"]
            assert (status, error["param"]) == (expected, param), (method, path, body, error)
            assert says in error["message"], error
            assert world.digest() == before, (method, path, body)
        await client.call("PATCH", PATH, {"share": 0.9})
        assert world.digest() != before


async def test_a_put_without_a_share_leaves_the_one_that_was_reached(client: Client) -> None:
    await _running(client, ramp=[{"share": 0.1, "units": 1000}, {"share": 0.5}])
    body = arms_of(ramp=[{"share": 0.1, "units": 500}, {"share": 0.5}])
    status, answer = await client.call("PUT", PATH, body)
    assert (status, answer["experiment"]["share"]) == (200, 0.1)


async def test_the_kill_switch_leaves_the_hold_out_as_it_is_set(client: Client) -> None:
    held_out = {"holdout_share": 0.3, "holdout_arm": DEAR}
    assert (await client.call("PUT", "/v1/experiment-rules", held_out))[0] == 200
    held = {
        unit for i in range(40) if (await client.decide(unit=(unit := f"u{i}"))).get("experiment")
    }
    assert 0 < len(held) < 40
    for stopped in (True, False):
        _, rules = await client.call("PUT", "/v1/experiment-rules", {"stopped": stopped})
        assert (rules.get("stopped", False), rules["holdout_share"]) == (stopped, 0.3)
        unit = min(held)
        decided = await client.decide(unit=unit, explain=True)
        assert decided["steps"] == (["stopped"] if stopped else ["holdout"])
    _, results = await client.get("/v1/experiments/holdout/results")
    assert {one["key"]: one["units"] for one in results["variants"]} == {
        "holdout": len(held),
        "routed": 40 - len(held),
    }


async def test_keys_say_who_and_tenants_see_their_own(tmp_path: Path, models: Path) -> None:
    ring = Keyring(
        boss={"scopes": ["admin", "read"]},
        of_a={"tenant": "a"},
        of_b={"tenant": "b"},
        app={"scopes": ["decide"]},
    )
    async with serving(tmp_path / "var", models, **ring.environ) as client:
        boss, of_a, of_b = (client.by(ring[name]) for name in ("boss", "of_a", "of_b"))
        for id, tenants in (("mine", ["a"]), ("both", ["a", "b"]), ("all", [])):
            body = arms_of(audience={"tenants": tenants}, why="so")
            assert (await boss.call("PUT", f"/v1/experiments/{id}", body))[0] == 201
        status, body = await boss.get("/v1/experiments/mine/results")
        assert [(one["by"], one["why"]) for one in body["changes"]] == [("boss", "so")]
        _, seen = await of_a.get("/v1/experiments")
        assert [one["id"] for one in seen["experiments"]] == ["mine"]
        _, seen = await of_b.get("/v1/experiments")
        assert seen["experiments"] == []
        for id in ("mine", "both", "all", "none"):
            for path in (f"/v1/experiments/{id}", f"/v1/experiments/{id}/results"):
                status, body = await of_b.get(path)
                assert status == 404, path
                assert body["error"]["message"] == (
                    f"id: no experiment {id!r}; GET /v1/experiments lists them"
                )
        assert (await of_a.get("/v1/experiments/mine/results"))[0] == 200
        for method, path in (
            ("PUT", ""),
            ("PATCH", ""),
            ("DELETE", ""),
            ("POST", "/start"),
            ("POST", "/pause"),
            ("POST", "/stop"),
        ):
            body = arms_of() if method == "PUT" else {"share": 0.5} if method == "PATCH" else {}
            status, _ = await of_a.call(method, f"/v1/experiments/mine{path}", body)
            assert status == 403, method
        assert (await of_a.call("PUT", "/v1/experiment-rules", {}))[0] == 403
        assert (await client.by(ring["app"]).get("/v1/experiments"))[0] == 403


async def test_a_broken_guardrail_holds_its_variant_until_it_is_released(
    tmp_path: Path, models: Path
) -> None:
    quick = {"BANDIT_EXPERIMENT_RULES_STEER_S": "0.1"}
    async with serving(tmp_path / "var", models, **quick) as client:
        await _running(client, cool_down_s=1.0, guardrails=[{"metric": "quality", "min": 0.5}])
        of_b = ""
        for i in range(120):
            decided = await client.decide(unit=f"u{i}")
            good = decided["variant"] == "a"
            of_b = of_b or ("" if good else f"u{i}")
            await client.reward(decided["decision_id"], quality=1.0 if good else 0.0)

        async def held() -> bool:
            _, body = await client.get(PATH)
            return "b" in dict(body["held"])

        await _until(held)
        _, results = await client.get(f"{PATH}/results")
        change = results["changes"][-1]
        assert (change["by"], change["status"]) == ("system", "running")
        assert change["why"].startswith("b: quality is at most ")
        decided = await client.decide(unit=of_b, explain=True)
        assert (decided["variant"], decided["arm"]) == ("a", CHEAP)
        assert decided["steps"] == ["split", "held"]
        status, body = await client.call("PATCH", PATH, {"release": "b"})
        if status == 409:  # not on a machine so slow that the cool-down is over
            assert "is cooling down" in body["error"]["message"]

        async def released() -> bool:
            status, _ = await client.call("PATCH", PATH, {"release": "b", "why": "mended"})
            return status == 200

        if status != 200:
            await _until(released)
        assert (await client.decide(unit=of_b))["variant"] == "b"


async def test_a_ramp_goes_on_by_itself_as_its_steps_have_their_units(
    tmp_path: Path, models: Path
) -> None:
    quick = {"BANDIT_EXPERIMENT_RULES_STEER_S": "0.1"}
    async with serving(tmp_path / "var", models, **quick) as client:
        steps = [{"share": 0.2, "units": 5}, {"share": 0.6, "units": 5}, {"share": 1.0}]
        await _running(client, ramp=steps)
        seen: dict[str, str] = {}
        shares: list[float] = []

        async def everyone() -> bool:
            _, now = await client.get(PATH)
            share = now["experiment"].get("share", 1.0)
            if share not in shares:
                shares.append(share)
            for unit, variant in (await _variants(client, 60)).items():
                if variant:
                    assert seen.setdefault(unit, variant) == variant
            return bool(share == 1.0)

        await _until(everyone)
        assert shares[0] == 0.2
        assert shares == sorted(shares)


async def test_a_champion_moves_the_weights_while_users_keep_what_they_had(
    tmp_path: Path, models: Path
) -> None:
    quick = {"BANDIT_EXPERIMENT_RULES_STEER_S": "0.1"}
    seen: dict[str, str] = {}

    async def asked(client: Client, unit: str) -> str:
        decided = await client.decide(embedding=a_vector(3), unit=unit)
        assert decided["arm"] == (CHEAP if decided["variant"] == "a" else DEAR)
        assert seen.setdefault(unit, decided["variant"]) == decided["variant"]
        return str(decided["decision_id"])

    async def weights(client: Client) -> dict[str, float]:
        _, body = await client.get(PATH)
        return {one["key"]: one["weight"] for one in body["experiment"]["variants"]}

    async with serving(tmp_path / "var", models, **quick) as client:
        await _running(client, mode="champion", floor=0.1)
        for i in range(120):
            id = await asked(client, f"u{i}")
            await client.reward(id, quality=0.2 + 0.6 * (seen[f"u{i}"] == "b") + 0.01 * (i % 7))

        async def moved() -> bool:
            return (await weights(client))["b"] > 0.85

        await _until(moved)
        status, body = await client.call("PATCH", PATH, {"weights": {"a": 0.0, "b": 1.0}})
        assert (status, body["error"]["param"]) == (400, "variants")
        assert "a: weight 0 is below the floor, 0.1" in body["error"]["message"]
        _, results = await client.get(f"{PATH}/results")
        change = results["changes"][-1]
        assert (change["by"], change["status"]) == ("system", "running")
        assert change["why"].startswith("chance of being the best: a ")
        reached = await weights(client)
    async with serving(tmp_path / "var", models, **quick) as client:
        assert await weights(client) == reached
        assert reached["a"] >= 0.1 - 1e-6
        for i in range(200):
            await asked(client, f"u{i}")
        later = [seen[f"u{i}"] for i in range(120, 200)]
        assert later.count("b") > 2 * later.count("a") > 0


async def test_what_is_stopped_while_it_starts_stays_stopped(tmp_path: Path, models: Path) -> None:
    async with opened(tmp_path / "var", models) as (client, world):
        await _variants(client, 30)
        body = {"variants": [{"key": "a", "arm": CHEAP, "weight": 0.5},
                             {"key": "b", "policy": "knn", "weight": 0.5}]}  # fmt: skip
        await client.call("PUT", PATH, body)
        started = asyncio.create_task(client.post(f"{PATH}/start", {}))
        again = asyncio.create_task(client.post(f"{PATH}/start", {}))

        async def starting() -> bool:
            return world.experiments.trials["e"].status == "starting"

        await _until(starting)
        status, body = await client.post(f"{PATH}/stop", {"why": "no"})
        assert (status, body["status"]) == (200, "stopped")
        assert (await started)[1]["status"] == (await again)[1]["status"] == "stopped"
        assert list(world.learners) == ["nested"]


async def test_a_variants_policy_begins_with_what_it_would_know_and_learns_its_own(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    async with opened(data, models) as (client, world):
        await _rewarded(client, 0, 25)
        await client.call(
            "PUT",
            PATH,
            {
                "variants": [
                    {"key": "now", "weight": 0.5},
                    {"key": "other", "policy": "routellm_sw", "weight": 0.5},
                ]
            },
        )
        await client.begin("e")
        own = {key: codec.dump(world.learners[f"e/{key}"].state) for key in ("now", "other")}
        assert own["now"] == codec.dump(world.learners["nested"].state)
        assert world.experiments.trials["e"].seeded == world.learners["e/other"].seeded == 56
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(data)})
    log = assembly.open_log(chosen)
    whole = recovery.replayed(log, chosen, settings.PolicySettings("routellm_sw"))
    log.close()
    assert own["other"] == codec.dump(whole.world.learners["routellm_sw"].state)
    async with opened(data, models) as (client, world):
        found = await _variants(client, 10)
        unit = next(unit for unit, variant in found.items() if variant == "now")
        decided = await client.decide(unit=unit)
        await client.reward(decided["decision_id"], quality=1.0)
        outside = await client.decide(unit=unit, arms=[DEAR])
        await client.reward(outside["decision_id"], quality=0.0)
        for made in (decided, outside):
            other = CHEAP if made["arm"] != CHEAP else DEAR
            body = {"decision_id": made["decision_id"], "winner": made["arm"], "loser": other}
            assert (await client.post("/v1/comparisons", body))[0] == 200
        assert codec.dump(world.learners["e/now"].state) != own["now"]
        assert codec.dump(world.learners["e/other"].state) == own["other"]


async def test_what_is_shipped_while_it_starts_is_the_winners_policy(
    tmp_path: Path, models: Path
) -> None:
    async with opened(tmp_path / "var", models) as (client, world):
        body = {"variants": [{"key": "a", "arm": DEAR, "weight": 0.5},
                             {"key": "b", "policy": "knn", "weight": 0.5}]}  # fmt: skip
        assert (await client.call("PUT", PATH, body))[0] == 201
        started = asyncio.create_task(client.post(f"{PATH}/start", {}))

        async def starting() -> bool:
            return world.experiments.trials["e"].status == "starting"

        async def serves() -> bool:
            return world.serving == "knn"

        await _until(starting)
        status, body = await client.post(f"{PATH}/stop", {"winner": "b", "ship": True})
        assert (status, body["status"]) == (200, "stopped")
        await _until(serves)
        await started


async def test_an_arm_that_is_retired_is_not_shipped(client: Client) -> None:
    """`fixed` would serve the cheapest one in its place, which nobody asked for."""
    await _running(client)
    assert (await client.call("DELETE", f"/v1/arms/{DEAR}"))[0] == 200
    status, body = await client.post(f"{PATH}/stop", {"winner": "b", "ship": True})
    assert (status, body["error"]["param"]) == (400, "ship")
    assert f"no arm {DEAR!r} is offered" in body["error"]["message"]
    assert (await client.get(PATH))[1]["status"] == "running"
    assert (await client.post(f"{PATH}/stop", {"winner": "b"}))[0] == 200


async def test_what_is_shipped_serves(tmp_path: Path, models: Path) -> None:
    async with opened(tmp_path / "var", models) as (client, world):
        await _running(client)
        await _variants(client, 10)
        status, body = await client.post(f"{PATH}/stop", {"winner": "b", "ship": True})
        assert (status, body["winner"]) == (200, "b")

        async def serves() -> bool:
            return world.serving == "fixed"

        await _until(serves)
        decided = await client.decide(unit="u1", explain=True)
        assert decided["policy"] == "fixed"
        assert decided["propensities"][DEAR] > 0.9


async def test_what_was_starting_when_the_service_ended_starts_with_the_next(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    async with opened(data, models) as (client, world):
        await client.call(
            "PUT",
            PATH,
            {
                "variants": [
                    {"key": "now", "weight": 0.5},
                    {"key": "arm", "arm": CHEAP, "weight": 0.5},
                ]
            },
        )
        ts, spec = world.ts, world.experiments.specs["e"]
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(data)})
    log = assembly.open_log(chosen)
    event = ev.ExperimentChanged(ts=ts, experiment=spec, status="starting", why="and then it ended")
    log.append([Record(Ids(ts).new(ts), ev.kind(event), ts, ev.encode(event))])
    log.close()
    async with opened(data, models) as (client, world):

        async def runs() -> bool:
            return bool((await client.get(PATH))[1]["status"] == "running")

        await _until(runs)
        assert {"e/now"} == set(world.learners) - {world.serving}
        assert "" not in (await _variants(client, 10)).values()


# --- over restarts ------------------------------------------------------------------------


def _both_ways(data: Path, **environ: str) -> tuple[str, str]:
    """The digest by the newest snapshot and the rest, and that of the whole log."""
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(data), **environ})
    log = assembly.open_log(chosen)
    try:
        short = recovery.recover(log, chosen, assembly.open_snapshots(chosen))
        assert short.after
        whole = recovery.replayed(log, chosen, short.policy)
    finally:
        log.close()
    return short.world.digest(), whole.world.digest()


THREE = {
    "variants": [
        {"key": "now", "weight": 0.4}, {"key": "knn", "policy": "knn", "weight": 0.4},
        {"key": "arm", "arm": CHEAP, "weight": 0.2},
        {"key": "shade", "policy": "eagle", "shadow": True},
    ],
    "sticky": True,
    "metrics": [{"name": "thumbs"}],
}  # fmt: skip


async def test_experiments_are_the_same_after_every_kind_of_recovery(
    tmp_path: Path, models: Path
) -> None:
    """By the whole log, by snapshot and tail, after a change of weights, an erasure, a trim."""
    data = tmp_path / "var"
    async with opened(data, models) as (client, world):
        await _rewarded(client, 0, 20)
        assert (await client.call("PUT", PATH, THREE))[0] == 201
        await client.begin("e")
        await _rewarded(client, 0, 40)
        await client.post("/v1/snapshots", {})
        weights = {"now": 0.1, "knn": 0.8, "arm": 0.1}
        assert (await client.call("PATCH", PATH, {"weights": weights}))[0] == 200
        first = await _rewarded(client, 0, 60)
        live = world.digest()
    (data / "snapshots").rename(data / "away")
    async with opened(data, models) as (client, world):
        assert world.digest() == live, "by the whole log"
        await client.post("/v1/snapshots", {})
        assert await _variants(client, 60) == first
        await _shadowed(world, 60)
    assert len(set(_both_ways(data))) == 1
    async with opened(data, models) as (client, world):
        status, _ = await client.call("DELETE", "/v1/units/u3")
        assert status == 200
        member = ev.owner_of("", "u3")
        assert member not in world.experiments.trials["e"].members
        live = world.digest()
    bounds = {"BANDIT_RETENTION_MAX_BYTES": "1", "BANDIT_SNAPSHOTS_KEEP": "1"}
    async with opened(data, models, **bounds) as (client, world):
        assert world.digest() == live
        await client.post("/v1/snapshots", {})

        async def trimmed() -> bool:
            _, ready = await client.get("/readyz")
            return int(ready["first"]) > 1

        await _until(trimmed)
        late = [{"key": "now", "weight": 0.5}, {"key": "knn", "policy": "knn", "weight": 0.5}]
        await client.call("PUT", "/v1/experiments/late", {"variants": late, "share": 0.0})
        await client.begin("late")
        found = await _variants(client, 60)
        assert {u: v for u, v in found.items() if u != "u3"} == {
            u: v for u, v in first.items() if u != "u3"
        }
        await _shadowed(world, 60)
        live = world.digest()
    async with opened(data, models) as (_, world):
        assert world.digest() == live


async def _shadowed(world: World, newest: int) -> None:
    """Wait until every shadow has seen these decisions."""

    async def done() -> bool:
        some = list(world.pending.decisions.values())[-newest:]
        return all(one.decided.shadows for one in some if seen(world, one.decided))

    await _until(done)


async def _rewarded(client: Client, first: int, last: int) -> dict[str, str]:
    found = {}
    for i in range(first, last):
        decided = await client.decide(embedding=a_vector(i % 7), unit=f"u{i}")
        found[f"u{i}"] = decided.get("variant", "")
        signals = {"quality": (i % 5) / 4, "cost_usd": 0.001, "metrics": {"thumbs": i % 2}}
        await client.reward(decided["decision_id"], **signals)
    return found


# --- the configuration --------------------------------------------------------------------


def _configured(*experiments: dict[str, Any], **more: str) -> dict[str, str]:
    return {"BANDIT_EXPERIMENTS": json.dumps(experiments), **more}


async def test_what_is_configured_runs_and_another_line_undoes_no_ramp(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    spec = arms_of(id="e", share=0.2)
    async with opened(data, models, **_configured(spec)) as (client, world):
        assert (await client.get(PATH))[1]["status"] == "running"
        first = await _variants(client)
        await client.call("PATCH", PATH, {"share": 0.6, "weights": {"a": 0.4, "b": 0.6}})
        digest = world.digest()
    async with opened(data, models, **_configured(spec)) as (client, world):
        assert world.digest() == digest, "nothing changed, so nothing is written"
    guarded = spec | {"guardrails": [{"metric": "quality", "min": 0.1}]}
    async with opened(data, models, **_configured(guarded)) as (client, world):
        _, body = await client.get(PATH)
        assert body["experiment"]["share"] == 0.6
        assert [one["weight"] for one in body["experiment"]["variants"]] == [0.4, 0.6]
        assert len(body["experiment"]["guardrails"]) == 1
        digest = world.digest()
    async with opened(data, models, **_configured(guarded)) as (client, world):
        assert world.digest() == digest
    ramped = guarded | {"share": 0.9}
    async with opened(data, models, **_configured(ramped)) as (client, _):
        assert (await client.get(PATH))[1]["experiment"]["share"] == 0.9
        now = await _variants(client)
        assert len([u for u in first if first[u] and first[u] == now[u]]) >= 1
    async with opened(data, models, **_configured()) as (client, _):
        _, body = await client.get(f"{PATH}/results")
        assert body["status"] == "stopped"
        assert body["changes"][-1]["why"] == "it was removed from the configuration"
        assert body["changes"][-1]["by"] == "config"


async def test_slots_that_one_experiment_leaves_are_another_ones_in_one_start(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    one = arms_of(id="one", namespace="n", slots=[0.0, 0.5])
    two = arms_of(id="two", namespace="n", slots=[0.5, 1.0])
    async with opened(data, models, **_configured(one, two)) as (client, _):
        assert (await client.get("/v1/experiments/two"))[1]["status"] == "running"
    three = arms_of(id="three", namespace="n", slots=[0.0, 0.2])
    narrow = two | {"slots": [0.2, 1.0]}
    async with opened(data, models, **_configured(three, narrow)) as (client, _):
        _, body = await client.get("/v1/experiments")
        assert {each["id"]: each["status"] for each in body["experiments"]} == {
            "one": "stopped",
            "two": "running",
            "three": "running",
        }


async def test_a_configuration_that_cannot_be_leaves_the_log_as_it_was(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    good = arms_of(id="good")
    async with opened(data, models, **_configured(good)) as (client, world):
        await _variants(client, 5)
        digest = world.digest()
    no_arm = arms_of(id="bad")
    no_arm["variants"][1]["arm"] = "gpt-9"
    other_unit = good | {"unit": "session"}
    for wrong, says in (
        ([arms_of(id="new"), good, no_arm], "variants.b: no arm 'gpt-9' is offered"),
        ([arms_of(id="new"), other_unit], "unit: cannot change after the start"),
        ([good, *(arms_of(id=f"e{i}") for i in range(100))], "there are 100 experiments"),
    ):
        with pytest.raises(BadSettings, match=says):
            async with opened(data, models, **_configured(*wrong)):
                raise AssertionError("it must not start")
    async with opened(data, models, **_configured(good)) as (_, world):
        assert world.digest() == digest


def test_a_file_is_checked_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "bandit.toml"
    path.write_text("""
[[experiments]]
id = "one"
namespace = "n"
slots = [0.0, 0.6]
variants = [{key = "a", arm = "x", weight = 0.5}, {key = "b", policy = "nosuch", weight = 0.5}]

[[experiments]]
id = "two"
namespace = "n"
slots = [0.5, 1.0]
variants = [{key = "a", arm = "x", weight = 0.5}, {key = "b", arm = "y", weight = 0.4}]

[[experiments]]
id = "three"
namespace = "m"
slots = [0.0, 0.6]
variants = [{key = "a", arm = "x", weight = 0.5}, {key = "b", arm = "y", weight = 0.5}]

[[experiments]]
id = "four"
namespace = "m"
slots = [0.5, 1.0]
variants = [{key = "a", arm = "x", weight = 0.5}, {key = "b", arm = "y", weight = 0.5}]

[experiment_rules]
holdout_share = 0.1
""")
    with pytest.raises(BadSettings) as caught:
        settings.read(path, {})
    first, second, third, fourth = caught.value.mistakes
    assert first.startswith("experiments[0].variants.b: ")
    assert second == "experiments[1].variants: the weights must sum to 1, they sum to 0.9"
    assert third.startswith("experiments[1].slots: [0.5, 1) overlaps experiment 'three'")
    assert fourth == "experiment_rules.holdout_arm: name the arm that held-out units get"
