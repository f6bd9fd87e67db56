"""The fold of a log to figures by period: sums by hand, corrections, bounds, and the same money."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.core import events as ev
from bandit_service.core.errors import Refused
from bandit_service.offline.history import fold
from bandit_service.offline.history.asked import asked_of
from bandit_service.offline.history.fold import Asked, Figures, HistoryFold
from policies import ArmId
from tests.unit.test_live import decided

HOUR = 3600.0
DAY = 86_400.0


def _decided(id: str, ts: float, **more: Any) -> ev.Decided:
    return decided(id, ts, **more)


def _reward(id: str, ts: float = 9e9, **signals: object) -> ev.Rewarded:
    return ev.Rewarded(ts=ts, decision_id=id, **signals)  # type: ignore[arg-type]


def _asked(by: str = "arm", per: str = "day", **more: object) -> Asked:
    return Asked(**({"per": per, "by": by, "since": 0.0, "until": 1e10} | more))  # type: ignore[arg-type]


def _folded(events: Sequence[ev.AnyEvent | None], asked: Asked) -> fold.History:
    along = HistoryFold(asked)
    for event in events:
        along.take(event)
    return along.history()


def test_sums_by_hand() -> None:
    events = [
        _decided("a", DAY, drawn=0, tags=("x", "y")),
        _decided("b", DAY + 10, drawn=1, tags=("x",)),
        None,
        _decided("c", 2 * DAY, drawn=0),
        _reward("a", quality=1.0, cost_usd=0.5, reward=0.75),
        _reward("b", cost_usd=0.25),
        # an outcome counts on the day of its decision; a correction in the place of what was said
        _reward("a", quality=0.5, reward=0.25, correction=True),
        _reward("nobody", quality=1.0),
        ev.Spent(ts=9e9, decision_id="c", usd=0.125),
        ev.Spent(ts=9e9, decision_id="a", usd=0.0625, judge="grader"),
    ]
    first, second = _folded(events, _asked()).periods
    assert (first.name, second.name) == ("1970-01-02", "1970-01-03")
    assert first.total == Figures(
        decisions=2, rewarded=1, mean_reward=0.25, rated=1, mean_quality=0.5, spent_usd=0.8125
    )
    arms = sorted(first.groups)
    assert len(arms) == 2
    assert {first.groups[arm].spent_usd for arm in arms} == {0.5625, 0.25}
    assert second.total.spent_usd == 0.125
    assert _folded(events, _asked()).uncounted == 1
    assert _folded(events, _asked(tenant="acme")).uncounted == 0, "it may be another tenant's"
    tags = _folded(events, _asked("tag")).periods
    assert {name: of.decisions for name, of in tags[0].groups.items()} == {"x": 2, "y": 1}
    assert tags[0].total.decisions == 2
    assert {name: of.decisions for name, of in tags[1].groups.items()} == {"none": 1}
    routes = _folded(events, _asked("route")).periods
    assert set(routes[0].groups) == {"auto"}


def test_a_reported_cost_takes_the_place_of_the_estimate_in_any_order() -> None:
    spent = ev.Spent(ts=DAY, decision_id="a", usd=0.5)
    both: list[ev.AnyEvent] = [spent, _reward("a", cost_usd=0.25)]
    for events in (both, both[::-1]):
        found = _folded([_decided("a", DAY), *events], _asked())
        assert found.periods[0].total.spent_usd == 0.25


def test_what_is_revoked_counts_no_more() -> None:
    events: list[ev.AnyEvent] = [
        _decided("a", DAY),
        _reward("a", quality=1.0, reward=0.75),
        _reward("a", quality=0.6, reward=0.35, revoked=("quality",), correction=True),
    ]
    total = _folded(events, _asked()).periods[0].total
    assert (total.rated, total.rewarded, total.mean_quality) == (0, 0, None)
    again = _folded([*events, _reward("a", quality=0.5, reward=0.25)], _asked()).periods[0].total
    assert (again.mean_quality, again.mean_reward) == (0.5, 0.25)


def test_only_the_time_and_the_tenant_that_are_asked_for() -> None:
    events: list[ev.AnyEvent] = [
        _decided("a", DAY, tenant="acme"),
        _decided("b", DAY, tenant="other"),
        _decided("c", 5 * DAY, tenant="acme"),
        _reward("a", cost_usd=1.0),
        _reward("b", cost_usd=2.0),
        _reward("c", cost_usd=4.0),
        ev.Spent(ts=DAY, usd=8.0, tenant="acme"),
        ev.Spent(ts=DAY, usd=16.0, tenant="other"),
        ev.Spent(ts=DAY, decision_id="b", usd=32.0, judge="grader", tenant="other"),
    ]
    found = _folded(events, _asked("tenant", tenant="acme", until=3 * DAY))
    assert [sorted(one.groups) for one in found.periods] == [["acme"]]
    assert found.periods[0].total.spent_usd == 9.0
    assert found.uncounted == 0
    every = _folded(events, _asked("tenant")).periods[0]
    assert {name: of.spent_usd for name, of in every.groups.items()} == {"acme": 9.0, "other": 50.0}


def test_groups_beyond_those_told_apart_are_others() -> None:
    events: list[ev.AnyEvent] = []
    for i in range(6):
        events += [_decided(f"d{i}", DAY, tags=(f"t{i}",)), _reward(f"d{i}", cost_usd=float(i))]
    # one that is named so takes no other's place
    events += [_decided("o", DAY, tags=("others",)), _reward("o", cost_usd=100.0)]
    groups = _folded(events, _asked("tag", most=2)).periods[0].groups
    assert {name: of.spent_usd for name, of in groups.items()} == {
        "t5": 5.0,
        "t4": 4.0,
        "others": 106.0,
    }


def test_old_decisions_are_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold, "MAX_DECISIONS", 3)
    along = HistoryFold(_asked())
    for i in range(5):
        along.take(_decided(f"d{i}", DAY))
    along.take(_reward("d0", cost_usd=1.0))
    along.take(_reward("d4", cost_usd=2.0))
    assert len(along._known) == 3
    assert along.history().uncounted == 1
    assert along.history().periods[0].total.decisions == 5
    assert along.history().periods[0].total.spent_usd == 2.0


def test_an_answer_of_elsewhere_counts_by_its_arm_and_a_warm_start_does_not() -> None:
    subject = ev.Subject(embedding=b"", tokens=1, willingness_to_pay=0.1, tenant="acme")
    events = [
        ev.Rewarded(ts=DAY, subject=subject, arm=ArmId("alpha"), quality=1.0, cost_usd=0.5),
        ev.Rewarded(ts=DAY, subject=subject, arm=ArmId("alpha"), quality=0.0, prior=True),
    ]
    period = _folded(events, _asked()).periods[0]
    assert period.groups["alpha"].mean_quality == 1.0
    assert period.total.decisions == 0
    assert set(_folded(events, _asked("tenant")).periods[0].groups) == {"acme"}


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 4 * DAY), st.floats(0, 1)), max_size=30))
def test_no_money_is_lost_or_made_by_any_grouping(given: list[tuple[int, float, float]]) -> None:
    events: list[ev.AnyEvent] = [_decided(f"d{i}", i * DAY, drawn=i % 2) for i in range(5)]
    costs: dict[str, float] = {}
    judges = 0.0
    for i, (which, ts, usd) in enumerate(given):
        id = f"d{which}"
        if i % 3 == 0:
            events.append(ev.Spent(ts=ts, decision_id=id, usd=usd, judge="j"))
            judges += usd
        else:
            costs[id] = usd
            events.append(_reward(id, cost_usd=usd, correction=True))
    for per in fold.PERIODS:
        for by in fold.GROUPS:
            found = _folded(events, _asked(by, per))
            total = sum(one.total.spent_usd for one in found.periods)
            assert total == pytest.approx(sum(costs.values()) + judges)
            assert sum(one.total.decisions for one in found.periods) == 5
            for one in found.periods:
                parts = sum(of.spent_usd for of in one.groups.values())
                assert parts == pytest.approx(one.total.spent_usd)


@pytest.mark.parametrize(
    ("query", "param", "said"),
    [
        ({"per": "days"}, "per", "did you mean day?"),
        ({"by": "model"}, "by", "must be one of arm, route"),
        ({"since": "5", "until": "5"}, "since", "must be before until"),
        ({"since": "0", "until": "9e9", "per": "hour"}, "since", "at most 1000 periods"),
        ({"since": "yesterday"}, "since", "must be a number"),
        ({"until": "nan"}, "until", "must be a number"),
        ({"until": "1e300"}, "until", "must be a number"),
        ({"groups": "0"}, "groups", "whole number from 1 to 100"),
        ({"groups": "2.5"}, "groups", "whole number from 1 to 100"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(
    query: dict[str, str], param: str, said: str
) -> None:
    with pytest.raises(Refused, match=said.replace("?", r"\?")) as refused:
        asked_of(query, 1.7e9)
    assert refused.value.param == param


def test_what_is_left_out_has_a_default() -> None:
    assert asked_of({}, 1.7e9) == Asked(
        per="day", by="arm", since=1.7e9 - 31 * DAY, until=1.7e9, tenant=None, most=20
    )
