"""The table of growth: every size has its row or says why not, and exponents are of the rows."""

from __future__ import annotations

import math

import pytest

from loadtest.bench import growth


def test_an_exponent_is_that_of_the_power() -> None:
    assert growth.exponent([1, 10, 100], [3.0, 3.0, 3.0]) == 0.0
    assert growth.exponent([2, 8], [4.0, 64.0]) == 2.0
    assert math.isnan(growth.exponent([0, 1], [1.0, 2.0]))


def test_every_size_has_a_row_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(cell: growth.Cell) -> growth.Row:
        if cell.arms == 200:
            raise MemoryError
        return {"to": cell.size} | dict.fromkeys(growth.COLUMNS, 5.0 * cell.size)

    monkeypatch.setattr(growth, "_apart", measured)
    rows, left_out = growth.bench_growth()
    assert left_out == [
        "1,000,000 past queries: only with --whole",
        "200 arms: its process ended (MemoryError)",
    ]
    assert [row["to"] for row in rows if row["grows"] == "units"] == [
        1_000,
        10_000,
        100_000,
        1_000_000,
    ]
    of_arms = next(row for row in rows if row["grows"] == "arms: exponent")
    assert [of_arms[name] for name in growth.COLUMNS] == [1.0] * len(growth.COLUMNS)
    assert "Not run: 1,000,000 past queries: only with --whole; 200 arms" in growth.told(
        rows, left_out
    )


def test_a_row_that_takes_minutes_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = growth.Cell("past queries", past=300, dim=64)
    growth.measured(cell)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(growth, "_LARGE", 300)
    growth.measured(cell)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" after ")[0] for line in lines] == [
        f"300 past queries: {each}"
        for each in ("filled, and its index built", "decided", "learned", "started")
    ]


def test_memory_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "_BYTES_EACH", 1 << 50)
    assert "GB of memory" in growth._why_not(growth.Cell("arms"), True)


@pytest.mark.parametrize(
    "cell",
    [
        growth.Cell("arms", past=300, arms=50, dim=64),
        growth.Cell("units", past=300, dim=64, experiments=1, units=200),
    ],
)
def test_a_row_is_of_a_world_of_that_size(cell: growth.Cell) -> None:
    world, index = growth._filled(cell)
    assert len(world.offered()) == cell.arms
    assert len(world.history.items) == len(index) == 300
    assert sum(len(one.members) for one in world.experiments.trials.values()) == cell.units
    row = growth.measured(cell)
    assert row["to"] == cell.size
    assert set(row) == {"to", *growth.COLUMNS}
