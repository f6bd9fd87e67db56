"""What runs over recorded traffic come to: one row per policy and baseline, a table, a plot."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bandit_service.offline.baselines import Track
from bandit_service.offline.palette import COLOURS, INK, MUTED
from bandit_service.offline.simulate import Run
from bandit_service.parsing.extras import install
from policies import Floats

Runs = Mapping[str, Sequence[Run]]


class PlotUnavailable(Exception):
    """There is nothing here to draw with."""


@dataclass(frozen=True, slots=True)
class Row:
    """One policy, or one baseline, over all seeds.

    sd: standard deviation of the mean reward between seeds; None where there is one run only.
    gap_closed: (reward − uniform) / (oracle − uniform); None where these two are the same.
    regret_best, regret_oracle: reward of the best single arm, or of the oracle, less the reward
        got, summed over all queries.
    fallbacks, failures: decisions in which the policy failed, rewards it refused to learn from.
    """

    name: str
    reward: float
    sd: float | None
    last_third: float
    quality: float
    usd_per_1000: float
    gap_closed: float | None
    regret_best: float
    regret_oracle: float
    fallbacks: int = 0
    failures: int = 0


def rows(runs: Runs) -> list[Row]:
    """Policies by falling reward, then uniform, the best single arm and the oracle."""
    every = [run for each in runs.values() for run in each]
    some = next(iter(runs.values()))
    found = [_row(name, each, lambda run: run.track) for name, each in runs.items()]
    found.sort(key=lambda row: -row.reward)
    best_arm = every[0].baselines.best_arm
    return [
        *found,
        _row("(uniform, expected)", some, lambda run: run.baselines.uniform),
        _row(f"(best single: {best_arm})", some, lambda run: run.baselines.best),
        _row("(oracle)", some, lambda run: run.baselines.oracle),
    ]


def table(rows: Sequence[Row]) -> str:
    """The rows under their headings, aligned."""
    headings = (
        "",
        "reward",
        "± sd",
        "last third",
        "quality",
        "USD/1000",
        "gap closed",
        "regret: best",
        "regret: oracle",
    )
    cells = [
        (
            row.name,
            f"{row.reward:.4f}",
            "-" if row.sd is None else f"{row.sd:.4f}",
            f"{row.last_third:.4f}",
            f"{row.quality:.4f}",
            f"{row.usd_per_1000:.4f}",
            "-" if row.gap_closed is None else f"{row.gap_closed:.1%}",
            f"{row.regret_best:.1f}",
            f"{row.regret_oracle:.1f}",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [headings, *cells]) for i in range(len(headings))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [headings, tuple("-" * width for width in widths), *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)


def check_plot() -> None:
    """Raise PlotUnavailable where matplotlib is not installed, before the work and not after."""
    if importlib.util.find_spec("matplotlib") is None:
        raise PlotUnavailable(f"the plot needs matplotlib; run: {install('demo', 'matplotlib')}")


def plot(runs: Runs, title: str, path: Path) -> None:
    """Cumulated mean reward per policy, a band over its seeds, beside the three baselines."""
    check_plot()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    some = next(iter(runs.values()))
    n = len(some[0].order)
    x = np.arange(1, n + 1)
    figure = Figure(figsize=(11, 6.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    from_ = min(n - 1, max(10, n // 40))  # before that a mean is of too few queries to be read
    lowest, highest, ends = [], [], []
    ranked = sorted(runs, key=lambda name: -_final(runs[name]))
    for colour, name in zip(_cycle(len(ranked)), ranked, strict=True):
        curves = np.array([_running_mean(run.track.reward) for run in runs[name]])
        mean, sd = curves.mean(axis=0), curves.std(axis=0)
        axes.plot(x[from_:], mean[from_:], color=colour, linewidth=1.8, zorder=3)
        axes.fill_between(
            x[from_:],
            (mean - sd)[from_:],
            (mean + sd)[from_:],
            color=colour,
            alpha=0.13,
            linewidth=0,
            zorder=2,
        )
        lowest.append((mean - sd)[from_:].min())
        highest.append((mean + sd)[from_:].max())
        ends.append((float(mean[-1]), f"{name}  {mean[-1]:.3f}", colour))
    for label, style, of in _BASELINES:
        mean = np.array([_running_mean(of(run).reward) for run in some]).mean(axis=0)
        axes.plot(x[from_:], mean[from_:], color=MUTED, linestyle=style, linewidth=1.4, zorder=1)
        lowest.append(mean[from_:].min())
        highest.append(mean[from_:].max())
        arm = some[0].baselines.best_arm.rpartition("/")[2]
        ends.append((float(mean[-1]), f"{label.format(arm=arm)}  {mean[-1]:.3f}", MUTED))
    low, high = float(min(lowest)), float(max(highest))
    margin = 0.04 * (high - low or 1.0)
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlim(0, n)
    places = spread([end for end, _, _ in ends], 0.046 * (high - low + 2 * margin))
    for (end, text, colour), place in zip(ends, places, strict=True):
        leader = [n, 1.006 * n, 1.024 * n, 1.03 * n], [end, end, place, place]
        axes.plot(*leader, color=colour, linewidth=0.7, clip_on=False)
        axes.text(1.036 * n, place, text, color=colour, fontsize=9.5, va="center")
    axes.set_title(title, loc="left", fontsize=12, color=INK, pad=12)
    band = " (band: ±1 standard deviation between seeds)" if len(some) > 1 else ""
    axes.set_xlabel(f"queries so far{band}", color=INK)
    axes.set_ylabel("mean reward so far", color=INK)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.tick_params(colors=MUTED, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#bbbbbb")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


_Pick = Callable[[Run], Track]
_BASELINES: tuple[tuple[str, str, _Pick], ...] = (
    ("uniform, expected", ":", lambda run: run.baselines.uniform),
    ("best single, {arm}", "--", lambda run: run.baselines.best),
    ("oracle", "-.", lambda run: run.baselines.oracle),
)


def _row(name: str, runs: Sequence[Run], of: _Pick) -> Row:
    means = [float(of(run).reward.mean()) for run in runs]
    uniform = _mean(run.baselines.uniform.reward.mean() for run in runs)
    oracle = _mean(run.baselines.oracle.reward.mean() for run in runs)
    reward = _mean(means)
    n = len(runs[0].order)
    return Row(
        name=name,
        reward=reward,
        sd=float(np.std(means, ddof=1)) if len(means) > 1 else None,
        last_third=_mean(of(run).reward[n - max(1, n // 3) :].mean() for run in runs),
        quality=_mean(of(run).quality.mean() for run in runs),
        usd_per_1000=1000.0 * _mean(of(run).cost.mean() for run in runs),
        gap_closed=(reward - uniform) / (oracle - uniform) if oracle > uniform else None,
        regret_best=_mean((run.baselines.best.reward - of(run).reward).sum() for run in runs),
        regret_oracle=_mean((run.baselines.oracle.reward - of(run).reward).sum() for run in runs),
        fallbacks=sum(run.fallbacks for run in runs) if of(runs[0]) is runs[0].track else 0,
        failures=sum(run.failures for run in runs) if of(runs[0]) is runs[0].track else 0,
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _final(runs: Sequence[Run]) -> float:
    return _mean(run.track.reward.mean() for run in runs)


def _running_mean(values: Floats) -> Floats:
    means: Floats = np.cumsum(values) / np.arange(1, values.size + 1)
    return means


def _cycle(k: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(k)]


def spread(values: Sequence[float], apart: float) -> list[float]:
    """`values` moved as little as keeps any two at least `apart`, so that labels can be read."""
    order = np.argsort(values)
    clusters: list[list[float]] = []  # [centre, size] of labels that touch
    for i in order:
        clusters.append([values[i], 1.0])
        while len(clusters) > 1 and (
            clusters[-1][0] - clusters[-2][0] < apart * (clusters[-1][1] + clusters[-2][1]) / 2
        ):
            (b, m), (a, k) = clusters.pop(), clusters.pop()
            clusters.append([(a * k + b * m) / (k + m), k + m])
    places = [c + apart * (j - (k - 1) / 2) for c, k in clusters for j in range(int(k))]
    found = [0.0] * len(values)
    for i, place in zip(order, places, strict=True):
        found[int(i)] = place
    return found
