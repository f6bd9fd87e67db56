"""No folded field is forgotten: each is in the digest, in the snapshot, and back from it."""

from __future__ import annotations

from dataclasses import fields

import pytest

import policies
from bandit_service.core import snapshot
from bandit_service.core.world import Learner, Pending, World, new_world

NOT_FOLDED = {
    "serving": "chosen by whoever opens the world; what the log said is `policy`",
    "serving_key": "the same",
    "why_unapplied": "words for the log of the process that met it; `unapplied` counts",
}
CARRIED = [each.name for each in fields(World) if each.name not in NOT_FOLDED]


class _Watched(World):
    """A world that notes which of its fields are read and written."""

    touched: set[str]

    def __getattribute__(self, name: str) -> object:
        if name != "touched":
            object.__getattribute__(self, "__dict__").setdefault("touched", set()).add(name)
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        object.__getattribute__(self, "__dict__").setdefault("touched", set()).add(name)
        object.__setattr__(self, name, value)


def _watched() -> _Watched:
    plain = new_world({"uniform": policies.load("uniform")}, "uniform", 10)
    world = _Watched(**{each.name: getattr(plain, each.name) for each in fields(World)})
    world.touched.clear()
    return world


@pytest.mark.parametrize("name", CARRIED)
def test_each_field_is_in_the_digest_and_in_the_snapshot(name: str) -> None:
    world = _watched()
    world.digest()
    assert name in world.touched, "the digest does not see it"
    world.touched.clear()
    snapshot.dump(world)
    assert name in world.touched, "a snapshot loses it"


def test_each_field_comes_back_from_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _watched()
    kept = snapshot.read(snapshot.dump(made))
    made.touched.clear()
    monkeypatch.setattr(snapshot, "new_world", lambda *_: made)
    snapshot.restore(kept, {"uniform": policies.load("uniform")}, "uniform")
    assert set(CARRIED) <= made.touched


@pytest.mark.parametrize(
    ("record", "kept"), [(Pending, snapshot._Waiting), (Learner, snapshot._Learned)]
)
def test_a_kept_record_has_every_field_of_the_live_one(record: type, kept: type) -> None:
    live = {each.name for each in fields(record)} - {"policy", "queue"}
    assert live <= set(kept.__struct_fields__)  # type: ignore[attr-defined]
