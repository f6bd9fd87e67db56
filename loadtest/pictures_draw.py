"""One dashboard's page as a picture: panels in their places, dark, with legends and thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

_UNIT_W, _UNIT_H, _TOP = 0.68, 0.31, 0.7
_BACK, _PANEL, _TEXT, _FAINT, _GRID = "#111217", "#181b1f", "#d8d9da", "#8e9299", "#2c3235"
_COLOURS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#b877d9", "#37872d", "#fade2a", "#8ab8ff",
            "#e02f44", "#c0d8ff", "#705da0", "#96d98d")  # fmt: skip
_THRESHOLDS = {"green": "#73bf69", "red": "#e02f44"}
_MAX_SHOWN = 11


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its legend and points of (seconds before the end, value)."""

    legend: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One panel as it stands in the dashboard, with its data."""

    panel: dict[str, Any]
    series: list[Series]
    exemplars: list[tuple[float, float]]


def draw(title: str, panels: Sequence[Drawn], file: Path) -> None:
    """Write the page as PNG."""
    bottom = max(one.panel["gridPos"]["y"] + one.panel["gridPos"]["h"] for one in panels)
    height = bottom * _UNIT_H + _TOP
    with matplotlib.rc_context({"text.color": _TEXT, "axes.labelcolor": _FAINT, "font.size": 8.0}):
        figure = Figure(figsize=(24 * _UNIT_W, height), facecolor=_BACK, dpi=100)
        figure.text(0.008, 1.0 - 0.45 / height, title, fontsize=14, weight="bold")
        for one in panels:
            at = one.panel["gridPos"]
            below = _TOP + (at["y"] + at["h"]) * _UNIT_H
            box = (
                at["x"] / 24 + 0.004,
                1.0 - below / height,
                at["w"] / 24 - 0.008,
                at["h"] * _UNIT_H / height,
            )
            _panel(figure, one, box, height)
        figure.savefig(file, facecolor=_BACK)
    plt.close("all")


def formatted(value: float, unit: str) -> str:
    """A number as Grafana's unit shows it.

    >>> formatted(0.0123, "s"), formatted(0.5, "percentunit"), formatted(3.2e6, "bytes")
    ('12.3 ms', '50%', '3.2 MB')
    >>> formatted(0.0214, "currencyUSD"), formatted(12.345, "reqps"), formatted(0.0, "s")
    ('$0.0214', '12.3 /s', '0 s')
    """
    if not math.isfinite(value):
        return "-"
    if unit == "percentunit":
        return f"{100 * value:.3g}%"
    if unit == "currencyUSD":
        number = f"{abs(value):,.0f}" if abs(value) >= 1000 else f"{abs(value):.3g}"
        return f"${number}" if value >= 0 else f"-${number}"
    if unit == "s" and value:
        for least, factor, name in (
            (86400.0, 86400.0, "d"),
            (3600.0, 3600.0, "h"),
            (120.0, 60.0, "min"),
            (1.0, 1.0, "s"),
            (1e-3, 1e-3, "ms"),
            (0.0, 1e-6, "µs"),
        ):
            if abs(value) >= least:
                return f"{value / factor:.3g} {name}"
    if unit == "bytes":
        for factor, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")):
            if abs(value) >= factor:
                return f"{value / factor:.3g} {name}"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text + {"reqps": " /s", "s": " s", "bytes": " B"}.get(unit, "")


def _panel(
    figure: Figure, one: Drawn, box: tuple[float, float, float, float], height: float
) -> None:
    x, y, width, tall = box
    kind = one.panel["type"]
    if kind == "row":
        figure.text(x, y + 0.25 * tall, one.panel["title"], fontsize=10, weight="bold")
        return
    gap = 0.07 / height
    frame = figure.add_axes((x, y + gap, width, tall - 2 * gap), facecolor=_PANEL)
    frame.set(xticks=[], yticks=[])
    for spine in frame.spines.values():
        spine.set_color(_GRID)
    title = one.panel["title"]
    figure.text(x + 0.005, y + tall - gap - 0.24 / height, title, fontsize=9, weight="bold")
    if kind == "stat":
        _stat(figure, one, (x, y + gap, width, tall - 2 * gap))
        return
    legend_width = 0.0 if kind == "heatmap" else 0.36 * width
    inner = (
        x + 0.04,
        y + gap + 0.34 / height,
        width - 0.05 - legend_width,
        tall - 2 * gap - 0.75 / height,
    )
    axes = figure.add_axes(inner, facecolor=_PANEL)
    _plain(axes)
    if kind == "heatmap":
        _heatmap(axes, one.series)
        return
    _curves(axes, one)
    _legend(figure, one, (x + width - legend_width, inner[1], legend_width, inner[3]))


def _plain(axes: Axes) -> None:
    axes.grid(color=_GRID, linewidth=0.6)
    axes.tick_params(colors=_FAINT, labelsize=7, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.xaxis.set_major_locator(MultipleLocator(30.0))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda t, _: "now" if t == 0 else f"{t / 60:g} min" if t % 60 == 0 else "")
    )


def _defaults(panel: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = panel["fieldConfig"]["defaults"]
    return found


def _ordered(series: Sequence[Series]) -> list[Series]:
    return sorted(series, key=lambda one: -one.points[-1][1])


def _curves(axes: Axes, one: Drawn) -> None:
    defaults, series = _defaults(one.panel), _ordered(one.series)
    custom, unit = defaults.get("custom") or {}, defaults.get("unit", "short")
    colours = dict(zip((each.legend for each in series), _COLOURS * 9, strict=False))
    stacked = (custom.get("stacking") or {}).get("mode") == "normal"
    base: dict[float, float] = {}
    for each in series:
        t, v = np.array(each.points).T
        if stacked:
            below = np.array([base.get(at, 0.0) for at in t])
            axes.fill_between(t, below, below + v, color=colours[each.legend], alpha=0.4, lw=0)
            v = below + v
            base |= dict(zip(t.tolist(), v.tolist(), strict=True))
        axes.plot(t, v, color=colours[each.legend], linewidth=1.1)
    if one.exemplars:
        t, v = np.array(one.exemplars).T
        axes.plot(t, v, "D", color="#8ab8ff", markersize=1.6, alpha=0.4, zorder=1)
    if (custom.get("scaleDistribution") or {}).get("type") == "log":
        axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(defaults.get("min", low), max(defaults.get("max", high), 1e-9))
    for step in (defaults.get("thresholds") or {}).get("steps") or ():
        at = step.get("value")
        if at is not None and custom.get("thresholdsStyle") and axes.get_ylim()[1] >= at:
            axes.axhline(at, color=_THRESHOLDS["red"], linewidth=0.8, linestyle="--")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: formatted(v, unit)))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda _, __: ""))


def _legend(figure: Figure, one: Drawn, box: tuple[float, float, float, float]) -> None:
    x, y, width, tall = box
    unit = _defaults(one.panel).get("unit", "short")
    series = _ordered(one.series)
    line = tall / _MAX_SHOWN
    for i, (each, colour) in enumerate(zip(series, _COLOURS * 9, strict=False)):
        if i == _MAX_SHOWN - 1 and len(series) > _MAX_SHOWN:
            more = f"and {len(series) - i} more"
            figure.text(x + 0.012, y + tall - (i + 1) * line, more, fontsize=7, color=_FAINT)
            return
        at = y + tall - (i + 1) * line
        figure.text(x + 0.002, at, "━", fontsize=7, color=colour)
        most = int(width * 270) - 10
        name = each.legend if len(each.legend) <= most else each.legend[: most - 1] + "…"
        figure.text(x + 0.012, at, name, fontsize=7)
        last = formatted(each.points[-1][1], unit)
        figure.text(x + width - 0.004, at, last, fontsize=7, ha="right", color=_FAINT)


def _stat(figure: Figure, one: Drawn, box: tuple[float, float, float, float]) -> None:
    x, y, width, tall = box
    defaults = _defaults(one.panel)
    colour = _TEXT
    if not one.series:
        figure.text(x + width / 2, y + 0.4 * tall, "no data", fontsize=14, ha="center")
        return
    value = one.series[0].points[-1][1]
    if one.panel["options"]["colorMode"] == "value":
        for step in defaults["thresholds"]["steps"]:
            if step.get("value") is None or value >= step["value"]:
                colour = _THRESHOLDS[step["color"]]
    shown = formatted(value, defaults.get("unit", "short"))
    figure.text(
        x + width / 2, y + 0.42 * tall, shown, fontsize=22, ha="center", color=colour, weight="bold"
    )
    line = figure.add_axes(
        (x + 0.004, y + 0.02 * tall, width - 0.008, 0.3 * tall), facecolor="none"
    )
    line.axis("off")
    t, v = np.array(one.series[0].points).T
    line.fill_between(t, v, min(0.0, float(v.min())), color=colour, alpha=0.25, lw=0)


def _heatmap(axes: Axes, series: Sequence[Series]) -> None:
    """Counts by bucket, which are cumulative in Prometheus."""
    ordered = sorted(series, key=lambda one: float(one.legend))
    times = sorted({t for one in ordered for t, _ in one.points})
    if not times:
        return
    column = {t: i for i, t in enumerate(times)}
    counts = np.zeros((len(ordered), len(times)))
    for row, one in enumerate(ordered):
        for t, v in one.points:
            counts[row, column[t]] = v
    counts[1:] -= counts[:-1].copy()
    shown = np.sqrt(np.where(counts > 0.0, counts, np.nan))
    half = min(np.diff(times), default=1.0) / 2.0  # a column's middle is its time
    begin, end = times[0] - half, times[-1] + half
    axes.imshow(
        shown,
        aspect="auto",
        origin="lower",
        cmap="inferno",
        extent=(begin, end, -0.5, len(ordered) - 0.5),
        interpolation="nearest",
    )
    axes.set_xlim(begin, max(0.0, end))
    axes.set_yticks(range(len(ordered)), [f"≤ {one.legend}" for one in ordered])
    axes.grid(visible=False)
