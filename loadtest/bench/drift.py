"""Drift on recorded streams: false alarms, delay, reward with and without reactions, and the cost.

    python -m loadtest.bench.drift [--data DIR] [--seeds 5] [--jobs 2] [--markdown docs/drift.md]

Half-way the best arm's quality is halved and nobody says so (`evaluate/change.py`). Each stream is
also run without any change. The baseline is the same stream without detection, whose decisions are
those of detection without a reaction.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

import policies
from bandit_service.core import events as ev
from bandit_service.core.decide import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.core.world import World
from bandit_service.drift import DriftRules, DriftWatch, available
from bandit_service.embedding import open_backend
from bandit_service.evaluate.change import phases_of
from bandit_service.evaluate.data import Labelled
from bandit_service.evaluate.pool import in_processes
from bandit_service.evaluate.tables import Table, number
from bandit_service.recall import Recall
from bandit_service.replay.recorded import PARETOBANDIT, BadRecording, embed_all, open_recording
from bandit_service.replay.simulate import simulate, stream
from bandit_service.settings import Settings
from loadtest.drift_cost import cost
from loadtest.drift_queries import queries
from loadtest.sections import put_section

RULE = RewardRule(0.10)
REACTIONS = {
    "none": DriftRules(),
    "keep 0.1": DriftRules(keep=0.1),
    "explore 0.05": DriftRules(explore=0.05, decisions=500),
    "both": DriftRules(keep=0.1, explore=0.05, decisions=500),
}
POLICIES = ("metallm", "knn", "eagle", "epsilon_greedy", "pickllm_q")


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm: after how many decisions, of which arm, by which detector."""

    step: int
    arm: str
    detector: str
    direction: str


