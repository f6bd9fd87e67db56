"""Writes deploy/grafana/dashboards/*.json from `loadtest.panels`, and the rules for Kubernetes.

python -m loadtest.dashboards
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import yaml
from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from loadtest.panels import DASHBOARDS, Page, Panel
from loadtest.prometheus import RULES

OUT = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards"
OPERATOR_RULES = Path(__file__).parents[1] / "deploy" / "kubernetes" / "prometheusrule.yaml"
_HEIGHT, _STAT_HEIGHT = 8, 4
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_SELECTOR = re.compile(r"\b((?:bandit|process)_[a-z0-9_]+)(\{)?")
_Built = timeseries.Panel | stat.Panel | heatmap.Panel
_KINDS: dict[str, Callable[[], _Built]] = {
    "timeseries": timeseries.Panel,
    "stat": stat.Panel,
    "heatmap": heatmap.Panel,
}


def of_instance(expr: str) -> str:
    """The query, of the instances that the dashboard's variable names.

    >>> of_instance('sum by (arm) (rate(bandit_x_total{a="b"}[5m])) / bandit_y')
    'sum by (arm) (rate(bandit_x_total{instance=~"$instance",a="b"}[5m])) / bandit_y{instance=~"$instance"}'
    """  # noqa: E501
    only = 'instance=~"$instance"'
    return _SELECTOR.sub(lambda m: f"{m[1]}{{{only}" + ("," if m[2] else "}"), expr)


def generated() -> dict[str, str]:
    """The content of each file by its name."""
    return {f"{name.lower()}.json": _dashboard(name, page) for name, page in DASHBOARDS.items()}


def _dashboard(name: str, page: Page) -> str:
    instance = (
        dashboard.QueryVariable("instance")
        .label("instance")
        .datasource(_SOURCE)
        .query("label_values(bandit_build_info, instance)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )
    built = (
        dashboard.Dashboard(f"bandit-service: {name}")
        .uid(f"bandit-{name.lower()}")
        .description(page.about)
        .tags(["bandit-service"])
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
        .with_variable(instance)
        .link(
            dashboard.DashboardLink("bandit-service")
            .tags(["bandit-service"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
    )
    number = 0
    for title, panels in page.rows:
        number += 1
        built = built.with_row(dashboard.Row(title).id(number))
        for panel in panels:
            number += 1
            built = built.with_panel(_panel(panel).id(number))
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def _panel(panel: Panel) -> _Built:
    made = _KINDS[panel.kind]().title(panel.title).unit(panel.unit).datasource(_SOURCE)
    made = made.height(_STAT_HEIGHT if panel.kind == "stat" else _HEIGHT).span(panel.width)
    if panel.help:
        made = made.description(panel.help)
    if panel.low is not None:
        made = made.min(panel.low)
    if panel.high is not None:
        made = made.max(panel.high)
    made = made.thresholds(_thresholds(panel))
    if isinstance(made, stat.Panel):
        alarmed = panel.alarm is not None or panel.alarm_below is not None
        made = made.color_mode(BigValueColorMode.VALUE if alarmed else BigValueColorMode.NONE)
        made = made.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if isinstance(made, heatmap.Panel):
        colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Inferno")
        colours = colours.exponent(0.5).steps(64).fill("dark-orange")
        made = made.calculate(False).color(colours).cell_gap(1)
    if isinstance(made, timeseries.Panel):
        made = _curves(panel, made)
    for number, (expr, legend) in enumerate(panel.queries):
        query = prometheus.Dataquery().expr(of_instance(expr)).legend_format(legend or panel.title)
        query = query.range().ref_id(chr(ord("A") + number))
        if panel.exemplars:
            query = query.exemplar(True)
        if panel.kind == "heatmap":
            query = query.format(PromQueryFormat.HEATMAP)
        made = made.with_target(query)
    return made


def _curves(panel: Panel, made: timeseries.Panel) -> timeseries.Panel:
    table = common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.TABLE)
    made = made.legend(table.placement(LegendPlacement.RIGHT).calcs(["lastNotNull"]))
    made = made.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    if panel.stacked:
        normal = common.StackingConfig().mode(StackingMode.NORMAL)
        made = made.stacking(normal).fill_opacity(40)
    if panel.log:
        log = common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10)
        made = made.scale_distribution(log)
    if panel.alarm is not None or panel.alarm_below is not None:
        line = common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.DASHED)
        made = made.thresholds_style(line)
    return made


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    steps = [Threshold(value=None, color="green")]
    if panel.alarm_below is not None:
        steps = [
            Threshold(value=None, color="red"),
            Threshold(value=panel.alarm_below, color="green"),
        ]
    if panel.alarm is not None:
        steps.append(Threshold(value=panel.alarm, color="red"))
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def prometheus_rule() -> str:
    """deploy/prometheus/rules.yaml as the Prometheus operator wants it."""
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "bandit-service", "labels": {"app": "bandit-service"}},
        "spec": rules,
    }
    text = yaml.safe_dump(document, sort_keys=False, width=1000)
    return f"# Written by `make dashboards` from ../prometheus/rules.yaml.\n{text}"


def main() -> int:
    """Write all of them; 0."""
    OUT.mkdir(parents=True, exist_ok=True)
    for name, content in generated().items():
        (OUT / name).write_text(content, encoding="utf-8")
        print(OUT / name)
    OPERATOR_RULES.write_text(prometheus_rule(), encoding="utf-8")
    print(OPERATOR_RULES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
