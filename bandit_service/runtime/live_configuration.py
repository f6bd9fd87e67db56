"""The configuration of a running service: checked as a whole, changed by an event, then followed.

A change is one event. Whatever is configured follows where it is applied, on every replica at the
same offset; a request that is under way goes on with what it began with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias

import msgspec

from bandit_service.core import configuration as core
from bandit_service.core import events as ev
from bandit_service.core.configuration import FILE, KEYS, SECTIONS, Configuration, Entry
from bandit_service.core.errors import (
    Forbidden,
    Refused,
    ServiceError,
    Stale,
    TooLarge,
    Unavailable,
    Unknown,
)
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World
from bandit_service.runtime.file_revision import (
    REVISION,
    behind,
    check_content,
    check_policy,
    number_in,
    said_by,
)
from bandit_service.runtime.policy_imports import imported, named_in
from bandit_service.runtime.router import Router
from bandit_service.runtime.supervisor import Kept
from bandit_service.settings import BadSettings, Settings, policy_key
from bandit_service.settings.keys import expiry_of
from bandit_service.settings.live import foreign_secrets, sections_of, with_sections
from bandit_service.settings.metrics import all_metrics
from bandit_service.settings.pool_logs import is_default

_log = logging.getLogger("bandit.configuration")
TASK = "configuration"
_FOLLOWING = "follow configuration"
MAX_BYTES = 256 * 1024
"""Of all sections as JSON: an event has them twice at most, and every snapshot 20 revisions."""
Edit: TypeAlias = Callable[[Mapping[str, list[Entry]]], Mapping[str, Any]]
"""From all sections as they are to those that are to take their place, unchecked."""
Follow: TypeAlias = Callable[[Settings], None]


def in_force(settings: Settings, world: World) -> Settings:
    """The settings as a start finds them: what was changed at run time, beside a file that may have
    changed, too. BadSettings with every mistake.
    """
    known = world.configuration
    if not known:
        return settings
    check_content(settings, known.file)
    check_policy(settings, world)
    file = sections_of(settings)
    if old := behind(settings, known.file):
        wanted = known.sections
    elif settings.from_file:
        wanted = file
    else:
        wanted = core.merged(known.sections, file, known.file, known.revoked)
    other = [name for name in SECTIONS if wanted[name] != file[name]]
    if other and not old:
        newest = known.revisions[-1]
        _log.warning(
            "sections are in force that were changed at run time, and not what the file says; "
            "`config diff` shows it, `serve --from-file` takes the file's",
            extra={"sections": other, "revision": newest.number, "by": newest.by},
        )
    arms = [record.spec for record in world.catalogue.present()]
    try:
        return with_sections(settings, wanted, _beside(arms, settings), taken=known.sections)
    except BadSettings as bad:
        if settings.from_file:
            raise
        why = f"of revision {known.revision}, changed at run time; serve --from-file ignores it"
        raise BadSettings([f"{each} ({why})" for each in bad.mistakes]) from None


def _check_size(now: Mapping[str, list[Entry]], then: Mapping[str, list[Entry]]) -> None:
    """TooLarge for more than the log and the snapshots should hold; what shrinks always may."""
    before, size = (len(msgspec.json.encode(each)) for each in (now, then))
    if size > max(before, MAX_BYTES):
        raise TooLarge(f"all sections together must have at most {MAX_BYTES} bytes, got {size}")


def _beside(arms: Sequence[ev.ArmSpec], settings: Settings) -> list[ev.ArmSpec]:
    """The arms that there will be: those of the settings, and the others."""
    configured = {arm.id for arm in settings.arms}
    return [*settings.arms, *(arm for arm in arms if arm.id not in configured)]


class LiveConfiguration:
    """What is in force now, and how it changes. `start`, then `close`.

    settings: those in force. file: what the file says, of which a part may not be in force.
    """

    def __init__(self, router: Router, settings: Settings, file: Settings) -> None:
        self.settings = settings
        self.file = file
        self._router, self._writer = router, router.writer
        self._follow: list[Follow] = []
        self._ready: tuple[ev.ConfigurationChanged, Settings] | None = None
        self._settling = asyncio.Lock()
        self._changed = asyncio.Event()
        self._kept: Kept | None = None
        self._writer.listen(self._heard, ev.ConfigurationChanged)

    @property
    def behind(self) -> str:
        """Why what the file says is not taken; "" if it is."""
        return behind(self.file, self.known.file)

    @property
    def revisions_behind(self) -> int:
        """By how much the number of the file is below that of the one in force."""
        return max(0, number_in(self.known.file) - self.file.revision)

    @property
    def known(self) -> Configuration:
        """What the log says of it."""
        return self._writer.world.configuration

    def start(self) -> None:
        """Follow what other replicas change."""
        self._kept = self._writer.tasks.keep(TASK, self._settle_forever)

    async def close(self) -> None:
        """Stop; the next start goes on from what is done by now."""
        if self._kept is not None:
            await self._kept.end()

    def follow(self, switch: Follow) -> None:
        """Call this with the settings in force, now and after every change."""
        self._follow.append(switch)
        switch(self.settings)

    def sections(self) -> dict[str, list[Entry]]:
        """Every section as the log has it; not in force on a replica that could not follow."""
        return sections_of(self.settings) | self.known.sections

    async def change(
        self,
        edit: Edit,
        by: str,
        why: str,
        *,
        expected: int | None = None,
        source: str = "api",
        forget: Collection[str] = (),
    ) -> None:
        """Put other sections in the place of those that are there, all of them or none.

        expected: the revision that this is a change of, None for any. forget: routes whose policies
        may lose what they learned. Raises Stale, and Refused with every mistake.
        """
        with suppress(ServiceError):  # `prepare` meets the same, and tells it
            if named := list(named_in(edit(self.sections()))):
                await imported(named)

        def prepare() -> ev.ConfigurationChanged | None:
            if expected is not None and expected != self.known.revision:
                raise Stale(
                    f"If-Match: revision {self.known.revision} is in force, got {expected}; read "
                    "it, and change that one",
                    param="If-Match",
                )
            try:
                now = self.sections()
                given = {**now, **edit(now)}
                self._check_author(now, given)
                wanted = with_sections(self.settings, given, self._arms())
            except BadSettings as bad:
                param = bad.mistakes[0].split(":")[0]
                raise Refused("; ".join(bad.mistakes), param=param) from None
            _check_size(now, sections_of(wanted))
            self._check_keys(wanted)
            self._check_process(wanted, source)
            self._check_routes(wanted, forget)
            self._check_beside(wanted)
            return self._event(wanted, by, why, source)

        await self._write(prepare)

    async def rollback(
        self,
        to: int,
        by: str,
        why: str,
        *,
        expected: int | None = None,
        forget: Collection[str] = (),
    ) -> None:
        """Make every section what it was after a revision; the keys stay as they are now."""

        def edit(_: Mapping[str, list[Entry]]) -> Mapping[str, Any]:
            found = self.known.find(to)
            if found is None:
                kept = ", ".join(str(one.number) for one in self.known.revisions) or "none yet"
                raise Unknown(f"to: no revision {to}; there are {kept}", param="to")
            return found.sections

        why = why or f"back to revision {to}"
        await self.change(edit, by, why, expected=expected, source="rollback", forget=forget)

    async def claim(self, file: Settings) -> None:
        """Write that the revision of this file is in force, if it is a new one. BadSettings where
        another file has the same number, or a newer one is there.
        """

        def prepare() -> ev.ConfigurationChanged | None:
            said = self.known.file
            check_content(file, said)
            if old := behind(file, said):
                raise BadSettings([old])
            before = said if self.known else core.digests(sections_of(file))
            why = f"revision {file.revision} of the file"
            return self._event(self.settings, "config", why, FILE, before | said_by(file))

        if file.revision:
            await self._write(prepare)

    async def read_file(self, file: Settings, arms: Sequence[ev.ArmSpec], why: str) -> None:
        """Take over what is other in a file than it last said. BadSettings, and nothing changed,
        where that cannot be. arms: those that there will be. The secrets of providers are read
        anew, also where nothing else is other. Of an older revision only the keys are taken.
        """

        def prepare() -> ev.ConfigurationChanged | None:
            now, live = sections_of(file), self.sections()
            said = self.known.file if self.known else core.digests(sections_of(self.file))
            saying = core.digests(now)
            if behind(file, said):
                now, saying = live | {KEYS: now[KEYS]}, said | {KEYS: saying[KEYS]}
            elif REVISION in said:
                saying |= {REVISION: said[REVISION]}
            wanted = now if file.from_file else core.merged(live, now, said, self.known.revoked)
            before = replace(self.settings, policy=file.policy)
            settings = with_sections(before, wanted, arms, taken=self.known.sections, anew=True)
            if self._administered(self.settings) and not self._administered(settings):
                raise BadSettings(
                    [
                        "keys: no key with the scope admin would be left; the file may be cut off; "
                        "restart the service if it is right"
                    ]
                )
            event = self._event(settings, "config", why, FILE, saying)
            if event is None and settings != self.settings:
                self._take(settings)  # secrets, or what could not be followed before
                self._writer.tasks.well(_FOLLOWING)
            return event

        await self._write(prepare)
        self.file = file

    def _event(
        self,
        wanted: Settings,
        by: str,
        why: str,
        source: str,
        file: Mapping[str, dict[str, str]] | None = None,
    ) -> ev.ConfigurationChanged | None:
        then, now, known = sections_of(wanted), self.sections(), self.known
        changed = {name: tuple(then[name]) for name in SECTIONS if then[name] != now[name]}
        numbered = file is not None and REVISION in file
        if not changed and (not (known or numbered) or file is None or file == known.file):
            return None
        if not known and file is None:
            file = core.digests(sections_of(self.file))
        event = ev.ConfigurationChanged(
            ts=self._writer.now(),
            revision=known.revision + 1,
            sections=changed,
            by=by,
            why=why,
            source=source,
            before={} if known else {name: tuple(each) for name, each in now.items()},
            file=dict(file or {}),
        )
        self._ready = event, wanted
        return event

    async def _write(self, prepare: Callable[[], ev.ConfigurationChanged | None]) -> None:
        self._writer.membership.check_read_by_all(ev.ConfigurationChanged)
        event = await self._writer.submit(prepare, key=TASK)
        if event is not None:
            try:
                await self.settle()
            except ServiceError as error:  # it is tried again beside this
                _log.warning("routes and metrics follow later", extra={"why": error.message})

    async def settle_at_start(self) -> None:
        """`settle`; if a replica of an older release cannot read the events, after it has left."""
        try:
            await self.settle()
        except Unavailable as error:
            _log.warning("routes and metrics follow later", extra={"why": error.message})
            self._changed.set()

    async def settle(self) -> None:
        """Make the routes and the metrics of the world those in force."""
        async with self._settling:
            settings = self.settings
            routes = settings.routes
            await self._router.catalogue.set_routes(
                {each.id: (each, policy_key(each.policy, each.parameters)) for each in routes}
            )
            await self._router.measuring.configure(all_metrics(settings.metrics, settings.implicit))

    async def _settle_forever(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.settle()
            except BaseException:
                self._changed.set()
                raise
            self._writer.tasks.well(TASK)

    def _heard(self, what: Resolved, world: World) -> None:
        event = what.event
        if not isinstance(event, ev.ConfigurationChanged):
            return
        ready, self._ready = self._ready, None
        if ready is not None and ready[0] == event:
            settings = ready[1]
        else:  # another replica's
            try:
                known = world.configuration.sections
                settings = with_sections(self.settings, known, self._arms(), taken=known)
            except BadSettings as bad:
                why = f"revision {event.revision} is not followed here: {'; '.join(bad.mistakes)}"
                self._writer.tasks.failed(_FOLLOWING, ServiceError(why))
                return
        self._writer.tasks.well(_FOLLOWING)
        self._take(settings)
        self._changed.set()
        _log.info(
            "the configuration changed",
            extra={
                "revision": event.revision,
                "sections": list(event.sections),
                "by": event.by,
                "source": event.source,
            },
        )

    def _take(self, settings: Settings) -> None:
        self.settings = settings
        for switch in self._follow:
            switch(settings)

    def _arms(self) -> list[ev.ArmSpec]:
        return [record.spec for record in self._writer.world.catalogue.present()]

    def _check_author(self, now: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """Forbidden where nobody is asked who it is, for what would give the service away: the
        first key, and where providers' keys are sent. Refused for secrets that are not for them.
        Both before any file is read that the change names.
        """
        for name in (KEYS, "upstreams"):
            if given[name] != now[name] and not self.settings.keys:
                raise Forbidden(
                    f"{name}: cannot be changed at run time while the service asks for no key, "
                    "since anybody could do it; put a key of scope admin into the file "
                    "(`bandit-service keys new`)",
                    param=name,
                    reason="scope",
                )
        if given["upstreams"] != now["upstreams"]:
            wrong = foreign_secrets(given["upstreams"], self.file)
            if wrong:
                raise Refused("; ".join(wrong), param=wrong[0].split(":")[0])

    def _check_keys(self, wanted: Settings) -> None:
        """Refused where nobody could change anything any more, or everybody could."""
        if wanted.keys != self.settings.keys and not self._administered(wanted):
            raise Refused(
                "scopes: no key with the scope admin would be left; make one first", param="scopes"
            )

    def _check_process(self, wanted: Settings, source: str) -> None:
        """Refused for what is of the whole process, in a pool that is not the default one."""
        other = wanted.log_level != self.settings.log_level
        if other and source == "api" and not is_default(self.settings):
            raise Refused(
                "settings: log_level is of the process; change it in the default pool",
                param="settings",
            )

    def _administered(self, settings: Settings) -> bool:
        """Whether there is a key that can change things."""
        now = self._writer.now()
        return any("admin" in key.scopes and expiry_of(key) > now for key in settings.keys)

    def _check_beside(self, wanted: Settings) -> None:
        """Refused for a policy beside the one that serves, which may not be the file's any more."""
        serving, there = self._writer.world.serving, [each.name for each in self.settings.policies]
        if serving in [each.name for each in wanted.policies if each.name not in there]:
            raise Refused(f"policies: {serving!r} is the policy that serves", param="policies")

    def _check_routes(self, wanted: Settings, forget: Collection[str]) -> None:
        """Refused where a route's policy would lose what it learned, and nobody said it may."""
        keys = {each.id: policy_key(each.policy, each.parameters) for each in wanted.routes}
        learners = self._writer.world.learners
        lost = [
            route.id
            for route in self.settings.routes
            if (learner := learners.get(ev.label_of_route(route.id))) is not None
            and keys.get(route.id) != learner.key
            and route.id not in forget
        ]
        if lost:
            raise Refused(
                f"forget: what the policies of these routes have learned would be gone: "
                f"{', '.join(lost)}; name them here, or leave their policies as they are",
                param="forget",
            )
