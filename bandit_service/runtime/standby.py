"""Policies that learn beside the serving one, and decide if a query names them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

import msgspec

from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.learner import Learner, beside
from bandit_service.runtime.command_batches import Prepare
from bandit_service.runtime.folding import FoldFailed
from bandit_service.runtime.maintenance import Maintenance
from bandit_service.runtime.supervisor import Kept
from bandit_service.runtime.writer import Writer
from bandit_service.settings import PolicySettings, policy_key

_log = logging.getLogger("bandit.beside")
_AGAIN_S, _LOOK_S = 30.0, 0.2
_KEY = "catalogue"


class StandbyPolicies:
    """Makes these policies agree with the configuration, by events. `start`, then `close`; `want`
    others in between.

    A policy joins with the state that it would have if it had been there from the first event. A
    child process trains it while the service decides.

    If several processes share a log, the keeper trains it for all, and the event has its state.
    What others append between the last event that it has learned and this one, it does not learn.
    """

    def __init__(self, writer: Writer, maintenance: Maintenance) -> None:
        self._writer = writer
        self._maintenance = maintenance
        self._joining: Kept | None = None
        self._following: Kept | None = None
        self._wanted: Sequence[PolicySettings] = ()
        self._changed = asyncio.Event()

    async def start(self, wanted: Sequence[PolicySettings]) -> None:
        """Have these, and follow what is wanted later."""
        self._wanted = wanted
        await self._agree(wanted)
        self._following = self._writer.tasks.keep("beside configured", self._follow_forever)

    def want(self, wanted: Sequence[PolicySettings]) -> None:
        """Have these from now on, as soon as they are trained."""
        if wanted != self._wanted:
            self._wanted = wanted
            self._changed.set()

    async def _follow_forever(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._agree(self._wanted)
            except BaseException:
                self._changed.set()
                raise
            self._writer.tasks.well("beside configured")

    async def _agree(self, wanted: Sequence[PolicySettings]) -> None:
        """Remove policies that are no longer configured, and start training new ones.

        Before the first decision there is nothing to train on, and they join at once.
        """
        if self._joining is not None:
            await self._joining.end()
            self._joining = None
        world = self._writer.world
        keys = {each.name: policy_key(each.name, each.parameters) for each in wanted}
        for name in world.deciding()[1:]:
            if world.learners[beside(name)].key != keys.get(name):
                await self._writer.submit(self._leaving(name, keys.get(name)), key=_KEY)
        missing = [each for each in wanted if not self._is_there(each)]
        is_new = world.decisions + world.rewards + world.comparisons == 0
        if is_new and not self._writer.shared:
            missing = [each for each in missing if not self._joined(each, b"")]
        if missing:
            self._joining = self._writer.tasks.keep("beside", partial(self._fold, missing))

    async def close(self) -> None:
        """Stop training; a policy that did not join is trained again at the next start."""
        if self._following is not None:
            await self._following.end()
        if self._joining is not None:
            await self._joining.end()

    def _leaving(self, name: str, key: str | None) -> Prepare:
        def prepare() -> ev.AnyEvent | None:
            learner = self._writer.world.learners.get(beside(name))
            if learner is None or learner.key == key:  # another process was first
                return None
            return ev.PolicyLeft(ts=self._writer.now(), policy=name)

        return prepare

    def _is_there(self, wanted: PolicySettings) -> bool:
        return beside(wanted.name) in self._writer.world.learners

    async def _fold(self, missing: Sequence[PolicySettings]) -> None:
        left = list(missing)
        while left:
            wanted = left.pop(0)
            try:
                if self._writer.shared:
                    await self._learned_by_all(wanted)
                    continue
                built = await self._folded(wanted)
                if not self._joined(wanted, codec.dump(built.state)):
                    raise FoldFailed("the log cannot be written now")
            except Exception as error:  # noqa: BLE001 - one that cannot be folded bars no other
                self._writer.tasks.failed("beside", error)
                _log.error("not joined", extra={"policy": wanted.name})
                left.append(wanted)
                await asyncio.sleep(_AGAIN_S)

    async def _learned_by_all(self, wanted: PolicySettings) -> None:
        """Train it as the keeper, or wait for the keeper; who follows a keeper begins again."""
        awaited = self._writer.world.learners.awaited
        while not self._is_there(wanted):
            awaited.add(wanted.name)
            try:
                if self._writer.membership.keeps:
                    built = await self._folded(wanted)
                    state = await asyncio.to_thread(codec.dump, built.state)
                    await self._writer.submit(self._joining_once(wanted, state), key=_KEY)
                else:
                    await asyncio.sleep(_LOOK_S)
            finally:
                awaited.discard(wanted.name)

    def _joining_once(self, wanted: PolicySettings, state: bytes) -> Prepare:
        def prepare() -> ev.AnyEvent | None:
            if self._is_there(wanted) or not self._writer.membership.keeps:
                return None
            return self._event(wanted, state)

        return prepare

    async def _folded(self, wanted: PolicySettings) -> Learner:
        """Train it on the whole log; meanwhile a query that names it is told to wait."""
        awaited = self._writer.world.learners.awaited
        awaited.add(wanted.name)
        try:
            return await self._maintenance.training.folded(wanted)
        finally:
            awaited.discard(wanted.name)

    def _joined(self, wanted: PolicySettings, state: bytes) -> bool:
        """Append the event with its state, from which a replay makes the same learner."""
        written = self._writer.append_now(self._event(wanted, state))
        if written:
            _log.info("policy joined", extra={"policy": wanted.name, "bytes": len(state)})
        return written

    def _event(self, wanted: PolicySettings, state: bytes) -> ev.PolicyJoined:
        return ev.PolicyJoined(
            ts=self._writer.now(),
            policy=wanted.name,
            key=policy_key(wanted.name, wanted.parameters),
            parameters=msgspec.json.encode(wanted.parameters),
            state=state,
        )
