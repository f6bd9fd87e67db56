"""Judges at work: quality for a share of the answers, and comparisons of two, in the background.

Judging begins when the user has the whole answer, so it delays nobody. The cost of a model's
judgement is an event of the log, so its daily limit survives a restart.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bandit_service.core import chance
from bandit_service.core import events as ev
from bandit_service.core.deployments import calls_of
from bandit_service.core.errors import ServiceError
from bandit_service.core.outcomes import Signals
from bandit_service.core.routes import AUTO
from bandit_service.core.spend import payer_of
from bandit_service.gateway import deployments, judges
from bandit_service.gateway.accounts import booked
from bandit_service.gateway.exchange import Exchange
from bandit_service.gateway.failures import Failed, Rejected
from bandit_service.gateway.money import max_usd
from bandit_service.gateway.request import CHAT
from bandit_service.gateway.request_size import size_of
from bandit_service.gateway.resources import Resources
from bandit_service.gateway.verdicts import NoVerdict, Verdicts
from bandit_service.settings.judges import JudgeSpec

_log = logging.getLogger("bandit.judging")
_MAX_TASKS = 256
_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """One answer that a user got, or the duel's second answer, with the request."""

    decided: ev.Decided
    body: Mapping[str, Any]
    text: str
    expected: str = ""


@dataclass
class _Quota:
    """How much of its rate and its budget one judging model has used."""

    calls: deque[float] = field(default_factory=deque)
    held_usd: float = 0.0


@dataclass(slots=True)
class _JudgeAccount:
    """The daily limit of one judging model. A judgement counts for the decision's budgets too."""

    resources: Resources
    spec: JudgeSpec
    quota: _Quota
    max_usd: float
    decided: ev.Decided
    held: bool = False

    def reserve(self) -> None:
        """Hold the most that the judgement may cost."""
        self.quota.held_usd += self.max_usd
        self.held = True

    def release(self) -> None:
        """Let go of it."""
        if self.held:
            self.quota.held_usd = max(0.0, self.quota.held_usd - self.max_usd)
            self.held = False

    async def book(self, usd: float) -> bool:
        """An event `spent` of this judge; whether it is in the log."""
        self.resources.telemetry.judge_paid(self.spec.id, usd)
        writer, budgets = self.resources.router.writer, self.resources.budgets

        def spent() -> ev.Spent:
            return ev.Spent(
                ts=writer.now(),
                decision_id=self.decided.id,
                judge=self.spec.id,
                usd=usd,
                tenant=self.decided.tenant,
                caller=self.decided.caller,
                route=self.decided.route,
            )

        owed = f"owed {writer.new_id(writer.now())}"

        def hold() -> None:
            self.quota.held_usd += usd
            budgets.reserve(owed, usd, payer_of(self.decided))

        def let_go() -> None:
            self.quota.held_usd = max(0.0, self.quota.held_usd - usd)
            budgets.settle(owed)

        return await booked(writer, spent, key=self.decided.id, hold=hold, let_go=let_go)

    async def book_apart(self, usd: float) -> bool:
        """The same."""
        return await self.book(usd)


