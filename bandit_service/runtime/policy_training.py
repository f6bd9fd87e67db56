"""Trains policies on the log while another one decides: to serve, to learn beside it, or to begin
a variant of an experiment.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import numpy as np

import policies
from bandit_service.core import codec, snapshot
from bandit_service.core import events as ev
from bandit_service.core.errors import Conflict, Refused, ServiceError, Unavailable
from bandit_service.core.learner import Learner, teach
from bandit_service.runtime.folding import FoldFailed, Progress, Task
from bandit_service.runtime.recovery import snapshot_key, task_arguments
from bandit_service.runtime.snapshot_making import SnapshotMaking
from bandit_service.runtime.supervisor import FIRST_S, Kept
from bandit_service.runtime.writer import Writer
from bandit_service.settings import PolicySettings, Settings, load_policy, policy_key
from policies import ArmId, Arms, Context
from store import Offset, StoreError, first_of

_log = logging.getLogger("bandit.keeper")
_SLICE = 4
"""How many lessons are learned before others have their turn: `metallm` takes half a millisecond
for one."""
_SWITCHES = 5


class PolicyTraining:
    """wanted: the policy that is being trained to serve. progress: how many of how many events.

    announce: how a change of the policy begins where several processes share the log, else None.
    tried: reports an error of a piece of work. carried_out: called before the log is read.
    """

    def __init__(
        self,
        writer: Writer,
        making: SnapshotMaking,
        settings: Settings,
        tried: Callable[[str, Awaitable[object]], Awaitable[bool]],
        carried_out: Callable[[], Awaitable[object]],
    ) -> None:
        self.wanted: PolicySettings | None = None
        self.progress: tuple[int, int] | None = None
        self.announce: Callable[[PolicySettings, str], Awaitable[None]] | None = None
        self._writer = writer
        self._making = making
        self._settings = settings
        self._tried = tried
        self._carried_out = carried_out
        self._changing: Kept | None = None

    async def close(self) -> None:
        """Stop; the next start begins again."""
        if self._changing is not None:
            await self._changing.end()

    def change_policy(self, wanted: PolicySettings, source: str = "api") -> None:
        """Begin to train another policy, or other parameters, on the past; it serves when done.

        Raises Refused for an unknown policy, Conflict while another is in training, and Unavailable
        if another process on the log cannot read its events.
        """
        if not policies.exists(wanted.name):
            raise Refused(f"name: {policies.no_such(wanted.name)}", param="name")
        try:
            load_policy(wanted)
        except (ValueError, TypeError) as error:
            raise Refused(f"parameters: {error}", param="parameters") from None
        if self.wanted is not None:
            raise Conflict(f"name: {self.wanted.name!r} is being trained; wait until it serves")
        if self.announce is not None:
            self._writer.membership.check_read_by_all(ev.PolicyAnnounced)
        self.wanted, self.progress = wanted, (0, int(self._writer.log.last))
        change = self._change if self.announce is None else self._announced
        self._changing = self._writer.tasks.keep("policy", partial(change, wanted, source))

    async def _announced(self, wanted: PolicySettings, source: str) -> None:
        """All that share the log train it, and switch together."""
        assert self.announce is not None
        try:
            await self.announce(wanted, source)
        except ServiceError as error:
            if self.wanted is wanted:
                self.wanted = self.progress = None
            _log.error("the policy was not changed", extra={"why": error.message})

    async def _change(self, wanted: PolicySettings, source: str) -> None:
        """Train and switch; tried several times, since the obstacle may be temporary."""
        try:
            for i in range(_SWITCHES):
                if i:
                    await asyncio.sleep(FIRST_S * 4.0**i)
                if await self._tried("policy", self._switched(wanted, source)):
                    return
        finally:
            self.wanted = self.progress = None
        why = self._writer.tasks.failing.get("policy", "")
        _log.error("the policy was not changed", extra={"policy": wanted.name, "why": why})

    async def _switched(self, wanted: PolicySettings, source: str) -> None:
        built = await self.folded(wanted, self._note_progress)
        self._switch(wanted, built, source)

    async def folded_to_serve(self, wanted: PolicySettings) -> Learner:
        """The same for a policy that will serve: its progress is reported, and a snapshot is kept
        for it.
        """
        return await self.folded(wanted, self._note_progress)

    async def folded_for_all(self, wanted: PolicySettings) -> tuple[Learner, Offset]:
        """The same, and the snapshot that is kept lies in the shared log; its offset."""
        ats = list[Offset]()

        async def share(at: Offset) -> None:
            if not await self._making.share(snapshot_key(wanted, self._settings), at):
                raise StoreError(
                    "the policy was not shared: another is the keeper, or states differ"
                )
            ats.append(at)

        return await self.folded(wanted, self._note_progress, share), ats[-1]

    async def folded_on(self, wanted: PolicySettings, at: Offset, state: bytes) -> Learner:
        """The same from another process' snapshot of it."""
        self._making.kept.save(at, snapshot_key(wanted, self._settings), state)
        return await self.folded(wanted, self._note_progress, is_begun=True)

    async def folded(
        self,
        wanted: PolicySettings,
        progress: Progress | None = None,
        share: Callable[[Offset], Awaitable[None]] | None = None,
        *,
        is_begun: bool = False,
    ) -> Learner:
        """A policy trained on the whole log by a child process, up to the present event.

        It learns the lessons of the meantime at the end. The caller must put the learner in its
        place before awaiting anything else. progress: also keep a snapshot for it, since it will
        serve. share: called with the offset of that snapshot. is_begun: there is a snapshot for it
        to continue from.
        """
        await self._carried_out()
        policy, log = load_policy(wanted), self._writer.log
        await asyncio.to_thread(policy.init)  # this may import a library
        with ExitStack() as until_learned:
            async with self._making.lock:
                queue = until_learned.enter_context(self._writer.lessons())
                upto = log.last
                await self._writer.synced()
                if progress is not None or first_of(log) > 1:
                    await self._making.make(upto)
                task = Task(
                    **task_arguments(wanted, self._settings),
                    directory=str(self._making.kept.directory),
                    begin="taught" if is_begun else "fresh",
                    base_key=snapshot_key(self._making.serving, self._settings),
                    first=int(first_of(log)),
                    save=progress is not None,
                )
                folded = await self._making.fold(task, upto, progress)
                if share is not None:
                    await share(Offset(folded.at))
            built = await asyncio.to_thread(snapshot.load_learner, folded.learner, policy)
            ids = tuple(sorted(self._writer.world.arms))
            await asyncio.to_thread(_warm, built, ids, self._dim())
            while queue:
                lessons, queue[:_SLICE] = queue[:_SLICE], []
                for lesson in lessons:
                    teach(built, lesson)
                if queue:
                    await asyncio.sleep(0)
            return built

    async def seeds(
        self, wanted: Sequence[PolicySettings], route: str = ""
    ) -> tuple[int, list[bytes]]:
        """What each policy would have learned from the whole log so far, and up to which event.

        All are of one moment; the state of the policy that serves the route, "" being the default
        one, is taken as it is. Raises Unavailable if that policy cannot be loaded.
        """
        async with self._making.lock:
            await self._writer.synced()
            world, log = self._writer.world, self._writer.log
            upto, events = log.last, world.events
            label = ev.label_of_route(route) if route else ""
            usual = world.learners.get(label or self._making.serving.name)
            if usual is None:
                raise Unavailable(f"route: the policy of {route!r} cannot be loaded here")
            serving = policy_key(self._making.serving.name, self._making.serving.parameters)
            key = usual.key if route else serving
            same = codec.dump(usual.state)
            states, based = [], False
            for each in wanted:
                if policy_key(each.name, each.parameters) == key:
                    states.append(same)
                    continue
                if first_of(log) > 1 and not based:
                    await self._making.make(upto)
                    based = True
                task = Task(
                    **task_arguments(each, self._settings),
                    directory=str(self._making.kept.directory),
                    begin="fresh",
                    base_key=snapshot_key(self._making.serving, self._settings),
                    first=int(first_of(log)),
                    save=False,
                    route=label,
                )
                folded = await self._making.fold(task, upto)
                states.append(await asyncio.to_thread(_state_of, folded.learner, load_policy(each)))
        return events, states

    def _switch(self, wanted: PolicySettings, built: Learner, source: str) -> None:
        """Append the event and replace the old learner, with no decision in between."""
        key = policy_key(wanted.name, wanted.parameters)
        changed = ev.PolicyChanged(
            ts=self._writer.now(),
            policy=wanted.name,
            key=key,
            parameters=json.dumps(wanted.parameters).encode(),
            source=source,
        )
        learners = self._writer.world.learners
        written = self._writer.append_now(
            changed, then=lambda: learners.serve(wanted.name, key, built)
        )
        if not written or learners.get(learners.serving) is not built:
            raise FoldFailed("the switch could not be written to the log; the old policy continues")
        self._making.serving = wanted
        _log.info("policy switched", extra={"policy": wanted.name, "key": key})

    def _note_progress(self, done: int, total: int) -> None:
        self.progress = (done, total)

    def _dim(self) -> int:
        history = self._writer.world.history
        return int(history.matrix.shape[1]) if history.items else 0


def _state_of(learner: memoryview, policy: policies.Policy[Any]) -> bytes:
    return codec.dump(snapshot.load_learner(learner, policy).state)


def _warm(learner: Learner, ids: tuple[ArmId, ...], dim: int) -> None:
    """Propose once, so that its first decision does not wait for caches."""
    if not ids or not dim:
        return
    nothing = Context(np.zeros(dim, np.float32), 1, 1.0)
    with suppress(ValueError, ArithmeticError, LookupError, TypeError):
        learner.policy.propose(
            learner.state, nothing, Arms(ids, np.zeros(len(ids)), np.zeros(len(ids)))
        )
