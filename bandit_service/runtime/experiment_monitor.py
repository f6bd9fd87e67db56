"""The background work of experiments: start with frozen policies, and steer.

Both write their changes as events, which are checked against the world at the moment of writing.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from bandit_service.core import events as ev
from bandit_service.core.errors import Conflict, ServiceError, Unavailable, Unknown
from bandit_service.core.experiments.spec import Experiment, Variant
from bandit_service.core.experiments.steering import Change, steer
from bandit_service.core.experiments.trial import Trial
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World
from bandit_service.runtime.folding import FoldFailed
from bandit_service.runtime.maintenance import Maintenance
from bandit_service.runtime.supervisor import Kept
from bandit_service.runtime.writer import Writer
from bandit_service.settings import PolicySettings
from store import StoreError

_log = logging.getLogger("bandit.experiments")
_LOOK_S = 0.05
KEY = "experiments"
"""The key under which changes are submitted: each is checked against the result of the one before
it.
"""


def unknown(id: str) -> Unknown:
    """The error for an unknown experiment."""
    return Unknown(f"id: no experiment {id!r}; GET /v1/experiments lists them", param="id")


def find(writer: Writer, id: str) -> tuple[Experiment, Trial]:
    """One experiment. Raises Unknown if there is none."""
    world = writer.world
    if id not in world.experiments.specs:
        raise unknown(id)
    return world.experiments.specs[id], world.experiments.trials[id]


def weighed(spec: Experiment, weights: dict[str, float]) -> Experiment:
    """The experiment with other weights of its served variants."""
    return msgspec.structs.replace(
        spec,
        variants=tuple(
            msgspec.structs.replace(one, weight=weights.get(one.key, one.weight))
            for one in spec.variants
        ),
    )


class Background:
    """The tasks of running experiments. `start` it, then `close`.

    If several processes share a log, only the keeper runs these tasks, and the next keeper repeats
    what the last one did not complete.
    """

    def __init__(self, writer: Writer, maintenance: Maintenance, steer_s: float) -> None:
        self._writer = writer
        self._maintenance = maintenance
        self.steer_s = steer_s
        self._beginning: dict[str, asyncio.Task[None]] = {}
        self._steering: Kept | None = None

    def start(self) -> None:
        """Begin to steer;

        experiments that were starting when the service stopped are started again.
        """
        self._begin_what_starts()
        self._writer.listen(self._heard, ev.ExperimentChanged)
        self._steering = self._writer.tasks.keep("steer", self._steer_forever)

    async def close(self) -> None:
        """Stop; experiments that were starting stay in that state."""
        tasks: list[asyncio.Task[None]] = list(self._beginning.values())
        if self._steering is not None:
            await self._steering.end()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- begin ----------------------------------------------------------------------------

    def _heard(self, what: Resolved, _: World) -> None:
        event = what.event
        if self._writer.shared and isinstance(event, ev.ExperimentChanged):
            self._begin_what_starts()

    def _begin_what_starts(self) -> None:
        if self._writer.membership.keeps:
            for id, trial in self._writer.world.experiments.trials.items():
                if trial.status == "starting":
                    self.begin(id)

    async def begun(self, id: str, patience_s: float) -> None:
        """Wait until it runs, or could not be started; not for longer than this."""
        if self._writer.membership.keeps:
            await asyncio.wait((self.begin(id),), timeout=patience_s)
            return
        with suppress(TimeoutError, Unknown):
            async with asyncio.timeout(patience_s):
                while find(self._writer, id)[1].status == "starting":  # noqa: ASYNC110 - by another
                    await asyncio.sleep(_LOOK_S)

    def begin(self, id: str) -> asyncio.Task[None]:
        """Freeze each variant's policy, and run; returns the task that does it."""
        task = self._beginning.get(id)
        if task is None:
            task = self._beginning[id] = asyncio.ensure_future(self._begin(id))
            task.add_done_callback(lambda _: self._beginning.pop(id, None))
        return task

    async def _begin(self, id: str) -> None:
        try:
            upto = await self._seed(id)
            why = f"every variant begins with what was known at event {upto}"
            await self._started(id, "running", why)
        except (Conflict, Unknown):
            return  # it was stopped or deleted meanwhile
        except Exception as error:  # noqa: BLE001 - it may not stand as starting for ever
            known = (FoldFailed, StoreError, ServiceError, ValueError, TypeError)
            why = str(error) if isinstance(error, known) else type(error).__name__
            _log.error("experiment not started", extra={"experiment": id, "why": why})
            await self._not_started(id, f"not started: {why}")

    async def _seed(self, id: str) -> int:
        spec, _ = find(self._writer, id)
        serving = self._serving(spec.route)
        owned = [one for one in spec.variants if _has_learner(one)]
        wanted = [
            PolicySettings(one.policy, dict(one.parameters)) if one.policy else serving
            for one in owned
        ]
        pairs = list(zip(owned, wanted, strict=True))
        upto, states = await self._maintenance.training.seeds(
            [each for one, each in pairs if one.begin == "snapshot"], spec.route
        )
        remaining = iter(states)
        for one, each in pairs:
            seeded = ev.VariantSeeded(
                ts=self._writer.now(),
                experiment=id,
                variant=one.key,
                policy=each.name,
                parameters=msgspec.json.encode(each.parameters),
                state=next(remaining) if one.begin == "snapshot" else b"",
                upto=upto,
            )
            await self._writer.submit(partial(self._while_starting, id, seeded), key=KEY)
        return upto

    def _serving(self, route: str) -> PolicySettings:
        """The policy that decides where no variant does. Raises Unavailable if there is no such
        route any more.
        """
        if not route:
            return self._maintenance.serving
        spec = self._writer.world.routes.specs.get(route)
        if spec is None:
            raise Unavailable(f"route: {route!r} is no longer configured")
        return PolicySettings(spec.policy, dict(spec.parameters))

    def _while_starting(self, id: str, event: ev.AnyEvent) -> ev.AnyEvent:
        _, trial = find(self._writer, id)
        if trial.status != "starting" or not self._writer.membership.keeps:
            raise Conflict(f"id: {id!r} is {trial.status} and cannot be started")
        return event

    async def _started(self, id: str, status: str, why: str) -> None:
        def prepare() -> ev.AnyEvent:
            spec, _ = find(self._writer, id)
            return self._while_starting(id, self._changed(spec, why, status=status))

        await self._writer.submit(prepare, key=KEY)

    async def _not_started(self, id: str, why: str) -> None:
        try:
            await self._started(id, "draft", why)
        except ServiceError as error:  # the log cannot be written: a restart tries again
            _log.error("not written down", extra={"experiment": id, "why": str(error)})

    # --- steer ----------------------------------------------------------------------------

    async def _steer_forever(self) -> None:
        while True:
            await asyncio.sleep(self.steer_s)
            well = True
            self._begin_what_starts()
            trials = self._writer.world.experiments.trials if self._writer.membership.keeps else ()
            for id in list(trials):
                try:
                    await self._steer(id)
                except Exception as error:  # noqa: BLE001 - the others are steered all the same
                    self._writer.tasks.failed("steer", error)
                    _log.error("not steered", extra={"experiment": id})
                    well = False
            if well:
                self._writer.tasks.well("steer")

    async def _steer(self, id: str) -> None:
        spec, trial = find(self._writer, id)
        for change in steer(spec, trial, self._writer.now()):
            _log.warning("experiment steered", extra={"experiment": id, "why": change.why})
            await self._writer.submit(partial(self._steered, id, spec, change), key=KEY)

    def _steered(self, id: str, seen: Experiment, change: Change) -> ev.AnyEvent | None:
        spec, trial = find(self._writer, id)
        if trial.status != "running" or not self._writer.membership.keeps:
            return None
        if change.hold:
            until = self._writer.now() + max(1.0, spec.cool_down_s)
            return self._changed(spec, change.why, held=change.hold, held_until=until)
        if spec != seen:
            return None  # it was changed meanwhile, and is checked again soon
        if change.share is not None:
            spec = msgspec.structs.replace(spec, share=change.share)
        if change.weights is not None:
            keyed = {one.key: w for one, w in zip(spec.served, change.weights, strict=True)}
            spec = weighed(spec, keyed)
        return self._changed(spec, change.why)

    def _changed(
        self, spec: Experiment, why: str, status: str = "running", **more: Any
    ) -> ev.ExperimentChanged:
        return ev.ExperimentChanged(
            ts=self._writer.now(),
            experiment=spec,
            status=status,
            by="system",
            why=why,
            source="system",
            **more,
        )


def _has_learner(variant: Variant) -> bool:
    """Whether the variant has a policy state of its own."""
    return not variant.arm and bool(
        variant.policy or variant.shadow or variant.learning == "isolated"
    )
