"""My policy wins: a proof.

The policy of mine/slopes.py is held to every law that the service's own policies keep. Then it is
compared with two of them on the recordings that pip installs. All see the same queries in the same
orders, so the difference is taken order by order, and its 95 % interval says what may be concluded.

    pip install '.[demo,evaluate,testing]'     # in a clone
    python my_policy_wins.py                   # SEEDS=20 DATA=traffic.jsonl.gz
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

import policies
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import BadRecording, embed_all, open_recording
from bandit_service.embedding import open_backend
from bandit_service.lab.summary import Interval, interval
from bandit_service.offline.simulate import simulate, stream
from bandit_service.testing import NotApplicable, all_laws
from policies import Floats

MINE, OTHERS = "slopes", ("nested", "epsilon_greedy")
MODEL, MODELS, VECTORS = "all-MiniLM-L6-v2", Path("var/models"), Path("var/embeddings")

policies.add_directory(str(Path(__file__).with_name("mine")))


def laws_kept(name: str) -> int:
    """How many laws apply and hold; AssertionError where one is broken."""
    kept = 0
    for law in all_laws().values():
        try:
            law(lambda: policies.load(name))
            kept += 1
        except NotApplicable:
            pass  # of something optional that the policy does not do
    return kept


def rewards(data: str, seeds: int) -> dict[str, Floats]:
    """Mean reward of each policy in each order of the recording, learning included."""
    recorded = open_recording(data)
    vectors = embed_all(recorded.texts, open_backend("onnx", MODEL, MODELS), MODEL, VECTORS)
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        print(f"{data}, order {seed + 1} of {seeds}", file=sys.stderr)
        recall = stream(recorded, vectors, seed=seed, neighbours=20, capacity=20_000)
        for name in (MINE, *OTHERS):
            run = simulate(
                recorded,
                vectors,
                policies.load(name),
                seed=seed,
                explore=Exploration(),
                rule=RewardRule(willingness_to_pay=0.1),
                recall=recall,
            )
            found.setdefault(name, []).append(float(run.track.reward.mean()))
    return {name: np.array(values) for name, values in found.items()}


def verdict(gain: Interval) -> str:
    """What the interval of a difference allows to be said."""
    if gain.mean - gain.half > 0:
        return "better"
    return "worse" if gain.mean + gain.half < 0 else "no difference shown"


def main() -> None:
    """Laws first, then a line for each recording and each policy that mine is compared with."""
    given = os.environ.get("SEEDS", "10")
    if not given.isdecimal() or (seeds := int(given)) < 2:
        sys.exit(f"SEEDS: must be a number from 2 up, got {given!r}: one order has no interval")
    print(f"{MINE} keeps {laws_kept(MINE)} laws", flush=True)
    for data in os.environ.get("DATA", "specialists paretobandit").split():
        try:
            found = rewards(data, seeds)
        except BadRecording as error:
            sys.exit(f"DATA: {error}")
        print(f"{data}, {seeds} orders: mean reward of {MINE} {found[MINE].mean():.4f}")
        for other in OTHERS:
            gain = interval(found[MINE] - found[other])
            print(
                f"  {other} {found[other].mean():.4f}, difference {gain.mean:+.4f} ± "
                f"{gain.half:.4f}: {verdict(gain)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
