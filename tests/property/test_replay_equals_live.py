"""Whatever happens, in whatever order: folding the log again gives the same world, bit for bit."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import policies
from bandit_service import wire
from bandit_service.core import codec, snapshot
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.decide import weigh
from bandit_service.core.errors import ServiceError
from bandit_service.core.experiments.spec import (
    Experiment,
    Guardrail,
    Metric,
    Rules,
    Variant,
)
from bandit_service.core.exploration import Exploration
from bandit_service.core.query import Query, Recalled
from bandit_service.core.world import World, new_world
from bandit_service.embedding import EmbeddingStage
from bandit_service.runtime.experiment_monitor import weighed
from bandit_service.runtime.router import Router
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.runtime.writer import Writer
from bandit_service.settings import Settings
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId
from store import EventLog
from store.history import HybridIndex
from store.sqlite import SqliteLog

DIM = 4
CAPACITY = 6
ARMS = ("a", "b", "c", "d")
UNITS = ("u", "v", "w")

_vectors = st.integers(0, 11)
_worth = st.sampled_from([0.01, 0.1, 1.0])
_quality = st.sampled_from([0.0, 0.3, 1.0])
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("decide"), _vectors, _worth),
        st.tuples(
            st.just("reward"),
            st.integers(0, 8),
            st.sampled_from(
                [
                    {"quality": 1.0},
                    {"quality": 0.25},
                    {"cost_usd": 0.01},
                    {"latency_s": 2.0},
                    {"quality": 0.5, "cost_usd": 0.002},
                    {"reward": -0.5},
                    {"reward": 5.0},
                    {"metrics": {"thumbs": 1.0}},
                ]
            ),
        ),
        st.tuples(st.just("own reward"), _vectors, _quality),
        st.tuples(st.just("taught"), _vectors, _quality),
        st.tuples(st.just("weigh prior"), st.sampled_from([0.5, 2.0]), st.none()),
        st.tuples(st.just("compare"), _vectors, st.permutations(ARMS)),
        st.tuples(st.just("put"), st.sampled_from(ARMS), st.sampled_from([0.1, 3.0])),
        st.tuples(st.just("delete"), st.sampled_from(ARMS), st.none()),
        st.tuples(
            st.just("correct"),
            st.integers(0, 8),
            st.sampled_from(
                [
                    {"quality": 0.75},
                    {"cost_usd": 0.5},
                    {"latency_s": 9.0},
                    {"reward": 0.25},
                    {"quality": 0.0, "cost_usd": 0.001},
                ]
            ),
        ),
        st.tuples(st.just("forget"), st.sampled_from(UNITS), st.none()),
        st.tuples(
            st.just("experiment"),
            st.sampled_from(["e", "f"]),
            st.sampled_from(
                ["put", "start", "pause", "stop", "ramp", "weigh", "hold", "release", "delete"]
            ),
        ),
        st.tuples(st.just("rules"), st.sampled_from([0.0, 0.4]), st.booleans()),
        st.tuples(st.just("expire"), st.none(), st.none()),
        st.tuples(st.just("drift"), st.sampled_from(["", *ARMS]), st.sampled_from([0.1, 1.0])),
    ),
    max_size=40,
)


class _NoModel:
    """Queries here bring their own embedding, so no model is needed."""

    name = "none"
    dim = DIM

    def encode(self, texts: Sequence[str]) -> Any:
        raise AssertionError(f"nothing is to be embedded, got {len(texts)} texts")


def _vector(i: int) -> list[float]:
    vector = np.random.default_rng(i).normal(size=DIM)
    return [float(x) for x in vector / np.linalg.norm(vector)]


def _worlds_of(name: str, log: EventLog, cut: int = -1) -> World:
    """The fold; after `cut` events it goes through a snapshot."""
    world = new_world({name: policies.load(name)}, name, CAPACITY)
    for offset, body in log.replay():
        world = apply(world, ev.decode(body))
        if offset == cut:
            world = _through_a_snapshot(world, name)
    return world


def _through_a_snapshot(world: World, name: str) -> World:
    kept = snapshot.read(snapshot.dump(world))
    return snapshot.restore(kept, {name: policies.load(name)}, name)


def _spec(id: str) -> Experiment:
    """Two isolated policies, a fixed arm and a shadow; `f` keeps units, and half of them."""
    keeps = {"sticky": True, "share": 0.5} if id == "f" else {}
    return Experiment(
        id=id,
        variants=(
            Variant(key="now", weight=0.4),
            Variant(key="knn", policy="knn", weight=0.4),
            Variant(key="arm", arm="a", weight=0.2),
            Variant(key="shade", policy="eagle", shadow=True),
        ),
        metrics=(Metric(name="thumbs"),),
        guardrails=(Guardrail(metric="quality", min=0.1),),
        primary="thumbs" if id == "e" else "reward",
        unit="user" if id == "e" else "session",
        **keeps,  # type: ignore[arg-type]
    )


def _same(event: ev.AnyEvent) -> ev.AnyEvent:
    return event


def _changes(world: World, id: str, what: str, ts: float) -> list[ev.AnyEvent]:
    """The events that the service writes for it, whatever stands: applying must be total."""
    spec = world.experiments.specs.get(id, _spec(id))
    status = world.experiments.trials[id].status if id in world.experiments.trials else "draft"
    more: dict[str, Any] = {}
    seeds: list[ev.AnyEvent] = []
    match what:
        case "start":
            status = "running"
            for key, name in (("now", world.serving), ("knn", "knn"), ("shade", "eagle")):
                own = name == world.serving
                state = codec.dump(world.learners[name].state) if own else b""
                seeds.append(
                    ev.VariantSeeded(
                        ts=ts,
                        experiment=id,
                        variant=key,
                        policy=name,
                        parameters=b"{}",
                        state=state,
                        upto=world.events,
                    )
                )
        case "pause":
            status = "paused"
        case "stop":
            status, more = "stopped", {"winner": "now"}
        case "ramp":
            spec = msgspec.structs.replace(spec, share=0.7)
        case "weigh":
            spec = weighed(spec, {"now": 0.7, "knn": 0.1})
        case "hold":
            more = {"held": "knn", "held_until": ts + 1.0}
        case "release":
            more = {"held": "knn"}
        case "delete":
            return [ev.ExperimentDeleted(ts=ts, id=id)]
    changed = ev.ExperimentChanged(
        ts=ts,
        experiment=spec,
        status=status,
        by="k",
        why=what,
        source="config" if what == "put" else "api",
        **more,
    )
    return [changed, *seeds]


async def _play(router: Router, steps: list[Any]) -> None:
    decided: list[str] = []
    for verb, which, what in steps:
        try:
            if verb == "decide":
                ask = wire.DecideRequest(
                    embedding=_vector(which),
                    willingness_to_pay=what,
                    unit=UNITS[which % 3],
                    session=UNITS[which % 2],
                )
                decided.append((await router.decide(ask)).id)
            elif verb == "reward" and decided:
                id = decided[which % len(decided)]
                await router.reward(wire.RewardRequest(decision_id=id, **what))
            elif verb == "own reward":
                await router.reward(
                    wire.RewardRequest(
                        embedding=_vector(which), arm="a", quality=what, unit=UNITS[which % 3]
                    )
                )
            elif verb == "taught":
                await router.reward(
                    wire.RewardRequest(embedding=_vector(which), arm="a", quality=what), prior=True
                )
            elif verb == "weigh prior":
                await router.weigh_prior(which)
            elif verb == "compare":
                await router.compare(
                    wire.CompareRequest(embedding=_vector(which), winner=what[0], loser=what[1])
                )
            elif verb == "put":
                spec = ev.ArmSpec(id=ArmId(which), usd_per_mtok_in=what, usd_per_mtok_out=what)
                await router.catalogue.put_arm(spec)
            elif verb == "delete":
                await router.catalogue.retire_arm(ArmId(which))
            elif verb == "correct" and decided:
                id = decided[which % len(decided)]
                await router.reward(wire.RewardRequest(decision_id=id, correction=True, **what))
            elif verb == "forget":
                await router.forget("", which)
            elif verb == "experiment":
                for event in _changes(router.world, which, what, router.writer.now()):
                    await router.writer.submit(partial(_same, event))
            elif verb == "rules":
                rules = Rules(stopped=what, holdout_share=which, holdout_arm="b")
                ruled = ev.RulesChanged(ts=router.writer.now(), rules=rules, by="k", why="why")
                await router.writer.submit(partial(_same, ruled))
            elif verb == "drift":
                router.writer.append_now(
                    ev.DriftDetected(
                        ts=router.writer.now(),
                        arm=ArmId(which),
                        detector="adwin",
                        direction="down",
                        before=0.1,
                        after=-0.4,
                        seen=9,
                        begun=router.world.events // 2,
                        keep=what,
                        explore=0.2,
                        decisions=3,
                    )
                )
            elif verb == "expire":
                router.pending.sweep(router.writer.now() + 2 * router.rules.ttl_s)
        except ServiceError:
            continue  # refused, so it must have changed nothing, which the digest holds


async def _live(name: str, path: Path, steps: list[Any]) -> World:
    log = SqliteLog(path)
    world = new_world({name: policies.load(name)}, name, CAPACITY)
    embedder = EmbeddingStage(_NoModel())
    telemetry = Telemetry(pending=lambda: 0, remembered=lambda: 0)
    index = HybridIndex(DIM, CAPACITY)
    router = Router(
        writer=Writer(world, log, telemetry, sync_interval_s=0.5, max_backlog=10),
        index=index,
        embedder=embedder,
        telemetry=telemetry,
        rules=replace(RouterRules.of(Settings()), neighbours=3, max_pending=5, default_reward=-0.5),
    )
    await router.start()
    for arm in ARMS[:3]:
        price = 1.0 + ARMS.index(arm)
        await router.catalogue.put_arm(
            ev.ArmSpec(id=ArmId(arm), usd_per_mtok_in=price, usd_per_mtok_out=price)
        )
    await _play(router, steps)
    await router.close()
    await embedder.close()
    log.close()
    return router.world


@pytest.mark.parametrize("name", [*policies.names(), "river:LinUCBDisjoint", "river:Exp3"])
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(steps=_steps)
def test_replay_equals_live(name: str, steps: list[Any]) -> None:
    _equal(name, steps)


RUNNING = [("experiment", "e", "start"), ("rules", 0.4, False), ("experiment", "f", "start")]


@pytest.mark.parametrize("name", ["metallm", "knn"])
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(steps=_steps)
def test_replay_equals_live_in_experiments_that_run(name: str, steps: list[Any]) -> None:
    """A restart, from nothing or from a snapshot between, assigns and learns as before."""
    live, again = _equal(name, [*RUNNING, *steps])
    for unit in UNITS:
        query = Query(
            embedding=np.array(_vector(1), np.float32),
            tokens=9,
            willingness_to_pay=0.1,
            unit=unit,
            session=unit,
        )
        one, other = (weigh(world, query, Recalled(), Exploration()) for world in (live, again))
        assert (one.part, one.steps) == (other.part, other.steps)
        assert one.propensities.tolist() == other.propensities.tolist()


def _equal(name: str, steps: list[Any]) -> tuple[World, World]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "events.sqlite3"
        live = asyncio.run(_live(name, path, steps))
        again = SqliteLog(path)
        replayed = _worlds_of(name, again)
        cut = _worlds_of(name, again, cut=again.last // 2)
        again.close()
    assert replayed.digest() == live.digest()
    assert cut.digest() == live.digest()
    assert snapshot.dump(cut) == snapshot.dump(live)
    return live, cut


def test_the_digest_tells_two_worlds_apart() -> None:
    one, other = (new_world({"uniform": policies.load("uniform")}, "uniform", 3) for _ in range(2))
    assert one.digest() == other.digest()
    spec = ev.ArmSpec(id=ArmId("a"), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
    apply(one, ev.ArmAdded(ts=1.0, arm=spec, source="api"))
    assert one.digest() != other.digest()


@settings(max_examples=50, derandomize=True)
@given(st.floats(0, 1), st.floats(0, 10), st.text(max_size=20))
def test_an_event_survives_its_bytes(quality: float, cost: float, key: str) -> None:
    event = ev.Rewarded(
        ts=1.5, decision_id="d", quality=quality, cost_usd=cost, idempotency_key=key
    )
    assert ev.decode(ev.encode(event)) == event
    assert msgspec.msgpack.decode(ev.encode(event))["kind"] == "rewarded" == ev.kind(event)
