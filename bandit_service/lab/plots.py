"""Plots of curves and regret, as PNG and SVG; several seeds give a band."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bandit_service.lab.bench import OfflineRow
from bandit_service.lab.data import Labelled
from bandit_service.lab.online import Passed
from bandit_service.offline.palette import COLOURS, INK, MUTED
from policies import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES = ("-", "--", "-.", ":")
_BAND = 5  # a band of fewer seeds is wider than what there is to see
_BANDS = 8  # of more lines, those that end lowest have one


def regret_plot(passed: Sequence[Passed], title: str, path: Path) -> list[Path]:
    """Cumulated regret against the best single arm, mean and 95 % band over seeds."""
    figure = _figure(10.5, 5.8)
    axes = figure.add_subplot()
    _regrets(axes, passed, _ranked(passed))
    _dress(axes, title, "queries so far", "cumulated regret against the best single arm")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return _save(figure, path)


def change_plot(
    passed: Sequence[Passed], scenarios: Sequence[str], title: str, path: Path
) -> list[Path]:
    """One panel of regrets per scenario; the change is at the dotted line."""
    figure = _figure(11.5, 3.4 * ((len(scenarios) + 1) // 2))
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    labels = _ranked(passed)
    panels = figure.subplots((len(scenarios) + 1) // 2, 2, squeeze=False).ravel()
    for axes, scenario in zip(panels, scenarios, strict=False):
        here = [run for run in passed if run.scenario == scenario]
        _regrets(axes, here, labels)
        axes.axvline(here[0].queries // 2, color=MUTED, linestyle=":", linewidth=1.0)
        _dress(axes, scenario, "queries so far", "regret")
    for axes in panels[len(scenarios) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    return _save(figure, path)


def offline_plot(
    rows: Sequence[OfflineRow], data: Labelled, title: str, out: Path, most: int = 8
) -> list[Path]:
    """Q(c) of the best routers of the first split by AUC, with the zero router and the oracle."""
    first = [row for row in rows if row.seed == rows[0].seed] if rows else []
    kept = [row for row in first if row.router in ("zero router", "oracle")]
    others = [row for row in first if row not in kept and len(row.points) > 1]
    others.sort(key=lambda row: -row.auc_linear)
    figure = _figure(10.5, 5.8)
    axes = figure.add_subplot()
    lowest, costs = [1.0], []
    for i, row in enumerate([*others[:most], *kept]):
        knots = sorted((p.cost, p.quality) for p in row.points if p.on_hull)
        cost, quality = (np.array(each) for each in zip(*knots, strict=True))
        costs += [float(cost[0]), float(cost[-1])]
        x = _between(cost[0], cost[-1])  # a chord is not straight in log cost
        y = np.interp(x, cost, quality)
        colour, dash = (MUTED, ":") if row in kept else (COLOURS[i % len(COLOURS)], "-")
        dash = "--" if row.router == "oracle" else dash
        axes.plot(1000.0 * x, y, color=colour, linestyle=dash, linewidth=1.7, label=row.router)
        lowest.append(float(y[0]))
    some = data.answered.any(axis=0)
    cost, quality = (np.nanmean(each[:, some], axis=0) for each in (data.cost, data.quality))
    shown = quality >= min(lowest) - 0.1
    axes.plot(1000.0 * cost[shown], quality[shown], "o", color=MUTED, ms=4.5, label="single models")
    _scale_cost(axes, [*costs, *map(float, cost[shown])])
    _dress(axes, title, "USD per 1,000 queries", "mean quality")
    axes.tick_params(axis="x", which="both", labelsize=8)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return _save(figure, out / f"{data.recorded.name}-curves")


def _between(low: float, high: float) -> Floats:
    """200 costs from low to high, evenly in their logarithm where both have one."""
    x: Floats = (np.geomspace if low > 0.0 else np.linspace)(low, high, 200)
    return x


def _scale_cost(axes: Axes, costs: Sequence[float]) -> None:
    """A logarithm of costs; up to the least of them a straight line to 0, if there is a 0."""
    from matplotlib.ticker import LogLocator

    above = [1000.0 * cost for cost in costs if cost > 0.0]
    if not above:
        return  # nothing costs anything
    if len(above) == len(costs):
        if max(above) < 1.001 * min(above):  # an axis needs a width
            axes.set_xlim(0.5 * above[0], 2.0 * above[0])
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.xaxis.set_minor_formatter("{x:g}")
    else:
        axes.set_xscale("symlog", linthresh=min(above))
    axes.xaxis.set_major_formatter("{x:g}")


def _ranked(passed: Sequence[Passed]) -> list[str]:
    """Labels by falling final regret, in the order in which the lines end."""
    final: dict[str, list[float]] = {}
    for run in passed:
        final.setdefault(run.label, []).append(float(run.beside["best"][-1] - run.rewards[-1]))
    return sorted(final, key=lambda label: -float(np.mean(final[label])))


def _regrets(axes: Axes, passed: Sequence[Passed], labels: Sequence[str]) -> None:
    lowest, highest = [0.0], [0.0]
    for i, label in enumerate(labels):
        runs = [run for run in passed if run.label == label]
        steps = runs[0].steps
        regret = np.array([run.beside["best"] - run.rewards for run in runs])
        mean = regret.mean(axis=0)
        colour, dash = COLOURS[i % len(COLOURS)], _DASHES[i // len(COLOURS) % len(_DASHES)]
        axes.plot(steps, mean, color=colour, linestyle=dash, linewidth=1.6, label=label)
        lowest.append(float(mean.min()))
        highest.append(float(mean.max()))
        if len(runs) >= _BAND and i >= len(labels) - _BANDS:
            half = _half(regret)
            axes.fill_between(steps, mean - half, mean + half, color=colour, alpha=0.12, lw=0)
    low, high = min(lowest), max(highest)
    axes.axhline(0.0, color=MUTED, linestyle=":", linewidth=1.2)
    axes.set_ylim(low - 0.15 * (high - low) - 1e-9, high + 0.15 * (high - low) + 1e-9)


def _half(values: Floats) -> Floats:
    """(m,) half-width of the 95 % t-interval over the rows."""
    from scipy import stats

    n = len(values)
    half: Floats = stats.t.ppf(0.975, n - 1) * values.std(axis=0, ddof=1) / np.sqrt(n)
    return half


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> list[Path]:
    """`path` with the suffixes .png and .svg; the same picture is the same file."""
    from matplotlib import rc_context

    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_suffix(".png"), path.with_suffix(".svg")]
    with rc_context({"svg.hashsalt": path.name}):
        figure.savefig(written[0], metadata={"Software": None})
        figure.savefig(written[1], metadata={"Date": None})
    return written


def _dress(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=8)
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.tick_params(colors=MUTED, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#bbbbbb")
