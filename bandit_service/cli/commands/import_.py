"""Warm start: create an event log from Vowpal Wabbit's, or from a table of decisions.

Create a new event log from another system's log.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bandit_service import settings
from bandit_service.cli import options
from bandit_service.cli.options import Usage
from bandit_service.core import events as ev
from bandit_service.core.history import ITEMS_PER_EVENT
from bandit_service.data import dsjson, open_bandit
from bandit_service.data.log_source import Unreadable
from bandit_service.data.logged import ForeignSource, source_of
from bandit_service.embedding import open_backend
from store import DEFAULT, Record, open_log

_BATCH = 500
_EPILOG = """\
Every line becomes a decision and its reward in the event log of a new service. Its policies then
start with what the other system learned. The contexts must be embeddings of the
configured model, and the propensities of all arms must be known. Arms that are not configured are
retired at the end. Where several processes share a log, `migrate` then copies it to the database.
docs/off-policy.md has the formats.

example:
  bandit-service import --from-dsjson old.dsjson --config config.toml && bandit-service serve ..."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `import`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--from-dsjson", type=Path, metavar="FILE", help="Vowpal Wabbit's DSJSON")
    source.add_argument(
        "--from-obd", type=Path, metavar="FILE", help="a table like the Open Bandit Dataset's"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML configuration file (optional)"
    )
    options.pool(parser)


def run(args: argparse.Namespace) -> int:
    """Import; 0 done, 1 the file cannot be read, 2 it cannot be used here."""
    chosen = options.settings_of(args)
    source = _read(args, chosen)
    _check(source, chosen)
    events = [*source.all, *_end(source, chosen)]
    engine = DEFAULT if chosen.log.shared else chosen.log.engine
    _write(events, Path(chosen.data_dir) / chosen.log.path, engine)
    decisions = sum(isinstance(event, ev.Decided) for event in events)
    rewards = sum(isinstance(event, ev.Rewarded) for event in events)
    print(f"{decisions} decisions and {rewards} outcomes written to the log in {chosen.data_dir}")
    if chosen.log.shared:
        print("the database has none of them yet: `bandit-service migrate` copies them there")
    return 0


def _read(args: argparse.Namespace, chosen: settings.Settings) -> ForeignSource:
    path = args.from_dsjson or args.from_obd
    if not path.is_file():
        raise Unreadable(f"there is no file {path}")
    log = Path(chosen.data_dir) / chosen.log.path
    if log.exists():
        raise Usage(
            f"data_dir: there is a log at {log} already; import into a directory without one"
        )
    lines = dsjson.read(path) if args.from_dsjson else open_bandit.read(path)
    told = tqdm(lines, "reading", unit=" decisions", disable=None, leave=False, file=sys.stderr)
    history = chosen.history
    return source_of(told, path, chosen.arms, history.neighbours, history.capacity)


def _check(source: ForeignSource, chosen: settings.Settings) -> None:
    if not source.known:
        raise Usage(
            "only the drawn arm's probability is known, and the log is to hold those of "
            "all: give columns action_dist_ARM"
        )
    first = next(event for event in source.all if isinstance(event, ev.Decided))
    dim, of = len(first.embedding) // 4, chosen.embedding
    made = open_backend(of.backend, of.model, Path(chosen.data_dir) / "models").dim
    if dim != made:
        raise Usage(
            f"the contexts have {dim} numbers and embedding.model makes {made}: give "
            "embeddings of the model that is to serve"
        )


def _end(source: ForeignSource, chosen: settings.Settings) -> Iterator[ev.AnyEvent]:
    """The closing events: no decision waits for a reward, and arms that are not configured are
    retired.
    """
    ts = max(event.ts for event in source.all)
    ids = iter([event.id for event in source.all if isinstance(event, ev.Decided)])
    while some := tuple(islice(ids, ITEMS_PER_EVENT)):
        yield ev.DecisionsExpired(ts=ts, ids=some)
    configured = {arm.id for arm in chosen.arms}
    for event in source.all:
        if isinstance(event, ev.ArmAdded) and event.arm.id not in configured:
            yield ev.ArmRetired(ts=ts, id=event.arm.id, source="import")


def _write(events: Sequence[ev.AnyEvent], path: Path, engine: str) -> None:
    """The log takes its name when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".importing")
    _remove(partial)
    try:
        log = open_log(partial, engine)
        try:
            records = _records(events)
            bar: tqdm[Any] = tqdm(
                total=len(events),
                desc="writing",
                unit=" events",
                disable=None,
                leave=False,
                file=sys.stderr,
            )
            with bar:
                while batch := list(islice(records, _BATCH)):
                    log.append(batch)
                    bar.update(len(batch))
            log.sync()
        finally:
            log.close()
        partial.rename(path)
    finally:
        for left in path.parent.glob(partial.name + "*"):
            _remove(left)


def _remove(path: Path) -> None:
    """A log is a file, or a directory, by its engine."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _records(events: Sequence[ev.AnyEvent]) -> Iterator[Record]:
    owners: dict[str, str] = {}
    for i, event in enumerate(events, 1):
        eid, owner = f"import {i}", ""
        if isinstance(event, ev.Decided):
            eid = event.id
            owner = owners[event.id] = ev.owner_of(event.tenant, event.unit)
        elif isinstance(event, ev.Rewarded):
            owner = owners[event.decision_id]
        yield Record(eid, ev.kind(event), event.ts, ev.encode(event), owner)
