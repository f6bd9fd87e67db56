"""Drift on recorded streams: false alarms, delay, reward with and without reactions, and the cost.

    python -m loadtest.bench.drift [--data DIR] [--seeds 5] [--jobs 2] [--markdown docs/drift.md]
        [--parts rewards queries cost] [--recordings nvmix …] [--policies nested …]

Half-way the best arm's quality is halved and nobody says so (`lab/change.py`). Each stream is
also run without any change. The baseline is the same stream without detection, whose decisions are
those of detection without a reaction. A policy that watches its arms itself is held against itself
with its alarm turned off.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

import policies
from bandit_service.core import events as ev
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World
from bandit_service.data.recall import Recall
from bandit_service.data.recordings import (
    PARETOBANDIT,
    BadRecording,
    embed_all,
    open_recording,
)
from bandit_service.embedding import open_backend
from bandit_service.lab.change import phases_of
from bandit_service.lab.data import Labelled
from bandit_service.lab.processes import in_processes
from bandit_service.lab.summary import interval
from bandit_service.lab.tables import Table, number
from bandit_service.offline.simulate import simulate, stream
from bandit_service.runtime.detectors import DriftWatch
from bandit_service.settings import DriftSettings, Settings
from loadtest.drift_cost import cost
from loadtest.drift_queries import queries
from loadtest.sections import put_section

RULE = RewardRule(0.10)
REACTIONS = {
    "none": DriftSettings(keep=1.0),
    "keep 0.1": DriftSettings(keep=0.1),
    "explore 0.05": DriftSettings(keep=1.0, explore=0.05, explore_decisions=500),
    "both": DriftSettings(keep=0.1, explore=0.05, explore_decisions=500),
}
POLICIES = ("nested", "metallm", "epsilon_greedy", "knn")
OWN = "own alarm"
"""What stands for the reaction of a policy that watches its arms itself."""
RECORDINGS = ("nvmix", "zeroeval", PARETOBANDIT)
PARTS = ("rewards", "queries", "cost")


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm: after how many decisions, of which arm, by which detector."""

    step: int
    arm: str
    detector: str
    direction: str


@dataclass(frozen=True, slots=True)
class Seen:
    """One run. before, soon, last: mean reward of the first half, the quarter after it and the
    last quarter; best: that of the best single arm in the second half."""

    policy: str
    scenario: str
    reaction: str
    n: int
    before: float
    soon: float
    last: float
    best: float
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
    watch, alarms = DriftWatch(REACTIONS["none" if reaction == OWN else reaction]), list[Alarm]()

    def react(what: Resolved, world: World) -> ev.AnyEvent | None:
        alarm = watch.happened(what, world)
        if alarm is not None:
            told = (world.decisions, alarm.arm, alarm.detector, alarm.direction)
            alarms.append(Alarm(*told))
        return alarm

    chosen = policies.load(policy)
    if isinstance(chosen, policies.Watchful) and reaction != OWN:
        chosen = chosen.unwatched()
    done = simulate(
        data.recorded,
        data.embeddings,
        chosen,
        seed=seed,
        explore=Exploration(),
        rule=RULE,
        phases=phases,
        recall=_recall(seed),
        react=react,
    )
    n, reward = len(done.order), done.track.reward
    half, last = n // 2, n - n // 4
    gone = phases[-1].recorded.quality - phases[0].recorded.quality
    worse = data.recorded.arms[int(np.nanargmin(np.nansum(gone, axis=0)))].id
    return Seen(
        policy,
        scenario,
        reaction,
        n,
        float(reward[:half].mean()),
        float(reward[half:last].mean()),
        float(reward[last:].mean()),
        float(done.baselines.best.reward[half:].mean()),
        tuple(alarms),
        worse,
    )


def reactions_of(policy: str, wanted: Sequence[str]) -> list[str]:
    """Those that are tried with it."""
    return [*wanted, OWN] if policies.watches_arms(policies.load(policy)) else list(wanted)


def streams(
    data: Labelled, names: Sequence[str], wanted: Sequence[str], seeds: int, jobs: int
) -> tuple[list[Seen], list[Table]]:
    """Every policy on one recording: all runs, the table of alarms and that of rewards."""
    tasks = [
        (name, scenario, reaction, seed)
        for seed in range(seeds)
        for name in names
        for scenario in ("degrades", "steady")
        for reaction in reactions_of(name, wanted)
    ]
    bar = tqdm(total=len(tasks), desc=data.recorded.name, unit=" runs", disable=None)
    seen = []
    for one in in_processes(_begin, (data,), run, tasks, jobs):
        seen.append(one)
        bar.update()
    bar.close()
    return seen, [_alarms(data, names, seen), _rewards(data, names, wanted, seen)]


