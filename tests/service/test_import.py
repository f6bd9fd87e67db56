"""A foreign log becomes the past of a service, which then decides by it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bandit_service import cli
from bandit_service.cli.commands import import_
from loadtest.postgres import Postgres
from store import ENGINES
from store.sqlite import SqliteLog
from tests.service.running import a_vector, serving
from tests.service.test_replicas import replicas, same, shared

WORTH = {"gemini-2.5-pro": 0.2, "llama-3.1-8b-instruct": 0.3, "elsewhere": 1.0}


def a_line(i: int, **more: Any) -> bytes:
    arms = list(WORTH)
    drawn = i % 3
    order = [drawn, *(k for k in range(3) if k != drawn)]
    fields = {
        "_label_cost": -WORTH[arms[drawn]], "_label_probability": 1 / 3, "EventId": f"old-{i}",
        "Timestamp": f"2026-03-01T12:{i // 60:02}:{i % 60:02}Z", "a": [k + 1 for k in order],
        "p": [1 / 3] * 3, "unit": f"u{i}",
        "c": {"embedding": a_vector(i), "_multi": [{"_tag": arm} for arm in arms]},
    }  # fmt: skip
    return json.dumps(fields | more).encode() + b"\n"


@pytest.fixture
def old(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log of 90 decisions, and a directory to import it into."""
    monkeypatch.setenv("BANDIT_DATA_DIR", str(tmp_path / "var"))
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "models").symlink_to(models, target_is_directory=True)
    path = tmp_path / "old.dsjson"
    path.write_bytes(b"".join(a_line(i) for i in reversed(range(90))))
    return path


async def test_the_service_goes_on_where_the_other_system_stopped(
    tmp_path: Path, models: Path, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["import", "--from-dsjson", str(old)]) == 0
    assert "90 decisions and 90 outcomes written to the log in" in capsys.readouterr().out
    assert [each.name for each in (tmp_path / "var").glob("events*")] == ["events.sqlite3"]
    policy = {"BANDIT_POLICY_NAME": "epsilon_greedy"}
    async with serving(tmp_path / "var", models, **policy) as client:
        _, state = await client.get("/v1/policies/epsilon_greedy/state")
        assert state["rewards"] == 90
        _, arms = await client.get("/v1/arms")
        offered = {arm["id"]: not arm["retired"] for arm in arms["arms"]}
        assert not offered["elsewhere"]
        assert offered["llama-3.1-8b-instruct"]
        # of the two that were tried and are still here, the other system's better one
        both = ["gemini-2.5-pro", "llama-3.1-8b-instruct"]
        decided = await client.decide(embedding=a_vector(3), arms=both, explain=True)
        assert decided["propensities"]["llama-3.1-8b-instruct"] > 0.9
        assert decided["neighbours"]
        status, _ = await client.get("/v1/decisions/old-5")
        assert status in (404, 410)  # nothing waits for its reward any more
        status, erased = await client.call("DELETE", "/v1/units/u7")
        assert (status, erased["erased"]) == (200, 2)
    assert cli.main(["import", "--from-dsjson", str(old)]) == 2
    assert "there is a log at" in capsys.readouterr().err


async def test_what_is_imported_is_migrated_to_where_replicas_share_a_log(
    tmp_path: Path,
    models: Path,
    old: Path,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in shared(tmp_path, postgres).items():
        monkeypatch.setenv(name, value)
    assert await asyncio.to_thread(cli.main, ["import", "--from-dsjson", str(old)]) == 0
    assert "`bandit-service migrate` copies them there" in capsys.readouterr().out
    assert await asyncio.to_thread(cli.main, ["migrate"]) == 0
    async with replicas(2, tmp_path, models, postgres) as found:
        assert [world.rewards for _, world in found] == [90, 90]
        await same([world for _, world in found])


class Mine(SqliteLog):
    """An engine of one's own, which says where it was opened."""

    opened: ClassVar[list[Path]] = []

    def __init__(self, path: Path) -> None:
        self.opened.append(path)
        super().__init__(path)


def test_the_log_is_of_the_engine_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "mine", f"{__name__}:Mine")
    import_._write((), tmp_path / "events", "mine")
    assert Mine.opened == [tmp_path / "events.importing"]
    assert [path.name for path in tmp_path.iterdir()] == ["events"]


def test_what_cannot_be_imported_leaves_nothing_behind(
    tmp_path: Path, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    rows = "2026-03-01,a,1,0.5,1\n2026-03-02,b,0,0.5,1\n"
    table.write_text(f"timestamp,action,reward,pscore,x\n{rows}")
    short = tmp_path / "short.dsjson"
    short.write_bytes(a_line(0, c={"_multi": [{"_tag": arm} for arm in WORTH]}))
    bad = tmp_path / "bad.dsjson"
    bad.write_bytes(a_line(0) + a_line(1, p=[1.0]))
    for source, path, code, said in (
        ("--from-obd", table, 2, "give columns action_dist_ARM"),
        ("--from-dsjson", short, 2, "the contexts have 64 numbers and embedding.model makes 384"),
        ("--from-dsjson", bad, 1, "line 2: p: must be a list of 3 probabilities"),
        ("--from-dsjson", tmp_path / "none", 1, "there is no file"),
    ):
        assert cli.main(["import", source, str(path)]) == code
        assert said in capsys.readouterr().err
    assert [each.name for each in (tmp_path / "var").iterdir()] == ["models"]
