"""`bandit-service experiments`: what runs, how it stands, and how it is changed."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from bandit_service.offpolicy import report
from bandit_service.offpolicy.fold import parsed

_ACTIONS = ("list", "results", "put", "start", "pause", "stop", "ramp", "whatif", "delete")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `experiments`."""
    parser.add_argument("action", choices=_ACTIONS, nargs="?", default="list")
    parser.add_argument("id", nargs="?", default="", help="the experiment; all but list need it")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the service")
    parser.add_argument("--key", default="", help="an API key; changes need the scope admin")
    parser.add_argument("--file", type=Path, help="put: the experiment as JSON")
    parser.add_argument("--share", type=float, help="ramp: the new share")
    parser.add_argument(
        "--policy",
        action="append",
        metavar="NAME[:PARAMETER=VALUE...]",
        help="whatif: what it would have earned; may be given several times",
    )
    parser.add_argument("--winner", default="", help="stop: the variant to keep")
    parser.add_argument("--ship", action="store_true", help="stop: what is kept serves from now on")
    parser.add_argument("--why", default="", help="the reason, which is written down")
    parser.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    """Do it; 0 done, 1 refused or not reached, 2 asked wrongly."""
    if args.action != "list" and not args.id:
        print(f"bandit-service: {args.action} needs the experiment's id", file=sys.stderr)
        return 2
    if args.action == "put" and args.file is None:
        print("bandit-service: put needs --file with the experiment as JSON", file=sys.stderr)
        return 2
    if args.action == "ramp" and args.share is None:
        print("bandit-service: ramp needs --share", file=sys.stderr)
        return 2
    if args.action == "whatif":
        try:
            args.candidates = [parsed(text) for text in args.policy or ()]
        except (ValueError, TypeError) as error:
            print(f"bandit-service: --policy: {error}", file=sys.stderr)
            return 2
    try:
        found = _ask(args)
    except urllib.error.HTTPError as error:
        try:
            message = json.loads(error.read())["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = f"status {error.code}"
        print(f"bandit-service: {message}", file=sys.stderr)
        return 1
    except urllib.error.URLError as error:
        print(f"bandit-service: {args.url} cannot be reached: {error.reason}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"bandit-service: {args.file}: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(found))
    elif args.action == "list":
        print(listed(found))
    elif args.action == "results":
        print(shown(found))
    elif args.action == "whatif":
        print(report.shown(found))
    else:
        print(f"{found['id']}: {found['status']}. {found['conclusion']}")
    return 0


def listed(found: dict[str, Any]) -> str:
    """All experiments, one line each."""
    lines = [f"{'experiment':24} {'status':9} {'share':>6} {'units':>8} {'decisions':>10}"]
    for one in found["experiments"]:
        share = one["experiment"].get("share", 1.0)
        lines.append(
            f"{one['id'][:24]:24} {one['status']:9} {share:6.1%} {one['units']:8d} "
            f"{one['decisions']:10d}"
        )
        lines.append(f"  {one['conclusion']}")
    rules = found["rules"]
    if rules.get("stopped"):
        lines.append("The kill switch is on: no unit is in any experiment.")
    if rules.get("holdout_share"):
        lines.append(f"{rules['holdout_share']:.1%} of the units are held out on "
                     f"{rules['holdout_arm']}.")  # fmt: skip
    return "\n".join(lines)


def shown(found: dict[str, Any]) -> str:
    """One experiment's results as a table, and what may be concluded."""
    primary = found["primary"]
    lines = [
        f"{found['id']}: {found['status']}, {found['share']:.1%} of {found['unit']}s, "
        f"by {primary}, learning: "
        + ", ".join(f"{one['key']} {one['learning']}" for one in found["variants"]),
        "",
        f"{'variant':16} {'decides by':18} {'weight':>7} {'units':>7} {'decisions':>9} "
        f"{primary:>10} {'from':>10} {'to':>10}  difference to control",
    ]
    for one in found["variants"]:
        at = one["metrics"][primary]
        mean = f"{at['mean']:10.4f}" if "mean" in at else f"{'-':>10}"
        low, high = (
            f"{at[side]:10.4f}" if at.get(side) is not None else f"{'-':>10}"
            for side in ("low", "high")
        )
        gap = one.get("difference")
        if gap is None:
            said = "control"
        elif gap["state"] != "shown":
            said = gap["state"]
        else:
            said = f"{gap['mean']:+.4f} ({gap['low']:+.4f} to {gap['high']:+.4f})"
        lines.append(
            f"{one['key'][:16]:16} {one['decides'][:18]:18} {one['weight']:7.1%} "
            f"{one['units']:7d} {one['decisions']:9d} {mean} {low} {high}  {said}"
            + ("  HELD" if one["held"] else "")
        )
    for one in found["shadows"]:
        said = one.get("why", "not enough data")
        if "reward" in one:
            said = f"reward {one['reward']:.4f} ({one['low']:.4f} to {one['high']:.4f})"
        agreement = one.get("agreement")
        agreed = "" if agreement is None else f"agrees {agreement:.1%}, "
        lines.append(f"{one['key'][:16]:16} shadow: {agreed}{said}")
    split, cost = found["split"], found["cost"]
    lines.append("")
    if split["sequential_p"] is None:
        lines.append(f"split: {split['state']}")
    else:
        lines.append(
            f"split {split['state']} (sequential p {split['sequential_p']:.3g}, chi-square p "
            f"{split['chi_square_p']:.3g}, which is for one look)"
        )
    for one in found["guardrails"]:
        said = one["why"] if one["state"] == "broken" else one["state"]
        lines.append(f"guardrail {one['metric']} of {one['variant']}: {said}")
    lines += [
        f"latency of {one['key']}: {_seconds(one['latency'])}"
        for one in found["variants"] if one["latency"]["state"] == "shown"
    ]  # fmt: skip
    for key, saved in cost["saved"].items():
        if saved["state"] == "shown":
            lines.append(
                f"{key} saves {saved['usd_per_decision']:+.6f} USD a decision "
                f"({saved['low']:+.6f} to {saved['high']:+.6f}) against {cost['against']}"
            )
    lines += ["", found["conclusion"]]
    return "\n".join([*lines, *(f"Note: {each}" for each in found["caveats"])])


def _seconds(latency: dict[str, Any]) -> str:
    said = []
    for name in ("p50", "p95"):
        one = latency[name]
        high = "?" if one["high"] is None else f"{one['high']:.3g}"
        other = f", differs with p {one['p']:.2g}" if "p" in one else ""
        said.append(f"{name} {one['value']:.3g} s ({one['low']:.3g} to {high}{other})")
    return "; ".join(said)


def _ask(args: argparse.Namespace) -> dict[str, Any]:
    path, id = "/v1/experiments", urllib.parse.quote(args.id, safe="")
    why = {"why": args.why} if args.why else {}
    match args.action:
        case "list":
            return _call(args, "GET", path)
        case "results":
            return _call(args, "GET", f"{path}/{id}/results")
        case "put":
            body = json.loads(args.file.read_text(encoding="utf-8"))
            return _call(args, "PUT", f"{path}/{id}", body | why)
        case "ramp":
            return _call(args, "PATCH", f"{path}/{id}", {"share": args.share} | why)
        case "delete":
            return _call(args, "DELETE", f"{path}/{id}?{urllib.parse.urlencode(why)}")
        case "stop":
            body = why | {"winner": args.winner, "ship": args.ship}
            return _call(args, "POST", f"{path}/{id}/stop", body)
        case "whatif":
            candidates = [{"name": c.name, "parameters": c.parameters} for c in args.candidates]
            return _call(args, "POST", f"{path}/{id}/whatif", {"policies": candidates})
        case _:
            return _call(args, "POST", f"{path}/{id}/{args.action}", why)


def _call(
    args: argparse.Namespace, method: str, path: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    if args.key:
        headers["Authorization"] = f"Bearer {args.key}"
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(  # noqa: S310 - the URL is the user's own
        args.url.rstrip("/") + path, data=data, headers=headers, method=method
    )
    with urllib.request.urlopen(asked, timeout=120) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
        return found
