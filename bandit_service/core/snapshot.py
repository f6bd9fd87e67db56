"""A world to bytes and back: a cache of the fold, from which recovery goes on with the tail.

What is kept is exactly what `World.digest` covers. Events and items are kept in the encodings that
the log uses; arrays keep their bits. No code comes from data.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np

import policies
from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.drift import Drift
from bandit_service.core.experiments.spec import Experiment, Rules
from bandit_service.core.experiments.trial import Trial
from bandit_service.core.history import Item
from bandit_service.core.world import ArmRecord, Learner, Pending, World, new_world
from bandit_service.statistics.calibration import Calibration
from policies import ArmId, Comparison, Outcome, Policy

VERSION = 8
"""Goes up with any change of what the fold makes of the same events."""


class _Remembered(msgspec.Struct, array_like=True, frozen=True):
    id: int
    key: bytes
    outcomes: tuple[tuple[str, float | None, float], ...]
    comparisons: tuple[tuple[str, str, bool], ...]
    owners: tuple[str, ...]
    compared_by: tuple[str, ...]
    origins: tuple[tuple[int, str], ...]
    compared_in: tuple[tuple[int, str], ...]


class _Waiting(msgspec.Struct, array_like=True, frozen=True):
    """`Pending`, field by field."""

    decided: ev.Decided
    signals: dict[str, float]
    keys: dict[str, str]
    learned: dict[str, float]
    provisional: bool = False
    guessed_usd: float = 0.0
    compared: dict[str, tuple[float, bool]] = {}


class _Learned(msgspec.Struct, array_like=True, frozen=True):
    state: bytes
    failures: int
    uncorrected: int
    name: str = ""
    key: str = ""
    parameters: bytes = b"{}"
    own: str = ""
    seeded: int = 0


class _Arm(msgspec.Struct, array_like=True, frozen=True):
    spec: ev.ArmSpec
    source: str
    retired: bool
    sums: tuple[float, float, int, float, int]
    first_price: float
    outcomes: tuple[float, int]


class Kept(msgspec.Struct, frozen=True):
    """A world as it is kept.

    mark: a hash of the last event's record, by which a snapshot of another log's past is told.
    policy, parameters (JSON), configured_policy: what the log last said of the policy.
    """

    mark: bytes
    learners: dict[str, _Learned]
    arms: list[_Arm]
    configured: list[ev.ArmSpec]
    pending: list[_Waiting]
    keys: dict[str, str]
    items: list[_Remembered]
    vectors: bytes
    dim: int
    capacity: int
    per_item: int
    next_id: int
    policy: str
    policy_key: str
    parameters: bytes
    configured_policy: str
    ts: float
    erasing: list[str]
    spend: dict[str, dict[str, dict[str, float]]]
    counts: tuple[int, int, int, int]
    experiments: list[Experiment]
    configured_experiments: list[Experiment]
    trials: dict[str, bytes]
    rules: Rules
    configured_rules: Rules
    calibration: dict[str, bytes]
    drift: bytes
    faded: dict[str, int]
    unapplied: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Kept)


def key_of(policy_key: str, capacity: int, per_item: int) -> str:
    """What a snapshot must have been folded with to be gone on from."""
    return f"{policy_key}-{capacity}-{per_item}-v{VERSION}".replace(":", "-")


def mark_of(body: bytes) -> bytes:
    """What a snapshot remembers of the last record that it holds; empty for an erased one."""
    return blake2b(body, digest_size=16).digest() if body else b""


def dump(world: World, mark: bytes = b"") -> bytes:
    """The world as MessagePack."""
    history = world.history
    ids, vectors = history.vectors()
    kept = Kept(
        mark=mark,
        learners={
            label: _learned(one) for label, one in world.learners.items() if one.queue is None
        },
        arms=[_arm(record) for record in world.arms.values()],
        configured=list(world.configured.values()),
        pending=[_Waiting(**vars(one)) for one in world.pending.values()],
        keys=dict(world.keys),
        items=[_remembered(id, history.items[id]) for id in ids],
        vectors=np.ascontiguousarray(vectors, "<f4").tobytes(),
        dim=vectors.shape[1] if ids else 0,
        capacity=history.capacity,
        per_item=history.per_item,
        next_id=history.next_id,
        policy=world.policy,
        policy_key=world.policy_key,
        parameters=world.parameters,
        configured_policy=world.configured_policy,
        ts=world.ts,
        erasing=list(world.erasing),
        spend=world.spend.windows,
        counts=(world.events, world.decisions, world.rewards, world.comparisons),
        experiments=list(world.experiments.values()),
        configured_experiments=list(world.configured_experiments.values()),
        trials={id: codec.dump(trial) for id, trial in world.trials.items()},
        rules=world.rules,
        configured_rules=world.configured_rules,
        calibration={name: codec.dump(each) for name, each in world.calibration.items()},
        drift=codec.dump(world.drift),
        faded={str(arm): upto for arm, upto in history.faded.items()},
        unapplied=world.unapplied,
    )
    return _encoder.encode(kept)


def read(data: bytes) -> Kept:
    """What `dump` wrote; ValueError when `data` is not a world of this version."""
    try:
        return _decoder.decode(data)
    except codec.UNREADABLE as error:
        raise ValueError(f"not a world of version {VERSION}: {error}") from None


def restore(kept: Kept, by_label: Mapping[str, Policy[Any]], serving: str) -> World:
    """The world that was kept, with these policies to go on learning.

    A policy that was not there begins with nothing learned.
    """
    world = new_world(by_label, serving, kept.capacity, kept.per_item)
    for label, learner in world.learners.items():
        if label in kept.learners:
            found = kept.learners[label]
            learner.state = codec.load(found.state, type(learner.state))
            learner.failures, learner.uncorrected = found.failures, found.uncorrected
    for label, one in kept.learners.items():
        if (one.own or one.name) and (variant := _variant(one)) is not None:
            world.learners[label] = variant
    world.arms = {each.spec.id: _record(each) for each in kept.arms}
    world.configured = {spec.id: spec for spec in kept.configured}
    world.pending = OrderedDict(
        (one.decided.id, Pending(**msgspec.structs.asdict(one))) for one in kept.pending
    )
    world.keys = OrderedDict(kept.keys)
    vectors = np.frombuffer(kept.vectors, "<f4").reshape(len(kept.items), kept.dim)
    world.history.load([each.id for each in kept.items], vectors, [_item(e) for e in kept.items])
    world.history.next_id = kept.next_id
    world.policy, world.policy_key = kept.policy, kept.policy_key
    world.parameters, world.configured_policy = kept.parameters, kept.configured_policy
    world.ts = kept.ts
    world.erasing = dict.fromkeys(kept.erasing)
    world.spend.windows = kept.spend
    world.events, world.decisions, world.rewards, world.comparisons = kept.counts
    world.unapplied = kept.unapplied
    world.experiments = {spec.id: spec for spec in kept.experiments}
    world.configured_experiments = {spec.id: spec for spec in kept.configured_experiments}
    world.trials = {id: codec.load(data, Trial) for id, data in kept.trials.items()}
    world.rules, world.configured_rules = kept.rules, kept.configured_rules
    world.calibration = {
        name: codec.load(data, Calibration) for name, data in kept.calibration.items()
    }
    world.drift = codec.load(kept.drift, Drift)
    world.history.faded = {ArmId(arm): upto for arm, upto in kept.faded.items()}
    return world


def dump_learner(learner: Learner) -> bytes:
    """One policy's state, to be carried from the process that folded it."""
    return _encoder.encode(_learned(learner))


