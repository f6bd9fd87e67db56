"""What goes over the wire to the page: the state of the whole, steps, arms and decisions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bandit_service import clock
from bandit_service.core.deployments import upstreams_of
from bandit_service.core.display import rounded
from bandit_service.core.events import ArmSpec, DriftDetected
from bandit_service.core.lessons import own_alarms
from bandit_service.core.resolved import Pending
from bandit_service.core.routes import AUTO
from bandit_service.gateway import deployments
from bandit_service.gateway.budgets import Budgets
from bandit_service.gateway.health import Health
from bandit_service.observe.feed import ActivityFeed
from bandit_service.observe.reasons import (
    LOOKED_AT,
    ArmExposure,
    HealthSignals,
    changes,
    drifted,
    exposures,
    nearly_spent,
    relearned,
    state,
    unchosen,
    why,
)
from bandit_service.observe.ring import Step
from bandit_service.runtime.router import Router
from bandit_service.statistics import srm
from bandit_service.statistics.moments import Moments
from bandit_service.telemetry.learning import SIGNALS, ArmSeen, Money
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId

FEED, BUDGETS, CHANGES = 40, 8, 8
_NOW_S, _SPAN_S = 60.0, 600.0
_LEFT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Shown:
    """Renders a feed of activity. now: UTC seconds, as events have them."""

    router: Router
    telemetry: Telemetry
    health: Health
    budgets: Budgets
    now: Callable[[], float]

    def begin(self, feed: ActivityFeed, tenant: str | None) -> dict[str, Any]:
        """Everything that a new page needs, all kept steps among it."""
        now = self.now()
        fine, coarse = feed.fine, feed.coarse
        return self.tick(feed, tenant, now) | {
            "fine": {"step_s": fine.step_s, "most": fine.most, "rows": _rows(fine.kept(now))},
            "coarse": {
                "step_s": coarse.step_s,
                "most": coarse.most,
                "rows": _rows(coarse.kept(now)),
            },
        }

    def tick(self, feed: ActivityFeed, tenant: str | None, now: float) -> dict[str, Any]:
        """What changes from second to second; of the steps those of the last few seconds."""
        for ring in (feed.fine, feed.coarse):
            if ring.newest is not None:
                ring.newest.mean, ring.newest.best = feed.learning.means()
        recent = feed.newest(LOOKED_AT)
        span = feed.fine.since(now - _SPAN_S)
        alarms = (
            []
            if tenant is not None
            else [  # they are of all tenants' outcomes
                each for each in self.router.world.drift.alarms if each.ts >= now - _SPAN_S
            ]
        )
        relearning = {} if tenant is not None else relearned(own_alarms(self.router.world))
        arms = self._arms(feed, span, recent, alarms, relearning, now)
        budgets = self._budgets(tenant, now)
        noticed = (
            drifted(alarms) + list(relearning.values()) + self._splits() + nearly_spent(budgets)
        )
        codes = (
            []
            if tenant is not None
            else [  # they are all tenants' answers
                code for ts, code in self.telemetry.codes if ts >= clock.now() - _SPAN_S
            ]
        )
        answers = _codes(codes)
        says = self._state(span, recent, arms, noticed, answers)
        return {
            "now": now,
            "policy": self.router.world.serving,
            "numbers": list(feed.numbers),
            "state": {"is": says[0], "says": says[1]},
            "totals": self._totals(feed, tenant, span, now) | answers,
            "budgets": budgets[:BUDGETS],
            "replicas": self._replicas() if tenant is None else [],
            "changes": self._changes() if tenant is None else [],
            "fine": {"rows": _rows(feed.fine.since(now - 5.0))},
            "coarse": {"rows": _rows(feed.coarse.since(now - 5.0))},
            "arms": arms,
            "routes": self._routes(feed),
            "feed": [_decision(pending) for pending in recent[:FEED]],
        }

    def _changes(self) -> list[dict[str, Any]]:
        """The newest changes of the configuration at run time, newest first."""
        revisions = self.router.world.configuration.revisions[-CHANGES:]
        return [
            {
                "revision": each.number,
                "ts": each.ts,
                "by": each.by,
                "why": each.why,
                "changed": each.changed,
            }
            for each in reversed(revisions)
            if each.number > 0
        ]

    def _replicas(self) -> list[dict[str, Any]]:
        """Those that are there, or left a moment ago."""
        writer = self.router.writer
        newest = max((each.durable for each in writer.membership.known), default=0)
        return [
            {
                "slot": each.slot,
                "this": each.slot == writer.membership.slot,
                "open": not each.closed,
                "unseen_s": each.unseen_s,
                "behind": max(0, newest - each.applied),
                "roles": list(each.roles),
                "differs": writer.membership.differs(each),
            }
            for each in writer.membership.known
            if not each.closed or each.unseen_s < _LEFT_S
        ]

    def _totals(
        self, feed: ActivityFeed, tenant: str | None, span: Sequence[Step], now: float
    ) -> dict[str, Any]:
        reward = Moments()
        for step in span:
            reward.merge(step.reward)
        newest = [step for step in span if step.ts >= now - 11.0 and step.ts < int(now)]
        mean, best = feed.learning.means()
        baseline = self.telemetry.learning.fold.baseline.arm(self.router.world)
        money = feed.learning.money.get(ArmId(baseline), Money())
        took = np.array(self.telemetry.took_s)
        shown = len(took) >= 20 and tenant is None  # all tenants' times are not for one
        return {
            "decisions": sum(_count(step) for step in span),
            "per_s": sum(_count(step) for step in newest) / 10.0,
            "reward": reward.said(),
            "regret": None if mean is None or best is None else best - mean,
            "rewarded": sum(seen.signals["reward"].n for seen in feed.learning.arms.values()),
            "baseline": baseline,
            "saved": money.saved.said(),
            "spent_usd": rounded(money.spent_usd),
            "would_cost_usd": rounded(money.would_cost_usd),
            "p50_s": float(np.percentile(took, 50)) if shown else None,
            "p99_s": float(np.percentile(took, 99)) if shown else None,
            "timed": len(took) if tenant is None else 0,
        }

    def _state(
        self,
        span: Sequence[Step],
        recent: Sequence[Pending],
        arms: Sequence[dict[str, Any]],
        noticed: Sequence[str],
        answers: Mapping[str, int],
    ) -> tuple[str, list[str]]:
        world = self.router.world
        return state(
            HealthSignals(
                offered=len(world.offered()),
                decisions=sum(_count(step) for step in span),
                rewards=sum(step.reward.n for step in span),
                fallbacks=sum(bool(one.decided.fallback) for one in recent),
                looked_at=len(recent),
                masked=[arm["id"] for arm in arms if arm["upstream"] == "open"],
                noticed=noticed,
                degraded=self.router.writer.degraded,
                failed=answers["failed"],
                answered=answers["answered"],
            )
        )

    def _budgets(self, tenant: str | None, now: float) -> list[dict[str, Any]]:
        """The limits that are nearest to their end first; a tenant's are its own."""
        rows = self.budgets.rows(self.router.world.spend, now, tenant)
        return sorted(rows, key=lambda row: -(row["spent_usd"] + row["held_usd"]) / row["usd"])

    def _splits(self) -> list[str]:
        """The running experiments whose units do not come as their weights say."""
        return [
            f"The split of {id} is wrong, so that nothing may be concluded of it."
            for id, trial in self.router.world.experiments.trials.items()
            if trial.status == "running" and trial.split_p < srm.ALPHA
        ]

    def _arms(
        self,
        feed: ActivityFeed,
        span: Sequence[Step],
        recent: Sequence[Pending],
        alarms: Sequence[DriftDetected],
        relearning: Mapping[ArmId, str],
        now: float,
    ) -> list[dict[str, Any]]:
        treated = exposures([pending.decided for pending in recent])
        before: dict[int, int] = {}
        newest: dict[int, int] = {}
        for step in span:
            into = newest if step.ts >= now - _NOW_S else before
            for number, count in step.arms.items():
                into[number] = into.get(number, 0) + count
        shares = [(each, max(1, sum(each.values()))) for each in (newest, before)]
        rows = []
        for id, record in sorted(self.router.world.arms.items()):
            number = feed.numbers.get(id, -1)
            upstream, spec = "", record.spec
            if upstreams_of(spec):
                upstream = deployments.state(spec, self.health, time.monotonic())
            seen = feed.learning.arms.get(id, ArmSeen())
            row = _arm(seen, feed, id, treated.get(id))
            untried = id in treated and treated[id].untried
            untried = untried and not seen.signals["reward"].n and not seen.compared
            share, share_before = (each.get(number, 0) / whole for each, whole in shares)
            row |= {
                "retired": record.retired,
                "upstream": upstream,
                "kind": spec.kind,
                "deployments": self._deployments(spec),
                "share": share if newest else None,
                "share_n": sum(newest.values()),
                "share_before": share_before if before else None,
                "share_before_n": sum(before.values()),
                "why": " ".join(
                    [
                        *drifted([alarm for alarm in alarms if alarm.arm == id]),
                        *([relearning[id]] if id in relearning else []),
                        changes(seen, now)
                        + why(treated.get(id), record.retired, upstream, untried, unchosen(spec)),
                    ]
                ),
            }
            rows.append(row)
        return rows

    def _routes(self, feed: ActivityFeed) -> list[dict[str, Any]]:
        """What came of each route since the process started, the default one first; none where
        there is only that.
        """
        there = self.router.world.routes.specs
        seen = feed.learning.routes if there else {}
        return [
            {
                "id": id,
                "decisions": seen[id].decisions,
                "spent_usd": rounded(seen[id].spent_usd),
                **{name: each.said() for name, each in seen[id].signals.items()},
            }
            for id in (AUTO, *there)
            if id in seen
        ]

    def _deployments(self, spec: ArmSpec) -> list[dict[str, str]]:
        """Each deployment of an arm, and whether it answers."""
        if not spec.deployments:
            return []
        now = time.monotonic()
        return [
            {"id": each.deployment, "state": deployments.state_at(each, self.health, now)}
            for each in deployments.targets_of(spec)
        ]


