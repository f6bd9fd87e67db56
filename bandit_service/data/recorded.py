"""Recorded traffic as arrays: the quality and cost of every model on every query."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandit_service.core.events import ArmSpec
from bandit_service.core.fields import MAX_COST_USD
from bandit_service.data.rows import BadRow, Malformed, Scale, number_within
from bandit_service.embedding import estimate_tokens, surface
from bandit_service.parsing.inputs import plain, worded
from bandit_service.settings import arm_spec
from policies import Floats

_UNBOUNDED = 10**9  # the answer was recorded, so the query did fit


surface_once = lru_cache(maxsize=50_000)(surface)
"""Every run over a recording asks for the same texts."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """n queries with the recorded outcomes of K arms, which are sorted by id.

    quality: (n, K) in [0, 1], NaN where the arm has no answer to the query; at least one has.
    cost:    (n, K) USD, NaN where quality is.
    tokens:  (n,) of the query, recorded or else estimated as the service does.
    tasks:   where each query comes from, "" where that is not known; no policy is shown it.
    latency: (n, K) seconds until the answer, NaN where that is not known; None if it nowhere is.
    """

    name: str
    arms: tuple[ArmSpec, ...]
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    quality: Floats
    cost: Floats
    tokens: NDArray[np.int64]
    tasks: tuple[str, ...]
    left_out: tuple[BadRow, ...] = ()
    latency: Floats | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        arms = ", ".join(arm.id for arm in self.arms)
        return f"<Recorded {self.name}: {len(self)} queries, arms {arms:.200}>"

    def first(self, n: int) -> Recorded:
        """The same recording cut after its first n queries."""
        return self.take(np.arange(min(n, len(self))))

    def take(self, rows: NDArray[np.int64]) -> Recorded:
        """These rows, in this order."""
        return replace(
            self,
            ids=tuple(self.ids[i] for i in rows),
            texts=tuple(self.texts[i] for i in rows),
            quality=self.quality[rows],
            cost=self.cost[rows],
            tokens=self.tokens[rows],
            tasks=tuple(self.tasks[i] for i in rows),
            latency=None if self.latency is None else self.latency[rows],
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One query as `Recorded` holds it, its arms in the order of the file."""

    id: str
    text: str
    quality: list[float]
    cost: list[float]
    tokens: int
    task: str
    latency: list[float] | None = None


def checked_row(
    id: Any, text: Any, quality: Sequence[Any], cost: Sequence[Any], tokens: Any, task: Any
) -> Row:
    """The row of these fields; Malformed names the first invalid one."""
    id, text, tokens = worded(id), worded(text), plain(tokens)
    if not isinstance(id, str):
        raise Malformed(f"query_id: must be a string, got {id!r}")
    if not isinstance(text, str) or not text.strip():
        raise Malformed(f"text: must be a string that is not empty, got {text!r}")
    if tokens is None:
        tokens = estimate_tokens(len(text))
    if not isinstance(tokens, int | float) or not 0 <= tokens <= _UNBOUNDED or tokens % 1:
        raise Malformed(f"in_tok: must be a whole number from 0 up, got {tokens!r}")
    task = worded(task)
    if task is not None and not isinstance(task, str):
        raise Malformed(f"task: must be a string, got {task!r}")
    checked_quality, checked_cost = [], []
    for k, (q, usd) in enumerate(zip(quality, cost, strict=True)):
        score = Scale().quality(f"quality[{k}]", q)
        paid = number_within(f"cost[{k}]", usd, MAX_COST_USD)
        checked_quality.append(score)
        checked_cost.append(math.nan if math.isnan(score) else paid)
        if not math.isnan(score) and math.isnan(paid):
            raise Malformed(f"cost[{k}]: missing, but quality[{k}] is there")
    if all(math.isnan(q) for q in checked_quality):
        raise Malformed("quality: no model has an answer")
    return Row(id, text, checked_quality, checked_cost, int(tokens), task or "")


def listed_arm(id: str, usd_in: Any, usd_out: Any) -> ArmSpec:
    """An arm of these list prices, into which every query fits; ValueError names a bad field."""
    return arm_spec(
        {
            "id": id,
            "usd_per_mtok_in": usd_in,
            "usd_per_mtok_out": usd_out,
            "context_window": _UNBOUNDED,
        }
    )
