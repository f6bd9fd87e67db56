"""Chooses a policy's parameters on a validation split, and evaluates the choice on a test split.

Queries are split by a hash of their id. Every candidate runs through the validation part, online,
with the same seeds; the candidate of the highest mean reward is chosen. Only then are it and the
default parameters run through the test part, once each, with the same seeds.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import policies
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recall import Recall
from bandit_service.lab.data import Labelled, split
from bandit_service.lab.summary import Interval, interval
from bandit_service.offline.simulate import simulate, stream
from policies import Policy

Parameters: TypeAlias = Mapping[str, Any]
SALT = "tune"


class BadSearch(ValueError):
    """The search names an unknown parameter or value; the message says which one."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from low to high, drawn evenly, or evenly in their logarithm."""

    low: float
    high: float
    log: bool = False


Space: TypeAlias = Mapping[str, Sequence[Any] | Range]


@dataclass(frozen=True, slots=True)
class TuningWorld:
    """How candidates are run; `seeds` runs each, with seeds 0 … seeds − 1."""

    seeds: int = 3
    share: float = 0.5
    explore: Exploration = dataclasses.field(default_factory=Exploration)
    rule: RewardRule = dataclasses.field(default_factory=RewardRule)
    neighbours: int = 20
    capacity: int = 20_000


@dataclass(frozen=True, slots=True)
class TuningTrial:
    """One set of parameters on one part, means over its runs.

    rewards: the mean reward of each seed. cost: USD per query. outcomes: shown, in all runs.
    """

    parameters: Parameters
    rewards: tuple[float, ...]
    quality: float
    cost: float
    outcomes: int

    @property
    def reward(self) -> float:
        """The mean over seeds."""
        return math.fsum(self.rewards) / len(self.rewards)


@dataclass(frozen=True, slots=True)
class Tuning:
    """The result of a search.

    trials: on the validation part, the best first. default, chosen: there as well. gain: reward of
    the chosen less that of the default parameters, paired over seeds. The same for the test part,
    which nothing was chosen on. warnings: reasons to doubt the choice.
    """

    policy: str
    validation: int
    test: int
    trials: tuple[TuningTrial, ...]
    default: TuningTrial
    chosen: TuningTrial
    gain: Interval
    test_default: TuningTrial
    test_chosen: TuningTrial
    test_gain: Interval
    warnings: tuple[str, ...]

    @property
    def outcomes(self) -> int:
        """How many outcomes were shown on the validation part, in all."""
        return sum(trial.outcomes for trial in self.trials)


class Search(Protocol):
    """The source of candidates: `ask` for one, then `tell` its reward, until there is none."""

    def ask(self) -> Parameters | None:
        """The next candidate; None at the end."""
        ...

    def tell(self, reward: float) -> None:
        """The mean reward of the candidate asked last."""
        ...


class Grid:
    """Every combination, in the order given."""

    def __init__(self, space: Space) -> None:
        lists = [list(values) for values in space.values() if not isinstance(values, Range)]
        self._rest: Iterator[tuple[Any, ...]] = itertools.product(*lists)
        self._names = list(space)

    def ask(self) -> Parameters | None:
        """The next combination."""
        values = next(self._rest, None)
        return None if values is None else dict(zip(self._names, values, strict=True))

    def tell(self, reward: float) -> None:
        """Nothing is learned."""


class Guided:
    """`trials` candidates by Optuna's tree-structured Parzen estimator, drawn by `seed`.

    whole: names of the parameters that are whole numbers. Lists are choices without an order.
    """

    def __init__(self, space: Space, trials: int, seed: int, whole: frozenset[str]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed)
        )
        self._space, self._left, self._whole = space, trials, whole
        self._trial: Any = None

    def ask(self) -> Parameters | None:
        """The candidate that is expected to improve most."""
        if not self._left:
            return None
        self._left -= 1
        self._trial = self._study.ask()
        return {name: self._suggest(name, values) for name, values in self._space.items()}

    def tell(self, reward: float) -> None:
        """The estimator learns it."""
        self._study.tell(self._trial, reward)

    def _suggest(self, name: str, values: Sequence[Any] | Range) -> Any:
        if not isinstance(values, Range):
            return self._trial.suggest_categorical(name, list(values))
        if name in self._whole:
            return self._trial.suggest_int(name, int(values.low), int(values.high), log=values.log)
        return self._trial.suggest_float(name, values.low, values.high, log=values.log)


def check_space(policy: str, space: Space) -> frozenset[str]:
    """BadSearch for an unknown parameter; the names of the policy's whole-number parameters."""
    if not policies.exists(policy):
        raise BadSearch(policies.no_such(policy))
    default = _parameters(policies.load(policy))
    for name, values in space.items():
        if name not in default:
            raise BadSearch(f"{name}: {policy} has {', '.join(default) or 'no parameters'}")
        if isinstance(values, Range):
            if isinstance(default[name], bool) or not isinstance(default[name], int | float):
                raise BadSearch(f"{name}: not a number; give a list of values instead of a range")
            if not values.low < values.high or (values.log and values.low <= 0.0):
                least = "above 0 and " if values.log else ""
                raise BadSearch(f"{name}: the low end must be {least}below the high end")
            ends: Sequence[Any] = [values.low, values.high]
            if isinstance(default[name], int):
                if any(end != int(end) for end in ends):
                    raise BadSearch(f"{name}: must be whole numbers")
                ends = [int(end) for end in ends]
        else:
            ends = values
        for value in ends:
            loaded(policy, {name: value})
    return frozenset(
        name
        for name, value in default.items()
        if isinstance(value, int) and not isinstance(value, bool)
    )


