"""Regenerate docs/results.md, and a page for each recording in the data directory."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

import bandit_service
from bandit_service.cli.commands.evaluate import entrants_of
from bandit_service.cli.options import tell_skipped
from bandit_service.core.exploration import Exploration
from bandit_service.data.recordings import (
    PARETOBANDIT,
    SPECIALISTS,
    BadRecording,
    embed_all,
    open_recording,
)
from bandit_service.embedding import Backend, open_backend
from bandit_service.lab import output, reports
from bandit_service.lab.change import SILENT
from bandit_service.lab.data import Labelled
from bandit_service.lab.offline import parts, update_times
from bandit_service.lab.online import Protocol
from bandit_service.lab.pairs import load_pairs
from bandit_service.lab.processes import keeping
from bandit_service.lab.routers import standard
from bandit_service.settings import Settings
from loadtest.results import claims, experiments, latency
from loadtest.results.found import Found, save, saved
from loadtest.results.page import overview, with_claims

_DEFAULTS = Settings()
_SWEEP = (1e-3, 1e-2, 1e-1)
_MANY = 5_000
_OLD_FLOOR = Exploration(floor=0.01)
_SCENARIOS = ("joins", "dearer", "price x60", "retires")
_LEARNERS = ("nested", "eagle", "forc", "knn", "metallm", "metallm@paper", "epsilon_greedy")


def main(argv: Sequence[str] | None = None) -> int:
    """All recordings, one after the other; a missing one is skipped with a message."""
    args = _arguments(argv)
    if args.render:
        return _render(args)
    backend = open_backend(
        _DEFAULTS.embedding.backend, _DEFAULTS.embedding.model, args.state / "models"
    )
    kept = args.records / "runs"
    if not args.resume:
        shutil.rmtree(kept, ignore_errors=True)
    with keeping(kept):
        for source in _sources(args):
            try:
                data = _labelled(source, backend, args)
            except BadRecording as error:
                print(f"skipped: {error}", file=sys.stderr)
                continue
            save((_claimed if args.claims else _recording)(data, args), args.records)
            _render(args)  # after each, so that what took so long is not lost with the rest
    _session(args)
    _votes(backend, args)
    return _render(args)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.results", description=__doc__)
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        default=Path("../shared/data"),
        metavar="DIR",
        help="directory of NAME.jsonl.gz and NAME.meta.json (default: %(default)s)",
    )
    add("--only", action="append", metavar="NAME", help="only this recording; repeatable")
    add(
        "--seeds",
        type=int,
        default=20,
        help="seeds of runs that take seconds (default: %(default)s)",
    )
    add("--few", type=int, default=5, help="seeds of runs that take longer (default: %(default)s)")
    add(
        "--splits",
        type=int,
        default=3,
        help="splits of the offline protocol (default: %(default)s)",
    )
    add(
        "--claims",
        action="store_true",
        help="only run what the section on the papers' claims needs",
    )
    add("--render", action="store_true", help="only write results.md again, from --records")
    add(
        "--old-floor",
        action="store_true",
        help="also run every policy with the earlier exploration floor, 0.01 per arm",
    )
    add(
        "--resume",
        action="store_true",
        help="continue an interrupted run: use the runs of this code in --records",
    )
    add("--limit", type=int, help="use only the first N queries of each recording, to try it out")
    add(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        help="number of processes (default: %(default)s)",
    )
    add(
        "--out",
        type=Path,
        default=Path("docs"),
        metavar="DIR",
        help="directory for results.md and results/ (default: %(default)s)",
    )
    add(
        "--records",
        type=Path,
        default=Path("evaluate-results"),
        metavar="DIR",
        help="directory for JSON and Parquet files (default: %(default)s)",
    )
    add(
        "--state",
        type=Path,
        default=Path(_DEFAULTS.data_dir),
        metavar="DIR",
        help="directory of models and embeddings (default: %(default)s)",
    )
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
    sources |= {PARETOBANDIT: PARETOBANDIT, SPECIALISTS: SPECIALISTS}
    return [source for name, source in sources.items() if not args.only or name in args.only]


def _labelled(source: str, backend: Backend, args: argparse.Namespace) -> Labelled:
    recorded = open_recording(source)
    tell_skipped(recorded)
    if args.limit is not None:
        recorded = recorded.first(args.limit)
    cache = args.state / "embeddings"
    return Labelled(recorded, embed_all(recorded.texts, backend, _DEFAULTS.embedding.model, cache))


def _recording(data: Labelled, args: argparse.Namespace) -> Found:
    """All protocols on one recording, and its page as soon as they are done."""
    name = data.recorded.name
    figures = args.out / "results"
    many = len(data) <= _MANY
    protocol = Protocol(
        seeds=args.seeds if many else args.few,
        neighbours=_DEFAULTS.history.neighbours,
        capacity=_DEFAULTS.history.capacity,
    )
    few = replace(protocol, seeds=args.few)
    entrants = entrants_of(None)
    learners = [entrant for entrant in entrants if entrant.label in _LEARNERS]
    told = [
        reports.offline_report(data, standard(), seeds=args.splits, jobs=args.jobs, out=figures),
        reports.online_report(data, entrants, protocol, jobs=args.jobs, out=figures),
    ]
    found = _new(data)
    found.offline = told[0].offline
    found.online = told[1].records["online"]
    if args.old_floor:
        told.append(
            reports.floors_report(data, entrants, few, told[1].passed, _OLD_FLOOR, jobs=args.jobs)
        )
    if many:
        sweep = replace(few, worths=_SWEEP)
        told += [
            reports.sweep_report(data, learners, sweep, jobs=args.jobs),
            reports.change_report(
                data, entrants, few, SILENT, jobs=args.jobs, out=figures, kind="silent-change"
            ),
            reports.change_report(data, learners, few, _SCENARIOS, jobs=args.jobs, out=figures),
            reports.regimes_report(data, learners, few, jobs=args.jobs),
        ]
    _claims(found, data, few, args)
    records = {key: value for report in told for key, value in report.records.items()}
    output.write_json(args.records / f"{name}.json", records)
    for report in told:
        for kind, points in report.points.items():
            output.write_parquet(args.records / f"{name}-{kind}.parquet", points)
    _write(figures / f"{name}.md", _page(data, told))
    return found


def _claimed(data: Labelled, args: argparse.Namespace) -> Found:
    """What the papers' claims need of one recording; its page stays as it is."""
    found = _new(data)
    told = reports.offline_report(data, standard(), seeds=args.splits, jobs=args.jobs, out=args.out)
    found.offline = told.offline
    few = Protocol(
        seeds=args.few,
        neighbours=_DEFAULTS.history.neighbours,
        capacity=_DEFAULTS.history.capacity,
    )
    _claims(found, data, few, args)
    return found


