"""API keys that are made, rotated and revoked at run time. Only their hashes are kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from bandit_service.core.configuration import KEYS, Entry, without_old
from bandit_service.core.errors import Conflict, Refused, Unknown
from bandit_service.parsing.suggestions import did_you_mean
from bandit_service.parsing.validation import every_mistake
from bandit_service.runtime.live_configuration import LiveConfiguration
from bandit_service.settings.keys import ApiKey, check_key, new_key


async def make(
    configuration: LiveConfiguration, given: Mapping[str, Any], by: str, why: str
) -> str:
    """A new key with these fields of `[[keys]]`; the key itself, which is nowhere else.

    Raises Refused with every mistake, and Conflict where there is one of this id.
    """
    secret, digest = new_key()
    entry = {**given, "hash": digest}
    _, wrong = every_mistake(entry, ApiKey, check_key)
    if wrong:
        raise Refused("; ".join(wrong), param=wrong[0].split(":")[0])

    def edit(sections: Mapping[str, list[Entry]]) -> Mapping[str, Any]:
        if any(each["id"] == entry["id"] for each in sections[KEYS]):
            raise Conflict(
                f"id: there is a key {entry['id']!r}; rotate it, or take another id", param="id"
            )
        return {KEYS: [*sections[KEYS], entry]}

    await configuration.change(edit, by, why or f"the key {entry['id']} was made")
    return secret


async def rotate(
    configuration: LiveConfiguration, id: str, grace_s: float, by: str, why: str
) -> tuple[str, str]:
    """A new key in the place of this one, and until when that one is good, "" for no more."""
    secret, digest = new_key()
    ends = ""
    if grace_s > 0.0:
        moment = datetime.now(UTC) + timedelta(seconds=grace_s)
        ends = moment.isoformat(timespec="seconds")

    def edit(sections: Mapping[str, list[Entry]]) -> Mapping[str, Any]:
        before = _find(sections, id)
        old = {"old_hash": before["hash"], "old_expires": ends} if ends else {}
        entry = {**without_old(before), "hash": digest, **old}
        return {KEYS: [entry if each is before else each for each in sections[KEYS]]}

    await configuration.change(edit, by, why or f"the key {id} was rotated")
    return secret, ends


async def revoke(configuration: LiveConfiguration, id: str, by: str, why: str) -> None:
    """The key is good no more, from here on, whatever a file says."""

    def edit(sections: Mapping[str, list[Entry]]) -> Mapping[str, Any]:
        gone = _find(sections, id)
        return {KEYS: [each for each in sections[KEYS] if each is not gone]}

    await configuration.change(edit, by, why or f"the key {id} was revoked")


def _find(sections: Mapping[str, list[Entry]], id: str) -> Entry:
    ids = [each["id"] for each in sections[KEYS]]
    if id not in ids:
        there_are = f"there are {', '.join(ids)}" if ids else "there are none"
        raise Unknown(f"id: no key {id!r}{did_you_mean(id, ids)}; {there_are}", param="id")
    return sections[KEYS][ids.index(id)]
