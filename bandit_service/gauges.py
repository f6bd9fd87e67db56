"""Gauges of the service's parts, set on the event loop before each scrape."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from prometheus_client import Gauge

import bandit_service
from bandit_service import clock
from bandit_service.admission import Admission
from bandit_service.core.spend import ends
from bandit_service.gateway.budgets import Budgets
from bandit_service.gateway.health import Health
from bandit_service.router import Router
from bandit_service.telemetry import Telemetry
from store import StoreError

_LAG_EVERY_S = 0.1
_STATES = {"closed": 1.0, "half open": 0.5, "open": 0.0}


class ServiceGauges:
    """What a running service is looked at for. `look` is added to the telemetry's looks."""

    def __init__(
        self,
        telemetry: Telemetry,
        router: Router,
        admission: Admission,
        health: Health,
        budgets: Budgets,
    ) -> None:
        self._telemetry, self._router, self._admission = telemetry, router, admission
        self._health, self._budgets = health, budgets
        r = telemetry.registry
        Gauge("bandit_build_info", "Version, always 1.", ["version"], registry=r).labels(
            bandit_service.__version__
        ).set(1)
        self._serving = Gauge(
            "bandit_serving_policy_info", "The policy that decides, always 1.",
            ["policy"], registry=r,
        )  # fmt: skip
        self._under_way = Gauge(
            "bandit_requests_under_way", "Requests let in and not yet answered.",
            ["kind"], registry=r,
        )  # fmt: skip
        self._allowed = Gauge(
            "bandit_requests_allowed", "Requests that may be under way for now.",
            ["kind"], registry=r,
        )  # fmt: skip
        self._queue = Gauge(
            "bandit_embedding_queue_texts", "Texts that wait for the embedding model.", registry=r
        )
        self._up = Gauge(
            "bandit_upstream_up", "1 offered, 0 masked after failures, 0.5 due for a probe.",
            ["arm"], registry=r,
        )  # fmt: skip
        self._size = Gauge("bandit_log_size_bytes", "Pages in use by the log.", registry=r)
        self._writable = Gauge(
            "bandit_log_writable", "1, or 0 while the log cannot be written.", registry=r
        )
        self._last = Gauge(
            "bandit_log_last_event_timestamp_seconds", "Time of the newest event.", registry=r
        )
        self._first = Gauge("bandit_log_first_offset", "Offset of the oldest event.", registry=r)
        columns = ("limit", "Its limit, USD."), ("spent", "Spent in this window, USD."), (
            "held", "Held for requests under way, USD.")  # fmt: skip
        self._money = {
            name: Gauge(f"bandit_budget_{name}_usd", f"Of a budget's fullest account: {what}",
                        ["budget"], registry=r)
            for name, what in columns
        }  # fmt: skip
        self._ends = Gauge(
            "bandit_budget_window_end_timestamp_seconds", "When a budget's window ends.",
            ["budget"], registry=r,
        )  # fmt: skip
        telemetry.looks.append(self.look)

    async def measure_lag(self) -> None:
        """Until cancelled: how late the event loop comes back to a timer."""
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(_LAG_EVERY_S)
            late = time.perf_counter() - begun - _LAG_EVERY_S
            self._telemetry.loop_lag.observe(max(0.0, late))

    def look(self) -> None:
        """Set every gauge."""
        router, world, log = self._router, self._router.world, self._router.writer.log
        self._telemetry.learning.look(world)
        self._serving.clear()
        self._serving.labels(world.serving).set(1)
        for kind, limit in self._admission.limits.items():
            self._under_way.labels(kind).set(limit.under_way)
            self._allowed.labels(kind).set(limit.allowed)
        self._queue.set(router.texts_waiting)
        with suppress(StoreError):  # a broken log says so by bandit_log_writable
            self._size.set(log.size_bytes)
            self._first.set(log.first)
            self._telemetry.log_offset.set(log.last)
        broken = router.writer.degraded or router.writer.broken.done()
        self._writable.set(0.0 if broken else 1.0)
        self._last.set(world.ts)
        now = time.monotonic()
        self._up.clear()
        for record in world.offered():
            if record.spec.upstream:
                state = self._health.state(record.spec.id, now)
                self._up.labels(self._telemetry.arm_label(record.spec.id)).set(_STATES[state])
        self._look_at_budgets(clock.now())

    def _look_at_budgets(self, now: float) -> None:
        """One series for each budget, however many tenants and keys: their fullest account."""
        fullest: dict[str, dict[str, float]] = {}
        for row in self._budgets.rows(self._router.world.spend, now):
            name = f"{row['account'].partition(':')[0]}/{row['per']}/{row['usd']:g}"
            used = (row["spent_usd"] + row["held_usd"]) / row["usd"]
            if used >= fullest.get(name, {}).get("used", 0.0):
                fullest[name] = {
                    "used": used, "limit": row["usd"], "spent": row["spent_usd"],
                    "held": row["held_usd"], "ends": ends(row["per"], now),
                }  # fmt: skip
        for gauge in (*self._money.values(), self._ends):
            gauge.clear()
        for name, found in fullest.items():
            for column, gauge in self._money.items():
                gauge.labels(name).set(found[column])
            self._ends.labels(name).set(found["ends"])
