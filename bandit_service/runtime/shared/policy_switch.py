"""Changes the policy on a shared log: all replicas switch at one offset.

An event announces the policy. From there each replica trains it on its own copy while the earlier
one serves, teaches it what comes meanwhile, and reports by an event when it is done. When every
open replica is done, the keeper appends `policy_changed`, and each replica switches when it applies
that event. A replica that is not done by then, since it joined late, stops before the event until
it is.

Where the log's oldest events are deleted, the past is known to snapshots, and what a policy learns
from it depends on which of them it begins with. So the keeper alone trains the policy, puts the
result into the shared log, and says so in its report; the others go on from there.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import ExitStack
from dataclasses import dataclass

from bandit_service.core import events as ev
from bandit_service.core.errors import Conflict, ServiceError
from bandit_service.core.learner import Learner, Lesson, teach
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World
from bandit_service.runtime.live_world import Then
from bandit_service.runtime.maintenance import Maintenance
from bandit_service.runtime.shared.writer import SharedWriter
from bandit_service.runtime.supervisor import FIRST_S, Kept
from bandit_service.settings import PolicySettings, policy_key
from store import Offset, StoreError

_log = logging.getLogger("bandit.replica")
_LOOK_S, _TRIES, _SLICE = 0.2, 5, 20
_KEY = "catalogue"


@dataclass
class _Beside:
    """A trained policy, and the lessons that it still has to learn."""

    key: str
    learner: Learner
    lessons: list[Lesson]
    until_switched: ExitStack


class PolicyTurn:
    """`start` it once the replica has caught up, then `close`."""

    def __init__(self, writer: SharedWriter, maintenance: Maintenance) -> None:
        self._writer = writer
        self._maintenance = maintenance
        self._beside: _Beside | None = None
        self._key = ""
        self._folding: Kept | None = None
        self._ending: set[asyncio.Future[None]] = set()
        self._looking: Kept | None = None
        writer.turn = self
        maintenance.training.announce = self._announce
        writer.listen(self._heard)

    def start(self) -> None:
        """Continue with an announced policy, and check whether all have it."""
        building = self._writer.world.building
        if building:
            self._begin(building.policy, building.key, building.parameters)
        self._looking = self._writer.tasks.keep("policy turn", self._look_forever)

    async def close(self) -> None:
        """Stop; the next start trains again."""
        self._drop()
        if self._looking is not None:
            await self._looking.end()
        await asyncio.gather(*self._ending)

    # --- asked by whoever applies ---------------------------------------------------------

    def waits(self, event: ev.AnyEvent) -> bool:
        """Whether the replica cannot apply this yet because it does not have the policy;

        it is being trained.
        """
        if not isinstance(event, ev.PolicyChanged) or self._serves(event.key):
            return False
        if self._beside is not None and self._beside.key == event.key:
            return False
        self._begin(event.policy, event.key, event.parameters)
        return True

    def switching(self, event: ev.AnyEvent) -> Then | None:
        """What to do with the event that switches."""
        if not isinstance(event, ev.PolicyChanged) or self._serves(event.key):
            return None
        return lambda: self._switch(event)

    # --- inside ---------------------------------------------------------------------------

    def _serves(self, key: str) -> bool:
        return self._writer.world.learners.serving_key == key

    async def _announce(self, wanted: PolicySettings, source: str) -> None:
        """The event that announces it. Raises Conflict if another one is in training."""
        writer = self._writer

        def prepare() -> ev.AnyEvent:
            if writer.world.building:
                name = writer.world.building.policy
                raise Conflict(f"name: {name!r} is being trained; wait until it serves")
            return ev.PolicyAnnounced(
                ts=writer.now(),
                policy=wanted.name,
                key=policy_key(wanted.name, wanted.parameters),
                parameters=json.dumps(wanted.parameters).encode(),
                source=source,
            )

        await writer.submit(prepare, key=_KEY)

    def _heard(self, what: Resolved, _: World) -> None:
        match what.event:
            case ev.PolicyAnnounced() as event:
                self._begin(event.policy, event.key, event.parameters)
            case ev.PolicyGivenUp() as event if event.key == self._key:
                _log.error(
                    "the policy is not changed", extra={"replica": event.replica, "why": event.why}
                )
                self._drop()
            case ev.PolicyChanged() as event if event.key == self._key:
                self._drop()

    def _begin(self, name: str, key: str, parameters: bytes) -> None:
        if self._key == key and (self._beside is not None or self._folding is not None):
            return
        self._drop()
        self._key = key
        wanted = PolicySettings(name, json.loads(parameters))
        self._maintenance.training.wanted = wanted
        self._maintenance.training.progress = (0, int(self._writer.log.last))
        self._folding = self._writer.tasks.keep("policy", lambda: self._fold(wanted, key))

    def _drop(self) -> None:
        """Nothing is in training any more."""
        if self._folding is not None:
            ending = asyncio.ensure_future(self._folding.end())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            self._folding = None
        if self._beside is not None:
            self._beside.until_switched.close()
        self._beside, self._key = None, ""
        self._maintenance.training.wanted = self._maintenance.training.progress = None

    async def _fold(self, wanted: PolicySettings, key: str) -> None:
        """Tried several times, since the obstacle may be temporary."""
        why = ""
        for i in range(_TRIES):
            if i:
                await asyncio.sleep(FIRST_S * 4.0**i)
            if self._key != key:
                break
            if await self._maintenance.tried("policy", self._folded(wanted, key)):
                self._folding = None
                return
            why = self._writer.tasks.failing.get("policy", "")
        if self._key == key:
            await self._give_up(key, why)

    async def _folded(self, wanted: PolicySettings, key: str) -> None:
        built = await self._trained(wanted, key)
        if built is None or self._key != key:  # it was abandoned meanwhile
            return
        stack = ExitStack()  # from this turn on, since everything before is learned
        self._beside = _Beside(key, built, stack.enter_context(self._writer.lessons()), stack)

    async def _trained(self, wanted: PolicySettings, key: str) -> Learner | None:
        maintenance, writer = self._maintenance, self._writer
        if not await maintenance.carried_out():
            return await maintenance.training.folded_to_serve(wanted)
        while self._key == key:
            at = Offset(writer.world.building.at if writer.world.building.key == key else 0)
            if at:
                return await maintenance.training.folded_on(
                    wanted, at, await self._shared_state(wanted, at)
                )
            if writer.membership.keeps:
                built, at = await maintenance.training.folded_for_all(wanted)
                if await self._say_built(key, at):
                    return built
            await asyncio.sleep(_LOOK_S)
        return None

    async def _shared_state(self, wanted: PolicySettings, at: Offset) -> bytes:
        key, link = self._maintenance.making.key_of(wanted), self._writer.link
        found = await link.shared.newest_snapshot(key, Offset(at - 1), at)
        if found is None:  # newer ones have replaced it: the others serve the policy already
            link.behind(f"the policy {wanted.name!r} was built while this replica was away")
            raise StoreError(f"the snapshot of offset {at} is not in the shared log any more")
        return found[1]

    async def _say_built(self, key: str, at: Offset) -> bool:
        """Whether all begin with the snapshot of this replica."""
        writer = self._writer

        def prepare() -> ev.AnyEvent | None:
            if writer.world.building.key != key or writer.world.building.at:
                return None
            epoch = writer.link.epoch
            return ev.PolicyBuilt(
                ts=writer.now(), key=key, replica=writer.membership.slot, epoch=epoch, at=int(at)
            )

        return await writer.submit(prepare, key=_KEY) is not None

    async def _give_up(self, key: str, why: str) -> None:
        writer = self._writer

        def prepare() -> ev.AnyEvent | None:
            if writer.world.building.key != key:
                return None
            return ev.PolicyGivenUp(
                ts=writer.now(), key=key, replica=writer.membership.slot, why=why
            )

        await writer.submit(prepare, key=_KEY)

    def _switch(self, event: ev.PolicyChanged) -> None:
        beside = self._beside
        assert beside is not None
        self._taught(len(beside.lessons))
        beside.until_switched.close()
        self._beside = None
        self._writer.world.learners.serve(event.policy, event.key, beside.learner)
        self._maintenance.making.serving = PolicySettings(
            event.policy, json.loads(event.parameters)
        )
        self._maintenance.due = True  # who joins begins from it, where records are erased
        _log.info("policy switched", extra={"policy": event.policy, "key": event.key})

    def _taught(self, most: int) -> None:
        if self._beside is not None:
            lessons = self._beside.lessons
            some, lessons[:most] = lessons[:most], []
            for lesson in some:
                teach(self._beside.learner, lesson)

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            while self._beside is not None and self._beside.lessons:
                self._taught(_SLICE)
                await asyncio.sleep(0)
            try:
                await self._say_ready()
                await self._switch_all()
            except (ServiceError, StoreError):
                continue  # the log is unreachable, or another replica was first
            self._writer.tasks.well("policy turn")

    async def _say_ready(self) -> None:
        writer, beside = self._writer, self._beside
        building, epoch = writer.world.building, writer.link.epoch
        if beside is None or building.key != beside.key:
            return
        if building.ready.get(writer.membership.slot) != epoch:
            event = ev.PolicyBuilt(
                ts=writer.now(), key=beside.key, replica=writer.membership.slot, epoch=epoch
            )
            await writer.submit(lambda: event)

    async def _switch_all(self) -> None:
        """As the keeper: append the event once every open replica has the policy."""
        writer, building = self._writer, self._writer.world.building
        if not building or not writer.membership.keeps:
            return
        rows = await writer.membership.replicas()
        if any(building.ready.get(row.slot) != row.epoch for row in rows if not row.closed):
            return
        key = building.key

        def prepare() -> ev.AnyEvent | None:
            now = writer.world.building
            if now.key != key or not writer.membership.keeps:
                return None
            return ev.PolicyChanged(
                ts=writer.now(),
                policy=now.policy,
                key=key,
                parameters=now.parameters,
                source=now.source,
            )

        await writer.submit(prepare, key=_KEY)
