"""Regenerate docs/results.md and a page per recording, from what lies in the data directory."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

import bandit_service
from bandit_service.embedding import Backend, open_backend
from bandit_service.evaluate import output, reports
from bandit_service.evaluate.data import Labelled
from bandit_service.evaluate.evaluate_cli import entrants_of
from bandit_service.evaluate.offline import OfflineRow, UpdateRow, update_times
from bandit_service.evaluate.online import Passed, Protocol
from bandit_service.evaluate.routers import standard
from bandit_service.evaluate.summary import OnlineRow
from bandit_service.recorded import PARETOBANDIT, BadRecording, embed_all, open_recording
from bandit_service.replay_cli import tell_left_out
from bandit_service.settings import Settings
from loadtest.results import claims
from loadtest.results.latency import session
from loadtest.results.page import overview

_DEFAULTS = Settings()
_SWEEP = (1e-4, 1e-3, 1e-2, 1e-1)
_MANY_CELLS = 50_000
_LEARNERS = ("eagle", "forc", "knn", "metallm", "metallm@paper", "routellm_sw", "epsilon_greedy")


@dataclass
class Found:
    """What the claims and the overview read, by recording."""

    data: dict[str, Labelled] = field(default_factory=dict)
    offline: dict[str, list[OfflineRow]] = field(default_factory=dict)
    online: dict[str, list[OnlineRow]] = field(default_factory=dict)
    updates: dict[str, list[UpdateRow]] = field(default_factory=dict)
    metallm: dict[str, tuple[Labelled, list[Passed]]] = field(default_factory=dict)


def main(argv: Sequence[str] | None = None) -> int:
    """Everything, one recording after the other; what is not there is skipped with a message."""
    args = _arguments(argv)
    found = Found()
    backend = open_backend(
        _DEFAULTS.embedding.backend, _DEFAULTS.embedding.model, args.state / "models"
    )
    for source in _sources(args):
        try:
            data = _labelled(source, backend, args)
        except BadRecording as error:
            print(f"skipped: {error}", file=sys.stderr)
            continue
        found.data[data.recorded.name] = data
        _recording(data, found, args)
    if not found.data:
        print(f"there is no recording in {args.data}", file=sys.stderr)
        return 1
    _write(args.out / "results.md", overview(found.offline, found.online, _claims(found, args)))
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.results", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=Path("../shared/data"), metavar="DIR",
        help="where NAME.jsonl.gz and NAME.meta.json lie (default: %(default)s)")  # fmt: skip
    add("--only", action="append", metavar="NAME", help="these recordings only")
    add("--seeds", type=int, default=20, help="where a run costs seconds (default: %(default)s)")
    add("--few", type=int, default=5, help="where it costs more (default: %(default)s)")
    add("--limit", type=int, help="the first so many queries of each, to try it out")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    add("--out", type=Path, default=Path("docs"), metavar="DIR",
        help="results.md and results/ go there (default: %(default)s)")  # fmt: skip
    add("--records", type=Path, default=Path("evaluate-results"), metavar="DIR",
        help="JSON and Parquet go there (default: %(default)s)")  # fmt: skip
    add("--state", type=Path, default=Path(_DEFAULTS.data_dir), metavar="DIR",
        help="where models and embeddings are kept (default: %(default)s)")  # fmt: skip
    return parser.parse_args(argv)


def _sources(args: argparse.Namespace) -> list[str]:
    listed = sorted(args.data.glob("*.meta.json")) if args.data.is_dir() else []
    if not listed:
        print(f"skipped: there is no recording in {args.data}", file=sys.stderr)
    names = {path.name.removesuffix(".meta.json"): path for path in listed}
    sources = {
        name: str(path.with_name(f"{name}.jsonl.gz"))
        if path.with_name(f"{name}.jsonl.gz").exists()
        else str(path.with_name(f"{name}.jsonl"))
        for name, path in names.items()
    }
    sources[PARETOBANDIT] = PARETOBANDIT
    return [source for name, source in sources.items() if not args.only or name in args.only]


def _labelled(source: str, backend: Backend, args: argparse.Namespace) -> Labelled:
    recorded = open_recording(source)
    tell_left_out(recorded)
    if args.limit is not None:
        recorded = recorded.first(args.limit)
    cache = args.state / "embeddings"
    return Labelled(recorded, embed_all(recorded.texts, backend, _DEFAULTS.embedding.model, cache))


def _recording(data: Labelled, found: Found, args: argparse.Namespace) -> None:
    """All protocols on one recording, and its page as soon as they are done."""
    name = data.recorded.name
    figures = args.out / "results"
    many = data.quality.size <= _MANY_CELLS
    protocol = Protocol(
        seeds=args.seeds if many else args.few,
        floor=_DEFAULTS.exploration.floor,
        floor_share=_DEFAULTS.exploration.floor_share,
        neighbours=_DEFAULTS.history.neighbours,
        capacity=_DEFAULTS.history.capacity,
    )
    few = replace(protocol, seeds=args.few)
    entrants = entrants_of(None)
    learners = [entrant for entrant in entrants if entrant.label in _LEARNERS]
    scenarios = ("joins", "degrades", "dearer", "retires")
    told = [
        reports.offline_report(data, standard(), seeds=args.few, jobs=args.jobs, out=figures),
        reports.online_report(data, entrants, protocol, jobs=args.jobs, out=figures),
    ]
    found.offline[name] = told[0].offline
    found.online[name] = told[1].records["online"]
    if many:
        sweep = replace(few, worths=_SWEEP)
        told.append(reports.sweep_report(data, learners, sweep, jobs=args.jobs))
        told.append(
            reports.change_report(data, learners, few, scenarios, jobs=args.jobs, out=figures)
        )
        told.append(reports.regimes_report(data, learners, few, jobs=args.jobs))
        train, test = claims.metallm_parts(data)
        of = claims.metallm_entrants()
        found.metallm[name] = (
            test,
            reports.runs(test, of, few, args.jobs, f"{name} MetaLLM", warm=train),
        )
    chosen = {each: standard()[each] for each in ("kNN", "MLP", "SVM", "MetaLLM", "Eagle")}
    with tqdm(total=len(chosen), desc=f"{name} updates", disable=None) as bar:
        found.updates[name] = update_times(
            data, chosen, progress=lambda done, _total, _what: bar.update(done - bar.n)
        )
    records = {key: value for report in told for key, value in report.records.items()}
    output.write_json(args.records / f"{name}.json", records)
    for report in told:
        for kind, points in report.points.items():
            output.write_parquet(args.records / f"{name}-{kind}.parquet", points)
    _write(figures / f"{name}.md", _page(data, told))


def _page(data: Labelled, told: Sequence[reports.Report]) -> str:
    quality, cost = np.nanmean(data.quality, axis=0), np.nanmean(data.cost, axis=0)
    parts = [
        f"# {data.recorded.name}",
        f"{len(data)} queries, {len(data.arms)} models. Made by `make results`, version "
        f"{bandit_service.__version__}; the protocols and the columns are defined in "
        "[evaluation](../evaluation.md).",
        "| model | quality | USD/1000 |\n| --- | ---: | ---: |\n"
        + "\n".join(
            f"| {data.arms[k]} | {quality[k]:.4f} | {1000 * cost[k]:.4f} |"
            for k in np.argsort(-quality).tolist()
        ),
    ]
    for report in told:
        parts += [table.markdown() for table in report.tables]
        parts += [f"![{f.stem}]({f.name})" for f in report.figures if f.suffix == ".png"]
        parts += report.warnings
    return "\n\n".join(parts) + "\n"


def _claims(found: Found, args: argparse.Namespace) -> list[str]:
    whole: Mapping[str, Labelled] = found.data
    sessions = {name: data.recorded for name, data in whole.items()}
    try:
        sessions["llmfao"] = session(args.data)
    except BadRecording as error:
        print(f"skipped: {error}", file=sys.stderr)
    return [
        claims.eagle(found.updates),
        claims.metallm(found.metallm) if found.metallm else "",
        claims.pickllm(sessions, args.seeds),
        claims.two_models(found.offline, whole),
        claims.forc(found.offline),
    ]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(path, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