def _arm(
    seen: ArmSeen, feed: ActivityFeed, id: ArmId, treated: ArmExposure | None
) -> dict[str, Any]:
    value = feed.learning.health.corrected.get(id)
    return {
        "id": id,
        "decisions": seen.decisions,
        "value": None if value is None else value.value,
        "elo": feed.learning.health.elo.get(id),
        "compared": seen.compared,
        "offered": None if treated is None else treated.offered,
        "propensity": treated.propensity if treated is not None and treated.offered else None,
        **{name: seen.signals[name].said() for name in ("reward", *SIGNALS)},
    }


def _decision(pending: Pending) -> dict[str, Any]:
    decided = pending.decided
    return {
        "id": decided.id,
        "ts": decided.ts,
        "arm": decided.arm,
        "propensity": decided.propensity,
        "explored": decided.propensity < max(decided.propensities),
        "policy": decided.policy,
        "experiment": decided.experiment,
        "variant": decided.variant,
        "route": decided.route,
        "fallback": decided.fallback,
        "excluded": len(decided.excluded),
        "reward": None if pending.reward is None else rounded(pending.reward),
        "signals": len(pending.signals),
    }


def _codes(codes: Sequence[int]) -> dict[str, int]:
    return {
        "answered": len(codes),
        "failed": sum(code >= 500 for code in codes),
        "refused": sum(code == 429 for code in codes),
    }


def _rows(steps: Sequence[Step]) -> list[list[object]]:
    return [step.row() for step in steps]


def _count(step: Step) -> int:
    return sum(step.arms.values())
