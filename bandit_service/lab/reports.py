"""One protocol on one recording: the runs with a progress bar, then tables, plots and records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from bandit_service.core.exploration import Exploration
from bandit_service.lab.change import SCENARIOS
from bandit_service.lab.data import Labelled, split
from bandit_service.lab.equal import EqualRow, equal_rows
from bandit_service.lab.offline import (
    OfflineRow,
    curve_points,
    evaluate_offline,
    summarise,
)
from bandit_service.lab.online import (
    Entrant,
    Passed,
    Protocol,
    both_ways,
    run_online,
    tasks_of,
)
from bandit_service.lab.output import regret_points
from bandit_service.lab.plots import change_plot, offline_plot, regret_plot
from bandit_service.lab.processes import in_processes
from bandit_service.lab.routers import OfflineRouter
from bandit_service.lab.summary import change_rows, floor_rows, online_rows
from bandit_service.lab.tables import (
    Table,
    change_table,
    equal_table,
    floor_table,
    offline_table,
    online_table,
    two_model_table,
)

T = TypeVar("T")
WARM_SHARE = 0.3
WARM_SALT = "warm"


@dataclass
class Report:
    """The results of one protocol on one recording.

    plot: draws it, once all else is written. records: by name, rows for JSON. points: by file name,
    rows for Parquet. warnings: what a reader must be told, such as a policy that failed. offline:
    rows of the offline split, if any. passed: the runs online, if any.
    """

    tables: list[Table] = field(default_factory=list)
    plot: Callable[[], list[Path]] | None = None
    records: dict[str, Any] = field(default_factory=dict)
    points: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    offline: list[OfflineRow] = field(default_factory=list)
    passed: list[Passed] = field(default_factory=list)

    def draw(self) -> list[Path]:
        """The plots' files; if one cannot be drawn, it is only a warning."""
        try:
            return [] if self.plot is None else self.plot()
        except Exception as error:  # noqa: BLE001 - whatever it is, the run is worth more
            self.warnings.append(f"a plot could not be drawn: {type(error).__name__}: {error}")
            return []


def evaluate(
    data: Labelled,
    entrants: Sequence[Entrant],
    learners: Sequence[Entrant],
    routers: Mapping[str, OfflineRouter],
    protocols: Sequence[str],
    protocol: Protocol,
    *,
    few: int,
    jobs: int,
    out: Path,
) -> Iterator[Report]:
    """The named protocols one after the other, each reported as soon as it is done.

    entrants take part online, with all seeds; learners where several runs are needed for each
    figure, with `few`.
    """
    rest = replace(protocol, seeds=few, worths=(max(protocol.worths),))
    for name in protocols:
        if name == "offline":
            yield offline_report(data, routers, seeds=few, jobs=jobs, out=out)
        elif name == "online":
            yield online_report(data, entrants, protocol, jobs=jobs, out=out)
        elif name == "change":
            scenarios = [scenario for scenario in SCENARIOS if scenario != "steady"]
            yield change_report(data, learners, rest, scenarios, jobs=jobs, out=out)
        elif name == "regimes":
            yield regimes_report(data, learners, rest, jobs=jobs)


def offline_report(
    data: Labelled, routers: Mapping[str, OfflineRouter], *, seeds: int, jobs: int, out: Path
) -> Report:
    """Routers fitted on 70 % with every outcome, evaluated on the rest; `seeds` splits."""
    name = data.recorded.name
    order = {router: i for i, router in enumerate(routers)}
    tasks = [(router, seed) for seed in range(seeds) for router in order]
    done = in_processes(_begin_offline, (data, dict(routers)), _fit, tasks, jobs)
    told = list(_shown(done, len(tasks), f"{name} offline", _told))
    rows = sorted(
        (row for row in told if isinstance(row, OfflineRow)),
        key=lambda row: (order[row.router], row.seed),
    )
    failed = sorted({row for row in told if isinstance(row, str)})
    summaries = summarise(rows)
    tables = [offline_table(summaries, f"{name}: {_splits(seeds)}")]
    if len(data.arms) == 2:
        tables.append(two_model_table(summaries, f"{name}: two models, {_splits(seeds)}"))
    plot = partial(offline_plot, rows, data, f"{name}: cost and quality, first split", out)
    points = [{"data": name, **asdict(point)} for point in curve_points(rows)]
    return Report(tables, plot, {"offline": summaries}, {"curves": points}, failed, rows)


