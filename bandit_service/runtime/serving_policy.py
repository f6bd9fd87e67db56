"""Which policy serves, by the log, the snapshots next to it, and the configuration."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.world import World
from bandit_service.settings import PolicySettings, Settings, load_policy, policy_key
from store import EventLog, Offset, first_of
from store.snapshots import Begun, FileSnapshots, Unsound

_log = logging.getLogger("bandit.recovery")
_SWITCH = b"policy_changed"


@dataclass(frozen=True, slots=True)
class Read:
    """A snapshot that was read: the newest of any key. begun: what says whether it is valid."""

    at: Offset
    kept: snapshot.Kept
    begun: Begun

    @property
    def key(self) -> str:
        """What it was folded with."""
        return self.begun.key


def wanted_policy(world: World, settings: Settings) -> tuple[PolicySettings, str]:
    """The policy that must serve, and who set it: the configured one, unless the API set another
    since the configuration last changed.
    """
    return wanted_of(
        Said(world.policy.name, world.policy.parameters, world.policy.configured), settings
    )


@dataclass(frozen=True, slots=True)
class Said:
    """The last policy in the log, "" if there is none."""

    policy: str = ""
    parameters: bytes = b"{}"
    configured: str = ""

    def settings(self) -> PolicySettings:
        """The policy with its parameters."""
        return PolicySettings(self.policy, json.loads(self.parameters))


def wanted_of(said: Said, settings: Settings) -> tuple[PolicySettings, str]:
    """The policy that must serve after this record, and who set it."""
    configured = policy_key(settings.policy.name, settings.policy.parameters)
    if said.configured != configured or not said.policy:
        return settings.policy, "config"
    named = said.settings()
    if why := _unusable(named):
        _log.warning(
            "the policy that the API set cannot be used; the configured one serves",
            extra={"policy": named.name, "why": why, "configured": settings.policy.name},
        )
        return settings.policy, "config"
    return named, "api"


def said_of(
    log: EventLog, snapshots: FileSnapshots, *, checked: bool = True
) -> tuple[Said, Read | None]:
    """The record by the newest valid snapshot, of any policy, and the events since;

    and that snapshot. checked: it is valid; otherwise it may be none, which its check tells.
    """
    said, after, read = Said(), Offset(first_of(log) - 1), None
    for one in _kept(snapshots, checked=checked):
        if first_of(log) - 1 <= one.at <= log.last:
            said = Said(one.kept.policy, one.kept.parameters, one.kept.configured_policy)
            after, read = one.at, one
            break
    for _, body in log.replay(after):
        if _SWITCH not in body:  # most events are not worth decoding for this
            continue
        event = ev.decode(body)
        if isinstance(event, ev.PolicyChanged):
            configured = event.key if event.source == "config" else said.configured
            said = Said(event.policy, event.parameters, configured)
    return said, read


def _kept(snapshots: FileSnapshots, *, checked: bool = True) -> Iterator[Read]:
    """The valid ones of all keys, newest first; if they are not checked, perhaps others too."""
    for begun in snapshots.begun():
        with suppress(ValueError, Unsound):
            if checked:
                begun.check()
            yield Read(begun.offset, snapshot.read(begun.state), begun)


def policies_of(snapshots: FileSnapshots) -> list[PolicySettings]:
    """The policies of which there are valid snapshots, newest first."""
    found = []
    for one in _kept(snapshots):
        named = PolicySettings(one.kept.policy, json.loads(one.kept.parameters))
        if named not in found and not _unusable(named):
            found.append(named)
    return found


def _unusable(policy: PolicySettings) -> str:
    """Why there is no such policy with these parameters; "" if there is."""
    try:
        load_policy(policy)
    except (ValueError, TypeError) as error:
        return str(error)
    return ""


def keys_of_other_versions(snapshots: FileSnapshots) -> list[str]:
    """The keys of the snapshots that this version does not read."""
    keys = {each.key for each in snapshots.found() if not each.why}
    return sorted(key for key in keys if not snapshot.is_of_this_version(key))
