"""What decisions and outcomes count for: in their experiment, in its shadows, in the hold-out."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bandit_service.core import events as ev
from bandit_service.core.experiments import trial
from bandit_service.core.experiments.spec import HOLDOUT, ROUTED, holdout_of
from bandit_service.core.world import World


def set_rules(world: World, event: ev.RulesChanged) -> None:
    """The hold-out is measured as an experiment of two variants, in which nobody decides."""
    rules = world.rules = event.rules
    if event.source == "config":
        world.configured_rules = rules
    if rules.holdout_share > 0.0:
        spec = holdout_of(rules)
        before = world.experiments.get(HOLDOUT)
        if before is None or (before.control.arm, before.unit, before.salt) != (
            spec.control.arm,
            spec.unit,
            spec.salt,
        ):
            before, world.trials[HOLDOUT] = None, trial.Trial(begun=event.ts)
        state, world.experiments[HOLDOUT] = world.trials[HOLDOUT], spec
        described = ev.ExperimentChanged(
            ts=event.ts, experiment=spec, status=HOLDOUT, by=event.by, why=event.why
        )
        trial.changed(state, before, described)


def _held_out(world: World, decided: ev.Decided) -> ev.Decided | None:
    """The decision as the hold-out sees it; None where it says nothing about the hold-out."""
    rules = world.rules
    if rules.holdout_share <= 0.0 or decided.duel_of or HOLDOUT not in world.trials:
        return None
    unit = decided.unit if rules.unit == "user" else decided.tenant
    held = decided.experiment == HOLDOUT
    if not unit or len(decided.arms) < 2 or decided.steps in (("stopped",), ("outside",)):
        return None  # where there was no choice, or no hold-out, neither side is to be compared
    share = rules.holdout_share
    return msgspec.structs.replace(
        decided,
        experiment=HOLDOUT,
        variant=HOLDOUT if held else ROUTED,
        split=share if held else 1.0 - share,
        member=ev.owner_of(decided.tenant, decided.unit) if rules.unit == "user" else unit,
    )


def takes_part(world: World, decided: ev.Decided) -> None:
    """A decision counts for the hold-out, for its experiment, and for whose shadows saw it."""
    told = _held_out(world, decided)
    if told is not None:
        trial.decided(world.trials[HOLDOUT], world.experiments[HOLDOUT], told)
    if decided.experiment == HOLDOUT:
        return
    if decided.experiment in world.trials:
        spec = world.experiments[decided.experiment]
        trial.decided(world.trials[decided.experiment], spec, decided)
    for shadow in decided.shadows:
        if shadow.experiment in world.trials:
            trial.shadowed(world.trials[shadow.experiment], decided, shadow)


def measured(
    world: World,
    decided: ev.Decided,
    event: ev.Rewarded,
    before: Mapping[str, float],
    settled: float | None,
) -> None:
    """What came back, or took an earlier value's place, counts in the decision's experiment."""
    values = {name: getattr(event, name) for name in ("quality", "cost_usd", "latency_s")}
    for name, value in (values | event.metrics).items():
        if value is not None:
            valued(world, decided, name, value, before.get(name))
    if event.reward is not None:
        valued(world, decided, "reward", event.reward, settled)


def valued(
    world: World, decided: ev.Decided, name: str, value: float, before: float | None
) -> None:
    """One value came back for a decision, or took the place of `before`."""
    for each in (None if decided.experiment == HOLDOUT else decided, _held_out(world, decided)):
        if each is not None and each.experiment in world.trials:
            spec, state = world.experiments[each.experiment], world.trials[each.experiment]
            if name in spec.names():
                trial.valued(state, spec, each, name, value, before, world.ts)
    if name == "reward" and before is None:
        for shadow in decided.shadows:
            if shadow.experiment in world.trials:
                trial.shadow_rewarded(world.trials[shadow.experiment], decided, shadow, value)
