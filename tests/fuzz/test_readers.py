"""What reads snapshots and pipes of the folding process: an answer, or the error it declares."""

from __future__ import annotations

import asyncio
import io
import struct
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import policies
from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.apply import apply
from bandit_service.core.world import World, new_world
from bandit_service.runtime import folding
from store import Corrupt, Offset, Record, StoreError
from store.snapshots import FileSnapshots
from store.sqlite import SqliteLog
from tests.fuzz.effort import effort
from tests.fuzz.requests import anything
from tests.golden.test_events import SAMPLES

BODIES = [bytes.fromhex(sample["hex"]) for sample in SAMPLES]


@cache
def _world() -> World:
    world = new_world({"eagle": policies.load("eagle")}, "eagle", 10)
    for body in BODIES:
        world = apply(world, ev.decode(body))
    return world


def _exchanged(value: Any, at: int, other: Any) -> Any:
    """The same nest with its leaf or branch number `at` exchanged."""
    left = at

    def walk(one: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            left = 10**9
            return other
        if isinstance(one, dict):
            return {key: walk(item) for key, item in one.items()}
        return [walk(item) for item in one] if isinstance(one, list) else one

    return walk(value)


@st.composite
def _damaged_worlds(draw: st.DrawFn) -> bytes:
    """A snapshot of a real world, with bytes changed, cut off, or a value of another kind."""
    whole = snapshot.dump(_world())
    if draw(st.booleans()):
        nest = msgspec.msgpack.decode(whole)  # arrays stay what they are: MessagePack's Ext
        changed = _exchanged(nest, draw(st.integers(1, 200)), draw(anything))
        return msgspec.msgpack.encode(changed)
    body = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body[: draw(st.integers(0, len(body)))]) if draw(st.booleans()) else bytes(body)


@effort(300)
@given(_damaged_worlds() | st.binary(max_size=200))
@example(b"\x81\xa1x" + b"\x91" * 100_000)
def test_a_damaged_world_is_a_world_or_refused(body: bytes) -> None:
    refused = ""
    try:
        snapshot.restore(snapshot.read(body), {"eagle": policies.load("eagle")}, "eagle")
    except ValueError as error:
        refused = str(error)
    assert not refused or "not a world" in refused


def test_a_whole_world_comes_back() -> None:
    kept = snapshot.read(snapshot.dump(_world()))
    restored = snapshot.restore(kept, {"eagle": policies.load("eagle")}, "eagle")
    assert restored.digest() == _world().digest()


