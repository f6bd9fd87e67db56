"""A decision of another system with its outcome, and a whole log of them as events."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from bandit_service.core import events as ev
from bandit_service.core.history import ITEMS_PER_EVENT
from bandit_service.core.outcomes import RANGES
from bandit_service.data.compressed import BROKEN, opened
from bandit_service.data.log_source import Stored, Unreadable
from bandit_service.data.recall import recall_stream
from bandit_service.parsing.inputs import Unusable, not_utf8, plain
from policies import ArmId, Vector

DIM = 64
"""The number of dimensions into which features are hashed."""

LARGEST = 1e30
"""What a feature must stay below, so that its square is still a number."""


class BadLine(ValueError):
    """One line cannot be used: "field: what was wrong, what is allowed"."""


@dataclass(frozen=True, slots=True)
class Logged:
    """One decision. arms: (K,) in any order; propensities: (K,) of the draw.

    whole: all propensities were logged; else only the drawn arm's was, and the others share what
    is left. vector: of the context, unit norm or zeros.
    """

    id: str
    ts: float
    arms: tuple[str, ...]
    propensities: tuple[float, ...]
    drawn: int
    vector: Vector
    whole: bool = True
    tokens: int = 0
    willingness_to_pay: float = 0.1
    tenant: str = ""
    unit: str = ""
    policy: str = "imported"
    signals: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class ForeignSource:
    """A foreign log as the events that the service would have written of it.

    known: all propensities of all decisions were logged.
    """

    all: list[ev.AnyEvent]
    known: bool
    first: int = 1
    last: int = field(init=False)

    def __post_init__(self) -> None:
        self.last = len(self.all)

    def events(self, after: int) -> Iterator[Stored]:
        """The events after `after`, in order."""
        for offset in range(max(after, 0) + 1, len(self.all) + 1):
            yield offset, self.all[offset - 1]


def source_of(
    lines: Iterable[tuple[int, Logged]],
    path: Path,
    catalogue: Sequence[ev.ArmSpec],
    neighbours: int,
    capacity: int,
) -> ForeignSource:
    """The log of all lines, in order of time; Unreadable for two of the same id, or none at all.

    catalogue: what is known of arms; others have no price. neighbours: recalled of each query.
    """
    seen: dict[str, int] = {}
    found: list[Logged] = []
    for number, one in lines:
        if one.id in seen:
            raise Unreadable(
                f"{path}, line {number}: EventId: {one.id!r} is also in line {seen[one.id]}"
            )
        if found and len(one.vector) != len(found[0].vector):
            raise Unreadable(
                f"{path}, line {number}: the embedding has {len(one.vector)} numbers, "
                f"those before have {len(found[0].vector)}"
            )
        seen[one.id] = number
        found.append(one)
    if not found:
        raise Unreadable(f"{path}: contains no decision")
    found.sort(key=lambda one: one.ts)
    events = list(_events(found, {spec.id: spec for spec in catalogue}, neighbours, capacity))
    return ForeignSource(events, all(one.whole for one in found))


def _events(
    found: Sequence[Logged], catalogue: Mapping[ArmId, ev.ArmSpec], k: int, capacity: int
) -> Iterator[ev.AnyEvent]:
    near = recall_stream(np.stack([one.vector for one in found]), k, capacity)
    items: dict[int, int] = {}  # what was remembered, by its number in `near`
    there: set[str] = set()
    offset = 0
    for step, one in enumerate(found):
        for arm in one.arms:
            if arm not in there:
                there.add(arm)
                unpriced = ev.ArmSpec(id=ArmId(arm), usd_per_mtok_in=0.0, usd_per_mtok_out=0.0)
                yield ev.ArmAdded(
                    ts=one.ts, arm=catalogue.get(ArmId(arm), unpriced), source="import"
                )
                offset += 1
        recalled = [(items[n], s) for n, s in zip(*near.at(step), strict=True) if n in items]
        yield _decided(one, recalled)
        offset += 1
        if one.signals:
            told = one.signals
            yield ev.Rewarded(
                ts=one.ts,
                decision_id=one.id,
                quality=told.get("quality"),
                cost_usd=told.get("cost_usd"),
                latency_s=told.get("latency_s"),
                reward=told.get("reward"),
                explicit="quality" not in told,
            )
            offset += 1
            own = int(near.own[step])
            if own and "reward" in one.signals:
                items.setdefault(own, offset * ITEMS_PER_EVENT)


def _decided(one: Logged, recalled: Sequence[tuple[int, float]]) -> ev.Decided:
    order = sorted(range(len(one.arms)), key=lambda i: one.arms[i])
    k = len(order)
    return ev.Decided(
        ts=one.ts,
        id=one.id,
        embedding=ev.pack(one.vector),
        tokens=one.tokens,
        willingness_to_pay=one.willingness_to_pay,
        arms=tuple(ArmId(one.arms[i]) for i in order),
        propensities=tuple(one.propensities[i] for i in order),
        scores=(0.0,) * k,
        drawn=order.index(one.drawn),
        policy=one.policy,
        key="",
        list_cost_usd=0.0,
        expected_cost_usd=0.0,
        price=0.0,
        neighbours=tuple(id for id, _ in recalled),
        similarities=tuple(s for _, s in recalled),
        tenant=one.tenant,
        unit=one.unit,
    )


# --- what both formats check --------------------------------------------------------------


@contextmanager
def text_in(path: Path, line: list[int]) -> Iterator[BufferedReader]:
    """The file's text as UTF-8; an error while reading is raised as Unreadable after `line[0]`."""
    try:
        with opened(path) as (file, _):
            yield file
    except Unusable as error:
        raise Unreadable(f"{path}: {error}") from None
    except UnicodeDecodeError as error:
        raise Unreadable(f"{path}: after line {line[0]}: {not_utf8(error)}") from None
    except BROKEN as error:
        raise Unreadable(f"{path}: cannot be read after line {line[0]}: {error}") from None


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number within the bounds; BadLine naming the field."""
    try:
        found = math.nan if isinstance(value, bool) else float(plain(value))
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found) or not low <= found <= high:
        bounds = "" if math.isinf(low) else f" from {low:g} to {high:g}"
        raise BadLine(f"{name}: must be a number{bounds}, got {value!r:.80}")
    return found


def propensity(name: str, value: Any) -> float:
    """A probability with which something was drawn: above 0, at most 1."""
    found = number(name, value, 0.0, 1.0)
    if found <= 0.0:
        raise BadLine(f"{name}: must be above 0 for the drawn arm, got {value!r}")
    return found


def signal(name: str, value: Any) -> float:
    """A signal within its range."""
    return number(name, value, *RANGES[name])


def moment(name: str, value: Any) -> float:
    """UTC seconds of ISO 8601, or of a number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(name, value)
    try:
        at = datetime.fromisoformat(str(value))
    except (ValueError, OverflowError):
        raise BadLine(f"{name}: must be like 2026-03-01T12:00:00Z, got {value!r:.80}") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def distribution(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """Probabilities that sum to 1, up to rounding to single precision."""
    total = math.fsum(values)
    if abs(total - 1.0) > 1e-3:
        raise BadLine(f"{name}: the probabilities must sum to 1, they sum to {total:g}")
    return tuple(values)


def hashed(features: Iterable[tuple[str, float]], dim: int = DIM) -> Vector:
    """Named numbers as a vector of unit norm: each is added, by its name's hash, with a sign.

    (Weinberger et al., arXiv 0902.2206.)
    """
    vector = np.zeros(dim)
    for name, value in features:
        if value:
            key = _key(name)
            vector[(key >> 1) % dim] += value if key & 1 else -value
    return unit(vector)


@lru_cache(maxsize=100_000)
def _key(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def unit(vector: Any) -> Vector:
    """The vector as float32 of unit norm; zeros stay zeros."""
    wide = np.asarray(vector, np.float64)
    norm = float(np.linalg.norm(wide))
    if abs(norm - 1.0) > 1e-6 and norm > 0.0:
        wide = wide / norm
    return wide.astype(np.float32)


def features(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Everything below `value` that is a number, or a text, which is then part of the name."""
    match value:
        case bool():
            yield name, float(value)
        case int() | float() if -LARGEST < value < LARGEST:
            yield name, float(value)
        case str():
            yield f"{name}={value}", 1.0
        case dict():
            for key, each in value.items():
                yield from features(f"{name}.{key}", each)
        case list():
            for i, each in enumerate(value):
                yield from features(f"{name}.{i}", each)
        case _:
            pass
