"""Finds the true end of a write-ahead file, and what can be saved of its frames.

SQLite reads a WAL up to the first damaged frame and takes that for its end. So a flipped bit would
make a shorter log unnoticed. A crash leaves another kind of end: a process writes its frames in
order, so no committed transaction follows a frame that it could not finish. If one does follow, the
frame is damaged. A frame is checked by the stored checksum of the one before it, whether or not
that one is damaged. Format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_HEADER, _FRAME, _PAGE = 32, 24, 4096
_BIG = 0x377F0683  # the magic of checksums over big-endian words; one less is little-endian
_VERSION = 3007000
Words = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class _Wal:
    """The complete frames of a file, each checked by itself.

    header: whether it is undamaged. salts: (n, 2). sums: (n + 1, 2), as stored, that of the header
    first. right: (n,) whether the checksum follows from the one before it. commits: (n,).
    """

    magic: int
    header: bool
    head_salts: Words
    salts: Words
    sums: Words
    parts: Words
    right: NDArray[np.bool_]
    commits: NDArray[np.bool_]

    @property
    def length(self) -> int:
        """How many frames SQLite reads."""
        if not self.header:
            return 0
        fits = self.right & (self.salts == self.head_salts).all(axis=1)
        return int(fits.size if fits.all() else np.argmin(fits))

    def generation(self) -> Words:
        """The salts of the frames that belong together: the header's, otherwise those of most
        frames.
        """
        if self.header or not len(self.salts):
            return self.head_salts
        known, counts = np.unique(self.salts[self.right], axis=0, return_counts=True)
        found: Words = known[np.argmax(counts)] if len(known) else self.head_salts
        return found

    def committed(self) -> NDArray[np.intp]:
        """The undamaged frames that end a transaction of this generation."""
        ours = (self.salts == self.generation()).all(axis=1)
        return np.flatnonzero(self.right & self.commits & ours)


def cut_short(path: Path) -> str:
    """Why SQLite would find the wrong end of the WAL; "" if it finds the right one."""
    wal = _read(path)
    if wal is None:
        return ""
    behind = wal.committed()
    behind = behind[behind >= wal.length]
    if not behind.size:
        return ""
    what = f"frame {wal.length + 1}" if wal.header else "the header"
    return f"{what} of {path.name} is damaged, and {behind.size} committed transactions follow it"


def heal(path: Path) -> None:
    """Make SQLite read a copy of a WAL up to the last commit, damage included."""
    wal = _read(path)
    if wal is None:
        return
    ours = (wal.salts == wal.generation()).all(axis=1)
    ends = np.flatnonzero(wal.commits & ours)
    if not ends.size:
        return
    content = bytearray(path.read_bytes())
    salts = wal.generation()
    head = struct.pack(
        ">IIIIII", wal.magic, _VERSION, _PAGE, 0, int(salts[0]), int(salts[1])
    )  # the number of the checkpoint does not matter
    words = np.frombuffer(head, _order(wal.magic)).astype(np.uint32)
    total = _sums(words[None])[0]
    content[:_HEADER] = head + struct.pack(">II", *map(int, total))
    power = _power((_PAGE + 8) // 8)
    for i in range(int(ends[-1]) + 1):
        total = (power @ total + wal.parts[i]).astype(np.uint32)
        at = _HEADER + i * (_FRAME + _PAGE) + 8
        content[at : at + 16] = struct.pack(">IIII", *map(int, salts), *map(int, total))
    path.write_bytes(content)


def _read(path: Path) -> _Wal | None:
    """None if it has no frame."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    n = (len(content) - _HEADER) // (_FRAME + _PAGE)
    if n < 1:
        return None
    magic, version, page = struct.unpack_from(">III", content)
    if magic not in (_BIG, _BIG - 1):  # the flipped bit is in there: this machine wrote it
        magic = _BIG - 1 if sys.byteorder == "little" else _BIG
    words = np.frombuffer(content, np.uint8)
    head = words[: _HEADER - 8].view(_order(magic)).astype(np.uint32)
    told = words[16:_HEADER].view(">u4").astype(np.uint32)
    sound = bool((_sums(head[None])[0] == told[2:]).all()) and (version, page) == (_VERSION, _PAGE)
    frames = words[_HEADER : _HEADER + n * (_FRAME + _PAGE)].reshape(n, _FRAME + _PAGE)
    heads = np.ascontiguousarray(frames[:, :_FRAME]).view(">u4").astype(np.uint32)
    summed = np.concatenate([frames[:, :8], frames[:, _FRAME:]], axis=1)
    parts = _sums(summed.view(_order(magic)).astype(np.uint32))
    sums = np.concatenate([told[None, 2:], heads[:, 4:]])
    expected = (sums[:-1] @ _power((_PAGE + 8) // 8).T + parts).astype(np.uint32)
    return _Wal(
        magic,
        sound,
        told[:2],
        heads[:, 2:4],
        sums,
        parts,
        (expected == heads[:, 4:]).all(axis=1),
        heads[:, 1] != 0,
    )


def _order(magic: int) -> str:
    return ">u4" if magic == _BIG else "<u4"


def _sums(words: Words) -> Words:
    """Of each row of words, the checksum that begins with nothing; all modulo 2³²."""
    weights = _weights(words.shape[1] // 2)
    found: Words = np.stack(
        [(words * weights[:, i]).sum(axis=1, dtype=np.uint32) for i in (0, 1)], axis=1
    )
    return found


@cache
def _weights(pairs: int) -> Words:
    """(2·pairs, 2): what each word adds to both halves, by the steps that come after it."""
    found = np.zeros((2 * pairs, 2), np.uint32)
    s0, s1 = np.array([1, 1], np.uint32), np.array([0, 1], np.uint32)
    step = _power(1)
    for i in range(pairs - 1, -1, -1):
        found[2 * i], found[2 * i + 1] = s0, s1
        s0, s1 = step @ s0, step @ s1
    return found


@cache
def _power(pairs: int) -> Words:
    """The effect of this many steps on the earlier sums: s₀ += x₀ + s₁, s₁ += x₁ + s₀."""
    found, step = np.eye(2, dtype=np.uint32), np.array([[1, 1], [1, 2]], np.uint32)
    for _ in range(pairs):
        found = step @ found
    return found