def _new(data: Labelled) -> Found:
    _, test = parts(data, experiments.SHARE, 0)
    return Found(data.recorded.name, len(data), len(test), experiments.singles(data))


def _claims(found: Found, data: Labelled, few: Protocol, args: argparse.Namespace) -> None:
    """What only the papers' claims need."""
    if len(data) <= _MANY:
        found.metallm = experiments.metallm(data, few, args.jobs)
    chosen = {each: standard()[each] for each in ("kNN", "MLP", "SVM", "MetaLLM", "Eagle")}
    with tqdm(total=len(chosen), desc=f"{found.name} updates", disable=None) as bar:
        found.updates = update_times(
            data, chosen, progress=lambda done, _total, _what: bar.update(done - bar.n)
        )
    found.sessions = experiments.sessions(data.recorded, args.seeds)
    found.assigned = experiments.assigned(data)


def _session(args: argparse.Namespace) -> None:
    """PickLLM on real response times, which no other recording has."""
    try:
        recorded = latency.session(args.data)
    except BadRecording as error:
        print(f"skipped: {error}", file=sys.stderr)
        return
    data = Labelled(recorded, np.zeros((len(recorded), 1), np.float32))
    found = Found(recorded.name, len(recorded), 0, experiments.singles(data))
    found.sessions = experiments.sessions(recorded, args.seeds)
    assert recorded.latency is not None
    found.latency = float(np.nanmean(recorded.latency))
    save(found, args.records)


def _votes(backend: Backend, args: argparse.Namespace) -> None:
    """Eagle on people's votes, which it is made for."""
    for path in sorted(args.data.glob("pairs_*.jsonl.gz")):
        try:
            pairs = load_pairs(path)
        except BadRecording as error:
            print(f"skipped: {error}", file=sys.stderr)
            continue
        cache = args.state / "embeddings"
        vectors = embed_all(pairs.texts, backend, _DEFAULTS.embedding.model, cache)
        found = Found(pairs.name, len(pairs), 0, [])
        found.votes = experiments.votes(pairs, vectors, args.few)
        save(found, args.records)


def _render(args: argparse.Namespace) -> int:
    """results.md from what the runs left behind."""
    every = saved(args.records)
    if not any(each.offline for each in every):
        print(f"there are no results in {args.records}", file=sys.stderr)
        return 1
    found = [each for each in every if each.offline]
    sections = [
        claims.eagle(found),
        claims.metallm(found),
        claims.pickllm(every),
        claims.two_models(found),
        claims.forc(found),
        claims.votes(every),
    ]
    path = args.out / "results.md"
    if args.claims:
        _write(path, with_claims(path.read_text(encoding="utf-8"), sections))
    else:
        _write(path, overview(found, sections))
    return 0


def _page(data: Labelled, told: Sequence[reports.Report]) -> str:
    quality, cost = np.nanmean(data.quality, axis=0), np.nanmean(data.cost, axis=0)
    parts = [
        f"# {data.recorded.name}",
        f"{len(data)} queries, {len(data.arms)} models. `make results` wrote this page with "
        f"version {bandit_service.__version__}. [Evaluation](../evaluation.md) defines the "
        "protocols and columns.",
        "| model | quality | USD/1000 |\n| --- | ---: | ---: |\n"
        + "\n".join(
            f"| {data.arms[k]} | {quality[k]:.4f} | {1000 * cost[k]:.4f} |"
            for k in np.argsort(-quality).tolist()
        ),
    ]
    for report in told:
        parts += [table.markdown() for table in report.tables]
        parts += [f"![{f.stem}]({f.name})" for f in report.draw() if f.suffix == ".png"]
        parts += report.warnings
    return "\n\n".join(parts) + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(path, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
