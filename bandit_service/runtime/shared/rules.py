"""The settings that the writer of a replica reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SharedRules:
    """As the section `log` of the settings has them."""

    max_batch: int
    poll_s: float
    timeout_s: float
    park_s: float
    max_parked: int
    max_spool: int
    after_wait_s: float
    digest_every: int
    keep_snapshots: int
