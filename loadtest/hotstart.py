"""What a warm start is worth, and what one with wrong labels costs, by the weight it is given.

    python -m loadtest.hotstart --data FILE… [--seeds 8] [--jobs 1] [--markdown docs/hot-start.md]

Of each recording 500 queries with the outcomes of every arm are taught beforehand, other ones with
every seed; up to 2,000 of the rest then arrive one by one with bandit feedback. A label is wrong
where the quality q was taught as 1 − q; which ones is drawn for each outcome alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

import policies
from bandit_service.cli.options import bounded
from bandit_service.core import chance
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.core.prior import STRENGTH
from bandit_service.data.recall import Recall
from bandit_service.data.recordings import PARETOBANDIT, embed_all, open_recording
from bandit_service.embedding import open_backend
from bandit_service.lab.data import Labelled
from bandit_service.lab.processes import in_processes
from bandit_service.lab.tables import Table, number
from bandit_service.offline.simulate import Warm, order_of, simulate, stream
from bandit_service.settings import Settings
from loadtest.sections import put_section
from policies import Floats

RULE = RewardRule(0.10)
TAUGHT, AFTER = 500, 2000
WRONG = (0.0, 0.1, 0.3, 0.5)
STRENGTHS: dict[str, tuple[float | None, ...]] = {
    "nested": (STRENGTH, 5.0, 20.0, None),
    "metallm": (STRENGTH, None),
}
"""By policy; None is full weight."""
FEWER = ("metallm",)
"""Policies that learn slowly run with half the seeds."""
ALLOWED = 0.01
"""What a prior that is wrong at half of its labels may cost."""


@dataclass(frozen=True, slots=True)
class Start:
    """How a run begins. wrong: the share of labels; strength: None where nothing is weakened."""

    taught: bool = False
    wrong: float = 0.0
    strength: float | None = None


COLD = Start()


@dataclass(frozen=True, slots=True)
class Went:
    """One run: the reward of each query in the order in which they came."""

    policy: str
    start: Start
    seed: int
    rewards: Floats


def parts(data: Labelled, seed: int, taught: int, after: int) -> tuple[Labelled, Labelled]:
    """Queries to teach beforehand and those that come then, drawn by id and seed."""
    order = order_of(data.recorded, 1_000_003 + seed)
    return data.take(order[:taught]), data.take(order[taught : taught + after])


def mislabelled(data: Labelled, wrong: float, seed: int) -> Labelled:
    """The quality q of a share of the outcomes is 1 − q; a smaller share is part of a larger."""
    recorded = data.recorded
    drawn = np.array(
        [
            [chance.uniform(seed, f"wrong:{id}:{arm.id}") for arm in recorded.arms]
            for id in recorded.ids
        ]
    )
    quality = np.where(drawn < wrong, 1.0 - recorded.quality, recorded.quality)
    return replace(data, recorded=replace(recorded, quality=quality))


def begins(strengths: Sequence[float | None]) -> list[Start]:
    """A cold start, and every share of wrong labels at every strength."""
    return [COLD, *(Start(True, wrong, strength) for wrong in WRONG for strength in strengths)]


_here: list[tuple[Labelled, int, int]] = []


def _begin(data: Labelled, taught: int, after: int) -> None:
    _here[:] = [(data, taught, after)]
    _parts.cache_clear()
    _recall.cache_clear()


@lru_cache(maxsize=2)
def _parts(seed: int) -> tuple[Labelled, Labelled]:
    return parts(_here[0][0], seed, *_here[0][1:])


@lru_cache(maxsize=4)
def _recall(seed: int, warm: bool) -> Recall:
    taught, rest = _parts(seed)
    return stream(
        rest.recorded,
        rest.embeddings,
        seed=seed,
        neighbours=20,
        capacity=20_000,
        warm=Warm(taught.recorded, taught.embeddings) if warm else None,
    )


def run(policy: str, start: Start, seed: int) -> Went:
    """One pass over the recording of this process."""
    taught, rest = _parts(seed)
    warm = None
    if start.taught:
        known = mislabelled(taught, start.wrong, seed)
        warm = Warm(known.recorded, known.embeddings, strength=start.strength)
    passed = simulate(
        rest.recorded,
        rest.embeddings,
        policies.load(policy),
        seed=seed,
        explore=Exploration(),
        rule=RULE,
        warm=warm,
        recall=_recall(seed, start.taught),
    )
    return Went(policy, start, seed, passed.track.reward)


def beside_cold(runs: Sequence[Went], policy: str, start: Start) -> tuple[float, float, float]:
    """Mean reward, the difference to the cold start paired by seed, its standard error."""
    mine = {one.seed: float(one.rewards.mean()) for one in runs if _is(one, policy, start)}
    cold = {one.seed: float(one.rewards.mean()) for one in runs if _is(one, policy, COLD)}
    gaps = np.array([mine[seed] - cold[seed] for seed in sorted(mine)])
    error = float(gaps.std(ddof=1) / np.sqrt(gaps.size)) if gaps.size > 1 else float("nan")
    return float(np.mean(list(mine.values()))), float(gaps.mean()), error


def _is(one: Went, policy: str, start: Start) -> bool:
    return one.policy == policy and one.start == start


def named(strength: float | None) -> str:
    """As `learn --strength` takes it."""
    return "full" if strength is None else f"{strength:g}"


def table(runs: Sequence[Went], policy: str, title: str) -> Table:
    """By strength, the difference to a cold start at each share of wrong labels."""
    cold, _, _ = beside_cold(runs, policy, COLD)
    rows = []
    for strength in STRENGTHS[policy]:
        cells = [named(strength)]
        for wrong in WRONG:
            _, gap, error = beside_cold(runs, policy, Start(True, wrong, strength))
            cells.append(f"{gap:+.4f} ± {number(error)}")
        worst = beside_cold(runs, policy, Start(True, WRONG[-1], strength))[1]
        rows.append((*cells, "yes" if worst >= -ALLOWED else "no"))
    heads = ("strength", *(f"{100 * wrong:.0f} % wrong" for wrong in WRONG), "within 0.01")
    seeds = len({one.seed for one in runs if one.policy == policy})
    what = f"{title}: {policy}, {seeds} seeds, cold start {cold:.4f}"
    return Table(what, heads, tuple(rows))


def plot(runs: Sequence[Went], strength: float | None, title: str, path: Path) -> None:
    """Per policy, the reward gained on a cold start so far, over the queries, with a 95 % band."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.2), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    panels = figure.subplots(1, len(STRENGTHS), sharey=True, squeeze=False).ravel()
    for axes, policy in zip(panels, STRENGTHS, strict=True):
        cold = {one.seed: one.rewards for one in runs if _is(one, policy, COLD)}
        for wrong, colour in zip(WRONG, ("#009e73", "#0072b2", "#e69f00", "#d55e00"), strict=True):
            start = Start(True, wrong, strength)
            mine = [one for one in runs if _is(one, policy, start)]
            gained = np.cumsum([one.rewards - cold[one.seed] for one in mine], axis=1)
            mean = gained.mean(axis=0)
            steps = np.arange(1, mean.size + 1)
            axes.plot(steps, mean, color=colour, lw=1.6, label=f"{100 * wrong:.0f} % wrong")
            if len(mine) > 1:
                half = 1.96 * gained.std(axis=0, ddof=1) / np.sqrt(len(mine))
                axes.fill_between(steps, mean - half, mean + half, color=colour, alpha=0.12, lw=0)
        axes.axhline(0.0, color="#6b6b6b", linestyle=":", linewidth=1.0)
        axes.set_title(policy, loc="left", fontsize=10)
        axes.set_xlabel("queries so far")
    panels[0].set_ylabel("reward gained on a cold start")
    panels[-1].legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": path.name}):
        figure.savefig(path, metadata={"Software": None})


