"""Logs and counts the policy's failures to learn."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bandit_service import logs
from bandit_service.core import events as ev
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World
from bandit_service.telemetry.telemetry import Telemetry

_log = logging.getLogger("bandit.writer")


class LearnerLog:
    """`heard` listens to the writer: refused events, unsupported corrections, drift."""

    def __init__(self, telemetry: Telemetry, world: World) -> None:
        self._telemetry = telemetry
        self._seldom = logs.Seldom()
        self._serving = world.serving
        self._failures = world.learners[world.serving].failures

    def heard(self, what: Resolved, world: World) -> None:
        """One event that was applied."""
        event, learner = what.event, world.learners[world.serving]
        if isinstance(event, ev.DriftDetected):
            _log.warning(
                "drift",
                extra={
                    "arm": event.arm or None,
                    "detector": event.detector,
                    "direction": event.direction,
                    "before": round(event.before, 4),
                    "after": round(event.after, 4),
                },
            )
        if world.serving != self._serving:
            self._serving, self._failures = world.serving, learner.failures
        if learner.failures != self._failures:
            self._failures = learner.failures
            if (more := self._seldom("refused")) is not None:
                decision = getattr(event, "decision_id", "")
                told = {"event": ev.kind(event), "decision_id": decision, "more": more or None}
                _log.warning("the policy refused to learn", extra=told)
            self._telemetry.metrics.learn_failures(world.serving).set(learner.failures)
        if isinstance(event, ev.Rewarded) and event.correction:
            self._telemetry.metrics.uncorrected(world.serving).set(learner.uncorrected)

    def decided(self, some: Sequence[Resolved], world: World) -> None:
        """Decisions that were applied one after another: they teach nothing."""
        self.heard(some[-1], world)
