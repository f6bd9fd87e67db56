"""How long to fuzz: little and always the same in `make test`, much and anew in `make fuzz`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings


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
