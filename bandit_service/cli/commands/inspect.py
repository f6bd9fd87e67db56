"""Verify an event log, describe its contents, and repair it.

Verify the event log of a stopped service and describe its contents.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.cli import options
from bandit_service.core import events as ev
from bandit_service.runtime import recovery
from store import Corrupt, EventLog, Offset, can_trim, first_of, open_log, open_to_read
from store.salvage import Report, examine, repair, take_place
from store.snapshots import FileSnapshots

_EPILOG = """\
Exit status: 0 the log is intact or was repaired; 1 it is damaged or cannot be read.

--repair writes a new log with every intact record, and an empty record for each lost one. The new
log replaces the damaged one, which is kept as ...damaged-N.
docs/repair.md says what to do before and after.

examples:
  bandit-service inspect --config config.toml
  bandit-service inspect --config config.toml --repair
  bandit-service inspect --config config.toml --spool --repair"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `inspect`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", help="TOML configuration file (optional)")
    options.pool(parser)
    add("--repair", action="store_true", help="save what can be saved of a damaged log")
    add("--json", action="store_true", help="print JSON")
    add(
        "--spool",
        action="store_true",
        help="a replica's spool (log.spool) in place of its copy of the log",
    )


def run(args: argparse.Namespace) -> int:
    """Inspect, and repair if asked to; 0 the log is whole, 1 it is not."""
    chosen = options.settings_of(args)
    path = Path(chosen.data_dir) / (chosen.log.spool if args.spool else chosen.log.path)
    try:
        found = _spooled(path) if args.spool else _whole(chosen)
    except Corrupt as error:
        return _damaged(chosen, path, error, args)
    status = 1 if "state" in found else 0
    if args.json:
        print(json.dumps(found))
    else:
        _print(found)
        if args.repair:
            print("nothing to repair")
    return status


def _whole(chosen: settings.Settings) -> dict[str, Any]:
    """What is in a log of which every record is as it was written; Corrupt if one is not."""
    log = assembly.open_log(chosen, to_read=True)
    try:
        found: dict[str, Any] = {"events": log.last, **_counted(log)}
        snapshots = assembly.open_snapshots(chosen)
        found["snapshots"] = _listed(snapshots)
        try:
            found |= _started(log, chosen, snapshots)
        except (recovery.NotWhole, recovery.OtherPast, recovery.NotApplied) as error:
            found["state"] = str(error)
    finally:
        log.close()
    return found


def _spooled(path: Path) -> dict[str, Any]:
    """The same of a spool, of which there are no snapshots."""
    log = open_to_read(path)
    try:
        return {"events": log.last, **_counted(log)}
    finally:
        log.close()


def _started(log: EventLog, chosen: settings.Settings, snapshots: FileSnapshots) -> dict[str, Any]:
    """The state that a start would have, and that of the log alone if it differs."""
    recovered = recovery.recover(log, chosen, snapshots)
    world = recovered.world
    found: dict[str, Any] = {
        "pending": len(world.pending.decisions),
        "remembered": len(world.history.items),
        "policy": recovered.policy.name,
        "from_snapshot": recovered.after,
        "state_sha256": world.digest(),
    }
    if recovered.unknown:
        found["unknown"] = (
            f"{recovered.unknown} records are erased or lost, and no snapshot contains what they "
            "taught"
        )
    if recovered.after and first_of(log) == 1:
        alone = recovery.replayed(log, chosen, recovered.policy).world.digest()
        if alone != found["state_sha256"]:
            found["log_alone_sha256"] = alone
    return found


def _counted(log: EventLog) -> dict[str, Any]:
    """Reads and verifies every record that is kept."""
    first, kinds = first_of(log), dict[str, int]()
    total = log.last - first + 1
    with tqdm(total=total, desc="verifying", unit=" events", disable=None, leave=False) as bar:
        for _, body in log.replay(Offset(first - 1)):
            try:
                kind = ev.kind(ev.decode(body)) if body else "(erased or lost)"
            except msgspec.MsgspecError:
                kind = "(unknown to this version)"
            kinds[kind] = kinds.get(kind, 0) + 1
            bar.update()
    size = log.size_bytes if can_trim(log) else None
    return {"first": first, "last": log.last, "size_bytes": size, "kinds": kinds}


def _listed(snapshots: FileSnapshots) -> list[dict[str, Any]]:
    return [
        {
            "file": each.path.name,
            "offset": each.offset,
            "size_bytes": each.size_bytes,
            "valid": not each.why,
            "why": each.why,
        }
        for each in snapshots.found()
    ]


