"""Whose fault it is that the time of a request is over: of the arm that had nearly all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from bandit_service.gateway import allowance as allowing
from bandit_service.gateway import streaming
from bandit_service.gateway.allowance import Allowance
from bandit_service.gateway.streamed_answer import StreamedAnswer
from bandit_service.settings import GatewaySettings


@pytest.mark.parametrize(("client_s", "cut_short"), [(0.0, False), (4.0, False), (6.0, True)])
async def test_an_arm_has_not_failed_where_its_client_took_most_of_the_time(
    monkeypatch: pytest.MonkeyPatch, client_s: float, cut_short: bool
) -> None:
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], perf_counter=lambda: now[0])
    monkeypatch.setattr(allowing, "time", clock)
    monkeypatch.setattr(streaming, "time", clock)
    allowance = Allowance(GatewaySettings(request_s=10.0))
    allowance.call()

    async def write(_: bytes) -> None:
        now[0] += client_s

    async def pieces() -> AsyncIterator[list[bytes]]:
        yield []
        now[0] = 10.0
        raise allowance.timed_out("timed out reading the stream")

    client = SimpleNamespace(answered=lambda _: nullcontext())

    async def idle() -> None:
        return None

    stream: Any = SimpleNamespace(client=client, write=write, idle=idle)
    exchange: Any = SimpleNamespace(allowance=allowance, decided=SimpleNamespace(id="d"))
    response: Any = SimpleNamespace(close=None)
    answer = StreamedAnswer()
    rest = await streaming._relayed(b"data", pieces(), stream, response, exchange, answer)
    assert rest.failed is not None
    assert rest.failed.timeout
    assert rest.failed.cut_short is cut_short
    assert "gateway.request_s" in str(rest.failed)
