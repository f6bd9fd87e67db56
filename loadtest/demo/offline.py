"""The three acts without a server: other orders of the same queries, other choices, once more.

All by the very fold that the service runs, so that equal seeds give equal figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import policies
from bandit_service.app.assembly import drift_watch
from bandit_service.offline.baselines import Track
from bandit_service.offline.simulate import Phase, Run, order_of, simulate, stream
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.settings import Settings
from loadtest.demo.acts import (
    ACTS,
    Stage,
    any_by_chance,
    first_choice,
    fixed_choices,
    follow,
    split,
)
from policies import Floats, Policy, Vector

GREEDY, CHANCE, FIRST = "epsilon-greedy", "a random model", "the best model of act 1, kept"

Watch = Callable[[str, int], None]
"""Told before each run which policy and seed it is of."""


@dataclass(frozen=True, slots=True)
class Played:
    """(S, n) reward and cost in USD over S seeds; drawn: (S, n) columns, None of a choice."""

    reward: Floats
    cost: Floats
    drawn: NDArray[np.int64] | None = None

    def act(self, starts: Sequence[int], act: int) -> Played:
        """The steps of one act."""
        steps = slice(starts[act], starts[act + 1] if act + 1 < len(starts) else None)
        drawn = None if self.drawn is None else self.drawn[:, steps]
        return Played(self.reward[:, steps], self.cost[:, steps], drawn)


@dataclass(frozen=True, slots=True)
class Results:
    """Who earned what over the whole run, paired by seed.

    router: name of the policy. played: by name, the policies and then the choices. fixed: names of
    all fixed choices. dear, worse: columns of the arms whose price rose and whose quality fell.
    """

    stage: Stage
    router: str
    played: Mapping[str, Played]
    fixed: tuple[str, ...]
    dear: int
    worse: int

    @property
    def best_fixed(self) -> str:
        """The fixed choice of the highest mean reward, in hindsight."""
        return max(self.fixed, key=lambda name: float(self.played[name].reward.mean()))


def play(
    stage: Stage,
    phases: tuple[Phase, ...],
    embeddings: Vector,
    served: Mapping[str, Policy[Any]],
    seeds: Sequence[int],
    settings: Settings,
    watch: Watch,
) -> dict[str, Played]:
    """Every policy on every seed, and on the same orders every choice that learns nothing."""
    rule = RouterRules.of(settings).reward
    runs: dict[str, list[Run]] = {name: [] for name in served}
    choices: dict[str, list[Track]] = {}
    fixed = fixed_choices(stage, phases, rule)
    for seed in seeds:
        order = order_of(stage.recorded, seed)
        recall = stream(
            stage.recorded,
            embeddings,
            seed=seed,
            neighbours=settings.history.neighbours,
            capacity=settings.history.capacity,
        )
        for name, policy in served.items():
            watch(name, seed)
            run = fold(stage, phases, embeddings, policy, seed, settings, recall=recall)
            runs[name].append(run)
        beside = [*fixed, replace(first_choice(stage, phases, order, rule), name=FIRST)]
        for choice in beside:
            earned = follow(phases, split(stage, order), choice, rule)
            choices.setdefault(choice.name, []).append(earned)
        choices.setdefault(CHANCE, []).append(any_by_chance(stage, phases, order, rule))
    return {
        **{name: _played([run.track for run in each], each) for name, each in runs.items()},
        **{name: _played(each) for name, each in choices.items()},
    }


def fold(
    stage: Stage,
    phases: tuple[Phase, ...],
    embeddings: Vector,
    policy: Policy[Any],
    seed: int,
    settings: Settings,
    **more: Any,
) -> Run:
    """One run as the service with these settings would make it."""
    rules, watching = RouterRules.of(settings), drift_watch(settings, policy)
    return simulate(
        stage.recorded,
        embeddings,
        policy,
        seed=seed,
        explore=rules.explore,
        rule=rules.reward,
        neighbours=rules.neighbours,
        capacity=settings.history.capacity,
        phases=phases,
        react=None if watching is None else watching.happened,
        **more,
    )


def entrants(router: str, settings: Settings, every: bool) -> dict[str, Policy[Any]]:
    """The router and epsilon-greedy, or all policies."""
    parameters = settings.policy.parameters if router == settings.policy.name else {}
    others = [name for name in policies.names() if every and name not in (router, "epsilon_greedy")]
    return {
        router: policies.load(router, **parameters),
        GREEDY: policies.load("epsilon_greedy"),
        **{name: policies.load(name) for name in others},
    }


def results_of(
    stage: Stage,
    phases: tuple[Phase, ...],
    played: Mapping[str, Played],
    router: str,
    settings: Settings,
    changed: tuple[int, int],
) -> Results:
    """What was played, with who is who."""
    assert len(phases) == ACTS
    fixed = fixed_choices(stage, phases, RouterRules.of(settings).reward)
    names = tuple(choice.name for choice in fixed)
    return Results(stage, router, played, names, *changed)


def _played(tracks: Sequence[Track], runs: Sequence[Run] = ()) -> Played:
    return Played(
        np.array([track.reward for track in tracks]),
        np.array([track.cost for track in tracks]),
        np.array([run.arm for run in runs]) if runs else None,
    )
