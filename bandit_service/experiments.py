"""Experiments as they are run: made, changed, started with frozen policies, steered, stopped.

Every change is an event with who and why, checked against the world in the moment it is written.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

import policies
from bandit_service.core import events as ev
from bandit_service.core import experiments as ex
from bandit_service.core.errors import Conflict, Refused, ServiceError, Unknown
from bandit_service.core.experiments import Experiment, Rules, Variant
from bandit_service.core.steering import Change, steer
from bandit_service.core.trial import Trial
from bandit_service.experiment_results import best_of
from bandit_service.folding import FoldFailed
from bandit_service.keeper import Keeper
from bandit_service.settings import PolicySettings
from bandit_service.writer import Writer
from policies import ArmId
from store import StoreError

_log = logging.getLogger("bandit.experiments")
_KEY = "experiments"
MOST = 100
"""Experiments that may be there at a time, stopped ones included."""


class Experiments:
    """The experiments of a running service. `start` steering them, then `close`."""

    def __init__(self, writer: Writer, keeper: Keeper, steer_s: float = 5.0) -> None:
        self._writer = writer
        self._keeper = keeper
        self._steer_s = steer_s
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Begin to steer; what was starting when the service stopped is started again."""
        for id, trial in self._writer.world.trials.items():
            if trial.status == "starting":
                self._spawn(self._begin(id))
        self._spawn(self._steer_forever())

    async def close(self) -> None:
        """Stop steering."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def find(self, id: str) -> tuple[Experiment, Trial]:
        """One experiment; Unknown where there is none."""
        world = self._writer.world
        if id not in world.experiments:
            raise Unknown(f"id: no experiment {id!r}; GET /v1/experiments lists them", param="id")
        return world.experiments[id], world.trials[id]

    async def put(self, spec: Experiment, by: str, why: str, source: str = "api") -> bool:
        """Make a draft, or change what is there; True when it is new."""
        ex.check(spec)
        created = False

        def prepare() -> ev.AnyEvent | None:
            nonlocal created
            world = self._writer.world
            before = world.experiments.get(spec.id)
            created = before is None
            self._check_policies(spec)
            ex.check_beside(spec, self._live())
            status = "draft"
            if before is not None:
                trial = world.trials[spec.id]
                status = trial.status
                ex.check_change(before, spec, status, trial.traffic())
                if before == spec and (
                    source == "api" or world.configured_experiments.get(spec.id) == spec
                ):
                    return None
            elif len(world.experiments) >= MOST:
                raise Refused(f"id: there are {MOST} experiments; delete one first", param="id")
            return self._changed(spec, status, by, why, source)

        await self._writer.submit(prepare, key=_KEY)
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
        """Ramp, weigh anew, or let a held variant back in after its cool-down."""

        def prepare() -> ev.AnyEvent | None:
            spec, trial = self.find(id)
            after = _weighed(spec, share, weights)
            ex.check(after)
            ex.check_change(spec, after, trial.status, trial.traffic())
            if release is not None:
                self._check_release(trial, release)
                return self._changed(after, trial.status, by, why, held=release)
            return None if after == spec else self._changed(after, trial.status, by, why)

        await self._writer.submit(prepare, key=_KEY)

    async def begin(self, id: str, by: str, why: str) -> str:
        """Start, or go on after a pause; the status, "starting" while its policies are folded."""

        def prepare() -> ev.AnyEvent | None:
            spec, trial = self.find(id)
            if trial.status in ("running", "starting"):
                return None
            if trial.status == "stopped":
                raise Conflict(f"id: {id!r} is finished; begin a new one under another id")
            ex.check_beside(spec, self._live())
            if trial.status == "draft" and spec.ramp:
                spec = msgspec.structs.replace(spec, share=spec.ramp[0].share)
            status = "starting" if trial.status == "draft" else "running"
            return self._changed(spec, status, by, why)

        event = await self._writer.submit(prepare, key=_KEY)
        if isinstance(event, ev.ExperimentChanged) and event.status == "starting":
            task = self._spawn(self._begin(id))
            await asyncio.wait((task,), timeout=2.0)
        return self.find(id)[1].status

    async def pause(self, id: str, by: str, why: str) -> None:
        """Assign no unit any more, until it begins again."""
        await self._set(id, "paused", by, why, {"running"})

    async def stop(self, id: str, by: str, why: str, winner: str = "", ship: bool = False) -> str:
        """End it; the variant that is kept. `ship`: what it decides by serves from here on."""
        spec, trial = self.find(id)
        if winner and winner not in {one.key for one in spec.served}:
            there_are = ", ".join(one.key for one in spec.served)
            raise Refused(f"winner: no variant {winner!r}; there are {there_are}", param="winner")
        kept = winner or best_of(spec, trial)
        wanted = self._policy_of(spec, kept) if ship else None
        await self._set(id, "stopped", by, why, {"running", "paused", "starting"}, kept)
        if wanted is not None and wanted != self._keeper.serving:
            self._keeper.change_policy(wanted)
        return kept

    async def delete(self, id: str, by: str, why: str) -> None:
        """Take away a draft or a finished experiment; one with traffic is stopped first."""

        def prepare() -> ev.AnyEvent:
            _, trial = self.find(id)
            if id == ex.HOLDOUT:
                raise Refused("id: set holdout_share to 0 instead", param="id")
            if trial.status in ("running", "starting", "paused") and any(trial.traffic().values()):
                raise Conflict(f"id: {id!r} has traffic; stop it first")
            return ev.ExperimentDeleted(ts=self._writer.now(), id=id, by=by, why=why)

        await self._writer.submit(prepare, key=_KEY)

    async def set_rules(self, rules: Rules, by: str, why: str, source: str = "api") -> None:
        """The kill switch and the hold-out."""
        ex.check_rules(rules)

        def prepare() -> ev.AnyEvent | None:
            world = self._writer.world
            if rules.holdout_share and ArmId(rules.holdout_arm) not in world.arms:
                raise Unknown(f"holdout_arm: no arm {rules.holdout_arm!r}", param="holdout_arm")
            if world.rules == rules and (source == "api" or world.configured_rules == rules):
                return None
            return ev.RulesChanged(
                ts=self._writer.now(), rules=rules, by=by, why=why, source=source
            )

        await self._writer.submit(prepare, key=_KEY)

    async def reconcile(self, wanted: Sequence[Experiment], rules: Rules) -> None:
        """Make what the configuration names agree with it, by events; what the API made stays."""
        world = self._writer.world
        if rules != world.configured_rules:
            await self.set_rules(rules, "config", "the configuration changed", "config")
        for spec in wanted:
            if world.configured_experiments.get(spec.id) != spec:
                await self.put(spec, "config", "the configuration changed", "config")
                if world.trials[spec.id].status == "draft":
                    await self.begin(spec.id, "config", "it is in the configuration")
        left = set(world.configured_experiments) - {spec.id for spec in wanted}
        for id in sorted(left):
            if world.trials[id].status in ("running", "paused", "starting"):
                await self.stop(id, "config", "it is in the configuration no more")

    # --- inside ---------------------------------------------------------------------------

    def _live(self) -> dict[str, Experiment]:
        world = self._writer.world
        return {
            id: spec for id, spec in world.experiments.items()
            if world.trials[id].status not in ("stopped", ex.HOLDOUT)
        }  # fmt: skip

    def _check_policies(self, spec: Experiment) -> None:
        for one in spec.variants:
            at = f"variants.{one.key}"
            if one.arm and ArmId(one.arm) not in self._writer.world.arms:
                there_are = ", ".join(self._writer.world.arms)
                raise Refused(f"{at}: no arm {one.arm!r}; there are {there_are}", param="variants")
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
            raise Conflict(f"release: {key!r} cools down for another {wait:.0f} s", param="release")

    def _changed(
        self, spec: Experiment, status: str, by: str, why: str, source: str = "api", **more: Any
    ) -> ev.ExperimentChanged:
        now = self._writer.now()
        return ev.ExperimentChanged(
            ts=now, experiment=spec, status=status, by=by, why=why, source=source, **more
        )

    async def _set(
        self, id: str, status: str, by: str, why: str, allowed: set[str], winner: str = ""
    ) -> None:
        def prepare() -> ev.AnyEvent:
            spec, trial = self.find(id)
            if trial.status not in allowed:
                raise Conflict(
                    f"id: {id!r} is {trial.status}; only what is {' or '.join(sorted(allowed))} "
                    f"can be {status}"
                )
            return self._changed(spec, status, by, why, winner=winner)

        await self._writer.submit(prepare, key=_KEY)

    def _policy_of(self, spec: Experiment, key: str) -> PolicySettings:
        variant = spec.variant(key)
        assert variant is not None
        if variant.arm:
            return PolicySettings("fixed", {"arm": variant.arm})
        learner = self._writer.world.learners.get(ex.label_of(spec.id, key))
        if learner is None or not learner.name:
            return self._keeper.serving
        return PolicySettings(learner.name, json.loads(learner.parameters))

    async def _begin(self, id: str) -> None:
        """Freeze what each variant's policy knows, write that down, and run."""
        spec, _ = self.find(id)
        serving = self._keeper.serving
        owned = [one for one in spec.variants if _has_learner(one)]
        wanted = [
            PolicySettings(one.policy, dict(one.parameters)) if one.policy else serving
            for one in owned
        ]
        try:
            frozen = [each for one, each in zip(owned, wanted, strict=True)
                      if one.begin == "snapshot"]  # fmt: skip
            upto, states = await self._keeper.seeds(frozen)
            remaining = iter(states)
            for one, each in zip(owned, wanted, strict=True):
                seeded = ev.VariantSeeded(
                    ts=self._writer.now(),
                    experiment=id,
                    variant=one.key,
                    policy=each.name,
                    parameters=msgspec.json.encode(each.parameters),
                    state=next(remaining) if one.begin == "snapshot" else b"",
                    upto=upto,
                )
                await self._writer.submit(partial(_same, seeded), key=_KEY)
            why = f"every variant begins with what was known at event {upto}"
            await self._set(id, "running", "system", why, {"starting"})
        except (FoldFailed, StoreError, ServiceError) as error:
            _log.error("experiment not started", extra={"experiment": id, "why": str(error)})
            await self._set(id, "draft", "system", f"not started: {error}", {"starting"})

    async def _steer_forever(self) -> None:
        while True:
            await asyncio.sleep(self._steer_s)
            for id in list(self._writer.world.trials):
                try:
                    await self._steer(id)
                except (ServiceError, StoreError) as error:
                    _log.error("not steered", extra={"experiment": id, "why": str(error)})

    async def _steer(self, id: str) -> None:
        spec, trial = self.find(id)
        for change in steer(spec, trial, self._writer.now()):
            _log.warning("experiment steered", extra={"experiment": id, "why": change.why})
            await self._writer.submit(partial(self._steered, id, change), key=_KEY)

    def _steered(self, id: str, change: Change) -> ev.AnyEvent | None:
        spec, trial = self.find(id)
        if trial.status != "running":
            return None
        if change.hold:
            until = self._writer.now() + max(1.0, spec.cool_down_s)
            return self._changed(
                spec, "running", "system", change.why, "system", held=change.hold, held_until=until
            )
        if change.share is not None:
            spec = msgspec.structs.replace(spec, share=change.share)
        if change.weights is not None:
            keyed = {one.key: w for one, w in zip(spec.served, change.weights, strict=True)}
            spec = _weighed(spec, None, keyed)
        return self._changed(spec, "running", "system", change.why, "system")

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _same(event: ev.AnyEvent) -> ev.AnyEvent:
    return event


def _has_learner(variant: Variant) -> bool:
    """Whether the variant has a policy state of its own."""
    return not variant.arm and bool(variant.policy or variant.learning == "isolated")


def _weighed(spec: Experiment, share: float | None, weights: dict[str, float] | None) -> Experiment:
    if share is not None:
        spec = msgspec.structs.replace(spec, share=share)
    if weights is None:
        return spec
    known = {one.key for one in spec.served}
    for key in weights:
        if key not in known:
            raise Refused(
                f"weights: no variant {key!r}; there are {', '.join(sorted(known))}",
                param="weights",
            )
    return msgspec.structs.replace(
        spec,
        variants=tuple(
            msgspec.structs.replace(one, weight=weights.get(one.key, one.weight))
            for one in spec.variants
        ),
    )