def _splits(seeds: int) -> str:
    return "one split" if seeds == 1 else f"{seeds} splits"


_offline: list[tuple[Labelled, Mapping[str, OfflineRouter]]] = []


def _begin_offline(data: Labelled, routers: Mapping[str, OfflineRouter]) -> None:
    _offline[:] = [(data, routers)]


def _fit(name: str, seed: int) -> OfflineRow | str:
    """The row, or why this router cannot be fitted to this recording."""
    data, routers = _offline[0]
    try:
        (row,) = evaluate_offline(data, {name: routers[name]}, seeds=(seed,))
    except ValueError as error:
        return f"{name}, split {seed}: left out: {error}"
    return row


def _told(row: OfflineRow | str) -> str:
    return row if isinstance(row, str) else f"{row.router} {row.quality:.3f}"


def online_report(
    data: Labelled, entrants: Sequence[Entrant], protocol: Protocol, *, jobs: int, out: Path
) -> Report:
    """Bandit feedback on the whole recording, at the largest willingness to pay.

    With several of them it has the tables of `sweep_report`, too.
    """
    name = data.recorded.name
    passed = runs(data, entrants, protocol, jobs, f"{name} online")
    largest = max(protocol.worths)
    top = [run for run in passed if run.worth == largest]
    floor = f"exploration {protocol.explore.label}"
    told = f"one pass, bandit feedback, {protocol.seeds} seeds, {floor}"
    rows = online_rows(top)
    found = Report(
        [online_table(rows, f"{name}: {told}, {largest:g} USD per unit of quality")],
        partial(
            regret_plot,
            [run for run in top if run.label != "uniform"],
            f"{name}: {told}",
            out / f"{name}-regret",
        ),
        {"online": rows},
        {"regret": regret_points(name, passed)},
        _warnings(passed),
        passed=passed,
    )
    if len(protocol.worths) > 1:
        equal = equal_rows(passed, data)
        found.tables.append(_equal(name, equal, protocol))
        found.records["equal"] = equal
    return found


def floors_report(
    data: Labelled,
    entrants: Sequence[Entrant],
    protocol: Protocol,
    passed: Sequence[Passed],
    old: Exploration,
    *,
    jobs: int,
) -> Report:
    """What every policy earns at the `old` floor, beside the runs that `passed` at protocol's.

    Of these as many seeds as the protocol has; they may have passed with more.
    """
    name, worth = data.recorded.name, max(protocol.worths)
    again = replace(protocol, worths=(worth,), explore=old)
    before = runs(data, entrants, again, jobs, f"{name} floor {old.label}")
    after = [run for run in passed if run.worth == worth and run.seed < protocol.seeds]
    title = f"{name}: the floor, {old.label} and {protocol.explore.label}, {protocol.seeds} seeds"
    rows = floor_rows(before, after)
    heads = (old.label, protocol.explore.label)
    return Report([floor_table(rows, heads, title)], records={"floors": rows})


def sweep_report(
    data: Labelled, entrants: Sequence[Entrant], protocol: Protocol, *, jobs: int
) -> Report:
    """Bandit feedback at several worths: quality at equal cost and cost at equal quality."""
    name = data.recorded.name
    passed = runs(data, entrants, protocol, jobs, f"{name} sweep")
    equal = equal_rows(passed, data)
    points = {"sweep": regret_points(name, passed)}
    return Report(
        [_equal(name, equal, protocol)], None, {"equal": equal}, points, _warnings(passed)
    )


