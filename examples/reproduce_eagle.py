"""Reproduce Eagle in ten minutes.

Eagle (arXiv 2409.15518v2) routes by Elo ratings, one of all comparisons and one of those of the
nearest queries. The paper claims two things: it chooses better than kNN, MLP and SVM (figure 3b),
and it takes in new feedback in a small part of their time (table 3). This repeats both on
recordings that pip installs: 70 % of the queries train, first 70 % of these, then 85 %, then all,
and the others are routed at every willingness to pay. The paper's own data, RouterBench, has to be
downloaded from its authors; name the file in DATA to measure on it.

    pip install '.[demo,evaluate]'     # in a clone
    python reproduce_eagle.py          # DATA=routerbench_0shot.pkl SEEDS=5
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bandit_service.data.recordings import BadRecording, embed_all, open_recording
from bandit_service.embedding import open_backend
from bandit_service.lab.data import Labelled
from bandit_service.lab.offline import UpdateRow, update_times
from bandit_service.lab.routers import KNN, MLP, SVM, OfflineRouter, eagle

MODEL, MODELS, VECTORS = "all-MiniLM-L6-v2", Path("var/models"), Path("var/embeddings")
ROUTERS: dict[str, OfflineRouter] = {"Eagle": eagle(), "kNN": KNN(), "MLP": MLP(), "SVM": SVM()}
"""As published: Eagle sees which of two answers was better, the others every answer's quality."""


def measured(data: str, seeds: int) -> list[UpdateRow]:
    """Areas and seconds of each router at each share of the training part, for each split."""
    recorded = open_recording(data)
    vectors = embed_all(recorded.texts, open_backend("onnx", MODEL, MODELS), MODEL, VECTORS)
    whole = Labelled(recorded, vectors)
    rows: list[UpdateRow] = []
    for seed in range(seeds):

        def tell(_: int, __: int, router: str, split: int = seed + 1) -> None:
            print(f"{data}, split {split} of {seeds}: {router}", file=sys.stderr)

        rows += update_times(whole, ROUTERS, seed=seed, progress=tell)
    return rows


def mean(rows: Sequence[UpdateRow], router: str, share: float, number: str) -> float:
    """Over the splits."""
    here = [row for row in rows if row.router == router and row.share == share]
    return float(np.mean([getattr(row, number) for row in here]))


def table(rows: Sequence[UpdateRow]) -> str:
    """A line for each router: the paper's area and the AUC, then the seconds of each step."""
    shares = sorted({row.share for row in rows})
    heads = " ".join(f"{f's at {share:.0%}':>10}" for share in shares)
    lines = [f"{'router':6} {'log-WTP AUC':>12} {'AUC':>8} {heads}"]
    for router in ROUTERS:
        seconds = " ".join(f"{mean(rows, router, share, 'seconds'):10.3f}" for share in shares)
        lines.append(
            f"{router:6} {mean(rows, router, shares[-1], 'log_wtp_auc'):12.3f} "
            f"{mean(rows, router, shares[-1], 'auc_linear'):8.4f} {seconds}"
        )
    return "\n".join(lines)


def claims(rows: Sequence[UpdateRow]) -> str:
    """The paper's two claims beside what was measured here."""
    last = max(row.share for row in rows)
    area = {router: mean(rows, router, last, "log_wtp_auc") for router in ROUTERS}
    above = [f"{name} {area['Eagle'] / area[name] - 1:+.1%}" for name in ("kNN", "MLP", "SVM")]
    fits = {router: mean(rows, router, last, "seconds") for router in ROUTERS}
    part = fits["Eagle"] / np.mean([fits["MLP"], fits["SVM"]])
    return (
        f"area against the others': {', '.join(above)} (paper: +4.0%, +3.6%, +22.2%)\n"
        f"time of the last update: {part:.2%} of the mean of MLP and SVM (paper: 0.5 to 1%)"
    )


def main() -> None:
    """A table and the claims for each recording."""
    given = os.environ.get("SEEDS", "3")
    if not given.isdecimal() or (seeds := int(given)) < 1:
        sys.exit(f"SEEDS: must be a number from 1 up, got {given!r}")
    for data in os.environ.get("DATA", "specialists paretobandit").split():
        try:
            rows = measured(data, seeds)
        except BadRecording as error:
            sys.exit(f"DATA: {error}")
        print(f"{data}\n{table(rows)}\n{claims(rows)}\n", flush=True)


if __name__ == "__main__":
    main()
