"""Which revision of the configuration file is in force, by the log: `revision` in the file.

Several processes share a log, and each may start with another file. The log has the number of the
newest file and a digest of what it says: an older one is not taken, and another of the same number
is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from bandit_service.core.world import World
from bandit_service.runtime.serving_policy import wanted_policy
from bandit_service.settings import BadSettings, Settings, policy_key
from bandit_service.settings.live import content_of

REVISION = "revision"
"""Beside the sections, in what the log says of the file."""


def said_by(file: Settings) -> dict[str, dict[str, str]]:
    """What the log is to say of the revision of a file."""
    return {REVISION: {"number": str(file.revision), "content": content_of(file)}}


def number_in(said: Mapping[str, Mapping[str, str]]) -> int:
    """The number of the revision in force, 0 where no file was numbered. said: by the log."""
    return int(said.get(REVISION, {}).get("number", 0))


def behind(file: Settings, said: Mapping[str, Mapping[str, str]]) -> str:
    """Why a file is not taken, as an older one; "" if it may be."""
    number = number_in(said)
    if file.revision >= number:
        return ""
    return (
        f"revision: {file.revision} is older than {number}, which is in force: the file is not "
        "taken; use the newer one"
    )


def check_content(file: Settings, said: Mapping[str, Mapping[str, str]]) -> None:
    """BadSettings where the log has another file of the same revision."""
    if not file.revision or file.revision != number_in(said):
        return
    if said_by(file)[REVISION] != said[REVISION]:
        raise BadSettings(
            [
                f"revision: {file.revision} is in force with other arms, policies, routes, "
                "experiments or settings; give the file that is right a higher revision, and start "
                "all processes with it"
            ]
        )


def check_policy(file: Settings, world: World) -> None:
    """BadSettings where an older file has another policy, which a start cannot leave out."""
    if not behind(file, world.configuration.file) or not world.policy.name:
        return
    wanted, _ = wanted_policy(world, file)
    there = world.policy
    if (wanted.name, policy_key(wanted.name, wanted.parameters)) != (there.name, there.key):
        why = behind(file, world.configuration.file)
        raise BadSettings([f"policy.name: another serves than that of the file. {why}"])
