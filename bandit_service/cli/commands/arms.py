"""List the arms of a configuration or the known models, or add one to a configuration."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from bandit_service import settings
from bandit_service.cli.arm_tables import arm_table, document, upstream_table, write_checked
from bandit_service.cli.options import USAGE_ERROR, Usage, config
from bandit_service.core.arm_kinds import CHAT, EMBEDDING
from bandit_service.core.arm_request import EFFORTS
from bandit_service.core.deployments import upstreams_of
from bandit_service.data.known_models import KnownModel, KnownModels, known_models

_REQUEST = ("thinking_budget", "output_limit", "temperature", "service_tier")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `arms`."""
    actions = parser.add_subparsers(required=True, metavar="list|add")
    listing = actions.add_parser("list", help="list the arms of a configuration, or known models")
    config(listing)
    listing.add_argument(
        "--known", action="store_true", help="list the models whose list prices are known"
    )
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=_list)
    add = actions.add_parser("add", help="add a known model to a configuration file")
    add.add_argument("model", metavar="MODEL", help="MODEL or PROVIDER/MODEL")
    add.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=Path("bandit.toml"),
        help="the file to add to (default: bandit.toml)",
    )
    add.add_argument("--id", help="id of the arm (default: the model's name)")
    add.add_argument("--upstream", help="the upstream that serves it (default: its provider's)")
    add.add_argument(
        "--effort",
        action="append",
        choices=EFFORTS,
        default=[],
        help="reasoning effort; several add an arm for each, all of one family",
    )
    add.add_argument("--family", help="family of arms that share what is learned")
    add.add_argument(
        "--thinking-budget",
        type=int,
        metavar="TOKENS",
        help="maximum tokens of thinking (Anthropic)",
    )
    add.add_argument(
        "--output-limit", type=int, metavar="TOKENS", help="maximum tokens of an answer"
    )
    add.add_argument("--temperature", type=float, help="replaces the client's")
    add.add_argument("--service-tier", help="replaces the client's")
    add.add_argument(
        "--unrouted", action="store_true", help="only requests that name it get it (routed = false)"
    )
    add.set_defaults(run=_add)


def _list(args: argparse.Namespace) -> int:
    if args.known:
        return _list_known(known_models(), args.json)
    arms = settings.read(args.config).arms
    if args.json:
        print(msgspec.json.encode({"arms": arms}).decode())
        return 0
    for arm in arms:
        asked = msgspec.to_builtins(arm.request)
        words = [
            arm.family,
            "" if arm.kind == CHAT else arm.kind,
            "" if arm.routed else "not routed",
        ]
        more = "".join(f"  {word}" for word in words if word)
        print(
            f"{arm.id:<28} {','.join(upstreams_of(arm)) or '-':<12} {arm.usd_per_mtok_in:>8g} in "
            f"{arm.usd_per_mtok_out:>8g} out{more}{f'  {json.dumps(asked)}' if asked else ''}"
        )
    return 0


def _list_known(known: KnownModels, as_json: bool) -> int:
    if as_json:
        print(msgspec.json.encode(known).decode())
        return 0
    print(f"USD for a million tokens, as {known.version} had them on {known.date}:")
    print(f"{'provider/model':<34} {'in':>8} {'cached':>8} {'out':>8} {'context':>9}  can; source")
    for each in known.models:
        cached = "-" if each.usd_per_mtok_cached_in is None else f"{each.usd_per_mtok_cached_in:g}"
        can = [*each.capabilities, *(["reasoning"] if each.reasoning else [])]
        if each.kind == EMBEDDING:
            can.append(f"embedding of {each.dimensions or 'unknown'} dimensions")
        if each.dearer_above:
            can.append(f"dearer above {each.dearer_above}")
        print(
            f"{f'{each.provider}/{each.model}':<34} {each.usd_per_mtok_in:>8g} {cached:>8} "
            f"{each.usd_per_mtok_out:>8g} {each.context_window:>9}  {', '.join(can)}; {each.source}"
        )
    return 0


def _add(args: argparse.Namespace) -> int:
    known = known_models()
    try:
        model = known.model(args.model)
        if args.effort and not model.reasoning:
            raise Usage(f"--effort: {model.model} takes no reasoning effort, as far as is known")
        if args.thinking_budget and model.no_thinking_budget:
            raise Usage(f"--thinking-budget: {model.model} takes none; set --effort")
        if args.id and len(args.effort) > 1:
            raise Usage("--id: is one arm's; leave it out where --effort is there more than once")
        there = document(args.config)
        upstream = args.upstream or model.provider
        text = args.config.read_text(encoding="utf-8")
        text += "" if text.endswith("\n") else "\n"
        ids = _ids(there.get("upstreams"))
        if upstream not in ids and args.upstream is None:
            text += upstream_table(known.provider(model.provider))
        arms = [(_id(args, model, effort), effort) for effort in args.effort or [None]]
        for id, effort in arms:
            more = _more(args, model, effort)
            text += arm_table(model, id, upstream, known.date, more)
        write_checked(args.config, text)
    except (Usage, ValueError) as error:
        print(f"arms: {error}", file=sys.stderr)
        return USAGE_ERROR
    for id, _ in arms:
        print(f"added {id} to {args.config}")
    return 0


def _id(args: argparse.Namespace, model: KnownModel, effort: str | None) -> str:
    return args.id or (f"{model.model}-{effort}" if effort else model.model)


def _more(args: argparse.Namespace, model: KnownModel, effort: str | None) -> dict[str, Any]:
    """What the arm has besides the model's facts."""
    request: dict[str, Any] = {"reasoning_effort": effort} if effort else {}
    given = {name: getattr(args, name) for name in _REQUEST}
    request |= {name: value for name, value in given.items() if value is not None}
    family = args.family or (model.model if request else "")
    fields: dict[str, Any] = {"family": family} if family else {}
    return fields | ({"routed": False} if args.unrouted else {}) | {"request": request}


def _ids(tables: Any) -> list[str]:
    found = (each for each in tables or () if isinstance(each, dict))
    return [each["id"] for each in found if isinstance(each.get("id"), str)]
