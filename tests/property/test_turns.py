"""What comes in one turn of the loop becomes the same events as one by one, bit for bit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import policies
from bandit_service import clock, wire
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.conversations import Sent, Turn
from bandit_service.core.decide import Lot, lot_of, weigh
from bandit_service.core.experiments.spec import Rules
from bandit_service.core.exploration import Exploration
from bandit_service.core.query import Query, Recalled
from bandit_service.core.world import World, new_world
from bandit_service.embedding import EmbeddingStage
from bandit_service.runtime import deciding, shadows
from bandit_service.runtime.router import Router
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.runtime.writer import Writer
from bandit_service.settings import Settings
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId
from store.history import HybridIndex
from store.memory import MemoryLog
from tests.property.test_replay_equals_live import (
    ARMS,
    DIM,
    UNITS,
    _changes,
    _NoModel,
    _same,
    _vector,
)

CAPACITY = 30
MANY_ARMS = (*ARMS, *(f"arm-{i}" for i in range(7)))

_decides = st.fixed_dictionaries(
    {"embedding": st.integers(0, 11).map(_vector)},
    optional={
        "willingness_to_pay": st.sampled_from([0.01, 0.1, 1.0]),
        "unit": st.sampled_from(UNITS),
        "session": st.sampled_from(UNITS),
        "arms": st.sampled_from([["a"], ["a", "c"], ["b", "c", "d"], ["d"], ["nobody"], []]),
        "max_cost_usd": st.sampled_from([1e-9, 0.001]),
        "requires": st.sampled_from([["json"], ["flight"]]),
        "policy": st.sampled_from(["knn", "nested", "unheard of"]),
    },
)
_commands = st.one_of(
    st.tuples(st.just("decide"), _decides, st.sampled_from([None, "", "a", "b", "gone"])),
    st.tuples(st.just("decide"), _decides, st.none()),
    st.tuples(st.just("decide"), _decides, st.just("soon")),
    st.tuples(
        st.just("decide"),
        st.sampled_from([[1.0, 2.0], [0.0] * DIM, _vector(2)[:-1]]).map(lambda x: {"embedding": x}),
        st.just("soon"),
    ),
    st.tuples(
        st.just("reward"),
        st.integers(0, 30),
        st.sampled_from(
            [
                {"quality": 1.0},
                {"quality": 0.25, "cost_usd": 0.01},
                {"latency_s": 2.0},
                {"reward": -0.5},
                {"quality": 0.5, "correction": True},
            ]
        ),
    ),
    st.tuples(st.just("put"), st.sampled_from(ARMS), st.sampled_from([0.1, 3.0])),
    st.tuples(st.just("delete"), st.sampled_from(ARMS), st.none()),
    st.tuples(
        st.just("experiment"), st.sampled_from("ef"), st.sampled_from(["start", "pause", "weigh"])
    ),
    st.tuples(st.just("rules"), st.sampled_from([0.0, 0.4]), st.booleans()),
    st.tuples(st.just("drift"), st.sampled_from(["", "a", "b"]), st.integers(1, 3)),
)
_turns = st.lists(st.lists(_commands, min_size=1, max_size=14), max_size=6)


class _Live:
    """A router without a disk, at a time that stands still, with chance that can be had again."""

    def __init__(self, name: str) -> None:
        self.log = MemoryLog()
        world = new_world({name: policies.load(name)}, name, CAPACITY)
        for arm in MANY_ARMS[:3] + MANY_ARMS[4:]:
            price = 1.0 + MANY_ARMS.index(arm)
            spec = ev.ArmSpec(
                id=ArmId(arm),
                usd_per_mtok_in=price,
                usd_per_mtok_out=price,
                usd_per_mtok_cached_in=price / 10,
            )
            world = apply(world, ev.ArmAdded(ts=1.0, arm=spec, source="api"))
        world = apply(world, ev.PolicyJoined(ts=1.0, policy="knn", key="knn", parameters=b"{}"))
        telemetry = Telemetry(pending=lambda: 0, remembered=lambda: 0)
        self.embedder = EmbeddingStage(_NoModel())
        self.router = Router(
            writer=Writer(world, self.log, telemetry, sync_interval_s=60.0, max_backlog=10),
            index=HybridIndex(DIM, CAPACITY),
            embedder=self.embedder,
            telemetry=telemetry,
            rules=replace(RouterRules.of(Settings()), neighbours=3),
        )
        self.decided: list[str] = []

    def ask(self, verb: str, which: Any, what: Any) -> Awaitable[Any]:
        router, ts = self.router, self.router.writer.now()
        match verb:
            case "decide":
                asked = wire.DecideRequest(**which)
                if what == "soon" and asked.arms != []:
                    return self.decide_soon(asked)
                if what in (None, "soon"):
                    return router.decide(asked)
                cached = ((ArmId(what), 250),) if what == "b" else ()
                warm = tuple((ArmId(arm), 350 - 10 * i) for i, arm in enumerate(MANY_ARMS))
                turn = Turn("talk", what, cached, warm, 2.5)
                return router.decide(asked, sent=Sent(400 + 10 * len(what), turn))
            case "reward":
                id = self.decided[which % len(self.decided)] if self.decided else "none"
                return router.reward(wire.RewardRequest(decision_id=id, **what))
            case "put":
                spec = ev.ArmSpec(
                    id=ArmId(which),
                    usd_per_mtok_in=what,
                    usd_per_mtok_out=what,
                    capabilities=("json",),
                )
                return router.catalogue.put_arm(spec)
            case "delete":
                return router.catalogue.retire_arm(ArmId(which))
            case "rules":
                rules = Rules(stopped=what, holdout_share=which, holdout_arm="b")
                event: ev.AnyEvent = ev.RulesChanged(ts=ts, rules=rules, by="k", why="why")
                return self.send(event)
            case _:
                event = ev.DriftDetected(
                    ts=ts,
                    arm=ArmId(which),
                    detector="adwin",
                    direction="down",
                    before=0.1,
                    after=-0.4,
                    seen=9,
                    begun=1,
                    keep=0.5,
                    explore=0.2,
                    decisions=what,
                )
                return self.send(event)

    async def decide_soon(self, asked: wire.DecideRequest) -> ev.Decided:
        """As for a frame of the stream, whose embedding is bytes."""
        asked.embedding = np.array(asked.embedding, "<f4").tobytes()
        done: asyncio.Future[ev.Decided] = asyncio.get_running_loop().create_future()
        self.router.decide_soon(asked, "key", done)
        try:
            return await done
        finally:
            self.router.answered([(done.exception() or done.result(), 0.0)])  # type: ignore[list-item]

    async def send(self, event: ev.AnyEvent) -> None:
        await self.router.writer.submit(partial(_same, event), durable=False)

    def asks(self, verb: str, which: Any, what: Any) -> list[Awaitable[Any]]:
        if verb != "experiment":
            return [self.ask(verb, which, what)]
        changes = _changes(self.router.world, which, what, self.router.writer.now())
        return [self.send(event) for event in changes]

    def told(self, answers: list[Any]) -> list[str]:
        """What each was answered, errors too."""
        self.decided += [one.id for one in answers if isinstance(one, ev.Decided)]
        return [repr(each) for each in answers]


async def _settled(one: Awaitable[Any]) -> Any:
    return (await asyncio.gather(one, return_exceptions=True))[0]


async def _played(name: str, turns: list[Any], together: bool) -> tuple[Any, ...]:
    live = _Live(name)
    answers: list[list[str]] = []
    await live.router.start()
    for turn in turns:
        coming = [one for command in turn for one in live.asks(*command)]
        if together:
            found: list[Any] = await asyncio.gather(*coming, return_exceptions=True)
        else:
            found = [await _settled(one) for one in coming]
        answers.append(live.told(found))
    await live.router.close()
    await live.embedder.close()
    events = [body for _, body in live.log.replay()]
    return answers, events, live.router.world.digest()


def _bits() -> Callable[[int], int]:
    """The same numbers every time."""
    chance = np.random.default_rng(7)
    return lambda k: int.from_bytes(chance.bytes(-(-k // 8)), "big") >> -k % 8


def _weighed_alone(
    world: World, asked: Sequence[tuple[Query, Recalled]], explore: Exploration
) -> list[Lot | Exception]:
    """What `weigh_many` is to equal."""
    found: list[Lot | Exception] = []
    for query, recalled in asked:
        try:
            found.append(lot_of(query, recalled, weigh(world, query, recalled, explore)))
        except Exception as error:  # noqa: BLE001 - it is compared, too
            found.append(error)
    return found


def _both(name: str, turns: list[Any], most: int = 64) -> tuple[Any, ...]:
    ways = []
    for together in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clock, "now", lambda: 1000.0)
            patch.setattr("secrets.randbits", _bits())
            patch.setattr(deciding, "MAX_TOGETHER", most)
            # when a shadow looks hangs on the clock, and each look is an event with a number
            patch.setattr(shadows, "seen", lambda _world, _decided: False)
            if not together:
                patch.setattr(deciding, "weigh_many", _weighed_alone)
            ways.append(asyncio.run(_played(name, turns, together)))
    one, other = ways
    assert one[0] == other[0], "answers"
    assert [ev.decode(body) for body in one[1]] == [ev.decode(body) for body in other[1]]
    assert one[1:] == other[1:]
    return one


@pytest.mark.parametrize("name", ["nested", "knn"])
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(turns=_turns, most=st.sampled_from([2, 64]))
def test_a_turn_is_as_its_commands_one_by_one(name: str, turns: list[Any], most: int) -> None:
    _both(name, turns, most)


RUNNING = [[("experiment", "f", "start")], [("experiment", "e", "start")]]


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(turns=_turns)
def test_so_it_is_while_experiments_run(turns: list[Any]) -> None:
    _both("nested", [*RUNNING, *turns])


ASKED: Any = ("decide", {"embedding": _vector(1)}, None)


@pytest.mark.parametrize(
    "between",
    [
        ("put", "d", 9.0),
        ("delete", "b", None),
        ("reward", 0, {"quality": 0.0, "cost_usd": 9.0}),
        ("experiment", "e", "start"),
        ("drift", "a", 2),
    ],
)
def test_a_decision_sees_what_came_before_it_in_its_turn(between: Any) -> None:
    _both("nested", [[ASKED] * 3, [ASKED, ASKED, between, ASKED, ASKED, ASKED, between, ASKED]])


def test_many_decisions_that_were_learned_from_come_out_alike() -> None:
    """Long turns of a policy that knows something, with one wrong query among them."""
    rng = np.random.default_rng(3)
    turns: list[Any] = []
    for _ in range(6):
        turns.append(
            [
                ("decide", {"embedding": _vector(int(rng.integers(40))), "unit": f"u{i}"}, "soon")
                for i in range(40)
            ]
        )
        turns.append([("reward", i, {"quality": float(rng.uniform())}) for i in range(240)])
        turns[-2][7] = ("decide", {"embedding": _vector(1), "arms": ["nobody"]}, None)
    answers, events, _ = _both("nested", turns)
    assert sum("no arm 'nobody'" in each for turn in answers for each in turn) == 6
    assert sum(isinstance(ev.decode(body), ev.Decided) for body in events) == 6 * 39
