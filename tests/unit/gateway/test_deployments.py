"""The order of an arm's deployments, by hand."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from bandit_service.core import events as ev
from bandit_service.core.events import ArmSpec, Deployment
from bandit_service.gateway import deployments
from bandit_service.gateway.deployments import key_of, next_of, served, targets_of
from bandit_service.gateway.health import Health
from policies import ArmId

SPEC = ArmSpec(
    id=ArmId("m"),
    usd_per_mtok_in=1.0,
    usd_per_mtok_out=2.0,
    deployments=(
        Deployment(upstream="a", weight=3.0),
        Deployment(upstream="b"),
        Deployment(upstream="c", priority=2),
        Deployment(upstream="d", priority=1, max_running=1),
    ),
)


def _order(health: Health, id: str = "x", last: str = "", now: float = 0.0) -> list[str]:
    """As they are asked one after another, if each of them fails and nothing else happens."""
    order: list[str] = []
    while True:
        tried, targets = [key_of("m", each) for each in order], served(SPEC, health)
        target = next_of(targets, health, now, 0, id, last, tried)
        if target is None:
            return order
        order.append(target.deployment)


def _failed(health: Health, name: str, now: float = 0.0, retry_after_s: float = 0.0) -> None:
    health.begun(key_of("m", name))
    health.failed(key_of("m", name), now, retry_after_s)


def test_an_arm_without_deployments_is_its_own_and_only_target() -> None:
    spec = msgspec.structs.replace(SPEC, deployments=(), upstream="a")
    assert targets_of(spec) == [deployments.Target(spec, "m")]
    assert served(spec, Health(upstreams=())) == targets_of(spec)
    assert next_of(targets_of(spec), Health(), 0.0, 0, "x") == targets_of(spec)[0]


def test_priority_goes_first_and_weight_within_it() -> None:
    orders = [_order(Health(), f"decision {i}") for i in range(4000)]
    assert {tuple(order[2:]) for order in orders} == {("d", "c")}
    first = Counter(order[0] for order in orders)
    assert first["a"] + first["b"] == 4000
    assert first["a"] == pytest.approx(3000, abs=6 * (4000 * 0.75 * 0.25) ** 0.5)


def test_the_decision_alone_says_which() -> None:
    assert _order(Health(), "x") == _order(Health(), "x")
    assert len({tuple(_order(Health(), f"{i}")) for i in range(50)}) == 2


def test_what_is_masked_is_tried_only_where_nothing_else_is_there() -> None:
    health = Health(failures=1, cool_s=5.0)
    _failed(health, "a")
    assert _order(health) == ["b", "d", "c"]
    assert sorted(_order(health, now=5.0)[:2]) == ["a", "b"], "it is due for a probe"
    for name in "bcd":
        _failed(health, name)
    assert not deployments.available(SPEC, health, 1.0)
    assert deployments.state(SPEC, health, 1.0) == "open"
    assert len(_order(health)) == 1, (
        "a masked one is asked if none else is there, and then no other"
    )
    assert _order(health)[0] in ("a", "b")
    assert deployments.state(SPEC, health, 5.0) == "half open"


def test_one_that_asks_for_time_gets_it_before_the_breaker_opens() -> None:
    health = Health(failures=3)
    _failed(health, "a", retry_after_s=7.0)
    assert "a" not in _order(health, now=6.9)
    assert "a" in _order(health, now=7.0)


def test_the_conversations_deployment_goes_first_while_it_answers() -> None:
    health = Health(failures=1)
    assert _order(health, last="c")[0] == "c"
    _failed(health, "c")
    assert "c" not in _order(health, last="c")
    assert _order(health, last="gone") == _order(health)


def test_a_full_one_is_passed_by_and_the_arm_is_full_where_all_are() -> None:
    health = Health()
    health.begun(key_of("m", "d"))
    assert _order(health)[2:] == ["c"]
    assert not deployments.full(SPEC, health)
    narrow = msgspec.structs.replace(SPEC, deployments=SPEC.deployments[3:])
    assert deployments.full(narrow, health)


def test_an_upstream_that_is_not_configured_is_left_out() -> None:
    assert [each.deployment for each in served(SPEC, Health(upstreams=("c",)))] == ["c"]
    assert next_of((), Health(), 0.0, 0, "x") is None


def test_an_upstream_that_is_not_configured_keeps_no_arm_well_and_none_free() -> None:
    health = Health(failures=1, upstreams=("d",))
    assert deployments.available(SPEC, health, 0.0)
    assert [each.deployment for each in deployments.unserved([SPEC], health)] == ["a", "b", "c"]
    health.begun(key_of("m", "d"))
    assert deployments.full(SPEC, health)
    health.failed(key_of("m", "d"), 0.0)
    assert not deployments.available(SPEC, health, 1.0)
    assert deployments.state(SPEC, health, 1.0) == "open"
    assert deployments.state(SPEC, health, 5.0) == "half open"


def test_where_only_some_may_be_called_they_alone_say_whether_the_arm_answers() -> None:
    health = Health(failures=1)
    for name in "ab":
        _failed(health, name)
    assert deployments.available(SPEC, health, 1.0)
    assert not deployments.available(SPEC, health, 1.0, ("a", "b"))
    assert {each.deployment for each in served(SPEC, health, ("a", "b"))} == {"a", "b"}
    health.begun(key_of("m", "d"))
    assert deployments.full(SPEC, health, ("d",))
    assert not deployments.full(SPEC, health, ("c", "d"))
    named = served(SPEC, health, ("elsewhere",))
    assert len(named) == 4, "a client names it, though nobody there signed"


def test_records_of_before_are_written_as_they_were() -> None:
    plain = ArmSpec(id=ArmId("m"), usd_per_mtok_in=1.0, usd_per_mtok_out=2.0)
    assert set(msgspec.to_builtins(plain)) == {"id", "usd_per_mtok_in", "usd_per_mtok_out"}
    rewarded = ev.encode(ev.Rewarded(ts=1.0, decision_id="d", quality=1.0))
    assert "deployment" not in msgspec.msgpack.decode(rewarded)
