"""A world to bytes and back: a cache of the fold, from which recovery continues with the rest.

A snapshot is a head and the world in the encoding whose hash is `World.digest`. It has no code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2b
from typing import Any

import msgspec

from bandit_service.core import codec, upgrade
from bandit_service.core.learner import KeptLearner, Learner
from bandit_service.core.learners import Learners
from bandit_service.core.world import World
from policies import Policy

VERSION = 13
"""Goes up with any change of what the fold makes of the same events, or of how it is written.

`upgrade.STEPS` then gets a step from the version before."""


class Kept(msgspec.Struct, frozen=True):
    """A world as it is kept.

    mark: a hash of the last event's record, by which a snapshot of another log's past is told.
    policy, parameters (JSON), configured_policy: what the log last said of the policy.
    """

    mark: bytes
    policy: str
    parameters: bytes
    configured_policy: str
    world: msgspec.Raw


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Kept)


def key_of(policy_key: str, capacity: int, per_item: int, version: int = VERSION) -> str:
    """What a snapshot must have been folded with to be gone on from."""
    return f"{policy_key}-{capacity}-{per_item}-v{version}".replace(":", "-")


def is_of_this_version(key: str) -> bool:
    """Whether `key_of` of this version made the key."""
    return is_of(key, VERSION)


def is_of(key: str, version: int) -> bool:
    """Whether `key_of` made the key for this version."""
    return key.endswith(f"-v{version}")


def versions_before() -> list[int]:
    """Those whose worlds `restore_before` can read, newest first."""
    found, version = [], VERSION - 1
    while version in upgrade.STEPS:
        found.append(version)
        version -= 1
    return found


def mark_of(body: bytes) -> bytes:
    """What a snapshot remembers of the last record that it holds; empty for an erased one."""
    return blake2b(body, digest_size=16).digest() if body else b""


def dump(world: World, mark: bytes = b"") -> bytes:
    """The world as MessagePack."""
    said = (world.policy.name, world.policy.parameters, world.policy.configured)
    return _encoder.encode(Kept(mark, *said, msgspec.Raw(codec.dump(world))))


def read(data: bytes | bytearray) -> Kept:
    """The head of what `dump` wrote; ValueError when `data` is no snapshot of this version."""
    try:
        return _decoder.decode(data)
    except codec.UNREADABLE as error:
        raise _unreadable(error) from None


def restore(kept: Kept, by_label: Mapping[str, Policy[Any]], serving: str) -> World:
    """The stored world, with these policies to continue learning.

    A policy that it does not have starts empty. Raises ValueError if it is not a world.
    """
    return _world(kept, partial(_learners, by_label=by_label, serving=serving))


def restore_untaught(kept: Kept, policy: Policy[Any], serving: str) -> World:
    """The world that was kept, with this policy alone, which has learned nothing.

    Of what policies had learned nothing is read, so it may be of another fold of theirs.
    """

    def untaught(_: dict[str, KeptLearner]) -> Learners:
        made = Learners({serving: Learner(policy, policy.init())})
        made.serving = serving
        return made

    return _world(kept, untaught)


def restore_unlearned(kept: Kept) -> World:
    """The world that was kept, without policies: of whatever fold they are, none is read."""
    return _world(kept, lambda _: Learners())


def restore_before(
    kept: Kept, version: int, by_label: Mapping[str, Policy[Any]], serving: str
) -> tuple[World, list[str]]:
    """The same for an earlier version's world, and the labels of policies that learned again.

    These are policies whose earlier state cannot be read. They learn from the history.
    """
    read = upgrade.Reading(by_label, serving)
    try:
        parts = upgrade.parts(kept.world, version, VERSION)
        world = codec.load(parts, World, {Learners: read.learners})
    except (*codec.UNREADABLE, ValueError, LookupError) as error:
        raise ValueError(f"not a world of version {version}: {error}") from None
    read.teach(world)
    return world, read.anew


def dump_learner(learner: Learner) -> bytes:
    """One policy's state, to be carried from the process that folded it."""
    return codec.dump(learner.kept())


def load_learner(data: bytes | memoryview, policy: Policy[Any]) -> Learner:
    """The learner that `dump_learner` made `data` from."""
    return codec.load(data, KeptLearner).with_policy(policy)


def _world(kept: Kept, learners: Callable[[dict[str, KeptLearner]], Learners]) -> World:
    try:
        return codec.load(kept.world, World, {Learners: learners})
    except (*codec.UNREADABLE, ValueError) as error:
        raise _unreadable(error) from None


def _learners(
    kept: dict[str, KeptLearner], by_label: Mapping[str, Policy[Any]], serving: str
) -> Learners:
    """These policies with what they know, and those that the log described."""
    made = Learners()
    made.serving = serving
    for label, policy in by_label.items():
        known = kept.get(label)
        if known is not None:
            known.check(policy)
        made[label] = Learner(policy, policy.init()) if known is None else known.with_policy(policy)
    for label, learner in Learners.unfolded(kept).items():
        made[label] = learner
    return made


def _unreadable(error: BaseException) -> ValueError:
    return ValueError(f"not a world of version {VERSION}: {error}")