class JudgePool:
    """Runs `[[judges]]`. The first judge that can judge an answer gives its quality."""

    def __init__(self, specs: tuple[JudgeSpec, ...], resources: Resources) -> None:
        self._specs: dict[str, JudgeSpec] = {}
        self._resources = resources
        self._router = resources.router
        self._telemetry = resources.telemetry
        self._quotas: dict[str, _Quota] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._verdicts = Verdicts(resources.settings.verdict_s)
        self.reconfigure(specs)

    def __bool__(self) -> bool:
        return bool(self._specs)

    def reconfigure(self, specs: tuple[JudgeSpec, ...]) -> None:
        """Judge by these from here on. What one has used of its rate and its money stays used."""
        self._specs = {spec.id: spec for spec in specs}
        for spec in specs:
            self._quotas.setdefault(spec.id, _Quota())
        if any(spec.kind != "llm" for spec in specs):
            self.start(self._verdicts.begin)

    async def close(self) -> None:
        """End the judgements under way; a service that stops waits for no verdict."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._verdicts.close()

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run something in the background; beyond the limit of tasks it is dropped."""
        if len(self._tasks) >= _MAX_TASKS:
            self._telemetry.judged("", "busy")
            return

        async def run() -> None:
            try:
                await work()
            except ServiceError as error:
                _log.warning("not judged", extra={"why": error.message})

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def judge(self, answer: ServedAnswer) -> None:
        """Judge this answer in the background if a judge's sample includes it."""
        if not self._specs:
            return
        route = answer.decided.route or AUTO
        specs = [
            spec
            for spec in self._specs.values()
            if route in (spec.routes or (route,)) and self._sampled(spec, answer.decided.id)
        ]
        if specs:
            self.start(lambda: self._quality(specs, answer))

    async def compare(self, judge: str, one: ServedAnswer, other: ServedAnswer) -> float | None:
        """1 where `one` is better, 0 where `other` is, 0.5 for a tie; None if nobody can say.

        A model is asked in both orders, since models prefer one of the positions; two different
        verdicts are a tie.
        """
        spec = self._specs[judge]
        if spec.kind != "llm":
            a, b = await self._score(spec, one), await self._score(spec, other)
            return None if a is None or b is None else 0.5 + (a - b) / 2.0
        question = judges.question_text(one.body)
        scores: list[float] = []
        for first, second, worth in ((one, other, 1.0), (other, one, 0.0)):
            messages = judges.comparing(spec, question, first.text, second.text)
            better = judges.better_of(await self._reply(spec, one.decided, messages) or "")
            if better is None:
                return None
            scores.append({"A": worth, "B": 1.0 - worth, "tie": 0.5}[better])
        return scores[0] if scores[0] == scores[1] else 0.5

    def _sampled(self, spec: JudgeSpec, decision_id: str) -> bool:
        """By a draw that depends on nothing else, so the judged answers are a fair sample."""
        seed = self._router.rules.explore.seed
        return chance.uniform(seed, f"{decision_id} judged by {spec.id}") < spec.share

    async def _quality(self, specs: list[JudgeSpec], answer: ServedAnswer) -> None:
        for spec in specs:
            score = await self._score(spec, answer)
            if score is None:
                continue
            quality = await self._calibrated(spec, answer.decided, score)
            try:
                status = await self._router.observe(
                    answer.decided.id, Signals(quality), provisional=True
                )
            except ServiceError as error:  # the user's feedback came first, or it is too late
                self._telemetry.judged(spec.id, "refused")
                _log.info("judgement refused", extra={"why": error.code})
                return
            self._router.count_reward(answer.decided.id, status)
            self._telemetry.judged(spec.id, "judged")
            return

    async def _calibrated(self, spec: JudgeSpec, decided: ev.Decided, score: float) -> float:
        """The quality of this score: corrected by people's grades, if the judge is to be, and if
        there are enough. The score itself is an event.
        """
        if spec.calibration == "off":
            return score
        try:
            await self._router.judged(decided.id, spec.id, spec.basis, score)
        except ServiceError as error:
            _log.info("score not written down", extra={"judge": spec.id, "why": error.code})
        if spec.calibration != "apply":
            return score
        pairs = self._router.world.judging
        found = pairs.calibrated(spec.id, spec.basis, decided.route, score, spec.min_pairs)
        return score if found is None else found

    async def _score(self, spec: JudgeSpec, answer: ServedAnswer) -> float | None:
        if spec.kind != "llm":
            try:
                return await self._verdicts.of(spec, answer.body, answer.expected, answer.text)
            except NoVerdict as none:
                self._telemetry.judged(spec.id, str(none))
                return None
        messages = judges.grading(spec, judges.question_text(answer.body), answer.text)
        text = await self._reply(spec, answer.decided, messages)
        score = judges.score_of(text) if text is not None else None
        if text is not None and score is None:
            self._telemetry.judged(spec.id, "unreadable")
        return score

    async def _reply(
        self, spec: JudgeSpec, decided: ev.Decided, messages: list[dict[str, str]]
    ) -> str | None:
        """What the judging model says; None if it cannot be called, or has reached a limit."""
        arm = self._resources.callable_arm(spec.arm)
        if arm is None:
            self._telemetry.judged(spec.id, "no arm")
            return None
        body = {"messages": messages, "temperature": 0, "max_tokens": 200}
        size, quota = size_of(body), self._quotas[spec.id]
        most = max(max_usd(each, size) for each in calls_of(arm))
        account = _JudgeAccount(self._resources, spec, quota, most, decided)
        if not self._admitted(spec, quota, account.max_usd):
            return None
        try:
            self._require_room(arm)
            key = f"{decided.id} judged by {spec.id}"
            async with Exchange(self._resources, arm, size, account, "judge", key) as exchange:
                answer = await exchange.over(lambda: _within(spec, exchange.whole(CHAT, body, {})))
        except (Failed, Rejected):
            self._telemetry.judged(spec.id, "failed")
            return None
        return judges.answer_text(answer) or ""

    def _require_room(self, arm: ev.ArmSpec) -> None:
        """Raise Failed if the arm is masked, or has as many calls under way as it may."""
        health = self._resources.health
        if not deployments.available(arm, health, time.monotonic()):
            raise Failed("the arm does not answer at present")
        if deployments.full(arm, health):
            raise Failed("the arm is at its limit of concurrent calls")

    def _admitted(self, spec: JudgeSpec, quota: _Quota, usd: float) -> bool:
        """Whether the judge's rate and daily limit allow one more call."""
        now = time.monotonic()
        while quota.calls and quota.calls[0] <= now - _MINUTE_S:
            quota.calls.popleft()
        if len(quota.calls) >= spec.max_per_minute:
            self._telemetry.judged(spec.id, "rate")
            return False
        spend = self._router.world.spend
        spent = spend.spent("day", self._router.writer.now(), f"judge:{spec.id}")
        if usd and spent + quota.held_usd + usd > spec.usd_per_day:
            self._telemetry.judged(spec.id, "budget")
            return False
        quota.calls.append(now)
        return True


async def _within(spec: JudgeSpec, call: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """The call's result. Raises Failed if it takes longer than this judge waits."""
    try:
        async with asyncio.timeout(spec.timeout_s):
            return await call
    except TimeoutError:
        raise Failed(f"no judgement within {spec.timeout_s:g} s", timeout=True) from None
