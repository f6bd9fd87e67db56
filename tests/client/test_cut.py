"""The service dies and comes back, connections are cut: what was said to be delivered is there."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bandit_client import (
    AsyncClient,
    BanditError,
    Batching,
    Client,
    Decision,
    NoAnswer,
    NotReached,
    Retries,
)
from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from tests.client.conftest import Served
from tests.client.unruly import SOON, Relay, relay
from tests.service.running import Process, a_vector

PATIENT = Retries(attempts=200, first_s=0.02, max_s=0.1)


@pytest.fixture
def between(served: Served) -> Iterator[Relay]:
    with relay() as made:
        made.to(served.url)
        yield made


def _rewarded(data: Path) -> Counter[tuple[str | None, str]]:
    """How often each reward is in the log: by decision, or by its key where it has none."""
    log = assembly.open_log(settings.read(None, {"BANDIT_DATA_DIR": str(data)}))
    try:
        events = [ev.decode(body) for _, body in log.replay()]
    finally:
        log.close()
    return Counter(
        (each.decision_id or None, "" if each.decision_id else each.idempotency_key)
        for each in events
        if isinstance(each, ev.Rewarded)
    )


def test_every_delivered_reward_survives_kill_9_once(tmp_path: Path, models: Path) -> None:
    """Rewards of both ways are under way while the service is killed and comes back."""
    data, lasting = tmp_path / "var", Batching(batch=20, every_s=0.0)
    delivered: set[tuple[str | None, str]] = set()
    process = Process(data, models)
    with relay() as between:
        between.to(asyncio.run(process.url()))
        client = Client(between.url, timeout_s=120, retries=PATIENT, batching=lasting)
        made = [client.decide(embedding=a_vector(i)) for i in range(90)]

        def at_once(mine: list[Decision]) -> None:
            for i, each in enumerate(mine):
                client.reward(each, quality=0.5)
                delivered.add((each.decision_id, ""))
                key = f"{each.decision_id}-{i}"
                client.reward(arm=each.arm, embedding=a_vector(i), quality=1.0, idempotency_key=key)
                delivered.add((None, key))

        threads = [threading.Thread(target=at_once, args=(made[i:40:4],)) for i in range(4)]
        for each in threads:
            each.start()
        later = made[40:]
        for count, decision in enumerate(later):
            client.reward_later(decision, quality=0.5)
            if count == 25:
                before = len(delivered)
                while len(delivered) < before + 3 and any(t.is_alive() for t in threads):
                    time.sleep(0.002)
                process.kill()
                between.to(None)
                between.cut()
                process = Process(data, models)
                between.to(asyncio.run(process.url()))
        for each in threads:
            each.join()
        assert client.flush().delivered == len(later)
        client.close()
        process.kill()
    delivered |= {(each.decision_id, "") for each in later}
    assert len(delivered) == 130
    found = _rewarded(data)
    assert set(found) == delivered
    assert set(found.values()) == {1}


async def test_a_stream_that_is_cut_goes_on(between: Relay, served: Served) -> None:
    async with (
        AsyncClient(between.url, served.key, retries=PATIENT) as client,
        client.stream() as stream,
    ):
        made = await asyncio.gather(*(stream.decide(embedding=a_vector(i % 9)) for i in range(40)))
        lost = 0
        for round_ in range(3):
            if round_ == 2:
                between.hold()
            asked = [asyncio.ensure_future(stream.decide(embedding=a_vector(i))) for i in range(30)]
            rewards = [
                asyncio.ensure_future(stream.reward(each, quality=0.5))
                for each in made[round_ * 10 : round_ * 10 + 10]
            ]
            await asyncio.sleep(0.002 * round_)
            if round_ == 2:
                assert await asyncio.to_thread(between.held.wait, 60)
            await asyncio.to_thread(between.cut)
            for answer in await asyncio.gather(*asked, return_exceptions=True):
                lost += isinstance(answer, NoAnswer)
                assert isinstance(answer, NoAnswer | Decision), answer
            for each in await asyncio.gather(*rewards):
                assert each.status in ("accepted", "duplicate")
        assert lost > 0  # at least the answer that was held back
        assert (await stream.decide(embedding=a_vector(0))).decision_id


def test_the_service_is_gone_and_no_decision_is_asked_for_twice(
    between: Relay, served: Served
) -> None:
    with Client(between.url, served.key, retries=SOON) as client:
        client.decide(embedding=a_vector(0))
        between.to(None)
        between.cut()
        with pytest.raises((NotReached, NoAnswer)) as gone:
            client.decide(embedding=a_vector(0))
        assert isinstance(gone.value, BanditError)
        between.to(served.url)
        assert client.decide(embedding=a_vector(0)).decision_id
