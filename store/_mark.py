"""A small file next to a log with the offset of the last sync: evidence if the log ends earlier one
day.

It is written after each sync, and is itself never synced: a power cut may leave an older one, or
none. So its offset may be too small, but never too large.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from pathlib import Path

_MAGIC = b"bandmark"
_FIXED = struct.Struct("<8sqI")


def beside(path: Path) -> Path:
    """The file of the log at `path`."""
    return Path(f"{path}-synced")


def read(path: Path) -> int:
    """The offset up to which the log at `path` was on the disk; 0 without a mark."""
    try:
        content = beside(path).read_bytes()
    except OSError:
        return 0
    if len(content) != _FIXED.size:
        return 0
    magic, upto, crc = _FIXED.unpack(content)
    return int(upto) if magic == _MAGIC and crc == _crc(upto) else 0


class Mark:
    """The file of an open log.

    If it cannot be written, nothing happens, since nothing depends on it.
    """

    def __init__(self, path: Path) -> None:
        self._path = beside(path)
        self._upto = read(path)
        self._file = -1

    def reached(self, upto: int) -> None:
        """Everything up to this offset is on the disk."""
        if upto <= self._upto:
            return
        with contextlib.suppress(OSError):
            if self._file < 0:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            os.pwrite(self._file, _FIXED.pack(_MAGIC, upto, _crc(upto)), 0)
            self._upto = upto

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _crc(upto: int) -> int:
    return zlib.crc32(struct.pack("<q", upto))
