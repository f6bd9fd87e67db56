"""Questions that are kept where several services share one log in PostgreSQL: read at any of them,
and gone from the database with their unit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from bandit_service.runtime import maintenance
from bandit_service.runtime.shared import erasing
from bandit_service.settings.texts import new_key
from loadtest.postgres import Postgres
from store import StoreError
from store.postgres_texts import PostgresTexts
from tests.service.folding_here import fold_here
from tests.service.provider import until
from tests.service.running import Client
from tests.service.test_replicas import replicas, same, shared

QUESTION = "Where is the parcel of Joe?"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "_LOOK_S", 0.02)
    monkeypatch.setattr(erasing, "_SWEEP_S", 0.5)
    fold_here(monkeypatch)


async def _text(client: Client, id: str) -> tuple[int, Any]:
    found: list[tuple[int, Any]] = []

    async def there() -> bool:
        found[:] = [await client.get(f"/v1/decisions/{id}/text")]
        return found[0][0] == 200

    await until(there)
    return found[0]


async def test_a_text_is_read_at_every_replica_and_erased_for_all(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    texts = {"BANDIT_TEXTS_KEEP": "questions", "BANDIT_TEXTS_KEY_ENV": "K", "K": new_key()}
    of_before = tmp_path / "r0" / "texts.sqlite3"
    of_before.parent.mkdir()
    of_before.write_bytes(b"of a release that kept them here")
    async with replicas(2, tmp_path, models, postgres, **texts) as found:
        (one, first), (other, second) = found
        assert not of_before.exists()
        asked = await one.decide(query=QUESTION, unit="joe")
        await one.reward(asked["decision_id"], quality=1.0)
        await same([first, second])
        assert (await _text(other, asked["decision_id"]))[1]["question"] == QUESTION
        again = await other.decide(query=QUESTION + " Please!", unit="ann")

        async def beside() -> bool:
            _, told = await one.get(f"/v1/decisions/{again['decision_id']}/text")
            near = [each["question"] for each in told.get("neighbours", ())]
            return near == [QUESTION]

        await until(beside)
        log = shared(tmp_path, postgres)["BANDIT_LOG_NAME"]
        db = await asyncpg.connect(postgres.dsn)
        rows = await db.fetch("SELECT id, sealed FROM bandit_text WHERE log = $1", log)
        assert {row["id"] for row in rows} == {asked["decision_id"], again["decision_id"]}
        assert not any(b"parcel" in row["sealed"] for row in rows)
        assert (await other.call("DELETE", "/v1/units/joe", None))[0] == 200
        rows = await db.fetch("SELECT id FROM bandit_text WHERE log = $1", log)
        assert [row["id"] for row in rows] == [again["decision_id"]]
    async with replicas(1, tmp_path, models, postgres, **texts) as found:  # as young as it is
        assert (await _text(found[0][0], again["decision_id"]))[1]["question"].endswith("Please!")
    async with replicas(1, tmp_path, models, postgres):
        assert await db.fetch("SELECT id FROM bandit_text WHERE log = $1", log) == []
    await db.close()


async def test_the_rows_are_of_one_log_and_are_there_again_after_the_connection_was_cut(
    postgres: Postgres,
) -> None:
    mine, others = (PostgresTexts(postgres.dsn, log, 20.0) for log in ("texts-a", "texts-b"))
    await mine.delete_all()
    for i in range(4):
        await mine.put(f"d{i}", float(i), f"u{i}" if i else "", i, bytes([i]))
    await others.put("d1", 1.0, "u1", None, b"x")
    await mine.put("d1", 1.0, "u1", None, b"new")
    await mine.remembered("d1", 9)
    assert await mine.get("d1", 0.0) == (1.0, b"new")
    assert await mine.get("d1", 1.5) is None
    assert await mine.of_events([1, 9], 0.0) == [(1, "d1", b"new")], "the first event stays"
    assert [row[0] for row in await mine.newest(2, 0.0)] == ["d3", "d2"]
    assert await mine.owned(3.0) == ["d1", "d2"]
    mine._db.terminate()
    await mine.forget("u2")
    await mine.delete(["d3"])
    assert [row[0] for row in await mine.newest(9, 0.0)] == ["d1", "d0"]
    await mine.trim(0.5, 9)
    assert [row[0] for row in await mine.newest(9, 0.0)] == ["d1"]
    await mine.put("d5", 5.0, "", None, b"5")
    await mine.trim(0.0, 1)
    assert [row[0] for row in await mine.newest(9, 0.0)] == ["d5"]
    await mine.delete_all()
    assert await mine.newest(9, 0.0) == []
    assert await others.get("d1", 0.0) == (1.0, b"x")
    await others.delete_all()
    for each in (mine, others):
        await each.close()


async def test_a_database_that_is_not_there_is_told_without_its_address() -> None:
    nowhere = PostgresTexts("postgresql://user:hush@127.0.0.1:1/none", "log", 2.0)
    with pytest.raises(StoreError, match="the database is not reached: ") as told:
        await nowhere.get("d", 0.0)
    assert "hush" not in str(told.value)
