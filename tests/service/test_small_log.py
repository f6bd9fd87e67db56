"""A service whose log can neither delete its oldest records nor erase those of a unit."""

from __future__ import annotations

from pathlib import Path

import pytest

from bandit_service.app import assembly
from bandit_service.settings import BadSettings
from tests.service.running import a_vector, opened
from tests.unit.store.small_log import SmallLog


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> SmallLog:
    log = SmallLog()
    monkeypatch.setattr(assembly, "open_log", lambda _: log)
    return log


async def test_it_serves_and_says_that_a_unit_cannot_be_erased(
    small: SmallLog, tmp_path: Path, models: Path
) -> None:
    async with opened(tmp_path, models) as (client, world):
        decided = await client.decide(embedding=a_vector(1), unit="ann")
        await client.reward(decided["decision_id"], quality=0.5)
        before = small.last
        status, answer = await client.call("DELETE", "/v1/units/ann")
        assert (status, answer["error"]["code"]) == (501, "not_implemented")
        assert answer["error"]["message"] == (
            "the event log (SmallLog) cannot erase the records of a unit"
        )
        assert small.last == before, "it must be forgotten nowhere, if it stays in the log"
        assert list(world.pending.decisions) == [decided["decision_id"]]
        assert (await client.get("/readyz"))[1]["first"] == 1
        async with client.session.get(client.url + "/metrics") as response:
            assert "bandit_log_first_offset 1.0" in await response.text()
        assert (await client.call("POST", "/v1/snapshots"))[0] == 200


async def test_a_start_refuses_retention_that_it_cannot_keep(
    small: SmallLog, tmp_path: Path, models: Path
) -> None:
    with pytest.raises(BadSettings) as refused:
        async with opened(tmp_path, models, BANDIT_RETENTION_MAX_AGE_S="3600"):
            pass
    assert "retention.max_age_s: the event log (SmallLog) cannot delete its oldest records" in str(
        refused.value
    )
