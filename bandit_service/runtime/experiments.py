"""Changes of experiments: create, ramp, change weights, start, pause, stop.

Every change is an event with its author and reason, checked against the world at the moment of
writing. A refused change changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import msgspec

import policies
from bandit_service.core import events as ev
from bandit_service.core.errors import Conflict, Refused
from bandit_service.core.experiments import checks
from bandit_service.core.experiments.conclusions import best_of
from bandit_service.core.experiments.records import ExperimentRecords
from bandit_service.core.experiments.spec import Experiment, Rules, is_holdout, label_of
from bandit_service.core.experiments.trial import Trial
from bandit_service.core.world import World
from bandit_service.runtime.experiment_monitor import KEY, Background, find, weighed
from bandit_service.runtime.maintenance import Maintenance
from bandit_service.runtime.policy_imports import imported
from bandit_service.runtime.writer import Writer
from bandit_service.settings import PolicySettings

Offered: TypeAlias = Callable[[str], Collection[str]]
"""The arms that a route offers, "" for the default one. Raises Unknown for another route."""
MOST = 100
"""The maximum number of experiments, stopped ones included."""

_BEGIN_S = 2.0


class Experiments:
    """The experiments of a running service. `start` steering them, then `close`."""

    def __init__(self, writer: Writer, maintenance: Maintenance, steer_s: float = 5.0) -> None:
        self._writer = writer
        self._maintenance = maintenance
        self._background = Background(writer, maintenance, steer_s)

    @property
    def world(self) -> World:
        """Everything known now."""
        return self._writer.world

    @property
    def records(self) -> ExperimentRecords:
        """Every experiment with its counts."""
        return self._writer.world.experiments

    def steer_every(self, seconds: float) -> None:
        """How often to look at what the running ones show, from the next time on."""
        self._background.steer_s = seconds

    def start(self) -> None:
        """Begin to steer;

        experiments that were starting when the service stopped are started again.
        """
        self._background.start()

    async def close(self) -> None:
        """Stop steering."""
        await self._background.close()

    def find(self, id: str) -> tuple[Experiment, Trial]:
        """One experiment. Raises Unknown if there is none."""
        return find(self._writer, id)

    def live(self) -> dict[str, Experiment]:
        """The experiments that are not finished."""
        return {
            id: spec
            for id, spec in self.records.specs.items()
            if not is_holdout(id) and self.records.trials[id].status != "stopped"
        }

    def check(
        self,
        spec: Experiment,
        others: Mapping[str, Experiment],
        offered: Offered | None = None,
    ) -> None:
        """Raise an error if this experiment cannot be created, or changed, to `spec`.

        offered: the arms that there will be, by route; None for those that there are.
        """
        checks.check(spec)
        try:
            msgspec.msgpack.encode(spec)
        except OverflowError:
            raise Refused("variants: integers must fit in 64 bits", param="variants") from None
        self._check_policies(spec, offered or self._offered)
        checks.check_beside(spec, others)
        before = self.records.specs.get(spec.id)
        if before is not None:
            trial = self.records.trials[spec.id]
            checks.check_change(before, spec, trial.status, trial.traffic())
            checks.check_floor(spec, None if trial.status == "draft" else before)
        elif sum(not is_holdout(id) for id in {*self.records.specs, *others, spec.id}) > MOST:
            raise Refused(f"id: there are {MOST} experiments; delete one first", param="id")
        else:
            checks.check_floor(spec, None)

    async def put(
        self, spec: Experiment, by: str, why: str, configured: Experiment | None = None
    ) -> bool:
        """Create a draft, or change an experiment; True if it is new.

        configured: the configured record, if the change comes from the configuration.
        """
        created = False
        await imported(_policies_of(spec))

        def prepare() -> ev.AnyEvent | None:
            nonlocal created
            records = self.records
            self.check(spec, self.live())
            before = records.specs.get(spec.id)
            created = before is None
            known = configured is None or records.configured.get(spec.id) == configured
            if before == spec and known:
                return None
            status = "draft" if before is None else records.trials[spec.id].status
            source = "api" if configured is None else "config"
            return self._changed(spec, status, by, why, source=source, configured=configured)

        await self._writer.submit(prepare, key=KEY)
        return created

    async def change(
        self,
        id: str,
        by: str,
        why: str,
        *,
        share: float | None = None,
        weights: dict[str, float] | None = None,
        release: str | None = None,
    ) -> None:
        """Ramp, change weights, or let a held variant back in after its cool-down."""

        def prepare() -> ev.AnyEvent | None:
            spec, trial = self._own(id)
            after = spec if share is None else msgspec.structs.replace(spec, share=share)
            if weights is not None:
                _check_weighed(spec, weights)
                after = weighed(after, weights)
            checks.check(after)
            checks.check_change(spec, after, trial.status, trial.traffic())
            checks.check_floor(after, None if trial.status == "draft" else spec)
            if release is not None:
                self._check_release(trial, release)
                return self._changed(after, trial.status, by, why, held=release)
            return None if after == spec else self._changed(after, trial.status, by, why)

        await self._writer.submit(prepare, key=KEY)

    async def begin(self, id: str, by: str, why: str) -> str:
        """Start, or resume after a pause;

        returns the status, "starting" while its policies are trained.
        """
        await imported(_policies_of(self._own(id)[0]))

        def prepare() -> ev.AnyEvent | None:
            spec, trial = self._own(id)
            if trial.status in ("running", "starting"):
                return None
            if trial.status == "stopped":
                raise Conflict(f"id: {id!r} is finished; start a new one under another id")
            self._check_policies(spec, self._offered)
            checks.check_beside(spec, self.live())
            if trial.status == "draft" and spec.ramp:
                spec = msgspec.structs.replace(spec, share=spec.ramp[0].share)
            status = "starting" if trial.status == "draft" else "running"
            return self._changed(spec, status, by, why)

        await self._writer.submit(prepare, key=KEY)
        if self.find(id)[1].status == "starting":
            await self._background.begun(id, _BEGIN_S)
        return self.find(id)[1].status

    async def pause(self, id: str, by: str, why: str) -> None:
        """Stop assigning units, until it is started again."""

        def prepare() -> ev.AnyEvent:
            return self._moved(id, "paused", ("running",), by, why)

        await self._writer.submit(prepare, key=KEY)

    async def stop(self, id: str, by: str, why: str, winner: str = "", ship: bool = False) -> str:
        """End it; returns the variant that is kept. `ship`: its policy serves from now on."""
        kept, wanted = "", self._maintenance.serving

        def prepare() -> ev.AnyEvent:
            nonlocal kept, wanted
            spec, trial = self._own(id)
            _check_winner(spec, winner)
            if ship and spec.route:
                raise Refused(
                    f"ship: the policy of the route {spec.route!r} is configured; write the "
                    "winner's into [[routes]], or send it to PUT /v1/configuration",
                    param="ship",
                )
            kept = winner or best_of(spec, trial)
            wanted = self._policy_of(spec, kept) if ship else self._maintenance.serving
            if wanted != self._maintenance.serving:
                self._writer.membership.check_read_by_all(ev.PolicyAnnounced)
                if self._maintenance.training.wanted is not None:
                    name = self._maintenance.training.wanted.name
                    raise Conflict(f"ship: {name!r} is being trained; wait until it serves")
            may = ("running", "paused", "starting")
            return self._moved(id, "stopped", may, by, why, winner=kept)

        await self._writer.submit(prepare, key=KEY)
        if wanted != self._maintenance.serving:
            self._maintenance.training.change_policy(wanted)
        return kept

    async def delete(self, id: str, by: str, why: str) -> None:
        """Delete a draft or a finished experiment; one with traffic must be stopped first."""

        def prepare() -> ev.AnyEvent:
            _, trial = self._own(id)
            if trial.status in ("running", "starting", "paused") and any(trial.traffic().values()):
                raise Conflict(f"id: {id!r} has traffic; stop it first")
            return ev.ExperimentDeleted(ts=self._writer.now(), id=id, by=by, why=why)

        await self._writer.submit(prepare, key=KEY)

    async def set_rules(self, rules: Rules, by: str, why: str, source: str = "api") -> None:
        """The kill switch and the hold-out."""

        def prepare() -> ev.AnyEvent | None:
            self.check_rules(rules)
            now = self.records
            if now.rules == rules and (source == "api" or now.configured_rules == rules):
                return None
            return ev.RulesChanged(
                ts=self._writer.now(), rules=rules, by=by, why=why, source=source
            )

        await self._writer.submit(prepare, key=KEY)

    def check_rules(self, rules: Rules, offered: Offered | None = None) -> None:
        """Raise an error if these rules are not valid. offered: as for `check`."""
        checks.check_rules(rules)
        if rules.holdout_share:
            _check_arm("holdout_arm", rules.holdout_arm, offered or self._offered)

    # --- inside ---------------------------------------------------------------------------

    def _own(self, id: str) -> tuple[Experiment, Trial]:
        if is_holdout(id):
            route = id.partition(":")[2]
            where = f"holdout_share of the route {route!r}" if route else "PUT /v1/experiment-rules"
            raise Refused(f"id: {id!r} is a hold-out; {where} changes it", param="id")
        return self.find(id)

    def _offered(self, route: str) -> set[str]:
        offered: set[str] = {each.spec.id for each in self.world.offered()}
        if route and (own := self.world.routes.find(route).arms):
            offered &= set(own)
        return offered

    def _check_policies(self, spec: Experiment, offered: Offered) -> None:
        offered(spec.route)
        for one in spec.variants:
            at = f"variants.{one.key}"
            if one.arm:
                _check_arm(at, one.arm, offered, spec.route)
            if one.policy:
                try:
                    policies.load(one.policy, **one.parameters)
                except (ValueError, TypeError) as error:
                    raise Refused(f"{at}: {error}", param="variants") from None

    def _check_release(self, trial: Trial, key: str) -> None:
        until = trial.held.get(key)
        if until is None:
            raise Refused(f"release: {key!r} is not held", param="release")
        wait = until - self._writer.now()
        if wait > 0.0:
            raise Conflict(f"release: {key!r} is cooling down; {wait:.0f} s left", param="release")

    def _changed(
        self, spec: Experiment, status: str, by: str, why: str, **more: Any
    ) -> ev.ExperimentChanged:
        return ev.ExperimentChanged(
            ts=self._writer.now(), experiment=spec, status=status, by=by, why=why, **more
        )

    def _moved(
        self, id: str, status: str, may: tuple[str, ...], by: str, why: str, **more: Any
    ) -> ev.ExperimentChanged:
        spec, trial = self._own(id)
        if trial.status not in may:
            raise Conflict(
                f"id: {id!r} is {trial.status}; only what is {' or '.join(may)} can be {status}"
            )
        return self._changed(spec, status, by, why, **more)

    def _policy_of(self, spec: Experiment, key: str) -> PolicySettings:
        variant = spec.variant(key)
        if variant is not None and variant.arm:
            _check_arm(
                "ship", variant.arm, self._offered
            )  # if it is retired, `fixed` chooses another arm
            return PolicySettings("fixed", {"arm": variant.arm})
        learner = self.world.learners.get(label_of(spec.id, key))
        if learner is None or not learner.name:  # it is not seeded yet, or is the serving one
            if variant is not None and variant.policy:
                return PolicySettings(variant.policy, dict(variant.parameters))
            return self._maintenance.serving
        return PolicySettings(learner.name, json.loads(learner.parameters))


def _policies_of(spec: Experiment) -> list[PolicySettings]:
    return [PolicySettings(one.policy, one.parameters) for one in spec.variants if one.policy]


def _check_arm(at: str, arm: str, offered: Offered, route: str = "") -> None:
    there = offered(route)
    if arm not in there:
        where = f" by the route {route!r}" if route else ""
        raise Refused(
            f"{at}: no arm {arm!r} is offered{where}; expected one of {', '.join(sorted(there))}",
            param=at.split(".")[0],
        )


def _check_weighed(spec: Experiment, weights: Mapping[str, float]) -> None:
    known = {one.key for one in spec.served}
    for key in weights:
        if key not in known:
            raise Refused(
                f"weights: no variant {key!r}; expected one of {', '.join(sorted(known))}",
                param="weights",
            )


def _check_winner(spec: Experiment, winner: str) -> None:
    keys = [one.key for one in spec.served]
    if winner and winner not in keys:
        raise Refused(
            f"winner: no variant {winner!r}; expected one of {', '.join(keys)}", param="winner"
        )
