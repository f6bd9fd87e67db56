"""Langfuse scores become rewards.

Reads scores that were exported from Langfuse and reports each to the service as the quality of its
decision. A score finds its decision by its trace: give the trace the decision's id when you begin
it. The id is a UUID, and without its hyphens it is a trace id as Langfuse and OpenTelemetry want:

    trace_id = decision.decision_id.replace("-", "")

An older trace may name it in its metadata, as "decision_id"; then export the traces, too.

    pip install ./bandit_client                              # in a clone
    make run                                                 # the service, in another terminal
    python langfuse_rewards.py scores.jsonl --name helpful --scale 1 5

Run it as often as you like: a score that was reported before changes nothing, and one that was
changed in Langfuse takes the place of the earlier one.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bandit_client import BanditError, Client

BATCH = 200


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """JSON lines, one list, or pages of the API: each object of them."""
    text = path.read_text(encoding="utf-8-sig").strip()
    try:
        whole = [json.loads(text)]
    except json.JSONDecodeError:
        whole = [json.loads(line) for line in text.splitlines() if line.strip()]
    for each in whole:
        found = each.get("data", each) if isinstance(each, dict) else each
        for one in found if isinstance(found, list) else [found]:
            if not isinstance(one, dict):
                raise ValueError(f"{path}: must have JSON objects, got {one!r:.40}")
            yield one


def decision_of(trace: str, named: dict[str, str]) -> str | None:
    """The decision's id: named in the trace's metadata, or the trace's own id as a UUID."""
    if trace in named:
        return named[trace]
    try:
        return str(uuid.UUID(trace))
    except ValueError:
        return None


def quality_of(score: dict[str, Any], worst: float, best: float) -> float | None:
    """The value from 0 to 1, None for one that is no number of the scale."""
    value = score.get("value")
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, int | float):
        return None
    if score.get("dataType") == "BOOLEAN":
        return float(value)
    quality = (value - worst) / (best - worst)
    return quality if 0.0 <= quality <= 1.0 else None


def rewards_of(
    found: list[dict[str, Any]], name: str, worst: float, best: float
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """What to report, the newest score of each decision; and what was left out, by reason."""
    named = {
        row["id"]: str(row["metadata"]["decision_id"])
        for row in found
        if isinstance(row.get("metadata"), dict) and "decision_id" in row["metadata"]
    }
    newest: dict[str, tuple[str, float]] = {}
    left_out: Counter[str] = Counter()
    for row in found:
        if "value" not in row:
            continue  # a trace
        decision = decision_of(str(row.get("traceId", "")), named)
        quality = quality_of(row, worst, best)
        if row.get("name") != name:
            left_out[f"another score than {name}"] += 1
        elif decision is None:
            left_out["its trace is of no decision"] += 1
        elif quality is None:
            left_out[f"no number from {worst:g} to {best:g}"] += 1
        else:
            newest[decision] = max(
                newest.get(decision, ("", 0.0)), (str(row.get("updatedAt") or ""), quality)
            )
    rewards = [
        {"decision_id": id, "quality": quality, "correction": True}
        for id, (_, quality) in newest.items()
    ]
    return rewards, left_out


def main() -> int:
    """Report the scores; 0 where each was taken, or is of a decision that is not kept any more."""
    parser = argparse.ArgumentParser(description="Report Langfuse's scores as rewards.")
    parser.add_argument("files", nargs="+", type=Path, help="exported scores, and traces")
    parser.add_argument("--name", required=True, help="the score that is the quality")
    parser.add_argument(
        "--scale", nargs=2, type=float, default=(0.0, 1.0), metavar=("WORST", "BEST")
    )
    args = parser.parse_args()
    worst, best = args.scale
    if worst == best:
        parser.error("--scale: WORST and BEST must differ")
    try:
        found = [row for path in args.files for row in rows(path)]
    except (OSError, ValueError) as error:
        parser.error(f"files: {error}")
    rewards, left_out = rewards_of(found, args.name, worst, best)
    statuses: Counter[str] = Counter()
    try:
        with Client() as client:
            for i in range(0, len(rewards), BATCH):
                for result in client.rewards(rewards[i : i + BATCH]):
                    error_code = result.error.code if result.error else ""
                    statuses[error_code or result.status] += 1
    except BanditError as error:
        print(f"the service took {sum(statuses.values())} scores, then: {error}", file=sys.stderr)
        return 1
    for what, n in sorted(statuses.items()):
        print(f"{what}: {n}")
    for why, n in sorted(left_out.items()):
        print(f"left out, {why}: {n}")
    return 0 if set(statuses) <= {"accepted", "duplicate", "expired", "unknown"} else 1


if __name__ == "__main__":
    sys.exit(main())
