"""The study of warm starts: who is taught what, and how it is held against a cold start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bandit_service.lab.data import Labelled
from loadtest import hotstart
from loadtest.hotstart import COLD, Start, Went
from tests.tools import needed
from tests.unit.data.recordings import planted


@pytest.fixture
def data() -> Labelled:
    return Labelled(*planted(120))


def test_what_is_taught_does_not_come_again(data: Labelled) -> None:
    taught, rest = hotstart.parts(data, 0, 40, 60)
    assert (len(taught), len(rest)) == (40, 60)
    assert not set(taught.recorded.ids) & set(rest.recorded.ids)
    assert hotstart.parts(data, 1, 40, 60)[0].recorded.ids != taught.recorded.ids


def test_a_wrong_label_is_turned_over_and_more_of_them_hold_the_fewer(data: Labelled) -> None:
    some, many = (hotstart.mislabelled(data, wrong, 0) for wrong in (0.1, 0.5))
    turned = [~np.isclose(each.quality, data.quality) for each in (some, many)]
    assert not (turned[0] & ~turned[1]).any()
    assert 0.4 < turned[1].mean() < 0.6
    np.testing.assert_allclose(many.quality[turned[1]], 1.0 - data.quality[turned[1]])
    np.testing.assert_array_equal(hotstart.mislabelled(data, 0.0, 0).quality, data.quality)


def test_the_difference_is_paired_by_seed() -> None:
    start = Start(True, 0.5, 2.0)
    runs = [
        Went("nested", one, seed, np.full(4, level))
        for seed, cold, warm in ((0, 0.5, 0.4), (1, 0.9, 0.82))
        for one, level in ((COLD, cold), (start, warm))
    ]
    mean, gap, error = hotstart.beside_cold(runs, "nested", start)
    assert (mean, gap, error) == pytest.approx((0.61, -0.09, 0.01))


def test_runs_become_a_table_and_a_plot(
    data: Labelled, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    needed("threadpoolctl")
    needed("matplotlib")
    monkeypatch.setattr(hotstart, "TAUGHT", 20)
    monkeypatch.setattr(hotstart, "AFTER", 30)
    monkeypatch.setattr(hotstart, "STRENGTHS", {"epsilon_greedy": (2.0, None)})
    runs = hotstart.study(data, seeds=2, jobs=1)
    assert len(runs) == 2 * (1 + 2 * len(hotstart.WRONG))
    found = hotstart.table(runs, "epsilon_greedy", "made")
    assert [row[0] for row in found.cells] == ["2", "full"]
    assert {row[-1] for row in found.cells} <= {"yes", "no"}
    hotstart.plot(runs, 2.0, "made", tmp_path / "made.png")
    assert (tmp_path / "made.png").read_bytes().startswith(b"\x89PNG")
