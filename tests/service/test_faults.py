"""Real faults under a real process: damaged files, a full disk, a clock that jumps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random  # noqa: TID251 - where files are cut and bits are flipped, from fixed seeds
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from bandit_service.runtime import recovery
from store import Corrupt
from tests.service.running import Client, Process, a_vector

_SHIFTED_CLOCK = """\
import os, time
_real, _path = time.time, os.environ["SHIFT_FILE"]
time.time = lambda: _real() + float(open(_path).read())
"""


@contextlib.asynccontextmanager
async def _running(
    data: Path, models: Path, **environ: str
) -> AsyncIterator[tuple[Client, Process]]:
    process = Process(data, models, **environ)
    try:
        async with aiohttp.ClientSession() as session:
            yield Client(session, await process.url()), process
    finally:
        process.popen.kill()
        process.popen.wait()


async def _traffic(client: Client, first: int, last: int) -> list[str]:
    ids = []
    for i in range(first, last):
        decided = await client.decide(embedding=a_vector(i % 40))
        ids.append(str(decided["decision_id"]))
        assert await client.reward(ids[-1], quality=(i % 10) / 10) == "accepted"
    return ids


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.02)


def _chosen(data: Path, **environ: str) -> settings.Settings:
    return settings.read(None, {"BANDIT_DATA_DIR": str(data), **environ})


def _rewarded(data: Path, **environ: str) -> list[str]:
    """The decisions rewarded in the log, once each; the fold is the same by snapshot and from 1."""
    chosen = _chosen(data, **environ)
    log = assembly.open_log(chosen)
    try:
        events = [ev.decode(body) for _, body in log.replay() if body]
        short = recovery.recover(log, chosen, assembly.open_snapshots(chosen))
        whole = recovery.replayed(log, chosen, short.policy)
    finally:
        log.close()
    assert short.world.digest() == whole.world.digest()
    return [event.decision_id for event in events if isinstance(event, ev.Rewarded)]


async def _killed_with(data: Path, models: Path, n: int) -> list[str]:
    """A log of `n` acknowledged rewards whose process was killed."""
    async with _running(data, models) as (client, process):
        ids = await _traffic(client, 0, n)
        await client.post("/v1/snapshots", {})
        ids += await _traffic(client, n, n + 5)
        process.kill()
    return ids


def _fails(data: Path, models: Path) -> str:
    """What a start that is refused says; never a traceback."""
    process = Process(data, models)
    assert process.popen.wait(60) == 1
    said = process.log_path.read_text().strip().splitlines()[-1]
    assert "Traceback" not in process.log_path.read_text()
    return said


async def test_a_wal_that_was_cut_off_is_a_shorter_log_where_nothing_was_synced(
    tmp_path: Path, models: Path
) -> None:
    data, cuts = tmp_path / "var", random.Random(1)
    ids = await _killed_with(data, models, 10)
    os.truncate(data / "events.sqlite3-wal", 9000)
    assert "events were on disk" in _fails(data, models)
    ids = await _killed_with(tmp_path / "other", models, 10)
    data = tmp_path / "other"
    shutil.rmtree(data / "snapshots")  # what was made later than the cut would not fit
    (data / "events.sqlite3-synced").unlink()  # as a power cut would leave it
    wal = data / "events.sqlite3-wal"
    size = wal.stat().st_size
    kept = len(ids)
    for at in sorted((cuts.randrange(size // 3, size) for _ in range(4)), reverse=True):
        os.truncate(wal, at)
        copy = tmp_path / f"copy-{at}"
        shutil.copytree(data, copy, symlinks=True)
        found = _rewarded(copy)
        assert found == ids[: len(found)]
        assert len(found) <= kept
        kept = len(found)
    async with _running(data, models) as (client, _):
        assert await _traffic(client, 0, 3)
    assert 0 < kept < len(ids)


async def test_a_torn_last_page_or_a_flipped_bit_refuses_to_start_and_names_the_place(
    tmp_path: Path, models: Path
) -> None:
    data, flips = tmp_path / "var", random.Random(2)
    async with _running(data, models) as (client, process):
        await _traffic(client, 0, 40)
        assert await asyncio.to_thread(process.stop) == 0
    main = data / "events.sqlite3"
    whole = main.read_bytes()
    body = whole.find(b"decision_id", len(whole) // 3)
    flipped = bytearray(whole)
    flipped[body + flips.randrange(11)] ^= 1 << flips.randrange(8)
    main.write_bytes(flipped)
    said = _fails(data, models)
    assert "damaged at offset" in said
    assert "inspect --repair" in said
    main.write_bytes(whole[:-4096] + whole[-4096:-2048] + bytes(2048))
    log_or_refusal = _start_or_refusal(data, models)
    assert log_or_refusal in ("started", "damaged")
    main.write_bytes(whole)
    assert len(_rewarded(data)) == 40


async def test_damage_before_the_snapshot_ends_the_service_and_then_refuses_its_start(
    tmp_path: Path, models: Path
) -> None:
    """A start reads what it needs and the rest beside serving; where that is damaged it says so."""
    data = tmp_path / "var"
    async with _running(data, models) as (client, process):
        await _traffic(client, 0, 40)
        assert await asyncio.to_thread(process.stop) == 0
    main, note = data / "events.sqlite3", data / "events.sqlite3-verify"
    whole = main.read_bytes()
    body = whole.find(b"decision_id", len(whole) // 3)
    flipped = bytearray(whole)
    flipped[body] ^= 1
    main.write_bytes(flipped)
    chosen = _chosen(data)
    log = assembly.open_log(chosen)
    started = recovery.recover(log, chosen, assembly.open_snapshots(chosen))
    log.close()
    assert started.unread == started.after > 0
    said = _fails(data, models)
    assert "damaged at offset" in said
    assert note.read_text().strip() in said
    log = assembly.open_log(chosen)
    with pytest.raises(Corrupt):
        recovery.recover(log, chosen, assembly.open_snapshots(chosen))
    log.close()
    served = _served(data)
    assert said == _fails(data, models)
    assert _served(data) == served, "a start after that served for a moment"
    main.write_bytes(whole)
    async with _running(data, models) as (client, _):
        assert (await client.get("/v1/arms"))[0] == 200
    assert not note.exists()


def _served(data: Path) -> int:
    """How often a service began to serve."""
    return (data / "stderr.log").read_text().count('"message":"serving"')


def _start_or_refusal(data: Path, models: Path) -> str:
    """A torn page may be one that held nothing; then the log must be whole."""
    try:
        return "started" if len(_rewarded(data)) == 40 else "lost"
    except Exception as error:  # noqa: BLE001 - only one kind of it is right
        return "damaged" if "damaged" in str(error) else repr(error)


async def test_a_snapshot_cut_at_any_byte_is_passed_over(tmp_path: Path, models: Path) -> None:
    data, cuts = tmp_path / "var", random.Random(3)
    ids = await _killed_with(data, models, 20)
    async with _running(data, models) as (client, process):
        await client.post("/v1/snapshots", {})
        process.kill()
    newest = max((data / "snapshots").iterdir())
    whole = newest.read_bytes()
    for at in (0, 7, *(cuts.randrange(len(whole)) for _ in range(3)), len(whole) - 1):
        newest.write_bytes(whole[:at])
        assert _rewarded(data) == ids
    async with _running(data, models) as (client, process):
        assert await client.reward(ids[0], quality=0.0) == "duplicate"
        assert '"from_snapshot"' in process.log_path.read_text()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of three megabytes; where that may not be mounted the test is skipped."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


async def _reward(client: Client, id: str, quality: float) -> tuple[int, str | None]:
    """Status and Retry-After."""
    body = {"decision_id": id, "quality": quality}
    async with client.session.post(f"{client.url}/v1/rewards", json=body) as answer:
        return answer.status, answer.headers.get("Retry-After")


async def _full(client: Client) -> bool:
    status, body = await client.get("/readyz")
    assert status == 200
    return bool(body["status"] == "degraded")


async def test_a_full_disk_stops_rewards_and_not_decisions_and_heals_by_itself(
    tmp_path: Path, models: Path, small_disk: Path
) -> None:
    where = {
        "BANDIT_LOG_PATH": str(small_disk / "events.sqlite3"),
        "BANDIT_SNAPSHOTS_DIRECTORY": str(small_disk / "snapshots"),
    }
    data = tmp_path / "var"
    async with _running(data, models, **where) as (client, process):
        ids = await _traffic(client, 0, 20)
        before = str((await client.decide(embedding=a_vector(50)))["decision_id"])
        _fill(small_disk / "filler")
        during: list[str] = []

        async def noticed() -> bool:
            decided = await client.decide(embedding=a_vector(51))
            during.append(str(decided["decision_id"]))
            return await _full(client)

        await _until(noticed)
        for id in (before, during[-1]):
            status, retry_after = await _reward(client, id, 0.5)
            assert (status, retry_after is not None) == (503, True)
        assert (await client.post("/v1/snapshots", {}))[0] == 503
        more = [str((await client.decide(embedding=a_vector(i)))["decision_id"]) for i in range(9)]
        (small_disk / "filler").unlink()

        async def healed() -> bool:
            return not await _full(client)

        await _until(healed)
        for id in (before, *during, *more):
            assert await client.reward(id, quality=0.5) == "accepted"
        process.kill()
    assert _rewarded(data, **where) == [*ids, before, *during, *more]


async def test_a_disk_that_may_only_be_read_is_said_at_the_start_and_survived_later(
    tmp_path: Path, models: Path, small_disk: Path
) -> None:
    where = {"BANDIT_LOG_PATH": str(small_disk / "events.sqlite3")}
    data = tmp_path / "var"
    async with _running(data, models, **where) as (client, process):
        ids = await _traffic(client, 0, 5)
        assert await asyncio.to_thread(process.stop) == 0
    await _remount(small_disk, "ro")
    process = Process(data, models, **where)
    assert process.popen.wait(60) == 1
    said = process.log_path.read_text()
    assert "cannot be" in said.strip().splitlines()[-1]
    assert "Traceback" not in said
    await _remount(small_disk, "rw")
    async with _running(data, models, **where) as (client, _):
        assert await client.reward(ids[0], quality=0.0) == "duplicate"


async def _remount(disk: Path, how: str) -> None:
    mounting = await asyncio.create_subprocess_exec("mount", "-o", f"remount,{how}", disk)
    assert await mounting.wait() == 0


def _fill(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (65_536, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


async def test_a_clock_that_jumps_back_an_hour_changes_no_order_and_loses_no_reward(
    tmp_path: Path, models: Path
) -> None:
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(_SHIFTED_CLOCK)
    shift = tmp_path / "shift"
    _shifted(shift, 0)
    paths = [str(tmp_path / "clock"), *(path for path in sys.path if path), str(Path.cwd())]
    environ = {"SHIFT_FILE": str(shift), "PYTHONPATH": os.pathsep.join(paths)}
    data = tmp_path / "var"
    async with _running(data, models, **environ) as (client, process):
        early = await client.decide(embedding=a_vector(1))
        ids = await _traffic(client, 0, 5)
        _shifted(shift, -3600)
        ids += await _traffic(client, 5, 10)
        assert await client.reward(early["decision_id"], quality=0.5) == "accepted"
        process.kill()
    async with _running(data, models, **environ) as (client, process):
        ids += await _traffic(client, 10, 15)
        times = [await _ts(client, id) for id in ids]
        assert times == sorted(times)
        assert ids == sorted(set(ids))
        _shifted(shift, 2 * 86_400)  # and then far ahead: what waited is too old

        async def gone() -> bool:
            return (await client.get(f"/v1/decisions/{ids[-1]}"))[0] == 410

        await _until(gone)
        assert await client.reward((await client.decide())["decision_id"], quality=1) == "accepted"
        assert await asyncio.to_thread(process.stop) == 0
    assert len(_rewarded(data)) == 17


def _shifted(shift: Path, seconds: int) -> None:
    """In one step: a process that reads the file meanwhile must not find it empty."""
    new = shift.with_suffix(".new")
    new.write_text(str(seconds))
    new.replace(shift)


async def _ts(client: Client, id: str) -> float:
    status, body = await client.get(f"/v1/decisions/{id}")
    assert status == 200, body
    answer: dict[str, Any] = body
    return float(answer["ts"])