def loaded(policy: str, parameters: Parameters) -> Policy[Any]:
    """The policy with these parameters; BadSearch says which cannot be."""
    try:
        return policies.load(policy, **parameters)
    except (ValueError, TypeError) as error:
        raise BadSearch(str(error)) from None


def tune(
    data: Labelled,
    policy: str,
    search: Search,
    world: TuningWorld,
    watch: Callable[[TuningTrial, bool], None] | None = None,
) -> Tuning:
    """The best of the search's candidates; the defaults are always among them.

    watch: called after every trial, with whether it ran on the validation part.
    BadSearch where a part is empty, or a candidate cannot be.
    """
    validation, test = split(data, world.share, SALT)
    if not len(validation) or not len(test):
        raise BadSearch(
            f"{len(validation)} queries to choose on and {len(test)} to test on: too few"
        )
    run = _Runner(world, watch)
    seen = [(loaded(policy, {}), run(validation, policy, {}, on_validation=True))]
    default = seen[0][1]
    while (candidate := search.ask()) is not None:
        wanted = loaded(policy, candidate)
        trial = next((trial for known, trial in seen if known == wanted), None)
        if trial is None:
            trial = run(validation, policy, candidate, on_validation=True)
            seen.append((wanted, trial))
        search.tell(trial.reward)
    trials = [trial for _, trial in seen]
    chosen = max(trials, key=lambda trial: trial.reward)  # the earlier one of equals
    run.forget()
    test_default = test_chosen = run(test, policy, {}, on_validation=False)
    if chosen is not default:
        test_chosen = run(test, policy, chosen.parameters, on_validation=False)
    gain, test_gain = _gain(chosen, default), _gain(test_chosen, test_default)
    return Tuning(
        policy=policy,
        validation=len(validation),
        test=len(test),
        trials=tuple(sorted(trials, key=lambda trial: -trial.reward)),
        default=default,
        chosen=chosen,
        gain=gain,
        test_default=test_default,
        test_chosen=test_chosen,
        test_gain=test_gain,
        warnings=_warnings(chosen is default, gain, test_gain),
    )


def toml_of(policy: str, parameters: Parameters) -> str:
    """The configuration's section that makes the service run this, see docs/configuration.md.

    >>> print(toml_of("metallm", {"alpha": 0.25, "bias": False}))
    [policy]
    name = "metallm"
    parameters = { alpha = 0.25, bias = false }
    """
    inner = ", ".join(f"{name} = {json.dumps(value)}" for name, value in parameters.items())
    table = f"{{ {inner} }}" if inner else "{}"
    return f'[policy]\nname = "{policy}"\nparameters = {table}'


class _Runner:
    def __init__(
        self, world: TuningWorld, watch: Callable[[TuningTrial, bool], None] | None
    ) -> None:
        self._world, self._watch = world, watch
        self._recalls: dict[int, Recall] = {}

    def forget(self) -> None:
        """Forget the recall before another part, since it belongs to one part."""
        self._recalls.clear()

    def __call__(
        self, data: Labelled, policy: str, parameters: Parameters, *, on_validation: bool
    ) -> TuningTrial:
        world = self._world
        rewards, quality, cost, outcomes = [], 0.0, 0.0, 0
        for seed in range(world.seeds):
            run = simulate(
                data.recorded,
                data.embeddings,
                loaded(policy, parameters),
                seed=seed,
                explore=world.explore,
                rule=world.rule,
                neighbours=world.neighbours,
                capacity=world.capacity,
                recall=self._recall(data, seed),
            )
            rewards.append(float(run.track.reward.mean()))
            quality += float(run.track.quality.mean()) / world.seeds
            cost += float(run.track.cost.mean()) / world.seeds
            outcomes += run.outcomes
        trial = TuningTrial(dict(parameters), tuple(rewards), quality, cost, outcomes)
        if self._watch is not None:
            self._watch(trial, on_validation)
        return trial

    def _recall(self, data: Labelled, seed: int) -> Recall:
        if seed not in self._recalls:
            self._recalls[seed] = stream(
                data.recorded,
                data.embeddings,
                seed=seed,
                neighbours=self._world.neighbours,
                capacity=self._world.capacity,
            )
        return self._recalls[seed]


def _parameters(policy: Policy[Any]) -> dict[str, Any]:
    return dataclasses.asdict(policy)  # type: ignore[call-overload, no-any-return]


def _gain(chosen: TuningTrial, default: TuningTrial) -> Interval:
    pairs = zip(chosen.rewards, default.rewards, strict=True)
    return interval(one - other for one, other in pairs)


def _warnings(stayed: bool, gain: Interval, test_gain: Interval) -> tuple[str, ...]:
    if stayed:
        return ("no candidate was better than the default parameters on the validation part",)
    found = []
    if math.isnan(gain.half):
        found.append("one seed cannot distinguish the gain from noise; use several")
    elif gain.mean <= gain.half:
        found.append(
            f"the gain on the validation part, {gain.mean:+.4f}, is within noise: its 95 % "
            f"interval over seeds is ± {gain.half:.4f}; the defaults may be as good"
        )
    if test_gain.mean <= 0.0:
        found.append("on the test part the chosen parameters are not better than the default ones")
    return tuple(found)
