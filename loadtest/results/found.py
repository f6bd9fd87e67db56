"""What the runs on one recording came to, kept on disk so that the pages can be written again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bandit_service.lab.convergence import ConvergedRow
from bandit_service.lab.offline import OfflineRow, UpdateRow
from bandit_service.lab.pairs import PairRow
from bandit_service.lab.summary import OnlineRow

_SUFFIX = ".found.msgpack"


@dataclass
class MetaLLMRow:
    """One pass of the paper's MetaLLM at one p: mean quality, and USD per query."""

    label: str
    quality: float
    cost: float


@dataclass
class AssignedRow:
    """One strategy of FORC under one budget: shares of the best single arm's cost and quality.

    budget: as a share of what the best single arm would cost on the test part. spent: in that
    unit, as really billed. expected: mean predicted quality. quality: mean recorded quality,
    unanswered queries counting 0. seconds: wall time of the assignment.
    """

    strategy: str
    budget: float
    spent: float
    expected: float
    quality: float
    answered: float
    seconds: float


@dataclass
class Single:
    """One arm alone: mean quality and USD per query, on all queries and on the test part."""

    arm: str
    quality: float
    cost: float
    test_quality: float
    test_cost: float


@dataclass
class Found:
    """One recording: the rows of every protocol, and of the papers' own experiments."""

    name: str
    queries: int
    test: int
    singles: list[Single]
    offline: list[OfflineRow] = field(default_factory=list)
    online: list[OnlineRow] = field(default_factory=list)
    updates: list[UpdateRow] = field(default_factory=list)
    metallm: list[MetaLLMRow] = field(default_factory=list)
    sessions: list[ConvergedRow] = field(default_factory=list)
    latency: float | None = None
    assigned: list[AssignedRow] = field(default_factory=list)
    votes: list[PairRow] = field(default_factory=list)


def save(found: Found, directory: Path) -> None:
    """Write it whole, or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{found.name}{_SUFFIX}"
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.msgpack.encode(found))
    partial.replace(path)


def saved(directory: Path) -> list[Found]:
    """All that is there, by name; what another version wrote is left out."""
    found = []
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        try:
            found.append(msgspec.msgpack.decode(path.read_bytes(), type=Found))
        except msgspec.DecodeError:
            continue
    return found