def _equal(name: str, rows: Sequence[EqualRow], protocol: Protocol) -> Table:
    worths = ", ".join(f"{worth:g}" for worth in sorted(protocol.worths))
    told = f"online curves over {worths} USD per unit of quality, {protocol.seeds} seeds"
    return equal_table(rows, f"{name}: {told}")


def change_report(
    data: Labelled,
    entrants: Sequence[Entrant],
    protocol: Protocol,
    scenarios: Sequence[str],
    *,
    jobs: int,
    out: Path,
    kind: str = "change",
) -> Report:
    """The best single arm changes half-way, in each of the scenarios; kind: names what is kept."""
    name = data.recorded.name
    changing = replace(protocol, scenarios=tuple(scenarios))
    passed = runs(data, entrants, changing, jobs, f"{name} {kind}")
    rows = change_rows(passed)
    table = change_table(rows, f"{name}: change half-way, {protocol.seeds} seeds")
    plot = partial(
        change_plot,
        [run for run in passed if run.label != "uniform" and run.reacts],
        scenarios,
        f"{name}: what happens to the best arm half-way",
        out / f"{name}-{kind}",
    )
    return Report(
        [table], plot, {kind: rows}, {kind: regret_points(name, passed)}, _warnings(passed)
    )


def regimes_report(
    data: Labelled, entrants: Sequence[Entrant], protocol: Protocol, *, jobs: int
) -> Report:
    """The same stream with bandit feedback only, with a warm start, and with full information.

    The warm part is `WARM_SHARE` of the queries by hash; every regime is judged on the others.
    """
    name = data.recorded.name
    warm, rest = split(data, WARM_SHARE, WARM_SALT)
    regimes = [regime for entrant in entrants for regime in regimes_of(entrant)]
    passed = runs(rest, regimes, protocol, jobs, f"{name} regimes", warm=warm)
    rows = online_rows(passed)
    title = f"{name}: what feedback is worth, {protocol.seeds} seeds, {len(rest)} queries"
    return Report([online_table(rows, title)], None, {"regimes": rows}, warnings=_warnings(passed))


def regimes_of(entrant: Entrant) -> list[Entrant]:
    """An entrant under bandit feedback, warm plus bandit, and full information.

    An entrant that learns from comparisons only has no run with full information.
    """
    label, only = entrant.label, entrant.feedback
    full = [replace(entrant, label=f"{label}, full information", feedback="full")]
    return [
        replace(entrant, label=f"{label}, {only} only"),
        replace(entrant, label=f"{label}, warm + {only}", warm=True),
        *(full if only == "bandit" else []),
    ]


def runs(
    data: Labelled,
    entrants: Sequence[Entrant],
    protocol: Protocol,
    jobs: int,
    what: str,
    warm: Labelled | None = None,
) -> list[Passed]:
    """Every run of `run_online` under a progress bar, in the order of the entrants."""
    total = len(tasks_of(entrants, protocol))
    done = run_online(data, entrants, protocol, warm=warm, jobs=jobs)
    order = {one.label: i for i, each in enumerate(entrants) for one in both_ways(each)}
    found = sorted(
        _shown(done, total, what, lambda run: f"{run.label} {run.means['policy'][0]:.3f}"),
        key=lambda run: (order[run.label], run.scenario, run.worth, run.seed),
    )
    return found


def _shown(done: Iterable[T], total: int, what: str, tell: Callable[[T], str]) -> Iterator[T]:
    with tqdm(total=total, desc=what, unit=" runs", disable=None, dynamic_ncols=True) as bar:
        for run in done:
            bar.set_postfix_str(tell(run), refresh=False)
            bar.update()
            yield run


def _warnings(passed: Sequence[Passed]) -> list[str]:
    failed: dict[str, int] = {}
    for run in passed:
        failed[run.label] = failed.get(run.label, 0) + run.fallbacks + run.failures
    return [f"{label}: failed to propose or to learn {n} times" for label, n in failed.items() if n]
