"""The study of `make coverage-study`, short: seeded runs through the fold that the service runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from loadtest.coverage import scenarios
from loadtest.coverage.__main__ import Row, table, widths
from loadtest.coverage.scenarios import Run


def _runs(play: Callable[[int], Run], count: int) -> list[Run]:
    return [play(seed) for seed in range(count)]


def _called(runs: list[Run]) -> int:
    return sum(run.called for run in runs)


@pytest.mark.parametrize(
    ("play", "count", "most", "usual"),
    [
        (partial(scenarios.fixed, effect=0.0, units=1_200), 25, 3, 3),
        (partial(scenarios.returning, effect=0.0, answers=1_200), 15, 2, 2),
        (partial(scenarios.champion, effect=0.0, units=1_200), 12, 2, 0),
        (partial(scenarios.champion, effect=0.0, units=1_200, drift=0.3), 12, 2, 3),
        (partial(scenarios.split, share=0.5, units=10_000), 100, 0, 0),
        (partial(scenarios.guardrail, mean=0.7, answers=800), 20, 2, 3),
        (partial(scenarios.quantile, answers=1_000), 30, 3, 3),
        (partial(scenarios.slower, factor=1.0, answers=1_000), 20, 2, 0),
        (partial(scenarios.propensities, unlogged_floor=0.0, decisions=2_000), 15, 0, 0),
    ],
)  # fmt: skip
def test_where_there_is_nothing_it_is_rarely_called_however_often_one_looks(
    play: Callable[[int], Run], count: int, most: int, usual: int
) -> None:
    """usual: how often at least the usual test calls it, or the null would say nothing."""
    runs = _runs(play, count)
    assert _called(runs) <= most
    assert sum(not run.covered for run in runs) <= most
    assert sum(run.usual for run in runs) >= usual


@pytest.mark.parametrize(
    ("play", "count"),
    [
        (partial(scenarios.fixed, effect=0.2, units=1_200), 10),
        (partial(scenarios.champion, effect=0.35, units=2_000), 6),
        (partial(scenarios.split, share=0.55, units=20_000), 30),
        (partial(scenarios.guardrail, mean=0.55, answers=500), 20),
        (partial(scenarios.slower, factor=2.0, answers=1_500), 15),
        (partial(scenarios.propensities, unlogged_floor=0.2, decisions=2_500), 15),
    ],
)  # fmt: skip
def test_what_is_there_is_found_and_the_truth_stays_covered(
    play: Callable[[int], Run], count: int
) -> None:
    runs = _runs(play, count)
    assert _called(runs) == count
    assert sum(not run.covered for run in runs) <= 1


def test_the_studys_table_counts_what_the_runs_came_to() -> None:
    row = Row("no difference", "a split", 4, _never, "z-test")
    runs = [Run(called=True, covered=False, usual=True, when=200.0), Run(usual=True),
            Run(called=True, covered=True, when=1_400.0), Run()]  # fmt: skip
    lines = table([(row, runs)]).splitlines()
    assert lines[0] == "Where there is no difference:"
    assert lines[-1] == "| a split | 4 | 50.0% | 800 | 75.0% | z-test: 50.0% |"
    silent = Row("no difference", "a guardrail", 1, _never, "", covers=False)
    assert table([(silent, [Run()])]).splitlines()[-1] == "| a guardrail | 1 | 0.0% |  |  |  |"


def test_other_sequences_are_wider_where_one_quantile_is_asked_for() -> None:
    ranks = [float(line.split("|")[2].split()[0]) for line in widths().splitlines()[2:6]]
    assert min(ranks) == ranks[0]


def _never(seed: int) -> Run:
    raise AssertionError(f"nothing is to be played, of seed {seed}")
