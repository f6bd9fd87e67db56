"""Judges' scores beside people's grades: which pairs there are, and what they come to."""

from __future__ import annotations

from statistics import correlation, mean
from typing import Any

import numpy as np
import pytest

from bandit_service.core import codec, judge_grades
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.judge_grades import Agreement, JudgeGrades, altogether
from bandit_service.core.metric_spec import NamedMetric
from bandit_service.core.outcomes import (
    Reported,
    RewardRule,
    Signals,
    decision_rewarded,
    decision_voted,
)
from bandit_service.core.world import World
from bandit_service.settings.judges import JudgeSpec
from tests.unit.experiments.given import a_world, asked, decided

RULE = RewardRule(willingness_to_pay=0.1)


def _scored(world: World, event: ev.Decided, score: float, basis: str = "00") -> None:
    """As the service does it: the score, and then the quality where it counts."""
    apply(world, ev.Judged(ts=3.0, decision_id=event.id, judge="j", basis=basis, score=score))
    if "quality" not in world.pending.decisions[event.id].signals:
        _told(world, event, quality=score, provisional=True)


def _told(
    world: World, event: ev.Decided, *, correction: bool = False, provisional: bool = False,
    metrics: dict[str, float] | None = None, quality: float | None = None,
) -> None:  # fmt: skip
    signals = Signals(quality=quality, metrics=metrics or {})
    report = Reported(signals, correction=correction, provisional=provisional)
    pending = world.pending.decisions[event.id]
    found = decision_rewarded(pending, event.id, report, RULE, 4.0, named=world.named)
    assert found is not None
    apply(world, ev.decode(ev.encode(found)))


def _voted(world: World, event: ev.Decided, vote: float | None) -> None:
    pending = world.pending.decisions[event.id]
    found = decision_voted(pending, event.id, vote, RULE, 5.0, world.named)
    assert found is not None
    apply(world, found)


def _pairs(world: World, basis: str = "00") -> Agreement:
    return altogether(world.judging.routes("j", basis).values())


def test_figures_and_curve_are_those_of_the_pairs() -> None:
    world, draw = a_world(), np.random.default_rng(3)
    pairs = [(float(draw.choice((0.1, 0.5, 0.52, 0.9))), float(draw.random())) for _ in range(60)]
    for score, grade in pairs:
        event = decided(world, asked())
        _scored(world, event, score)
        _told(world, event, quality=grade)
    found = _pairs(world)
    scores, grades = [score for score, _ in pairs], [grade for _, grade in pairs]
    assert found.pairs == 60
    assert found.mean_difference == pytest.approx(mean(scores) - mean(grades), abs=1e-4)
    apart = mean(abs(score - grade) for score, grade in pairs)
    assert found.mean_absolute_difference == pytest.approx(apart, abs=1e-4)
    assert found.correlation == pytest.approx(correlation(scores, grades), abs=1e-3)
    curve = found.curve()
    assert [at.score for at in curve] == [0.1, 0.5, 0.52, 0.9]
    assert [at.pairs for at in curve] == [scores.count(at.score) for at in curve]
    for at in curve:
        told = mean(grade for score, grade in pairs if score == at.score)
        assert at.grade == pytest.approx(told, abs=1e-4)
    calibrated = [at.calibrated for at in curve]
    assert calibrated == sorted(calibrated)
    assert found.calibrated(0.5) == pytest.approx(calibrated[1])


def test_a_pair_counts_whoever_came_first() -> None:
    world = a_world()
    first, second = decided(world, asked()), decided(world, asked())
    _scored(world, first, 0.8)
    _told(world, first, quality=0.25)
    _told(world, second, quality=0.25)
    _scored(world, second, 0.8)
    assert _pairs(world).pairs == 2
    assert _pairs(world).mean_difference == pytest.approx(0.55)


def test_the_last_grade_counts_and_a_withdrawn_one_leaves_nothing() -> None:
    world = a_world()
    event = decided(world, asked())
    _scored(world, event, 0.8)
    assert _pairs(world) == Agreement()  # nobody has graded it
    _voted(world, event, 1.0)
    _voted(world, event, 0.0)
    assert _pairs(world).pairs == 1
    assert _pairs(world).mean_difference == pytest.approx(0.8)
    _voted(world, event, None)
    assert _pairs(world) == Agreement()
    _voted(world, event, 1.0)
    assert _pairs(world).mean_difference == pytest.approx(-0.2)


def test_another_score_takes_the_place_of_the_first() -> None:
    world = a_world()
    event = decided(world, asked())
    _scored(world, event, 0.8)
    _told(world, event, quality=0.25)
    _scored(world, event, 0.4)
    assert _pairs(world).pairs == 1
    assert _pairs(world).mean_difference == pytest.approx(0.15)


