"""Decisions whose embeddings the log keeps in fewer bytes: what is learned is what is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import policies
from bandit_service import wire
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.decide import Weighed
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.core.vector_bytes import CODINGS, FLOAT32, pack_as, rounded, unpack_as
from bandit_service.core.world import World, new_world
from bandit_service.runtime.router import Router
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.runtime.writer import Writer
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId
from store.history import ExactIndex
from store.memory import MemoryLog
from tests.unit.shared.memory import DIM as SHARED_DIM
from tests.unit.shared.memory import Engine, Running, same

DIM = 24
LEAN = [coding for coding in CODINGS if coding != FLOAT32]
numbers = st.floats(-1.0, 1.0, width=32, allow_subnormal=False)


class _Embedder:
    dim = DIM


def _vectors(n: int, dim: int = DIM) -> list[list[float]]:
    found = np.random.default_rng(3).normal(size=(n, dim))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).tolist()  # type: ignore[no-any-return]


def _new(policy: str) -> World:
    world = new_world({policy: policies.load(policy)}, policy, 50)
    for id in ("a", "b"):
        spec = ev.ArmSpec(id=ArmId(id), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
        world = apply(world, ev.ArmAdded(ts=1.0, arm=spec, source="api"))
    return world


def _router(policy: str, coding: str, log: MemoryLog) -> Router:
    """Of a process that keeps its log so."""
    telemetry = Telemetry(pending=lambda: 0, remembered=lambda: 0)
    writer = Writer(
        _new(policy), log, telemetry, sync_interval_s=60.0, max_backlog=10, embeddings=coding
    )
    given = Exploration(), RewardRule(), 5, 1e9, None, 1000, 10, 100, 1000, 1.0
    rules = RouterRules(*given, embeddings=coding)
    return Router(
        writer=writer,
        index=ExactIndex(DIM),
        embedder=_Embedder(),  # type: ignore[arg-type]  # every query brings its embedding
        telemetry=telemetry,
        rules=rules,
    )


async def _live(router: Router, n: int = 40) -> None:
    """Make and learn decisions."""
    for i, vector in enumerate(_vectors(n)):
        decided = await router.decide(wire.DecideRequest(embedding=vector))
        if i % 4:
            await router.reward(wire.RewardRequest(decision_id=decided.id, quality=i / n))


async def _lived(policy: str, coding: str, log: MemoryLog) -> World:
    """The world of a process that made and learned decisions, all in this log."""
    router = _router(policy, coding, log)
    await router.start()
    await _live(router)
    await router.close()
    return router.world


def _bodies(log: MemoryLog) -> list[bytes]:
    return [body for _, body in log.replay()]


def _kinds(bodies: Sequence[bytes]) -> set[str]:
    return {msgspec.msgpack.decode(body)["kind"] for body in bodies}


@pytest.mark.parametrize("policy", ["nested", "knn", "eagle"])
@pytest.mark.parametrize("coding", LEAN)
async def test_a_replay_learns_what_the_live_process_learned(policy: str, coding: str) -> None:
    log = MemoryLog()
    live = await _lived(policy, coding, log)
    assert _kinds(_bodies(log)) == {"decided_lean", "rewarded"}
    again = _new(policy)
    for body in _bodies(log):
        again = apply(again, ev.decode(body))
    assert again.digest() == live.digest()
    assert any(pending.decided.similarities for pending in live.pending.decisions.values())


def _qualities(told: Weighed) -> tuple[float, ...]:
    assert told.proposal.quality is not None
    return tuple(told.proposal.quality)


@pytest.mark.parametrize("coding", LEAN)
async def test_an_explanation_is_of_the_decision_that_would_be_made(coding: str) -> None:
    router, vector = _router("knn", coding, MemoryLog()), _vectors(41)[40]
    await router.start()
    await _live(router)
    told, _ = await router.explain(wire.ExplainRequest(embedding=vector))
    decided = await router.decide(wire.DecideRequest(embedding=vector))
    assert decided.expected_quality == _qualities(told)[decided.drawn]
    again, _ = await router.explain(wire.ExplainRequest(decision_id=decided.id))
    now, _ = await router.explain(wire.ExplainRequest(embedding=vector))
    assert _qualities(again) == _qualities(now)
    await router.close()


async def test_a_lean_log_is_smaller_and_another_one_is_as_it_was() -> None:
    sizes = {}
    for coding in CODINGS:
        log = MemoryLog()
        await _lived("nested", coding, log)
        sizes[coding] = sum(len(body) for body in _bodies(log) if b"decided" in body)
        if coding == FLOAT32:
            assert _kinds(_bodies(log)) == {"decided", "rewarded"}
            event = ev.decode(_bodies(log)[-2])
            assert isinstance(event, ev.Decided)
            assert len(event.scores) == 2
    assert sizes["int8"] < sizes["float16"] < sizes["float32"]


@pytest.mark.parametrize("coding", LEAN)
@given(vector=arrays(np.float32, st.integers(1, 40), elements=numbers))
def test_a_rounded_vector_is_kept_exactly(coding: str, vector: Any) -> None:
    near = rounded(vector, coding)
    assert np.array_equal(rounded(near, coding), near)
    assert pack_as(near, coding) == pack_as(vector, coding)
    if coding == "int8" and vector.any():
        assert abs(float(np.linalg.norm(near)) - 1.0) < 1e-6


@pytest.mark.parametrize(("coding", "most"), [("float16", 2e-3), ("int8", 3e-2)])
def test_a_rounded_vector_is_near_to_what_it_was(coding: str, most: float) -> None:
    for vector in np.array(_vectors(50, 384), np.float32):
        near = rounded(vector, coding)
        assert float(np.abs(near - vector).max()) <= most * float(np.abs(vector).max())


def test_the_bits_of_a_coding_never_change() -> None:
    assert pack_as(np.array([0.6, -0.8, 0.0], np.float32), "int8") == bytes([95, 0x81, 0])
    assert unpack_as(bytes([95, 0x81, 0]), "int8").tobytes().hex() == "7457193f58fe4cbf00000000"
    assert unpack_as(bytes.fromhex("cd38 66ba".replace(" ", "")), "float16").tolist() == [
        0.60009765625,
        -0.7998046875,
    ]


def _decided(**more: Any) -> ev.Decided:
    vector = np.array(_vectors(1)[0], np.float32)
    fields: dict[str, Any] = {
        "ts": 1.0,
        "id": "d",
        "embedding": ev.pack(rounded(vector, "int8")),
        "tokens": 1,
        "willingness_to_pay": 0.1,
        "arms": (ArmId("a"),),
        "propensities": (1.0,),
        "scores": (),
        "drawn": 0,
        "policy": "nested",
        "key": "k",
        "list_cost_usd": 0.0,
        "expected_cost_usd": 0.0,
        "price": 0.0,
    }
    return ev.Decided(**fields | more)


@pytest.mark.parametrize(
    "more",
    [
        {"embedding": ev.pack(np.array(_vectors(1)[0], np.float32))},
        {"scores": (0.1,)},
        {"neighbours": (1,), "similarities": (0.1,)},
    ],
    ids=["embedding", "scores", "similarities"],
)
def test_what_was_not_rounded_is_written_whole(more: dict[str, Any]) -> None:
    assert _kinds([ev.encode(_decided(), "int8")]) == {"decided_lean"}
    event = _decided(**more)
    body = ev.encode(event, "int8")
    assert _kinds([body]) == {"decided"}
    assert ev.decode(body) == event


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"coding": "int4"}, "must be one of float32, float16, int8, got 'int4'"),
        ({"coding": "float16", "embedding": b"abc"}, "buffer size"),
        ({"near": b"a"}, "buffer size"),
    ],
)
def test_a_broken_lean_decision_is_no_event(wrong: dict[str, Any], why: str) -> None:
    fields = msgspec.msgpack.decode(ev.encode(_decided(), "int8")) | wrong
    with pytest.raises(msgspec.DecodeError, match=f"a lean decision: {why}"):
        ev.decode(msgspec.msgpack.encode(fields))


async def test_replicas_of_different_codings_have_one_state(tmp_path: Path) -> None:
    engine = Engine()
    lean = await Running(engine, tmp_path / "lean", embeddings="int8").start()
    full = await Running(engine, tmp_path / "full").start()
    await lean.put_an_arm()
    await same(lean, full)
    for i, vector in enumerate(_vectors(6, SHARED_DIM)):
        maker, other = (lean, full) if i % 2 else (full, lean)
        id = (await maker.router.decide(wire.DecideRequest(embedding=vector))).id
        await other.reward(id, 0.5)
    await same(lean, full)
    written = [record.body for record, *_ in engine.records]
    assert {"decided", "decided_lean"} <= _kinds(written)
    await lean.close()
    await full.close()


async def test_while_an_older_replica_is_open_decisions_are_written_whole(tmp_path: Path) -> None:
    engine = Engine()
    lean = await Running(engine, tmp_path / "lean", embeddings="int8").start()
    older = await Running(engine, tmp_path / "older").start()
    engine.reads[older.name] = 5  # as the release before says it
    await lean.put_an_arm()
    await same(lean, older)
    lean.writer.link.rows = await lean.shared.replicas()
    vector = _vectors(1, SHARED_DIM)[0]
    id = (await lean.router.decide(wire.DecideRequest(embedding=vector))).id
    await older.reward(id)
    await same(lean, older)
    kinds = _kinds([record.body for record, *_ in engine.records])
    assert "decided" in kinds
    assert "decided_lean" not in kinds
    await lean.close()
    await older.close()
