"""The world of the demo, act by act: who is there, at which price, how good. Pure.

1. All arms but one, as they were recorded; everything is unknown.
2. The favourite costs `DEARER` times as much, and the catalogue says so.
3. The arm that was held back joins; the favourite of act 2 gives half its quality, and nobody says
   so.

With two arms none is held back, since one alone leaves nothing to choose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit_service.core import events as ev
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import Recorded
from bandit_service.embedding import estimate_tokens
from bandit_service.offline.baselines import Track, baselines, joined, rewards
from bandit_service.offline.simulate import Phase, order_of

DEARER = 60.0
WORSE = 0.5
ACTS = 3


@dataclass(frozen=True, slots=True)
class Stage:
    """What is known before the first query.

    recorded: the queries of the demo with all arms. newcomer: column of the arm that is held back
    until act 3, None with two arms. starts: step at which each act begins.
    """

    recorded: Recorded
    newcomer: int | None
    starts: tuple[int, int, int]

    def ends(self) -> tuple[int, int, int]:
        """Step at which each act is over."""
        return self.starts[1], self.starts[2], len(self.recorded)

    def there(self, act: int) -> list[int]:
        """Columns of the arms that are offered in act 0, 1 or 2."""
        columns = range(len(self.recorded.arms))
        return [k for k in columns if k != self.newcomer or act == ACTS - 1]

    def name(self, column: int) -> str:
        """The arm's id without its maker, where that is enough to tell it."""
        short = [arm.id.rpartition("/")[2] for arm in self.recorded.arms]
        whole = self.recorded.arms[column].id
        return short[column] if short.count(short[column]) == 1 else whole


class TooSmall(ValueError):
    """The recording has too few queries or arms for three acts."""


