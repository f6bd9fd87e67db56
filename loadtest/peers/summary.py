"""Results as rows with intervals over seeds, and rows as tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bandit_service.lab.summary import Interval, interval
from bandit_service.lab.tables import Table, number
from bandit_service.offline.baselines import Track, baselines
from loadtest.peers.compare import Result, Stream

_NOTE = (
    "Intervals over seeds; `less ours` is paired by seed. Times are medians of the library's calls "
    "alone, on the machine of the run; `ours / its` compares both times together with those of our "
    "first row of the same features."
)
BEGIN, END = "<!-- tables of a run: begin -->", "<!-- tables of a run: end -->"


@dataclass(frozen=True, slots=True)
class Row:
    """One entrant over its seeds, or a baseline, which has no interval and no times.

    versus: the reward less the first row's with the same seed. arms: (K,) share of each arm.
    ours: what our first policy with these features takes to decide and learn, by what this takes.
    """

    label: str
    package: str
    features: str
    reward: Interval
    versus: Interval | None
    last_third: float | None
    quality: float
    usd_per_1000: float
    decide_us: float | None
    learn_us: float | None
    arms: tuple[float, ...]
    ours: float | None = None

    @property
    def takes_us(self) -> float | None:
        """The time to decide and learn; None where it is not known."""
        return self.decide_us + self.learn_us if self.decide_us and self.learn_us else None


def rows(results: Sequence[Result], data: Stream) -> list[Row]:
    """Entrants by falling reward, then the baselines; the first row is the first result's."""
    by_label: dict[str, list[Result]] = {}
    for result in results:
        by_label.setdefault(result.entrant.label, []).append(result)
    first = {result.seed: result.reward for result in next(iter(by_label.values()), [])}
    found = [_row(label, some, first) for label, some in by_label.items()]
    ours = {row.features: row for row in reversed(found) if row.package == found[0].package}
    found = [dataclasses.replace(row, ours=_ratio(ours.get(row.features), row)) for row in found]
    found.sort(key=lambda row: -row.reward.mean)
    return [*found, *_baselines(data)]


def _ratio(one: Row | None, other: Row) -> float | None:
    """The time to decide and learn by one, as a multiple of that by another."""
    if one is None or one.takes_us is None or other.takes_us is None:
        return None
    return one.takes_us / other.takes_us


def _row(label: str, some: Sequence[Result], first: dict[int, float]) -> Row:
    entrant = some[0].entrant
    shares = np.mean([np.array(each.arms) / sum(each.arms) for each in some], axis=0)
    apart = [each.reward - first[each.seed] for each in some if each.seed in first]
    return Row(
        label=label,
        package=entrant.package,
        features=entrant.features,
        reward=interval(each.reward for each in some),
        versus=interval(apart) if any(apart) else None,
        last_third=float(np.mean([each.last_third for each in some])),
        quality=float(np.mean([each.quality for each in some])),
        usd_per_1000=1000.0 * float(np.mean([each.cost_usd for each in some])),
        decide_us=float(np.median([each.decide_us for each in some])),
        learn_us=float(np.median([each.learn_us for each in some])),
        arms=tuple(shares.tolist()),
    )


def _baselines(data: Stream) -> list[Row]:
    beside = baselines(data.recorded, data.rule)

    def row(label: str, track: Track) -> Row:
        return Row(
            label=label,
            package="baseline",
            features="",
            reward=Interval(float(track.reward.mean()), float("nan"), 0),
            versus=None,
            last_third=None,
            quality=float(track.quality.mean()),
            usd_per_1000=1000.0 * float(track.cost.mean()),
            decide_us=None,
            learn_us=None,
            arms=(),
        )

    return [
        row("(uniform)", beside.uniform),
        row(f"(best single: {beside.best_arm})", beside.best),
        row("(oracle)", beside.oracle),
    ]


def table(found: Sequence[Row], title: str) -> Table:
    """The rows under their title."""
    headings = (
        "row [features]",
        "reward",
        "± 95 %",
        "less ours",
        "± 95 %",
        "last third",
        "quality",
        "USD/1000",
        "decide µs",
        "learn µs",
        "ours / its",
        "seeds",
    )
    cells = tuple(
        (
            row.label,
            number(row.reward.mean),
            number(row.reward.half),
            number(row.versus.mean if row.versus else None),
            number(row.versus.half if row.versus else None),
            number(row.last_third),
            number(row.quality),
            number(row.usd_per_1000),
            number(row.decide_us, 0),
            number(row.learn_us, 0),
            number(row.ours, 2),
            str(row.reward.n or "–"),
        )
        for row in found
    )
    return Table(title, headings, cells, _NOTE)


def as_json(found: Sequence[Row], data: Stream, results: Sequence[Result]) -> dict[str, Any]:
    """One recording's rows, and every run behind them."""
    return {
        "data": data.recorded.name,
        "queries": len(data.recorded),
        "arms": [arm.id for arm in data.recorded.arms],
        "willingness_to_pay": data.rule.willingness_to_pay,
        "rows": [_finite(dataclasses.asdict(row)) for row in found],
        "runs": [_finite(dataclasses.asdict(result)) for result in results],
    }


def _finite(value: Any) -> Any:
    """NaN, which JSON does not have, becomes null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def write_markdown(path: Path, text: str) -> None:
    """The text between the two marks of a file that has them; else it becomes the file."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    whole = f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}" if begin and end else f"{text}\n"
    path.write_text(whole, encoding="utf-8")
