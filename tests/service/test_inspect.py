"""`bandit-service inspect` on real files with real damage: what it says, saves and leaves alone."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bandit_service import cli, settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from bandit_service.runtime import recovery
from policies import ArmId
from store import Offset, Record, open_to_read
from store.snapshots import FileSnapshots
from store.sqlite import SqliteLog
from tests.service.running import a_vector, serving

_EVENTS = 300


def _record(i: int) -> Record:
    arm = ev.ArmSpec(
        id=ArmId(f"arm-{i}"), usd_per_mtok_in=1.0, usd_per_mtok_out=2.0, tags=(f"tag {i}" * 9,)
    )
    event = ev.ArmAdded(ts=1.7e9 + i, arm=arm, source="api")
    return Record(f"e{i}", ev.kind(event), event.ts, ev.encode(event), f"owner {i % 3}")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with a log of 300 events and snapshots at 100, 200 and 300."""
    log = SqliteLog(tmp_path / "events.sqlite3")
    for first in range(1, _EVENTS + 1, 50):
        log.append([_record(i) for i in range(first, first + 50)])
    log.close()
    snapshots = FileSnapshots(tmp_path / "snapshots")
    for at in (100, 200, 300):
        snapshots.save(Offset(at), "world", b"state %d" % at)
    return tmp_path


def _path(data: Path) -> Path:
    return data / "events.sqlite3"


def _inspect(
    data: Path, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, Any, str]:
    """The exit status, what was printed (parsed if it is JSON), and the errors."""
    config = data / "config.toml"
    config.write_text(f'data_dir = "{data}"\n[log]\npath = "events.sqlite3"\n')
    status = cli.main(["inspect", "--config", str(config), *arguments])
    out, err = capsys.readouterr()
    return status, json.loads(out) if "--json" in arguments else out, err


def _flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(_record(offset).body) + 40] ^= 4
    path.write_bytes(content)