def stage_of(recorded: Recorded, limit: int | None, rule: RewardRule) -> Stage:
    """`limit` queries of the recording, the same whatever their order in it; TooSmall if too few.

    The newcomer is the second best arm by mean reward: the best of those that are not likely to be
    the favourite, whose price will have risen by then.
    """
    if len(recorded.arms) < 2:
        raise TooSmall(f"{recorded.name}: must have at least 2 models, got 1")
    taken = recorded.take(order_of(recorded, 0)[:limit])
    # as the service counts them, so that a run by the fold alone sees what a served one saw
    tokens = np.array([estimate_tokens(len(text)) for text in taken.texts], np.int64)
    taken = replace(taken, tokens=tokens)
    newcomer = None
    if len(taken.arms) > 2:
        newcomer = int(np.argsort(-_means(taken, rule), kind="stable")[1])
        others = np.arange(len(taken.arms)) != newcomer
        taken = taken.take(np.flatnonzero(~np.isnan(taken.quality[:, others]).all(axis=1)))
    n = len(taken)
    if n < ACTS * len(taken.arms):
        raise TooSmall(
            f"{recorded.name}: must have at least {ACTS * len(taken.arms)} queries for "
            f"{ACTS} acts of {len(taken.arms)} models, got {n}"
        )
    return Stage(taken, newcomer, (0, n // ACTS, 2 * n // ACTS))


def phases_of(stage: Stage, dear: int | None, worse: int | None) -> tuple[Phase, ...]:
    """What holds in each act: one act while `dear` is None, two while `worse` is, else three."""
    world = stage.recorded if stage.newcomer is None else _without(stage.recorded, stage.newcomer)
    begin = tuple(
        ev.ArmAdded(ts=0.0, arm=stage.recorded.arms[k], source="config") for k in stage.there(0)
    )
    phases = [Phase(0, world, begin)]
    if dear is not None:
        told = ev.ArmUpdated(ts=0.0, arm=dearer(stage, dear), source="api")
        phases.append(Phase(stage.starts[1], _scaled(world, dear, cost=DEARER), (told,)))
    if dear is not None and worse is not None:
        full = _scaled(_scaled(stage.recorded, dear, cost=DEARER), worse, quality=WORSE)
        joins: tuple[ev.AnyEvent, ...] = ()
        if stage.newcomer is not None:
            arm = stage.recorded.arms[stage.newcomer]
            joins = (ev.ArmAdded(ts=0.0, arm=arm, source="api"),)
        phases.append(Phase(stage.starts[2], full, joins))
    return tuple(phases)


def dearer(stage: Stage, column: int) -> ev.ArmSpec:
    """The arm at its new price."""
    arm = stage.recorded.arms[column]
    return msgspec.structs.replace(
        arm,
        usd_per_mtok_in=DEARER * arm.usd_per_mtok_in,
        usd_per_mtok_out=DEARER * arm.usd_per_mtok_out,
    )


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice that looks at no query: which column is asked in each act."""

    name: str
    columns: tuple[int, ...]


def fixed_choices(stage: Stage, phases: tuple[Phase, ...], rule: RewardRule) -> list[Choice]:
    """Every arm that is there from the start; and the newcomer, which is asked once it is there.

    Before that, its choice has the other arm that was best over the first two acts in hindsight.
    """
    choices = [Choice(f"always {stage.name(k)}", (k,) * ACTS) for k in stage.there(0)]
    if stage.newcomer is not None:
        early = [
            follow(phases[:2], rows_of(stage), Choice("", (k,) * ACTS), rule).reward.sum()
            for k in stage.there(0)
        ]
        before = stage.there(0)[int(np.argmax(early))]
        name = f"{stage.name(before)}, then {stage.name(stage.newcomer)}"
        choices.append(Choice(name, (before, before, stage.newcomer)))
    return choices


def rows_of(stage: Stage) -> list[NDArray[np.int64]]:
    """Every query in every act, which is what an act holds in expectation over orders."""
    return [np.arange(len(stage.recorded))] * ACTS


def split(stage: Stage, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each act, in an order of all."""
    return np.split(order, stage.starts[1:])


def first_choice(
    stage: Stage, phases: tuple[Phase, ...], order: NDArray[np.int64], rule: RewardRule
) -> Choice:
    """The arm that was best in act 1, whose every answer is known; then always that one."""
    rows = split(stage, order)[:1]
    means = [follow(phases[:1], rows, Choice("", (k,)), rule).reward.mean() for k in stage.there(0)]
    best = stage.there(0)[int(np.argmax(means))]
    return Choice("the best model of act 1, kept", (best,) * ACTS)


def follow(
    phases: tuple[Phase, ...], rows: list[NDArray[np.int64]], choice: Choice, rule: RewardRule
) -> Track:
    """What a choice earns. Where its arm has no answer, any of the others by chance stands in."""
    parts = []
    for phase, here, k in zip(phases, rows, choice.columns, strict=False):
        part = phase.recorded.take(here)
        chance = baselines(part, rule).uniform
        table = rewards(part, rule)
        there = ~np.isnan(table[:, k])
        parts.append(
            Track(
                np.where(there, table[:, k], chance.reward),
                np.where(there, part.quality[:, k], chance.quality),
                np.where(there, part.cost[:, k], chance.cost),
            )
        )
    return joined(parts)


def any_by_chance(
    stage: Stage, phases: tuple[Phase, ...], order: NDArray[np.int64], rule: RewardRule
) -> Track:
    """The expectation of drawing evenly among the arms that are there."""
    return joined(
        [
            baselines(phase.recorded, rule).uniform.take(rows)
            for phase, rows in zip(phases, split(stage, order), strict=True)
        ]
    )


def most_used(stage: Stage, act: int, drawn: NDArray[np.int64]) -> int:
    """The column that was drawn most among those that are there, the first of equals."""
    counts = np.bincount(drawn, minlength=len(stage.recorded.arms))
    there = stage.there(act)
    return there[int(np.argmax(counts[there]))]


def _means(recorded: Recorded, rule: RewardRule) -> NDArray[np.float64]:
    """Mean reward by arm, -inf for one that answered less than half as often as another."""
    table = rewards(recorded, rule)
    answered = (~np.isnan(table)).sum(axis=0)
    means = np.nansum(table, axis=0) / np.maximum(answered, 1)
    found: NDArray[np.float64] = np.where(answered >= 0.5 * answered.max(), means, -np.inf)
    return found


def _scaled(recorded: Recorded, k: int, quality: float = 1.0, cost: float = 1.0) -> Recorded:
    """The same with the quality and the bills of arm k times these."""
    here = np.arange(len(recorded.arms)) == k
    return replace(
        recorded,
        quality=recorded.quality * np.where(here, quality, 1.0),
        cost=recorded.cost * np.where(here, cost, 1.0),
    )


def _without(recorded: Recorded, k: int) -> Recorded:
    """The same without the answers of arm k."""
    here = np.arange(len(recorded.arms)) == k
    latency = recorded.latency
    return replace(
        recorded,
        quality=np.where(here, np.nan, recorded.quality),
        cost=np.where(here, np.nan, recorded.cost),
        latency=None if latency is None else np.where(here, np.nan, latency),
    )
