"""Every experiment with what it has seen, and the rules over all of them.

A decision and its outcomes count in their experiment, for the shadows that saw the decision, and in
the hold-out, which is measured as an experiment of two variants in which nobody decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.experiments import trial
from bandit_service.core.experiments.spec import (
    HOLDOUT,
    ROUTED,
    Experiment,
    Metric,
    Rules,
    holdout_id,
    holdout_of,
    is_holdout,
)
from bandit_service.core.experiments.trial import Trial
from bandit_service.core.feature import takes
from bandit_service.core.resolved import Resolved


@dataclass
class ExperimentRecords:
    """specs, trials: what they are and what they have seen, by id, oldest first.

    rules: what stands over them. configured, configured_rules: what the configuration last said.
    held: share and arm of the hold-out of each route that has one.
    """

    specs: dict[str, Experiment] = field(default_factory=dict)
    trials: dict[str, Trial] = field(default_factory=dict)
    configured: dict[str, Experiment] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    configured_rules: Rules = field(default_factory=Rules)
    held: dict[str, tuple[float, str]] = field(default_factory=dict, metadata=codec.IF_ANY)

    def metrics_of(self, experiment: str) -> tuple[Metric, ...]:
        """What an experiment measures beside the usual; () where there is none such."""
        spec = self.specs.get(experiment)
        return () if spec is None else spec.metrics

    def rules_of(self, route: str) -> Rules:
        """The rules with the hold-out of a route, "" being the default one."""
        if not route:
            return self.rules
        share, arm = self.held.get(route, (0.0, ""))
        return msgspec.structs.replace(self.rules, holdout_share=share, holdout_arm=arm)

    @takes(ev.ExperimentChanged)
    def _change(self, event: ev.ExperimentChanged, _: Resolved) -> None:
        spec = event.experiment
        state = self.trials.setdefault(spec.id, Trial())
        before = self.specs.get(spec.id)
        self.specs[spec.id] = spec
        if event.source == "config":
            self.configured[spec.id] = event.configured or spec
        trial.changed(state, before, event)

    @takes(ev.ExperimentDeleted)
    def _delete(self, event: ev.ExperimentDeleted, _: Resolved) -> None:
        self.specs.pop(event.id, None)
        self.trials.pop(event.id, None)
        self.configured.pop(event.id, None)

    @takes(ev.VariantSeeded)
    def _seeded(self, event: ev.VariantSeeded, what: Resolved) -> None:
        if what.joining is not None:
            self.trials[event.experiment].seeded = event.upto

    @takes(ev.Forgotten)
    def _forget(self, event: ev.Forgotten, _: Resolved) -> None:
        for one in self.trials.values():
            trial.forget(one, event.owner)

    @takes(ev.RulesChanged)
    def _set_rules(self, event: ev.RulesChanged, _: Resolved) -> None:
        self.rules = event.rules
        if event.source == "config":
            self.configured_rules = event.rules
        for route in ("", *self.held):
            self._hold_out(route, event.ts, event.by, event.why)

    @takes(ev.RouteChanged)
    def _route(self, event: ev.RouteChanged, _: Resolved) -> None:
        route = event.route
        before = self.held.pop(route.id, None)
        if route.holdout_share > 0.0:
            self.held[route.id] = now = route.holdout_share, str(route.holdout_arm)
            if now != before:
                self._hold_out(route.id, event.ts)

    @takes(ev.RouteRemoved)
    def _unroute(self, event: ev.RouteRemoved, _: Resolved) -> None:
        self.held.pop(event.id, None)

    def _hold_out(self, route: str, ts: float, by: str = "", why: str = "") -> None:
        """Measure a hold-out as it is now; with another arm, unit or salt it begins anew."""
        rules, id = self.rules_of(route), holdout_id(route)
        if rules.holdout_share <= 0.0:
            return
        spec = holdout_of(rules, route)
        before = self.specs.get(id)
        if before is None or (before.control.arm, before.unit, before.salt) != (
            spec.control.arm,
            spec.unit,
            spec.salt,
        ):
            before, self.trials[id] = None, Trial(begun=ts)
        state, self.specs[id] = self.trials[id], spec
        described = ev.ExperimentChanged(ts=ts, experiment=spec, status=HOLDOUT, by=by, why=why)
        trial.changed(state, before, described)

    def _held_out(self, decided: ev.Decided) -> ev.Decided | None:
        """The decision as the hold-out sees it; None where it says nothing about the hold-out."""
        rules = self.rules_of(decided.route)
        if rules.holdout_share <= 0.0 or decided.duel_of:
            return None
        id = holdout_id(decided.route)
        if id not in self.trials:
            return None
        unit = decided.unit if rules.unit == "user" else decided.tenant
        held = decided.experiment == id
        if not unit or len(decided.arms) < 2:
            return None
        if decided.steps in (("stopped",), ("outside",)):
            return None  # where there was no choice, or no hold-out, neither side is to be compared
        share = rules.holdout_share
        return msgspec.structs.replace(
            decided,
            experiment=id,
            variant=HOLDOUT if held else ROUTED,
            split=share if held else 1.0 - share,
            member=ev.owner_of(decided.tenant, decided.unit) if rules.unit == "user" else unit,
        )

    @takes(ev.Decided)
    def _decided(self, decided: ev.Decided, _: Resolved) -> None:
        """A decision counts for the hold-out, for its experiment, and for whose shadows saw it."""
        if not self.trials:
            return
        told = self._held_out(decided)
        if told is not None:
            trial.decided(self.trials[told.experiment], self.specs[told.experiment], told)
        if is_holdout(decided.experiment):
            return
        if decided.experiment in self.trials:
            spec = self.specs[decided.experiment]
            trial.decided(self.trials[decided.experiment], spec, decided)
        self._seen_by(decided, decided.shadows)

    @takes(ev.Shadowed)
    def _shadowed(self, event: ev.Shadowed, what: Resolved) -> None:
        """What shadows would have done, and its worth where the reward was there before."""
        if what.decided is not None:
            self._seen_by(what.decided, event.shadows)
            if what.settled is not None:
                self._worth(what.decided, event.shadows, what.settled)

    def _seen_by(self, decided: ev.Decided, shadows: Sequence[ev.Shadow]) -> None:
        for shadow in shadows:
            if shadow.experiment in self.trials:
                trial.shadowed(self.trials[shadow.experiment], decided, shadow)

    def _worth(self, decided: ev.Decided, shadows: Sequence[ev.Shadow], reward: float) -> None:
        for shadow in shadows:
            if shadow.experiment in self.trials:
                trial.shadow_rewarded(self.trials[shadow.experiment], decided, shadow, reward)

    @takes(ev.Rewarded)
    def _measured(self, event: ev.Rewarded, what: Resolved) -> None:
        """What came back, or took an earlier value's place, counts in the decision's experiment."""
        if not self.trials:
            return
        decided = what.decided
        if decided is None or not what.known:
            return
        if event.revoked:
            for name in dict.fromkeys((*event.revoked, "reward")):
                before = what.settled if name == "reward" else what.before.get(name)
                self._revoked(decided, name, before)
            return
        values = {name: getattr(event, name) for name in ("quality", "cost_usd", "latency_s")}
        for name, value in (values | event.metrics).items():
            if value is not None:
                self._valued(decided, name, value, what.before.get(name), what.ts)
        if event.reward is not None:
            before, again = what.settled, what.revoked
            self._valued(decided, "reward", event.reward, before, what.ts, again=again)

    @takes(ev.DecisionsExpired)
    def _expired(self, event: ev.DecisionsExpired, what: Resolved) -> None:
        if what.decided is not None and what.lessons and event.default_reward is not None:
            self._valued(what.decided, "reward", event.default_reward, None, what.ts)

    def _valued(
        self,
        decided: ev.Decided,
        name: str,
        value: float,
        before: float | None,
        ts: float,
        *,
        again: bool = False,
    ) -> None:
        """One value came back for a decision, or took the place of `before`.

        again: there was one that was taken back, by which shadows were judged.
        """
        for each, spec, state in self._where(decided, name):
            trial.valued(state, spec, each, name, value, before, ts)
        if name == "reward" and before is None and not again:
            self._worth(decided, decided.shadows, value)

    def _revoked(self, decided: ev.Decided, name: str, before: float | None) -> None:
        """A value was taken back, where there was one."""
        if before is not None:
            for each, _, state in self._where(decided, name):
                trial.revoked(state, each, name, before)

    def _where(
        self, decided: ev.Decided, name: str
    ) -> Iterator[tuple[ev.Decided, Experiment, Trial]]:
        """Where a metric of a decision counts: in its experiment, and in the hold-out."""
        own = None if is_holdout(decided.experiment) else decided
        for each in (own, self._held_out(decided)):
            if each is not None and each.experiment in self.trials:
                spec, state = self.specs[each.experiment], self.trials[each.experiment]
                if name in spec.names():
                    yield each, spec, state
