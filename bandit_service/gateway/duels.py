"""Duels: on a small share of traffic a second arm answers too, and the two are compared.

The user gets the first answer and waits for nothing. The second is a decision of its own among the
other arms, so its cost and latency are learned with true propensities; a judge, or the user by
POST /v1/comparisons, says which is better, and every policy that learns from comparisons does.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace

from bandit_service import wire
from bandit_service.core import chance
from bandit_service.core.errors import ServiceError, Unknown
from bandit_service.gateway.judge_pool import JudgePool, ServedAnswer
from bandit_service.gateway.resources import Resources
from bandit_service.settings import DuelSettings

_MAX_KEPT = 256


class Duels:
    """Which answers are challenged, by which, and with what result."""

    def __init__(self, settings: DuelSettings, resources: Resources, judges: JudgePool) -> None:
        self.settings = settings
        self._router = resources.router
        self._telemetry = resources.telemetry
        self._judges = judges
        self._kept: OrderedDict[str, tuple[float, ServedAnswer, ServedAnswer]] = OrderedDict()

    def drawn(self, decision_id: str) -> bool:
        """Whether this answer is challenged: by a draw that depends on nothing else."""
        if not self.settings.share:
            return False
        seed = self._router.rules.explore.seed
        return chance.uniform(seed, f"{decision_id} challenged") < self.settings.share

    def begin(
        self, served: ServedAnswer, second: Callable[[], Awaitable[ServedAnswer | None]]
    ) -> None:
        """Fetch the second answer and have the two compared, in the background."""
        self._judges.start(lambda: self._fight(served, second))

    def kept(self, decision_id: str, tenant: str | None) -> tuple[ServedAnswer, ServedAnswer]:
        """Both answers of a duel; Unknown once they are forgotten."""
        self._tidy()
        kept = self._kept.get(decision_id)
        if kept is None or tenant not in (None, kept[1].decided.tenant):
            raise Unknown(
                f"decision_id: no duel of {decision_id!r} is kept; the answers of a duel are kept "
                f"for {self.settings.keep_s:g} s",
                param="decision_id",
            )
        return kept[1], kept[2]

    async def _fight(
        self, served: ServedAnswer, second: Callable[[], Awaitable[ServedAnswer | None]]
    ) -> None:
        try:
            other = await second()
        except ServiceError:  # no other arm, or no money for it
            other = None
        if other is None:
            self._telemetry.dueled("none")
            return
        self._tidy()
        ends = time.monotonic() + self.settings.keep_s
        shown = (replace(served, body={}), replace(other, body={}))  # the questions take no room
        self._kept[served.decided.id] = (ends, *shown)
        while len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)
        if not self.settings.judge:
            self._telemetry.dueled("open")
            return
        better = await self._judges.compare(self.settings.judge, served, other)
        if better is None:
            self._telemetry.dueled("open")
            return
        winner, loser = (served, other) if better >= 0.5 else (other, served)
        request = wire.CompareRequest(
            decision_id=served.decided.id,
            winner=winner.decided.arm,
            loser=loser.decided.arm,
            tie=better == 0.5,
            idempotency_key=f"duel {served.decided.id}",
        )
        self._router.count_comparison(await self._router.compare(request, provisional=True))
        self._telemetry.dueled("tie" if better == 0.5 else "first" if better > 0.5 else "second")

    def _tidy(self) -> None:
        now = time.monotonic()
        while self._kept and next(iter(self._kept.values()))[0] <= now:
            self._kept.popitem(last=False)
