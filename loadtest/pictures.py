"""Pictures of the dashboards, drawn from their own panels with the data of a real Prometheus.

    python -m loadtest.pictures --seconds 240 --out docs/images/dashboards

Runs what `make monitor` runs, and draws every page. This is not Grafana: places, titles, queries,
units, thresholds and legends are the committed dashboards', the drawing is matplotlib's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bandit_service.data.recordings import PARETOBANDIT, BadRecording, open_recording
from loadtest.dashboards import OUT as DASHBOARDS
from loadtest.monitor import FAILED, watched
from loadtest.monitor_traffic import traffic
from loadtest.pictures_draw import Drawn, Series, draw
from loadtest.prometheus import asked

_RATE, _STEP_S = "20s", 2.0


def drawn(watching: str, dashboard: dict[str, Any], begin: float, end: float) -> list[Drawn]:
    """Every panel of a dashboard with what its queries give between two moments."""
    return [
        Drawn(
            panel,
            [
                one
                for target in panel.get("targets") or ()
                for one in _series(watching, target, begin, end)
            ],
            _exemplars(watching, panel, begin, end),
        )
        for panel in dashboard["panels"]
    ]


def _plain(expr: str) -> str:
    return expr.replace("$__rate_interval", _RATE).replace("$instance", ".*")


def _series(watching: str, target: dict[str, Any], begin: float, end: float) -> list[Series]:
    result = asked(
        watching,
        "query_range",
        query=_plain(target["expr"]),
        start=str(begin),
        end=str(end),
        step=str(_STEP_S),
    )["result"]
    found = []
    for one in result:
        legend = target["legendFormat"]
        for name, value in one["metric"].items():
            legend = legend.replace("{{" + name + "}}", value)
        points = [(float(t) - end, float(v)) for t, v in one["values"]]
        found.append(Series(legend, [p for p in points if p[1] == p[1]]))
    return [one for one in found if one.points]


def _exemplars(
    watching: str, panel: dict[str, Any], begin: float, end: float
) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for target in panel.get("targets") or ():
        if target.get("exemplar"):
            data = asked(
                watching,
                "query_exemplars",
                query=_plain(target["expr"]),
                start=str(begin),
                end=str(end),
            )
            found += [
                (each["timestamp"] - end, float(each["value"]))
                for one in data
                for each in one["exemplars"]
            ]
    return found


def main() -> int:
    """Load a service, draw every page; 0 done, 1 something did not start, 2 no recording."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=240.0, help="of load")
    parser.add_argument("--rate", type=float, default=8.0, help="queries per second")
    parser.add_argument("--out", type=Path, default=Path("docs/images/dashboards"))
    parser.add_argument("--data", default=PARETOBANDIT, help="a recording")
    parser.add_argument("--data-dir", type=Path, default=Path("var"), help="where models/ is")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        recorded = open_recording(args.data)
        with (
            tempfile.TemporaryDirectory() as scratch,
            watched(recorded, args.data, args.data_dir, Path(scratch)) as (url, watching),
        ):
            begun = time.monotonic()
            sent = asyncio.run(traffic(url, recorded, args.rate, args.seconds))
            print(f"{sent} queries in {time.monotonic() - begun:.0f} s")
            end = float(asked(watching, "query", query="time()")["result"][1])
            for path in sorted(DASHBOARDS.glob("*.json")):
                dashboard = json.loads(path.read_text(encoding="utf-8"))
                panels = drawn(watching, dashboard, end - args.seconds, end)
                file = args.out / f"{path.stem}.png"
                draw(dashboard["title"], panels, file)
                print(file)
    except BadRecording as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 2
    except FAILED as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