@effort(100)
@given(data=st.data())
def test_a_damaged_file_is_passed_over(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    snapshots = FileSnapshots(tmp_path_factory.mktemp("snapshots"))
    snapshots.save(Offset(1), "key", b"the state before")
    snapshots.save(Offset(2), "key", b"the state")
    (newest,) = snapshots.directory.glob("*2.snapshot")
    whole = newest.read_bytes()
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(whole) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    content = bytes(damaged[: data.draw(st.integers(0, len(whole)))])
    content += data.draw(st.binary(max_size=3))
    newest.write_bytes(content)
    expected = (2, b"the state") if content == whole else (1, b"the state before")
    assert snapshots.latest("key") == expected
    assert bool(snapshots.skipped) == (content != whole)
    assert len(snapshots.found()) == 2


def _framed(body: bytes, length: int | None = None) -> bytes:
    return struct.pack(">I", len(body) if length is None else length) + body


def _task(directory: Path) -> folding.Task:
    return folding.Task("eagle", {}, "key", 10, 10, str(directory), 3)


@st.composite
def _feeds(draw: st.DrawFn) -> bytes:
    """What comes after a task: chunks that are right, or frames that are not."""
    chunk = msgspec.msgpack.encode(list(enumerate(BODIES, 1)))
    frames = st.one_of(
        st.just(_framed(chunk)),
        st.builds(_framed, st.binary(max_size=50), st.none() | st.integers(0, 2**32 - 1)),
        st.builds(lambda body: _framed(msgspec.msgpack.encode([(1, body)])), st.binary(max_size=9)),
        st.builds(lambda value: _framed(msgspec.msgpack.encode(value)), anything),
        st.binary(max_size=50),
    )
    return b"".join(draw(st.lists(frames, max_size=4)))


@effort(100)
@given(_feeds(), st.booleans())
def test_a_folding_process_ends_with_a_reason(
    tmp_path_factory: pytest.TempPathFactory, feed: bytes, told: bool
) -> None:
    directory = tmp_path_factory.mktemp("folded")
    begun = _framed(msgspec.msgpack.encode(_task(directory))) if told else b""
    code: object = 0
    try:
        folding.fold(io.BytesIO(begun + feed), io.BytesIO())
    except SystemExit as error:
        code = error.code
    assert code is not None
    assert (FileSnapshots(directory).latest("key") is None) == bool(code)


@effort(200)
@given(st.binary(max_size=60) | anything.map(lambda one: _framed(msgspec.msgpack.encode(one))))
@example(_framed(b"\x81\xa1x" + b"\x91" * 100_000))
def test_what_a_folding_process_says_is_read_or_it_has_failed(said: bytes) -> None:
    async def read() -> None:
        pipe = asyncio.StreamReader()
        pipe.feed_data(said)
        pipe.feed_eof()
        await folding.answer_of(pipe, folding.Folded)

    with suppress(folding.FoldFailed):
        asyncio.run(read())


@cache
def _left_by_a_kill() -> dict[str, bytes]:
    """The files of a log of forty synced events, as a kill leaves them."""
    with tempfile.TemporaryDirectory() as directory:
        log = SqliteLog(Path(directory) / "events.db")
        for i in range(40):
            log.append([Record(f"e{i}", "k", float(i), b"body %d " % i * 20)])
        log.sync()
        files = {each.name: each.read_bytes() for each in Path(directory).iterdir()}
        log.close()
    return files


@st.composite
def _damaged_files(draw: st.DrawFn) -> dict[str, bytes]:
    """Those files with bytes changed, cut off, added, or one of them missing."""
    files = {name: bytearray(content) for name, content in _left_by_a_kill().items()}
    for _ in range(draw(st.integers(1, 3))):
        content = files[draw(st.sampled_from(["events.db-wal", "events.db-wal", "events.db"]))]
        how = draw(st.sampled_from(["bit", "bit", "cut", "more", "swap"]))
        at = draw(st.integers(0, max(0, len(content) - 1)))
        if how == "bit" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del content[at:]
        elif how == "more":
            content += draw(st.binary(max_size=5000))
        else:
            to = draw(st.integers(0, max(0, len(content) - 1)))
            content[at : at + 100], content[to : to + 100] = (
                content[to : to + 100],
                content[at : at + 100],
            )
    return {name: bytes(content) for name, content in files.items()}


@effort(60)
@given(files=_damaged_files(), newer=st.booleans())
def test_a_damaged_log_is_refused_or_whole_and_never_shorter(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], newer: bool
) -> None:
    """newer: without the mark of what was synced; a snapshot of the last event stands for it."""
    directory = tmp_path_factory.mktemp("log")
    for name, content in files.items():
        (directory / name).write_bytes(content)
    snapshots = FileSnapshots(directory / "snapshots")
    if newer:
        (directory / "events.db-synced").unlink()
        snapshots.save(Offset(40), "key", b"state")
    bodies: list[bytes] = []
    try:
        log = SqliteLog(directory / "events.db")
    except StoreError:
        return
    try:
        bodies = [body for _, body in log.replay()]
        refused = snapshots.newest(log.last) > log.last
    except Corrupt:
        refused = True
    finally:
        log.close()
    assert refused or bodies == [b"body %d " % i * 20 for i in range(40)]