@dataclass(frozen=True, slots=True)
class Seen:
    """One run. before, after, last: mean reward of the first and second half, the last quarter."""

    policy: str
    scenario: str
    reaction: str
    n: int
    before: float
    after: float
    last: float
    best_after: float
    alarms: tuple[Alarm, ...]
    worse: str

    @property
    def found(self) -> Alarm | None:
        """The first alarm, after the change, of the arm that changed."""
        hits = (a for a in self.alarms if a.step > self.n // 2 and a.arm == self.worse)
        return next(hits, None) if self.scenario == "degrades" else None

    @property
    def false(self) -> int:
        """Alarms before the change, or all of a world without one."""
        end = self.n // 2 if self.scenario == "degrades" else self.n
        return sum(alarm.step <= end for alarm in self.alarms)


_here: list[Labelled] = []


def _begin(data: Labelled) -> None:
    _here[:] = [data]
    _recall.cache_clear()


@lru_cache(maxsize=2)
def _recall(seed: int) -> Recall:
    data = _here[0]
    return stream(data.recorded, data.embeddings, seed=seed, neighbours=20, capacity=20_000)


def run(policy: str, scenario: str, reaction: str, seed: int) -> Seen:
    """One pass over the stream of this process."""
    data = _here[0]
    phases = phases_of(scenario, data.recorded, RULE)
    watch, alarms = DriftWatch(REACTIONS[reaction]), list[Alarm]()

    def react(event: ev.AnyEvent, world: World) -> ev.AnyEvent | None:
        alarm = watch.happened(event, world)
        if alarm is not None:
            told = (world.decisions, alarm.arm, alarm.detector, alarm.direction)
            alarms.append(Alarm(*told))
        return alarm

    done = simulate(
        data.recorded, data.embeddings, policies.load(policy), seed=seed, explore=Exploration(),
        rule=RULE, phases=phases, recall=_recall(seed), react=react,
    )  # fmt: skip
    n, reward = len(done.order), done.track.reward
    gone = phases[-1].recorded.quality - phases[0].recorded.quality
    worse = data.recorded.arms[int(np.nanargmin(np.nansum(gone, axis=0)))].id
    return Seen(
        policy, scenario, reaction, n, float(reward[: n // 2].mean()),
        float(reward[n // 2 :].mean()), float(reward[n - n // 4 :].mean()),
        float(done.baselines.best.reward[n // 2 :].mean()), tuple(alarms), worse,
    )  # fmt: skip


def streams(
    data: Labelled, names: Sequence[str], seeds: int, jobs: int
) -> tuple[list[Seen], Table, Table]:
    """Every policy on one recording: all runs, the table of alarms and that of rewards."""
    kinds = [("steady", "none"), ("steady", "both"), *(("degrades", name) for name in REACTIONS)]
    tasks = [(name, *kind, seed) for seed in range(seeds) for name in names for kind in kinds]
    bar = tqdm(total=len(tasks), desc=data.recorded.name, unit=" runs", disable=None)
    seen = []
    for one in in_processes(_begin, (data,), run, tasks, jobs):
        seen.append(one)
        bar.update()
    bar.close()
    return seen, _alarms(data, names, seen), _rewards(data, names, seen)


def _of(seen: Sequence[Seen], policy: str, scenario: str, reaction: str) -> list[Seen]:
    return [s for s in seen if (s.policy, s.scenario, s.reaction) == (policy, scenario, reaction)]


def _alarms(data: Labelled, names: Sequence[str], seen: Sequence[Seen]) -> Table:
    rows = []
    for name in names:
        steady, worse = _of(seen, name, "steady", "none"), _of(seen, name, "degrades", "none")
        found = [one.found for one in worse]
        delays = [hit.step - one.n // 2 for one, hit in zip(worse, found, strict=True) if hit]
        by = [hit.detector for hit in found if hit]
        rows.append((
            name, f"{sum(one.false for one in steady)} in {sum(one.n for one in steady)}",
            f"{len(delays)} of {len(worse)}",
            f"{statistics.median(delays):.0f}" if delays else "–",
            f"{by.count('adwin')} / {by.count('page_hinkley')}",
        ))  # fmt: skip
    seeds = len(_of(seen, names[0], "steady", "none"))
    title = f"{data.recorded.name}: alarms, seeds: {seeds}"
    heads = ("policy", "false alarms, steady", "drop found", "median delay, decisions",
             "by ADWIN / Page-Hinkley")  # fmt: skip
    return Table(title, heads, tuple(rows))


def _rewards(data: Labelled, names: Sequence[str], seen: Sequence[Seen]) -> Table:
    rows = []
    for name in names:
        for scenario, reactions in (("degrades", tuple(REACTIONS)), ("steady", ("none", "both"))):
            for reaction in reactions:
                runs = _of(seen, name, scenario, reaction)
                after = [one.after for one in runs]
                spread = statistics.stdev(after) if len(after) > 1 else 0.0
                regret = statistics.mean((s.best_after - s.after) * (s.n - s.n // 2) for s in runs)
                rows.append((
                    f"{name}, {scenario}, {reaction}",
                    number(statistics.mean(one.before for one in runs)),
                    f"{statistics.mean(after):.4f} ± {spread:.4f}",
                    number(statistics.mean(one.last for one in runs)), f"{regret:.0f}",
                ))  # fmt: skip
    heads = ("policy, world, reaction", "reward, first half", "second half ± sd", "last quarter",
             "regret, second half")  # fmt: skip
    return Table(
        f"{data.recorded.name}: reward", heads, tuple(rows),
        "Regret to the best single arm of the second half. `none` decides as without detection.",
    )  # fmt: skip


def recordings(directory: Path, state: Path) -> Iterator[Labelled]:
    """nvmix and the demo's recording, embedded; what is not there is skipped with a message."""
    chosen = Settings().embedding
    backend = open_backend(chosen.backend, chosen.model, state / "models")
    for source in (str(directory / "nvmix.jsonl.gz"), PARETOBANDIT):
        try:
            recorded = open_recording(source)
        except BadRecording as error:
            print(f"skipped: {error}", file=sys.stderr)
            continue
        cache = state / "embeddings"
        yield Labelled(recorded, embed_all(recorded.texts, backend, chosen.model, cache))


def main(argv: Sequence[str] | None = None) -> int:
    """Print every table, and write them into a document where one is named."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.drift", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=Path("../shared/data"), help="where the recordings lie")
    add("--state", type=Path, default=Path(Settings().data_dir), help="models and embeddings")
    add("--seeds", type=int, default=5)
    add("--jobs", type=int, default=os.cpu_count() or 1)
    add("--policies", nargs="+", default=POLICIES)
    add("--markdown", type=Path, help="write the tables into this file's section")
    args = parser.parse_args(argv)
    if not available():
        print("river is not installed: pip install river==0.26.1", file=sys.stderr)
        return 1
    tables: list[Table] = []
    for data in recordings(args.data, args.state):
        tables += streams(data, args.policies, args.seeds, args.jobs)[1:]
        if any(data.recorded.tasks):
            tables.append(queries(data, args.seeds))
    tables += cost()
    print("\n\n".join(table.text() for table in tables))
    if args.markdown is not None:
        put_section(args.markdown, "drift", "\n\n".join(table.markdown() for table in tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
