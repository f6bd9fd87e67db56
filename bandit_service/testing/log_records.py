"""The records that the tests of logs write, and what a log is to give back."""

from __future__ import annotations

import numpy as np

from store import EventLog, Offset, Record


def record(i: int, size: int = 20) -> Record:
    """The i-th record of every test: nothing in it is random, nothing in it repeats."""
    body = np.random.default_rng(i).integers(0, 256, size, np.uint8).tobytes()
    return Record(f"e{i}", "decision" if i % 2 else "reward", 1_700_000_000.25 + i, body)


def records(first: int, last: int) -> list[Record]:
    return [record(i) for i in range(first, last + 1)]


def owned(i: int, owner: str, size: int = 20) -> Record:
    return record(i, size)._replace(owner=owner)


def contents(log: EventLog, after: int = 0) -> list[tuple[int, bytes]]:
    return [(int(at), body) for at, body in log.replay(Offset(after))]


def expected(last: int, after: int = 0) -> list[tuple[int, bytes]]:
    return [(i, record(i).body) for i in range(after + 1, last + 1)]
