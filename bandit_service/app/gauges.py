"""Gauges of the service's parts, set on the event loop before each scrape."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from prometheus_client import Gauge

import bandit_service
from bandit_service import clock
from bandit_service.core.deployments import upstreams_of
from bandit_service.core.spend import ends
from bandit_service.gateway import deployments
from bandit_service.gateway.budgets import Budgets
from bandit_service.gateway.health import Health
from bandit_service.http.admission import Admission
from bandit_service.runtime.router import Router
from bandit_service.telemetry import metrics
from bandit_service.telemetry.families.make import Children
from bandit_service.telemetry.telemetry import Telemetry
from store import StoreError, can_trim, first_of

_LAG_EVERY_S = 0.1
_STATES = {"closed": 1.0, "half open": 0.5, "open": 0.0}


class ServiceGauges:
    """What a running service is looked at for. `look` is added to the telemetry's looks.

    admission: None for a pool beside the default one, which looks at what they share.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        router: Router,
        admission: Admission | None,
        health: Health,
        budgets: Budgets,
    ) -> None:
        self._telemetry, self._router, self._admission = telemetry, router, admission
        self._health, self._budgets = health, budgets
        self._metrics = made = telemetry.metrics
        made.build(bandit_service.__version__).set(1)
        telemetry.experiments.admit(router.world)
        telemetry.looks.append(self.look)

    def configured(self, digest: str) -> None:
        """The settings are those of this digest from here on."""
        self._metrics.config(digest).set(1)
        self._metrics.config.only({(digest,)})

    async def measure_lag(self) -> None:
        """Until cancelled: how late the event loop comes back to a timer."""
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(_LAG_EVERY_S)
            late = time.perf_counter() - begun - _LAG_EVERY_S
            self._metrics.event_loop_lag.observe(max(0.0, late))
            self._router.writer.tasks.well("lag")

    def look(self) -> None:
        """Set every gauge."""
        router, world, log = self._router, self._router.world, self._router.writer.log
        self._telemetry.learning.look(world)
        self._telemetry.experiments.look(world)
        self._metrics.serving(world.serving).set(1)
        self._metrics.serving.only({(world.serving,)})
        self._metrics.configuration_revision.set(world.configuration.revision)
        if self._admission is not None:
            for kind, limit in self._admission.limits.items():
                self._metrics.requests_under_way(kind).set(limit.under_way)
                self._metrics.requests_allowed(kind).set(limit.allowed)
            self._metrics.embedding_queue.set(router.texts_waiting)
        with suppress(StoreError):  # a broken log says so by bandit_log_writable
            if can_trim(log):
                self._metrics.log_size.set(log.size_bytes)
            self._metrics.log_first.set(first_of(log))
            self._metrics.log_offset.set(log.last)
        broken = router.writer.degraded or router.writer.broken.done()
        self._metrics.log_writable.set(0.0 if broken else 1.0)
        self._metrics.log_last_event.set(world.ts)
        self._look_at_arms(time.monotonic())
        self._look_at_budgets(clock.now())

    def _look_at_arms(self, now: float) -> None:
        """What serves each arm, and whether it answers."""
        info: set[tuple[str, ...]] = set()
        up: dict[tuple[str, ...], float] = {}
        each_up: dict[tuple[str, ...], float] = {}
        for record in self._router.world.catalogue.present():
            spec = record.spec
            label = (self._telemetry.arm_label(spec.id),)
            if label != (metrics.OTHER,):  # of which there may be any number, of many upstreams
                served = ",".join(dict.fromkeys(upstreams_of(spec)))
                info.add((*label, served, served and (spec.model or spec.id)))
            if upstreams_of(spec):
                state = _STATES[deployments.state(spec, self._health, now)]
                up[label] = min(state, up.get(label, state))
            for target in deployments.targets_of(spec) if spec.deployments else ():
                at = self._telemetry.deployment_labels(spec.id, target.deployment)
                state = _STATES[deployments.state_at(target, self._health, now)]
                each_up[at] = min(state, each_up.get(at, state))
        for labels in info:
            self._metrics.arm_info(*labels).set(1)
        self._metrics.arm_info.only(info)
        for labels, state in up.items():
            self._metrics.upstream_up(*labels).set(state)
        self._metrics.upstream_up.only(up)
        for labels, state in each_up.items():
            self._metrics.deployment_up(*labels).set(state)
        self._metrics.deployment_up.only(each_up)

    def _look_at_budgets(self, now: float) -> None:
        """One series for each budget, however many tenants and keys: their fullest account."""
        made, fullest = self._metrics, dict[str, dict[Children[Gauge], float]]()
        for row in self._budgets.rows(self._router.world.spend, now):
            name = f"{row['account'].partition(':')[0]}/{row['per']}/{row['usd']:g}"
            left = row["usd"] - row["spent_usd"] - row["held_usd"] - row["leased_usd"]
            if name not in fullest or left < fullest[name][made.budget_left]:
                fullest[name] = {
                    made.budget_limit: row["usd"],
                    made.budget_spent: row["spent_usd"],
                    made.budget_held: row["held_usd"],
                    made.budget_leased: row["leased_usd"],
                    made.budget_left: left,
                    made.budget_price: row["shadow_price"],
                    made.budget_ends: ends(row["per"], now),
                }
        for gauge in (
            *(made.budget_limit, made.budget_spent, made.budget_held, made.budget_leased),
            *(made.budget_left, made.budget_price, made.budget_ends),
        ):
            for name, found in fullest.items():
                gauge(name).set(found[gauge])
            gauge.only((name,) for name in fullest)
