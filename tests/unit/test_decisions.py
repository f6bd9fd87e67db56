"""Pending decisions that come from a snapshot stay in their encoding until they are asked for."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.decisions import Decisions
from bandit_service.core.resolved import Pending
from bandit_service.runtime.pending_decisions import PendingDecisions
from policies import ArmId


def _pending(id: str, unit: str = "") -> Pending:
    decided = ev.Decided(
        ts=1.0,
        id=id,
        embedding=bytes(16),
        tokens=1,
        willingness_to_pay=0.1,
        arms=(ArmId("a"), ArmId("b")),
        propensities=(0.5, 0.5),
        scores=(0.0, 1.0),
        drawn=1,
        policy="uniform",
        key="k",
        list_cost_usd=0.1,
        expected_cost_usd=0.1,
        price=0.1,
        tenant="t",
        unit=unit,
    )
    return Pending(decided, {"quality": 0.5}, {"key": "digest"}, compared={"a": (1.0, False)})


def _kept() -> Decisions:
    made = Decisions((id, _pending(id, unit)) for id, unit in (("x", "u"), ("y", ""), ("z", "u")))
    return codec.load(codec.dump(made), Decisions)


def _alive(most_few: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether what decisions came from lives on with them."""
    monkeypatch.setattr("bandit_service.core.decisions._FEW", most_few)

    class _Bytes(bytearray):
        """Which can be looked after."""

    dumped = _Bytes(codec.dump(Decisions([("x", _pending("x")), ("y", _pending("y"))])))
    watched = weakref.ref(dumped)
    kept = Decisions.unfolded(msgspec.msgpack.decode(dumped, type=dict[str, msgspec.Raw]))
    del dumped
    lives = watched() is not None
    assert kept["x"] == _pending("x")
    kept.clear()
    assert watched() is None
    return lives


def test_many_are_views_of_the_snapshot_and_a_few_are_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not _alive(3, monkeypatch)
    assert _alive(2, monkeypatch)


def _encoded(decisions: Decisions) -> list[str]:
    return [id for id, one in decisions._kept.items() if isinstance(one, msgspec.Raw)]


def test_one_is_decoded_when_it_is_asked_for_and_then_it_is_itself() -> None:
    kept = _kept()
    assert _encoded(kept) == list(kept) == ["x", "y", "z"]
    found = kept["y"]
    assert found == _pending("y")
    assert kept.get("y") is found
    assert _encoded(kept) == ["x", "z"]
    other = kept.get("x")
    assert other == _pending("x", "u")
    assert kept["x"] is other
    assert (_encoded(kept), kept.get("gone", "none")) == (["z"], "none")


def test_a_change_of_one_is_in_the_next_dump_and_the_others_are_as_they_were() -> None:
    kept, other = _kept(), _kept()
    assert codec.dump(kept) == codec.dump(other)
    kept["y"].signals["quality"] = 1.0
    changed = codec.load(codec.dump(kept), Decisions)
    assert [changed[id].signals["quality"] for id in changed] == [0.5, 1.0, 0.5]
    for id in other:
        assert other[id].settled is False
    assert codec.dump(other) == codec.dump(_kept()), "to look at one changes nothing"


def test_whose_they_are_is_told_without_keeping_what_was_decoded() -> None:
    kept, owner = _kept(), ev.owner_of("t", "u")
    assert kept.of_owner(owner) == ["x", "z"]
    assert _encoded(kept) == ["x", "y", "z"]
    assert kept["x"].decided.unit == "u"
    assert kept.of_owner(owner) == ["x", "z"]


def test_it_is_a_mapping_oldest_first() -> None:
    kept = _kept()
    kept["w"] = _pending("w")
    assert [one.decided.id for one in kept.newest(2)] == ["w", "z"]
    del kept["x"]
    assert list(kept) == ["y", "z", "w"]
    assert ("x" in kept, "y" in kept, len(kept)) == (False, True, 3)
    assert kept.get("x") is None
    with pytest.raises(KeyError):
        kept["x"]


def test_a_bound_that_became_much_lower_drops_a_part_in_each_event() -> None:
    """The last ones are dropped by the sweep, so `bound` tells whether there are more."""
    there = {f"d{i:04}": None for i in range(2500)}
    sizes = []

    def expired(event: ev.DecisionsExpired) -> bool:
        sizes.append(len(event.ids))
        for id in event.ids:
            del there[id]
        return True

    world = SimpleNamespace(pending=SimpleNamespace(decisions=there))
    writer: Any = SimpleNamespace(world=world, now=lambda: 1.0, append_now=expired)
    rules: Any = SimpleNamespace(max_pending=100)
    pending = PendingDecisions(writer, rules)
    assert [pending.bound() for _ in range(4)] == [True, True, False, False]
    assert sizes == [1000, 1000, 400]
    assert next(iter(there)) == "d2400"


def test_what_pending_decisions_share_stays_empty() -> None:
    one = Pending(_pending("x").decided)
    with pytest.raises(TypeError, match="shared"):
        one.learned["reward"] = 1.0
    assert Pending(_pending("y").decided).learned == {}
    assert codec.load(codec.dump(one), Pending) == one
