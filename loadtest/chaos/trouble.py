"""What happens beside the load: policies change, children stand still, descriptors run out, the
disk is full, a bit of what was written flips."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random  # noqa: TID251 - moments and places, from a printed seed
import resource
import shutil
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.runtime import recovery
from loadtest.chaos.load import GONE, Client, Wrong
from store import START, Corrupt, StoreError, synced
from store.salvage import repair, take_place

POLICIES = ("knn", "metallm", "nested", "epsilon_greedy")
DESCRIPTORS = 256
_IDLE = 300


async def switching(client: Client, rng: random.Random, seen: Counter[str]) -> None:
    """Ask for one policy after the other until the service is gone."""
    with contextlib.suppress(*GONE):
        while True:
            await asyncio.sleep(rng.uniform(0.0, 0.3))
            status, told = await client.call("PUT", "/v1/policy", {"name": rng.choice(POLICIES)})
            if status not in (200, 202, 409, 503):
                raise Wrong(f"a policy that is there was answered {status}: {told}")
            seen["policies asked for"] += status in (200, 202)


async def hurting_children(pid: int, rng: random.Random, seen: Counter[str]) -> None:
    """Stop, or kill, child processes of the service now and then."""
    known: set[int] = set()
    while True:
        await asyncio.sleep(0.02)
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            for child in psutil.Process(pid).children(recursive=True):
                if child.pid in known or "bandit_service.runtime.folding" not in child.cmdline():
                    continue
                known.add(child.pid)
                how = rng.choice([None, None, signal.SIGSTOP, signal.SIGKILL])
                if how is not None:
                    await asyncio.sleep(rng.uniform(0.0, 0.5))
                    os.kill(child.pid, how)
                    seen["children stopped" if how == signal.SIGSTOP else "children killed"] += 1


@contextlib.asynccontextmanager
async def crowd(url: str) -> AsyncIterator[None]:
    """More idle connections than there are descriptors for."""
    host, port = url.removeprefix("http://").split(":")
    idle: list[socket.socket] = []
    try:
        for _ in range(_IDLE):
            one = socket.socket()
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect((host, int(port)))
            idle.append(one)
        yield
    finally:
        for one in idle:
            one.close()


@contextlib.contextmanager
def full_disk(pid: int) -> Iterator[None]:
    """Meanwhile the process can write to no file: for SQLite that is a disk without space."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it was killed meanwhile
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


def damage(data: Path, rng: random.Random, seen: Counter[str]) -> None:
    """Damage copies of what a kill has left: each is refused or whole, and can be repaired.

    Raises Wrong where a shorter log is taken for a whole one.
    """
    wal = data / "events.sqlite3-wal"
    size = wal.stat().st_size if wal.exists() else 0
    if size < 100:
        return
    whole: str | StoreError = ""  # the next start says whether it opens; seldom needed here
    for how in ("flipped", "cut off", "missing"):
        copy = _copy(data, how)
        content = bytearray((copy / wal.name).read_bytes())
        if how == "flipped":
            content[rng.randrange(size)] ^= 1 << rng.randrange(8)
        elif how == "cut off":
            del content[rng.randrange(size) :]
        (copy / wal.name).write_bytes(content)
        if how == "missing":
            (copy / wal.name).unlink()
        found = _opened(copy)
        if isinstance(found, StoreError):
            seen[f"{how}, refused"] += 1
            _repaired(copy)
            shutil.rmtree(copy)
            continue
        whole = whole or _opened(_copy(data, "whole"))
        if not isinstance(whole, str):
            raise Wrong(f"what kill -9 left does not open: {whole}")
        if found == whole:
            seen[f"{how}, harmless"] += 1
        elif not _lost_nothing_synced(data, copy):
            raise Wrong(f"a WAL that was {how} is taken for a shorter log")
        else:
            seen[f"{how}, of what was not synced"] += 1
        shutil.rmtree(copy)


def _copy(data: Path, name: str) -> Path:
    copy = data.parent / f"damaged {name}"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for each in data.glob("events.sqlite3*"):
        shutil.copy(each, copy)
    shutil.copytree(data / "snapshots", copy / "snapshots")
    return copy


def _opened(data: Path) -> str | StoreError:
    """The hash of the state that a start has, or why it is refused."""
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(data)})
    try:
        log = assembly.open_log(chosen)
    except StoreError as error:
        return error
    try:
        return recovery.recover(log, chosen, assembly.open_snapshots(chosen)).world.digest()
    except Corrupt as error:
        return error
    finally:
        log.close()


def _repaired(data: Path) -> None:
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(data)})
    path, into = data / "events.sqlite3", data / "new.sqlite3"
    known = assembly.open_snapshots(chosen).newest(START)
    if not path.stat().st_size:
        return
    repair(path, into, known)
    take_place(into, path, 1)
    found = _opened(data)
    if not isinstance(found, str):
        raise Wrong(f"a repaired log is refused: {found}")


def _lost_nothing_synced(before: Path, after: Path) -> bool:
    """Whether the shorter log has all that was synced, which alone was acknowledged."""
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(after)})
    log = assembly.open_log(chosen)
    try:
        return int(log.last) >= synced(before / "events.sqlite3")
    finally:
        log.close()
