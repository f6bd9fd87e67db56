"""One picture: who earns what over the three acts, and whom the router asks."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from bandit_service.offline.palette import INK, MUTED
from bandit_service.offline.report import check_plot, spread
from loadtest.demo.acts import DEARER
from loadtest.demo.offline import CHANCE, FIRST, GREEDY, Results
from policies import Floats

_GRID = "#e6e6e6"
_ROUTER, _EPSILON, _STUCK, _FIXED = "#0072b2", "#e69f00", "#009e73", "#9a9a9a"
_ARMS = (
    "#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#f0e442", "#7f3c8d", "#8c564b", "#444444",
    "#17becf", "#b5bd00", "#e69f00", "#0072b2",
)  # fmt: skip
_DRAWN_FIXED = 4


def draw(results: Results, path: Path) -> None:
    """The moving mean of reward above, the router's traffic by arm below, both over seeds."""
    check_plot()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.15))
    _rewards(above, results)
    _traffic(below, results)
    for axes in (above, below):
        axes.tick_params(colors=MUTED, length=0)
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color("#bbbbbb")
        for start in results.stage.starts[1:]:
            axes.axvline(start, color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _rewards(axes: Any, results: Results) -> None:
    stage = results.stage
    n, x = len(stage.recorded), np.arange(1, len(stage.recorded) + 1)
    curves = {name: moving(played.reward, stage.starts) for name, played in results.played.items()}
    fixed = sorted(results.fixed, key=lambda name: -results.played[name].reward.mean())
    lines = [(name, _FIXED, 1.1, "-") for name in reversed(fixed[:_DRAWN_FIXED])]
    lines += [(CHANCE, _FIXED, 1.1, ":"), (FIRST, _STUCK, 1.6, "--"), (GREEDY, _EPSILON, 1.6, "-")]
    lines += [(results.router, _ROUTER, 2.6, "-")]
    skip = max(3, n // 75)  # the mean of fewer queries cannot be read
    ends: list[tuple[float, str, str]] = []
    for name, colour, width, style in lines:
        for start, end in zip(stage.starts, stage.ends(), strict=True):
            part = slice(start + skip, end)
            axes.plot(x[part], curves[name][part], color=colour, linewidth=width, linestyle=style)
        called = f"the router ({name})" if name == results.router else name
        ends.append((float(curves[name][-1]), called, colour))
    first = slice(skip, stage.starts[1])
    best, router = curves[FIRST][first], curves[results.router][first]
    axes.fill_between(
        x[first],
        router,
        best,
        where=best > router,
        color=_ROUTER,
        alpha=0.35,
        linewidth=0,
        label="the price of not knowing",
    )
    low, high = axes.get_ylim()
    places = spread([end for end, _, _ in ends], 0.05 * (high - low))
    for (last, text, colour), place in zip(ends, places, strict=True):
        axes.plot([n, 1.015 * n], [last, place], color=colour, linewidth=0.7, clip_on=False)
        shown = MUTED if colour == _FIXED else colour
        weight = "bold" if colour == _ROUTER else "normal"
        axes.text(1.02 * n, place, text, color=shown, fontsize=9, va="center", fontweight=weight)
    titles = (
        "act 1: nothing is known",
        f"act 2: {stage.name(results.dear)} costs {DEARER:g}×",
        f"act 3: {_joins(results)}{stage.name(results.worse)} gives half",
    )
    for start, title in zip(stage.starts, titles, strict=True):
        axes.text(
            start + 0.008 * n,
            1.015,
            textwrap.fill(title, 36),
            fontsize=8.5,
            color=INK,
            transform=axes.get_xaxis_transform(),
        )
    axes.set_xlim(0, n)
    axes.set_ylabel("mean reward, moving", color=INK)
    axes.legend(loc="lower left", frameon=False, fontsize=9, labelcolor=INK)


def _joins(results: Results) -> str:
    newcomer = results.stage.newcomer
    return "" if newcomer is None else f"{results.stage.name(newcomer)} joins, "


def _traffic(axes: Any, results: Results) -> None:
    drawn = results.played[results.router].drawn
    assert drawn is not None
    stage = results.stage
    shares = np.array(
        [
            moving((drawn == k).astype(np.float64), stage.starts)
            for k in range(len(stage.recorded.arms))
        ]
    )
    ranked = np.argsort(-shares.mean(axis=1), kind="stable")
    colours = [_ARMS[i % len(_ARMS)] for i in range(len(ranked))]
    names = [stage.name(int(k)) for k in ranked]
    x = np.arange(1, drawn.shape[1] + 1)
    axes.stackplot(x, shares[ranked], colors=colours, labels=names, linewidth=0)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    axes.set_ylabel("asked by the router", color=INK)
    axes.set_xlabel(f"queries so far (mean over {drawn.shape[0]} seeds)", color=INK)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[:8],
        labels[:8],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )


def moving(values: Floats, starts: tuple[int, int, int]) -> Floats:
    """(S, n) -> (n,) mean over seeds and the newest fifth of an act, never across its begin."""
    parts = []
    for of_act in np.split(values.mean(axis=0), starts[1:]):
        window = max(1, len(of_act) // 5)
        sums = np.concatenate([[0.0], np.cumsum(of_act)])
        at = np.arange(1, len(of_act) + 1)
        parts.append((sums[at] - sums[np.maximum(0, at - window)]) / np.minimum(at, window))
    found: Floats = np.concatenate(parts)
    return found
