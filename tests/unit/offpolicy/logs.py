"""Small logs of which it is known what another policy would have earned."""

from __future__ import annotations

from typing import Any

import numpy as np

from bandit_service.core import events as ev
from policies import ArmId

ARMS = [
    ev.ArmSpec(id=ArmId(id), usd_per_mtok_in=usd, usd_per_mtok_out=usd)
    for id, usd in (("a", 1.0), ("b", 2.0), ("c", 4.0))
]
IDS = tuple(arm.id for arm in ARMS)
EVEN = (1 / 3, 1 / 3, 1 / 3)


def catalogue() -> list[ev.AnyEvent]:
    """The three arms."""
    return [ev.ArmAdded(ts=0.0, arm=arm, source="config") for arm in ARMS]


def decision(i: int, drawn: int = 0, p: tuple[float, ...] = EVEN, **more: Any) -> ev.Decided:
    """The i-th decision, at second i."""
    vector = np.eye(4, dtype=np.float32)[i % 4]
    fields: dict[str, Any] = {
        "ts": float(i), "id": f"d{i}", "embedding": ev.pack(vector), "tokens": 100,
        "willingness_to_pay": 0.1, "arms": IDS[: len(p)], "propensities": p,
        "scores": (0.0,) * len(p), "drawn": drawn, "policy": "uniform", "key": "uniform:1",
        "list_cost_usd": 0.001, "expected_cost_usd": 0.001, "price": 0.5,
    }  # fmt: skip
    return ev.Decided(**(fields | more))


def reward(i: int, value: float, **more: Any) -> ev.Rewarded:
    """What came back for the i-th decision."""
    fields: dict[str, Any] = {
        "ts": i + 0.5, "decision_id": f"d{i}", "quality": value, "reward": value, "explicit": True,
    }  # fmt: skip
    return ev.Rewarded(**(fields | more))


def uniform_log(n: int, worth: tuple[float, ...] = (0.2, 0.5, 0.8)) -> list[ev.AnyEvent]:
    """Uniform draws of three arms, each of which always earns the same."""
    rng = np.random.default_rng(0)
    events = catalogue()
    for i in range(n):
        drawn = int(rng.integers(3))
        stars = {"stars": 1.0 + drawn}
        events += [decision(i, drawn), reward(i, worth[drawn], metrics=stars)]
    return events
