"""Metrics of drift: alarms, and what the detectors are fed with.

A counter of an arm begins with its first alarm and not at 0: three series for each arm would be too
many. The alert rules take a counter that was not there before for one that grew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Set

from bandit_service.core import events as ev
from bandit_service.core.drift import QUERIES, Track
from bandit_service.core.lessons import own_alarms
from bandit_service.core.world import World
from bandit_service.telemetry import metrics


class DriftMetrics:
    """`detected` with every alarm, `look` before a scrape. watched: whether detectors are fed."""

    def __init__(self, made: metrics.Metrics, bounded: Callable[[str], str]) -> None:
        self.watched = False
        self._metrics = made
        self._bounded = bounded
        self._counted: dict[str, int] = {}

    def begin(self, world: World) -> None:
        """The counts of the policy's own alarms after a recovery, from which later ones are
        counted.
        """
        self._counted = {id: own.count for id, own in own_alarms(world).items()}

    def detected(self, event: ev.DriftDetected) -> None:
        """One alarm that was applied."""
        if event.arm == QUERIES:
            self._metrics.query_drift_detected(event.detector, event.direction).inc()
        else:
            self._metrics.drift_detected(
                self._bounded(event.arm), event.detector, event.direction
            ).inc()

    def look(self, world: World, arms: Set[str]) -> None:
        """NaN where there is no value; of these arms only.

        The policy's own alarms stand in its state; where it is another policy now, there are fewer.
        """
        for id, own in own_alarms(world).items():
            more = own.count - self._counted.get(id, 0)
            if more > 0:
                self._metrics.arm_alarms(self._bounded(id)).inc(more)
            self._counted[id] = own.count
        for name, track in world.drift.tracks.items():
            arm, mean = self._bounded(name), track.shown
            if name != QUERIES and arm in arms:
                self._metrics.arm_residual(arm).set(math.nan if mean is None else mean)
        self._metrics.arm_residual.only((arm,) for arm in arms)
        distance = world.drift.tracks.get(QUERIES, Track()).shown
        self._metrics.query_distance.set(math.nan if distance is None else distance)
