"""The arithmetic of `python -m loadtest.scale_model`; tests/service/test_scale.py runs it."""

from __future__ import annotations

import pytest

from loadtest.scale_model import Constants, Prices, baseline, logs_for, sized

_FOUND = Constants(
    alone=0.002,
    asked=0.001,
    applied=0.0015,
    folded=0.0005,
    off=0.0,
    idle=0.1,
    bytes=2_000.0,
    events=2.0,
    append=10_000.0,
    replay=50_000.0,
)
_PRICES = Prices(core_hour=0.036, gb_month=0.15, gb_between=0.01)


def test_a_replica_of_the_logs_that_are_said_is_as_busy_as_it_may_be() -> None:
    least, most = logs_for(12_000, _FOUND, copies=4, busy=0.6)
    # each applies all and answers a quarter: 12,000 (0.00025 + 0.0015) / 0.5
    assert most == 42
    # and where the others' pairs cost a third: 12,000 (0.002 / 4 + 0.0005) / 0.5
    assert least == 24
    for logs in (most, most - 1):
        busy = 0.1 + 12_000 / logs * (0.001 / 4 + 0.0015)
        assert (busy <= 0.6) == (logs == most)
    assert logs_for(1, _FOUND, copies=3, busy=0.6) == (1, 1)


def test_bytes_servers_and_money_follow_the_rate() -> None:
    row = sized(12_000, _FOUND, 4, 0.6, _PRICES)
    assert row["logs"] == "24 to 42"
    assert row["processes of a core"] == "96 to 168"
    assert row["log MB/s"] == pytest.approx(24.0)
    assert row["log TB a day"] == pytest.approx(24e6 * 86_400 / 1e12)
    assert row["databases"] == 4  # 24,000 events/s at 6,000 a server
    # 168 cores for a million decisions of 83.3 s, at 0.00001 USD a second
    assert row["USD a million: CPU"] == "0.08 to 0.14"
    assert row["log"] == pytest.approx(2 * 2.0 * 0.15 / 30)
    assert row["between zones"] == pytest.approx(4 * 2.0 * 0.01)
    assert baseline(_FOUND, 0.6, _PRICES)["decisions/s"].startswith("300:")
