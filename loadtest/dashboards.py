"""Writes deploy/grafana/dashboards/*.json from `loadtest.panels`.

python -m loadtest.dashboards
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import StackingMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from loadtest.panels import DASHBOARDS, Panel

OUT = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards"
_HEIGHT, _STAT_HEIGHT = 8, 4
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_Built = timeseries.Panel | stat.Panel | heatmap.Panel
_KINDS: dict[str, Callable[[], _Built]] = {
    "timeseries": timeseries.Panel,
    "stat": stat.Panel,
    "heatmap": heatmap.Panel,
}


def generated() -> dict[str, str]:
    """The content of each file by its name."""
    return {f"{name.lower()}.json": _dashboard(name, panels) for name, panels in DASHBOARDS.items()}


def _dashboard(name: str, panels: tuple[Panel, ...]) -> str:
    built = (
        dashboard.Dashboard(f"bandit-service: {name}")
        .uid(f"bandit-{name.lower()}")
        .tags(["bandit-service"])
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
        .link(dashboard.DashboardLink("bandit-service").tags(["bandit-service"]).as_dropdown(True))
    )
    for panel in panels:
        built = built.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def _panel(panel: Panel) -> _Built:
    made = _KINDS[panel.kind]().title(panel.title).unit(panel.unit).datasource(_SOURCE)
    made = made.height(_STAT_HEIGHT if panel.kind == "stat" else _HEIGHT).span(panel.width)
    if panel.help:
        made = made.description(panel.help)
    if panel.stacked and isinstance(made, timeseries.Panel):
        normal = common.StackingConfig().mode(StackingMode.NORMAL)
        made = made.stacking(normal).fill_opacity(40)
    for number, (expr, legend) in enumerate(panel.queries):
        query = prometheus.Dataquery().expr(expr).legend_format(legend or panel.title)
        made = made.with_target(query.range().ref_id(chr(ord("A") + number)))
    return made


def main() -> int:
    """Write all of them; 0."""
    OUT.mkdir(parents=True, exist_ok=True)
    for name, content in generated().items():
        (OUT / name).write_text(content, encoding="utf-8")
        print(OUT / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
