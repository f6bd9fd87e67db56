"""List, start, ramp and stop experiments, and show their results."""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
import urllib.parse
from pathlib import Path
from typing import Any

from bandit_service.cli import options, refusals
from bandit_service.cli.experiments_tables import listed, ruled, shown
from bandit_service.cli.service_calls import asked
from bandit_service.offline.candidates import parsed
from bandit_service.offline.offpolicy import report
from bandit_service.parsing.inputs import text_of

_PATH = "/v1/experiments"
_HELP = {
    "list": "list all experiments with their conclusions",
    "results": "show the results of one experiment",
    "put": "create a draft from a file, or change an experiment",
    "start": "start, or resume after a pause",
    "pause": "stop assigning units until it is started again",
    "stop": "stop it and choose the variant to keep",
    "ramp": "change the share of the units; no unit changes its variant",
    "weights": "change the weights of the variants",
    "release": "reinstate a variant after its guardrail cool-down",
    "delete": "delete a draft or a finished experiment",
    "whatif": "estimate what other policies would have earned",
    "rules": "show or set the kill switch and the hold-out",
}


class _Wrong(Exception):
    """The command line or the file is wrong; the message says what to do."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `experiments`."""
    _common(parser)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    by_name = {name: actions.add_parser(name, help=text) for name, text in _HELP.items()}
    for name, each in by_name.items():
        _common(each, default=argparse.SUPPRESS)
        if name == "put":
            each.add_argument("id", nargs="?", default="", help="one experiment of the file")
        elif name not in ("list", "rules"):
            each.add_argument("id", help="id of the experiment")
    put, stop = by_name["put"], by_name["stop"]
    put.add_argument(
        "--file",
        type=Path,
        required=True,
        help="JSON or TOML file: one experiment, or a configuration's [[experiments]]",
    )
    put.add_argument("--start", action="store_true", help="start it too")
    stop.add_argument(
        "--winner", default="", help="variant to keep; default: the one shown to be best"
    )
    stop.add_argument("--ship", action="store_true", help="make the kept variant serve everybody")
    by_name["ramp"].add_argument(
        "--share", type=float, required=True, help="new share of the units, from 0 to 1"
    )
    by_name["weights"].add_argument("weights", nargs="+", metavar="VARIANT=WEIGHT")
    by_name["release"].add_argument("variant", help="the held variant")
    by_name["whatif"].add_argument(
        "--policy",
        action="append",
        metavar="NAME[:PARAMETER=VALUE...]",
        help="policy to evaluate; repeatable",
    )
    rules = by_name["rules"]
    rules.add_argument("--stopped", choices=("yes", "no"), help="the kill switch")
    rules.add_argument("--holdout-share", type=float, help="share of the units held out")
    rules.add_argument("--holdout-arm", help="arm of the held-out units")


