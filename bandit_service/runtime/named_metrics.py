"""Named metrics of a running service: checks, and corrections after a change.

Changed weights are an event. Then every decision that may still be rewarded gets a correction for
policies, experiments and history (docs/adr/0019).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial

from bandit_service.core import events as ev
from bandit_service.core import outcomes
from bandit_service.core.errors import Expired, Refused, Unavailable
from bandit_service.core.metric_spec import NamedMetric
from bandit_service.core.named_metrics import NamedMetrics
from bandit_service.core.outcomes import VOTE
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World
from bandit_service.parsing.suggestions import did_you_mean
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.runtime.supervisor import Kept
from bandit_service.runtime.writer import Writer

_log = logging.getLogger("bandit.metrics")
_TOGETHER = 64
_LOOK_S = 5.0
TASK = "reweigh"


def check_names(
    named: NamedMetrics, given: Iterable[str], scope: str, experiments: Collection[str] = ()
) -> None:
    """Raise Refused for a metric that is not named, or has another scope.

    If none is named, any name is accepted, since experiments measure what is sent. experiments: the
    names that the decision's experiment measures.
    """
    configured = [name for name, spec in named.specs.items() if not spec.implicit]
    for name in given:
        spec = named.specs.get(name)
        if spec is None and configured and name != VOTE and name not in experiments:
            raise Refused(
                f"metrics.{name}: no such metric{did_you_mean(name, configured)}; [[metrics]] "
                f"names {', '.join(configured)}",
                param="metrics",
            )
        if spec is not None and spec.scope != scope:
            other = "session" if spec.scope == "session" else "decision_id"
            raise Refused(
                f"metrics.{name}: is of a {spec.scope}; send {other} and not that of a {scope}",
                param="metrics",
            )


def check_feedback(named: NamedMetrics, given: Iterable[str]) -> None:
    """Raise Refused for a metric that the holder of a feedback token may not report."""
    allowed = [name for name, spec in named.specs.items() if spec.feedback]
    for name in given:
        if name not in allowed:
            there_are = f"tokens may report {', '.join(allowed)}" if allowed else "none may be"
            raise Refused(
                f"metrics.{name}: may not be reported by a feedback token"
                f"{did_you_mean(name, allowed)}; {there_are}",
                param="metrics",
            )


class Measuring:
    """Corrects what was learned after the weights changed. `start`, then `close`."""

    def __init__(self, writer: Writer, rules: RouterRules) -> None:
        self._writer, self._rules = writer, rules
        self._changed = asyncio.Event()
        self._otherwise: set[str] = set()
        self._configured: Sequence[NamedMetric] | None = None
        self._kept: Kept | None = None
        writer.listen(self._heard, ev.MetricsChanged, ev.RouteChanged, ev.RouteRemoved, ev.Rewarded)

    def start(self) -> None:
        """Continue what an earlier process did not complete."""
        self._kept = self._writer.tasks.keep(TASK, self._forever)

    async def close(self) -> None:
        """Stop; the next start continues."""
        if self._kept is not None:
            await self._kept.end()

    async def configure(self, specs: Sequence[NamedMetric]) -> None:
        """`change`;

        if a replica of an older release cannot read the event, after that replica has left.
        """
        if self._are(specs):
            return
        try:
            self._writer.membership.check_read_by_all(ev.MetricsChanged)
        except Unavailable as error:
            self._configured = specs
            _log.warning("the named metrics wait", extra={"why": error.message})
            self._changed.set()
        else:
            await self.change(specs)

    async def change(self, specs: Sequence[NamedMetric], source: str = "config") -> bool:
        """Set the named metrics; returns whether they changed."""
        writer = self._writer

        def prepare() -> ev.MetricsChanged | None:
            if self._are(specs):
                return None
            return ev.MetricsChanged(ts=writer.now(), metrics=tuple(specs), source=source)

        return await writer.submit(prepare, key="catalogue") is not None

    async def reweigh(self, decision_id: str) -> bool:
        """Correct one decision by the present weights; returns whether it changed.

        If several processes append to the log, this ends when the event is applied. So only so many
        run as are waited for, and a decision that another process corrected first is checked again.
        """
        writer = self._writer
        prepare = partial(self._reweighed, decision_id)
        try:
            event = await writer.submit(prepare, key=decision_id, durable=writer.shared, late=True)
        except Expired:  # it expired meanwhile
            return False
        return event is not None

    async def reweigh_all(self) -> int:
        """The same for every decision that may still be rewarded; returns how many changed."""
        writer, begun = self._writer, self._writer.world.named
        specs, by_route = begun.specs, begun.by_route
        ids, taught = list(writer.world.pending.decisions), 0
        for i in range(0, len(ids), _TOGETHER):
            taught += sum(await asyncio.gather(*map(self.reweigh, ids[i : i + _TOGETHER])))

        def done() -> ev.MetricsWeighed | None:
            named = writer.world.named  # the weights may have changed once more
            weighed = named.specs is specs and named.by_route is by_route
            return ev.MetricsWeighed(ts=writer.now()) if named.stale and weighed else None

        await writer.submit(done, key="catalogue")
        return taught

    def _are(self, specs: Sequence[NamedMetric]) -> bool:
        return list(self._writer.world.named.specs.values()) == list(specs)

    async def _configure_late(self, specs: Sequence[NamedMetric]) -> None:
        with suppress(Unavailable):
            self._writer.membership.check_read_by_all(ev.MetricsChanged)
            await self.change(specs)
            self._configured = None

    def _heard(self, what: Resolved, world: World) -> None:
        event, writer = what.event, self._writer
        if isinstance(event, ev.MetricsChanged | ev.RouteChanged | ev.RouteRemoved):
            self._changed.set()
        elif (
            writer.shared
            and writer.membership.keeps
            and isinstance(event, ev.Rewarded)
            and event.metrics
            and world.named.specs
            and self._reweighed(event.decision_id) is not None
        ):  # another replica weighed it before it learned of other weights
            self._otherwise.add(event.decision_id)
            self._changed.set()

    def _reweighed(self, decision_id: str) -> ev.Rewarded | None:
        writer = self._writer
        world, pending = writer.world, writer.world.pending.decisions.get(decision_id)
        if pending is None:
            return None
        route = pending.decided.route
        rule, named = outcomes.rule_of(world, route, self._rules.reward), world.named.of(route)
        return outcomes.decision_reweighed(pending, decision_id, rule, writer.now(), named)

    async def _forever(self) -> None:
        writer = self._writer
        while True:
            self._changed.clear()
            if self._configured is not None:
                await self._configure_late(self._configured)
            if writer.world.named.stale and writer.membership.keeps:
                taught = await self.reweigh_all()
                _log.info("decisions were taught by other weights", extra={"decisions": taught})
            for id in list(self._otherwise):
                await self.reweigh(id)
                self._otherwise.discard(id)
            writer.tasks.well(TASK)
            if not writer.world.named.stale and self._configured is None:
                await self._changed.wait()
            else:
                await asyncio.sleep(_LOOK_S)
