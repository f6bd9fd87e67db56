"""Ask a running service a question: the decision, why, and the answer."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from typing import Any

import msgspec
from tqdm import tqdm

from bandit_service.cli import options, refusals
from bandit_service.core.arm_kinds import CHAT
from bandit_service.core.errors import Refused, ServiceError
from bandit_service.core.pools import POOL
from bandit_service.gateway.request import is_auto, of_chat


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `try`."""
    parser.add_argument("question")
    options.service(parser, " with the scopes decide and read")
    parser.add_argument(
        "--model", default="auto", help="auto, with or without preferences, or a model's id"
    )
    parser.add_argument("--no-answer", action="store_true", help="only decide; call no model")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Ask; 0 answered, 1 refused or not reached."""
    if not (args.key.isascii() and args.key.isprintable()):
        print("bandit-service: --key: must be printable ASCII", file=sys.stderr)
        return 1
    try:
        why = _explained(args)
        shown: dict[str, Any] = {"arms": why}
        if not args.no_answer:
            shown |= _answered(args)
    except ServiceError as error:
        print(f"bandit-service: {error.message}", file=sys.stderr)
        return 1
    except refusals.ANY as error:
        print(f"bandit-service: {refusals.said(error, args.url)}", file=sys.stderr)
        return 1
    print(json.dumps(shown) if args.json else _text(shown))
    return 0


def _explained(args: argparse.Namespace) -> dict[str, Any]:
    """Why, of the request that the gateway makes of the question and the model's name."""
    body = _chat(args)
    policy = args.model.partition("?")[0].partition(":")[2]
    listed = _sent(args, "/v1/models")[0]["data"]
    there = [each["id"] for each in listed if each.get("kind", CHAT) == CHAT]
    routes = [each["id"] for each in listed if each.get("route") and not is_auto(each["id"])]
    request = of_chat(body, {}, [policy], routes=routes).decide
    if request.arms is None and not request.route and not args.no_answer:  # that can be called
        request.arms = [id for id in there if not is_auto(id, routes)]
        if not request.arms:
            raise Refused("no arm has an upstream that could answer; --no-answer only decides")
    given = msgspec.to_builtins(request)
    asked = {name: value for name, value in given.items() if value is not None}
    found: dict[str, Any] = _sent(args, "/v1/explain", asked)[0]
    return found


def _answered(args: argparse.Namespace) -> dict[str, Any]:
    with tqdm(total=1, desc="asking", disable=None, leave=False):
        answer, headers = _sent(args, "/v1/chat/completions", _chat(args))
    message = answer["choices"][0]["message"]
    return {
        "decision_id": headers.get("x-decision-id"),
        "arm": headers.get("x-arm"),
        "cost_usd": float(headers["x-cost-usd"]) if "x-cost-usd" in headers else None,
        "answer": message.get("content") or json.dumps(message.get("tool_calls")),
    }


def _chat(args: argparse.Namespace) -> dict[str, Any]:
    return {"model": args.model, "messages": [{"role": "user", "content": args.question}]}


def _sent(args: argparse.Namespace, path: str, body: Any = None) -> tuple[Any, Any]:
    headers = {"Content-Type": "application/json"}
    if args.key:
        headers["Authorization"] = f"Bearer {args.key}"
    if args.pool:
        headers[POOL] = args.pool
    request = urllib.request.Request(  # noqa: S310 - the address is the caller's own
        args.url.rstrip("/") + path, None if body is None else json.dumps(body).encode(), headers
    )
    with urllib.request.urlopen(request, timeout=600) as answer:  # noqa: S310 - same
        return json.loads(answer.read()), answer.headers


def _text(shown: dict[str, Any]) -> str:
    why = shown["arms"]
    lines = [
        f"policy {why['policy']}",
        "",
        f"{'arm':32} {'drawn with':>10} {'score':>8} {'bonus':>8} {'− cost':>8} "
        f"{'quality (95 %)':>20} {'n':>6} {'USD':>10} {'s':>6}",
    ]
    lines += [
        f"{arm['id']:32} {arm['propensity']:10.3f} {arm['score']:8.3f} "
        f"{_or_dash(arm.get('bonus'), '8.3f')} {_or_dash(arm.get('cost'), '8.3f')} "
        f"{_expected(arm['expected']):>20} {_or_dash(arm['expected']['n'], '6.4g')} "
        f"{_or_dash(arm['cost_usd'], '10.6f')} "
        f"{_or_dash(arm.get('latency_s'), '6.1f')}"
        for arm in sorted(why["arms"], key=lambda each: -each["propensity"])
    ]
    lines += [f"{id:32} left out: {reason}" for id, reason in why["left_out"].items()]
    lines += ["", f"rests on {len(why['neighbours'])} past queries"]
    for each in why["neighbours"][:5]:
        told = ", ".join(
            f"{outcome['arm']} {outcome['reward']:.2f}" for outcome in each["outcomes"]
        )
        lines.append(f"  {each['similarity']:.3f}  {told}")
    if "answer" in shown:
        cost = "" if shown["cost_usd"] is None else f" for {shown['cost_usd']:.6f} USD"
        lines += ["", f"{shown['arm']} answered{cost}, decision {shown['decision_id']}:"]
        lines += ["", shown["answer"]]
    return "\n".join(lines)


def _expected(told: dict[str, Any]) -> str:
    """What is expected of an arm; of one that nothing came of, only that."""
    if told.get("untried"):
        return "untried"
    if told["value"] is None:
        return "–"
    if "low" not in told:
        return f"{told['value']:.3f}"
    return f"{told['value']:.3f} ({told['low']:.2f}–{told['high']:.2f})"


def _or_dash(value: float | None, form: str) -> str:
    width = int(form.split(".")[0])
    return f"{'–':>{width}}" if value is None else format(value, form)
