"""ADWIN and Page-Hinkley give river's alarms, at the same values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from river import drift

from bandit_service.statistics.change import ADWIN, PageHinkley

Made = Callable[[], Any]


def _streams() -> list[list[float]]:
    """Coins and bells whose mean changes, some by much, some by nothing."""
    streams = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(50, 1500))
        parts = [(rng.random(n) < rng.random()).astype(float) for _ in range(2)]
        bell = np.clip(rng.normal(rng.normal(), 0.3, n), -1, 1)
        streams.append(np.concatenate([*parts, bell]).tolist())
    return streams


def _pairs() -> list[tuple[str, Made, Made]]:
    pairs: list[tuple[str, Made, Made]] = [
        (f"adwin {delta}", lambda d=delta: ADWIN(d), lambda d=delta: drift.ADWIN(delta=d))  # type: ignore[misc,no-untyped-call]
        for delta in (0.002, 0.05, 0.5)
    ]
    for mode in ("up", "down"):
        for threshold, delta in ((1.0, 0.0), (5.0, 0.005), (20.0, 0.05)):
            given = {"threshold": threshold, "delta": delta, "mode": mode}
            pairs.append(
                (
                    f"page-hinkley {given}",
                    lambda given=given: PageHinkley(**given),  # type: ignore[misc]
                    lambda given=given: drift.PageHinkley(**given),  # type: ignore[misc]
                )
            )
    return pairs


@pytest.mark.parametrize(("ours", "theirs"), [pytest.param(*p[1:], id=p[0]) for p in _pairs()])
def test_every_alarm_is_rivers(ours: Made, theirs: Made) -> None:
    alarms = 0
    for stream in _streams():
        mine, other = ours(), theirs()
        for i, x in enumerate(stream):
            mine.update(x)
            other.update(x)
            assert mine.drift_detected == other.drift_detected, i
            alarms += mine.drift_detected
    assert alarms > 5


def test_a_steady_stream_gives_no_alarm_and_the_window_stays_small() -> None:
    adwin = ADWIN(0.002)
    for x in (np.random.default_rng(3).random(20_000) < 0.5).astype(float).tolist():
        adwin.update(x)
        assert not adwin.drift_detected
    assert sum(map(len, adwin._rows)) <= 5 * len(adwin._rows) <= 5 * 15
