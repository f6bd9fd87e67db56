"""What a candidate sees of a log, and which decisions say something of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bandit_service.core import events as ev
from bandit_service.core.experiments.spec import HOLDOUT, Experiment, Variant
from bandit_service.core.exploration import Exploration
from bandit_service.offline.candidates import Candidate
from bandit_service.offline.offpolicy.fold import LEFT_OUT, Asked, along
from bandit_service.offline.offpolicy.report import How, report, shown
from policies import ArmId
from tests.unit.offpolicy.logs import EVEN, catalogue, decision, reward, uniform_log

UNIFORM = Candidate(name="uniform")
GREEDY = Candidate(name="epsilon_greedy", parameters={"epsilon": 0.0})


def asked(*candidates: Candidate, **more: Any) -> Asked:
    return Asked(candidates=candidates or (UNIFORM,), **more)


def test_a_policy_like_the_logged_one_has_weights_of_one_and_earns_the_same() -> None:
    found = report(along(uniform_log(300), asked()), How())
    (one,) = found["policies"]
    assert one["state"] == "shown"
    assert one["overlap"]["effective_size"] == pytest.approx(300)
    assert one["overlap"]["mean_weight"] == pytest.approx(1.0)
    for name in ("ips", "snips", "clipped_ips"):
        assert one["estimates"][name]["value"] == pytest.approx(found["log"]["value"]["value"])
    assert one["beside_log"]["difference"] == pytest.approx(0.0, abs=1e-12)
    assert "effective size 300" in shown(found)


def test_a_candidate_knows_at_each_decision_only_what_came_before_it() -> None:
    events = [
        *catalogue(),
        decision(1, 2), decision(2), reward(2, 0.9), decision(3), reward(1, 0.95), decision(4),
    ]  # fmt: skip
    greedy = along(events, asked(GREEDY, explore=Exploration(share=0.0)))
    rows = [row.proposals[0].round(6).tolist() for row in greedy._rows.values()]
    third = [round(1 / 3, 6)] * 3
    # untried arms are explored first: b and c while only a is known, then b alone
    assert rows[0] == third
    assert rows[1] == third
    assert rows[2] != third
    assert rows[2][0] == 0.0
    assert rows[3] == [0.0, 1.0, 0.0]


def test_after_drift_a_candidate_forgets_and_explores_as_the_service_does() -> None:
    drift = ev.DriftDetected(
        ts=3.5,
        detector="adwin",
        direction="down",
        before=0.8,
        after=0.2,
        arm=ArmId("c"),
        keep=0.0,
        explore=0.25,
        decisions=1,
    )
    learned = [decision(i, i) for i in range(3)], [reward(i, [0.2, 0.5, 0.6][i]) for i in range(3)]
    events = [*catalogue(), *learned[0], *learned[1], decision(3, 2), drift, decision(4, 2),
              decision(5, 0)]  # fmt: skip
    rows = along(events, asked(GREEDY, explore=Exploration(share=0.0)))._rows
    assert rows["d3"].proposals[0].tolist() == [0.0, 0.0, 1.0]
    assert rows["d4"].proposals[0].min() == 0.0
    assert rows["d4"].proposals[0][2] >= 0.25
    without = along(
        [each for each in events if each is not drift],
        asked(GREEDY, explore=Exploration(share=0.0)),
    )
    assert without._rows["d4"].proposals[0].tolist() == [0.0, 0.0, 1.0]


def test_a_correction_takes_the_place_of_what_was_reported_and_late_rewards_count() -> None:
    events = [
        *catalogue(),
        decision(1), decision(2), decision(3), decision(4), decision(5),
        reward(1, 0.9), reward(1, 0.1, correction=True),
        ev.Rewarded(ts=9.0, decision_id="d2", cost_usd=0.5),
        ev.DecisionsExpired(ts=10.0, ids=("d3", "d1"), default_reward=-0.5),
        reward(4, 0.4), ev.DecisionsExpired(ts=11.0, ids=("d4", "d5")),
    ]  # fmt: skip
    found = along(events, asked())
    assert found.sample().value.tolist() == [0.1, -0.5, 0.4]
    said = report(found, How())["log"]
    assert (said["used"], said["without_outcome"], said["by_default"]) == (3, 2, 1)
    assert along(events, asked(metric="cost_usd")).sample().value.tolist() == [0.5]
    assert along(events, asked(metric="quality")).sample().value.tolist() == [0.1, 0.4]


def test_decisions_that_say_nothing_of_another_policy_are_left_out_and_counted() -> None:
    sure = (1.0, 0.0, 0.0)
    events = [
        *catalogue(),
        decision(1),
        decision(2, duel_of="d1"),
        decision(3, p=(1.0,)),
        decision(4, stayed=True, p=(0.98, 0.01, 0.01)),
        decision(5, p=sure, policy="fixed", key="", experiment="x", variant="today"),
        decision(6, p=sure, policy="fixed", key="", experiment=HOLDOUT, variant=HOLDOUT),
        decision(7, experiment="x", variant="new", split=0.0),
        decision(8, arms=(ArmId("a"), ArmId("gone")), propensities=(0.5, 0.5), scores=(0.0, 0.0)),
        decision(9, tenant="t", unit="u"),
        decision(10, fallback="embed: TimeoutError"),
        decision(13, route="bot"),
        decision(12),
        ev.Redirected(ts=12.5, decision_id="d12", model="another"),
        decision(11, stayed=True, conversation="talk", before=ArmId("a")),
        ev.Forgotten(ts=11.0, owner=ev.owner_of("t", "u")),
        *[reward(i, 0.5) for i in range(1, 12)],
    ]
    found = along(events, asked())
    assert found.sample().value.tolist() == [0.5, 0.5, 0.5]
    left_out = report(found, How())["log"]["left_out"]
    expected = {why: 1 for why in LEFT_OUT if why != "older"}
    expected["fixed"] = 2
    assert left_out == {LEFT_OUT[why]: count for why, count in expected.items()}
    assert found.fallbacks == 1
    assert "1 were decided by a fallback" in shown(report(found, How()))


def test_a_window_an_experiment_and_the_newest_bound_what_is_evaluated() -> None:
    events: list[ev.AnyEvent] = catalogue()
    for i in range(20):
        more: dict[str, Any] = {"experiment": "x", "variant": "new"} if i % 2 else {}
        events += [decision(i, i % 3, **more), reward(i, i / 100)]

    def values(**more: Any) -> list[float]:
        return [round(100 * each) for each in along(events, asked(**more)).sample().value]

    assert values(since=5.0, until=9.0) == [5, 6, 7, 8]
    assert values(experiment="x", since=14.0) == [15, 17, 19]
    assert values(experiment="other") == []
    assert values(most=3) == [17, 18, 19]
    assert along(events, asked(most=3)).left_out["older"] == 17


def test_a_frozen_policy_learns_nothing_of_what_it_is_judged_by() -> None:
    events: list[ev.AnyEvent] = catalogue()
    for i in range(30):
        # arm a pays at first, and c from the tenth decision on
        events += [decision(i, i % 3), reward(i, [0.5, 0.1, 0.2 if i < 10 else 1.0][i % 3])]
    moving = along(events, asked(GREEDY, explore=Exploration(share=0.0), since=10.0)).sample()
    frozen = along(
        events, asked(GREEDY, explore=Exploration(share=0.0), since=10.0, frozen=True)
    ).sample()
    assert len(moving.value) == len(frozen.value) == 20
    assert frozen.targets[0].tolist() == [[1.0, 0.0, 0.0]] * 20
    assert moving.targets[0][-1].tolist() == [0.0, 0.0, 1.0]
    half = along(
        events, asked(GREEDY, explore=Exploration(share=0.0), frozen=True, frozen_at=33)
    ).sample()
    assert len(half.value) == 15
    assert len({tuple(row) for row in half.targets[0].tolist()}) == 1


def test_what_experiments_are_and_what_was_erased_does_not_stop_the_fold() -> None:
    variants = (Variant(key="old", weight=0.5), Variant(key="new", weight=0.5, policy="knn"))
    experiment = ev.ExperimentChanged(
        ts=0.0, experiment=Experiment(id="x", variants=variants), status="running"
    )
    seeded = ev.VariantSeeded(
        ts=0.0, experiment="x", variant="new", policy="knn", parameters=b"{}", upto=4
    )
    events = [experiment, seeded, None, *uniform_log(30)]
    found = along(events, asked())
    assert len(found.sample().value) == 30
    assert found.world.events == len(events)


def test_a_log_without_exploration_is_refused_and_says_why() -> None:
    events: list[ev.AnyEvent] = catalogue()
    for i in range(300):
        events += [decision(i, p=(1.0, 0.0, 0.0)), reward(i, 0.5)]
    found = report(along(events, asked()), How())
    (one,) = found["policies"]
    assert one["state"] == "refused"
    assert "66.67% of its probability to arms that the log never could take" in one["why"]
    assert "estimates" not in one
    assert "no estimate: the policy gives 66.67%" in shown(found)
    anyway = report(along(events, asked()), How(anyway=True))["policies"][0]
    assert anyway["state"] == "refused"
    assert anyway["estimates"]["snips"]["value"] == pytest.approx(0.5)


def test_no_decision_is_not_enough_data_and_not_a_zero() -> None:
    found = report(along(catalogue(), asked()), How())
    assert found["policies"][0]["state"] == "not enough data"
    assert found["log"]["value"] is None
    assert "not enough data" in shown(found)


def test_a_policy_that_fails_is_uniform_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from policies.metallm import MetaLLM

    def fail(*_: object) -> None:
        raise ArithmeticError

    monkeypatch.setattr(MetaLLM, "propose", fail)
    found = along(uniform_log(10), asked(Candidate(name="metallm")))
    assert found.failed == [10]
    assert found.sample().targets[0] == pytest.approx(np.full((10, 3), 1 / 3))
    assert "failed on 10 decisions" in shown(report(found, How()))


def test_answers_of_one_unit_widen_the_intervals() -> None:
    def stderr(units: int) -> float:
        events: list[ev.AnyEvent] = catalogue()
        for i in range(400):
            unit = i % units
            events += [decision(i, i % 3, EVEN, unit=f"u{unit}"), reward(i, 0.9 * (unit % 2))]
        found = report(along(events, asked()), How())
        assert found["log"]["units"] == units
        return float(found["policies"][0]["estimates"]["snips"]["stderr"])

    assert stderr(20) > 4.0 * stderr(400)


def _greedy_log(n: int, least: float) -> list[ev.AnyEvent]:
    """Arm a nearly always, b and c with `least` each, drawn as often as that says."""
    rng, p = np.random.default_rng(5), (1.0 - 2 * least, least, least)
    events: list[ev.AnyEvent] = catalogue()
    for i in range(n):
        drawn = int(rng.choice(3, p=p))
        events += [decision(i, drawn, p), reward(i, [0.5, 0.4, 0.6][drawn])]
    return events


def test_doubly_robust_estimates_want_a_hundred_explored_outcomes_per_arm() -> None:
    """n·ε/K = 0.05·n: 75 of 1,500 are too few by 500, 100 of 2,000 are enough."""
    logged = Candidate(name="fixed", parameters={"arm": "a"})
    few = report(along(_greedy_log(1500, 0.05), asked(logged)), How())
    assert few["exploration"] == {
        "share": pytest.approx(0.15),
        "per_arm": pytest.approx(75.0),
        "floor": "2 % in all",
    }
    (one,) = few["policies"]
    assert one["state"] == "shown"
    assert one["overlap"]["effective_size"] > 1000
    assert one["overlap"]["explored_per_arm"] == pytest.approx(75.0)
    assert one["doubly_robust"]["state"] == "refused"
    assert one["doubly_robust"]["decisions_needed"] == 500
    assert "n·ε/K = 75 outcomes of each arm, fewer than 100" in one["doubly_robust"]["why"]
    assert "it takes 500 more decisions" in one["doubly_robust"]["why"]
    assert set(one["estimates"]) == {"ips", "clipped_ips", "snips", "dm"}
    assert one["sequence"] is not None
    told = shown(few)
    assert "the log explores 15.00%: n·ε/K is 75; the policies' floor is 2 % in all" in told
    assert "no doubly robust estimate: exploration brought" in told
    assert "DRos" not in told
    anyway = report(along(_greedy_log(1500, 0.05), asked(logged)), How(anyway=True))
    assert anyway["policies"][0]["doubly_robust"]["state"] == "refused"
    assert {"dr", "sndr", "switch_dr", "shrunk_dr"} < set(anyway["policies"][0]["estimates"])
    (enough,) = report(along(_greedy_log(2000, 0.05), asked(logged)), How())["policies"]
    assert enough["doubly_robust"] == {"state": "shown", "why": None, "decisions_needed": 0}
    assert {"dr", "sndr", "switch_dr", "shrunk_dr"} < set(enough["estimates"])


def test_a_log_that_never_explores_can_wait_for_ever() -> None:
    always = Candidate(name="fixed", parameters={"arm": "a"})
    past = along(_greedy_log(300, 0.0), asked(always, explore=Exploration(share=0.0)))
    (one,) = report(past, How())["policies"]
    assert one["state"] == "shown"  # it does what the log did
    assert one["estimates"]["snips"]["value"] == pytest.approx(0.5)
    assert one["doubly_robust"]["state"] == "refused"
    assert one["doubly_robust"]["decisions_needed"] is None
    assert "more decisions like these do not help" in one["doubly_robust"]["why"]
