"""kill -9 of a process that appends and syncs: everything acknowledged is there, once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from store.sqlite import SqliteLog

KILLS = 8
ROOT = Path(__file__).parents[2]

# Appends batches forever; prints "<eid> <eid> ..." when a batch is durable.
CHILD = """
import sys
from store import Record
from store.sqlite import SqliteLog

log = SqliteLog(sys.argv[1])
print("open", flush=True)
batch = 0
while True:
    last, size = log.last, 1 + batch % 7
    eids = [f"e{last + i}" for i in range(1, size + 1)]
    log.append([Record(eid, "decision", 1.0, eid.encode() * 50) for eid in eids])
    log.sync()
    print(*eids, flush=True)
    batch += 1
"""


def _killed_after(path: Path, lines: int) -> list[str]:
    """What a child acknowledged, which was killed after that many lines or a little later."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        acknowledged = [child.stdout.readline() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        # what it still said before it died; its last line may be torn
        acknowledged += [line for line in child.stdout if line.endswith("\n")]
    assert child.returncode == -signal.SIGKILL
    return " ".join(acknowledged).split()


def test_everything_acknowledged_is_there_exactly_once(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "events.db", list[str]()
    for lines in np.random.default_rng(8).integers(1, 250, KILLS).tolist():
        acknowledged += _killed_after(path, lines)
        log = SqliteLog(path)
        replayed = [(int(at), body) for at, body in log.replay()]
        assert replayed == [(i, f"e{i}".encode() * 50) for i in range(1, int(log.last) + 1)]
        log.close()
        there = {body[: len(body) // 50].decode() for _, body in replayed}
        assert there.issuperset(acknowledged)
        assert max(Counter(acknowledged).values()) == 1
    assert len(acknowledged) > 500
