"""Your first A/B test, in one file.

Half of the users get today's model, the others a router that learns. Their questions and what each
model's answer was worth and cost are recorded (the package paretobandit), so no key is needed. Look
as often as you like: the intervals hold at every look. docs/first-ab-test.md explains each step.

    pip install ./bandit_client '.[demo]'     # in a clone
    make run                                  # the service, in another terminal
    python ab_test.py                         # USERS=1000 for more
"""

from __future__ import annotations

import os
import time

from bandit_client import Client, ExperimentResults
from bandit_service.data.recordings import open_recording

ID = "first-ab-test"
VARIANTS = [
    {"key": "today", "arm": "gemini-2.5-pro", "weight": 0.5},
    {"key": "router", "policy": "metallm", "weight": 0.5},
]


def begin(client: Client) -> None:
    """Make the experiment and start it; one of an earlier run of this file is deleted."""
    if any(each.id == ID for each in client.experiments().experiments):
        if client.experiment(ID).status in ("running", "paused"):
            client.stop_experiment(ID, why="run again")
        client.delete_experiment(ID, why="run again")
    client.put_experiment(ID, {"variants": VARIANTS, "primary": "reward"})
    client.start_experiment(ID, why="is the router worth it?")
    while client.experiment(ID).status == "starting":  # its policies learn from the log first
        time.sleep(0.1)


def ask(client: Client, first: int, last: int) -> None:
    """As many users ask; each keeps their variant."""
    recorded = open_recording("paretobandit")
    models = [arm.id.split("/")[-1] for arm in recorded.arms]
    for i in range(first, last):
        decision = client.decide(recorded.texts[i], unit=f"user-{i}")
        k = models.index(decision.arm)  # here your model would answer, and your user say how well
        quality, cost = float(recorded.quality[i][k]), float(recorded.cost[i][k])
        client.reward(decision, quality=quality, cost_usd=cost)


def show(results: ExperimentResults) -> None:
    """Each variant's mean with its interval, the difference, and the conclusion."""
    for one in results.variants:
        at = one.metrics[results.primary]
        between = "" if at.low is None else f" ({at.low:.3f} to {at.high:.3f})"
        mean = "no outcome yet" if at.mean is None else f"{at.mean:.3f}{between}"
        print(f"  {one.key}: {one.units} users, reward {mean}")
        gap = one.difference
        if gap is not None and gap.mean is not None:
            print(f"    difference {gap.mean:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})")
    print(f"  {results.conclusion}")


def main() -> None:
    """Begin, look early, look again, stop."""
    users = int(os.environ.get("USERS", "600"))
    with Client() as client:
        begin(client)
        for first, last in ((0, users // 10), (users // 10, users)):
            ask(client, first, last)
            print(f"after {last} users:")
            show(client.experiment_results(ID))
        stopped = client.stop_experiment(ID, why="the example is over")
        print(f"stopped: {stopped.conclusion}")


if __name__ == "__main__":
    main()