def study(data: Labelled, seeds: int, jobs: int) -> list[Went]:
    """Every policy and every start with every seed."""
    n = len(data)
    taught = min(TAUGHT, n // 2)
    tasks = [
        (policy, start, seed)
        for seed in range(seeds)
        for policy, strengths in STRENGTHS.items()
        if policy not in FEWER or seed < max(1, seeds // 2)
        for start in begins(strengths)
    ]
    done = in_processes(_begin, (data, taught, AFTER), run, tasks, jobs)
    return list(tqdm(done, total=len(tasks), desc=data.recorded.name, unit=" runs", disable=None))


def main() -> None:
    """Run it; print the tables and, where asked, write them and the plots into the document."""
    parser = argparse.ArgumentParser(description="What a warm start is worth, right or wrong.")
    parser.add_argument("--data", nargs="+", default=[PARETOBANDIT], metavar="FILE")
    parser.add_argument("--seeds", type=bounded(int, 1, 1000), default=8, metavar="N")
    parser.add_argument("--jobs", type=bounded(int, 1, 256), default=1, metavar="N")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="its section is rewritten")
    args = parser.parse_args()
    chosen, said = Settings(), []
    for name in args.data:
        recorded = open_recording(name)
        model, directory = chosen.embedding.model, Path(chosen.data_dir)
        backend = open_backend(chosen.embedding.backend, model, directory / "models")
        vectors = embed_all(recorded.texts, backend, model, directory / "embeddings")
        runs = study(Labelled(recorded, vectors), args.seeds, args.jobs)
        after = runs[0].rewards.size
        title = f"{recorded.name}, {len(recorded.arms)} arms, {after} queries"
        for policy in STRENGTHS:
            found = table(runs, policy, title)
            print(found.text() + "\n", flush=True)
            said.append(found.markdown())
        if args.markdown is not None:
            image = args.markdown.parent / "images" / f"hot-start-{recorded.name}.png"
            plot(runs, STRENGTH, f"{title}: strength {STRENGTH:g}", image)
            said.append(f"![{title}, strength {STRENGTH:g}](images/{image.name})")
    if args.markdown is not None:
        put_section(args.markdown, "hot-start", "\n\n".join(said))


if __name__ == "__main__":
    main()
