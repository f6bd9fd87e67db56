"""Rows as aligned text for a terminal, or as Markdown for a document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bandit_service.evaluate.equal import EqualRow
from bandit_service.evaluate.summary import NEAR, ChangeRow, Interval, OnlineRow


@dataclass(frozen=True, slots=True)
class Table:
    """A title, headings, and cells; the first column is words, the others are numbers.

    note: what a reader must know to read it, in a sentence or two.
    """

    title: str
    headings: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    note: str = ""

    def text(self) -> str:
        """Aligned by columns."""
        lines = [self.headings, *self.cells]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.headings))]
        ruled = [self.headings, tuple("-" * width for width in widths), *self.cells]
        body = "\n".join(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in ruled
        )
        return "\n".join(part for part in (self.title, body, self.note) if part)

    def markdown(self) -> str:
        """A pipe table under its title in bold."""
        rule = ("---", *("---:" for _ in self.headings[1:]))
        lines = [self.headings, rule, *self.cells]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join(part for part in (f"**{self.title}**", body, self.note) if part)


def number(value: float | None, digits: int = 4) -> str:
    """A number, or – where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share as a percentage, or – where there is none."""
    return "–" if value is None or math.isnan(value) else f"{100.0 * value:.0f} %"


def with_half(found: Interval | None, digits: int = 4) -> str:
    """mean ± half-width."""
    if found is None or math.isnan(found.mean):
        return "–"
    half = "" if math.isnan(found.half) else f" ± {found.half:.{digits}f}"
    return f"{found.mean:.{digits}f}{half}"


def online_table(rows: Sequence[OnlineRow], title: str) -> Table:
    """Rewards and regrets of the online protocol; one block of rows per willingness to pay."""
    several = len({row.worth for row in rows}) > 1
    headings = (
        *(("USD per quality",) if several else ()),
        "reward ± 95 %",
        "last third",
        "quality",
        "USD/1000",
        "regret: best",
        "regret: oracle",
        "outcomes shown",
    )
    cells = tuple(
        (
            row.label,
            *((f"{row.worth:g}",) if several else ()),
            with_half(row.reward),
            number(row.last_third),
            number(row.quality),
            number(row.usd_per_1000),
            with_half(row.regret_best, 0),
            with_half(row.regret_oracle, 0),
            "–" if math.isnan(row.outcomes) else f"{row.outcomes:.0f}",
        )
        for row in rows
    )
    return Table(title, ("policy", *headings), cells)


def change_table(rows: Sequence[ChangeRow], title: str) -> Table:
    """What each policy lost against the best single arm, before and after the change."""
    cells = tuple(
        (
            row.label,
            row.scenario,
            with_half(row.before, 3),
            with_half(row.first, 3),
            with_half(row.rest, 3),
            "never" if row.recovered is None else str(row.recovered),
        )
        for row in rows
    )
    note = (
        "Reward less that of the best single arm in hindsight, of the old world before the change "
        f"and of the new one after it. Recovered: queries until a window of 100 is within {NEAR:g}."
    )
    headings = ("policy", "scenario", "before", "first 200 after", "rest", "recovered after")
    return Table(title, headings, cells, note)


def equal_table(rows: Sequence[EqualRow], title: str) -> Table:
    """Areas, and the two comparisons with each baseline."""
    names = {"best": "best single", "uniform": "uniform", "oracle": "oracle"}
    headings = [
        "AUC",
        "AUC log",
        *(f"quality at {name}'s cost" for name in names.values()),
        *(f"cost at {name}'s quality" for name in names.values()),
    ]
    cells = tuple(
        (
            row.label,
            number(row.auc),
            number(row.auc_log),
            *(f"{row.quality_gain[name]:+.4f}" for name in names),
            *(percent(row.cost_share[name]) for name in names),
        )
        for row in rows
    )
    note = (
        "Curves over willingness to pay, learning included. Quality is the difference to the "
        "baseline's, cost the share of the baseline's; – where it is never reached."
    )
    return Table(title, ("policy", *headings), cells, note)
