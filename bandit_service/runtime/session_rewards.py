"""Rewards of sessions: one event has the session's reward, then each decision learns its part.

All events are in the log before the client is answered. If the process ends in between, the next
start continues, or the client's resend.
"""

from __future__ import annotations

import asyncio
import logging

from bandit_service.core import events as ev
from bandit_service.core.errors import Conflict, Expired, NotYet, Refused
from bandit_service.core.outcomes import Reported
from bandit_service.core.session_outcomes import session_credited, session_rewarded
from bandit_service.runtime.named_metrics import check_names
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.runtime.supervisor import Kept
from bandit_service.runtime.writer import Writer

_log = logging.getLogger("bandit.sessions")
_TOGETHER = 64
_LOOK_S = 60.0
TASK = "credit"
_NOT_HERE = "{}; its decisions are not known here yet; send it again in a second"


class Crediting:
    """Credits sessions to their decisions. `start`, then `close`."""

    def __init__(self, writer: Writer, rules: RouterRules) -> None:
        self._writer, self._rules = writer, rules
        self._kept: Kept | None = None

    def start(self) -> None:
        """Continue what an earlier process did not complete."""
        self._kept = self._writer.tasks.keep(TASK, self._forever)

    async def close(self) -> None:
        """Stop; the next start continues."""
        if self._kept is not None:
            await self._kept.end()

    async def reward(self, group: str, name: str, report: Reported) -> tuple[str, int]:
        """Reward a session; "accepted" or "duplicate", and how many decisions it is credited to.

        Waits for decisions of it that another replica has just answered.
        """
        writer = self._writer
        newest = writer.new_id(writer.now())
        await writer.arrived(newest)  # this covers all that were answered before
        if group not in writer.world.sessions.members and writer.may_come(newest):
            raise NotYet(_NOT_HERE.format(name), param=name.partition(":")[0])
        await self.finish(group)

        def prepare() -> ev.SessionRewarded | None:
            check_names(writer.world.named, report.signals.metrics, "session")
            world, now = writer.world, writer.now()
            return session_rewarded(world, group, name, report, self._rules.credit, now)

        event = await writer.submit(prepare, key=group)
        if event is not None:
            await self.finish(group)
        told = writer.world.sessions.told.get(group)
        credited = 0 if told is None else len(told.weights)
        return "duplicate" if event is None else "accepted", credited

    async def finish_of(self, decision_id: str) -> None:
        """Let a decision whose own feedback was withdrawn learn the rewards of its sessions."""
        pending = self._writer.world.pending.decisions.get(decision_id)
        for group in () if pending is None else pending.decided.groups:
            await self._one(group, decision_id)

    async def finish(self, group: str) -> None:
        """Let each decision of a session learn the part that it has not learned yet."""
        writer = self._writer
        told = writer.world.sessions.told.get(group)
        if told is None or told.done:
            return
        ids, number = list(told.weights), told.number
        for i in range(0, len(ids), _TOGETHER):
            await asyncio.gather(*(self._one(group, id) for id in ids[i : i + _TOGETHER]))

        def done() -> ev.SessionCredited | None:
            now = writer.world.sessions.told.get(group)
            if now is None or now.done or now.number != number:
                return None
            return ev.SessionCredited(ts=writer.now(), group=group, number=number)

        await writer.submit(done, key=group, durable=False)

    async def _one(self, group: str, decision_id: str) -> None:
        writer = self._writer

        def prepare() -> ev.Rewarded | None:
            return session_credited(
                writer.world, group, decision_id, self._rules.reward, writer.now()
            )

        try:
            await writer.submit(prepare, key=decision_id)
        except Expired:
            pass  # it expired meanwhile
        except (Refused, Conflict) as error:  # the others learn it, and the session is not stuck
            _log.warning("a decision cannot learn its session's", extra={"why": error.code})

    async def _forever(self) -> None:
        writer = self._writer
        while True:
            if writer.membership.keeps:
                for group in writer.world.sessions.unfinished():
                    await self.finish(group)
            writer.tasks.well(TASK)
            await asyncio.sleep(_LOOK_S)
