"""Nothing of a service that was closed stays in the memory of its process."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

from bandit_service.runtime.router import Router
from tests.service.running import serving

ALIVE: list[int] = []


@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_a_service_that_an_earlier_test_closed_is_gone(
    tmp_path: Path, models: Path, nth: int
) -> None:
    """On 5a5a85b each of them stayed, with its model: 70 MB for every test of this folder."""
    gc.collect()
    ALIVE.append(sum(type(each) is Router for each in gc.get_objects()))
    async with serving(tmp_path / "var", models) as client:
        await client.decide()
    assert ALIVE[-1] <= ALIVE[0], f"{ALIVE} routers were alive before each of these tests ({nth})"


def _interpreter() -> tuple[int, float]:
    return gc.get_threshold()[0], round(sys.getswitchinterval(), 6)


async def test_the_collector_looks_seldom_and_threads_take_short_turns_while_a_service_runs(
    tmp_path: Path, models: Path
) -> None:
    """Also where services overlap, and the first one ends first. Then it is as before.

    At Python's own 5 ms a decision beside a chat of 95,000 messages took 16 to 30 ms in the median,
    and 2 to 16 ms at these turns.
    """
    before, serves = _interpreter(), (10_000, 0.0005)
    first, second = (serving(tmp_path / name, models) for name in ("one", "two"))
    client = await first.__aenter__()
    await client.decide()
    assert _interpreter() == serves
    await second.__aenter__()
    await first.__aexit__(None, None, None)
    assert _interpreter() == serves
    await second.__aexit__(None, None, None)
    assert _interpreter() == before