def _common(parser: argparse.ArgumentParser, default: Any = None) -> None:
    def or_else(value: Any) -> Any:
        return value if default is None else default

    options.service(parser, "; changes need scope admin", suppressed=default is not None)
    parser.add_argument("--why", default=or_else(""), help="reason, recorded in the log")
    parser.add_argument("--json", action="store_true", default=or_else(False), help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Do it; 0 done, 1 refused or not reached, 2 asked wrongly."""
    args.action = args.action or "list"
    try:
        found = _ask(args)
    except _Wrong as wrong:
        print(f"bandit-service: {wrong}", file=sys.stderr)
        return 2
    except refusals.ANY as error:
        print(f"bandit-service: {refusals.said(error, args.url)}", file=sys.stderr)
        return 1
    print(json.dumps(found) if args.json else _said(args.action, found))
    return 0


def _said(action: str, found: Any) -> str:
    match action:
        case "list":
            return listed(found)
        case "results":
            return shown(found)
        case "whatif":
            return report.shown(found)
        case "rules":
            return "\n".join(ruled(found)) or "No kill switch, no hold-out."
        case "put":
            return "\n".join(f"{one['id']}: {one['status']}. {one['conclusion']}" for one in found)
        case "delete":
            return f"{found['id']}: deleted."
        case _:
            return f"{found['id']}: {found['status']}. {found['conclusion']}"


def _ask(args: argparse.Namespace) -> Any:
    why = {"why": args.why} if args.why else {}
    if args.action == "list":
        return _call(args, "GET", _PATH)
    if args.action == "rules":
        return _rules(args, why)
    if args.action == "put":
        return [_put(args, each, why) for each in _described(args.file, args.id)]
    path = f"{_PATH}/{urllib.parse.quote(args.id, safe='')}"
    match args.action:
        case "results":
            return _call(args, "GET", f"{path}/results")
        case "ramp":
            return _call(args, "PATCH", path, {"share": args.share} | why)
        case "weights":
            return _call(args, "PATCH", path, {"weights": _weights(args.weights)} | why)
        case "release":
            return _call(args, "PATCH", path, {"release": args.variant} | why)
        case "delete":
            return _call(args, "DELETE", f"{path}?{urllib.parse.urlencode(why)}")
        case "stop":
            body = why | {"winner": args.winner, "ship": args.ship}
            return _call(args, "POST", f"{path}/stop", body)
        case "whatif":
            try:
                candidates = [parsed(text) for text in args.policy or ()]
            except (ValueError, TypeError) as error:
                raise _Wrong(f"--policy: {error}") from None
            named = [{"name": one.name, "parameters": one.parameters} for one in candidates]
            return _call(args, "POST", f"{path}/whatif", {"policies": named})
        case _:
            return _call(args, "POST", f"{path}/{args.action}", why)


def _put(args: argparse.Namespace, body: dict[str, Any], why: dict[str, Any]) -> Any:
    path = f"{_PATH}/{urllib.parse.quote(body['id'], safe='')}"
    put = _call(args, "PUT", path, body | why)
    return _call(args, "POST", f"{path}/start", why) if args.start else put


def _described(file: Path, id: str) -> list[dict[str, Any]]:
    """The experiments of a file, or the one of this id."""
    try:
        text = text_of(file)
        found = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise _Wrong(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise _Wrong(
            f"{file}: not {'TOML' if file.suffix == '.toml' else 'JSON'}: {error}"
        ) from None
    several = found.get("experiments", [found]) if isinstance(found, dict) else found
    if not isinstance(several, list) or not all(isinstance(one, dict) for one in several):
        raise _Wrong(f"{file}: must hold an experiment, or a list of them as `experiments`")
    if id and len(several) == 1:
        several[0].setdefault("id", id)
    ids = [str(one.get("id", "")) for one in several]
    if not all(ids):
        raise _Wrong(f"{file}: an experiment has no id; write it there, or name it after put")
    if id and id not in ids:
        raise _Wrong(f"{file}: has no experiment {id!r}; it has {', '.join(ids)}")
    return [one for one in several if id in ("", one["id"])]


def _weights(given: list[str]) -> dict[str, float]:
    weights = {}
    for each in given:
        key, _, value = each.partition("=")
        try:
            weights[key] = float(value)
        except ValueError:
            raise _Wrong(f"{each!r}: must be VARIANT=WEIGHT, as control=0.5") from None
    return weights


def _rules(args: argparse.Namespace, why: dict[str, Any]) -> Any:
    path = "/v1/experiment-rules"
    rules = _call(args, "GET", path)
    wanted = {
        "stopped": None if args.stopped is None else args.stopped == "yes",
        "holdout_share": args.holdout_share,
        "holdout_arm": args.holdout_arm,
    }
    changes = {name: value for name, value in wanted.items() if value is not None}
    return _call(args, "PUT", path, rules | changes | why) if changes else rules


def _call(
    args: argparse.Namespace, method: str, path: str, body: dict[str, Any] | None = None
) -> Any:
    return asked(args.url, args.key, method, path, body, pool=args.pool)
