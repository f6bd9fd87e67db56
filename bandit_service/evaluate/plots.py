"""Curves and regret as pictures: PNG and SVG, a band where there are seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bandit_service.evaluate.bench import OfflineRow
from bandit_service.evaluate.data import Labelled
from bandit_service.evaluate.online import Passed
from policies import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _MUTED = "#1a1a1a", "#6b6b6b"
_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00",
    "#7f3c8d", "#8c564b", "#444444", "#b5bd00", "#17becf", "#f2b701",
)  # fmt: skip
_DASHES = ("-", "--", "-.", ":")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot: (m,) x and y, and the half-width of its band or None."""

    x: Floats
    y: Floats
    half: Floats | None = None


def regret_plot(passed: Sequence[Passed], title: str, path: Path) -> list[Path]:
    """Cumulated regret against the best single arm, mean and 95 % band over seeds."""
    lines = {
        label: _over_seeds([run for run in passed if run.label == label])
        for label in dict.fromkeys(run.label for run in passed)
    }
    return draw(
        lines,
        title,
        "queries so far",
        "cumulated regret against the best single arm",
        path,
        muted={"best single": _flat(lines)},
    )


def offline_plot(
    rows: Sequence[OfflineRow], data: Labelled, title: str, out: Path, most: int = 12
) -> list[Path]:
    """Hulls of the best routers of the first split by AUC, with the zero router and the oracle."""
    first = [row for row in rows if row.seed == rows[0].seed]
    kept = [row for row in first if row.router in ("zero router", "oracle")]
    others = [row for row in first if row not in kept and len(row.points) > 1]
    others.sort(key=lambda row: -row.auc_linear)
    lines = {}
    for row in [*others[:most], *kept]:
        knots = sorted((p.cost, p.quality) for p in row.points if p.on_hull)
        lines[row.router] = Line(
            1000.0 * np.array([cost for cost, _ in knots]), np.array([q for _, q in knots])
        )
    singles = Line(1000.0 * np.nanmean(data.cost, axis=0), np.nanmean(data.quality, axis=0))
    return curve_plot(lines, title, out / f"{data.recorded.name}-curves", singles)


def curve_plot(curves: Mapping[str, Line], title: str, path: Path, singles: Line) -> list[Path]:
    """Quality over cost per 1,000 queries in log cost, the single models as dots."""
    return draw(
        curves, title, "USD per 1,000 queries", "mean quality", path, log=True, dots=singles
    )


def draw(
    lines: Mapping[str, Line],
    title: str,
    x_label: str,
    y_label: str,
    path: Path,
    *,
    muted: Mapping[str, Line] | None = None,
    log: bool = False,
    dots: Line | None = None,
) -> list[Path]:
    """`path` with the suffixes .png and .svg; the best line first in the legend."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 5.8), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for i, (label, line) in enumerate(lines.items()):
        colour, dash = _COLOURS[i % len(_COLOURS)], _DASHES[i // len(_COLOURS) % len(_DASHES)]
        axes.plot(line.x, line.y, color=colour, linestyle=dash, linewidth=1.7, label=label)
        if line.half is not None:
            low, high = line.y - line.half, line.y + line.half
            axes.fill_between(line.x, low, high, color=colour, alpha=0.12, linewidth=0)
    for label, line in (muted or {}).items():
        axes.plot(line.x, line.y, color=_MUTED, linestyle=":", linewidth=1.3, label=label)
    if dots is not None:
        axes.plot(dots.x, dots.y, "o", color=_MUTED, markersize=4.5, label="single models")
    if log:
        axes.set_xscale("log")
    _dress(axes, title, x_label, y_label)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_suffix(".png"), path.with_suffix(".svg")]
    with rc_context({"svg.hashsalt": path.name}):  # the same picture is the same file
        figure.savefig(written[0], metadata={"Software": None})
        figure.savefig(written[1], metadata={"Date": None})
    return written


def _over_seeds(runs: Sequence[Passed]) -> Line:
    regret = np.array([run.beside["best"] - run.rewards for run in runs])
    if len(runs) < 2:
        return Line(runs[0].steps, regret[0])
    from scipy import stats

    t = float(stats.t.ppf(0.975, len(runs) - 1))
    half = t * regret.std(axis=0, ddof=1) / np.sqrt(len(runs))
    return Line(runs[0].steps, regret.mean(axis=0), half)


def _flat(lines: Mapping[str, Line]) -> Line:
    x = next(iter(lines.values())).x
    return Line(x, np.zeros_like(x))


def _dress(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, color=_INK, pad=10)
    axes.set_xlabel(x_label, color=_INK)
    axes.set_ylabel(y_label, color=_INK)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.tick_params(colors=_MUTED, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#bbbbbb")
