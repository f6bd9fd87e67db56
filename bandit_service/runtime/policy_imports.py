"""Policies are imported on a thread before they are checked on the event loop.

The first time, that takes longer than the loop may be held up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import policies
from bandit_service.settings import PolicySettings, load_policy


async def imported(wanted: Iterable[PolicySettings]) -> None:
    """Look for the files of policies, and import these.

    What is wrong with one of them is not told here: who loads it meets the same.
    """
    await asyncio.to_thread(_import, tuple(wanted))


def _import(wanted: Iterable[PolicySettings]) -> None:
    policies.names(), policies.river_names()
    for each in wanted:
        with suppress(Exception):
            load_policy(each)


def named_in(sections: Mapping[str, Any]) -> Iterator[PolicySettings]:
    """The policies that sections of the configuration name, which nothing has checked yet."""
    for section, field in (("routes", "policy"), ("policies", "name")):
        entries = sections.get(section)
        for each in entries if isinstance(entries, list) else ():
            name = each.get(field) if isinstance(each, dict) else None
            if isinstance(name, str):
                parameters = each.get("parameters")
                yield PolicySettings(name, parameters if isinstance(parameters, dict) else {})
