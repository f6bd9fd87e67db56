"""Check or show the configuration, or change that of a running service."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from bandit_service import settings
from bandit_service.cli import options, refusals, terminal
from bandit_service.cli.service_calls import asked
from bandit_service.core.configuration import KEYS, SECTIONS, Entry, named
from bandit_service.settings.live import RELOAD, RESTART, beside_sections, sections_of, shown
from bandit_service.settings.pool_logs import of_pool

_PATH = "/v1/configuration"
_TAKEN = {
    RESTART: "not applied: takes a restart with this file",
    RELOAD: "not applied: SIGHUP or a restart with this file takes it",
}
_NAMES = [name for name in SECTIONS if name != KEYS]
DIFFERENT = 1
"""The exit code of `diff` where there is a difference; 2 where it cannot be told."""
REFUSED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `config`."""
    actions = parser.add_subparsers(required=True, metavar="check|show|diff|apply|rollback|history")
    check = actions.add_parser(
        "check", help="check the configuration and report every mistake; exit 2 if there is one"
    )
    options.config(check)
    check.set_defaults(run=_config_check)
    show = actions.add_parser(
        "show", help="print every key with its value, its origin and its meaning"
    )
    options.config(show)
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=_config_show)
    diff = actions.add_parser(
        "diff",
        help="compare a file with a running service, in what can be changed at run time; exit 1 if "
        "they differ",
    )
    _file(diff)
    _of_service(diff, _diff, options.USAGE_ERROR)
    apply = actions.add_parser(
        "apply", help="make the configuration of a running service match a file"
    )
    _file(apply)
    _changes(apply, _apply)
    rollback = actions.add_parser(
        "rollback", help="restore the configuration of an earlier revision"
    )
    rollback.add_argument("revision", type=int, help="its number; `config history` lists them")
    _changes(rollback, _rollback)
    history = actions.add_parser("history", help="list the newest changes of a running service")
    _of_service(history, _history)