def _changed(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()


def test_of_a_whole_log_it_says_what_is_in_it(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found, _ = _inspect(data, capsys, "--json")
    assert status == 0
    assert (found["events"], found["first"], found["last"]) == (300, 1, 300)
    assert found["kinds"] == {"arm_added": 300}
    assert found["pending"] == found["remembered"] == 0
    assert found["size_bytes"] > 300 * 50
    assert len(found["state_sha256"]) >= 32
    assert [(each["offset"], each["valid"]) for each in found["snapshots"]] == [
        (300, True),
        (200, True),
        (100, True),
    ]
    status, printed, _ = _inspect(data, capsys)
    assert status == 0
    assert "snapshot       offset 300, " in printed
    assert f"state_sha256   {found['state_sha256']}" in printed


def test_erased_records_and_damaged_snapshots_are_told(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = SqliteLog(_path(data))
    log.forget("owner 1", Offset(30))
    log.close()
    newest = FileSnapshots(data / "snapshots").found()[0].path
    newest.write_bytes(newest.read_bytes()[:-1])
    status, found, _ = _inspect(data, capsys, "--json")
    assert status == 0
    assert found["kinds"] == {"arm_added": 290, "(erased or lost)": 10}
    assert found["snapshots"][0]["why"] == "its checksum does not match"
    assert "offset 300, " in (printed := _inspect(data, capsys)[1])
    assert "its checksum does not match" in printed


def test_a_trimmed_log_that_no_snapshot_reaches_is_told(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = SqliteLog(_path(data))
    log.trim(Offset(50))
    log.close()
    status, found, _ = _inspect(data, capsys, "--json")
    assert status == 1
    assert (found["first"], found["events"], found["kinds"]) == (51, 300, {"arm_added": 250})
    assert "the log begins at 51" in found["state"]


def test_a_flipped_bit_is_named_and_nothing_is_changed(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _flip(_path(data), 150)
    before = _path(data).read_bytes()
    status, printed, err = _inspect(data, capsys)
    assert status == 1
    assert printed.splitlines() == [
        "the log is damaged at offset 150: its checksum does not match",
        "can be saved: 149 records before it, 150 after it",
        "lost: 1 records, at offsets 150",
        "to save it: bandit-service inspect --repair (docs/repair.md)",
    ]
    assert "Traceback" not in err
    assert len(_path(data).read_bytes()) == len(before)
    status, found, _ = _inspect(data, capsys, "--json")
    assert (status, found["damaged"], found["lost"]) == (1, 150, [[150, 150]])
    assert found["repaired"] is False
    assert len(FileSnapshots(data / "snapshots").found()) == 3


def test_repaired_it_is_whole_again(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _flip(_path(data), 150)
    status, printed, _ = _inspect(data, capsys, "--repair")
    assert status == 0
    assert _path(data).stat().st_mode & 0o077 == 0  # on 164cc0c0 it was 0640
    assert "repaired: the new log has offsets 1 to 300; those of lost records are empty" in printed
    assert f"the damaged log is kept as {_path(data)}.damaged-1" in printed
    status, found, _ = _inspect(data, capsys, "--json")
    assert (status, found["events"]) == (0, 300)
    assert found["kinds"] == {"arm_added": 299, "(erased or lost)": 1}
    assert [each["offset"] for each in found["snapshots"]] == [300, 200, 100]
    log = SqliteLog(_path(data))
    bodies = [body for _, body in log.replay()]
    assert log.append([_record(999)]) == 301
    log.close()
    assert bodies == [b"" if i == 150 else _record(i).body for i in range(1, 301)]
    _flip(_path(data), 20)
    status, told, _ = _inspect(data, capsys, "--repair", "--json")
    assert (status, told["repaired"], told["lost"]) == (0, True, [[20, 20]])
    assert told["kept_as"] == f"{_path(data)}.damaged-2"
    assert told["erased"] == 1
    assert "nothing to repair" in _inspect(data, capsys, "--repair")[1]


def test_what_a_snapshot_knows_to_have_been_there_is_lost_and_the_snapshot_stays(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At 5a5a85b the snapshot was set aside, and so what the lost records taught was lost."""
    _changed(_path(data), "DELETE FROM batch WHERE first > 250")
    _changed(_path(data), "UPDATE head SET seq = 250")
    status, told, _ = _inspect(data, capsys, "--repair", "--json")
    assert (status, told["last"], told["lost"], told["set_aside"]) == (0, 300, [[251, 300]], [])
    found = _inspect(data, capsys, "--json")[1]
    assert [each["offset"] for each in found["snapshots"]] == [300, 200, 100]


def test_snapshots_of_another_log_are_set_aside(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    FileSnapshots(data / "snapshots").save(Offset(10**7), "world", b"state")
    status, told, _ = _inspect(data, capsys, "--json")
    assert (status, told["damaged"], told["last"]) == (1, 301, 300)
    assert "a snapshot of 10000000 events" in told["why"]
    status, told, _ = _inspect(data, capsys, "--repair", "--json")
    assert (status, told["last"], len(told["set_aside"])) == (0, 300, 1)
    assert len(list((data / "snapshots").glob("*.damaged-1"))) == 1


def _truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def _torn_last_page(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-2000] + bytes(2000))


def _zeroed_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[6 * 4096 : 7 * 4096] = bytes(4096)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        _truncated,
        _torn_last_page,
        _zeroed_page,
        lambda path: _changed(path, "UPDATE head SET seq = 290"),
        lambda path: _changed(path, "UPDATE head SET crc = crc + 1, base = 7"),
        lambda path: _changed(path, "DELETE FROM head"),
        lambda path: _changed(path, "DELETE FROM batch WHERE first = 51"),
    ],
    ids=["truncated", "torn", "zeroed", "head", "head crc", "no head", "missing"],
)
def test_any_damage_is_told_and_repaired(
    data: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    damage(_path(data))
    status, told, err = _inspect(data, capsys, "--json")
    assert (status, told["repaired"]) == (1, False)
    status, told, err = _inspect(data, capsys, "--json", "--repair")
    assert (status, told["repaired"], err) == (0, True, "")
    lost = {i for first, last in told["lost"] for i in range(first, last + 1)}
    status, found, _ = _inspect(data, capsys, "--json")
    assert (status, found["events"]) == (0, told["last"])
    assert told["saved_before"] + told["saved_after"] == 300 - len(lost)
    log = SqliteLog(_path(data))
    assert [body for _, body in log.replay()] == [
        b"" if i in lost else _record(i).body for i in range(1, 301)
    ]
    log.close()


def test_a_truncated_wal_is_a_shorter_log_and_no_damage(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = SqliteLog(_path(data))
    for i in range(301, 341):
        log.append([_record(i)])
    other = data / "crashed"
    other.mkdir()
    shutil.copy(_path(data), other)
    wal = Path(f"{_path(data)}-wal").read_bytes()
    log.close()
    Path(f"{_path(other)}-wal").write_bytes(wal[: len(wal) // 2])
    status, found, _ = _inspect(other, capsys, "--json")
    assert status == 0
    assert 300 < found["events"] < 340


@pytest.mark.parametrize("content", [b"nothing of ours", b"x" * 9000])
def test_what_cannot_be_saved_is_left_alone(
    data: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    _path(data).write_bytes(content)
    status, printed, _ = _inspect(data, capsys, "--repair")
    assert status == 1
    assert "nothing can be saved: restore a backup" in printed
    assert _path(data).read_bytes() == content
    assert len(FileSnapshots(data / "snapshots").found()) == 3


def test_a_trimmed_log_says_when_the_service_cannot_start_from_it(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = SqliteLog(_path(data))
    log.trim(Offset(150), most=150)
    log.close()
    _flip(_path(data), 170)
    status, printed, _ = _inspect(data, capsys, "--repair")
    assert status == 0
    assert "the service cannot start from it" not in printed
    FileSnapshots(data / "snapshots").forget(before=Offset(301))
    _flip(_path(data), 190)
    status, printed, _ = _inspect(data, capsys, "--repair")
    assert status == 0
    assert "the service cannot start from it" in printed
    assert "restore a backup" in printed


def test_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = _inspect(tmp_path, capsys)
    assert status == 1
    assert "no log at" in err


def test_it_refuses_while_another_process_has_the_log_open(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = """
import sys
from store.sqlite import SqliteLog
from tests.service.running import a_vector, serving
log = SqliteLog(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
log.close()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, _path(data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        for arguments in ([], ["--repair"]):
            status, printed, err = _inspect(data, capsys, *arguments)
            assert (status, printed) == (1, "")
            assert "is open in another process" in err
    assert _inspect(data, capsys)[0] == 0


def test_serving_a_damaged_log_is_refused_with_what_to_do(data: Path) -> None:
    _flip(_path(data), 150)
    done = subprocess.run(
        [sys.executable, "-m", "bandit_service.cli", "serve", "--port", "0"],
        env=os.environ | {"BANDIT_DATA_DIR": str(data), "BANDIT_LOG_PATH": "events.sqlite3"},  # noqa: TID251 - passed on
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "the log is damaged at offset 150" in done.stderr
    assert "`bandit-service inspect --repair`" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_repaired_service_knows_what_its_snapshot_knew(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record of a decision is lost; the snapshot has it, and it can still be rewarded."""
    data = tmp_path / "var"
    async with serving(data, models) as client:
        ids = [str((await client.decide(embedding=a_vector(i)))["decision_id"]) for i in range(30)]
        for id in ids[:20]:
            await client.reward(id, quality=0.5)
    before = _digest(data)
    content = bytearray(_path(data).read_bytes())
    assert content.count(ids[25].encode()) >= 1
    content[_body_of(_path(data), ids[25], bytes(content)) + 200] ^= 1
    _path(data).write_bytes(content)
    status, told, _ = await asyncio.to_thread(_inspect, data, capsys, "--json")
    assert (status, told["lost"]) == (1, [[told["damaged"], told["damaged"]]])
    status, told, _ = await asyncio.to_thread(_inspect, data, capsys, "--json", "--repair")
    assert (status, told["repaired"], told["startable"]) == (0, True, True)
    assert _digest(data) == before
    async with serving(data, models) as client:
        assert await client.reward(ids[25], quality=1.0) == "accepted"
        assert await client.reward(ids[3], quality=0.5) == "duplicate"
        await client.decide(embedding=a_vector(3))


def _digest(data: Path) -> str:
    """The state that a start comes to."""
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(data)})
    log = assembly.open_log(chosen)
    try:
        return recovery.recover(log, chosen, assembly.open_snapshots(chosen)).world.digest()
    finally:
        log.close()


def _body_of(path: Path, id: str, content: bytes) -> int:
    """Where in the file the body of a decision begins."""
    log = open_to_read(path)
    bodies = [body for _, body in log.replay() if ev.kind(ev.decode(body)) == "decided"]
    log.close()
    (body,) = (body for body in bodies if id.encode() in body)
    return content.index(body[190:215]) - 190  # the whole of it may be on two pages