def test_named_metrics_are_grades_and_implicit_signals_are_not() -> None:
    world = a_world()
    named = (NamedMetric(name="solved"), NamedMetric(name="implicit_retry", low=0, high=1))
    apply(world, ev.MetricsChanged(ts=1.0, metrics=named))
    retried, solved, both = (decided(world, asked()) for _ in range(3))
    _told(world, retried, metrics={"implicit_retry": 1.0})
    apply(world, ev.Judged(ts=3.0, decision_id=retried.id, judge="j", basis="00", score=0.8))
    assert _pairs(world).pairs == 0
    _scored(world, solved, 0.8)
    _told(world, solved, metrics={"solved": 1.0})
    _told(world, both, metrics={"solved": 1.0})
    _scored(world, both, 0.8)
    assert _pairs(world).pairs == 2


def test_what_is_said_of_a_session_is_no_grade_of_its_answers() -> None:
    world = a_world()
    before, after = decided(world, asked()), decided(world, asked())
    of_session: dict[str, Any] = {"quality": 0.5, "reward": 0.5, "session": "g"}
    apply(world, ev.Rewarded(ts=3.0, decision_id=before.id, **of_session))
    apply(world, ev.Judged(ts=3.0, decision_id=before.id, judge="j", basis="00", score=0.8))
    _scored(world, after, 0.8)
    apply(world, ev.Rewarded(ts=4.0, decision_id=after.id, correction=True, **of_session))
    assert _pairs(world).pairs == 0


def test_a_judge_with_another_rubric_begins_anew_and_finds_its_pairs_again() -> None:
    rubric = JudgeSpec(id="j", kind="llm", arm="a", rubric="Be brief.")
    other = JudgeSpec(id="j", kind="llm", arm="a", rubric="Be long.")
    assert rubric.basis != other.basis
    assert (
        rubric.basis == JudgeSpec(id="k", kind="llm", arm="a", rubric="Be brief.", share=0.5).basis
    )
    world = a_world()
    for spec, score in ((rubric, 0.8), (other, 0.4), (rubric, 0.6)):
        event = decided(world, asked())
        _scored(world, event, score, spec.basis)
        _told(world, event, quality=0.5)
    assert (_pairs(world, rubric.basis).pairs, _pairs(world, other.basis).pairs) == (2, 1)
    assert world.judging.newest == {"j": rubric.basis}


def test_a_score_is_corrected_from_enough_pairs_on_by_its_route_or_by_all() -> None:
    judging = JudgeGrades(by_judge={"00 j": {"": Agreement(), "bot": Agreement()}})
    for _ in range(10):
        judging.by_judge["00 j"]["bot"].add(8_000, 2_000)
    for _ in range(9):
        judging.by_judge["00 j"][""].add(8_000, 6_000)
    assert judging.calibrated("j", "00", "bot", 0.8, 10) == pytest.approx(0.2)
    altogether_mean = (10 * 0.2 + 9 * 0.6) / 19
    assert judging.calibrated("j", "00", "", 0.8, 10) == pytest.approx(altogether_mean)
    assert judging.calibrated("j", "00", "bot", 0.8, 20) is None
    assert judging.calibrated("j", "01", "bot", 0.8, 1) is None


def test_a_decision_that_left_or_is_forgotten_is_waited_for_no_more() -> None:
    world = a_world()
    gone, forgotten, kept = (decided(world, asked(unit)) for unit in ("a", "b", "c"))
    for event in (gone, forgotten, kept):
        _scored(world, event, 0.8)
    apply(world, ev.DecisionsExpired(ts=9.0, ids=(gone.id,)))
    apply(world, ev.Forgotten(ts=9.0, owner=ev.owner_of("", "b")))
    assert list(world.judging.scored) == [kept.id]


def test_what_is_kept_is_bounded_and_no_pair_leaves_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_grades, "MAX_JUDGES", 2)
    world = a_world()
    events = [decided(world, asked()) for _ in range(4)]
    for event, basis in zip(events, ("00", "01", "02", "00"), strict=True):
        _scored(world, event, 0.8, basis)
        _voted(world, event, 1.0)
    assert sorted(world.judging.by_judge) == ["00 j", "02 j"]
    _voted(world, events[0], None)  # its pair went with the first 00
    assert _pairs(world, "00").pairs == 1


def test_a_log_without_scores_is_written_as_before_and_one_with_them_is_read_again() -> None:
    world = a_world()
    event = decided(world, asked())
    _told(world, event, quality=0.5, provisional=True)
    assert b"judging" not in codec.dump(world)
    scored = decided(world, asked())
    _scored(world, scored, 0.8)
    _told(world, scored, quality=0.5)
    again = codec.load(codec.dump(world.judging), JudgeGrades)
    assert again == world.judging