def _file(parser: argparse.ArgumentParser) -> None:
    """`--config`, without which `apply` would take everything away."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", required=True, help="TOML configuration file"
    )


def _of_service(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int],
    failed: int = REFUSED,
) -> None:
    options.service(parser, "; needs scope admin")
    parser.add_argument("--json", action="store_true", help="print JSON")

    def tried(args: argparse.Namespace) -> int:
        try:
            return run(args)
        except settings.BadSettings:
            raise
        except refusals.ANY as error:
            if isinstance(error, BrokenPipeError) and terminal.reader_left():
                return 0
            print(f"bandit-service: {refusals.said(error, args.url)}", file=sys.stderr)
            return failed

    parser.set_defaults(run=tried)


def _changes(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    _of_service(parser, run)
    parser.add_argument("--why", default="", help="reason, recorded in the log")
    parser.add_argument(
        "--if-match",
        default="",
        metavar="REVISION",
        help="refuse if another revision is in force (default: the one that is compared with)",
    )
    parser.add_argument(
        "--forget",
        action="append",
        default=[],
        metavar="ROUTE",
        help="a route whose policy may lose what it has learned; repeatable",
    )


def _config_check(args: argparse.Namespace) -> int:
    chosen = settings.read(args.config)
    if refused := settings.exposure(chosen):  # which would end the start
        raise settings.BadSettings([refused])
    for note in [
        *settings.not_configured(chosen),
        *settings.following(chosen),
        *settings.cut_off(chosen),
    ]:
        print(f"note: {note}", file=sys.stderr)
    print(f"configuration OK: {len(chosen.arms)} arms, policy {chosen.policy.name}")
    return 0


def _config_show(args: argparse.Namespace) -> int:
    chosen = settings.read(args.config)
    rows = []
    for key, (default, rule) in settings.rules().items():
        value: Any = chosen
        for part in key.split("."):
            value = getattr(value, part)
        rows.append(
            {
                "key": key,
                "value": value,
                "default": default,
                "origin": chosen.origins[key],
                "help": rule.help,
            }
        )
    arms = [msgspec.to_builtins(arm) for arm in chosen.arms]
    pools = [msgspec.to_builtins(pool.spec) for pool in chosen.pools]
    if args.json:
        tables = {"arms": arms, "arms_origin": chosen.origins["arms"], "pools": pools}
        print(json.dumps({"settings": rows, **tables}))
        return 0
    for row in rows:
        print(f"{row['key']} = {json.dumps(row['value'])}    # {row['help']} ({row['origin']})")
    for arm in arms:
        print(f"arms: {json.dumps(arm)} ({chosen.origins['arms']})")
    for pool in pools:
        print(f"pools: {json.dumps(pool)} ({chosen.origins['pools']})")
    return 0


# --- of a running service -----------------------------------------------------------------


def _diff(args: argparse.Namespace) -> int:
    chosen, running = _of_file(args), asked(args.url, args.key, "GET", _PATH, pool=args.pool)
    lines, others = _differences(running, shown(sections_of(chosen))), _others(running, chosen)
    if args.json:
        told = {"revision": running["revision"], "differences": lines, "not_applied": others}
        print(json.dumps(told))
    else:
        same = [] if lines or others else ["the same"]
        print("\n".join([_headed(running), *lines, *same, *others]))
    return DIFFERENT if lines or others else 0


def _apply(args: argparse.Namespace) -> int:
    chosen, running = _of_file(args), asked(args.url, args.key, "GET", _PATH, pool=args.pool)
    file = sections_of(chosen)
    told, others = shown(file), _others(running, chosen)
    if others and not args.json:  # before anything is applied
        print("\n".join(others), flush=True)
    changed = {name: file[name] for name in _NAMES if told[name] != running[name]}
    match = args.if_match or str(running["revision"])
    body = {**changed, "why": args.why, "forget": args.forget}
    found = asked(args.url, args.key, "PUT", _PATH, body, {"If-Match": match}, pool=args.pool)
    return _told(args, found, _differences(running, told), not_applied=others)


def _rollback(args: argparse.Namespace) -> int:
    running = asked(args.url, args.key, "GET", _PATH, pool=args.pool)
    match = args.if_match or str(running["revision"])
    body = {"to": args.revision, "why": args.why, "forget": args.forget}
    found = asked(
        args.url, args.key, "POST", f"{_PATH}/rollback", body, {"If-Match": match}, pool=args.pool
    )
    return _told(args, found, _differences(running, found))


def _history(args: argparse.Namespace) -> int:
    found = asked(args.url, args.key, "GET", _PATH, pool=args.pool)
    if args.json:
        print(json.dumps(found["history"]))
        return 0
    for row in found["history"]:
        when = datetime.fromtimestamp(row["ts"], UTC).isoformat(sep=" ", timespec="seconds")
        sections = ", ".join(row["changed"]) or "-"
        print(f"{row['revision']:>4}  {when}  {row['by']:<12} {sections:<24} {row['why']}")
    if not found["history"]:
        print("no change at run time: the service is what its file says")
    return 0


def _of_file(args: argparse.Namespace) -> settings.Settings:
    chosen = settings.read(args.config, secrets=False)
    pools = {each.spec.name: each for each in chosen.pools}
    return of_pool(chosen, pools[args.pool]) if args.pool in pools else chosen


def _others(running: dict[str, Any], chosen: settings.Settings) -> list[str]:
    """A line for each difference that `apply` leaves as it is, with what takes it over.

    A value that the service has from its environment or an option, or that is from the environment
    here, is none of the file's.
    """
    now, then = running["others"], beside_sections(chosen)
    there = {each["name"]: each for each in now["values"]}
    here = {each["name"]: each for each in then["values"]}
    lines = []
    for name in sorted(there | here):
        one = there.get(name) or here[name]
        origins = [there.get(name, {}).get("origin", ""), chosen.origins.get(name, "")]
        if there.get(name, {}).get("value") != here.get(name, {}).get("value") and not any(
            each.startswith(("--", settings.PREFIX)) for each in origins
        ):
            was, is_now = (
                json.dumps(each[name]["value"]) if name in each else "default"
                for each in (there, here)
            )
            lines.append(f"! {name}: {was} -> {is_now} ({_TAKEN[one['taken_by']]})")
    for table, digests in then["tables"].items():
        before = now["tables"].get(table, {})
        if digests != before and not chosen.origins.get(table, "").startswith(settings.PREFIX):
            ids = [id for id in digests | before if digests.get(id) != before.get(id)]
            lines.append(f"! {table}: {', '.join(ids) or 'the order'} ({_TAKEN[RELOAD]})")
    return lines


def _told(
    args: argparse.Namespace,
    found: dict[str, Any],
    lines: list[str],
    **more: list[str],
) -> int:
    if args.json:
        print(json.dumps({"revision": found["revision"], "differences": lines} | more))
    else:
        print("\n".join([*lines, _headed(found)] if lines else [_headed(found), "nothing changed"]))
    return 0


def _headed(running: dict[str, Any]) -> str:
    newest = running["history"][0] if running["history"] else None
    if newest is None:
        return "revision 0: no change at run time"
    why = f": {newest['why']}" if newest["why"] else ""
    return f"revision {running['revision']} by {newest['by']}{why}"


def _differences(running: dict[str, list[Entry]], wanted: dict[str, list[Entry]]) -> list[str]:
    """A line for each entry that is added, removed or changed; its fields as JSON."""
    lines = []
    for section in _NAMES:
        now, then = named(section, running[section]), named(section, wanted[section])
        for name in now | then:
            if name not in then:
                lines.append(f"- {section}.{name}")
            elif name not in now:
                lines.append(f"+ {section}.{name}: {json.dumps(then[name])}")
            elif now[name] != then[name]:
                fields = [
                    f"{field}: {_shown(now[name], field)} -> {_shown(then[name], field)}"
                    for field in now[name] | then[name]
                    if now[name].get(field) != then[name].get(field)
                ]
                lines.append(f"~ {section}.{name}: {', '.join(fields)}")
        if list(now) != list(then) and set(now) == set(then):
            lines.append(f"~ {section}: the order is {', '.join(then)}")
    return lines


def _shown(entry: Entry, field: str) -> str:
    return json.dumps(entry[field]) if field in entry else "default"
