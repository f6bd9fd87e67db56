"""`make coverage-study`: how often intervals miss, and differences are called, at any look."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from tqdm import tqdm

from bandit_service.statistics import bernstein, binomial, boundaries
from loadtest.coverage import scenarios
from loadtest.coverage.scenarios import Run
from loadtest.sections import put_section


@dataclass(frozen=True)
class Row:
    """One line of the table: `play` once for each seed. usual: the test that stands beside."""

    group: str
    what: str
    runs: int
    play: Callable[[int], Run]
    usual: str
    covers: bool = True


ROWS = (
    Row("no difference", "even split, 5,000 units", 500,
        partial(scenarios.fixed, effect=0.0, units=5_000), "z-test"),
    Row("no difference", "returning units, 5,000 answers", 200,
        partial(scenarios.returning, effect=0.0, answers=5_000), "z-test of answers"),
    Row("no difference", "weights follow what does better, 5,000 units", 500,
        partial(scenarios.champion, effect=0.0, units=5_000), "z-test of plain means"),
    Row("no difference", "the same while both sides drift by 0.3", 200,
        partial(scenarios.champion, effect=0.0, units=5_000, drift=0.3), "z-test of plain means"),
    Row("no difference", "the same, and outcomes up to 500 units late", 200,
        partial(scenarios.champion, effect=0.0, units=5_000, drift=0.3, late=500),
        "z-test of plain means"),
    Row("no difference", "split of 20,000 units as configured", 500,
        partial(scenarios.split, share=0.5, units=20_000), "chi-square", covers=False),
    Row("no difference", "guardrail just kept, 2,000 answers", 500,
        partial(scenarios.guardrail, mean=0.7, answers=2_000), "one-sided t-test", covers=False),
    Row("no difference", "95th centile of 3,000 latencies", 500,
        partial(scenarios.quantile, answers=3_000), "interval of ranks"),
    Row("no difference", "95th centiles of two times 3,000", 300,
        partial(scenarios.slower, factor=1.0, answers=3_000), "", covers=False),
    Row("no difference", "propensities as logged, 5,000 decisions", 500,
        partial(scenarios.propensities, unlogged_floor=0.0, decisions=5_000), "z by arm",
        covers=False),
    Row("a difference", "even split, 5 points, 10,000 units", 200,
        partial(scenarios.fixed, effect=0.05, units=10_000), "z-test"),
    Row("a difference", "weights follow what does better, 15 points, 6,000 units", 200,
        partial(scenarios.champion, effect=0.15, units=6_000), "z-test of plain means"),
    Row("a difference", "split of 52 to 48, 40,000 units", 200,
        partial(scenarios.split, share=0.52, units=40_000), "chi-square", covers=False),
    Row("a difference", "guardrail missed by 5 points, 2,000 answers", 200,
        partial(scenarios.guardrail, mean=0.65, answers=2_000), "one-sided t-test", covers=False),
    Row("a difference", "95th centile half as long again, two times 3,000", 200,
        partial(scenarios.slower, factor=1.5, answers=3_000), "", covers=False),
    Row("a difference", "a floor of 0.1 drawn with and not logged, 5,000 decisions", 200,
        partial(scenarios.propensities, unlogged_floor=0.1, decisions=5_000), "z by arm",
        covers=False),
)  # fmt: skip


def table(rows: Sequence[tuple[Row, list[Run]]]) -> str:
    """The figures as Markdown, one table for each group."""
    lines: list[str] = []
    for group in dict.fromkeys(row.group for row, _ in rows):
        lines += [
            "",
            f"Where there is {group}:",
            "",
            "| | runs | called | after units or answers (median) | truth covered at every look | "
            "the usual test, looked at as often |",
            "|---|---|---|---|---|---|",
        ]
        for row, runs in rows:
            if row.group == group:
                lines.append(_line(row, runs))
    return "\n".join(lines[1:])


def widths() -> str:
    """How wide other sequences with the same guarantee would be: why these were chosen."""
    n, p = 1_000, 0.95
    lines = ["| after 1,000 numbers, α = 0.05 | half-width |", "|---|---|"]
    coin = _halfwidth(lambda s: binomial.of_count(n * p + s, n, p), n * p * (1 - p))
    normal = boundaries.normal_bound(n / 4, boundaries.best_rho(n / 4, 0.05), 0.05)
    double = boundaries.double_stitched_bound(p, n, 0.05, 100)
    process = n * boundaries.empirical_process_bound(n, 0.05, 100)
    for name, bound in (
        ("rank of the 95th centile: beta-binomial mixture (used)", coin),
        ("the same: normal mixture with Hoeffding's variance", normal),
        ("the same: double stitching, for all quantiles at once", double),
        ("the same: empirical process, for all quantiles at once", process),
    ):
        lines.append(f"| {name} | {bound:.1f} ranks |")
    state, v = bernstein.State(), 0.0
    for i in range(n):
        x = float(i % 5 < 4)
        v += (x - (0.5 + state.x) / (state.n + 1)) ** 2
        bernstein.add(state, x, 0.05)
    low, high = bernstein.interval(state, 0.05)
    rho = boundaries.best_rho(100.0, 0.05)
    for name, bound in (
        (
            "mean of numbers in [0, 1], 0.8 on average: predictable plug-in Bernstein (used)",
            (high - low) / 2,
        ),
        (
            "the same: gamma-exponential mixture",
            _halfwidth(lambda s: boundaries.gamma_exponential_log_mixture(s, v, rho, 1.0), v, 0.025)
            / n,
        ),
        ("the same: polynomial stitching", boundaries.stitched_bound(v, 0.025, 10.0, 1.0) / n),
    ):
        lines.append(f"| {name} | {bound:.4f} |")
    return "\n".join(lines)


def plot(to: Path) -> None:
    """Intervals along the way of one null and one true effect."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True, layout="constrained")
    for axis, effect, title in zip(
        axes, (0.0, 0.05), ("no difference", "a difference of 0.05"), strict=True
    ):
        for seed in range(12):
            path = scenarios.fixed(seed, effect, 10_000, path=True).path[::25]
            n, low, high = zip(*path, strict=True)
            axis.plot(n, low, color="#3b6ea5", linewidth=0.7, alpha=0.6)
            axis.plot(n, high, color="#a5533b", linewidth=0.7, alpha=0.6)
        axis.axhline(effect, color="black", linewidth=1.0, linestyle="--")
        axis.axhline(0.0, color="grey", linewidth=0.8)
        axis.set(title=f"12 experiments, {title}", xlabel="units", ylim=(-0.25, 0.3))
    axes[0].set_ylabel("lower and upper end of the interval")
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    """Run every row over its seeds on all cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", type=Path, help="a document whose sections to write")
    parser.add_argument("--part", type=float, default=1.0, help="share of the runs, for a try")
    args = parser.parse_args(argv)
    begun = time.perf_counter()
    rows = [(row, list[Run]()) for row in ROWS]
    total = sum(math.ceil(args.part * row.runs) for row in ROWS)
    with (
        ProcessPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=total, desc="coverage", unit="run", disable=None, leave=False) as bar,
    ):
        for row, runs in rows:
            for run in pool.map(row.play, range(math.ceil(args.part * row.runs)), chunksize=5):
                runs.append(run)
                bar.update()
    text = table(rows)
    print(text, widths(), sep="\n\n")
    print(f"\n{total} experiments in {time.perf_counter() - begun:.0f} s")
    if args.markdown is not None:
        put_section(args.markdown, "coverage", text)
        put_section(args.markdown, "widths", widths())
        plot(args.markdown.parent / "results" / "coverage.png")


def _line(row: Row, runs: list[Run]) -> str:
    called = [run for run in runs if run.called]
    when = f"{median(run.when for run in called):,.0f}" if _timed(called) else ""
    covered = f"{sum(run.covered for run in runs) / len(runs):.1%}" if row.covers else ""
    usual = f"{row.usual}: {sum(run.usual for run in runs) / len(runs):.1%}" if row.usual else ""
    share = f"{len(called) / len(runs):.1%}"
    return f"| {row.what} | {len(runs)} | {share} | {when} | {covered} | {usual} |"


def _timed(called: list[Run]) -> bool:
    return bool(called) and not any(math.isnan(run.when) for run in called)


def _halfwidth(log_mixture: Callable[[float], float], v: float, alpha: float = 0.05) -> float:
    return boundaries.bound(log_mixture, alpha, math.sqrt(v))


if __name__ == "__main__":
    main()