def _print(found: dict[str, Any]) -> None:
    for key, value in found.items():
        if key != "snapshots":
            print(f"{key:14} {value}")
            continue
        for each in value:
            valid = "valid" if each["valid"] else each["why"]
            print(f"{'snapshot':14} offset {each['offset']}, {each['size_bytes']} bytes, {valid}")
        if not value:
            print(f"{'snapshot':14} none")


def _damaged(
    chosen: settings.Settings, path: Path, error: Corrupt, args: argparse.Namespace
) -> int:
    """Report the damage and what can be saved; save it on request."""
    known = Offset(0) if args.spool else assembly.open_snapshots(chosen).newest(Offset(0))
    report = examine(path, known)
    told: dict[str, Any] = {
        "damaged": error.offset if report.damaged is None else report.damaged,
        "why": report.why or error.reason,
        "first": report.first,
        "last": report.last,
        "saved_before": report.before,
        "saved_after": report.after,
        "erased": report.erased,
        "lost": [list(each) for each in report.lost],
        "unverifiable": list(report.unverifiable),
        "repaired": False,
    }
    lines = [f"the log is damaged at offset {told['damaged']}: {told['why']}", *_lines(report)]
    saves = report.before + report.after > 0
    if not saves:
        lines.append(f"nothing can be saved: restore a backup of {path}, or move it away")
    elif args.repair:
        told.update(_repaired(None if args.spool else assembly.open_snapshots(chosen), path))
        lines += _told(told)
    else:
        spool = " --spool" if args.spool else ""
        lines.append(f"to save it: bandit-service inspect{spool} --repair (docs/repair.md)")
    print(json.dumps(told) if args.json else "\n".join(lines))
    return 0 if told["repaired"] else 1


def _lines(report: Report) -> list[str]:
    lines = [
        f"can be saved: {report.before} records before it, {report.after} after it"
        + (f" ({report.erased} of them erased before)" if report.erased else "")
    ]
    if report.lost:
        lines.append(f"lost: {report.lost_count} records, at offsets {_ranges(report)}")
    else:
        lines.append("lost: nothing")
    if report.unverifiable:
        count = len(report.unverifiable)
        lines.append(
            f"of those, {count} can be read but not verified, since the record before is lost or "
            "damaged: " + ", ".join(map(str, report.unverifiable))
        )
    return lines


def _ranges(report: Report) -> str:
    return ", ".join(
        str(first) if first == last else f"{first} to {last}" for first, last in report.lost
    )


def _repaired(snapshots: FileSnapshots | None, path: Path) -> dict[str, Any]:
    """Write the new log, verify it, set aside snapshots beyond it, and put it in place."""
    number = next(n for n in itertools.count(1) if not _taken(path, n))
    into = path.with_name(f"{path.name}.repaired")
    into.unlink(missing_ok=True)  # of a repair that was cut off
    repair(path, into, Offset(0) if snapshots is None else snapshots.newest(Offset(0)))
    log = open_log(into)
    try:
        for _ in log.replay(Offset(first_of(log) - 1)):
            pass
        first, last = first_of(log), log.last
    finally:
        log.close()
    aside = [] if snapshots is None else snapshots.set_aside(last, f".damaged-{number}")
    damaged = take_place(into, path, number)
    reached = (
        snapshots is None  # a spool begins wherever what it had before is in the shared log
        or first == 1
        or any(not each.why and each.offset >= first - 1 for each in snapshots.found())
    )
    return {
        "repaired": True,
        "kept_as": str(damaged),
        "set_aside": [each.name for each in aside],
        "startable": reached,
    }


def _taken(path: Path, number: int) -> bool:
    name = f"{path.name}.damaged-{number}"
    return any(path.with_name(name + ending).exists() for ending in ("", "-wal"))


def _told(told: dict[str, Any]) -> list[str]:
    lines = [
        f"repaired: the new log has offsets {told['first']} to {told['last']}; those of lost "
        "records are empty",
        f"the damaged log is kept as {told['kept_as']}",
    ]
    if told["set_aside"]:
        lines.append(
            f"snapshots of later offsets, set aside as ...damaged-N: {len(told['set_aside'])}"
        )
    if not told["startable"]:
        lines.append(
            "the service cannot start from it: older events were deleted by age or size, and no "
            "valid snapshot reaches the oldest one kept; restore a backup"
        )
    return lines
