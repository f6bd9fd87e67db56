"""Rewards in the background: bounded, in order, and none lost without a word."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bandit_client import Batching, Client, Delivery, Invalid, Lost, QueueFull, Undelivered
from tests.client.unruly import CUT, SOON, Said, an_error, unruly

ROOT = Path(__file__).parents[2]
AT_ONCE = Batching(every_s=0.0, wait_s=0.0)


def _until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_they_go_together_and_in_order() -> None:
    with unruly() as server, Client(server.url, batching=Batching(every_s=600.0)) as client:
        for i in range(450):
            client.reward_later(f"d{i}", quality=1.0)
        _until(lambda: client.delivery.delivered >= 400)  # whole lists do not wait
        assert client.flush() == Delivery(0, 450, 0)
        assert [each["decision_id"] for each in server.rewards] == [f"d{i}" for i in range(450)]
        assert len(server.asked) <= 5


def test_a_service_that_is_away_loses_nothing() -> None:
    with unruly() as server, Client(server.url, retries=SOON, batching=AT_ONCE) as client:
        server.script = [Said(503, an_error("unavailable")), CUT, Said(502, "<html>"), CUT]
        for i in range(10):
            client.reward_later(f"d{i}", quality=1.0)
        assert client.flush().delivered == 10
        assert len(server.asked) > 4


def test_a_full_queue_says_so_and_what_is_in_it_is_delivered() -> None:
    small = Batching(queue=20, batch=5, every_s=0.0, wait_s=0.05)
    with unruly() as server, Client(server.url, retries=SOON, batching=small) as client:
        server.always = Said(503, an_error("unavailable"))
        taken = [f"d{i}" for i in range(20)]
        for id in taken:
            client.reward_later(id, quality=1.0)
        with pytest.raises(QueueFull, match="20 rewards wait"):
            client.reward_later("one more", quality=1.0)
        assert client.delivery == Delivery(20, 0, 0)
        with pytest.raises(Undelivered) as waiting:
            client.flush(0.1)
        assert (waiting.value.waiting, waiting.value.count) == (20, 0)
        server.always, server.asked = None, []
        threads = [  # each waits for room
            threading.Thread(target=client._live().outbox.add, args=({"decision_id": id}, 60.0))
            for id in ("t0", "t1", "t2")
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert client.flush() == Delivery(0, 23, 0)
        sent = [each["decision_id"] for each in server.rewards]
        assert sent[:20] == taken
        assert sorted(sent[20:]) == ["t0", "t1", "t2"]


def test_what_is_refused_is_told_by_flush_and_by_the_callback() -> None:
    told: list[Lost] = []

    def tell(lost: Sequence[Lost]) -> None:
        told.extend(lost)

    with unruly() as server:
        client = Client(server.url, retries=SOON, batching=AT_ONCE, on_undelivered=tell)
        wrong = an_error("invalid_value", "quality: must be a number from 0 to 1, got 7", "quality")
        results = [
            {"decision_id": "d0", "status": "accepted"},
            {"decision_id": "d1", "status": "error"} | wrong,
            {"decision_id": "d2", "status": "error"} | an_error("reward_share"),
            {"decision_id": "d3", "status": "duplicate"},
        ]
        live = client._live()
        live.outbox._batching = Batching(every_s=600.0)  # so that they are one list
        for i in range(4):
            client.reward_later(f"d{i}", quality=7)
        server.script = [Said(body={"results": results})]
        with pytest.raises(Undelivered, match="1 reward not delivered: quality: must") as raised:
            client.flush()
        (lost,) = raised.value.lost
        assert lost.reward == {"decision_id": "d1", "quality": 7}
        assert isinstance(lost.error, Invalid)
        assert lost.error.field == "quality"
        assert [each.reward["decision_id"] for each in told] == ["d1"]
        assert client.delivery == Delivery(0, 3, 1)  # d2 was sent again
        assert [each["decision_id"] for each in server.rewards] == ["d0", "d1", "d2", "d3", "d2"]
        assert client.flush() == Delivery(0, 3, 1)  # it was told once
        client.close()


def test_a_list_that_is_too_large_is_halved() -> None:
    with unruly() as server, Client(server.url, batching=Batching(every_s=600.0)) as client:
        server.script = [Said(413, an_error("too_large"))] * 2
        for i in range(8):
            client.reward_later(f"d{i}", quality=1.0)
        assert client.flush().delivered == 8
        sizes = [len(body) for _, _, body in server.asked]
        assert sizes[:3] == [8, 4, 2]
        server.always = Said(413, an_error("too_large"))
        client.reward_later("huge", quality=1.0)
        with pytest.raises(Undelivered, match="too_large"):
            client.flush()


def test_closing_tells_what_could_not_be_delivered() -> None:
    with unruly() as server:
        server.always = Said(503, an_error("unavailable"))
        client = Client(server.url, retries=SOON, batching=AT_ONCE)
        for i in range(3):
            client.reward_later(f"d{i}", quality=1.0)
        with pytest.raises(Undelivered, match="3 rewards not delivered") as raised:
            client.close(0.2)
        assert [each.reward["decision_id"] for each in raised.value.lost] == ["d0", "d1", "d2"]
        client.close()  # once is enough
        with pytest.raises(RuntimeError, match="closed"):
            client.reward_later("d4", quality=1.0)


def test_a_callback_may_not_wait_for_its_own_client() -> None:
    said: list[BaseException] = []

    with unruly() as server, Client(server.url, retries=SOON, batching=AT_ONCE) as client:

        async def inside() -> None:
            try:
                client.ready()
            except RuntimeError as error:
                said.append(error)

        client._live().thread.run(inside())
        assert server.asked == []
    assert "wait for itself" in str(said[0])


def test_an_error_nobody_thought_of_does_not_end_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with unruly() as server, Client(server.url, retries=SOON, batching=AT_ONCE) as client:
        transport = client._live().transport
        session, failures = transport.session, [MemoryError("no room"), ValueError("a bug")]

        def failing() -> object:
            if failures:
                raise failures.pop()
            return session()

        monkeypatch.setattr(transport, "session", failing)
        client.reward_later("d0", quality=1.0)
        assert client.flush() == Delivery(0, 1, 0)
        assert failures == []


SCRIPT = """
import asyncio, os, sys
from bandit_client import AsyncClient, Batching, Client, Retries
url, how, exit_s = sys.argv[1:]
batching = Batching(every_s=30, exit_s=float(exit_s))
options = dict(retries=Retries(first_s=0.01, max_s=0.05), batching=batching)
async def on_a_loop():
    client = AsyncClient(url, **options)
    for i in range(5):
        await client.reward_later(f"d{i}", quality=1.0)
