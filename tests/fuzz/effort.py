"""How long to fuzz: little and always the same in `make test`, much and anew in `make fuzz`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from hypothesis import HealthCheck, settings

_TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)


def is_long() -> bool:
    """Whether this is `make fuzz`; pytest loads the profile after the first conftest."""
    return settings.get_current_profile_name() == "fuzz"


def effort(examples: int) -> settings:
    """So many examples, or ten thousand under the profile `fuzz`."""
    if is_long():
        return settings()
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


def left_out(names: Iterable[str]) -> set[str]:
    """The tests of this directory that are not among these; their parameters do not count."""
    files = Path(__file__).parent.glob("test_*.py")
    there = {name for each in files for name in _TEST.findall(each.read_text(encoding="utf-8"))}
    return there - {name.partition("[")[0] for name in names}
