"""Ask every arm every question, and write the recording.

    python -m loadtest.specialists --out bandit_service/data/specialists

The questions and the answers depend on the seed and the versions of the programs alone. What an
answer cost does not: it is the processor time that it took on this machine. What the README says
of the files, their hashes and the share of right answers, is printed at the end.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import json
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bandit_service.embedding import estimate_tokens
from loadtest.specialists.arms import NAMES, arms, ask
from loadtest.specialists.question import Question
from loadtest.specialists.questions import questions
from loadtest.specialists.scoring import score

NAME = "specialists"
USD_PER_CPU_HOUR = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when the recording is written."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.specialists", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, help="only the first N questions")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that ask")
    args = parser.parse_args(arguments)

    _write(args.out, _asked(questions(args.seed)[: args.limit], args.jobs), args.seed)
    return 0


def _asked(asked: Sequence[Question], jobs: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for row in pool.imap(_row, enumerate(asked, start=1)):
            rows.append(row)
            if len(rows) % 20 == 0:
                print(f"{len(rows)} of {len(asked)} questions", flush=True)
    return rows


_pool = functools.cache(arms)  # loaded once in every process


def _row(numbered: tuple[int, Question]) -> dict[str, Any]:
    number, question = numbered
    given = {name: ask(arm, question.text) for name, arm in _pool().items()}
    return {
        "query_id": f"{NAME}-{number}",
        "text": question.text,
        "task": question.task,
        "quality": [
            score(question.check, question.accepted, question.rejected, one.text)
            for one in given.values()
        ],
        "cost": [float(f"{one.cpu_s * USD_PER_CPU_HOUR / 3600:.3g}") for one in given.values()],
        "check": question.check,
        "accepted": question.accepted,
        "rejected": question.rejected,
        "answers": [one.text for one in given.values()],
    }


def _write(directory: Path, rows: Sequence[dict[str, Any]], seed: int) -> None:
    models = list(NAMES)
    spent = {name: sum(row["cost"][k] for row in rows) for k, name in enumerate(models)}
    tokens = {
        name: sum(
            estimate_tokens(len(row["text"])) + estimate_tokens(len(row["answers"][k]))
            for row in rows
        )
        for k, name in enumerate(models)
    }
    meta = {
        "models": models,
        "usd_per_million_tokens": {
            # What a token cost on average, so that an arm's list price says what it is.
            name: dict.fromkeys(
                ("input", "output"), float(f"{spent[name] / tokens[name] * 1e6:.2g}")
            )
            for name in models
        },
        "usd_per_cpu_hour": USD_PER_CPU_HOUR,
        "seed": seed,
    }
    directory.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    # No name and no time in the header: equal rows make equal files.
    (directory / f"{NAME}.jsonl.gz").write_bytes(gzip.compress(lines.encode(), 9, mtime=0))
    (directory / f"{NAME}.meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    for written in sorted(directory.glob(f"{NAME}.*")):
        print(f"| `{written.name}` | {hashlib.sha256(written.read_bytes()).hexdigest()} |")
    print("\n".join(_table(rows)))


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown: the share of right answers by kind and arm."""
    lines = [f"| kind | questions | {' | '.join(NAMES)} |", "| --- " * (len(NAMES) + 2) + "|"]
    for kind in [*sorted({row["task"] for row in rows}), ""]:
        quality = [row["quality"] for row in rows if kind in ("", row["task"])]
        shares = [f"{sum(column) / len(quality):.2f}" for column in zip(*quality, strict=True)]
        lines.append(f"| {' | '.join([kind or 'all', str(len(quality)), *shares])} |")
    return lines