if how == "async":
    asyncio.run(on_a_loop())
else:
    client = Client(url, **options)
    for i in range(5):
        client.reward_later(f"d{i}", quality=1.0)
    if how == "fork" and os.fork() == 0:
        client.reward_later("child", quality=1.0)  # has a queue of its own
        client.close()
        os._exit(0)
    if how == "raise":
        raise SystemExit("the end")
"""


@pytest.mark.parametrize("how", ["sync", "async", "fork", "raise", "away"])
def test_the_end_of_the_process_sends_what_is_queued_or_says_so(how: str) -> None:
    with unruly() as server:
        if how == "away":
            server.always = Said(503, an_error("unavailable"))
        url = server.url.replace("127.0.0.1", "localhost")  # a name that has to be looked up
        done = subprocess.run(
            [
                sys.executable,
                "-W",
                "error",
                "-W",
                "ignore:.*fork:DeprecationWarning",
                "-c",
                SCRIPT,
                url,
                how,
                "1" if how == "away" else "60",
            ],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(ROOT)},
        )
        sent = [each["decision_id"] for each in server.rewards]
    if how == "away":
        assert "at the end of the process: 5 rewards not delivered" in done.stderr
    elif how == "raise":
        assert done.stderr == "the end\n"
    else:
        assert (done.returncode, done.stderr) == (0, "")
    if how == "fork":
        assert sent.count("child") == 1
        sent.remove("child")
    assert sorted(set(sent)) == [f"d{i}" for i in range(5)]
    assert how == "away" or len(sent) == 5