def load_learner(data: bytes, policy: Policy[Any]) -> Learner:
    """The learner that `dump_learner` made `data` from."""
    found = msgspec.msgpack.decode(data, type=_Learned)
    state = codec.load(found.state, type(policy.init()))
    return Learner(policy, state, found.failures, found.uncorrected)


def _learned(one: Learner) -> _Learned:
    state = codec.dump(one.state)
    said = (one.name, one.key, one.parameters, one.own, one.seeded)
    return _Learned(state, one.failures, one.uncorrected, *said)


def _variant(kept: _Learned) -> Learner | None:
    """The policy of a variant, which the log described; None where there is none such any more."""
    try:
        policy = policies.load(kept.name, **msgspec.json.decode(kept.parameters))
        state = codec.load(kept.state, type(policy.init()))
    except (ValueError, TypeError, LookupError, ImportError, *codec.UNREADABLE):
        return None  # as for a fold of the whole log
    said = (kept.name, kept.key, kept.parameters, kept.own, kept.seeded)
    return Learner(policy, state, kept.failures, kept.uncorrected, None, *said)


def _arm(record: ArmRecord) -> _Arm:
    sums = (record.listed_usd, record.observed_usd, record.costs)
    return _Arm(
        record.spec, record.source, record.retired,
        (*sums, record.latency_s, record.latencies), record.first_price,
        (record.weight, record.live),
    )  # fmt: skip


def _record(kept: _Arm) -> ArmRecord:
    past = (*kept.sums, kept.first_price, *kept.outcomes)
    return ArmRecord(kept.spec, kept.source, kept.retired, *past)


def _remembered(id: int, item: Item) -> _Remembered:
    return _Remembered(
        id,
        item.key,
        tuple((one.arm, one.quality, one.reward) for one in item.outcomes),
        tuple((one.winner, one.loser, one.tie) for one in item.comparisons),
        item.owners,
        item.compared_by,
        item.origins,
        item.compared_in,
    )


def _item(kept: _Remembered) -> Item:
    return Item(
        0,
        kept.key,
        tuple(Outcome(ArmId(arm), quality, reward) for arm, quality, reward in kept.outcomes),
        tuple(Comparison(ArmId(one), ArmId(two), tie) for one, two, tie in kept.comparisons),
        kept.owners,
        kept.compared_by,
        kept.origins,
        kept.compared_in,
    )
