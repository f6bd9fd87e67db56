"""A snapshot and a trained policy go to the disk and through the loop in pieces: no decision waits
for a whole one.
"""

from __future__ import annotations

import asyncio
import io
import os
import struct
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from bandit_service.runtime import folding
from store import Offset, _disk
from store.snapshots import FileSnapshots


def test_a_snapshot_is_on_the_disk_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the fsync of another file, so a checkpoint of the log, waits for all of it."""
    ends = [0]
    monkeypatch.setattr(_disk, "PIECE", 1000)
    monkeypatch.setattr(_disk, "sync_data", lambda at: ends.append(os.fstat(at).st_size))
    whole, kept = os.urandom(7300), FileSnapshots(tmp_path)
    kept.save(Offset(3), "world", whole)
    (path,) = tmp_path.glob("*.snapshot")
    steps = [after - before for before, after in pairwise([*ends, path.stat().st_size])]
    assert len(ends) == 8
    assert max(steps) < 1200  # a piece, and the head of the file with the first one
    assert kept.latest("world") == (3, whole)


@pytest.mark.parametrize("more", [-1, 0, 1, folding.PIECE, 3 * folding.PIECE + 5])
def test_a_trained_policy_comes_in_pieces_and_is_joined_on_a_thread(
    more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    around = len(folding.framed(folding.Folded(1, 2, 3.0, memoryview(bytes(70_000))))) - 4 - 70_000
    learner = os.urandom(folding.PIECE - around + more)
    said = folding.framed(folding.Folded(1, 2, 3.0, memoryview(learner)))
    lengths, at = list[int](), 0
    while at < len(said):
        (length,) = struct.unpack_from(">I", said, at)
        lengths.append(length)
        at += 4 + length
    assert max(lengths) <= folding.PIECE
    assert sum(lengths) == around + len(learner)

    joined, decoded = list[bool](), folding._decoded

    def on(pieces: list[bytes], kind: type[folding.Folded]) -> folding.Folded:
        joined.append(threading.current_thread() is threading.main_thread())
        return decoded(pieces, kind)

    monkeypatch.setattr(folding, "_decoded", on)

    async def read() -> folding.Folded:
        pipe = asyncio.StreamReader()
        pipe.feed_data(said)
        pipe.feed_eof()
        return await folding.answer_of(pipe, folding.Folded)

    found = asyncio.run(read())
    assert found.learner == learner
    assert joined == [False] * (len(lengths) > 1)
    assert folding.read_frame(io.BytesIO(said), folding.Folded) == found
