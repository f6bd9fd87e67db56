"""Estimates beside the exact truth, where every model's outcome is recorded."""

from __future__ import annotations

import numpy as np
import pytest

from bandit_service.core.exploration import Exploration
from bandit_service.data.logged import hashed
from bandit_service.data.recordings import PARETOBANDIT, Recorded, open_recording
from bandit_service.offline.candidates import parsed
from bandit_service.offline.offpolicy.fold import Asked, along
from loadtest.ope_study import Judged, judged, logged, table
from policies import Vector
from tests.tools import needed

CANDIDATES = ("uniform", "epsilon_greedy:epsilon=0.3", "metallm")


@pytest.fixture(scope="module")
def recording() -> tuple[Recorded, Vector]:
    """Real queries, as hashed bags of words."""
    needed("pareto_bandit")
    recorded = open_recording(PARETOBANDIT).first(900)
    words = [[(word, 1.0) for word in text.split()] for text in recorded.texts]
    return recorded, np.stack([hashed(bag, 32) for bag in words])


def judge(recording: tuple[Recorded, Vector], policy: str, explore: Exploration) -> list[Judged]:
    return list(judged(*recording, (policy, explore), CANDIDATES, seed=1, rounds=400))


@pytest.mark.parametrize("policy", ["uniform", "epsilon_greedy:epsilon=0.5"])
def test_a_log_that_explores_is_estimated_within_its_intervals(
    recording: tuple[Recorded, Vector], policy: str
) -> None:
    for one in judge(recording, policy, Exploration()):
        assert one.refused == "", one.candidate
        for name in ("snips", "dr", "sndr"):
            value, low, high = one.estimates[name]
            assert abs(value - one.truth) < high - low, (one.candidate, name)
            assert abs(value - one.truth) < 0.03
        assert one.sequence[0] <= one.truth <= one.sequence[1]


@pytest.mark.parametrize("policy", ["metallm", "knn", "eagle", "epsilon_greedy:epsilon=0.2"])
def test_the_policy_that_decided_is_found_to_have_done_what_it_did(
    recording: tuple[Recorded, Vector], policy: str
) -> None:
    recorded, vectors = recording
    events = logged(recorded.first(300), vectors[:300], policy, Exploration(), seed=2)
    sample = along(events, Asked(candidates=(parsed(policy),))).sample()
    assert len(sample.value) == 300
    assert sample.behaviour is not None
    assert np.array_equal(sample.targets[0], sample.behaviour)


def test_a_log_that_hardly_explores_is_refused(recording: tuple[Recorded, Vector]) -> None:
    found = judge(recording, "metallm", Exploration(share=0.0015))
    by_name = {one.candidate: one for one in found}
    assert (
        "of the weight" in by_name["uniform"].refused or "effective" in by_name["uniform"].refused
    )
    assert by_name["metallm"].ess > 300
    # the sequence tells the truth all the same: it says that it knows little
    uniform = by_name["uniform"]
    assert uniform.sequence[0] <= uniform.truth <= uniform.sequence[1]
    assert uniform.sequence[1] - uniform.sequence[0] > 0.2
    lines = table(found).splitlines()
    assert len(lines) == 2 + len(CANDIDATES)
    assert "| 1 of 1 | –" in lines[2]
