"""Rows as aligned text for a terminal, or as Markdown for a document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bandit_service.lab.equal import EqualRow
from bandit_service.lab.offline import OfflineSummary, UpdateRow
from bandit_service.lab.summary import (
    NEAR,
    WINDOW,
    ChangeRow,
    FloorRow,
    Interval,
    OnlineRow,
)


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


def percent(value: float | None, digits: int = 0) -> str:
    """A share as a percentage, or – where there is none."""
    return "–" if value is None or math.isnan(value) else f"{100.0 * value:.{digits}f} %"


def with_half(found: Interval | None, digits: int = 4) -> str:
    """mean ± half-width."""
    if found is None or math.isnan(found.mean):
        return "–"
    half = "" if math.isnan(found.half) else f" ± {found.half:.{digits}f}"
    return f"{found.mean:.{digits}f}{half}"


def floor_table(rows: Sequence[FloorRow], floors: tuple[str, str], title: str) -> Table:
    """Rewards at two floors, side by side."""
    cells = tuple(
        (row.label, with_half(row.before), with_half(row.after), with_half(row.gain))
        for row in rows
    )
    note = "Mean reward ± 95 % over seeds; the last column is paired by seed."
    return Table(title, ("policy", *floors, "second less first"), cells, note)


def online_table(rows: Sequence[OnlineRow], title: str) -> Table:
    """Rewards and regrets of the online protocol; one block of rows per willingness to pay."""
    several = len({row.worth for row in rows}) > 1
    timed = not all(math.isnan(row.latency_s) for row in rows)
    headings = (
        *(("USD per quality",) if several else ()),
        "reward ± 95 %",
        "last third",
        "quality",
        "USD/1000",
        *(("latency, s",) if timed else ()),
        "regret: best",
        "regret: oracle",
        "overlap",
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
            *((number(row.latency_s, 2),) if timed else ()),
            with_half(row.regret_best, 0),
            with_half(row.regret_oracle, 0),
            *("–" if math.isnan(n) else f"{n:.0f}" for n in (row.overlap, row.outcomes)),
        )
        for row in rows
    )
    return Table(title, ("policy", *headings), cells)


def change_table(rows: Sequence[ChangeRow], title: str) -> Table:
    """What each policy lost against the best single arm, and how it recovered."""
    cells = tuple(
        (
            row.label,
            row.scenario,
            with_half(row.before, 3),
            with_half(row.first, 3),
            _recovered(row),
            with_half(row.soon, 3),
            with_half(row.soon_gain, 3),
            with_half(row.last, 3),
            with_half(row.last_gain, 3),
        )
        for row in rows
    )
    note = (
        "Before: reward minus that of the best single arm in hindsight of the old world; first 200 "
        "after: the same for the new world. Recovered: number of queries until a window of 100 is "
        f"within {NEAR:g} of the new world's best single arm. The last columns have the mean "
        "reward in the quarter after the change and in the last quarter. Each policy reacts to "
        "drift as in the service by default: to its own alarm, or to the service's. The gain is "
        "over the same policy without reactions, paired by seed, in the world that changes "
        "silently."
    )
    headings = (
        "policy",
        "scenario",
        "before",
        "first 200 after",
        "recovered after",
        "quarter after",
        "its gain by reacting",
        "last quarter",
        "its gain by reacting",
    )
    return Table(title, headings, cells, note)


def _recovered(row: ChangeRow) -> str:
    if row.recovered is not None:
        return str(row.recovered)
    return "–" if row.after < WINDOW else "never"


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
        "Curves over willingness to pay; the queries on which the policy was still learning count "
        "too. Quality is the difference to the baseline's quality, cost the share of the "
        "baseline's cost; – if that quality is never reached."
    )
    return Table(title, ("policy", *headings), cells, note)


def offline_table(rows: Sequence[OfflineSummary], title: str) -> Table:
    """Areas and costs of the offline split; ± is the standard deviation between splits."""
    cells = tuple(
        (
            row.router,
            _spread(row, "quality"),
            _spread(row, "cost", 1000.0),
            _spread(row, "auc_linear"),
            _gain(row),
            _spread(row, "auc_log"),
            _spread(row, "aiq"),
            _spread(row, "log_wtp_auc", digits=2),
            percent(row.numbers["match_cost"].mean),
            _spread(row, "at_best_cost"),
            number(row.numbers["seen"].mean, 0),
            number(row.numbers["fit_s"].mean, 2),
        )
        for row in rows
    )
    headings = (
        "quality, money no object",
        "USD/1000",
        "AUC",
        "gain over zero router",
        "AUC log",
        "AIQ",
        "log-WTP AUC",
        "cost to match best single",
        "quality at its cost",
        "outcomes seen",
        "fit, s",
    )
    note = (
        "Full information: every router sees every outcome of the training part. The gain's 95 % "
        "interval is a paired bootstrap over test queries; its ends are means over splits."
    )
    return Table(title, ("router", *headings), cells, note)


def two_model_table(rows: Sequence[OfflineSummary], title: str) -> Table:
    """RouteLLM's metrics; random routing has APGR 0.5."""
    names = ("apgr", "cpt50", "cpt80")
    cells = tuple((row.router, *(_spread(row, name, digits=3) for name in names)) for row in rows)
    return Table(title, ("router", "APGR", "CPT(50 %)", "CPT(80 %)"), cells)


def update_table(rows: Sequence[UpdateRow], title: str) -> Table:
    """Seconds to learn each share of the training part, and the AUC after it."""
    shares = sorted({row.share for row in rows})
    by_router = {name: [r for r in rows if r.router == name] for name in _routers(rows)}
    cells = tuple(
        (
            name,
            *(f"{row.seconds:.2f}{' (update)' if row.incremental else ''}" for row in its),
            *(f"{row.auc_linear:.4f}" for row in its),
            *(number(row.log_wtp_auc, 2) for row in its),
        )
        for name, its in by_router.items()
    )
    headings = [
        f"{what} at {share:.0%}" for what in ("s", "AUC", "log-WTP AUC") for share in shares
    ]
    return Table(title, ("router", *headings), cells)


def _routers(rows: Sequence[UpdateRow]) -> list[str]:
    return list(dict.fromkeys(row.router for row in rows))


def _spread(row: OfflineSummary, name: str, scale: float = 1.0, digits: int = 4) -> str:
    found = row.numbers[name]
    if math.isnan(found.mean):
        return "–"
    sd = "" if math.isnan(found.sd) else f" ± {scale * found.sd:.{digits}f}"
    return f"{scale * found.mean:.{digits}f}{sd}"


def _gain(row: OfflineSummary) -> str:
    gain, low, high = (row.numbers[name].mean for name in ("gain", "gain_low", "gain_high"))
    return f"{gain:+.4f} [{low:+.4f}, {high:+.4f}]"
