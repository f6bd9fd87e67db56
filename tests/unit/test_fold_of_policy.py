"""A state is not gone on from by a policy that makes another one of the same events by now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

from bandit_service.core import snapshot
from bandit_service.core.learner import Learner
from bandit_service.core.world import World, new_world
from bandit_service.testing.wrong_policies import Honest
from policies import fold_of
from policies.epsilon_greedy import EpsilonGreedy


@dataclass(frozen=True)
class Changed(Honest):
    """Learns otherwise than it did.

    epsilon: in [0, 1], the probability of any arm.
    """

    fold: ClassVar[int] = 2


def _restored(world: World, policy: Honest) -> World:
    return snapshot.restore(snapshot.read(snapshot.dump(world)), {"own": policy}, "own")


def test_a_snapshot_of_another_fold_is_refused_and_says_why() -> None:
    assert (fold_of(Honest()), fold_of(Changed())) == (0, 2)
    world = new_world({"own": Honest()}, "own", 10)
    assert _restored(world, Honest()).digest() == world.digest()
    with pytest.raises(ValueError, match="Changed is of its fold 0, and the policy's fold is 2"):
        _restored(world, Changed())


def test_so_is_the_state_of_a_policy_that_the_log_described(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A variant's would otherwise be dropped, as if there were no such policy any more."""
    world = new_world({"own": Honest()}, "own", 10)
    policy = EpsilonGreedy()
    world.learners["beside:x"] = Learner(policy, policy.init(), name="epsilon_greedy")
    assert "beside:x" in _restored(world, Honest()).learners
    kept = snapshot.dump(world)
    monkeypatch.setattr(EpsilonGreedy, "fold", 1, raising=False)
    with pytest.raises(ValueError, match="EpsilonGreedy is of its fold 0"):
        snapshot.restore(snapshot.read(kept), {"own": Honest()}, "own")
