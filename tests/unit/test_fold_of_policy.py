"""A state is not gone on from by a policy that makes another one of the same events by now."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

import policies
from bandit_service.core import codec, snapshot
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.learner import Learner
from bandit_service.core.world import World, new_world
from bandit_service.offline.offpolicy.sources import world_of
from bandit_service.runtime import folding
from bandit_service.testing.wrong_policies import Honest
from policies import ArmId, fold_of
from policies.epsilon_greedy import EpsilonGreedy
from store import Offset
from store.snapshots import FileSnapshots


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


def _events() -> list[bytes]:
    specs = [ev.ArmSpec(id=ArmId(id), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0) for id in "abc"]
    return [ev.encode(ev.ArmAdded(ts=0.0, arm=spec, source="api")) for spec in specs]


def _folded(task: folding.Task, after: int) -> tuple[int, folding.Folded]:
    """From where on the folding process wanted events, and what it made of those after `after`."""
    chunk, sink = list(enumerate(_events(), 1))[after:], io.BytesIO()
    folding.fold(io.BytesIO(b"".join(map(folding.framed, (task, chunk, [])))), sink)
    sink.seek(0)
    begin = folding.read_frame(sink, folding.Begin)
    return begin.after, folding.read_frame(sink, folding.Folded)


def _kept(directory: Path, name: str, beside: str, upto: int) -> FileSnapshots:
    """A snapshot of the first events, with a policy that the log described."""
    world = new_world({name: policies.load(name)}, name, 10, 10)
    for body in _events()[:upto]:
        apply(world, ev.decode(body))
    policy = policies.load(beside)
    world.learners[f"beside:{beside}"] = Learner(policy, policy.init(), name=beside)
    snapshots = FileSnapshots(directory)
    snapshots.save(Offset(upto), "key", snapshot.dump(world))
    return snapshots


@pytest.mark.parametrize(
    ("name", "beside"), [("epsilon_greedy", "uniform"), ("uniform", "epsilon_greedy")]
)
def test_the_folding_process_then_begins_with_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, beside: str
) -> None:
    """As the start did; else there would be no snapshot, and no erasure, until a clean stop."""
    snapshots = _kept(tmp_path, name, beside, 2)
    monkeypatch.setattr(EpsilonGreedy, "fold", 1, raising=False)
    task = folding.Task(name, {}, "key", 10, 10, str(tmp_path), 3)
    after, folded = _folded(task, 0)
    assert (after, folded.at) == (0, 3)
    found = snapshots.latest("key")
    assert found is not None
    world = snapshot.restore(snapshot.read(found[1]), {name: policies.load(name)}, name)
    assert (found[0], list(world.arms)) == (3, ["a", "b", "c"])


def test_off_policy_estimates_need_nothing_of_what_policies_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _kept(tmp_path, "epsilon_greedy", "epsilon_greedy", 2).latest("key")
    assert found is not None
    monkeypatch.setattr(EpsilonGreedy, "fold", 1, raising=False)
    world = world_of(found)
    assert (list(world.arms), dict(world.learners)) == (["a", "b"], {})


def test_where_the_log_begins_later_it_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _kept(tmp_path, "epsilon_greedy", "uniform", 2)
    monkeypatch.setattr(EpsilonGreedy, "fold", 1, raising=False)
    task = folding.Task("epsilon_greedy", {}, "key", 10, 10, str(tmp_path), 3, first=2)
    with pytest.raises(SystemExit, match=r"begins at 2 and no snapshot reaches it .*of its fold 0"):
        _folded(task, 1)


@pytest.mark.parametrize("name", ["epsilon_greedy", "uniform"])
def test_a_policy_that_begins_fresh_needs_nothing_that_others_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _kept(tmp_path, "epsilon_greedy", "epsilon_greedy", 2)
    monkeypatch.setattr(EpsilonGreedy, "fold", 1, raising=False)
    fresh: dict[str, Any] = {"begin": "fresh", "base_key": "key", "first": 2, "save": False}
    task = folding.Task(name, {}, "other", 10, 10, str(tmp_path), 3, **fresh)
    after, folded = _folded(task, 2)
    assert (after, folded.at) == (2, 3)
    policy = policies.load(name)
    learner = snapshot.load_learner(folded.learner, policy)
    assert codec.dump(learner.state) == codec.dump(policy.init())