def _of(seen: Sequence[Seen], policy: str, scenario: str, reaction: str) -> list[Seen]:
    return [s for s in seen if (s.policy, s.scenario, s.reaction) == (policy, scenario, reaction)]


def _alarms(data: Labelled, names: Sequence[str], seen: Sequence[Seen]) -> Table:
    rows = []
    for name in names:
        reaction = OWN if _of(seen, name, "steady", OWN) else "none"
        steady, worse = (_of(seen, name, scenario, reaction) for scenario in ("steady", "degrades"))
        found = [one.found for one in worse]
        delays = [hit.step - one.n // 2 for one, hit in zip(worse, found, strict=True) if hit]
        by = [hit.detector for hit in found if hit]
        rows.append(
            (
                name,
                f"{sum(one.false for one in steady)} in {sum(one.n for one in steady)}",
                f"{len(delays)} of {len(worse)}",
                f"{statistics.median(delays):.0f}" if delays else "–",
                f"{by.count('adwin')} / {by.count('page_hinkley')}",
            )
        )
    title = f"{data.recorded.name}: alarms of the service, seeds: {len(worse)}"
    heads = (
        "policy",
        "false alarms, steady",
        "drop found",
        "median delay, decisions",
        "by ADWIN / Page-Hinkley",
    )
    return Table(title, heads, tuple(rows))


def _rewards(
    data: Labelled, names: Sequence[str], wanted: Sequence[str], seen: Sequence[Seen]
) -> Table:
    rows = []
    for name in names:
        for scenario in ("degrades", "steady"):
            plain = _of(seen, name, scenario, "none")
            for reaction in reactions_of(name, wanted):
                runs = _of(seen, name, scenario, reaction)
                rows.append(
                    (
                        f"{name}, {scenario}, {reaction}",
                        number(statistics.mean(one.before for one in runs)),
                        number(statistics.mean(one.soon for one in runs)),
                        _gain(one.soon - was.soon for one, was in zip(runs, plain, strict=True)),
                        number(statistics.mean(one.last for one in runs)),
                        _gain(one.last - was.last for one, was in zip(runs, plain, strict=True)),
                        number(statistics.mean(one.best for one in runs)),
                    )
                )
    heads = (
        "policy, world, reaction",
        "first half",
        "the quarter after",
        "less none",
        "the last quarter",
        "less none",
        "best single arm, second half",
    )
    return Table(
        f"{data.recorded.name}: mean reward, seeds: {len(runs)}",
        heads,
        tuple(rows),
        "± is half of the 95 % interval over seeds, paired. `none` decides as without detection; "
        f"`{OWN}` is the policy's as it is set by default, and the service's does nothing then.",
    )


def _gain(differences: Iterable[float]) -> str:
    found = list(differences)
    if not any(found):
        return "0"
    told = interval(found)
    return f"{told.mean:+.4f}" + ("" if math.isnan(told.half) else f" ± {told.half:.4f}")


def recordings(names: Sequence[str], directory: Path, state: Path) -> Iterator[Labelled]:
    """The named recordings, embedded; what is not there is skipped with a message."""
    chosen = Settings().embedding
    backend = open_backend(chosen.backend, chosen.model, state / "models")
    for name in names:
        source = name if name == PARETOBANDIT else str(directory / f"{name}.jsonl.gz")
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
    add("--reactions", nargs="+", default=tuple(REACTIONS), choices=tuple(REACTIONS))
    add("--recordings", nargs="+", default=RECORDINGS)
    add("--parts", nargs="+", default=PARTS, choices=PARTS)
    add("--markdown", type=Path, help="write the tables into this file's sections")
    args = parser.parse_args(argv)
    tables: dict[str, list[Table]] = {part: [] for part in args.parts}
    wanted = ["none", *(name for name in args.reactions if name != "none")]

    def told(part: str, found: Sequence[Table]) -> None:
        """Print what is done; an hour's runs are not to be lost with the last of them."""
        print("\n\n".join(table.text() for table in found), end="\n\n", flush=True)
        tables[part] += found

    for data in recordings(args.recordings, args.data, args.state):
        if "rewards" in tables:
            told("rewards", streams(data, args.policies, wanted, args.seeds, args.jobs)[1])
        if "queries" in tables and any(data.recorded.tasks):
            told("queries", [queries(data, args.seeds)])
    if "cost" in tables:
        told("cost", cost())
    if args.markdown is not None:
        for part, found in tables.items():
            put_section(
                args.markdown, f"drift-{part}", "\n\n".join(table.markdown() for table in found)
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
