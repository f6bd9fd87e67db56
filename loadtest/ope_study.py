"""Off-policy estimates beside the truth, on recordings where every model's outcome is known.

    python -m loadtest.ope_study [--data FILE ...] [--seeds 10] [--limit N] [--markdown FILE]

A policy decides a whole recording through the service's own fold; what it wrote down is all that
the estimators see. The truth is the mean of the candidate's probabilities times what every arm
would have earned.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

import policies
from bandit_service.core import events as ev
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import (
    PARETOBANDIT,
    Recorded,
    embed_all,
    open_recording,
)
from bandit_service.embedding import open_backend
from bandit_service.offline.candidates import parsed
from bandit_service.offline.offpolicy.fold import Asked, LogEvaluation, Sample, along
from bandit_service.offline.offpolicy.report import TITLES, How, report
from bandit_service.offline.simulate import order_of, simulate
from bandit_service.settings import Settings
from loadtest.sections import put_section
from policies import Floats, Vector

SERVED = Exploration()
LOGGING = (
    ("uniform", SERVED),
    ("epsilon_greedy:epsilon=0.3", SERVED),
    ("epsilon_greedy", SERVED),
    ("metallm", Exploration(floor=0.01)),
    ("metallm", SERVED),
    ("metallm", Exploration(share=0.005)),
    ("nested", SERVED),
)
CANDIDATES = ("uniform", "epsilon_greedy:epsilon=0.2", "metallm", "knn", "nested")
SHOWN = ("ips", "clipped_ips", "snips", "dm", "dr", "switch_dr", "shrunk_dr")
RULE = RewardRule(Settings().reward.willingness_to_pay)


@dataclass(frozen=True, slots=True)
class Judged:
    """One candidate on one log: the truth, and what was said of it.

    explored: n·ε/K of the log. estimates: value, and the ends of the bootstrap interval, by name.
    sequence: its ends.
    """

    log: str
    candidate: str
    truth: float
    ess: float
    explored: float
    refused: str
    estimates: dict[str, tuple[float, float, float]]
    sequence: tuple[float, float]


def logged(
    recorded: Recorded, vectors: Vector, policy: str, explore: Exploration, seed: int
) -> list[ev.AnyEvent]:
    """Everything that the service would have written down while `policy` decided."""
    chosen = parsed(policy)
    events: list[ev.AnyEvent] = []
    simulate(
        recorded,
        vectors,
        policies.load(chosen.name, **chosen.parameters),
        seed=seed,
        explore=explore,
        rule=RULE,
        heard=events.append,
    )
    return events


def judged(
    recorded: Recorded,
    vectors: Vector,
    log: tuple[str, Exploration],
    candidates: Sequence[str],
    seed: int,
    rounds: int = 1000,
) -> Iterator[Judged]:
    """Every candidate on one log, figures shown also where they are refused."""
    events = logged(recorded, vectors, *log, seed)
    asked = Asked(candidates=tuple(parsed(each) for each in candidates))
    past = along(events, asked)
    found = report(past, How(anyway=True, rounds=rounds))
    worth = _worth(recorded, past, seed)
    for i, one in enumerate(found["policies"]):
        estimates = {
            name: (at["value"], at["low"], at["high"]) for name, at in one["estimates"].items()
        }
        over = one["overlap"]
        yield Judged(
            _title(*log),
            candidates[i],
            float((past.sample().targets[i] * worth).sum(1).mean()),
            over["effective_size"],
            over["explored_per_arm"],
            one["why"] or "",
            estimates,
            (one["sequence"]["low"], one["sequence"]["high"]),
        )


def _worth(recorded: Recorded, past: LogEvaluation, seed: int) -> Floats:
    """(n, k) what every arm would have earned on every decision, 0 where it was not eligible."""
    sample: Sample = past.sample()
    column = {arm.id: k for k, arm in enumerate(recorded.arms)}
    at = [column[arm] for arm in sample.arms]
    rows = order_of(recorded, seed)[[int(id.rpartition("-")[2]) for id in sample.ids]]
    worth = np.zeros((len(rows), len(at)))
    for i, row in enumerate(rows.tolist()):
        for j, k in enumerate(at):
            quality, cost = float(recorded.quality[row, k]), float(recorded.cost[row, k])
            if np.isfinite(quality):
                worth[i, j] = RULE.scalar(quality, cost, 0.0, RULE.willingness_to_pay)
    return worth


def table(rows: Sequence[Judged]) -> str:
    """Root mean squared errors in thousandths, and how often the truth was within."""
    heads = [
        "log",
        "policy",
        "truth",
        "effective size",
        "n·ε/K",
        "refused",
        *(TITLES[name] for name in SHOWN),
        "SNIPS within",
        "DR within",
        "sequence within",
        "sequence's width",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for key in dict.fromkeys((row.log, row.candidate) for row in rows):
        mine = [row for row in rows if (row.log, row.candidate) == key]
        kept = [row for row in mine if not row.refused]
        cells = [
            *key,
            f"{np.mean([row.truth for row in mine]):.4f}",
            f"{np.mean([row.ess for row in mine]):.0f}",
            f"{np.mean([row.explored for row in mine]):.0f}",
            f"{len(mine) - len(kept)} of {len(mine)}",
        ]
        if kept:
            for name in SHOWN:
                errors = [row.estimates[name][0] - row.truth for row in kept]
                cells.append(f"{1000.0 * float(np.sqrt(np.mean(np.square(errors)))):.1f}")
            for name in ("snips", "dr"):
                inside = [
                    row.estimates[name][1] <= row.truth <= row.estimates[name][2] for row in kept
                ]
                cells.append(f"{sum(inside)} of {len(kept)}")
            inside = [row.sequence[0] <= row.truth <= row.sequence[1] for row in kept]
            cells.append(f"{sum(inside)} of {len(kept)}")
            cells.append(f"{np.mean([row.sequence[1] - row.sequence[0] for row in kept]):.3f}")
        else:
            cells += ["–"] * (len(SHOWN) + 4)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _title(policy: str, explore: Exploration) -> str:
    return policy if explore == SERVED else f"{policy}, {explore.label}"


def main() -> None:
    """Run the study and print, or write, its tables."""
    parser = argparse.ArgumentParser(description="Off-policy estimates beside the truth.")
    parser.add_argument("--data", action="append", help=f"recordings; default: {PARETOBANDIT}")
    parser.add_argument("--seeds", type=int, default=10, help="orders of each recording")
    parser.add_argument("--limit", type=int, help="only the first queries of each")
    parser.add_argument("--markdown", type=Path, help="write the tables into this file's section")
    args = parser.parse_args()
    chosen, parts = Settings(), []
    for data in args.data or [PARETOBANDIT]:
        recorded = open_recording(data)
        if args.limit is not None:
            recorded = recorded.first(args.limit)
        model, directory = chosen.embedding.model, Path(chosen.data_dir)
        backend = open_backend(chosen.embedding.backend, model, directory / "models")
        vectors = embed_all(recorded.texts, backend, model, directory / "embeddings")
        tasks = [(log, seed) for log in LOGGING for seed in range(args.seeds)]
        rows = [
            row
            for log, seed in tqdm(tasks, desc=recorded.name, unit=" logs", disable=None)
            for row in judged(recorded, vectors, log, CANDIDATES, seed)
        ]
        parts.append(
            f"**{recorded.name}**, {len(recorded)} queries, {len(recorded.arms)} arms, "
            f"{args.seeds} orders:\n\n{table(rows)}"
        )
    text = "\n\n".join(parts)
    print(text)
    if args.markdown is not None:
        put_section(args.markdown, "ope-study", text)


if __name__ == "__main__":
    main()
